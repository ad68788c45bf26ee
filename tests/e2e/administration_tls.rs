//! TLS on the listeners of the Admin API and the status interface.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use boring::nid::Nid;

use crate::harness::{Authority, Gateway, GatewayBuilder, curl, tls_stream};

struct Files {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            folder: tempfile::tempdir().expect("a folder"),
            authority: Authority::new(),
        };
        std::fs::write(files.folder.path().join("root.pem"), files.authority.pem())
            .expect("a file");
        files
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Gives `admin_listen` a certificate for `localhost`.
    fn with_admin(&self, builder: GatewayBuilder) -> GatewayBuilder {
        let pair = self.authority.issue(&["localhost"]);
        for (name, pem) in [("admin.pem", &pair.certificate), ("admin.key", &pair.key)] {
            std::fs::write(self.path(name), pem).expect("a file");
        }
        builder
            .setting("admin_ssl_cert", &self.path("admin.pem"))
            .setting("admin_ssl_cert_key", &self.path("admin.key"))
    }
}

fn builder() -> GatewayBuilder {
    Gateway::builder()
        .setting("admin_listen", "127.0.0.1:0, 127.0.0.1:0 http2 ssl")
        .setting("status_listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
}

fn common_name(address: SocketAddr) -> String {
    let stream = tls_stream(address, Some("anything.test"), b"\x08http/1.1");
    let certificate = stream.ssl().peer_certificate().expect("a certificate");
    let name = certificate
        .subject_name()
        .entries_by_nid(Nid::COMMONNAME)
        .next();
    String::from_utf8_lossy(name.expect("a common name").data().as_slice()).into_owned()
}

#[test]
fn administrators_may_speak_tls() {
    let files = Files::new();
    let gateway = files.with_admin(builder()).start();
    let admin = gateway.admin_tls();
    let fetch = |path: &str, more: &[&str]| {
        let url = format!("https://localhost:{}{path}", admin.port());
        let root = files.path("root.pem");
        let usual = ["--cacert", &*root, "-i", &*url];
        curl(&[&usual, more].concat())
    };
    let answer = fetch("/services", &["--http1.1"]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = fetch("/services", &["--http2", "-d", "name=s&url=http://a.test/"]);
    assert!(answer.starts_with("HTTP/2 201"), "{answer}");
    // Without a certificate of its own the status listener shows the default one.
    assert_eq!(common_name(admin), "localhost");
    assert_eq!(common_name(gateway.status_tls()), "default.test");
    let url = format!("https://{}/status", gateway.status_tls());
    assert!(curl(&["-k", &url]).contains("\"server\""));
    // The plain ones serve beside them.
    gateway.admin().get("/services/s").expect_status(200);
}

#[test]
fn strangers_on_a_port_with_tls_harm_nobody() {
    let files = Files::new();
    let gateway = files.with_admin(builder()).start();
    let mut silent = Vec::new();
    for noise in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff",
        b"",
        b"\0",
    ] {
        let mut stream = TcpStream::connect(gateway.admin_tls()).expect("a connection");
        stream.write_all(noise).expect("sent");
        silent.push(stream);
    }
    assert_eq!(common_name(gateway.admin_tls()), "localhost");
    let mut answer = Vec::new();
    // The request in plain text gets an alert or nothing, but no answer.
    let _ = silent[0].read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn unusable_certificates_are_refused_at_start() {
    let files = Files::new();
    let broken = files.path("broken.pem");
    std::fs::write(&broken, "no certificate").expect("a file");
    let start = |pairs: &[(&str, &str)]| {
        let builder = pairs.iter().fold(builder(), |builder, (key, value)| {
            builder.setting(key, value)
        });
        builder.try_start().err().expect("it does not start").1
    };
    let said = start(&[("admin_ssl_cert", &broken), ("admin_ssl_cert_key", &broken)]);
    assert!(
        said.contains("admin_ssl_cert") && said.contains("broken.pem"),
        "{said}"
    );
    let said = start(&[("status_ssl_cert", &broken)]);
    assert!(
        said.contains("status_ssl_cert_key") && said.contains("has 0 members"),
        "{said}"
    );
}
