//! Clients with certificates: who is asked, who is let in, and that resumption proves nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Authority, Gateway, Origin, Pair, eventually};

/// Certificates and keys in files, for programs that want them so.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pair(&self, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.path(name), self.path(&format!("{name}.key")));
        std::fs::write(&certificate, &pair.certificate).expect("a file");
        std::fs::write(&key, &pair.key).expect("a file");
        (certificate, key)
    }
}

/// What a run of `openssl s_client` showed.
struct Shown {
    text: String,
}

impl Shown {
    fn was_asked(&self) -> bool {
        self.text.contains("Requested Signature Algorithms")
    }

    fn was_resumed(&self) -> bool {
        self.text.contains("Reused, TLS")
    }

    fn status(&self) -> &str {
        let at = self.text.find("HTTP/1.1 ");
        let at = at.unwrap_or_else(|| panic!("no response:\n{}", self.text));
        &self.text[at + 9..at + 12]
    }
}

/// Sends one request through `openssl s_client` and gives all that it prints.
fn s_client(address: SocketAddr, server_name: &str, arguments: &[&str]) -> Shown {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-servername", server_name, "-ign_eof"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let request = format!("GET / HTTP/1.1\r\nHost: {server_name}\r\nConnection: close\r\n\r\n");
    let mut input = client.stdin.take().expect("a pipe");
    input.write_all(request.as_bytes()).expect("it reads");
    let output = client.wait_with_output().expect("it ends");
    drop(input);
    Shown {
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// A gateway with two names, of which `guarded.test` demands certificates of `authority`.
fn guarded(origin: &Origin, authority: &str, config: Value) -> Gateway {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let id = "5b9f3a2e-6f27-4d0a-8f5d-1f8b6f6f7a01";
    admin.create("/ca_certificates", json!({"id": id, "cert": authority}));
    let service = admin.create("/services", json!({"url": origin.url()}));
    for name in ["guarded", "open"] {
        admin.create(
            &format!("/services/{}/routes", service["id"].as_str().unwrap()),
            json!({"name": name, "protocols": ["https"], "snis": [format!("{name}.test")], "paths": ["/"]}),
        );
    }
    let mut all = json!({"ca_certificates": [id], "revocation_check_mode": "SKIP"});
    for (key, value) in config.as_object().expect("an object") {
        all[key] = value.clone();
    }
    admin.create(
        "/routes/guarded/plugins",
        json!({"name": "mtls-auth", "config": all}),
    );
    gateway
}

#[test]
fn only_names_that_need_a_certificate_ask_for_one() {
    let (authority, files) = (Authority::new(), Files::new());
    let origin = Origin::echo();
    let gateway = guarded(
        &origin,
        &authority.pem(),
        json!({"skip_consumer_lookup": true, "send_ca_dn": true}),
    );
    let (certificate, key) = files.pair("alice", &authority.issue(&["alice.test"]));
    let shows = ["-cert", text(&certificate), "-key", text(&key)];

    let open = s_client(gateway.tls(), "open.test", &[]);
    assert!(!open.was_asked() && open.status() == "200");
    let refused = s_client(gateway.tls(), "guarded.test", &[]);
    assert!(refused.was_asked() && refused.status() == "401");
    assert!(
        refused
            .text
            .contains("No required TLS certificate was sent")
    );
    assert!(
        refused.text.contains("CN = Test authority"),
        "{}",
        refused.text
    );
    let accepted = s_client(gateway.tls(), "guarded.test", &shows);
    assert_eq!(accepted.status(), "200");
    let received = origin.received();
    let seen = received.last().expect("a request");
    assert_eq!(seen.header("x-client-cert-dn"), Some("CN=alice.test"));
    assert_eq!(seen.header("x-client-cert-san"), Some("alice.test"));

    let stranger = Authority::new().issue(&["alice.test"]);
    let (certificate, key) = files.pair("stranger", &stranger);
    let shows = ["-cert", text(&certificate), "-key", text(&key)];
    let refused = s_client(gateway.tls(), "guarded.test", &shows);
    assert_eq!(refused.status(), "401");
    assert!(refused.text.contains("TLS certificate failed verification"));

    // A route without server names wants certificates of everybody.
    gateway
        .admin()
        .patch("/routes/guarded", json!({"snis": null}))
        .expect_status(200);
    assert!(s_client(gateway.tls(), "open.test", &[]).was_asked());
    gateway.admin().delete("/routes/guarded").expect_status(204);
    assert!(!s_client(gateway.tls(), "open.test", &[]).was_asked());
}

#[test]
fn log_entries_tell_what_came_of_the_certificate() {
    let (authority, files) = (Authority::new(), Files::new());
    let origin = Origin::echo();
    let gateway = guarded(
        &origin,
        &authority.pem(),
        json!({"skip_consumer_lookup": true}),
    );
    let log = files.path("log");
    let plugin = json!({"name": "file-log", "config": {"path": text(&log)}});
    gateway.admin().create("/plugins", plugin);
    let alice = files.pair("alice", &authority.issue(&["alice.test"]));
    let stranger = files.pair("stranger", &Authority::new().issue(&["alice.test"]));
    let verified = |expected: usize| {
        eventually("a line", || {
            let lines = std::fs::read_to_string(&log).unwrap_or_default();
            let line = lines.lines().nth(expected)?;
            let entry: Value = serde_json::from_str(line).ok()?;
            let said = entry["request"]["tls"]["client_verify"].as_str();
            Some(said.expect("a text").to_owned())
        })
    };
    s_client(gateway.tls(), "guarded.test", &[]);
    assert_eq!(verified(0), "NONE");
    let (certificate, key) = &alice;
    let shows = ["-cert", text(certificate), "-key", text(key)];
    s_client(gateway.tls(), "guarded.test", &shows);
    assert_eq!(verified(1), "SUCCESS");
    let (certificate, key) = &stranger;
    let shows = ["-cert", text(certificate), "-key", text(key)];
    s_client(gateway.tls(), "guarded.test", &shows);
    let said = verified(2);
    assert!(said.starts_with("FAILED:") && said.len() > 10, "{said}");
}

#[test]
fn certificates_stand_for_consumers() {
    let (authority, files) = (Authority::new(), Files::new());
    let origin = Origin::echo();
    let gateway = guarded(&origin, &authority.pem(), json!({}));
    let admin = gateway.admin();
    let (certificate, key) = files.pair("alice", &authority.issue(&["alice.test"]));
    let shows = ["-cert", text(&certificate), "-key", text(&key)];
    let status = || {
        let shown = s_client(gateway.tls(), "guarded.test", &shows);
        shown.status().to_owned()
    };
    assert_eq!(status(), "401");
    admin.create("/consumers", json!({"username": "alice"}));
    let credential = admin.create(
        "/consumers/alice/mtls-auth",
        json!({"subject_name": "alice.test"}),
    );
    assert_eq!(status(), "200");
    let received = origin.received();
    let seen = received.last().expect("a request");
    assert_eq!(seen.header("x-consumer-username"), Some("alice"));
    assert_eq!(
        seen.header("x-credential-identifier"),
        credential["id"].as_str()
    );
    let path = format!("/mtls-auths/{}", credential["id"].as_str().unwrap());
    admin.get(&path).expect_status(200);
    admin.delete(&path).expect_status(204);
    assert_eq!(status(), "401");
    // A consumer of the certificate's name needs no credential.
    admin
        .patch("/consumers/alice", json!({"username": "alice.test"}))
        .expect_status(200);
    assert_eq!(status(), "200");
}

#[test]
fn resumption_bypasses_no_rule() {
    let (authority, files) = (Authority::new(), Files::new());
    let origin = Origin::echo();
    let gateway = guarded(
        &origin,
        &authority.pem(),
        json!({"skip_consumer_lookup": true}),
    );
    let admin = gateway.admin();
    let (certificate, key) = files.pair("alice", &authority.issue(&["alice.test"]));
    for version in ["-tls1_2", "-tls1_3"] {
        let session = files.path(&format!("session{version}"));
        let session = text(&session);
        let shows = ["-cert", text(&certificate), "-key", text(&key)];
        let first = [&shows[..], &[version, "-sess_out", session]].concat();
        let again = [&shows[..], &[version, "-sess_in", session]].concat();

        // A session that began without being asked is not resumed where a certificate is needed.
        let open = s_client(gateway.tls(), "open.test", &first);
        assert_eq!(open.status(), "200");
        let resumed = s_client(gateway.tls(), "open.test", &again);
        assert!(resumed.was_resumed(), "{version}: {}", resumed.text);
        let other = s_client(gateway.tls(), "guarded.test", &again);
        assert!(!other.was_resumed() && other.was_asked(), "{version}");
        assert_eq!(other.status(), "200", "{version}");

        // One that showed a certificate is, with what it showed.
        let shown = s_client(gateway.tls(), "guarded.test", &first);
        assert_eq!(shown.status(), "200");
        let resumed = s_client(gateway.tls(), "guarded.test", &again);
        assert!(resumed.was_resumed(), "{version}: {}", resumed.text);
        assert_eq!(resumed.status(), "200", "{version}");

        // The authority is not trusted any more: the old session proves nothing, whether resumed or not.
        let plugins = admin.get("/routes/guarded/plugins").json();
        let plugin = &plugins["data"][0];
        let path = format!("/plugins/{}", plugin["id"].as_str().unwrap());
        let other = admin.create("/ca_certificates", json!({"cert": Authority::new().pem()}));
        let trusts = |id: &Value| {
            let change = json!({"config": {"ca_certificates": [id]}});
            admin.patch(&path, change).expect_status(200);
        };
        trusts(&other["id"]);
        let resumed = s_client(gateway.tls(), "guarded.test", &again);
        assert!(resumed.was_resumed(), "{version}: {}", resumed.text);
        assert_eq!(resumed.status(), "401", "{version}");
        trusts(&plugin["config"]["ca_certificates"][0]);
        let resumed = s_client(gateway.tls(), "guarded.test", &again);
        assert_eq!(resumed.status(), "200", "{version}");
    }
}

/// An authority made with `openssl`, whose certificates say where to ask about them.
struct Revoking {
    files: Files,
    /// Where its certificates send those who ask.
    responder: SocketAddr,
}

impl Revoking {
    fn new(extension: impl Fn(SocketAddr) -> String) -> Self {
        let files = Files::new();
        let responder = Origin::refused();
        let made = Self { files, responder };
        made.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=Revoking",
        ]);
        std::fs::write(made.files.path("ext"), extension(responder)).expect("a file");
        for (serial, name) in [("0x11", "good"), ("0x12", "revoked")] {
            let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
            made.openssl(&[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &request,
                "-subj",
                &format!("/CN={name}"),
            ]);
            made.openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-set_serial",
                serial,
                "-days",
                "2",
                "-extfile",
                "ext",
                "-out",
                &format!("{name}.pem"),
            ]);
        }
        let index = "V\t491231235959Z\t\t11\tunknown\t/CN=good\n\
            R\t491231235959Z\t260101000000Z\t12\tunknown\t/CN=revoked\n";
        std::fs::write(made.files.path("index"), index).expect("a file");
        made
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.files.0.path())
            .output()
            .expect("openssl is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
    }

    fn authority(&self) -> String {
        std::fs::read_to_string(self.files.path("ca.pem")).expect("a file")
    }

    /// Starts `openssl ocsp` where the certificates say.
    fn respond(&self) -> Responder {
        let port = self.responder.port();
        // Both outputs in one pipe: releases differ in where they tell that they are ready.
        let command = format!(
            "exec openssl ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -ndays 1 -port {port} 2>&1"
        );
        let mut child = Command::new("sh")
            .args(["-c", &command])
            .current_dir(self.files.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        // It must not be asked by a mere connection: that keeps it waiting for a question.
        let mut line = String::new();
        while !line.contains("ACCEPT") && !line.contains("waiting for") {
            line.clear();
            let count = output.read_line(&mut line).expect("a line");
            assert!(count > 0, "the responder ended");
        }
        Responder {
            child,
            _output: output,
        }
    }

    fn status(&self, gateway: &Gateway, name: &str) -> String {
        let certificate = self.files.path(&format!("{name}.pem"));
        let key = self.files.path(&format!("{name}.key"));
        let shows = ["-cert", text(&certificate), "-key", text(&key)];
        let shown = s_client(gateway.tls(), "guarded.test", &shows);
        shown.status().to_owned()
    }
}

