//! With one connection, where nothing queues: what a hop adds to the time of an exchange, and what it costs then.
//!
//! Measured twice. A core with nothing to do goes to sleep, and waking it takes longer than all that a proxy does, above all
//! in a virtual machine; a program that keeps its core busy while it waits for bytes is spared that, and pays in CPU time.
//! So the times are taken with cores that are kept awake, which shows what the programs do, and as the machine is, where
//! the CPU time beside them shows what keeping awake costs. Start at [`measure`].

use std::fmt;
use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, bail};

use crate::contestant::Contestant;
use crate::exchange::{ExchangeArguments, exchange};
use crate::generator::Report;
use crate::measure::cpu_microseconds;
use crate::scenario::Load;

/// Where Linux takes the longest time that waking a core may take, for as long as the file is open.
const WAKE_UP_LIMIT: &str = "/dev/cpu_dma_latency";

/// A virtual machine stands still now and then: in the median of many short turns that does not count.
const TURN_SECONDS: u64 = 1;

/// One contestant, once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alone {
    /// None where nobody may keep the cores awake.
    pub(crate) awake: Option<Turn>,
    pub(crate) as_it_is: Turn,
}

/// What one run gave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) report: Report,
    /// CPU µs per request; not a number if there is nobody whose time it could be.
    pub(crate) figure: f64,
}

impl Alone {
    pub(crate) fn failed(&self) -> u64 {
        let awake = self.awake.map_or(0, |turn| turn.report.failed);
        awake + self.as_it_is.report.failed
    }
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times =
            |turn: &Turn| [turn.report.p50_us, turn.report.p99_us].map(Option::unwrap_or_default);
        if let Some([p50, p99]) = self.awake.as_ref().map(times) {
            write!(f, "cores awake {p50:.0} and {p99:.0} µs, ")?;
        }
        let [p50, p99] = times(&self.as_it_is);
        write!(f, "as they are {p50:.0} and {p99:.0} µs")
    }
}

/// All contestants once, one right after the other.
pub(crate) fn measure(load: Load, running: &mut [Contestant]) -> Result<Vec<Alone>> {
    let mut turns = || -> Result<Vec<Turn>> {
        (0..running.len())
            .map(|number| turn(load, running, number))
            .collect()
    };
    let awake = match keep_cores_awake() {
        Some(_held) => turns()?.into_iter().map(Some).collect(),
        None => Vec::new(),
    };
    let awake = awake.into_iter().chain(std::iter::repeat(None));
    let all = awake.zip(turns()?);
    Ok(all
        .map(|(awake, as_it_is)| Alone { awake, as_it_is })
        .collect())
}

/// One of them, the others stopped: a proxy that nobody uses has things to do now and then, on the same core.
fn turn(load: Load, running: &mut [Contestant], number: usize) -> Result<Turn> {
    let mut stopped = Vec::new();
    for (other, contestant) in running.iter_mut().enumerate() {
        if let Some(running) = contestant.running.as_mut().filter(|_| other != number) {
            stopped.push(running.stopped()?);
        }
    }
    let contestant = running.get_mut(number).context("no such contestant")?;
    let (path, close) = match load {
        Load::Http1 { request, .. } => (request.path, false),
        Load::NewConnection { .. } => ("/small", true),
        Load::Http2 | Load::IdleConnections { .. } | Load::IdleTunnels | Load::ResidentMemory => {
            bail!("a load that is nothing for one connection")
        }
    };
    let (host, path) = contestant.setup.host_and_path(path);
    let before = cpu_microseconds(contestant)?;
    let report = exchange(&ExchangeArguments {
        address: contestant.plain,
        host,
        path: path.into_owned(),
        close,
        seconds: TURN_SECONDS,
    })?;
    let spent = cpu_microseconds(contestant)? - before;
    Ok(Turn {
        figure: spent / report.requests.max(1) as f64,
        report,
    })
}

/// Until the file is dropped; none without the right to it, or where there is no such thing.
fn keep_cores_awake() -> Option<File> {
    let mut file = File::options().write(true).open(WAKE_UP_LIMIT).ok()?;
    file.write_all(&0_i32.to_ne_bytes()).ok()?;
    Some(file)
}
