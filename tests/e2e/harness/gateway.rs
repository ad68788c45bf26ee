//! The gateway under test: the real binary in a process of its own, on ports that the system chose.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::{Admin, Authority, DEADLINE, Driver, Pair, Request, eventually};

/// Lines of standard error kept for the report of a failed test.
const ERROR_LINES_SHOWN: usize = 60;

/// How a gateway is to be started.
#[derive(Clone)]
pub(crate) struct GatewayBuilder {
    settings: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    declarative: Option<String>,
    open_files: Option<u32>,
    prefix: Option<Arc<TempDir>>,
}

impl GatewayBuilder {
    /// An environment variable that is not `SALLYPORT_…`.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A setting by its key (`trusted_ips`), replacing what the harness chose.
    pub(crate) fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Forces one of the two drivers.
    pub(crate) fn driver(self, driver: Driver) -> Self {
        self.setting("test_driver", driver.name())
    }

    /// Lets the process have so many descriptors and no more.
    pub(crate) fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Adds `Kong-Route-Name` and the like to answers for requests that ask.
    pub(crate) fn debug_headers(self) -> Self {
        self.setting("allow_debug_header", "on")
    }

    /// Runs without a database from this declarative configuration (YAML or JSON).
    pub(crate) fn declarative(mut self, text: &str) -> Self {
        self.declarative = Some(text.to_owned());
        self.setting("database", "off")
    }

    /// Starts and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> Gateway {
        match self.try_start() {
            Ok(gateway) => gateway,
            Err((status, errors)) => panic!("the gateway ended ({status}):\n{errors}"),
        }
    }

    /// Starts; a process that ends before it is ready gives its status and standard error.
    pub(crate) fn try_start(self) -> Result<Gateway, (ExitStatus, String)> {
        let prefix = self
            .prefix
            .clone()
            .unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a temporary folder")));
        let mut settings = self.settings.clone();
        if let Some(text) = &self.declarative {
            let file = prefix.path().join("kong.yml");
            fs::write(&file, text).expect("a declarative file");
            settings.insert("declarative_config".to_owned(), file.display().to_string());
        }
        settings
            .entry("prefix".to_owned())
            .or_insert_with(|| prefix.path().join("data").display().to_string());
        let mut child = limited(command(&settings), self.open_files)
            .envs(&self.environment)
            .arg("start")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gateway starts");
        let errors = Errors::follow(child.stderr.take().expect("a pipe"));
        let Some(ready) = errors.ready_line() else {
            let status = child.wait().expect("an exit status");
            return Err((status, errors.text()));
        };
        let listeners = Listeners::parse(&ready);
        Ok(Gateway {
            child,
            errors,
            listeners,
            settings,
            prefix,
        })
    }
}