struct Responder {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn checking(mode: &str) -> Value {
    json!({"skip_consumer_lookup": true, "revocation_check_mode": mode, "cert_cache_ttl": 1})
}

#[test]
fn revoked_certificates_are_refused_by_ocsp() {
    let authority =
        Revoking::new(|responder| format!("authorityInfoAccess=OCSP;URI:http://{responder}/\n"));
    let origin = Origin::echo();
    let lenient = guarded(&origin, &authority.authority(), checking("IGNORE_CA_ERROR"));
    let strict = guarded(&origin, &authority.authority(), checking("STRICT"));
    // Nobody answers.
    assert_eq!(authority.status(&lenient, "revoked"), "200");
    assert_eq!(authority.status(&strict, "good"), "401");
    let responder = authority.respond();
    for gateway in [&lenient, &strict] {
        assert_eq!(authority.status(gateway, "good"), "200");
        assert_eq!(authority.status(gateway, "revoked"), "401");
    }
    drop(responder);
    let skipping = guarded(&origin, &authority.authority(), checking("SKIP"));
    assert_eq!(authority.status(&skipping, "revoked"), "200");
}

#[test]
fn revoked_certificates_are_refused_by_a_list() {
    let list = std::sync::Arc::new(std::sync::OnceLock::<Vec<u8>>::new());
    let served = std::sync::Arc::clone(&list);
    let distributor = Origin::answering(move |_| {
        crate::harness::Reply::ok(served.get().cloned().unwrap_or_default())
    });
    let url = distributor.url();
    let authority = Revoking::new(|_| format!("crlDistributionPoints=URI:{url}/list.crl\n"));
    std::fs::write(
        authority.files.path("ca.conf"),
        "[ca]\ndefault_ca=it\n[it]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=1\n\
         crlnumber=crlnumber\n",
    )
    .expect("a file");
    std::fs::write(authority.files.path("crlnumber"), "01\n").expect("a file");
    let origin = Origin::echo();
    let strict = guarded(&origin, &authority.authority(), checking("STRICT"));
    // No list, or nonsense, is no answer.
    assert_eq!(authority.status(&strict, "good"), "401");
    authority.openssl(&[
        "ca", "-config", "ca.conf", "-gencrl", "-keyfile", "ca.key", "-cert", "ca.pem", "-out",
        "list.pem",
    ]);
    authority.openssl(&[
        "crl", "-in", "list.pem", "-outform", "DER", "-out", "list.crl",
    ]);
    let encoded = std::fs::read(authority.files.path("list.crl")).expect("a file");
    list.set(encoded).expect("once");
    assert_eq!(authority.status(&strict, "good"), "200");
    assert_eq!(authority.status(&strict, "revoked"), "401");
}

#[test]
fn certificates_in_headers_count_from_trusted_peers() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let pair = authority.issue(&["alice.test"]);
    let escaped: String = pair
        .certificate
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    for (trusted, status) in [("127.0.0.1", 200), ("192.0.2.1", 401)] {
        let id = "5b9f3a2e-6f27-4d0a-8f5d-1f8b6f6f7a01";
        let gateway = Gateway::builder()
            .setting("trusted_ips", trusted)
            .declarative(
                &json!({
                    "_format_version": "3.0",
                    "ca_certificates": [{"id": id, "cert": authority.pem()}],
                    "consumers": [{
                        "username": "alice",
                        "header_cert_auth_credentials": [{"subject_name": "alice.test"}],
                    }],
                    "services": [{"name": "s", "url": origin.url(), "routes": [{"paths": ["/"]}]}],
                    "plugins": [{"name": "header-cert-auth", "config": {
                        "ca_certificates": [id], "certificate_header_name": "X-Cert",
                        "certificate_header_format": "url_encoded", "revocation_check_mode": "SKIP",
                    }}],
                })
                .to_string(),
            )
            .start();
        let answer = gateway.get("/").header("X-Cert", &escaped).send();
        let answer = answer.expect_status(status);
        if status == 200 {
            let consumer = answer.echoed_one("x-consumer-username");
            assert_eq!(consumer.as_deref(), Some("alice"));
        }
    }
}

