//! What callers notice when the mesh's authority changes, the agent goes away or stands still, or an intention forbids a call.
//!
//! A real agent, two services that call each other, and requests at a fixed rate in both directions. A request that was
//! lost fails the program, and so does a forbidden call that lasts too long.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::agent::{self, Agent, Sidecar};
use super::authority::Authority;
use super::start_proxy;
use crate::net;
use crate::origin::{self, Origin};
use crate::process::{self, PROXY_CORE, Running};
use crate::statistics::median;
use crate::steady::{Steady, ask, during};

/// Clients of each load; more requests than this cannot wait at the same time.
const CLIENTS: usize = 48;
/// Requests in a second on each way: half of them on connections of their own.
const RATE: u64 = 200;
/// Before and after whatever happens.
const CALM: Duration = Duration::from_secs(3);
/// The leaf follows the roots within half a minute.
const LEAF_DEADLINE: Duration = Duration::from_secs(60);
/// To hear of an agent that is back.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);
/// How often a call is forbidden.
const DENIALS: usize = 20;
/// A new connection may come through for so long after a call was forbidden, an open one for so long.
const NEW_CUT_MAX: Duration = Duration::from_millis(100);
const OPEN_CUT_MAX: Duration = Duration::from_secs(1);
/// To come true at all.
const CUT_DEADLINE: Duration = Duration::from_secs(10);

/// Faults of a service mesh under load.
#[derive(Args)]
pub(crate) struct MeshArguments {
    /// The gateway's binary; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// Only this trial (may be repeated).
    #[arg(long = "trial", value_name = "NAME")]
    trials: Vec<Trial>,
    /// How long the agent is away or stands still.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    absence: u64,
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Trial {
    /// The authority of the mesh is replaced.
    Rotation,
    /// The agent is killed and comes back.
    Absence,
    /// The agent is stopped, its connections open, and goes on.
    Standstill,
    /// An intention forbids a call.
    Deny,
}

/// Runs all trials and prints their figures.
///
/// # Errors
/// When a request was lost, something took too long, or a program is missing.
pub(crate) fn run(arguments: &MeshArguments) -> Result<()> {
    process::raise_descriptor_limit()?;
    let gateway = crate::gateway_binary(arguments.gateway.as_deref())?;
    let all = [
        Trial::Rotation,
        Trial::Absence,
        Trial::Standstill,
        Trial::Deny,
    ];
    let trials = match arguments.trials.as_slice() {
        [] => &all,
        chosen => chosen,
    };
    let absence = Duration::from_secs(arguments.absence);
    let mut lost = 0;
    let mut late = Vec::new();
    for trial in trials {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let stage = Stage {
            folder: folder.path(),
            gateway: &gateway,
        };
        let outcome = match trial {
            Trial::Rotation => rotation(&stage),
            Trial::Absence => away(&stage, absence, false),
            Trial::Standstill => away(&stage, absence, true),
            Trial::Deny => deny(&stage, &mut late),
        };
        lost += outcome.with_context(|| format!("{trial:?}"))?;
    }
    if lost > 0 {
        bail!("{lost} requests were lost");
    }
    if let Some(late) = late.first() {
        bail!("{late}");
    }
    Ok(())
}

struct Stage<'a> {
    folder: &'a Path,
    gateway: &'a Path,
}

impl Stage<'_> {
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).context("cannot create a folder")?;
        Ok(folder)
    }

    /// Sallyport for a service, with its status page there.
    fn sallyport(
        &self,
        agent: &Agent,
        id: &str,
        status: SocketAddr,
        keys: &[(&str, &str)],
    ) -> Result<Running> {
        let mut all = vec![("STATUS_LISTEN", status.to_string())];
        all.extend(keys.iter().map(|(key, value)| (*key, (*value).to_owned())));
        start_proxy(
            self.gateway,
            id,
            agent.address,
            &self.folder(id)?,
            all.as_slice(),
        )
    }

    /// Consul's own proxy for a service.
    fn built_in(&self, agent: &Agent, id: &str) -> Result<Running> {
        let arguments = [
            "connect".to_owned(),
            "proxy".to_owned(),
            format!("-sidecar-for={id}"),
            format!("-http-addr={}", agent.address),
            "-log-level=err".to_owned(),
        ];
        let log = self.folder(id)?.join("output.log");
        let program = agent::program()?;
        Running::start("Consul's proxy", PROXY_CORE, &program, arguments, &[], log)
    }
}

/// `web` and `db`, each the other's upstream.
struct Pair {
    agent: Agent,
    _origin: Origin,
    to_web: SocketAddr,
    to_db: SocketAddr,
    web_status: SocketAddr,
    web: Running,
    db: Running,
}

