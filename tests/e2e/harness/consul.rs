//! A real Consul agent, proxies of its mesh, and certificates that the mesh would not issue.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use boring::asn1::Asn1Time;
use boring::bn::BigNum;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use boring::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use boring::x509::{X509, X509Name};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Request, eventually};

/// The trust domain of every test's mesh.
pub(crate) const TRUST_DOMAIN: &str = "11111111-2222-3333-4444-555555555555.consul";

/// The program: on PATH, or where `make test` puts it.
pub(crate) fn consul() -> PathBuf {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join("consul"))
            .find(|program| program.is_file())
    });
    let binary = Path::new(env!("CARGO_BIN_EXE_sallyport"));
    let target = binary.ancestors().nth(2).expect("a target folder");
    let program = found.unwrap_or_else(|| target.join("consul/bin/consul"));
    assert!(
        program.is_file(),
        "no {}: run `make test`, which fetches Debian 11's package, or put a `consul` (1.8 or newer) on PATH",
        program.display()
    );
    program
}

/// Where [`free_ports`] looks: below the ports that systems give to outgoing connections, of which tests make thousands.
const PORTS: std::ops::Range<u16> = 10_240..32_000;

/// Ports that nobody listens on, and that no other test of this program is given.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = std::process::id() as usize * 97;
    std::array::from_fn(|_| {
        PORTS
            .map(|_| {
                let turn = start + NEXT.fetch_add(1, Ordering::Relaxed);
                PORTS.start + u16::try_from(turn % PORTS.len()).expect("within the range")
            })
            .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
            .expect("a free port")
    })
}

/// The authority of a mesh, known to the test.
pub(crate) struct MeshAuthority {
    key: PKey<Private>,
    certificate: X509,
}

/// What a leaf is to be like.
#[derive(Clone)]
pub(crate) struct LeafKind {
    pub(crate) uris: Vec<String>,
    pub(crate) client: bool,
    pub(crate) expired: bool,
}

impl LeafKind {
    /// A good leaf of a service.
    pub(crate) fn of(service: &str) -> Self {
        Self {
            uris: vec![format!(
                "spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{service}"
            )],
            client: true,
            expired: false,
        }
    }
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn key_text(key: &PKey<Private>) -> String {
    let pem = key
        .ec_key()
        .expect("a key")
        .private_key_to_pem()
        .expect("PEM");
    String::from_utf8(pem).expect("PEM is ASCII")
}

fn certificate_text(certificate: &X509) -> String {
    String::from_utf8(certificate.to_pem().expect("PEM")).expect("PEM is ASCII")
}

fn sign(
    subject: &str,
    key: &PKey<Private>,
    issuer: Option<(&X509, &PKey<Private>)>,
    uris: &[String],
    leaf: Option<&LeafKind>,
) -> X509 {
    let mut name = X509Name::builder().expect("a name");
    name.append_entry_by_text("CN", subject).expect("a name");
    let name = name.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    let serial = BigNum::from_u32(rand::random::<u32>() >> 1).expect("a number");
    let serial = serial.to_asn1_integer().expect("a serial number");
    builder.set_serial_number(&serial).expect("a serial number");
    builder.set_subject_name(&name).expect("a subject");
    let issuer_name = issuer.map_or(&*name, |(certificate, _)| certificate.subject_name());
    builder.set_issuer_name(issuer_name).expect("an issuer");
    builder.set_pubkey(key).expect("a key");
    let from = Asn1Time::from_unix(1_600_000_000).expect("a time");
    let until = match leaf.is_some_and(|leaf| leaf.expired) {
        true => Asn1Time::from_unix(1_600_000_060).expect("a time"),
        false => Asn1Time::days_from_now(30).expect("a time"),
    };
    builder.set_not_before(&from).expect("a time");
    builder.set_not_after(&until).expect("a time");
    let mut add = |extension: Result<boring::x509::X509Extension, boring::error::ErrorStack>| {
        let extension = extension.expect("an extension");
        builder.append_extension(&extension).expect("an extension");
    };
    match leaf {
        None => {
            add(BasicConstraints::new().critical().ca().build());
            let mut usage = KeyUsage::new();
            usage
                .critical()
                .key_cert_sign()
                .crl_sign()
                .digital_signature();
            add(usage.build());
        }
        Some(leaf) => {
            let mut purposes = ExtendedKeyUsage::new();
            purposes.server_auth();
            if leaf.client {
                purposes.client_auth();
            }
            add(purposes.build());
        }
    }
    if !uris.is_empty() {
        let mut names = SubjectAlternativeName::new();
        for uri in uris {
            names.uri(uri);
        }
        let names = names
            .build(&builder.x509v3_context(None, None))
            .expect("names");
        builder.append_extension(&names).expect("an extension");
    }
    let identifier = boring::x509::extension::SubjectKeyIdentifier::new()
        .build(&builder.x509v3_context(None, None))
        .expect("an identifier");
    builder.append_extension(&identifier).expect("an extension");
    let signer = issuer.map_or(key, |(_, key)| key);
    builder
        .sign(signer, MessageDigest::sha256())
        .expect("a signature");
    builder.build()
}

impl MeshAuthority {
    pub(crate) fn new() -> Self {
        let key = key();
        let uri = format!("spiffe://{TRUST_DOMAIN}");
        let certificate = sign("Mesh", &key, None, &[uri], None);
        Self { key, certificate }
    }

