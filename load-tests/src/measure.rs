//! The measuring itself: rounds that interleave the contestants, and what they gave.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::alone::{self, Alone};
use crate::bundles::Bundle;
use crate::contestant::{self, API_KEY, Contestant, Ground, Program, Setup};
use crate::generator::{self, Report, Wrk};
use crate::idle;
use crate::mesh::MeshGround;
use crate::net;
use crate::origin;
use crate::scenario::{Load, Scenario, Target};
use crate::statistics::median;
use crate::tls;
use crate::tunnels;

/// Connections of `wrk` when each request opens a new one.
const NEW_CONNECTIONS_AT_ONCE: u32 = 16;
/// Idle connections opened and closed before counting, so that pools and arenas have grown.
const IDLE_WARM_UP: usize = 50;

/// What to do.
pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) rounds: u32,
    pub(crate) scenarios: Vec<&'static Scenario>,
    pub(crate) programs: Vec<Program>,
    /// The gateway's binary; present if [`Program::Sallyport`] takes part.
    pub(crate) gateway: Option<PathBuf>,
    pub(crate) idle_connections: usize,
    pub(crate) tunnels: usize,
    /// Are the contestants told to end, and waited for, instead of killed? What they write at their end is wanted then.
    pub(crate) ended_in_order: bool,
}

/// Everything that was measured.
pub(crate) struct Results {
    pub(crate) scenarios: Vec<ScenarioResult>,
}

/// One scenario with its contestants, in the order in which they started.
pub(crate) struct ScenarioResult {
    pub(crate) scenario: &'static Scenario,
    pub(crate) contestants: Vec<ContestantResult>,
    /// Whom the gateway's target refers to, and the gateway, both loaded at once; one pair for each round.
    pub(crate) at_once: Vec<[Round; 2]>,
}

/// One contestant's rounds.
pub(crate) struct ContestantResult {
    pub(crate) program: Program,
    /// Whether this is the gateway's own plain run beside the scenario's setup.
    pub(crate) is_own_baseline: bool,
    pub(crate) rounds: Vec<Round>,
    /// With one connection, for each second of each round; only in the mesh.
    pub(crate) alone: Vec<Alone>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// The figure to compare: CPU µs per request, KiB per connection, or MB.
    pub(crate) figure: f64,
    pub(crate) report: Report,
    /// Resident memory afterwards, MB.
    pub(crate) resident_mb: f64,
}

impl Results {
    /// Requests that failed, over everything.
    pub(crate) fn failed_requests(&self) -> u64 {
        let contestants = self.scenarios.iter().flat_map(|it| &it.contestants);
        let at_once = self
            .scenarios
            .iter()
            .flat_map(|it| it.at_once.as_flattened());
        contestants.map(ContestantResult::failed).sum::<u64>()
            + at_once.map(|round| round.report.failed).sum::<u64>()
    }
}

impl ScenarioResult {
    /// The median over the rounds of this contestant's figure divided by that of the same round of `other`.
    pub(crate) fn ratio(&self, one: &ContestantResult, other: &ContestantResult) -> Option<f64> {
        let pairs = one.rounds.iter().zip(&other.rounds);
        median(pairs.map(|(one, other)| one.figure / other.figure))
    }

    /// nginx, if it took part.
    pub(crate) fn nginx(&self) -> Option<&ContestantResult> {
        self.of(Program::Nginx)
    }

    /// The contestant that ratios refer to.
    pub(crate) fn baseline(&self) -> Option<&ContestantResult> {
        self.nginx().or_else(|| self.of(Program::BuiltIn))
    }

    fn of(&self, program: Program) -> Option<&ContestantResult> {
        self.contestants
            .iter()
            .find(|contestant| contestant.program == program)
    }

    /// The median over the rounds of what a contestant adds to a time of the direct way, with one connection.
    pub(crate) fn added(
        &self,
        one: &ContestantResult,
        time: impl Fn(&Alone) -> Option<f64>,
    ) -> Option<f64> {
        let direct = self.of(Program::Direct)?;
        let pairs = one.alone.iter().zip(&direct.alone);
        median(pairs.filter_map(|(one, direct)| Some(time(one)? - time(direct)?)))
    }

    /// The gateway under the scenario's own setup.
    pub(crate) fn gateway(&self) -> Option<&ContestantResult> {
        self.contestants.iter().find(|contestant| {
            contestant.program == Program::Sallyport && !contestant.is_own_baseline
        })
    }

    /// The gateway's plain run.
    pub(crate) fn own_baseline(&self) -> Option<&ContestantResult> {
        self.contestants
            .iter()
            .find(|contestant| contestant.is_own_baseline)
    }

