//! What a client notices when one of three targets dies, freezes, resets or turns slow; and what probing many costs.
//!
//! Requests come at a fixed rate whatever becomes of the earlier ones. Each fault is tried twice: with retries alone, and
//! with passive and active health checks besides. Targets are processes of this program, so that they can be stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::net::{await_listener, free_address};
use crate::process::{self, LOAD_CORE, PROXY_CORE, Running};
use crate::steady::{PATIENCE, Steady, during};

/// Requests in a second.
const RATE: u64 = 500;
/// Clients; enough for all requests that a frozen target may hold.
const CLIENTS: usize = 256;
/// Before the fault, and after its end.
const CALM: Duration = Duration::from_secs(4);
/// How long the fault lasts.
const FAULT: Duration = Duration::from_secs(6);
/// How long a slow target waits with each answer; longer than the service's read timeout.
const SLOW: Duration = Duration::from_secs(2);
/// Targets of the probing figure, and the seconds between two probes of one.
const MANY_TARGETS: usize = 10_000;
const MANY_INTERVAL: u64 = 10;
/// The share of a core that probing them may take, in per cent.
const MANY_PERCENT_MAX: f64 = 5.0;

/// Faults under load, and the price of probes.
#[derive(Args)]
pub(crate) struct ResilienceArguments {
    /// The gateway's binary; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// Only this fault (may be repeated).
    #[arg(long = "fault", value_name = "NAME")]
    faults: Vec<Fault>,
    /// Leave out the price of probes.
    #[arg(long)]
    no_probes: bool,
}

/// What happens to one of the targets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Fault {
    Kill,
    Freeze,
    Reset,
    Slow,
}

/// A target, run as a process of its own.
#[derive(Args)]
pub(crate) struct TargetArguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// What it calls itself in its answers.
    #[arg(long)]
    name: String,
    /// A file that says how to behave: `slow`, `reset`, or anything else to be well.
    #[arg(long)]
    mood: PathBuf,
}

/// Answers as the mood file says, until killed.
pub(crate) fn run_target(arguments: &TargetArguments) -> Result<()> {
    let listener = TcpListener::bind(arguments.listen).context("cannot listen")?;
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            scope.spawn(move || {
                // Clients come and go as they like.
                let _ = stream
                    .map_err(Into::into)
                    .and_then(|it| answer_all(it, arguments));
            });
        }
    });
    Ok(())
}

fn answer_all(mut stream: TcpStream, arguments: &TargetArguments) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        // Closing with bytes unread resets the connection.
        if stream.peek(&mut piece)? == 0 {
            return Ok(());
        }
        let mood = fs::read_to_string(&arguments.mood).unwrap_or_default();
        if mood == "reset" {
            return Ok(());
        }
        let length = stream.read(&mut piece)?;
        seen.extend_from_slice(piece.get(..length).unwrap_or_default());
        while let Some(end) = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            seen.drain(..end + 4);
            if mood == "slow" {
                std::thread::sleep(SLOW);
            }
            let name = &arguments.name;
            let answer =
                format!("HTTP/1.1 200 OK\r\nX-Target: {name}\r\nContent-Length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes())?;
        }
    }
}

