//! Measures what a request costs in the gateway, beside nginx, HAProxy and a bare Pingora proxy.
//!
//! Everything runs on loopback, on free ports, for a bounded time. The figure that counts is
//! CPU microseconds per request of the proxy's process tree, as a ratio to nginx in the same round.
//! `README.md` explains the method; start reading at [`scenario`], then [`measure`].

mod alone;
mod bare;
mod bundles;
mod contestant;
mod exchange;
mod generator;
mod idle;
mod measure;
mod mesh;
mod net;
mod origin;
mod plot;
mod process;
mod report;
mod resilience;
mod scenario;
mod statistics;
mod steady;
mod tls;
mod tunnels;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load tests of Sallyport against nginx, HAProxy and a bare Pingora proxy, one core each.
#[derive(Parser)]
#[command(name = "load-tests", args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Subcommand)]
enum Role {
    /// Run as the bare Pingora proxy (started by the load tests themselves).
    Bare(bare::BareArguments),
    /// Make one of three targets sick under load, and tell what clients notice.
    Resilience(resilience::ResilienceArguments),
    /// Rotate, kill and stop under a service mesh at work, and tell what callers notice.
    Mesh(mesh::faults::MeshArguments),
    /// Run as a target (started by `resilience` itself).
    #[command(hide = true)]
    Target(resilience::TargetArguments),
    /// Make one exchange after the other (started by the load tests themselves).
    #[command(hide = true)]
    Exchange(exchange::ExchangeArguments),
}

/// What to measure and for how long.
#[derive(Args, Clone)]
pub(crate) struct RunArguments {
    /// Seconds per measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds; in each, every contestant is measured once, and ratios are taken within it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only this scenario (may be repeated; `--list` names them).
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// Only this contestant: sallyport, haproxy or bare (may be repeated; those that ratios refer to are always in).
    #[arg(long = "contestant", value_name = "NAME")]
    contestants: Vec<contestant::Program>,
    /// A quick check that everything answers: one second, one round, few scenarios, no results written.
    #[arg(long)]
    smoke: bool,
    /// What a profile is taken of: the gateway alone, every scenario that counts time, a second each, ended in order;
    /// no results written.
    #[arg(long, conflicts_with_all = ["smoke", "contestants"])]
    train: bool,
    /// The gateway's binary; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// Where to write RESULTS.md and results.svg.
    #[arg(long, value_name = "DIR", default_value = "load-tests")]
    out: PathBuf,
    /// List the scenarios and exit.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = match command.role {
        Some(Role::Bare(arguments)) => bare::run(&arguments),
        Some(Role::Resilience(arguments)) => resilience::run(&arguments),
        Some(Role::Mesh(arguments)) => mesh::faults::run(&arguments),
        Some(Role::Target(arguments)) => resilience::run_target(&arguments),
        Some(Role::Exchange(arguments)) => exchange::run(&arguments),
        None => run(command.run),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: RunArguments) -> Result<()> {
    if arguments.list {
        for scenario in scenario::ALL {
            println!("{:<22} {}", scenario.name, scenario.title);
        }
        return Ok(());
    }
    if arguments.smoke || arguments.train {
        arguments.seconds = 1;
        arguments.rounds = 1;
    }
    let mut scenarios = scenario::select(&arguments.scenarios, arguments.smoke)?;
    let mut programs = contestant::select(&arguments.contestants);
    if arguments.train {
        scenarios.retain(|scenario| scenario.load.is_cpu());
        programs = vec![contestant::Program::Sallyport];
    }
    let gateway = if programs.contains(&contestant::Program::Sallyport) {
        Some(gateway_binary(arguments.gateway.as_deref())?)
    } else {
        None
    };
    let descriptors = process::raise_descriptor_limit()?;
    let plan = measure::Plan {
        seconds: arguments.seconds,
        rounds: arguments.rounds,
        scenarios,
        programs,
        gateway,
        idle_connections: if arguments.smoke { 100 } else { 2_000 },
        tunnels: match arguments.smoke {
            true => 100,
            false => tunnels::most(descriptors),
        },
        ended_in_order: arguments.train,
    };
    let results = measure::run(&plan)?;
    let machine = report::Machine::read();
    let table = report::markdown(&results, &machine, &plan);
    println!("{table}");
    if !arguments.smoke && !arguments.train {
        report::write(&arguments.out, &table, &plot::svg(&results))?;
    }
    let failed = results.failed_requests();
    if failed > 0 {
        bail!("{failed} requests failed");
    }
    Ok(())
}

/// The gateway to measure: the path given, or `sallyport` in the folder of this program.
fn gateway_binary(given: Option<&std::path::Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .context("cannot find the folder of this program")?
            .with_file_name("sallyport"),
    };
    if !path.is_file() {
        bail!(
            "no gateway at {}: build it (cargo build --release), or name it with --gateway",
            path.display()
        );
    }
    path.canonicalize()
        .with_context(|| format!("cannot resolve {}", path.display()))
}
