//! Load shaping at the edge: slow clients, too many connections, descriptors that run out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Client, DEADLINE, Gateway, Origin, Reply, eventually, one_service};
use crate::streams::{connect, document, echo, echoes, is_closed, plain_route, service};

fn gateway(settings: &[(&str, &str)]) -> (Origin, Gateway) {
    let origin = Origin::answering(|_| Reply::ok("x"));
    let mut builder = Gateway::builder();
    for (key, value) in settings {
        builder = builder.setting(key, value);
    }
    let routes = json!([{"name": "all", "paths": ["/"]}]);
    let gateway = builder
        .declarative(&one_service(&origin.url(), &routes))
        .start();
    (origin, gateway)
}

/// Sends `bytes` one by one, with a pause after each, until the other side has enough.
fn drip(mut stream: TcpStream, bytes: &[u8], pause: Duration) {
    let since = Instant::now();
    stream.set_read_timeout(Some(pause)).unwrap();
    for byte in bytes.iter().cycle() {
        let sent = stream.write_all(&[*byte]);
        let ended = match stream.read(&mut [0; 1024]) {
            // An answer that says why, or the end.
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        if sent.is_err() || ended {
            break;
        }
        assert!(since.elapsed() < DEADLINE, "never closed");
    }
}

#[test]
fn a_head_has_its_time_in_total_however_it_drips() {
    let (_origin, gateway) = gateway(&[("client_header_timeout", "1")]);
    let mut other = Client::connect(gateway.proxy());
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(other.exchange(request).status, 200);
    let head =
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Y: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let pause = Duration::from_millis(100);
    let since = Instant::now();
    drip(connect(gateway.proxy()), head, pause);
    let taken = since.elapsed();
    assert!(taken > Duration::from_millis(900), "{taken:?}");
    assert!(taken < Duration::from_secs(6), "{taken:?}");
    // Also behind a request that was served.
    let mut second = connect(gateway.proxy());
    second.write_all(request.as_bytes()).unwrap();
    assert!(second.read(&mut [0; 4096]).unwrap() > 0);
    let since = Instant::now();
    drip(second, head, pause);
    let taken = since.elapsed();
    assert!(taken < Duration::from_secs(6), "{taken:?}");
    // Silence between requests is another matter.
    assert_eq!(other.exchange(request).status, 200);
}

#[test]
fn a_body_that_trickles_is_given_up() {
    let (_origin, gateway) = gateway(&[("client_body_min_rate", "10000")]);
    let heads = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ];
    let workers = heads.map(|head| {
        let mut stream = connect(gateway.proxy());
        std::thread::spawn(move || {
            let since = Instant::now();
            stream.write_all(head.as_bytes()).unwrap();
            drip(stream, b"x", Duration::from_millis(200));
            since.elapsed()
        })
    });
    for worker in workers {
        let taken = worker.join().unwrap();
        assert!(taken > Duration::from_secs(9), "{taken:?}");
    }
    // In order, and in good time.
    let mut client = Client::connect(gateway.proxy());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
    client.send(vec![b'x'; 300_000]);
    assert_eq!(client.read_response().status, 200);
}

#[test]
fn idle_connections_end_when_the_settings_say() {
    let (_origin, gateway) = gateway(&[("keepalive_timeout", "1"), ("http2_idle_timeout", "1")]);
    let mut stream = connect(gateway.proxy());
    let since = Instant::now();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    assert!(is_closed(stream));
    assert!(since.elapsed() > Duration::from_millis(900));
    let mut http2 = crate::harness::tls_stream(gateway.tls(), Some("a.test"), b"\x02h2");
    http2
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    http2.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    let mut said = Vec::new();
    // What it says at the end does not matter: it ends.
    let _ = http2.read_to_end(&mut said);
}

#[test]
fn a_listener_takes_so_many_connections_and_no_more() {
    let gateway = Gateway::builder()
        .setting("stream_listen", "127.0.0.1:0")
        .setting("listener_connections_max", "2")
        .declarative(&document(json!([service("tcp", echo(), json!([plain_route()]))])).to_string())
        .start();
    let mut first = connect(gateway.stream());
    let mut second = connect(gateway.stream());
    echoes(&mut first, "first");
    echoes(&mut second, "second");
    assert!(is_closed(connect(gateway.stream())));
    // Each listener counts for itself.
    assert_eq!(gateway.get("/").send().status, 404);
    drop(first);
    eventually("there is room again", || {
        let mut third = connect(gateway.stream());
        third.write_all(b"x").ok()?;
        (third.read(&mut [0]).ok()? == 1).then_some(())
    });
    echoes(&mut second, "still here");
}

#[test]
fn a_client_takes_so_many_connections_and_no_more() {
    let gateway = Gateway::builder()
        .setting("stream_listen", "127.0.0.1:0")
        .setting("address_connections_max", "2")
        .declarative(&document(json!([service("tcp", echo(), json!([plain_route()]))])).to_string())
        .start();
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
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let mut kept: Vec<TcpStream> = (0..2).map(|_| from("127.0.0.7")).collect();
    kept.iter_mut().for_each(|stream| echoes(stream, "in"));
    assert!(is_closed(from("127.0.0.7")));
    echoes(&mut from("127.0.0.8"), "another client");
    kept.iter_mut()
        .for_each(|stream| echoes(stream, "still in"));
}

#[test]
fn the_admin_api_answers_when_descriptors_run_out() {
    let origin = Origin::answering(|_| Reply::ok("x"));
    let gateway = Gateway::builder()
        .open_files(256)
        .setting("reserved_descriptors", "64")
        .declarative(&one_service(&origin.url(), &json!([{"paths": ["/"]}])))
        .start();
    assert_eq!(gateway.get("/").send().status, 200);
    // More than there are descriptors; those beyond wait in the kernel.
    let many: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut stream = connect(gateway.proxy());
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(gateway.admin().get("/services").status, 200);
        gateway.status_page();
    }
    drop(many);
    eventually("requests are served again", || {
        (gateway.get("/").try_send().ok()?.status == 200).then_some(())
    });
}