/// Who stands before `db`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    /// Consul's own proxy.
    BuiltIn,
    /// Sallyport, which carries bytes and judges callers by the intentions that it keeps.
    Sallyport,
}

impl Pair {
    fn start(stage: &Stage<'_>, protocol: &str, other: Other) -> Result<Self> {
        let agent = Agent::start(stage.folder)?;
        let origin = origin::start(stage.folder)?;
        let [web_public, db_public, to_web, to_db, web_status, db_status] = net::free_addresses()?;
        let register = |service, id, public, protocol: &str, upstream| {
            agent.register(&Sidecar {
                service,
                id,
                application: origin.address,
                public,
                config: json!({"protocol": protocol}),
                upstreams: vec![upstream],
            })
        };
        let bytes = json!({});
        register(
            "web",
            "web-1",
            web_public,
            protocol,
            ("db", to_db, bytes.clone()),
        )?;
        register("db", "db-1", db_public, "tcp", ("web", to_web, bytes))?;
        let mut web = stage.sallyport(&agent, "web-1", web_status, &[])?;
        let mut db = match other {
            Other::BuiltIn => stage.built_in(&agent, "db-1")?,
            Other::Sallyport => {
                let keys = [("CONSUL_AUTHORIZE", "intentions")];
                stage.sallyport(&agent, "db-1", db_status, &keys)?
            }
        };
        for (way, proxy) in [(to_web, &mut db), (to_db, &mut web)] {
            net::await_listener(way, proxy)?;
            net::await_answer(way, proxy)?;
        }
        Ok(Self {
            agent,
            _origin: origin,
            to_web,
            to_db,
            web_status,
            web,
            db,
        })
    }

    /// Both ways, on connections of their own and on kept ones.
    fn loads(&self) -> [Steady; 4] {
        let half = RATE / 2;
        [
            Steady::new("db → web, new connections", self.to_web, half, CLIENTS).afresh(),
            Steady::new("db → web, open connections", self.to_web, half, CLIENTS),
            Steady::new("web → db, new connections", self.to_db, half, CLIENTS).afresh(),
            Steady::new("web → db, open connections", self.to_db, half, CLIENTS),
        ]
    }

    /// A value of the metrics page of `web`'s proxy, by the beginning of its line.
    fn metric(&self, name: &str) -> Option<u64> {
        let page = page(self.web_status, "/metrics").ok()?;
        let line = page.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }
}