    /// The gateway's figure in the terms of its target, and whether the target is met.
    pub(crate) fn verdict(&self) -> Option<(f64, bool)> {
        let gateway = self.gateway()?;
        let (value, limit) = match self.scenario.target? {
            Target::ToNginx(limit) | Target::ToBuiltIn(limit) => {
                let pairs = self.at_once.iter();
                let ratio = median(pairs.map(|[other, gateway]| gateway.figure / other.figure))?;
                (ratio, limit)
            }
            Target::ToOwn(limit) => (self.ratio(gateway, self.own_baseline()?)?, limit),
            Target::AddedToOwn(limit) => {
                let pairs = gateway.rounds.iter().zip(&self.own_baseline()?.rounds);
                let added = median(pairs.map(|(one, plain)| one.figure - plain.figure))?;
                (added, limit)
            }
            Target::Below(limit) => (gateway.figure()?, limit),
        };
        Some((value, value <= limit))
    }
}

impl ContestantResult {
    /// The median figure.
    pub(crate) fn figure(&self) -> Option<f64> {
        median(self.rounds.iter().map(|round| round.figure))
    }

    /// The median of something else about the rounds.
    pub(crate) fn median_of(&self, value: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        median(self.rounds.iter().filter_map(value))
    }

    /// Requests that failed when it was loaded in turn with the others.
    pub(crate) fn failed(&self) -> u64 {
        let alone = self.alone.iter().map(Alone::failed);
        let rounds = self.rounds.iter().map(|round| round.report.failed);
        rounds.chain(alone).sum()
    }
}

/// Runs the plan from beginning to end.
///
/// # Errors
/// When a program is missing, does not start, or answers wrongly before measuring.
pub(crate) fn run(plan: &Plan) -> Result<Results> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let origin = origin::start(folder.path())?;
    let tunnel_origin = tunnels::start_origin()?;
    let certificate = tls::make_certificate(folder.path())?;
    let mut results = Results {
        scenarios: Vec::new(),
    };
    for (number, scenario) in plan.scenarios.iter().enumerate() {
        eprintln!(
            "[{}/{}] {}",
            number + 1,
            plan.scenarios.len(),
            scenario.title
        );
        let scenario_folder = folder.path().join(scenario.name);
        std::fs::create_dir_all(&scenario_folder)?;
        let mesh = match scenario.setup {
            Setup::Mesh(_) => Some(MeshGround::start(&scenario_folder, origin.address)?),
            _ => None,
        };
        let ground = Ground {
            folder: &scenario_folder,
            origin: match scenario.setup {
                Setup::Tunnels => tunnel_origin,
                _ => origin.address,
            },
            certificate: &certificate,
            gateway: plan.gateway.as_deref(),
            mesh: mesh.as_ref(),
        };
        let result = run_scenario(scenario, plan, &ground)
            .with_context(|| format!("scenario {}", scenario.name))?;
        results.scenarios.push(result);
    }
    Ok(results)
}

fn run_scenario(
    scenario: &'static Scenario,
    plan: &Plan,
    ground: &Ground<'_>,
) -> Result<ScenarioResult> {
    let mut running = Vec::new();
    let mut contestants = Vec::new();
    let mut at_once = Vec::new();
    for (program, setup) in line_up(scenario, &plan.programs) {
        let contestant = contestant::start(program, setup, ground)?;
        check(scenario, &contestant).with_context(|| format!("{program} answers wrongly"))?;
        running.push(contestant);
        contestants.push(ContestantResult {
            program,
            is_own_baseline: program == Program::Sallyport && setup != scenario.setup,
            rounds: Vec::new(),
            alone: Vec::new(),
        });
    }
    for round in 0..plan.rounds {
        let mut measured = Vec::new();
        let mut waiting = running.iter_mut();
        while let Some(contestant) = waiting.next() {
            let program = contestant.program;
            let result = contestants.get(measured.len());
            // Memory does not depend on what runs beside.
            let is_pair = result.is_some_and(|result| result.is_own_baseline)
                && !matches!(scenario.load, Load::ResidentMemory);
            // The gateway under the scenario's setup stands behind its plain run.
            let rounds = match is_pair.then(|| waiting.next()).flatten() {
                Some(other) => measure_together(
                    scenario.load,
                    [contestant, other],
                    plan.seconds,
                    ground.folder,
                )
                .map(|pair| pair.to_vec()),
                None => measure(scenario, contestant, plan, ground.folder).map(|one| vec![one]),
            };
            measured.extend(rounds.with_context(|| format!("{program}, round {}", round + 1))?);
        }
        for (measured, result) in measured.into_iter().zip(&mut contestants) {
            eprintln!(
                "    round {}: {:<13} {:>9.1}  ({} failed)",
                round + 1,
                result.program.to_string(),
                measured.figure,
                measured.report.failed
            );
            result.rounds.push(measured);
        }
        if let Some(rivals) = rivals(scenario, &mut running) {
            let pair = measure_together(scenario.load, rivals, plan.seconds, ground.folder);
            let pair = pair.with_context(|| format!("at once, round {}", round + 1))?;
            let [other, gateway] = pair.map(|round| round.figure);
            eprintln!(
                "    round {}: at once {gateway:>15.1} / {other:.1}",
                round + 1
            );
            at_once.push(pair);
        }
        if let Setup::Mesh(_) = scenario.setup {
            for _ in 0..plan.seconds {
                let alone = alone::measure(scenario.load, &mut running);
                let alone = alone.with_context(|| format!("alone, round {}", round + 1))?;
                for (alone, result) in alone.into_iter().zip(&mut contestants) {
                    eprintln!(
                        "    round {}: {:<13} one connection, {alone}",
                        round + 1,
                        result.program.to_string(),
                    );
                    result.alone.push(alone);
                }
            }
        }
    }
    if plan.ended_in_order {
        for running in running
            .iter_mut()
            .filter_map(|contestant| contestant.running.as_mut())
        {
            running.end()?;
        }
    }
    Ok(ScenarioResult {
        scenario,
        contestants,
        at_once,
    })
}

