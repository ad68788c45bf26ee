//! Active health checks of every type, against real servers.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{Authority, Daemon, Gateway, Origin, Program, eventually, python_client};
use crate::streams::{connect, rest, serve};

/// What `/upstreams/pool.test/health` says of an address.
fn health(gateway: &Gateway, address: SocketAddr) -> String {
    let shown = gateway.admin().get("/upstreams/pool.test/health");
    let shown = shown.expect_status(200).json();
    let targets = shown["data"].as_array().expect("targets");
    let target = targets
        .iter()
        .find(|it| it["target"] == address.to_string());
    let target = target.unwrap_or_else(|| panic!("{address} in {shown}"));
    target["health"].as_str().expect("a text").to_owned()
}

fn becomes(gateway: &Gateway, address: SocketAddr, state: &str) {
    eventually(&format!("{address} is {state}"), || {
        (health(gateway, address) == state).then_some(())
    });
}

/// An upstream with a check of this kind, and a service with a route before it.
fn checked(gateway: &Gateway, active: Value, service: Value, route: Value, targets: &[SocketAddr]) {
    let admin = gateway.admin();
    let mut active = active;
    active["healthy"] = json!({"interval": 0.1, "successes": 1});
    active["unhealthy"] =
        json!({"interval": 0.1, "tcp_failures": 1, "http_failures": 1, "timeouts": 1});
    let upstream = json!({"name": "pool.test", "healthchecks": {"active": active}});
    admin.create("/upstreams", upstream);
    for target in targets {
        let target = json!({"target": target.to_string()});
        admin.create("/upstreams/pool.test/targets", target);
    }
    admin.create("/services", service);
    admin.create("/services/s/routes", route);
}

/// nginx over TLS, alive unless the request's path says otherwise.
fn nginx(authority: &Authority, name: &str) -> Daemon {
    let pair = authority.issue(&[name]);
    let files = [
        ("certificate.pem", &*pair.certificate),
        ("key.pem", &*pair.key),
    ];
    Daemon::nginx_http(&files, |folder, address| {
        let root = folder.display();
        format!(
            "listen {address} ssl; ssl_certificate {root}/certificate.pem; ssl_certificate_key {root}/key.pem;\n\
             location / {{ return 200 '{name}'; }} location /sick {{ return 503; }}"
        )
    })
}

#[test]
fn checks_over_tls_look_at_the_certificate_if_they_shall() {
    let (good, other) = (Authority::new(), Authority::new());
    let (sound, foreign) = (nginx(&good, "pool.test"), nginx(&other, "pool.test"));
    let (sound_at, foreign_at) = (sound.addresses[0], foreign.addresses[0]);
    let folder = tempfile::tempdir().expect("a folder");
    let anchors = folder.path().join("anchors.pem");
    std::fs::write(&anchors, good.pem()).expect("a file");
    let gateway = Gateway::builder()
        .setting(
            "lua_ssl_trusted_certificate",
            anchors.to_str().expect("UTF-8"),
        )
        .start();
    checked(
        &gateway,
        json!({"type": "https", "https_sni": "pool.test"}),
        json!({"name": "s", "protocol": "https", "host": "pool.test", "retries": 0}),
        json!({"paths": ["/"]}),
        &[sound_at, foreign_at],
    );
    becomes(&gateway, foreign_at, "UNHEALTHY");
    becomes(&gateway, sound_at, "HEALTHY");
    for _ in 0..6 {
        gateway.get("/").send().expect_status(200);
    }
    let change = |active: Value| {
        let body = json!({"healthchecks": {"active": active}});
        gateway
            .admin()
            .patch("/upstreams/pool.test", body)
            .expect_status(200);
    };
    change(json!({"https_verify_certificate": false}));
    becomes(&gateway, foreign_at, "HEALTHY");
    change(json!({"https_verify_certificate": true, "https_sni": "elsewhere.test"}));
    becomes(&gateway, sound_at, "UNHEALTHY");
    change(json!({"https_verify_certificate": false, "http_path": "/sick"}));
    becomes(&gateway, sound_at, "UNHEALTHY");
    change(json!({"http_path": "/"}));
    becomes(&gateway, sound_at, "HEALTHY");
}

#[test]
fn checks_of_grpc_find_who_speaks_it() {
    let mut server = Program::start("grpc_server.py", &[]);
    let server_at: SocketAddr = ([127, 0, 0, 1], server.port()).into();
    let (strange, dead) = (Origin::echo(), Origin::refused());
    let gateway = Gateway::builder()
        .setting("proxy_listen", "127.0.0.1:0 http2")
        .start();
    checked(
        &gateway,
        json!({"type": "grpc"}),
        json!({"name": "s", "protocol": "grpc", "host": "pool.test", "retries": 0}),
        json!({"protocols": ["grpc"], "paths": ["/test.Echo"]}),
        &[server_at, strange.address, dead],
    );
    becomes(&gateway, dead, "UNHEALTHY");
    becomes(&gateway, strange.address, "UNHEALTHY");
    becomes(&gateway, server_at, "HEALTHY");
    let target = gateway.proxy().to_string();
    let output = python_client("grpc_client.py", &[&target, "unary"]);
    assert!(output.ends_with("good\n"), "{output}");
    drop(server);
    becomes(&gateway, server_at, "UNHEALTHY");
}

#[test]
fn checks_of_tcp_keep_streams_from_the_dead() {
    let alive = serve(|mut stream| {
        use std::io::Write;
        let _ = stream.write_all(b"alive");
    });
    let dead = Origin::refused();
    let gateway = Gateway::builder()
        .setting("stream_listen", "127.0.0.1:0")
        .start();
    checked(
        &gateway,
        json!({"type": "tcp"}),
        json!({"name": "s", "protocol": "tcp", "host": "pool.test", "port": 1, "retries": 0}),
        json!({"protocols": ["tcp"], "sources": [{"ip": "127.0.0.0/8"}]}),
        &[alive, dead],
    );
    becomes(&gateway, dead, "UNHEALTHY");
    for _ in 0..6 {
        assert_eq!(rest(connect(gateway.stream())), "alive");
    }
    let _back = std::net::TcpListener::bind(dead).expect("its port");
    becomes(&gateway, dead, "HEALTHY");
}
