//! WebSocket: the handshake passes, then bytes in both directions.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Client, Driver, Gateway, Origin, Program, Reply, for_both_drivers, one_service, python_client,
    with_plugins,
};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An origin that agrees to any upgrade and then echoes bytes; `greeting` comes with the answer.
fn tunnel_origin(greeting: &'static str) -> Origin {
    Origin::conversing(move |mut stream, _| {
        let mut buffer = [0; 16 * 1024];
        let count = stream.read(&mut buffer).unwrap_or(0);
        let request = String::from_utf8_lossy(&buffer[..count]).to_ascii_lowercase();
        assert!(request.contains("\r\nupgrade: websocket\r\n"), "{request}");
        assert!(
            request.contains("\r\nconnection: keep-alive, upgrade\r\n"),
            "{request}"
        );
        let _ = stream.write_all(format!("{SWITCHED}{greeting}").as_bytes());
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_websocket_library_talks_through_the_gateway() {
    let mut server = Program::start("websocket_server.py", &[]);
    let url = format!("http://127.0.0.1:{}", server.port());
    let gateway = Gateway::with(&one_service(
        &url,
        &json!([{"name": "all", "paths": ["/"]}]),
    ));
    let plain = python_client(
        "websocket_client.py",
        &[&format!("ws://{}", gateway.proxy())],
    );
    assert_eq!(plain.trim(), "good");
    let tls = python_client(
        "websocket_client.py",
        &[&format!("wss://{}", gateway.tls())],
    );
    assert_eq!(tls.trim(), "good");
}

#[test]
fn bytes_pass_both_ways_after_the_handshake() {
    let origin = tunnel_origin("welcome");
    let gateway = Gateway::with(&one_service(
        &origin.url(),
        &json!([{"name": "all", "paths": ["/"]}]),
    ));
    let mut client = Client::connect(gateway.proxy());
    client.send(HANDSHAKE);
    let (status, headers) = client.try_read_head().expect("an answer");
    assert_eq!(status, 101);
    let upgrade = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    assert_eq!(
        upgrade
            .map(|(_, value)| value.to_ascii_lowercase())
            .as_deref(),
        Some("websocket")
    );
    assert_eq!(client.read_exactly(7).expect("a greeting"), b"welcome");
    for size in [1_usize, 100, 70_000] {
        let message = vec![b'm'; size];
        client.send(&message);
        assert!(client.read_exactly(size).expect("an echo") == message);
    }
    client.finish_sending();
    assert!(client.is_closed());
}

#[test]
fn a_handshake_may_come_in_pieces_and_with_the_tunnels_first_bytes_behind_it() {
    for_both_drivers(|driver| {
        let origin = tunnel_origin("welcome");
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&one_service(
                &origin.url(),
                &json!([{"name": "all", "paths": ["/"]}]),
            ))
            .start();
        // Only Pingora's own tunnel is there for bytes behind a handshake that its session reads.
        let behind = match driver {
            Driver::Exchange => "ahead",
            Driver::Duplex => "",
        };
        let whole = format!("{HANDSHAKE}{behind}");
        // Where the first piece ends: in the request line, in a field, within the empty line, behind it.
        for at in [
            3,
            40,
            HANDSHAKE.len() - 2,
            HANDSHAKE.len() - 1,
            HANDSHAKE.len(),
        ] {
            for tls in [false, true] {
                let mut client = match tls {
                    false => Client::connect(gateway.proxy()),
                    true => Client::connect_tls(gateway.tls(), "a.test"),
                };
                client.send(&whole[..at]);
                // Others are served meanwhile.
                let mut other = Client::connect(gateway.proxy());
                other.send(HANDSHAKE);
                assert_eq!(other.try_read_head().expect("an answer").0, 101);
                client.send(&whole[at..]);
                let (status, _) = client.try_read_head().expect("an answer");
                assert_eq!(status, 101, "{at}");
                let expected = format!("welcome{behind}");
                let read = client.read_exactly(expected.len()).expect("an echo");
                assert_eq!(read, expected.as_bytes(), "{at}");
                client.send("more");
                assert_eq!(client.read_exactly(4).expect("an echo"), b"more");
            }
        }
    });
}

#[test]
fn a_handshake_byte_by_byte_opens_a_tunnel() {
    let origin = tunnel_origin("welcome");
    let gateway = Gateway::with(&one_service(
        &origin.url(),
        &json!([{"name": "all", "paths": ["/"]}]),
    ));
    let mut client = Client::connect(gateway.proxy());
    for byte in HANDSHAKE.bytes() {
        client.send([byte]);
    }
    client.send("ahead");
    assert_eq!(client.try_read_head().expect("an answer").0, 101);
    assert_eq!(client.read_exactly(12).expect("an echo"), b"welcomeahead");
}

#[test]
fn a_tunnel_lives_while_it_is_used_and_ends_when_it_is_not() {
    let origin = tunnel_origin("");
    let gateway = Gateway::with(
        &json!({
            "_format_version": "3.0",
            "services": [{"name": "o", "url": origin.url(), "read_timeout": 1000, "write_timeout": 1000,
                          "routes": [{"name": "all", "paths": ["/"]}]}],
        })
        .to_string(),
    );
    let mut client = Client::connect(gateway.proxy());
    client.send(HANDSHAKE);
    assert_eq!(client.try_read_head().expect("an answer").0, 101);
    let since = Instant::now();
    let mut last = since;
    while since.elapsed() < Duration::from_secs(2) {
        last = Instant::now();
        client.send("ping");
        assert_eq!(client.read_exactly(4).expect("an echo"), b"ping");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        client.is_closed(),
        "an idle tunnel ends by the read timeout"
    );
    let idle = last.elapsed();
    assert!(idle >= Duration::from_millis(900), "{idle:?}");
}

#[test]
fn a_silent_tunnel_outlives_the_timeouts_of_ordinary_requests() {
    let origin = tunnel_origin("");
    let gateway = Gateway::with(&one_service(
        &origin.url(),
        &json!([{"name": "all", "paths": ["/"]}]),
    ));
    let mut client = Client::connect(gateway.proxy());
    client.send(HANDSHAKE);
    assert_eq!(client.try_read_head().expect("an answer").0, 101);
    std::thread::sleep(Duration::from_secs(3));
    client.send("still there");
    assert_eq!(client.read_exactly(11).expect("an echo"), b"still there");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::answering(|_| Reply::new(403, &[], "no"));
    let gateway = Gateway::with(&one_service(
        &origin.url(),
        &json!([{"name": "all", "paths": ["/"]}]),
    ));
    let mut client = Client::connect(gateway.proxy());
    let answer = client.exchange(HANDSHAKE).expect_status(403);
    assert_eq!(answer.text(), "no");
}

#[test]
fn other_upgrades_are_not_forwarded() {
    let origin = Origin::echo();
    let gateway = Gateway::with(&one_service(
        &origin.url(),
        &json!([{"name": "all", "paths": ["/"]}]),
    ));
    let answer = gateway
        .get("/")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_one("upgrade"), None);
    assert_eq!(answer.echoed_one("http2-settings"), None);
}

#[test]
fn plugins_guard_the_handshake() {
    let origin = tunnel_origin("");
    let mut text = with_plugins(&origin.url(), &json!([{"name": "key-auth"}]));
    text["consumers"] = json!([{"username": "c", "keyauth_credentials": [{"key": "k"}]}]);
    let gateway = Gateway::with(&text.to_string());
    let mut client = Client::connect(gateway.proxy());
    client.exchange(HANDSHAKE).expect_status(401);
    let mut client = Client::connect(gateway.proxy());
    client.send(HANDSHAKE.replace("Host: a\r\n", "Host: a\r\napikey: k\r\n"));
    assert_eq!(client.try_read_head().expect("an answer").0, 101);
    client.send("in");
    assert_eq!(client.read_exactly(2).expect("an echo"), b"in");
}