    pub(crate) fn pem(&self) -> String {
        certificate_text(&self.certificate)
    }

    pub(crate) fn key_pem(&self) -> String {
        key_text(&self.key)
    }

    /// A leaf and its key, in PEM.
    pub(crate) fn issue(&self, kind: &LeafKind) -> (String, String) {
        let key = key();
        let issuer = Some((&self.certificate, &self.key));
        let leaf = sign("leaf", &key, issuer, &kind.uris, Some(kind));
        (certificate_text(&leaf), key_text(&key))
    }
}

/// Shakes hands with a listener of the mesh, showing this leaf; the server is not judged.
pub(crate) fn call_as(
    address: SocketAddr,
    leaf: Option<&(String, String)>,
) -> Option<SslStream<TcpStream>> {
    let mut builder = SslConnector::builder(SslMethod::tls()).expect("a connector");
    builder.set_verify(SslVerifyMode::NONE);
    if let Some((certificate, key)) = leaf {
        let certificate = X509::from_pem(certificate.as_bytes()).expect("a certificate");
        let key = PKey::private_key_from_pem(key.as_bytes()).expect("a key");
        builder
            .set_certificate(&certificate)
            .expect("a certificate");
        builder.set_private_key(&key).expect("a key");
    }
    let connector = builder.build();
    let mut configuration = connector.configure().expect("TLS");
    configuration.set_use_server_name_indication(false);
    configuration.set_verify_hostname(false);
    let stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(super::DEADLINE))
        .expect("a timeout");
    configuration.connect("", stream).ok()
}

/// A real agent in development mode, alone in its datacenter.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    pub(crate) authority: MeshAuthority,
    /// Its name server.
    pub(crate) dns: SocketAddr,
    token: Option<String>,
    folder: TempDir,
    child: Child,
}

