//! Real counterparts: curl, Python clients and servers, nginx as an origin.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

use super::{Pair, eventually};

/// Runs curl quietly with these arguments; gives standard output, and fails if curl does.
#[track_caller]
pub(crate) fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(arguments)
        .output()
        .expect("curl is installed");
    assert!(
        output.status.success(),
        "curl {arguments:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The Python that has the packages which tests need: `SALLYPORT_TEST_PYTHON`, or the virtual
/// environment that `make test` keeps beside the build.
pub(crate) fn python() -> PathBuf {
    if let Some(given) = std::env::var_os("SALLYPORT_TEST_PYTHON") {
        return given.into();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_sallyport"));
    let target = binary.ancestors().nth(2).expect("a target folder");
    let python = target.join("test-venv/bin/python");
    assert!(
        python.is_file(),
        "no {}: run `make test`, which creates it, or set SALLYPORT_TEST_PYTHON",
        python.display()
    );
    python
}

/// Runs a script of `tests/e2e/clients` to its end; gives its output, and fails if it fails.
#[track_caller]
pub(crate) fn python_client(script: &str, arguments: &[&str]) -> String {
    let output: Output = python_command(script)
        .args(arguments)
        .output()
        .expect("Python runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script} {arguments:?} failed ({}):\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn python_command(script: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e/clients")
        .join(script);
    let mut command = Command::new(python());
    command.arg("-u").arg(path);
    command
}

/// A long-running script of `tests/e2e/clients`; killed when dropped.
pub(crate) struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a script.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let mut child = python_command(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, output }
    }

    /// The next line that the script prints.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.output.read_line(&mut line).expect("a line");
        assert!(count > 0, "the script ended");
        line.trim_end().to_owned()
    }

    /// Gives the script a line to read.
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{line}").expect("the script reads");
    }

    /// Has it not ended?
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }

    /// The port that a server script prints first.
    #[track_caller]
    pub(crate) fn port(&mut self) -> u16 {
        let line = self.line();
        line.parse().unwrap_or_else(|_| panic!("no port: {line:?}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A real nginx that serves some files.
pub(crate) struct NginxOrigin {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl NginxOrigin {
    /// Serves `files` (name and content) from `/`.
    pub(crate) fn serving(files: &[(&str, &[u8])]) -> Self {
        Self::start(files, |address, root| {
            format!("listen {address}; root {root};")
        })
    }

    /// Serves over TLS clients that show a certificate of this authority, and tells them whose it was.
    pub(crate) fn verifying_clients(pair: &Pair, authority_pem: &str) -> Self {
        let files: [(&str, &[u8]); 3] = [
            ("server.pem", pair.certificate.as_bytes()),
            ("server.key", pair.key.as_bytes()),
            ("clients.pem", authority_pem.as_bytes()),
        ];
        Self::start(&files, |address, root| {
            format!(
                "listen {address} ssl; ssl_certificate {root}/server.pem; ssl_certificate_key {root}/server.key;\n\
                 ssl_client_certificate {root}/clients.pem; ssl_verify_client on;\n\
                 location / {{ return 200 \"$ssl_client_s_dn $request_uri\"; }}"
            )
        })
    }

    fn start(
        files: &[(&str, &[u8])],
        server: impl Fn(SocketAddr, &dyn std::fmt::Display) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().display();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).expect("a file");
        }
        // nginx cannot report a port that it chose: another test may take this one meanwhile, then again.
        for _ in 0..10 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("an address");
            drop(listener);
            let user = std::os::unix::fs::MetadataExt::uid(
                &fs::metadata("/proc/self").expect("a process"),
            );
            let user = if user == 0 { "user root;" } else { "" };
            let server = server(address, &root);
            let configuration = format!(
                "{user} daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{ access_log off; default_type text/plain;\n\
                 client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
                 server {{ {server} }} }}\n"
            );
            let file = folder.path().join("nginx.conf");
            fs::write(&file, configuration).expect("a file");
            let mut child = Command::new(nginx())
                .arg("-p")
                .arg(folder.path())
                .arg("-c")
                .arg(&file)
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx is installed");
            let accepts = eventually("nginx listens, or ends", || {
                if child.try_wait().expect("a status").is_some() {
                    return Some(false);
                }
                TcpStream::connect(address).is_ok().then_some(true)
            });
            if accepts {
                return Self {
                    address,
                    child,
                    _folder: folder,
                };
            }
        }
        panic!("nginx does not start");
    }
}

impl Drop for NginxOrigin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn nginx() -> PathBuf {
    ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from("nginx"))
}
