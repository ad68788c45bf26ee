//! Streams by the ClientHello: however it is cut, and when it is none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use boring::ssl::{SslConnector, SslMethod, SslVerifyMode};
use serde_json::json;

use crate::harness::{Authority, Gateway, Pair};
use crate::streams::{connect, document, echo, echoes, gateway, is_closed, rest, serve, service};

/// The whole ClientHello that a real client sends for this name.
fn real_hello(name: &str) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let name = name.to_owned();
    std::thread::spawn(move || {
        let connector = SslConnector::builder(SslMethod::tls()).unwrap().build();
        // Nobody answers: the handshake fails when the other side has gone.
        let _ = connector.connect(&name, TcpStream::connect(address).unwrap());
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut header = [0; 5];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut body).unwrap();
    [header.to_vec(), body].concat()
}

/// The same hello in records of at most so many bytes.
fn in_records(hello: &[u8], length: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for piece in hello[5..].chunks(length) {
        records.extend([22, 3, 1]);
        records.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
        records.extend(piece);
    }
    records
}

/// The same hello with so many bytes of padding (RFC 7685).
fn padded(hello: &[u8], bytes: usize) -> Vec<u8> {
    let mut message = hello[5..].to_vec();
    // Handshake header, version, random, session id, suites, compression methods.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(message[at]);
    at += 2 + usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    at += 1 + usize::from(message[at]);
    let extensions = usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let longer = u16::try_from(extensions + 4 + bytes).unwrap();
    message[at..at + 2].copy_from_slice(&longer.to_be_bytes());
    let mut padding = vec![0, 21];
    padding.extend(u16::try_from(bytes).unwrap().to_be_bytes());
    padding.extend(vec![0; bytes]);
    message.splice(at + 2..at + 2, padding);
    let length = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
    message[1..4].copy_from_slice(&length[1..]);
    [hello[..5].to_vec(), message].concat()
}

/// Answers with how many bytes came, once so many are there.
fn counting(expected: &'static std::sync::Mutex<Vec<u8>>) -> SocketAddr {
    serve(move |mut stream| {
        let expected = expected.lock().unwrap().clone();
        let mut heard = vec![0; expected.len()];
        let same = stream.read_exact(&mut heard).is_ok() && heard == expected;
        let answer: &[u8] = if same { b"same" } else { b"other" };
        let _ = stream.write_all(answer);
    })
}

fn through(origin: SocketAddr) -> Gateway {
    let routes = json!([{"name": "p", "protocols": ["tls_passthrough"], "snis": ["a.test"]}]);
    gateway(&document(json!([service("tcp", origin, routes)])))
}

#[test]
fn a_hello_passes_unchanged_however_it_is_cut() {
    static EXPECTED: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());
    let gateway = through(counting(&EXPECTED));
    let hello = real_hello("a.test");
    let large = padded(&hello, 20_000);
    for (what, bytes, segment) in [
        ("whole", hello.clone(), usize::MAX),
        ("byte by byte", hello.clone(), 1),
        ("in small records", in_records(&hello, 7), 50),
        (
            "larger than a record may be",
            in_records(&large, 16_384),
            1400,
        ),
        (
            "large in small records",
            in_records(&large, 500),
            usize::MAX,
        ),
    ] {
        *EXPECTED.lock().unwrap() = bytes.clone();
        let mut stream = connect(gateway.stream_tls());
        for piece in bytes.chunks(segment.min(bytes.len())) {
            stream.write_all(piece).unwrap();
        }
        assert_eq!(rest(stream), "same", "{what}");
    }
}

/// Writes go out in pieces of three bytes.
#[derive(Debug)]
struct Dripping(TcpStream);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Dripping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(3)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn handshakes_that_drip_are_ended_and_passed_through() {
    let Pair { certificate, key } = Authority::new().issue(&["inner.test"]);
    let files = [
        ("cert.pem", certificate.as_str()),
        ("key.pem", key.as_str()),
    ];
    let nginx = crate::harness::Daemon::nginx_streams(1, &files, |at| {
        format!(
            "server {{ listen {} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem; return inner; }}",
            at[0]
        )
    });
    let routes = |name: &str, protocol: &str| json!([{"name": name, "protocols": [protocol], "snis": [format!("{name}.test")]}]);
    let gateway = gateway(&document(json!([
        service(
            "tcp",
            nginx.addresses[0],
            routes("through", "tls_passthrough")
        ),
        service("tcp", echo(), routes("ended", "tls")),
    ])));
    let handshake = |name: &str| {
        let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        let stream = Dripping(connect(gateway.stream_tls()));
        builder.build().connect(name, stream).unwrap()
    };
    assert_eq!(rest(handshake("through.test")), "inner");
    let mut ended = handshake("ended.test");
    echoes(&mut ended, "dripping");
}

#[test]
fn what_is_no_hello_is_closed_and_harms_nobody() {
    let origin = echo();
    let routes = json!([{"name": "t", "protocols": ["tls"], "snis": ["a.test"]}]);
    let gateway = gateway(&document(json!([service("tcp", origin, routes)])));
    let mut good = crate::harness::tls_stream(gateway.stream_tls(), Some("a.test"), b"");
    echoes(&mut good, "before");
    let hello = real_hello("a.test");
    let mut lying = hello.clone();
    lying[6] = 0xff;
    let unrouted = real_hello("unknown.test");
    let mut garbage = hello.clone();
    garbage[40..].fill(0xff);
    for (what, bytes) in [
        ("plain text", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2]),
        (
            "an announced length beyond every limit",
            in_records(&lying, 100),
        ),
        ("lengths that lie", garbage),
        ("records without content", vec![22, 3, 1, 0, 0]),
        ("an alert", vec![21, 3, 1, 0, 2, 1, 0]),
        ("a name that no route knows", unrouted),
        (
            "more than any hello",
            in_records(&padded(&hello, 60_000), 1000),
        ),
    ] {
        let mut stream = connect(gateway.stream_tls());
        let _ = stream.write_all(&bytes);
        assert!(is_closed(stream), "{what}");
        echoes(&mut good, what);
    }
    // Cut off in the middle.
    let mut stream = connect(gateway.stream_tls());
    stream.write_all(&hello[..100]).unwrap();
    drop(stream);
    echoes(&mut good, "after");
}

#[test]
fn a_client_that_never_finishes_its_hello_is_closed_in_time() {
    let routes = json!([{"name": "t", "protocols": ["tls"], "snis": ["a.test"]}]);
    let gateway = gateway(&document(json!([service("tcp", echo(), routes)])));
    let hello = real_hello("a.test");
    let mut stream = connect(gateway.stream_tls());
    let since = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    // A byte now and then does not help.
    let mut bytes = hello.iter();
    loop {
        let sent = stream.write_all(&[*bytes.next().unwrap()]);
        let closed = match stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        if sent.is_err() || closed {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "still open");
    }
    assert!(since.elapsed() > Duration::from_secs(8));
}