/// Puts members of one object into another, into objects of the same name too.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_with(&json!({}), None)
    }

    /// With more configuration, and the token that every order needs.
    pub(crate) fn start_with(more: &Value, token: Option<&str>) -> Self {
        let authority = MeshAuthority::new();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [http, dns, lan, wan, server] = free_ports();
        let mut configuration = json!({
            "disable_update_check": true,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {"http": http, "dns": dns, "grpc": -1, "serf_lan": lan, "serf_wan": wan, "server": server},
            "connect": {"enabled": true, "ca_config": {
                "cluster_id": TRUST_DOMAIN.trim_end_matches(".consul"),
                "private_key": authority.key_pem(),
                "root_cert": authority.pem(),
            }},
        });
        merge(&mut configuration, more);
        let file = folder.path().join("agent.json");
        std::fs::write(&file, configuration.to_string()).expect("a file");
        let child = run_agent(&file);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http));
        let agent = Self {
            address,
            authority,
            dns: SocketAddr::from((Ipv4Addr::LOCALHOST, dns)),
            token: token.map(str::to_owned),
            folder,
            child,
        };
        agent.wait();
        agent
    }

    fn wait(&self) {
        eventually("the agent has roots", || {
            TcpStream::connect(self.address).ok()?;
            let roots = Request::new(self.address, "GET", "/v1/connect/ca/roots")
                .try_send()
                .ok()?;
            (roots.status == 200).then_some(())
        });
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with nothing but its configuration.
    pub(crate) fn restart(&mut self) {
        self.child = run_agent(&self.folder.path().join("agent.json"));
        self.wait();
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut request = Request::new(self.address, method, path).json(body);
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        let response = request.send().expect_status(200);
        serde_json::from_slice(&response.body).unwrap_or(Value::Null)
    }

    /// Registers a service with a sidecar; `config` is that of the proxy.
    pub(crate) fn register(
        &self,
        name: &str,
        application: u16,
        public: u16,
        config: Value,
        upstreams: &Value,
    ) {
        let mut config = config;
        config["bind_address"] = json!("127.0.0.1");
        let body = json!({
            "Name": name, "ID": format!("{name}-1"), "Port": application,
            "Connect": {"SidecarService": {
                "Port": public,
                // A TCP check would take ten seconds to pass.
                "Check": {"Name": "alive", "TTL": "3600s", "Status": "passing"},
                "Proxy": {"Config": config, "Upstreams": upstreams},
            }},
        });
        self.ask("PUT", "/v1/agent/service/register", &body);
    }

    /// Writes an intention and gives its id.
    pub(crate) fn intend(&self, source: &str, destination: &str, action: &str) -> String {
        let body = json!({"SourceName": source, "DestinationName": destination, "SourceType": "consul", "Action": action});
        let answer = self.ask("POST", "/v1/connect/intentions", &body);
        answer["ID"].as_str().expect("an id").to_owned()
    }

    /// Consul's own proxy for a service.
    pub(crate) fn built_in_proxy(&self, service_id: &str) -> Running {
        let mut command = Command::new(consul());
        command
            .args(["connect", "proxy", "-sidecar-for", service_id])
            .arg(format!("-http-addr={}", self.address));
        Running::spawn(command, None)
    }

    /// Our proxy for a service.
    pub(crate) fn sallyport(&self, service_id: &str) -> Running {
        sallyport(self.address, &["-sidecar-for", service_id])
    }
}

/// Our proxy beside an agent, with these flags.
pub(crate) fn sallyport(agent: SocketAddr, flags: &[&str]) -> Running {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [status] = free_ports();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command
        .args(["connect", "proxy"])
        .args(flags)
        .arg("-p")
        .arg(folder.path().join("prefix"))
        .env("CONSUL_HTTP_ADDR", agent.to_string())
        .env("SALLYPORT_STATUS_LISTEN", format!("127.0.0.1:{status}"));
    let mut running = Running::spawn(command, Some(folder));
    running.status = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, status)));
    running
}

fn run_agent(file: &Path) -> Child {
    Command::new(consul())
        .args(["agent", "-dev", "-config-file"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the agent runs")
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A proxy at work; killed when dropped.
pub(crate) struct Running {
    child: Child,
    status: Option<SocketAddr>,
    folder: Option<TempDir>,
}

impl Running {
    fn spawn(mut command: Command, folder: Option<TempDir>) -> Self {
        let log = match &folder {
            Some(folder) => std::fs::File::create(folder.path().join("log"))
                .expect("a file")
                .into(),
            None => Stdio::null(),
        };
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the proxy runs");
        Self {
            child,
            status: None,
            folder,
        }
    }

    /// Where its status listener is.
    pub(crate) fn status_address(&self) -> SocketAddr {
        self.status.expect("our own proxy")
    }

    /// Waits until traffic may come.
    pub(crate) fn ready(self) -> Self {
        let status = self.status.expect("our own proxy");
        eventually("the proxy is ready", || {
            TcpStream::connect(status).ok()?;
            let ready = Request::new(status, "GET", "/status/ready")
                .try_send()
                .ok()?;
            (ready.status == 200).then_some(())
        });
        self
    }

    /// The status code of `/status/ready`.
    pub(crate) fn readiness(&self) -> u16 {
        let status = self.status.expect("our own proxy");
        Request::new(status, "GET", "/status/ready").send().status
    }

    /// A value of the metrics page, by the beginning of its line; 0 when it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let status = self.status.expect("our own proxy");
        let page = Request::new(status, "GET", "/metrics").send().text();
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        let folder = self.folder.as_ref().expect("our own proxy");
        std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        eventually("the proxy ends", || {
            self.child.try_wait().expect("a status")
        })
        .code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