/// The program with these settings, and nothing else, in its environment.
fn command(settings: &BTreeMap<String, String>) -> Command {
    // Another binary, an optimised one for example, may be tested instead.
    let binary = std::env::var_os("SALLYPORT_TEST_BINARY");
    let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_sallyport").into());
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RUST_BACKTRACE", "1")
        .envs(
            settings
                .iter()
                .map(|(key, value)| (format!("SALLYPORT_{}", key.to_ascii_uppercase()), value)),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The same command by way of a shell that lowers the limit on open files.
fn limited(command: Command, open_files: Option<u32>) -> Command {
    let Some(limit) = open_files else {
        return command;
    };
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}

/// A running gateway. It is killed when dropped; a failing test shows what it said.
pub(crate) struct Gateway {
    child: Child,
    errors: Arc<Errors>,
    listeners: Listeners,
    settings: BTreeMap<String, String>,
    prefix: Arc<TempDir>,
}

impl Gateway {
    /// Settings that suit every test: loopback, port 0, two workers, the embedded store, no access log.
    pub(crate) fn builder() -> GatewayBuilder {
        let (certificate, key) = default_certificate();
        let settings = [
            ("proxy_listen", "127.0.0.1:0, 127.0.0.1:0 http2 ssl"),
            ("admin_listen", "127.0.0.1:0"),
            ("status_listen", "127.0.0.1:0"),
            ("admin_gui_listen", "off"),
            ("workers", "2"),
            ("proxy_access_log", "off"),
            ("proxy_error_log", "/dev/stderr"),
            ("ssl_cert", certificate.to_str().expect("a path in UTF-8")),
            ("ssl_cert_key", key.to_str().expect("a path in UTF-8")),
        ];
        GatewayBuilder {
            settings: settings
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            environment: BTreeMap::new(),
            declarative: None,
            open_files: None,
            prefix: None,
        }
    }

    /// A gateway without a database, from a declarative configuration, with debug headers.
    #[track_caller]
    pub(crate) fn with(declarative: &str) -> Self {
        Self::builder()
            .debug_headers()
            .declarative(declarative)
            .start()
    }

    /// A gateway with an empty embedded store, configured through its Admin API.
    #[track_caller]
    pub(crate) fn stored() -> Self {
        Self::builder().debug_headers().start()
    }

    /// The plain proxy listener.
    pub(crate) fn proxy(&self) -> SocketAddr {
        *self
            .listeners
            .plain
            .first()
            .expect("a plain proxy listener")
    }

    /// The TLS proxy listener.
    pub(crate) fn tls(&self) -> SocketAddr {
        *self.listeners.tls.first().expect("a TLS proxy listener")
    }

    /// The plain stream listener.
    pub(crate) fn stream(&self) -> SocketAddr {
        *self.listeners.stream.first().expect("a stream listener")
    }

    /// The stream listener with TLS.
    pub(crate) fn stream_tls(&self) -> SocketAddr {
        let first = self.listeners.stream_tls.first();
        *first.expect("a stream listener with TLS")
    }

    /// All TLS proxy listeners, in the order configured.
    pub(crate) fn tls_listeners(&self) -> Vec<SocketAddr> {
        self.listeners.tls.clone()
    }

    /// What it has said on standard error so far.
    pub(crate) fn said(&self) -> String {
        self.errors.text()
    }

    /// The status listener.
    pub(crate) fn status(&self) -> SocketAddr {
        *self.listeners.status.first().expect("a status listener")
    }

    /// The Admin listener with TLS.
    pub(crate) fn admin_tls(&self) -> SocketAddr {
        let first = self.listeners.admin_tls.first();
        *first.expect("an admin listener with TLS")
    }

    /// The status listener with TLS.
    pub(crate) fn status_tls(&self) -> SocketAddr {
        let first = self.listeners.status_tls.first();
        *first.expect("a status listener with TLS")
    }

    /// The Admin API.
    pub(crate) fn admin(&self) -> Admin {
        let address = self.listeners.admin.first().expect("an admin listener");
        Admin::new(*address, self.listeners.status.first().copied())
    }

    /// A request to the plain proxy listener.
    pub(crate) fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.proxy(), method, target)
    }

    /// A GET to the plain proxy listener.
    pub(crate) fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    /// A GET to the TLS proxy listener with this server name, which is the Host too.
    pub(crate) fn get_tls(&self, server_name: &str, target: &str) -> Request {
        Request::new(self.tls(), "GET", target)
            .host(server_name)
            .tls(server_name)
    }

    /// Name of the route that serves this request, by the debug header.
    #[track_caller]
    pub(crate) fn route_of(&self, request: Request) -> Option<String> {
        let response = request.header("Kong-Debug", "1").send();
        response.header("Kong-Route-Name").map(str::to_owned)
    }

    /// The folder that the instance writes to.
    pub(crate) fn prefix(&self) -> PathBuf {
        PathBuf::from(self.settings.get("prefix").expect("a prefix"))
    }

    /// A temporary folder that lives as long as the gateway.
    pub(crate) fn folder(&self) -> &Path {
        self.prefix.path()
    }

    /// Runs another command of the program (`health`, `config db_export`, …) for this instance.
    pub(crate) fn run(&self, arguments: &[&str]) -> std::process::Output {
        command(&self.settings)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("the program runs")
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the end of the gateway", || {
            child.try_wait().expect("a status")
        })
    }

    /// Ends it at once, as `kill -9` does, and gives what is needed to start it again on its data.
    pub(crate) fn kill(mut self) -> GatewayBuilder {
        self.child.kill().expect("a living process");
        self.child.wait().expect("a status");
        GatewayBuilder {
            settings: self.settings.clone(),
            environment: BTreeMap::new(),
            declarative: None,
            open_files: None,
            prefix: Some(self.prefix.clone()),
        }
    }

    /// Ends whoever took over the folder in an upgrade: nobody's child, it would outlive a failed test.
    fn end_successor(&self) {
        let file = self.prefix().join("sallyport.pid");
        let text = fs::read_to_string(file).unwrap_or_default();
        let successor = text.trim().parse::<u32>().ok();
        if let Some(pid) = successor.filter(|pid| *pid != self.pid()) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }

    /// The metrics page.
    pub(crate) fn metrics(&self) -> String {
        Request::new(self.status(), "GET", "/metrics")
            .send()
            .expect_status(200)
            .text()
    }

    /// `/status` as JSON.
    pub(crate) fn status_page(&self) -> Value {
        Request::new(self.status(), "GET", "/status")
            .send()
            .expect_status(200)
            .json()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.end_successor();
        if std::thread::panicking() {
            let text = self.errors.text();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(ERROR_LINES_SHOWN);
            eprintln!("--- the gateway said ---\n{}", lines[from..].join("\n"));
            return;
        }
        // Whatever the test was about: no traffic and no configuration makes the gateway panic.
        let text = self.errors.text();
        assert!(!text.contains("panicked at"), "{text}");
    }
}