/// Whom the target refers to, and the gateway.
fn rivals<'a>(
    scenario: &Scenario,
    running: &'a mut [Contestant],
) -> Option<[&'a mut Contestant; 2]> {
    let reference = match scenario.target? {
        Target::ToNginx(_) => Program::Nginx,
        Target::ToBuiltIn(_) => Program::BuiltIn,
        // Loaded together already, or to be held to a figure.
        Target::ToOwn(_) | Target::AddedToOwn(_) | Target::Below(_) => return None,
    };
    let place = |program| running.iter().position(|other| other.program == program);
    let places = [place(reference)?, place(Program::Sallyport)?];
    running.get_disjoint_mut(places).ok()
}

/// Who takes part in a scenario, and with what.
fn line_up(scenario: &Scenario, programs: &[Program]) -> Vec<(Program, Setup)> {
    let mut line_up = Vec::new();
    for program in programs.iter().copied() {
        let in_mesh = matches!(scenario.setup, Setup::Mesh(_));
        match program {
            Program::Bare if !scenario.bare => {}
            Program::Nginx if in_mesh => {}
            Program::BuiltIn | Program::Direct if !in_mesh => {}
            Program::Haproxy if scenario.setup == Setup::Tunnels => {}
            Program::Sallyport if scenario.own_baseline => {
                line_up.push((program, Setup::Plain));
                line_up.push((program, scenario.setup));
            }
            Program::Nginx
            | Program::Haproxy
            | Program::Bare
            | Program::BuiltIn
            | Program::Direct
            | Program::Sallyport => {
                line_up.push((program, scenario.setup));
            }
        }
    }
    line_up
}

fn check(scenario: &Scenario, contestant: &Contestant) -> Result<()> {
    let (path, body_bytes, extra) = match scenario.load {
        Load::Http1 { request, .. } => (request.path, request.body_bytes, request.headers),
        _ => ("/small", origin::SMALL_BYTES, 0),
    };
    let (host, path) = contestant.setup.host_and_path(path);
    let headers = headers_for(contestant, extra);
    net::check_answer(contestant.plain, &host, &path, &headers, body_bytes)
}

fn headers_for(contestant: &Contestant, extra: usize) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = (0..extra)
        .map(|number| (format!("X-Client-{number}"), format!("value-{number}")))
        .collect();
    if matches!(
        contestant.setup,
        Setup::Plugins | Setup::Bundle(Bundle::Policies)
    ) {
        headers.push(("apikey".to_owned(), API_KEY.to_owned()));
    }
    headers
}

fn measure(
    scenario: &Scenario,
    contestant: &mut Contestant,
    plan: &Plan,
    folder: &Path,
) -> Result<Round> {
    match scenario.load {
        Load::IdleConnections { tls } => measure_idle(contestant, tls, plan.idle_connections),
        Load::IdleTunnels => measure_tunnels(contestant, plan.tunnels),
        Load::ResidentMemory => {
            // Some traffic first: a table that was never searched may not be resident.
            let report = generate(scenario.load, contestant, 1, folder)?;
            let resident_mb = resident_mb(contestant)?;
            Ok(Round {
                figure: resident_mb,
                report,
                resident_mb,
            })
        }
        load => {
            let before = warmed(load, contestant, folder)?;
            let report = generate(load, contestant, plan.seconds, folder)?;
            round_since(before, contestant, report)
        }
    }
}