fn page(address: SocketAddr, path: &str) -> Result<String> {
    use std::io::Write;

    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(CUT_DEADLINE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// Waits until something is true and tells how long that took.
fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(start.elapsed())
}

/// Prints a table of loads, and gives how many requests were lost.
fn table(loads: &[Steady]) -> u64 {
    println!("\n| way | answered | lost | slowest |\n|---|---|---|---|");
    let mut all = 0;
    for load in loads {
        let lost = load.lost();
        let count: u64 = lost.values().sum();
        all += count;
        println!(
            "| {} | {} | {count} | {} ms |",
            load.name,
            load.answered(),
            load.slowest().as_millis()
        );
        for (reason, count) in lost {
            eprintln!("{}: {count} × {reason}", load.name);
        }
    }
    all
}

/// Replaces the authority while both directions are under load; Consul's own proxy is on the other side.
fn rotation(stage: &Stage<'_>) -> Result<u64> {
    println!(
        "\n## Rotation\n\nA new authority under {RATE} requests/s in each direction, Consul's own proxy on the other side."
    );
    let pair = Pair::start(stage, "tcp", Other::BuiltIn)?;
    let loads = pair.loads();
    let next = Authority::new()?;
    let configuration = json!({"Provider": "consul", "Config": {
        "PrivateKey": next.key, "RootCert": next.certificate, "LeafCertTTL": "1h",
    }});
    let (roots, leaf) = during(&loads, || {
        std::thread::sleep(CALM);
        let before = pair.metric("sallyport_connect_leaf_rotations{service=\"web\"}");
        let began = Instant::now();
        let path = "/v1/connect/ca/configuration";
        pair.agent.order("PUT", path, Some(&configuration))?;
        let name = "sallyport_connect_roots{service=\"web\"}";
        until(LEAF_DEADLINE, "two roots are trusted", || {
            pair.metric(name) == Some(2)
        })?;
        let roots = began.elapsed();
        let name = "sallyport_connect_leaf_rotations{service=\"web\"}";
        // One for the roots, one for the leaf.
        until(LEAF_DEADLINE, "there is a new leaf", || {
            pair.metric(name) >= before.map(|count| count + 2)
        })?;
        let leaf = began.elapsed();
        std::thread::sleep(CALM);
        Ok((roots, leaf))
    })?;
    let lost = table(&loads);
    println!(
        "\nNew roots in use after {} ms, the new leaf after {:.1} s.",
        roots.as_millis(),
        leaf.as_secs_f64()
    );
    Ok(lost)
}

/// Takes the agent away while both directions are under load, and waits until it is heard again.
fn away(stage: &Stage<'_>, absence: Duration, standstill: bool) -> Result<u64> {
    let what = if standstill { "stopped" } else { "killed" };
    println!(
        "\n## {}\n\nThe agent is {what} for {} s under {RATE} requests/s in each direction. Requests to web are judged one \
         by one, connections to db by the intentions that are kept.",
        if standstill { "Standstill" } else { "Absence" },
        absence.as_secs()
    );
    // Consul's own proxy asks its agent about each connection: both are ours.
    let mut pair = Pair::start(stage, "http", Other::Sallyport)?;
    let loads = pair.loads();
    let back = during(&loads, || {
        std::thread::sleep(CALM);
        if standstill {
            pair.agent.signal("STOP")?;
        } else {
            pair.agent.kill();
        }
        std::thread::sleep(absence);
        let began = Instant::now();
        if standstill {
            pair.agent.signal("CONT")?;
        } else {
            pair.agent.revive()?;
        }
        let back = began.elapsed();
        std::thread::sleep(CALM);
        pair.web.check_alive()?;
        pair.db.check_alive()?;
        Ok(back)
    })?;
    let lost = table(&loads);
    // With the load gone, a change must be heard.
    pair.agent.intend("db", "web", "deny")?;
    let heard = until(RECOVERY_DEADLINE, "the change is heard", || {
        ask(&mut None, pair.to_web).is_err()
    })?;
    println!(
        "\nThe agent answered {:.1} s after its return; {} s later a change of intentions was heard within {} ms.",
        back.as_secs_f64(),
        CALM.as_secs(),
        heard.as_millis()
    );
    Ok(lost)
}

/// Forbids a call again and again, and measures for how long it goes on.
fn deny(stage: &Stage<'_>, late: &mut Vec<String>) -> Result<u64> {
    println!(
        "\n## Deny\n\nHow long a call goes on after an intention forbids it, {DENIALS} times.\n\n\
         | protocol | new connections: median, most | open connections: median, most |\n|---|---|---|"
    );
    for protocol in ["tcp", "http"] {
        let stage = Stage {
            folder: &stage.folder(protocol)?,
            gateway: stage.gateway,
        };
        let pair = Pair::start(&stage, protocol, Other::BuiltIn)?;
        let (mut fresh, mut open) = (Vec::new(), Vec::new());
        for _ in 0..DENIALS {
            let (new_cut, open_cut) = deny_once(&pair)?;
            fresh.push(new_cut.as_secs_f64() * 1e3);
            open.push(open_cut.as_secs_f64() * 1e3);
        }
        let most = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
        println!(
            "| {protocol} | {:.1} ms, {:.1} ms | {:.1} ms, {:.1} ms |",
            median(fresh.clone()).unwrap_or_default(),
            most(&fresh),
            median(open.clone()).unwrap_or_default(),
            most(&open)
        );
        for (kind, times, limit) in [
            ("a new", &fresh, NEW_CUT_MAX),
            ("an open", &open, OPEN_CUT_MAX),
        ] {
            let most = most(times);
            if most > limit.as_secs_f64() * 1e3 {
                late.push(format!(
                    "{protocol}: {kind} connection went on for {most:.0} ms, allowed are {limit:?}"
                ));
            }
        }
    }
    Ok(0)
}

fn deny_once(pair: &Pair) -> Result<(Duration, Duration)> {
    let mut kept = None;
    until(CUT_DEADLINE, "the call is allowed", || {
        kept = None;
        ask(&mut kept, pair.to_web).is_ok()
    })?;
    let mut kept = kept.context("there is a connection")?;
    let cut = std::thread::spawn(move || {
        // Nothing was asked for: what comes is the end.
        let _ = kept.read(&mut [0; 64]);
        Instant::now()
    });
    let id = pair.agent.intend("db", "web", "deny")?;
    let denied = Instant::now();
    let new_cut = until(CUT_DEADLINE, "new connections are refused", || {
        ask(&mut None, pair.to_web).is_err()
    })?;
    let ended = cut.join().map_err(|_| anyhow::anyhow!("a thread failed"))?;
    let path = format!("/v1/connect/intentions/{id}");
    pair.agent.order("DELETE", &path, None::<&Value>)?;
    Ok((new_cut, ended.saturating_duration_since(denied)))
}