/// Standard error, read by a thread.
struct Errors {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Errors {
    fn follow(pipe: impl Read + Send + 'static) -> Arc<Self> {
        let errors = Arc::new(Self {
            lines: Mutex::new((Vec::new(), false)),
            changed: Condvar::new(),
        });
        let shared = errors.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                shared.lines.lock().expect("no poison").0.push(line);
                shared.changed.notify_all();
            }
            shared.lines.lock().expect("no poison").1 = true;
            shared.changed.notify_all();
        });
        errors
    }

    fn text(&self) -> String {
        self.lines.lock().expect("no poison").0.join("\n")
    }

    /// The line that contains `ready`, or nothing if the process ends without one.
    fn ready_line(&self) -> Option<String> {
        let until = Instant::now() + DEADLINE * 3;
        let mut guard = self.lines.lock().expect("no poison");
        loop {
            if let Some(line) = guard.0.iter().find(|line| is_ready(line)) {
                return Some(line.clone());
            }
            if guard.1 {
                return None;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never ready:\n{}", guard.0.join("\n"));
            guard = self.changed.wait_timeout(guard, left).expect("no poison").0;
        }
    }
}

fn is_ready(line: &str) -> bool {
    line.split(|character: char| !character.is_alphabetic())
        .any(|word| word == "ready")
        && line.contains("127.0.0.1:")
}

/// Addresses by the names of their settings, read from the ready line.
#[derive(Default, Debug)]
struct Listeners {
    plain: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    stream: Vec<SocketAddr>,
    stream_tls: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    status: Vec<SocketAddr>,
    admin_tls: Vec<SocketAddr>,
    status_tls: Vec<SocketAddr>,
}

impl Listeners {
    /// Finds `NAME_listen` and the addresses up to the next such name; works for text and JSON lines.
    fn parse(line: &str) -> Self {
        let names = [
            "proxy_listen",
            "stream_listen",
            "admin_listen",
            "status_listen",
            "admin_gui_listen",
        ];
        let mut found: Vec<(usize, &str)> = names
            .iter()
            .filter_map(|name| line.find(name).map(|at| (at, *name)))
            .collect();
        found.sort_unstable();
        let mut listeners = Self::default();
        for (number, (start, name)) in found.iter().enumerate() {
            let end = found.get(number + 1).map_or(line.len(), |(next, _)| *next);
            for entry in line[start + name.len()..end].split(',') {
                let words: Vec<&str> = entry
                    .split(|character: char| {
                        !(character.is_alphanumeric() || ".:".contains(character))
                    })
                    .collect();
                let Some(address) = words
                    .iter()
                    .find_map(|word| word.trim_matches(':').parse::<SocketAddr>().ok())
                else {
                    continue;
                };
                match *name {
                    "proxy_listen" if words.contains(&"ssl") => listeners.tls.push(address),
                    "proxy_listen" => listeners.plain.push(address),
                    "stream_listen" if words.contains(&"ssl") => {
                        listeners.stream_tls.push(address);
                    }
                    "stream_listen" => listeners.stream.push(address),
                    "admin_listen" if words.contains(&"ssl") => listeners.admin_tls.push(address),
                    "status_listen" if words.contains(&"ssl") => {
                        listeners.status_tls.push(address);
                    }
                    "admin_listen" => listeners.admin.push(address),
                    "status_listen" => listeners.status.push(address),
                    _ => {}
                }
            }
        }
        listeners
    }
}

/// One default certificate for all tests: making one for each gateway would only cost time.
fn default_certificate() -> &'static (PathBuf, PathBuf) {
    static FILES: OnceLock<(TempDir, (PathBuf, PathBuf))> = OnceLock::new();
    let (_, files) = FILES.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let Pair { certificate, key } = Authority::new().issue(&["default.test"]);
        let files = (
            folder.path().join("default.pem"),
            folder.path().join("key.pem"),
        );
        fs::write(&files.0, certificate).expect("a certificate");
        fs::write(&files.1, key).expect("a key");
        (folder, files)
    });
    files
}