/// Runs all trials and prints their figures.
pub(crate) fn run(arguments: &ResilienceArguments) -> Result<()> {
    process::raise_descriptor_limit()?;
    let gateway = crate::gateway_binary(arguments.gateway.as_deref())?;
    let all = [Fault::Kill, Fault::Freeze, Fault::Reset, Fault::Slow];
    let faults = match arguments.faults.as_slice() {
        [] => &all,
        chosen => chosen,
    };
    println!(
        "{RATE} GETs a second to three targets; one is sick for {} s\n",
        FAULT.as_secs()
    );
    println!(
        "| fault | health checks | requests | failed | slowest | last answer of the sick | unhealthy after | healthy again after | first answer after recovery |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut failed = 0;
    for fault in faults {
        for checked in [false, true] {
            let figures = trial(&gateway, *fault, checked)
                .with_context(|| format!("{fault:?}, health checks {checked}"))?;
            println!("{}", figures.row(*fault, checked));
            failed += figures.failed;
        }
    }
    let mut too_dear = None;
    if !arguments.no_probes {
        let percent = price_of_probes(&gateway)?;
        println!(
            "\n{MANY_TARGETS} targets, each probed by HTTP every {MANY_INTERVAL} s: {percent:.2} % of a core"
        );
        too_dear = (percent > MANY_PERCENT_MAX).then_some(percent);
    }
    if failed > 0 {
        bail!("{failed} requests failed");
    }
    if let Some(percent) = too_dear {
        bail!("probing takes {percent:.2} % of a core, allowed are {MANY_PERCENT_MAX}");
    }
    Ok(())
}

/// What was seen in one trial. Times count from the beginning or the end of the fault.
struct Figures {
    requests: u64,
    failed: u64,
    slowest: Duration,
    last_answer: Option<Duration>,
    unhealthy: Option<Duration>,
    healthy: Option<Duration>,
    first_answer: Option<Duration>,
}

impl Figures {
    fn row(&self, fault: Fault, checked: bool) -> String {
        let shown = |time: Option<Duration>| match time {
            Some(time) => format!("{} ms", time.as_millis()),
            None => "–".to_owned(),
        };
        let checks = if checked { "passive, active" } else { "none" };
        format!(
            "| {fault:?} | {checks} | {} | {} | {} ms | {} | {} | {} | {} |",
            self.requests,
            self.failed,
            self.slowest.as_millis(),
            shown(self.last_answer),
            shown(self.unhealthy),
            shown(self.healthy),
            shown(self.first_answer)
        )
    }
}

/// A target with the means to make it sick.
struct Patient {
    address: SocketAddr,
    name: String,
    folder: PathBuf,
    process: Option<Running>,
}

impl Patient {
    fn start(folder: &Path, name: &str) -> Result<Self> {
        let mut patient = Self {
            address: free_address()?,
            name: name.to_owned(),
            folder: folder.to_owned(),
            process: None,
        };
        patient.mood("well")?;
        patient.revive()?;
        Ok(patient)
    }

    fn mood_file(&self) -> PathBuf {
        self.folder.join(format!("{}.mood", self.name))
    }

    fn mood(&self, mood: &str) -> Result<()> {
        // Replaced in one step: the target reads it all the time.
        let draft = self.mood_file().with_extension("draft");
        fs::write(&draft, mood)?;
        fs::rename(&draft, self.mood_file()).context("cannot change a mood")
    }

    fn revive(&mut self) -> Result<()> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let arguments = [
            "target".to_owned(),
            format!("--listen={}", self.address),
            format!("--name={}", self.name),
            format!("--mood={}", self.mood_file().display()),
        ];
        let log = self.folder.join(format!("{}.log", self.name));
        let mut process = Running::start(&self.name, LOAD_CORE, &program, arguments, &[], log)?;
        await_listener(self.address, &mut process)?;
        self.process = Some(process);
        Ok(())
    }

    fn signal(&self, name: &str) -> Result<()> {
        let running = self.process.as_ref().context("it is dead")?;
        process::signal(name, &[running.id()])
    }

    fn strike(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill => self.process = None,
            Fault::Freeze => self.signal("STOP")?,
            Fault::Reset => self.mood("reset")?,
            Fault::Slow => self.mood("slow")?,
        }
        Ok(())
    }

    fn heal(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill => self.revive(),
            Fault::Freeze => self.signal("CONT"),
            Fault::Reset | Fault::Slow => self.mood("well"),
        }
    }
}

fn trial(gateway: &Path, fault: Fault, checked: bool) -> Result<Figures> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut patients = Vec::new();
    for name in ["one", "two", "three"] {
        patients.push(Patient::start(folder.path(), name)?);
    }
    let targets: Vec<SocketAddr> = patients.iter().map(|patient| patient.address).collect();
    let checks = match checked {
        true => CHECKS,
        false => "{}",
    };
    let mut started = start_gateway(gateway, folder.path(), &targets, checks)?;
    let sick = patients.last_mut().context("there are three")?;
    let load = [Steady::new("pool", started.proxy, RATE, CLIENTS)
        .marking(format!("X-Target: {}\r\n", sick.name))];
    let (mut unhealthy, mut healthy) = (None, None);
    let (mut struck, mut healed) = (Duration::ZERO, Duration::ZERO);
    during(&load, || {
        let [load] = &load;
        std::thread::sleep(CALM);
        struck = load.elapsed();
        sick.strike(fault)?;
        unhealthy = watch(started.admin, FAULT, checked, |page| {
            page.contains("\"UNHEALTHY\"")
        });
        healed = load.elapsed();
        sick.heal(fault)?;
        healthy = watch(started.admin, CALM, checked, |page| {
            !page.contains("\"UNHEALTHY\"") && page.contains("\"HEALTHY\"")
        });
        Ok(())
    })?;
    started.running.check_alive()?;
    let [load] = load;
    let lost = load.lost();
    for (reason, times) in &lost {
        eprintln!("{times} times: {reason}");
    }
    let (failed, answers) = (lost.values().sum(), load.marked());
    let between = |from: Duration, to: Duration| {
        answers
            .iter()
            .copied()
            .filter(move |at| (from..to).contains(at))
    };
    Ok(Figures {
        requests: load.answered() + failed,
        failed,
        slowest: load.slowest(),
        last_answer: between(struck, healed).max().map(|at| at - struck),
        unhealthy,
        healthy: healthy.filter(|_| unhealthy.is_some()),
        first_answer: between(healed, Duration::MAX).min().map(|at| at - healed),
    })
}

