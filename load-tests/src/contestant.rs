//! The programs under test: how each is configured for a [`Setup`] and started on the proxies' core.

use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::bundles::{self, Bundle};
use crate::mesh::{self, Hop, MeshGround};
use crate::net;
use crate::origin::{load_stream_module, nginx_http_common, nginx_preamble, start_nginx};
use crate::process::{self, PROXY_CORE, Running};
use crate::tls::CertificateFiles;

/// Routes of [`Setup::ManyRoutes`].
pub(crate) const MANY_ROUTES: usize = 10_000;
/// The key that [`Setup::Plugins`] expects.
pub(crate) const API_KEY: &str = "load-test-key";

/// A program that can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Program {
    Nginx,
    Haproxy,
    Bare,
    /// The proxy that comes with Consul; only in the mesh.
    BuiltIn,
    /// Nobody: what the same way costs without a proxy; only in the mesh.
    Direct,
    Sallyport,
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Bare => "bare Pingora",
            Self::BuiltIn => "Consul's proxy",
            Self::Direct => "direct",
            Self::Sallyport => "Sallyport",
        })
    }
}

/// What a contestant is configured to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Setup {
    /// One route for everything.
    Plain,
    /// [`MANY_ROUTES`] routes, each with a host and a path of its own.
    ManyRoutes,
    /// One route behind key-auth, rate-limiting and correlation-id. Programs without plugins run plain.
    Plugins,
    /// A bundle of flows instead of a route. Other programs run plain.
    Bundle(Bundle),
    /// Connections carried as bytes, whatever they mean: TCP, and TLS that ends at the proxy.
    Stream,
    /// A proxy of a service mesh; see [`mesh`].
    Mesh(Hop),
    /// One route, in front of an origin that accepts WebSockets.
    Tunnels,
}

impl Setup {
    /// Host and path of the requests: in the middle of the table, where no list search is lucky.
    pub(crate) fn host_and_path<'a>(self, path: &'a str) -> (String, std::borrow::Cow<'a, str>) {
        match self {
            Self::ManyRoutes => {
                let number = MANY_ROUTES / 2;
                (host_of(number), format!("{}/small", path_of(number)).into())
            }
            Self::Plain
            | Self::Plugins
            | Self::Stream
            | Self::Tunnels
            | Self::Mesh(_)
            | Self::Bundle(_) => ("localhost".to_owned(), path.into()),
        }
    }
}

/// A contestant that accepts requests. Ends when dropped.
pub(crate) struct Contestant {
    pub(crate) program: Program,
    pub(crate) setup: Setup,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// None if there is nobody in between.
    pub(crate) running: Option<Running>,
    /// Somebody on the generator's core who is needed to reach the contestant.
    pub(crate) _caller: Option<Running>,
}

/// What every contestant needs to know.
pub(crate) struct Ground<'a> {
    /// Folder for configuration files, one subfolder each.
    pub(crate) folder: &'a Path,
    pub(crate) origin: SocketAddr,
    pub(crate) certificate: &'a CertificateFiles,
    /// The gateway's binary, if it takes part.
    pub(crate) gateway: Option<&'a Path>,
    /// Present if the scenario has a [`Setup::Mesh`].
    pub(crate) mesh: Option<&'a MeshGround>,
}

/// The programs asked for, always with those that ratios refer to. All of them when none is named.
pub(crate) fn select(names: &[Program]) -> Vec<Program> {
    Program::value_variants()
        .iter()
        .copied()
        .filter(|program| {
            let compared = [Program::Nginx, Program::BuiltIn, Program::Direct];
            names.is_empty() || compared.contains(program) || names.contains(program)
        })
        .collect()
}

/// Starts `program` with `setup` and waits until it listens.
///
/// # Errors
/// When it is not installed, refuses its configuration or does not listen in time.
pub(crate) fn start(program: Program, setup: Setup, ground: &Ground<'_>) -> Result<Contestant> {
    if let Setup::Mesh(hop) = setup {
        return mesh::start(program, hop, ground);
    }
    let folder = ground.folder.join(format!("{program:?}-{setup:?}"));
    fs::create_dir_all(&folder).context("cannot create a contestant's folder")?;
    let plain = net::free_address()?;
    let tls = net::free_address()?;
    let place = Place { folder, plain, tls };
    let mut running = match program {
        Program::Nginx => start_nginx_proxy(setup, ground, &place),
        Program::Haproxy => start_haproxy(setup, ground, &place),
        Program::Bare => start_bare(ground, &place),
        Program::BuiltIn | Program::Direct => bail!("only in the mesh"),
        Program::Sallyport => start_sallyport(setup, ground, &place),
    }
    .with_context(|| format!("cannot start {program}"))?;
    net::await_listener(plain, &mut running)?;
    net::await_listener(tls, &mut running)?;
    Ok(Contestant {
        program,
        setup,
        plain,
        tls,
        running: Some(running),
        _caller: None,
    })
}

