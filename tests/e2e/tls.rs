//! TLS at the front: which certificate is shown, which protocol is chosen.

use boring::nid::Nid;
use boring::ssl::SslVersion;
use serde_json::json;

use crate::harness::{Authority, Client, Gateway, Origin, Reply, curl, one_service, tls_stream};

/// Common name of the certificate that the gateway shows for a server name.
fn shown(gateway: &Gateway, server_name: Option<&str>) -> String {
    let stream = tls_stream(gateway.tls(), server_name, b"\x08http/1.1");
    let certificate = stream.ssl().peer_certificate().expect("a certificate");
    let name = certificate
        .subject_name()
        .entries_by_nid(Nid::COMMONNAME)
        .next();
    String::from_utf8_lossy(name.expect("a common name").data().as_slice()).into_owned()
}

#[test]
fn the_certificate_follows_the_server_name() {
    let authority = Authority::new();
    let certificate = |names: &[&str]| {
        let pair = authority.issue(names);
        let snis: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"cert": pair.certificate, "key": pair.key, "snis": snis})
    };
    let gateway = Gateway::with(
        &json!({
            "_format_version": "3.0",
            "certificates": [
                certificate(&["exact.one.test"]),
                certificate(&["*.one.test"]),
                certificate(&["name.*"]),
                certificate(&["second.test", "third.test"]),
            ],
        })
        .to_string(),
    );
    for (server_name, expected) in [
        (Some("exact.one.test"), "exact.one.test"),
        (Some("EXACT.one.test"), "exact.one.test"),
        (Some("other.one.test"), "*.one.test"),
        (Some("deep.other.one.test"), "default.test"),
        (Some("name.org"), "name.*"),
        (Some("third.test"), "second.test"),
        (Some("unknown.example"), "default.test"),
        (None, "default.test"),
    ] {
        assert_eq!(shown(&gateway, server_name), expected, "{server_name:?}");
    }
}

#[test]
fn a_certificate_for_any_name_comes_before_the_default() {
    let pair = Authority::new().issue(&["any.test"]);
    let gateway = Gateway::with(
        &json!({
            "_format_version": "3.0",
            "certificates": [{"cert": pair.certificate, "key": pair.key, "snis": [{"name": "*"}]}],
        })
        .to_string(),
    );
    assert_eq!(shown(&gateway, Some("whatever.example")), "any.test");
    assert_eq!(shown(&gateway, None), "default.test");
}

#[test]
fn certificates_come_and_go_at_run_time() {
    let authority = Authority::new();
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    assert_eq!(shown(&gateway, Some("late.test")), "default.test");
    let pair = authority.issue(&["first.test"]);
    let created = admin.create(
        "/certificates",
        json!({"cert": pair.certificate, "key": pair.key, "snis": ["late.test"]}),
    );
    assert_eq!(shown(&gateway, Some("late.test")), "first.test");
    let renewed = authority.issue(&["renewed.test"]);
    let path = format!("/certificates/{}", created["id"].as_str().expect("an id"));
    admin
        .patch(
            &path,
            json!({"cert": renewed.certificate, "key": renewed.key}),
        )
        .expect_status(200);
    assert_eq!(shown(&gateway, Some("late.test")), "renewed.test");
    admin.delete("/snis/late.test").expect_status(204);
    assert_eq!(shown(&gateway, Some("late.test")), "default.test");
}

