//! Streams: bytes over TCP and TLS, ended here or passed through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Authority, DEADLINE, Daemon, Gateway, Origin, Pair, Reply, eventually, one_service, tls_stream,
};

/// A gateway with a plain stream listener and one with TLS.
pub(crate) fn gateway(declarative: &Value) -> Gateway {
    Gateway::builder()
        .setting("stream_listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .declarative(&declarative.to_string())
        .start()
}

/// A service of this protocol at this address, with these routes.
pub(crate) fn service(protocol: &str, address: SocketAddr, routes: Value) -> Value {
    json!({
        "name": format!("{protocol}-{}", address.port()),
        "protocol": protocol,
        "host": address.ip().to_string(),
        "port": address.port(),
        "routes": routes,
    })
}

/// A route for every plain stream.
pub(crate) fn plain_route() -> Value {
    json!({"name": "plain", "protocols": ["tcp"], "sources": [{"ip": "127.0.0.0/8"}]})
}

pub(crate) fn document(services: Value) -> Value {
    json!({"_format_version": "3.0", "services": services})
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Everything up to the end.
pub(crate) fn rest(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    // A reset ends it as well.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A server that hands each connection to `serve`, on a thread of its own.
pub(crate) fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends back what it gets, until the end.
pub(crate) fn echo() -> SocketAddr {
    serve(|mut stream| {
        let mut copy = stream.try_clone().expect("a handle");
        let _ = std::io::copy(&mut stream, &mut copy);
        let _ = copy.shutdown(Shutdown::Write);
    })
}

/// One word there and back.
pub(crate) fn echoes(stream: &mut (impl Read + Write), word: &str) {
    stream.write_all(word.as_bytes()).expect("sent");
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).expect("an echo");
    assert_eq!(back, word.as_bytes());
}

/// Whether the connection ends without a byte.
pub(crate) fn is_closed(mut stream: TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// The subject of the certificate that `openssl s_client` sees.
fn subject_seen(address: SocketAddr, server_name: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-servername", server_name])
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = text.lines().find_map(|line| line.strip_prefix("subject="));
    subject.unwrap_or(&text).replace(' ', "")
}

fn redis_cli(address: SocketAddr, more: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(more)
        .output()
        .expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn redis_behind_tcp_and_tls_routes() {
    let redis = Daemon::redis();
    let routes = json!([
        plain_route(),
        {"name": "encrypted", "protocols": ["tls"], "snis": ["redis.test"]},
    ]);
    let gateway = gateway(&document(json!([service(
        "tcp",
        redis.addresses[0],
        routes
    )])));
    assert_eq!(redis_cli(gateway.stream(), &["set", "a", "1"]), "OK");
    let encrypted = ["--tls", "--insecure", "--sni", "redis.test", "get", "a"];
    assert_eq!(redis_cli(gateway.stream_tls(), &encrypted), "1");
    // A pipeline of many commands, whose answers come back in order.
    let mut stream = connect(gateway.stream());
    let mut commands = String::new();
    for number in 0..1000 {
        commands.push_str(&format!("set k{number} {number}\r\nget k{number}\r\n"));
    }
    commands.push_str("quit\r\n");
    stream.write_all(commands.as_bytes()).unwrap();
    let answers = rest(stream);
    assert_eq!(answers.matches("+OK\r\n").count(), 1001);
    assert!(answers.contains("$3\r\n999\r\n"), "{answers}");
}

/// nginx: plain, TLS, TLS in TLS, each saying what it is.
fn nginx(pair: &Pair) -> Daemon {
    let files = [
        ("cert.pem", pair.certificate.as_str()),
        ("key.pem", pair.key.as_str()),
    ];
    Daemon::nginx_streams(3, &files, |at| {
        let [plain, tls, double] = [at[0], at[1], at[2]];
        format!(
            "ssl_certificate cert.pem; ssl_certificate_key key.pem;\n\
             server {{ listen {plain}; return plain; }}\n\
             server {{ listen {tls} ssl; return tls:$ssl_server_name; }}\n\
             server {{ listen {double} ssl; proxy_pass {tls}; }}\n"
        )
    })
}

#[test]
fn tcp_and_tls_on_either_side() {
    let nginx = nginx(&Authority::new().issue(&["inner.test"]));
    let [plain, tls, double] = [nginx.addresses[0], nginx.addresses[1], nginx.addresses[2]];
    let route = |name: &str, protocol: &str| json!([{"name": name, "protocols": [protocol], "snis": [format!("{name}.test")]}]);
    let mut named = service("tls", tls, json!([]));
    named["routes"] = json!([
        {"name": "kept", "protocols": ["tls"], "snis": ["kept.test"], "preserve_host": true},
    ]);
    named["name"] = json!("named");
    let mut wrapped = service("tls", double, route("wrapped", "tls_passthrough"));
    wrapped["tls_verify"] = json!(false);
    let gateway = gateway(&document(json!([
        service("tcp", plain, route("tls-to-tcp", "tls")),
        service("tls", tls, json!([
            plain_route(),
            {"name": "tls-to-tls", "protocols": ["tls"], "snis": ["tls-to-tls.test"]},
        ])),
        named,
        {
            "name": "through", "protocol": "tcp", "host": "127.0.0.1", "port": tls.port(),
            "routes": route("through", "tls_passthrough"),
        },
        wrapped,
    ])));
    let address = gateway.stream_tls();
    let over_tls = |name: &str| rest(tls_stream(address, Some(name), b""));
    assert_eq!(over_tls("tls-to-tcp.test"), "plain");
    // The upstream has an address, which is never sent as a server name.
    assert_eq!(over_tls("tls-to-tls.test"), "tls:");
    assert_eq!(over_tls("kept.test"), "tls:kept.test");
    assert_eq!(rest(connect(gateway.stream())), "tls:");
    // Not opened here: the name is the client's own, whatever case it writes it in.
    assert_eq!(over_tls("through.test"), "tls:through.test");
    assert_eq!(over_tls("THROUGH.test"), "tls:THROUGH.test");
    assert_eq!(over_tls("wrapped.test"), "tls:wrapped.test");
    // Passed through and ended on one port.
    assert_eq!(subject_seen(address, "through.test"), "CN=inner.test");
    assert_eq!(subject_seen(address, "wrapped.test"), "CN=inner.test");
    assert_eq!(subject_seen(address, "tls-to-tcp.test"), "CN=default.test");
}

#[test]
fn requests_and_passthrough_share_a_port() {
    let nginx = nginx(&Authority::new().issue(&["inner.test"]));
    let origin = Origin::answering(|_| Reply::ok("https"));
    let mut document: Value =
        serde_json::from_str(&one_service(&origin.url(), &json!([{"paths": ["/"]}]))).unwrap();
    let through = json!([
        {"name": "through", "protocols": ["tls_passthrough"], "snis": ["*.through.test"]},
        {"name": "elsewhere", "protocols": ["tls_passthrough"], "snis": ["a.elsewhere.test"],
         "destinations": [{"port": 1}]},
        // Routes for streams are none for requests.
        {"name": "ended", "protocols": ["tls"], "snis": ["a.ended.test"]},
    ]);
    let services = document["services"].as_array_mut().unwrap();
    services.push(service("tcp", nginx.addresses[1], through));
    let gateway = gateway(&document);
    let name = "a.through.test";
    assert_eq!(
        rest(tls_stream(gateway.tls(), Some(name), b"\x02h2")),
        format!("tls:{name}")
    );
    assert_eq!(subject_seen(gateway.tls(), name), "CN=inner.test");
    for name in ["other.test", "a.elsewhere.test", "a.ended.test"] {
        let answer = gateway.get_tls(name, "/").send().expect_status(200);
        assert_eq!(answer.text(), "https", "{name}");
    }
    assert_eq!(gateway.get("/").send().expect_status(200).text(), "https");
    // No route for streams takes this one; the gateway does not guess.
    let stream = connect(gateway.stream());
    assert!(is_closed(stream));
}

#[test]
fn each_side_may_end_before_the_other() {
    let origin = serve(|mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        let answer = format!("heard {}", heard.len());
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let announcing = serve(|mut stream| {
        stream.write_all(b"first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        // Told by a second connection, because this one is closed to that side.
        let listener: SocketAddr = heard.parse().unwrap();
        connect(listener).write_all(b"last").unwrap();
    });
    let by_name = |name: &str| json!([{"name": name, "protocols": ["tls"], "snis": [format!("{name}.test")]}]);
    let mut routes = by_name("client").as_array().unwrap().clone();
    routes.push(plain_route());
    let gateway = gateway(&document(json!([
        service("tcp", origin, json!(routes)),
        service("tcp", announcing, by_name("origin")),
    ])));
    let bytes = vec![7; 1_000_000];
    let mut stream = connect(gateway.stream());
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(stream), "heard 1000000");

    let mut stream = tls_stream(gateway.stream_tls(), Some("client.test"), b"");
    stream.write_all(&bytes).unwrap();
    stream.shutdown().unwrap();
    assert_eq!(rest(stream), "heard 1000000");

    let told = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = tls_stream(gateway.stream_tls(), Some("origin.test"), b"");
    assert_eq!(rest(&mut stream), "first");
    stream
        .write_all(told.local_addr().unwrap().to_string().as_bytes())
        .unwrap();
    stream.shutdown().unwrap();
    assert_eq!(rest(told.accept().unwrap().0), "last");
}

#[test]
fn silence_and_jams_end_by_the_services_timeouts() {
    let silent = serve(|mut stream| {
        let _ = stream.read(&mut [0]);
        std::thread::park();
    });
    let mut service = service("tcp", silent, json!([plain_route()]));
    service["read_timeout"] = json!(300);
    service["write_timeout"] = json!(400);
    let gateway = gateway(&document(json!([service])));
    let since = Instant::now();
    let mut idle = connect(gateway.stream());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    assert!(since.elapsed() >= Duration::from_millis(300));
    // The origin takes one byte: the rest fills every buffer, and nobody waits for ever.
    let mut jammed = connect(gateway.stream());
    jammed.set_write_timeout(Some(DEADLINE)).unwrap();
    let block = vec![0; 1 << 20];
    let sent = (0..1000).take_while(|_| jammed.write_all(&block).is_ok());
    assert!(sent.count() < 1000);
}

#[test]
fn endpoints_that_refuse_are_passed_over() {
    let good = echo();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = refusing.local_addr().unwrap();
    drop(refusing);
    let gateway = gateway(&json!({
        "_format_version": "3.0",
        "upstreams": [{"name": "u", "targets": [
            {"target": good.to_string()}, {"target": bad.to_string()},
        ]}],
        "services": [
            {"name": "s", "protocol": "tcp", "host": "u", "port": 1, "routes": [plain_route()]},
            {"name": "dead", "protocol": "tcp", "host": "127.0.0.1", "port": bad.port(), "retries": 2,
             "routes": [{"name": "d", "protocols": ["tls"], "snis": ["dead.test"]}]},
        ],
    }));
    for _ in 0..6 {
        echoes(&mut connect(gateway.stream()), "hello");
    }
    assert_eq!(
        rest(tls_stream(gateway.stream_tls(), Some("dead.test"), b"")),
        ""
    );
}

#[test]
fn priorities_are_kongs() {
    let saying = |word: &'static str| {
        serve(move |mut stream| {
            let _ = stream.write_all(word.as_bytes());
        })
    };
    let source = |ip: &str| json!({"protocols": ["tcp"], "sources": [{"ip": ip}]});
    let mut both = source("127.0.0.0/8");
    both["destinations"] = json!([{"ip": "127.0.0.1"}]);
    both["name"] = json!("both");
    let gateway = gateway(&document(json!([
        service("tcp", saying("range"), json!([source("127.0.0.0/8")])),
        service("tcp", saying("address"), json!([source("127.0.0.7")])),
        service("tcp", saying("both"), json!([both])),
    ])));
    let from = |source: &str| {
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )
        .unwrap();
        let source: SocketAddr = format!("{source}:0").parse().unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&gateway.stream().into()).unwrap();
        rest(TcpStream::from(socket))
    };
    // Source and destination together come first, whatever else is more precise.
    assert_eq!(from("127.0.0.7"), "both");
    assert_eq!(from("127.0.0.8"), "both");
}

#[test]
fn large_streams_arrive_whole_both_ways() {
    let origin = echo();
    let routes = json!([plain_route(), {"name": "t", "protocols": ["tls"], "snis": ["echo.test"]}]);
    let gateway = gateway(&document(json!([service("tcp", origin, routes)])));
    let bytes: Vec<u8> = (0..20_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let stream = connect(gateway.stream());
    let mut sending = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        sending.write_all(&sent).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    { &stream }.read_to_end(&mut back).unwrap();
    sender.join().unwrap();
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
    let mut stream = tls_stream(gateway.stream_tls(), Some("echo.test"), b"");
    for piece in bytes.chunks(50_000).take(40) {
        stream.write_all(piece).unwrap();
        let mut back = vec![0; piece.len()];
        stream.read_exact(&mut back).unwrap();
        assert!(back == piece);
    }
}

#[test]
fn a_stop_waits_for_open_streams() {
    let origin = echo();
    let declarative = document(json!([service("tcp", origin, json!([plain_route()]))]));
    let mut gateway = gateway(&declarative);
    let address = gateway.stream();
    let mut stream = connect(address);
    echoes(&mut stream, "before");
    gateway.signal("TERM");
    eventually("the listener is closed", || {
        TcpStream::connect(address).is_err().then_some(())
    });
    echoes(&mut stream, "while ending");
    drop(stream);
    assert!(gateway.wait().success());
}

#[test]
fn an_upgrade_keeps_streams() {
    let origin = echo();
    let declarative = document(json!([service("tcp", origin, json!([plain_route()]))]));
    let gateway = gateway(&declarative);
    let mut stream = connect(gateway.stream());
    echoes(&mut stream, "before");
    let upgraded = gateway.run(&["upgrade"]);
    let errors = String::from_utf8_lossy(&upgraded.stderr).into_owned();
    assert!(upgraded.status.success(), "{errors}");
    echoes(&mut stream, "carried by the old one");
    echoes(&mut connect(gateway.stream()), "carried by the new one");
}