struct Place {
    folder: PathBuf,
    plain: SocketAddr,
    tls: SocketAddr,
}

fn start_nginx_proxy(setup: Setup, ground: &Ground<'_>, place: &Place) -> Result<Running> {
    if setup == Setup::Stream {
        return start_nginx_stream(ground, place);
    }
    let listen = format!(
        "listen {plain} backlog=4096; listen {tls} ssl http2 backlog=4096;",
        plain = place.plain,
        tls = place.tls
    );
    let pass = "proxy_pass http://origin;";
    let mut servers = String::new();
    match setup {
        Setup::Tunnels => {
            let upgrade = "proxy_set_header Connection $http_connection; proxy_set_header Upgrade $http_upgrade;";
            writeln!(
                servers,
                "server {{ {listen} location / {{ {upgrade} {pass} proxy_read_timeout 600s; }} }}"
            )?;
        }
        Setup::Plain | Setup::Plugins | Setup::Stream | Setup::Mesh(_) | Setup::Bundle(_) => {
            writeln!(servers, "server {{ {listen} location / {{ {pass} }} }}")?;
        }
        Setup::ManyRoutes => {
            for number in 0..MANY_ROUTES {
                // Options of a listening socket may be given once only, and a TLS context for each
                // server would cost nginx 80 KB a route: the requests of this setup are plain.
                let listen = if number == 0 {
                    listen.clone()
                } else {
                    format!("listen {};", place.plain)
                };
                writeln!(
                    servers,
                    "server {{ {listen} server_name {host}; location {path} {{ {pass} }} }}",
                    host = host_of(number),
                    path = path_of(number),
                )?;
            }
        }
    }
    let configuration = format!(
        "{preamble}\
         http {{\n\
         {http}\
         server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n\
         ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n\
         proxy_http_version 1.1; proxy_set_header Connection '';\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         upstream origin {{ server {origin}; keepalive 512; keepalive_requests 1000000000; }}\n\
         {servers}}}\n",
        preamble = nginx_preamble(&place.folder),
        http = nginx_http_common(&place.folder),
        certificate = ground.certificate.certificate.display(),
        key = ground.certificate.key.display(),
        origin = ground.origin,
    );
    start_nginx("nginx", PROXY_CORE, &place.folder, &configuration)
}

fn start_nginx_stream(ground: &Ground<'_>, place: &Place) -> Result<Running> {
    let load = load_stream_module();
    let configuration = format!(
        "{load}{preamble}\
         stream {{\n\
         ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n\
         proxy_timeout 600s;\n\
         server {{ listen {plain} backlog=4096; listen {tls} ssl backlog=4096; proxy_pass {origin}; }}\n}}\n",
        preamble = nginx_preamble(&place.folder),
        certificate = ground.certificate.certificate.display(),
        key = ground.certificate.key.display(),
        plain = place.plain,
        tls = place.tls,
        origin = ground.origin,
    );
    start_nginx("nginx stream", PROXY_CORE, &place.folder, &configuration)
}

fn start_haproxy(setup: Setup, ground: &Ground<'_>, place: &Place) -> Result<Running> {
    let select = match setup {
        Setup::Plain
        | Setup::Plugins
        | Setup::Stream
        | Setup::Tunnels
        | Setup::Mesh(_)
        | Setup::Bundle(_) => "default_backend origin".to_owned(),
        Setup::ManyRoutes => {
            let map = place.folder.join("routes.map");
            let mut lines = String::new();
            for number in 0..MANY_ROUTES {
                writeln!(lines, "{}{} origin", host_of(number), path_of(number))?;
            }
            fs::write(&map, lines)?;
            format!("use_backend %[base,map_beg({})]", map.display())
        }
    };
    let configuration = format!(
        "global\n  nbthread 1\n  maxconn 8000\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n  {mode}\n\
         \x20 timeout client 600s\n  timeout server 600s\n  timeout connect 5s\n  timeout http-keep-alive 600s\n\
         frontend front\n  bind {plain} backlog 4096\n  bind {tls} ssl crt {bundle} {alpn} backlog 4096\n  {select}\n\
         backend origin\n  server origin {origin} pool-max-conn 512\n",
        plain = place.plain,
        tls = place.tls,
        bundle = ground.certificate.bundle.display(),
        origin = ground.origin,
        mode = match setup {
            Setup::Stream => "mode tcp",
            _ => "mode http\n  option forwardfor\n  http-reuse always",
        },
        alpn = match setup {
            Setup::Stream => "",
            _ => "alpn h2,http/1.1",
        },
    );
    let file = place.folder.join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let haproxy = process::find_program("haproxy", "haproxy")?;
    let arguments = ["-db".into(), "-f".into(), file.into_os_string()];
    let log = place.folder.join("output.log");
    Running::start("HAProxy", PROXY_CORE, &haproxy, arguments, &[], log)
}