#[test]
fn without_a_configured_pair_the_gateway_makes_its_own() {
    let gateway = Gateway::builder()
        .setting("ssl_cert", "")
        .setting("ssl_cert_key", "")
        .declarative(r#"{"_format_version": "3.0"}"#)
        .start();
    gateway
        .get_tls("anything.test", "/")
        .send()
        .expect_status(404);
}

#[test]
fn two_key_types_serve_each_client_what_it_can_use() {
    let authority = Authority::new();
    let (ecdsa, rsa) = (
        authority.issue(&["dual.test"]),
        authority.issue_rsa(&["dual.test"]),
    );
    let gateway = Gateway::with(
        &json!({
            "_format_version": "3.0",
            "certificates": [{
                "cert": rsa.certificate, "key": rsa.key,
                "cert_alt": ecdsa.certificate, "key_alt": ecdsa.key,
                "snis": [{"name": "dual.test"}],
            }],
        })
        .to_string(),
    );
    let port = gateway.tls().port();
    for (suite, kind) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA"),
        ("ECDHE-RSA-AES128-GCM-SHA256", "RSA"),
    ] {
        // A TLS 1.2 suite names the key type that it needs.
        let url = format!("https://dual.test:{port}/");
        let resolve = format!("dual.test:{port}:127.0.0.1");
        let status = curl(&[
            "-k",
            "--tls-max",
            "1.2",
            "--ciphers",
            suite,
            "--resolve",
            &resolve,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
        ]);
        assert_eq!(status, "404", "{kind}");
    }
}

#[test]
fn http_2_is_chosen_by_alpn() {
    let gateway = Gateway::with(r#"{"_format_version": "3.0"}"#);
    for (offer, chosen) in [
        (&b"\x02h2\x08http/1.1"[..], &b"h2"[..]),
        (b"\x08http/1.1\x02h2", b"h2"),
        (b"\x08http/1.1", b"http/1.1"),
    ] {
        let stream = tls_stream(gateway.tls(), Some("a.test"), offer);
        assert_eq!(stream.ssl().selected_alpn_protocol(), Some(chosen));
        assert_eq!(stream.ssl().version2(), Some(SslVersion::TLS1_3));
    }
}

#[test]
fn a_listener_without_http2_chooses_http_1_1() {
    let gateway = Gateway::builder()
        .setting("proxy_listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .declarative(r#"{"_format_version": "3.0"}"#)
        .start();
    let stream = tls_stream(gateway.tls(), Some("a.test"), b"\x02h2\x08http/1.1");
    assert_eq!(
        stream.ssl().selected_alpn_protocol(),
        Some(&b"http/1.1"[..])
    );
}

#[test]
fn old_protocols_are_refused_unless_configured() {
    let gateway = Gateway::with(r#"{"_format_version": "3.0"}"#);
    let url = format!("https://{}/", gateway.tls());
    let attempt = |arguments: &[&str]| {
        let output = std::process::Command::new("curl")
            .args([
                "-sk",
                "--max-time",
                "10",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
            ])
            .args(arguments)
            .arg(&url)
            .output()
            .expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(
        attempt(&[
            "--tls-max",
            "1.1",
            "--tlsv1.0",
            "--ciphers",
            "ALL:@SECLEVEL=0"
        ]),
        "000"
    );
    assert_eq!(attempt(&["--tls-max", "1.2"]), "404");
    assert_eq!(attempt(&["--tlsv1.3"]), "404");
}

#[test]
fn plain_text_on_a_tls_port_harms_nobody() {
    let origin = Origin::answering(|_| Reply::ok("fine"));
    let routes = json!([{"name": "all", "paths": ["/"]}]);
    let gateway = Gateway::with(&one_service(&origin.url(), &routes));
    let mut client = Client::connect(gateway.tls());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Kong's answer is a 400; a closed connection says as much.
    match client.try_read_response_to("GET") {
        Ok(answer) => assert_eq!(answer.status, 400),
        Err(_) => assert!(client.is_closed()),
    }
    gateway.get_tls("a.test", "/").send().expect_status(200);
}

#[test]
fn connections_over_tls_are_kept_and_tell_the_origin_so() {
    let origin = Origin::echo();
    let routes = json!([{"name": "all", "paths": ["/"]}]);
    let gateway = Gateway::with(&one_service(&origin.url(), &routes));
    let mut client = Client::connect_tls(gateway.tls(), "a.test");
    for _ in 0..5 {
        let answer = client
            .exchange("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .expect_status(200);
        assert_eq!(
            answer.echoed_one("x-forwarded-proto").as_deref(),
            Some("https")
        );
        let port = gateway.tls().port().to_string();
        assert_eq!(answer.echoed_one("x-forwarded-port"), Some(port));
    }
}