#[test]
fn a_ca_certificate_in_use_stays_and_bad_ones_are_refused() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let gateway = guarded(&origin, &authority.pem(), json!({}));
    let admin = gateway.admin();
    let refused = admin
        .delete("/ca_certificates/5b9f3a2e-6f27-4d0a-8f5d-1f8b6f6f7a01")
        .expect_status(400);
    assert!(refused.text().contains("still referenced by plugins"));
    let leaf = authority.issue(&["leaf.test"]).certificate;
    for (bad, message) in [
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "invalid certificate",
        ),
        ("nothing", "no certificate found"),
        (leaf.as_str(), "missing the \\\"CA\\\" basic constraint"),
    ] {
        let answer = admin.post("/ca_certificates", json!({"cert": bad}));
        let text = answer.expect_status(400).text();
        assert!(text.contains(message), "{text}");
    }
}

/// What `openssl s_client` says about the handshake with these arguments; nothing is asked for.
fn handshake(address: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn answers_about_revocation_are_stapled() {
    let authority =
        Revoking::new(|responder| format!("authorityInfoAccess=OCSP;URI:http://{responder}/\n"));
    let read = |name: &str| std::fs::read_to_string(authority.files.path(name)).expect("a file");
    let responder = authority.respond();
    let gateway = Gateway::builder()
        .setting("ssl_stapling", "on")
        .declarative(
            &json!({
                "_format_version": "3.0",
                "certificates": [{
                    "cert": read("good.pem") + &authority.authority(), "key": read("good.key"),
                    "snis": [{"name": "stapled.test"}],
                }, {
                    "cert": read("revoked.pem") + &authority.authority(), "key": read("revoked.key"),
                    "snis": [{"name": "revoked.test"}],
                }],
            })
            .to_string(),
        )
        .start();
    let shown = |name: &str| handshake(gateway.tls(), &["-status", "-servername", name]);
    let stapled = eventually("an answer is stapled", || {
        let text = shown("stapled.test");
        text.contains("OCSP Response Status: successful")
            .then_some(text)
    });
    assert!(stapled.contains("Cert Status: good"), "{stapled}");
    assert!(shown("revoked.test").contains("OCSP response: no response sent"));
    assert!(shown("other.test").contains("OCSP response: no response sent"));
    // It is still shown when nobody answers any more.
    drop(responder);
    assert!(shown("stapled.test").contains("Cert Status: good"));
}

#[test]
fn each_listener_has_its_profile() {
    let gateway = Gateway::builder()
        .setting(
            "proxy_listen",
            "127.0.0.1:0, 127.0.0.1:0 ssl, 127.0.0.1:0 ssl ssl_cipher_suite=modern, \
             127.0.0.1:0 ssl ssl_cipher_suite=old, 127.0.0.1:0 ssl ssl_cipher_suite=custom",
        )
        .setting(
            "ssl_ciphers",
            "ECDHE-ECDSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256",
        )
        .declarative(r#"{"_format_version": "3.0"}"#)
        .start();
    let listeners = gateway.tls_listeners();
    let [intermediate, modern, old, custom] = listeners[..] else {
        panic!("four listeners, not {listeners:?}");
    };
    let oldest = &["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..];
    let cipher = &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"][..];
    let strong = &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"][..];
    for (listener, arguments, accepted) in [
        (intermediate, oldest, false),
        (intermediate, cipher, true),
        (intermediate, &["-tls1_3"][..], true),
        (modern, cipher, false),
        (modern, &["-tls1_3"][..], true),
        (old, oldest, true),
        (custom, cipher, false),
        (custom, strong, true),
    ] {
        let text = handshake(listener, arguments);
        let done = text.contains("Cipher is ") && !text.contains("Cipher is (NONE)");
        assert_eq!(done, accepted, "{listener} {arguments:?}: {text}");
    }
    let said = gateway.said();
    assert!(
        said.contains("cannot be told to use DHE-RSA-AES128-GCM-SHA256"),
        "{said}"
    );
    assert!(said.contains("no DHE ciphers"), "{said}");
}

#[test]
fn sessions_without_tickets_are_kept_as_configured() {
    let files = Files::new();
    for (tickets, cache, resumed) in [("on", "0", true), ("off", "1m", true), ("off", "0", false)] {
        let gateway = Gateway::builder()
            .setting("ssl_session_tickets", tickets)
            .setting("ssl_session_cache_size", cache)
            .setting("ssl_session_timeout", "10m")
            .declarative(r#"{"_format_version": "3.0"}"#)
            .start();
        let session = files.path(&format!("{tickets}{cache}"));
        let session = text(&session);
        let first = s_client(gateway.tls(), "a.test", &["-tls1_2", "-sess_out", session]);
        assert!(!first.was_resumed());
        let second = s_client(gateway.tls(), "a.test", &["-tls1_2", "-sess_in", session]);
        assert_eq!(second.was_resumed(), resumed, "{tickets} {cache}");
    }
}
