//! Hops of a service mesh: mutual TLS between proxies, beside a real Consul agent.
//!
//! ```text
//! inbound:   generator ─▶ nginx ═mutual TLS═▶ contestant ─▶ origin
//! outbound:  generator ─▶ contestant ═mutual TLS═▶ nginx ─▶ origin
//! direct:    the same without contestant and TLS
//! ```
//!
//! Certificates are those that the agent issues, and sessions are not resumed. Agent, nginx and origin are on the generator's
//! core; only the contestant's time counts. Start at [`MeshGround::start`] and [`start`]; [`faults`] is a program of its own.

mod agent;
mod authority;
pub(crate) mod faults;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::agent::{Agent, Sidecar};
use crate::contestant::{Contestant, Ground, Program, Setup};
use crate::net;
use crate::origin::{load_stream_module, nginx_preamble, start_nginx};
use crate::process::{self, LOAD_CORE, PROXY_CORE, Running};

/// The service behind the contestant, or that calls through it.
const OURS: &str = "web";
/// The service on the other side.
const THEIRS: &str = "db";

/// A way through a proxy of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hop {
    /// From the mesh to the application, as bytes.
    Inbound,
    /// From the mesh to the application, each request judged. Consul's own proxy knows only bytes.
    InboundRequests,
    /// From the application into the mesh, as bytes.
    Outbound,
    /// From the application into the mesh, request by request. Consul's own proxy knows only bytes.
    OutboundRequests,
}

impl Hop {
    fn is_inbound(self) -> bool {
        matches!(self, Self::Inbound | Self::InboundRequests)
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Inbound | Self::Outbound => "tcp",
            Self::InboundRequests | Self::OutboundRequests => "http",
        }
    }
}

/// What all contestants of a scenario share.
pub(crate) struct MeshGround {
    agent: Agent,
    ours: Leaf,
    theirs: Leaf,
    /// What outbound hops lead to.
    callee: SocketAddr,
    _callee: Running,
}

/// Files of a certificate.
struct Leaf {
    certificate: PathBuf,
    key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    bundle: PathBuf,
    /// Whom it trusts.
    roots: PathBuf,
}

impl Leaf {
    fn of(service: &str, agent: &Agent, folder: &Path) -> Result<Self> {
        let text = |value: &Value, key: &str| -> Result<String> {
            let text = value.get(key).and_then(Value::as_str);
            Ok(text.with_context(|| format!("no {key}"))?.to_owned())
        };
        let path = format!("/v1/agent/connect/ca/leaf/{service}");
        let leaf = agent.order("GET", &path, None)?;
        let roots = agent.order("GET", "/v1/agent/connect/ca/roots", None)?;
        let roots = roots.get("Roots").and_then(Value::as_array);
        let mut trusted = String::new();
        for root in roots.context("no roots")? {
            trusted.push_str(&text(root, "RootCert")?);
        }
        let (certificate, key) = (text(&leaf, "CertPEM")?, text(&leaf, "PrivateKeyPEM")?);
        let file = |ending: &str| folder.join(format!("{service}-{ending}.pem"));
        let files = Self {
            certificate: file("certificate"),
            key: file("key"),
            bundle: file("bundle"),
            roots: file("roots"),
        };
        fs::write(&files.certificate, &certificate)?;
        fs::write(&files.key, &key)?;
        fs::write(&files.bundle, [certificate, key].concat())?;
        fs::write(&files.roots, trusted)?;
        Ok(files)
    }
}

impl MeshGround {
    /// Starts the agent, and what outbound hops lead to.
    ///
    /// # Errors
    /// When a program is missing or does not start.
    pub(crate) fn start(folder: &Path, origin: SocketAddr) -> Result<Self> {
        let folder = folder.join("mesh");
        fs::create_dir_all(&folder).context("cannot create a folder")?;
        let agent = Agent::start(&folder)?;
        let ours = Leaf::of(OURS, &agent, &folder)?;
        let theirs = Leaf::of(THEIRS, &agent, &folder)?;
        let callee = net::free_address()?;
        let tls = format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on;\n\
             ssl_verify_depth 4; ssl_session_tickets off; ssl_session_cache off;",
            theirs.certificate.display(),
            theirs.key.display(),
            theirs.roots.display()
        );
        // A stream, since Consul's proxy insists on HTTP/2 where anybody names a protocol, and does not speak it.
        let running = start_stream("callee", &folder, &tls, &format!("{callee} ssl"), origin)?;
        agent.register_native(THEIRS, callee)?;
        Ok(Self {
            agent,
            ours,
            theirs,
            callee,
            _callee: running,
        })
    }
}