/// Passive and active, so that each kind of fault is noticed by both.
const CHECKS: &str = r#"{
    "passive": {"unhealthy": {"tcp_failures": 3, "timeouts": 3, "http_failures": 3}},
    "active": {
        "timeout": 0.3,
        "healthy": {"interval": 0.5, "successes": 2},
        "unhealthy": {"interval": 0.5, "tcp_failures": 2, "timeouts": 2, "http_failures": 2}
    }
}"#;

/// After how long the health page satisfied the condition for the first time. Takes `time` in any case.
fn watch(
    admin: SocketAddr,
    time: Duration,
    checked: bool,
    condition: impl Fn(&str) -> bool,
) -> Option<Duration> {
    let start = Instant::now();
    let mut seen = None;
    while start.elapsed() < time {
        if checked && seen.is_none() {
            let page = get(admin, "/upstreams/pool.test/health").unwrap_or_default();
            seen = condition(&page).then(|| start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    seen
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

struct Started {
    running: Running,
    proxy: SocketAddr,
    admin: SocketAddr,
}

/// A gateway with one service over these targets.
fn start_gateway(
    program: &Path,
    folder: &Path,
    targets: &[SocketAddr],
    checks: &str,
) -> Result<Started> {
    let (proxy, admin) = (free_address()?, free_address()?);
    let targets: Vec<String> = targets
        .iter()
        .map(|target| format!(r#"{{"target": "{target}"}}"#))
        .collect();
    let file = folder.join("kong.json");
    fs::write(
        &file,
        format!(
            r#"{{
                "_format_version": "3.0",
                "upstreams": [{{"name": "pool.test", "healthchecks": {checks}, "targets": [{}]}}],
                "services": [{{
                    "name": "s", "host": "pool.test", "retries": 5, "connect_timeout": 500,
                    "read_timeout": 500, "routes": [{{"name": "r", "paths": ["/"]}}]
                }}]
            }}"#,
            targets.join(", ")
        ),
    )?;
    let settings = BTreeMap::from([
        ("PREFIX", folder.join("prefix").display().to_string()),
        ("PROXY_LISTEN", proxy.to_string()),
        ("ADMIN_LISTEN", admin.to_string()),
        ("ADMIN_GUI_LISTEN", "off".to_owned()),
        ("STATUS_LISTEN", "off".to_owned()),
        ("DATABASE", "off".to_owned()),
        ("DECLARATIVE_CONFIG", file.display().to_string()),
        ("PROXY_ACCESS_LOG", "off".to_owned()),
        ("LOG_LEVEL", "crit".to_owned()),
    ]);
    let environment: Vec<(String, String)> = settings
        .into_iter()
        .map(|(key, value)| (format!("SALLYPORT_{key}"), value))
        .collect();
    let log = folder.join("gateway.log");
    let mut running = Running::start("gateway", PROXY_CORE, program, ["start"], &environment, log)?;
    await_listener(proxy, &mut running)?;
    await_listener(admin, &mut running)?;
    Ok(Started {
        running,
        proxy,
        admin,
    })
}

/// The share of a core that the gateway takes while it does nothing but probe, in per cent.
fn price_of_probes(gateway: &Path) -> Result<f64> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_address()?.port()));
    let mut patient = Patient {
        address: all,
        name: "all".to_owned(),
        folder: folder.path().to_owned(),
        process: None,
    };
    patient.mood("well")?;
    patient.revive()?;
    // Every address of the loopback network is the same process.
    let targets: Vec<SocketAddr> = (0..MANY_TARGETS)
        .map(|number| {
            let [.., high, low] = number.to_be_bytes();
            SocketAddr::from(([127, 1, high, low], all.port()))
        })
        .collect();
    let checks = format!(
        r#"{{"active": {{"concurrency": 100, "healthy": {{"interval": {MANY_INTERVAL}, "successes": 1}}}}}}"#
    );
    let mut started = start_gateway(gateway, folder.path(), &targets, &checks)?;
    let settle = Duration::from_secs(MANY_INTERVAL + 2);
    std::thread::sleep(settle);
    let before = started.running.cpu_microseconds()?;
    let span = Duration::from_secs(2 * MANY_INTERVAL);
    std::thread::sleep(span);
    let spent = started.running.cpu_microseconds()? - before;
    Ok(spent as f64 / span.as_micros() as f64 * 100.0)
}
