//! The table: one block for each scenario, with the targets beside the figures.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::alone::{Alone, Turn};
use crate::contestant::Setup;
use crate::generator::Report;
use crate::measure::{ContestantResult, Plan, Results, ScenarioResult};
use crate::scenario::{Load, Target};
use crate::statistics::median;

/// What the figures were measured on: no host name, no paths.
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    commit: String,
}

impl Machine {
    /// Reads the CPU's model, the number of cores, and the commit of the working tree.
    pub(crate) fn read() -> Self {
        let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = information
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown CPU", |rest| {
                rest.trim_start_matches([' ', '\t', ':']).trim()
            })
            .to_owned();
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            commit: commit(),
        }
    }
}

/// The results as Markdown.
pub(crate) fn markdown(results: &Results, machine: &Machine, plan: &Plan) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "# Load test results\n");
    let _ = writeln!(
        text,
        "Commit {}, {} ({} cores), {} rounds of {} s. Medians; ratios are taken within a round.",
        machine.commit, machine.cpu, machine.cores, plan.rounds, plan.seconds
    );
    let _ = writeln!(
        text,
        "CPU is user and system time of the proxy's process tree for each request. Differences under 7 % say nothing, \
         but for the first table's, whose ratios are of two programs loaded at once. How it is measured: [README.md](README.md).\n"
    );
    let _ = writeln!(
        text,
        "![CPU per request, as a ratio to nginx](results.svg)\n"
    );
    verdicts(&mut text, results);
    for scenario in &results.scenarios {
        block(&mut text, scenario);
    }
    text
}

/// Writes the table and the plot into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(folder: &Path, table: &str, plot: &str) -> Result<()> {
    fs::write(folder.join("RESULTS.md"), table).context("cannot write RESULTS.md")?;
    fs::write(folder.join("results.svg"), plot).context("cannot write results.svg")?;
    eprintln!("written: {}", folder.join("RESULTS.md").display());
    Ok(())
}

fn verdicts(text: &mut String, results: &Results) {
    let judged: Vec<(&ScenarioResult, f64, bool)> = results
        .scenarios
        .iter()
        .filter_map(|scenario| {
            let (value, met) = scenario.verdict()?;
            Some((scenario, value, met))
        })
        .collect();
    if judged.is_empty() {
        return;
    }
    let _ = writeln!(text, "| target | at most | measured | |\n|---|---|---|---|");
    for (scenario, value, met) in judged {
        let (limit, of) = match scenario.scenario.target {
            Some(Target::ToNginx(limit)) => (limit, " × nginx"),
            Some(Target::ToBuiltIn(limit)) => (limit, " × Consul's proxy"),
            Some(Target::ToOwn(limit)) => (limit, " × own plain figure"),
            Some(Target::AddedToOwn(limit)) => (limit, " µs more than own plain figure"),
            Some(Target::Below(limit)) => (limit, ""),
            None => continue,
        };
        let _ = writeln!(
            text,
            "| {} | {limit}{of} | {value:.2} | {} |",
            scenario.scenario.title,
            if met { "met" } else { "**missed**" }
        );
    }
    text.push('\n');
}

fn block(text: &mut String, result: &ScenarioResult) {
    let scenario = result.scenario;
    let _ = writeln!(text, "## {} (`{}`)\n", scenario.title, scenario.name);
    let is_cpu = scenario.load.is_cpu();
    if let Setup::Mesh(_) = scenario.setup {
        mesh_block(text, result);
        return;
    }
    if is_cpu {
        let _ = writeln!(
            text,
            "| | CPU µs/request | × nginx | × own plain | requests/s | p50 ms | p99 ms | resident MB | failed |\n\
             |---|---|---|---|---|---|---|---|---|"
        );
    } else {
        let unit = if scenario.load == Load::ResidentMemory {
            "MB"
        } else {
            "KiB/connection"
        };
        let _ = writeln!(
            text,
            "| | {unit} | × nginx | resident MB |\n|---|---|---|---|"
        );
    }
    for contestant in &result.contestants {
        let name = if contestant.is_own_baseline {
            format!("{}, plain", contestant.program)
        } else {
            contestant.program.to_string()
        };
        let to_nginx = result
            .nginx()
            .and_then(|nginx| result.ratio(contestant, nginx));
        let figure = number(contestant.figure(), 1);
        let resident = number(contestant.median_of(|round| Some(round.resident_mb)), 1);
        if is_cpu {
            let to_own = if contestant.program == crate::contestant::Program::Sallyport {
                result
                    .own_baseline()
                    .and_then(|own| result.ratio(contestant, own))
            } else {
                None
            };
            let _ = writeln!(
                text,
                "| {name} | {figure} | {} | {} | {} | {} | {} | {resident} | {} |",
                number(to_nginx, 2),
                number(to_own, 2),
                number(
                    contestant.median_of(|round| Some(round.report.requests_per_second)),
                    0
                ),
                number(milliseconds(contestant, |round| round.report.p50_us), 2),
                number(milliseconds(contestant, |round| round.report.p99_us), 2),
                contestant
                    .rounds
                    .iter()
                    .map(|round| round.report.failed)
                    .sum::<u64>(),
            );
        } else {
            let _ = writeln!(
                text,
                "| {name} | {figure} | {} | {resident} |",
                number(to_nginx, 2)
            );
        }
    }
    text.push('\n');
}

/// As [`block`], with what the hop adds to the direct way.
fn mesh_block(text: &mut String, result: &ScenarioResult) {
    let _ = writeln!(
        text,
        "| | CPU µs/request | × Consul's proxy | requests/s | p50 ms | p99 ms | resident MB | failed |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for contestant in &result.contestants {
        let ratio = result
            .baseline()
            .and_then(|baseline| result.ratio(contestant, baseline));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            contestant.program,
            number(contestant.figure(), 1),
            number(ratio, 2),
            number(
                contestant.median_of(|round| Some(round.report.requests_per_second)),
                0
            ),
            number(milliseconds(contestant, |round| round.report.p50_us), 2),
            number(milliseconds(contestant, |round| round.report.p99_us), 2),
            number(contestant.median_of(|round| Some(round.resident_mb)), 1),
            contestant.failed(),
        );
    }
    let _ = writeln!(
        text,
        "\n| one connection | added p50 µs | added p99 µs | CPU µs/request | cores that sleep: added p50 µs | added p99 µs | CPU µs/request |\n\
         |---|---|---|---|---|---|---|"
    );
    let awake: TurnOf = |alone| alone.awake.as_ref();
    let as_it_is: TurnOf = |alone| Some(&alone.as_it_is);
    for contestant in &result.contestants {
        let _ = write!(text, "| {} |", contestant.program);
        for turn in [awake, as_it_is] {
            let added = |time: fn(&Report) -> Option<f64>| {
                result.added(contestant, |alone| time(&turn(alone)?.report))
            };
            let figures = contestant.alone.iter().filter_map(turn);
            let _ = write!(
                text,
                " {} | {} | {} |",
                number(added(|report| report.p50_us), 0),
                number(added(|report| report.p99_us), 0),
                number(median(figures.map(|turn| turn.figure)), 1),
            );
        }
        text.push('\n');
    }
    text.push('\n');
}

/// One of the two ways in which one connection was measured.
type TurnOf = fn(&Alone) -> Option<&Turn>;

fn milliseconds(
    contestant: &ContestantResult,
    value: impl Fn(&crate::measure::Round) -> Option<f64>,
) -> Option<f64> {
    contestant.median_of(value).map(|time| time / 1000.0)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if !changes.is_empty() => format!("{hash} with changes"),
        _ => hash,
    }
}