/// Starts `program` as a proxy of the mesh and waits until a request comes through.
///
/// # Errors
/// When it is missing, refuses its configuration or nothing comes through in time.
pub(crate) fn start(program: Program, hop: Hop, ground: &Ground<'_>) -> Result<Contestant> {
    let mesh = ground.mesh.context("there is no mesh")?;
    let folder = ground.folder.join(format!("{program:?}"));
    fs::create_dir_all(&folder).context("cannot create a contestant's folder")?;
    // Where the generator connects, and where the mesh does.
    let [front, public] = net::free_addresses()?;
    let place = Place {
        folder: &folder,
        front,
        public,
    };
    let mut running = match program {
        Program::Direct => None,
        Program::BuiltIn => Some(start_built_in(hop, ground, mesh, &place)),
        Program::Haproxy => Some(start_haproxy(hop, ground, mesh, &place)),
        Program::Sallyport => Some(start_sallyport(hop, ground, mesh, &place)),
        Program::Nginx | Program::Bare => bail!("{program} does not take part"),
    }
    .transpose()
    .with_context(|| format!("cannot start {program}"))?;
    let caller = match (hop.is_inbound(), program) {
        (_, Program::Direct) => Some(start_caller(ground.origin, None, &place)?),
        (true, _) => Some(start_caller(public, Some(&mesh.theirs), &place)?),
        (false, _) => None,
    };
    if let Some(running) = &mut running {
        let first = if hop.is_inbound() { public } else { front };
        net::await_listener(first, running)?;
        // Its port may be open before it knows anybody to connect to.
        net::await_answer(front, running)?;
    }
    Ok(Contestant {
        program,
        setup: Setup::Mesh(hop),
        plain: front,
        tls: front,
        running,
        _caller: caller,
    })
}

struct Place<'a> {
    folder: &'a Path,
    front: SocketAddr,
    public: SocketAddr,
}

/// The other side of an inbound hop: takes plain connections and opens one to the contestant for each.
fn start_caller(to: SocketAddr, leaf: Option<&Leaf>, place: &Place<'_>) -> Result<Running> {
    let tls = leaf.map_or_else(String::new, |leaf| {
        format!(
            "proxy_ssl on; proxy_ssl_certificate {}; proxy_ssl_certificate_key {};\n\
             proxy_ssl_trusted_certificate {}; proxy_ssl_session_reuse off;",
            leaf.certificate.display(),
            leaf.key.display(),
            leaf.roots.display()
        )
    });
    let mut running = start_stream("caller", place.folder, &tls, &place.front.to_string(), to)?;
    net::await_listener(place.front, &mut running)?;
    Ok(running)
}

/// An nginx on the generator's core that carries bytes, with these directives.
fn start_stream(
    name: &str,
    folder: &Path,
    directives: &str,
    listen: &str,
    to: SocketAddr,
) -> Result<Running> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).context("cannot create a folder")?;
    let configuration = format!(
        "{load}{preamble}stream {{ proxy_timeout 600s; tcp_nodelay on; {directives}\n\
         server {{ listen {listen} backlog=4096; proxy_pass {to}; }} }}\n",
        load = load_stream_module(),
        preamble = nginx_preamble(&folder),
    );
    start_nginx(name, LOAD_CORE, &folder, &configuration)
}

/// Registers a proxy of the hop's service and gives the id of the service.
fn register(hop: Hop, name: &str, ground: &Ground<'_>, place: &Place<'_>) -> Result<String> {
    let mesh = ground.mesh.context("there is no mesh")?;
    let id = format!("{OURS}-{name}");
    let config = json!({"protocol": hop.protocol()});
    let upstreams = match hop.is_inbound() {
        true => Vec::new(),
        false => vec![(THEIRS, place.front, config.clone())],
    };
    mesh.agent.register(&Sidecar {
        service: OURS,
        id: &id,
        application: ground.origin,
        public: place.public,
        config,
        upstreams,
    })?;
    Ok(id)
}