fn start_bare(ground: &Ground<'_>, place: &Place) -> Result<Running> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let arguments = [
        "bare".into(),
        "--listen".into(),
        place.plain.to_string().into(),
        "--listen-tls".into(),
        place.tls.to_string().into(),
        "--certificate".into(),
        ground.certificate.certificate.clone().into_os_string(),
        "--key".into(),
        ground.certificate.key.clone().into_os_string(),
        "--upstream".into(),
        ground.origin.to_string().into(),
    ];
    let log = place.folder.join("output.log");
    Running::start("bare Pingora", PROXY_CORE, &program, arguments, &[], log)
}

fn start_sallyport(setup: Setup, ground: &Ground<'_>, place: &Place) -> Result<Running> {
    let program = ground.gateway.context("no gateway was named")?;
    let file = place.folder.join("kong.json");
    fs::write(&file, declarative(setup, ground.origin)?)?;
    let settings = [
        ("prefix", place.folder.join("prefix").display().to_string()),
        match setup {
            Setup::Stream => (
                "stream_listen",
                format!("{}, {} ssl", place.plain, place.tls),
            ),
            _ => (
                "proxy_listen",
                format!("{}, {} http2 ssl", place.plain, place.tls),
            ),
        },
        match setup {
            Setup::Stream => ("proxy_listen", "off".to_owned()),
            _ => ("stream_listen", "off".to_owned()),
        },
        ("admin_listen", "off".to_owned()),
        ("admin_gui_listen", "off".to_owned()),
        ("status_listen", "off".to_owned()),
        ("database", "off".to_owned()),
        ("declarative_config", file.display().to_string()),
        (
            "ssl_cert",
            ground.certificate.certificate.display().to_string(),
        ),
        ("ssl_cert_key", ground.certificate.key.display().to_string()),
        ("workers", "1".to_owned()),
        ("proxy_access_log", "off".to_owned()),
        ("log_level", "warn".to_owned()),
    ];
    let mut settings = settings.to_vec();
    let admin = net::free_address()?;
    if let Setup::Bundle(_) = setup {
        let own = bundles::settings(admin);
        settings.retain(|(key, _)| own.iter().all(|(other, _)| other != key));
        settings.extend(own.into_iter().filter(|(_, value)| !value.is_empty()));
    }
    let environment: Vec<(String, String)> = settings
        .into_iter()
        .map(|(key, value)| (format!("SALLYPORT_{}", key.to_ascii_uppercase()), value))
        .collect();
    let log = place.folder.join("output.log");
    let mut running = Running::start(
        "Sallyport",
        PROXY_CORE,
        program,
        ["start"],
        &environment,
        log,
    )?;
    if let Setup::Bundle(bundle) = setup {
        net::await_listener(admin, &mut running)?;
        let folder = &place.folder;
        bundles::deploy(bundle, program, &environment, admin, ground.origin, folder)?;
    }
    Ok(running)
}

/// The gateway's whole configuration, in Kong's declarative form as JSON.
fn declarative(setup: Setup, origin: SocketAddr) -> Result<String> {
    let mut routes = String::new();
    match setup {
        Setup::Stream => {
            routes.push_str(
                r#"{"name":"all","protocols":["tcp","tls"],"sources":[{"ip":"127.0.0.0/8"}]}"#,
            );
        }
        Setup::Bundle(_) => {}
        Setup::Plain | Setup::Plugins | Setup::Tunnels | Setup::Mesh(_) => {
            routes.push_str(r#"{"name":"all","paths":["/"],"strip_path":false}"#);
        }
        Setup::ManyRoutes => {
            for number in 0..MANY_ROUTES {
                let comma = if number == 0 { "" } else { "," };
                write!(
                    routes,
                    r#"{comma}{{"name":"route-{number}","hosts":["{}"],"paths":["{}"],"strip_path":false}}"#,
                    host_of(number),
                    path_of(number),
                )?;
            }
        }
    }
    let plugins = match setup {
        Setup::Plain
        | Setup::ManyRoutes
        | Setup::Stream
        | Setup::Tunnels
        | Setup::Mesh(_)
        | Setup::Bundle(_) => String::new(),
        Setup::Plugins => format!(
            r#","plugins":[{{"name":"key-auth"}},{{"name":"correlation-id"}},
            {{"name":"rate-limiting","config":{{"minute":1000000000,"policy":"local"}}}}],
            "consumers":[{{"username":"load","keyauth_credentials":[{{"key":"{API_KEY}"}}]}}]"#
        ),
    };
    let scheme = if setup == Setup::Stream {
        "tcp"
    } else {
        "http"
    };
    Ok(format!(
        r#"{{"_format_version":"3.0","services":[{{"name":"origin","url":"{scheme}://{origin}","routes":[{routes}]}}]{plugins}}}"#
    ))
}

fn host_of(number: usize) -> String {
    format!("host-{number}.load.test")
}

fn path_of(number: usize) -> String {
    format!("/path-{number}")
}
