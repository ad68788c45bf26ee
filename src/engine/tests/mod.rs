#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

//! The engine over real sockets, each behaviour through both drivers.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use pingora_http::ResponseHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::rig::{Origin, Setup, Then, whole};
use crate::engine::{Ending, ForcedDriver};
use crate::model::catalog::PluginInfo;
use crate::model::schema::Record;
use crate::runtime::contract::{Flow, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::head::ResponseHead;

const DRIVERS: [Option<ForcedDriver>; 3] = [
    None,
    Some(ForcedDriver::Exchange),
    Some(ForcedDriver::Duplex),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_the_request_with_the_gateways_headers() {
    let origin = Origin::echo().await;
    for driver in DRIVERS {
        let rig = Setup::to(&[origin.address]).driver(driver).start().await;
        let answer = rig
            .converse(
                "GET /a%20b/../c?q=1 HTTP/1.1\r\nHost: a.test:8000\r\nX-One: 1\r\nConnection: close, x-hop\r\n\
                 X-Hop: gone\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\nX-Forwarded-Proto: https\r\n\r\n",
            )
            .await;
        let lower = answer.to_ascii_lowercase();
        let host = origin.address.to_string();
        for expected in [
            "http/1.1 200 ok\r\n",
            "get /c?q=1 http/1.1\r\n",
            &format!("\r\nhost: {host}\r\n"),
            "\r\nx-one: 1\r\n",
            "\r\nte: trailers\r\n",
            "\r\nx-forwarded-for: 127.0.0.1\r\n",
            "\r\nx-real-ip: 127.0.0.1\r\n",
            "\r\nx-forwarded-proto: http\r\n",
            "\r\nx-forwarded-host: a.test\r\n",
            "\r\nx-forwarded-path: /a%20b/../c\r\n",
            "\r\nvia: 1.1 gateway/1\r\n",
        ] {
            assert!(
                lower.contains(expected),
                "{driver:?} {expected:?} in {answer}"
            );
        }
        for unexpected in ["x-hop", "keep-alive: 5", "x-forwarded-prefix", "deflate"] {
            assert!(
                !lower.contains(unexpected),
                "{driver:?} {unexpected} in {answer}"
            );
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_bodies_for_the_client() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n";
    let origin = Origin::start(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/chunked" => (chunked.to_vec(), Then::Stay),
            "/close" => (
                b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec(),
                Then::Close,
            ),
            "/empty" => (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Then::Stay),
            "/head" => (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
                Then::Stay,
            ),
            _ => (whole(&vec![b'x'; 300_000]), Then::Stay),
        }
    })
    .await;
    for driver in DRIVERS {
        let rig = Setup::to(&[origin.address]).driver(driver).start().await;
        let answer = rig.ask("GET /chunked HTTP/1.1", b"").await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let joined = body.contains("5\r\nabcde") || (body.contains("abc") && body.contains("de"));
        assert!(
            joined && answer.ends_with("0\r\n\r\n"),
            "{driver:?} {answer}"
        );
        let answer = rig.ask("GET /chunked HTTP/1.0", b"").await;
        assert!(answer.ends_with("\r\n\r\nabcde"), "{driver:?} {answer}");
        let answer = rig.ask("GET /close HTTP/1.1", b"").await;
        assert!(answer.contains("until the end"), "{driver:?} {answer}");
        let answer = rig.ask("GET /empty HTTP/1.1", b"").await;
        assert!(
            answer.starts_with("HTTP/1.1 204") && answer.ends_with("\r\n\r\n"),
            "{driver:?} {answer}"
        );
        let answer = rig.ask("HEAD /head HTTP/1.1", b"").await;
        assert!(
            answer.contains("Content-Length: 5\r\n") && answer.ends_with("\r\n\r\n"),
            "{driver:?} {answer}"
        );
        let answer = rig.ask("GET /large HTTP/1.1", b"").await;
        assert!(answer.len() > 300_000, "{driver:?} {}", answer.len());
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carries_request_bodies() {
    let origin = Origin::echo().await;
    let large = vec![b'y'; 1 << 20];
    for driver in DRIVERS {
        let mut setup = Setup::to(&[origin.address]).driver(driver);
        setup.held_bytes_max = 4 << 20;
        let rig = setup.start().await;
        let answer = rig
            .converse(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            )
            .await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{driver:?} {answer}");
        let answer = rig
            .converse(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n",
            )
            .await;
        assert!(answer.contains("hello"), "{driver:?} {answer}");
        let mut request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            large.len()
        )
        .into_bytes();
        request.extend_from_slice(&large);
        let answer = rig.converse(request).await;
        assert!(answer.len() > large.len(), "{driver:?} {}", answer.len());
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_connections_on_both_sides() {
    let origin = Origin::echo().await;
    for driver in DRIVERS {
        let before = origin.connections.load(Ordering::Relaxed);
        let rig = Setup::to(&[origin.address]).driver(driver).start().await;
        // Three requests in one write: two pipelined behind the first.
        let one = "GET /n HTTP/1.1\r\nHost: a\r\n\r\n";
        let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = rig.converse(format!("{one}{one}{last}")).await;
        assert_eq!(
            answer.matches("HTTP/1.1 200 OK").count(),
            3,
            "{driver:?} {answer}"
        );
        assert!(answer.contains("GET /last"), "{driver:?} {answer}");
        assert_eq!(
            origin.connections.load(Ordering::Relaxed) - before,
            1,
            "{driver:?}"
        );
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_upstreams_that_close_idle_connections() {
    let origin = Origin::start(|request| (whole(request.as_bytes()), Then::Close)).await;
    for driver in DRIVERS {
        let rig = Setup::to(&[origin.address]).driver(driver).start().await;
        for _ in 0..20 {
            let answer = rig.ask("GET / HTTP/1.1", b"").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{driver:?} {answer}");
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_another_endpoint() {
    let origin = Origin::echo().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for driver in DRIVERS {
        let rig = Setup::to(&[dead, origin.address])
            .driver(driver)
            .start()
            .await;
        for _ in 0..4 {
            let answer = rig.ask("GET / HTTP/1.1", b"").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{driver:?} {answer}");
        }
        rig.stop().await;
        let rig = Setup::to(&[dead]).driver(driver).start().await;
        let answer = rig.ask("GET / HTTP/1.1", b"").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{driver:?} {answer}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_up_upstreams_that_do_not_answer() {
    // Accepted by the kernel, never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for driver in DRIVERS {
        let mut setup = Setup::to(&[silent.local_addr().unwrap()]).driver(driver);
        setup.read_timeout = Duration::from_millis(50);
        let rig = setup.start().await;
        let answer = rig.ask("POST / HTTP/1.1", b"").await;
        assert!(answer.starts_with("HTTP/1.1 504"), "{driver:?} {answer}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_what_is_no_request() {
    let origin = Origin::echo().await;
    let rig = Setup::to(&[origin.address]).start().await;
    let bad = [
        "GET /a b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /../x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "get / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ];
    for request in bad {
        let answer = rig.converse(request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request:?} {answer}");
        assert!(answer.contains("Server: gateway/1"), "{request:?} {answer}");
    }
    let answer = rig.ask("TRACE / HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_ambiguous_responses() {
    let answers: [&[u8]; 5] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1",
    ];
    for answer in answers {
        let origin = Origin::start(move |_| (answer.to_vec(), Then::Close)).await;
        let rig = Setup::to(&[origin.address]).start().await;
        let seen = rig.ask("GET / HTTP/1.1", b"").await;
        assert!(
            seen.starts_with("HTTP/1.1 502"),
            "{} {seen}",
            String::from_utf8_lossy(answer)
        );
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_what_arrives_during_a_hand_over() {
    let origin = Origin::echo().await;
    let rig = Setup::to(&[origin.address]).start().await;
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    let mut ask = async || {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = client.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert!(ask().await.contains("Connection: keep-alive"));
    rig.end(Ending::HandOver);
    // The connection was open when the hand-over began: every request on it is answered, until an answer says that it
    // is the last one.
    loop {
        let answer = ask().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if answer.contains("Connection: close") {
            break;
        }
    }
    // Nobody is left to wait for: it ends of itself.
    rig.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carries_tunnels_after_a_switch_of_protocols() {
    // Answers the handshake and speaks first, in one write; then echoes.
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = origin.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = origin.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                let request = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
                assert!(request.contains("\r\nupgrade: websocket\r\n"), "{request}");
                assert!(
                    request.contains("connection: keep-alive, upgrade\r\n"),
                    "{request}"
                );
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\n\r\nhello";
                stream.write_all(answer).await.unwrap();
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            });
        }
    });
    for driver in DRIVERS {
        let rig = Setup::to(&[address]).driver(driver).start().await;
        // Many: the race that this driver exists for is lost once in a while.
        for _ in 0..100 {
            let mut client = TcpStream::connect(rig.address).await.unwrap();
            let request = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n";
            client.write_all(request).await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"hello") {
                assert!(
                    client.read_buf(&mut seen).await.unwrap() > 0,
                    "{driver:?} {seen:?}"
                );
            }
            let head = String::from_utf8_lossy(&seen);
            assert!(head.starts_with("HTTP/1.1 101"), "{driver:?} {head}");
            assert!(head.contains("Connection: Upgrade"), "{driver:?} {head}");
            client.write_all(b"ping").await.unwrap();
            let mut echo = [0; 4];
            client.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, b"ping");
            client.shutdown().await.unwrap();
            assert_eq!(client.read(&mut echo).await.unwrap(), 0, "{driver:?}");
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_of_clients_that_do_not_wait_for_the_switch() {
    // Answers the handshake when it is told to, and then echoes.
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = origin.local_addr().unwrap();
    let (reached, mut handshakes) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = origin.accept().await {
            let mut head = vec![0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let (answer, answers) = tokio::sync::oneshot::channel::<()>();
            reached.send(answer).await.unwrap();
            answers.await.unwrap();
            let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\n\r\n";
            // The gateway may have closed the connection already.
            let _ = stream.write_all(head).await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let rig = Setup::to(&[address]).start().await;
    for _ in 0..50 {
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        let request = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n";
        client.write_all(request).await.unwrap();
        let answer = handshakes.recv().await.unwrap();
        client.write_all(b"early").await.unwrap();
        answer.send(()).unwrap();
        // Refused, or carried whole, as the bytes come before or after the answer; never in part.
        client.shutdown().await.unwrap();
        let mut seen = String::new();
        let _ = client.read_to_string(&mut seen).await;
        let refused = seen.is_empty() || seen.starts_with("HTTP/1.1 400");
        assert!(refused || seen.ends_with("\r\n\r\nearly"), "{seen}");
    }
    rig.stop().await;
}

/// Works on whole messages: sets a header from the body and replaces the body.
struct Reverse;

#[async_trait]
impl Plugin for Reverse {
    fn phases(&self) -> Phases {
        Phases::MESSAGE
    }

    async fn message(
        &self,
        _exchange: &mut Exchange,
        head: &mut ResponseHead,
        body: &mut Bytes,
    ) -> Flow {
        let length = HeaderValue::from(body.len());
        head.insert_header("x-original-length", length).unwrap();
        *body = body.iter().rev().copied().collect::<Vec<u8>>().into();
        Flow::Continue
    }
}

/// Appends to the body without knowing its length.
struct Append;

impl Plugin for Append {
    fn phases(&self) -> Phases {
        Phases::HEADER_FILTER.with(Phases::BODY_FILTER)
    }

    fn header_filter(&self, exchange: &mut Exchange, _head: &mut ResponseHeader) {
        exchange.body_length_changes();
    }

    fn body_filter(&self, _exchange: &mut Exchange, piece: &mut Bytes, end: bool) {
        if end {
            *piece = [&**piece, b"!"].concat().into();
        }
    }
}

/// Counts requests by whether their heads are still as they came when they are logged.
struct Heads;

static RAW_HEADS: AtomicUsize = AtomicUsize::new(0);
static WHOLE_HEADS: AtomicUsize = AtomicUsize::new(0);

impl Plugin for Heads {
    fn phases(&self) -> Phases {
        Phases::LOG
    }

    fn log(&self, exchange: &Exchange) {
        let count = match exchange.request.is_raw() {
            true => &RAW_HEADS,
            false => &WHOLE_HEADS,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_pays_for_a_map_of_an_ordinary_request() {
    let origin = Origin::start(|_| (whole(b"abc"), Then::Stay)).await;
    let mut setup = Setup::to(&[origin.address]).driver(Some(ForcedDriver::Exchange));
    setup.plugins = vec![PluginEntry {
        info: PluginInfo::new("heads", 1, Record::new(Vec::new())),
        link: |_, _| Ok(Arc::new(Heads)),
    }];
    let rig = setup.start().await;
    rig.ask("GET /a?b=c HTTP/1.1", b"").await;
    rig.ask("GET /a|b HTTP/1.1", b"").await;
    rig.stop().await;
    let counts = [&RAW_HEADS, &WHOLE_HEADS].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [1, 1]);
}

fn reverse() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("reverse", 2, Record::new(Vec::new())),
        link: |_, _| Ok(Arc::new(Reverse)),
    }
}

fn append() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("append", 1, Record::new(Vec::new())),
        link: |_, _| Ok(Arc::new(Append)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_plugins_over_responses() {
    let origin = Origin::start(|_| (whole(b"abc"), Then::Stay)).await;
    for driver in DRIVERS {
        let mut setup = Setup::to(&[origin.address]).driver(driver);
        setup.plugins = vec![append()];
        let rig = setup.start().await;
        let answer = rig.ask("GET / HTTP/1.1", b"").await;
        assert!(
            answer.contains("abc") && answer.contains('!'),
            "{driver:?} {answer}"
        );
        assert!(!answer.contains("Content-Length: 3"), "{driver:?} {answer}");
        rig.stop().await;

        let mut setup = Setup::to(&[origin.address]).driver(driver);
        setup.plugins = vec![reverse()];
        let rig = setup.start().await;
        let answer = rig.ask("GET / HTTP/1.1", b"").await;
        assert!(answer.ends_with("\r\n\r\ncba"), "{driver:?} {answer}");
        assert!(
            answer.contains("x-original-length: 3"),
            "{driver:?} {answer}"
        );
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_requests_whose_plugin_is_broken() {
    let origin = Origin::echo().await;
    let mut setup = Setup::to(&[origin.address]);
    setup.plugins = vec![PluginEntry {
        link: |_, _| Err("no such file".to_owned()),
        ..append()
    }];
    setup.findings = 1;
    let rig = setup.start().await;
    let answer = rig.ask("GET / HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(!answer.contains("no such file"), "{answer}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_no_more_than_the_limit() {
    let origin = Origin::start(|_| (whole(&[b'x'; 100]), Then::Stay)).await;
    let mut setup = Setup::to(&[origin.address]);
    setup.plugins = vec![reverse()];
    setup.held_bytes_max = 99;
    let rig = setup.start().await;
    let answer = rig.ask("GET / HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_pipelined_requests_of_all_kinds_in_order() {
    let origin = Origin::echo().await;
    // Ordinary, with a body, chunked, in bad need of a session, ordinary again: all in one piece.
    let sent = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
                POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\
                POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                GET /4 HTTP/1.1\r\nHost: a\r\nUpgrade: none\r\n\r\n\
                GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for driver in DRIVERS {
        let rig = Setup::to(&[origin.address]).driver(driver).start().await;
        let answer = rig.converse(sent).await.to_ascii_lowercase();
        let places: Vec<Option<usize>> = [
            "get /1 http",
            "post /2 http",
            "post /3 http",
            "get /4 http",
            "get /5 http",
        ]
        .iter()
        .map(|line| answer.find(line))
        .collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{driver:?} {places:?} {answer}"
        );
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_behind_bodies_that_nobody_read() {
    let origin = Origin::echo().await;
    // The first request is refused before its body has come.
    let rig = Setup::to(&[origin.address]).start().await;
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    let head = "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234";
    client.write_all(head.as_bytes()).await.unwrap();
    let rest = "56789GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.to_ascii_lowercase().contains("get /after http/1.1"),
        "{answer}"
    );
    rig.stop().await;
}