fn start_built_in(
    hop: Hop,
    ground: &Ground<'_>,
    mesh: &MeshGround,
    place: &Place<'_>,
) -> Result<Running> {
    let id = register(hop, "built-in", ground, place)?;
    let arguments = [
        "connect".to_owned(),
        "proxy".to_owned(),
        format!("-sidecar-for={id}"),
        format!("-http-addr={}", mesh.agent.address),
        "-log-level=err".to_owned(),
    ];
    let log = place.folder.join("output.log");
    let program = agent::program()?;
    Running::start("Consul's proxy", PROXY_CORE, &program, arguments, &[], log)
}

fn start_sallyport(
    hop: Hop,
    ground: &Ground<'_>,
    mesh: &MeshGround,
    place: &Place<'_>,
) -> Result<Running> {
    let id = register(hop, "sallyport", ground, place)?;
    let program = ground.gateway.context("no gateway was named")?;
    start_proxy(program, &id, mesh.agent.address, place.folder, &[])
}

/// Sallyport as the sidecar of a service, with these keys besides.
fn start_proxy(
    program: &Path,
    id: &str,
    agent: SocketAddr,
    folder: &Path,
    keys: &[(&str, String)],
) -> Result<Running> {
    let mut environment = vec![
        ("CONSUL_HTTP_ADDR".to_owned(), agent.to_string()),
        (
            "SALLYPORT_PREFIX".to_owned(),
            folder.join("prefix").display().to_string(),
        ),
        ("SALLYPORT_WORKERS".to_owned(), "1".to_owned()),
        ("SALLYPORT_PROXY_ACCESS_LOG".to_owned(), "off".to_owned()),
        ("SALLYPORT_LOG_LEVEL".to_owned(), "warn".to_owned()),
    ];
    if !keys.iter().any(|(key, _)| *key == "STATUS_LISTEN") {
        environment.push(("SALLYPORT_STATUS_LISTEN".to_owned(), "off".to_owned()));
    }
    let keys = keys
        .iter()
        .map(|(key, value)| (format!("SALLYPORT_{key}"), value.clone()));
    environment.extend(keys);
    let arguments = ["connect", "proxy", "--sidecar-for", id];
    let log = folder.join("output.log");
    Running::start(
        "Sallyport",
        PROXY_CORE,
        program,
        arguments,
        &environment,
        log,
    )
}

fn start_haproxy(
    hop: Hop,
    ground: &Ground<'_>,
    mesh: &MeshGround,
    place: &Place<'_>,
) -> Result<Running> {
    let tls = format!(
        "ssl crt {} ca-file {} verify required",
        mesh.ours.bundle.display(),
        mesh.ours.roots.display()
    );
    let (bind, server) = match hop.is_inbound() {
        true => (
            format!("{} {tls} no-tls-tickets", place.public),
            ground.origin.to_string(),
        ),
        false => (
            place.front.to_string(),
            format!("{} {tls} no-ssl-reuse", mesh.callee),
        ),
    };
    let mode = match hop.protocol() {
        "tcp" => "mode tcp",
        _ => "mode http\n  http-reuse always",
    };
    let configuration = format!(
        "global\n  nbthread 1\n  maxconn 8000\n  tune.ssl.cachesize 0\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n  {mode}\n\
         \x20 timeout client 600s\n  timeout server 600s\n  timeout connect 5s\n  timeout http-keep-alive 600s\n\
         frontend front\n  bind {bind} backlog 4096\n  default_backend there\n\
         backend there\n  server there {server} pool-max-conn 512\n"
    );
    let file = place.folder.join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let haproxy = process::find_program("haproxy", "haproxy")?;
    let arguments = ["-db".into(), "-f".into(), file.into_os_string()];
    let log = place.folder.join("output.log");
    Running::start("HAProxy", PROXY_CORE, &haproxy, arguments, &[], log)
}
