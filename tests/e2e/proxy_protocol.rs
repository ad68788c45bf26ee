//! PROXY headers: from balancers in front, and to upstreams.

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, Gateway, Origin, curl, one_service, tls_stream};
use crate::streams::{connect, document, echo, echoes, is_closed, plain_route, rest, service};

/// Where the client of these tests sits; HAProxy itself connects from 127.0.0.1.
const CLIENT: &str = "127.0.0.5";

fn http(trusted: &str) -> (Origin, Gateway) {
    let origin = Origin::echo();
    let gateway = Gateway::builder()
        .setting(
            "proxy_listen",
            "127.0.0.1:0 proxy_protocol, 127.0.0.1:0 http2 ssl proxy_protocol",
        )
        .setting("trusted_ips", trusted)
        .declarative(&one_service(&origin.url(), &json!([{"paths": ["/"]}])))
        .start();
    (origin, gateway)
}

fn forwarded_for(echoed: &str) -> String {
    let echoed: Value = serde_json::from_str(echoed).unwrap();
    let text = echoed.to_string();
    let at = text.to_lowercase().find("x-forwarded-for").unwrap();
    text[at..].chars().take(60).collect()
}

#[test]
fn haproxy_names_the_client_of_requests() {
    let (_origin, gateway) = http("127.0.0.1");
    let (plain, tls) = (gateway.proxy(), gateway.tls());
    let haproxy = Daemon::haproxy(&[
        (plain, "send-proxy"),
        (plain, "send-proxy-v2"),
        (tls, "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
    ]);
    for (number, scheme) in [(0, "http"), (1, "http"), (2, "https")] {
        let url = format!("{scheme}://{}/", haproxy.addresses[number]);
        let echoed = curl(&["--insecure", "--interface", CLIENT, &url]);
        let seen = forwarded_for(&echoed);
        assert!(seen.contains(CLIENT), "{number}: {echoed}");
    }
}

#[test]
fn only_trusted_peers_are_believed() {
    let (_origin, gateway) = http("192.0.2.1");
    let haproxy = Daemon::haproxy(&[(gateway.proxy(), "send-proxy-v2")]);
    let url = format!("http://{}/", haproxy.addresses[0]);
    let echoed = curl(&["--interface", CLIENT, &url]);
    assert!(forwarded_for(&echoed).contains("127.0.0.1"), "{echoed}");
}

#[test]
fn headers_that_are_broken_or_missing_close_their_connection_only() {
    let (_origin, gateway) = http("127.0.0.1");
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut good = Client::connect(gateway.proxy());
    good.send(format!("PROXY TCP4 192.0.2.9 127.0.0.1 1 2\r\n{request}"));
    let first = good.read_response();
    assert!(forwarded_for(&first.text()).contains("192.0.2.9"));
    let signature = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let version_2 = |rest: &[u8]| [signature.clone(), rest.to_vec()].concat();
    for (what, bytes) in [
        ("none", request.as_bytes().to_vec()),
        (
            "a bad address",
            b"PROXY TCP4 300.0.2.9 127.0.0.1 1 2\r\n".to_vec(),
        ),
        (
            "no end",
            [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        ),
        ("another version", version_2(&[0x11, 0x11, 0, 12])),
        ("an unknown command", version_2(&[0x25, 0x11, 0, 0])),
        ("a short address", version_2(&[0x21, 0x11, 0, 2, 1, 1])),
        (
            "a length beyond the limit",
            version_2(&[0x21, 0x11, 0xff, 0xff]),
        ),
    ] {
        let mut stream = connect(gateway.proxy());
        let _ = stream.write_all(&bytes);
        assert!(is_closed(stream), "{what}");
    }
    assert_eq!(good.exchange(request).status, 200);
    // A balancer that speaks for itself: the connection is its own.
    let mut local = Client::connect(gateway.proxy());
    local.send([version_2(&[0x20, 0x00, 0, 0]), request.as_bytes().to_vec()].concat());
    let answer = local.read_response();
    assert!(forwarded_for(&answer.text()).contains("127.0.0.1"));
    // In pieces.
    let mut dripping = connect(gateway.proxy());
    for byte in format!("PROXY TCP6 2001:db8::7 ::1 1 2\r\n{request}").bytes() {
        dripping.write_all(&[byte]).unwrap();
    }
    let mut answer = [0; 4096];
    let count = dripping.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert!(answer.contains("2001:db8::7"), "{answer}");
}

#[test]
fn streams_know_their_clients_too() {
    let routes = json!([
        {"name": "near", "protocols": ["tcp"], "sources": [{"ip": CLIENT}]},
        {"name": "named", "protocols": ["tls"], "snis": ["a.test"], "sources": [{"ip": "192.0.2.0/24"}]},
    ]);
    let gateway = Gateway::builder()
        .setting(
            "stream_listen",
            "127.0.0.1:0 proxy_protocol, 127.0.0.1:0 ssl proxy_protocol",
        )
        .setting("trusted_ips", "127.0.0.1")
        .declarative(&document(json!([service("tcp", echo(), routes)])).to_string())
        .start();
    let mut stream = connect(gateway.stream());
    stream
        .write_all(format!("PROXY TCP4 {CLIENT} 127.0.0.1 1 2\r\n").as_bytes())
        .unwrap();
    echoes(&mut stream, "near");
    let mut far = connect(gateway.stream());
    far.write_all(b"PROXY TCP4 192.0.2.9 127.0.0.1 1 2\r\n")
        .unwrap();
    assert!(is_closed(far));
    // The hello comes behind the header.
    let haproxy = Daemon::haproxy(&[(gateway.stream(), "send-proxy")]);
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )
    .unwrap();
    let source: SocketAddr = format!("{CLIENT}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&haproxy.addresses[0].into()).unwrap();
    echoes(&mut std::net::TcpStream::from(socket), "by way of haproxy");

    let mut stream = connect(gateway.stream_tls());
    stream
        .write_all(b"PROXY TCP4 192.0.2.77 127.0.0.1 1 2\r\n")
        .unwrap();
    let mut builder = boring::ssl::SslConnector::builder(boring::ssl::SslMethod::tls()).unwrap();
    builder.set_verify(boring::ssl::SslVerifyMode::NONE);
    let mut stream = builder.build().connect("a.test", stream).unwrap();
    echoes(&mut stream, "encrypted");
}

#[test]
fn upstreams_are_told_who_the_client_is() {
    let pair = crate::harness::Authority::new().issue(&["inner.test"]);
    let files = [
        ("cert.pem", pair.certificate.as_str()),
        ("key.pem", pair.key.as_str()),
    ];
    let nginx = Daemon::nginx_streams(2, &files, |at| {
        format!(
            "server {{ listen {} proxy_protocol; return $proxy_protocol_addr; }}\n\
             server {{ listen {} ssl proxy_protocol; ssl_certificate cert.pem; ssl_certificate_key key.pem; \
             return tls-$proxy_protocol_addr; }}\n",
            at[0], at[1]
        )
    });
    let tagged = |mut service: Value, version: &str, name: &str| {
        service["tags"] = json!([format!("proxy_protocol:{version}")]);
        service["name"] = json!(name);
        service
    };
    let by_name = |name: &str| json!([{"name": name, "protocols": ["tls"], "snis": [format!("{name}.test")]}]);
    let gateway = crate::streams::gateway(&document(json!([
        tagged(
            service("tcp", nginx.addresses[0], json!([plain_route()])),
            "v1",
            "one"
        ),
        tagged(
            service("tcp", nginx.addresses[0], by_name("two")),
            "v2",
            "two"
        ),
        tagged(
            service("tls", nginx.addresses[1], by_name("three")),
            "v2",
            "three"
        ),
    ])));
    assert_eq!(rest(connect(gateway.stream())), "127.0.0.1");
    let over_tls = |name: &str| rest(tls_stream(gateway.stream_tls(), Some(name), b""));
    assert_eq!(over_tls("two.test"), "127.0.0.1");
    assert_eq!(over_tls("three.test"), "tls-127.0.0.1");
}

#[test]
fn the_tag_is_held_to_what_can_be_done() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    for (protocol, tag, message) in [
        (
            "http",
            "proxy_protocol:v1",
            "can only be set when 'protocol' is 'tcp' or 'tls'",
        ),
        (
            "tcp",
            "proxy_protocol:v3",
            "must be followed by 'v1' or 'v2'",
        ),
    ] {
        let service = json!({"protocol": protocol, "host": "a.test", "port": 1, "tags": [tag]});
        let answer = admin.post("/services", service).expect_status(400);
        assert!(answer.text().contains(message), "{}", answer.text());
    }
}