/// Loads two contestants at once, the second of them the gateway, on the same core in the same seconds: a slow stretch of
/// the machine finds both.
fn measure_together(
    load: Load,
    [other, gateway]: [&mut Contestant; 2],
    seconds: u64,
    folder: &Path,
) -> Result<[Round; 2]> {
    let before_other = warmed(load, other, folder)?;
    let before_gateway = warmed(load, gateway, folder)?;
    let generate = |contestant: &Contestant| generate(load, contestant, seconds, folder);
    let (beside, report) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| generate(other));
        let report = generate(gateway);
        (beside.join(), report)
    });
    let beside = beside.unwrap_or_else(|_| bail!("the load's thread panicked"));
    Ok([
        round_since(before_other, other, beside?)?,
        round_since(before_gateway, gateway, report?)?,
    ])
}

/// What a contestant has spent once it is warm.
fn warmed(load: Load, contestant: &mut Contestant, folder: &Path) -> Result<f64> {
    generate(load, contestant, 1, folder)?;
    cpu_microseconds(contestant)
}

/// What the requests of this report cost, of a contestant that had spent `before`.
fn round_since(before: f64, contestant: &mut Contestant, report: Report) -> Result<Round> {
    Ok(Round {
        // Not a number, hence not counted, if there is nobody whose time it could be.
        figure: (cpu_microseconds(contestant)? - before) / report.requests.max(1) as f64,
        report,
        resident_mb: resident_mb(contestant)?,
    })
}

/// Loads a contestant.
fn generate(load: Load, contestant: &Contestant, seconds: u64, folder: &Path) -> Result<Report> {
    let (tls, path, connections, extra, close) = match load {
        Load::Http1 { request, tls } => (
            tls,
            request.path,
            request.connections,
            request.headers,
            false,
        ),
        Load::NewConnection { tls } => (tls, "/small", NEW_CONNECTIONS_AT_ONCE, 0, true),
        Load::Http2 => {
            let headers = headers_for(contestant, 0);
            return generator::h2load(contestant.tls, "/small", &headers, seconds, folder);
        }
        Load::IdleConnections { tls } => (tls, "/small", 1, 0, false),
        Load::IdleTunnels | Load::ResidentMemory => (false, "/small", 32, 0, false),
    };
    let (host, path) = contestant.setup.host_and_path(path);
    let mut headers = headers_for(contestant, extra);
    if close {
        headers.push(("Connection".to_owned(), "close".to_owned()));
    }
    Wrk {
        address: if tls {
            contestant.tls
        } else {
            contestant.plain
        },
        tls,
        host: &host,
        path: &path,
        headers: &headers,
        connections,
        seconds,
    }
    .run()
}

fn measure_idle(contestant: &mut Contestant, tls: bool, count: usize) -> Result<Round> {
    let address = if tls {
        contestant.tls
    } else {
        contestant.plain
    };
    measure_growth(contestant, count, |count| idle::open(address, tls, count))
}

fn measure_tunnels(contestant: &mut Contestant, count: usize) -> Result<Round> {
    let address = contestant.plain;
    measure_growth(contestant, count, |count| tunnels::open(address, count))
}

/// What resident memory grows by for each of `count` connections that `open` opens and keeps.
fn measure_growth<T>(
    contestant: &mut Contestant,
    count: usize,
    open: impl Fn(usize) -> Result<T>,
) -> Result<Round> {
    drop(open(IDLE_WARM_UP)?);
    let before = resident_mb(contestant)?;
    let connections = open(count)?;
    let after = resident_mb(contestant)?;
    drop(connections);
    Ok(Round {
        figure: (after - before).max(0.0) * 1e6 / 1024.0 / count.max(1) as f64,
        resident_mb: resident_mb(contestant)?,
        ..Round::default()
    })
}

/// Not a number if there is nobody.
pub(crate) fn cpu_microseconds(contestant: &mut Contestant) -> Result<f64> {
    let running = contestant.running.as_mut();
    running.map_or(Ok(f64::NAN), |it| Ok(it.cpu_microseconds()? as f64))
}

/// Not a number if there is nobody.
fn resident_mb(contestant: &mut Contestant) -> Result<f64> {
    let running = contestant.running.as_mut();
    running.map_or(Ok(f64::NAN), |it| {
        Ok(it.resident_kib()? as f64 * 1024.0 / 1e6)
    })
}
