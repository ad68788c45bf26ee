#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

//! Calls to servers of the tests' own, over loopback.

use std::sync::atomic::{AtomicUsize, Ordering};

use boring::ssl::{Ssl, SslAcceptor, SslMethod};
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora_core::tls::tokio_ssl::SslStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::base::pem::KeyPair;
use crate::base::self_signed::{Algorithm, SelfSigned};
use crate::model::plan::UpstreamTlsPlan;
use crate::runtime::live::Live;
use crate::runtime::resolver::{Resolver, ResolverOptions};
use crate::runtime::upstream_tls::Trust;

fn client() -> Arc<Client> {
    let handle = tokio::runtime::Handle::current();
    let resolver = Resolver::start(ResolverOptions::default(), &handle).unwrap();
    Client::new(resolver, ClientOptions::default())
}

fn limits() -> Limits {
    Limits {
        body_bytes_max: 64,
        ..Limits::default()
    }
}

fn request(method: Method, uri: &str) -> Request<Bytes> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Bytes::new())
        .unwrap()
}

fn plain(address: SocketAddr) -> Destination {
    Destination {
        address: Address::Tcp(address),
        tls: None,
        protocol: HttpProtocol::Http1,
    }
}

/// What a server does with the n-th connection: answers each request with one of these, then closes.
type Script = fn(usize) -> &'static [&'static str];

struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answers = script(count.fetch_add(1, Ordering::SeqCst));
                tokio::spawn(async move {
                    for answer in answers {
                        if !read_head(&mut stream).await {
                            return;
                        }
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    // Takes one more request, then closes without an answer.
                    read_head(&mut stream).await;
                });
            }
        });
        Self { address, accepted }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn keeps_connections_and_repeats_what_may_be_repeated() {
    // Each connection answers twice and then drops a third request.
    let server = Server::start(|_| &[OK, OK]).await;
    let client = client();
    let destination = plain(server.address);
    for expected in [1, 1, 2, 2] {
        let answer = client
            .send(&destination, request(Method::GET, "/"), &limits())
            .await
            .unwrap();
        assert_eq!(
            (answer.status(), &answer.body()[..]),
            (StatusCode::OK, &b"ok"[..])
        );
        assert_eq!(server.accepted(), expected);
        assert_eq!(client.idle_connections(), 1);
    }
    let error = client
        .send(&destination, request(Method::POST, "/"), &limits())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Protocol { written: true, .. }),
        "{error}"
    );
    assert!(error.was_written());
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn says_what_went_wrong() {
    let long: Script = |_| &["HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n"];
    let cases: [(Script, &str, bool); 5] = [
        (|_| &[], "connection closed", true),
        (|_| &["SMTP\r\n\r\n"], "", true),
        (long, "reading the response timed out", true),
        (
            |_| {
                &[
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n41\r\n\
                12345678901234567890123456789012345678901234567890123456789012345\r\n0\r\n\r\n",
                ]
            },
            "longer than 64 bytes",
            true,
        ),
        (|_| &[""], "waiting for the response timed out", true),
    ];
    let hurried = Limits {
        total: Duration::from_millis(300),
        ..limits()
    };
    for (script, message, written) in cases {
        let server = Server::start(script).await;
        let error = client()
            .send(&plain(server.address), request(Method::GET, "/"), &hurried)
            .await
            .unwrap_err();
        assert!(error.chain().contains(message), "{}", error.chain());
        assert_eq!(error.was_written(), written, "{error}");
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = client()
        .send(&plain(closed), request(Method::GET, "/"), &limits())
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }) && !error.was_written());
}

#[tokio::test]
async fn reaches_unix_sockets_and_urls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let destination = Destination {
        address: Address::Unix(path.as_path().into()),
        tls: None,
        protocol: HttpProtocol::Http1,
    };
    let client = client();
    let answer = client
        .send(&destination, request(Method::GET, "/"), &limits())
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);

    let tls = tls(&UpstreamTlsPlan::default());
    let server = Server::start(|_| &[OK]).await;
    let url = format!("http://{}/x?y", server.address);
    let answer = client
        .send_url(&tls, request(Method::GET, &url), &limits())
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let url = format!("http://localhost:{}/", server.address.port());
    let answer = client
        .send_url(&tls, request(Method::GET, &url), &limits())
        .await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    for (url, reason) in [
        ("/x", "must begin with http:// or https://"),
        ("ftp://a/x", "must begin with http:// or https://"),
        ("http://u:p@a/x", "must not hold a user name"),
    ] {
        let error = client
            .send_url(&tls, request(Method::GET, url), &limits())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn tls(plan: &UpstreamTlsPlan) -> Arc<UpstreamTls> {
    let trust = Trust::link(&"".into()).unwrap();
    UpstreamTls::link(plan, None, &trust, &Live::default()).unwrap()
}

#[tokio::test]
async fn shares_no_connection_between_identities() {
    let authority = SelfSigned {
        algorithm: Algorithm::EcdsaP256,
        common_name: "up.test",
        dns_names: &["up.test"],
        addresses: &[],
        authority: true,
        not_before: 1_790_000_000,
        days: 3650,
    };
    let pair = authority.generate().unwrap();
    let issuer = KeyPair::parse(&pair.certificate, &pair.key).unwrap();
    let leaf = SelfSigned {
        authority: false,
        ..authority
    };
    let leaf = leaf.issue(&issuer.leaf, &issuer.key).unwrap();
    let keys = KeyPair::parse(&leaf.certificate, &leaf.key).unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&keys.leaf).unwrap();
    acceptor.set_private_key(&keys.key).unwrap();
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let ssl = Ssl::new(acceptor.context()).unwrap();
            let mut stream = SslStream::new(ssl, stream).unwrap();
            tokio::spawn(async move {
                if std::pin::Pin::new(&mut stream).accept().await.is_ok() {
                    while read_head(&mut stream).await {
                        stream.write_all(OK.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    let to = |tls: &Arc<UpstreamTls>, name: &str| Destination {
        address: Address::Tcp(address),
        tls: Some(DestinationTls {
            tls: Arc::clone(tls),
            server_name: name.into(),
        }),
        protocol: HttpProtocol::Http1,
    };
    let verified = UpstreamTlsPlan {
        verify: Some(true),
        ..UpstreamTlsPlan::default()
    };
    let trusting = tls(&UpstreamTlsPlan {
        authorities: vec![pair.certificate.as_str().into()],
        ..verified.clone()
    });
    let other = authority.generate().unwrap();
    let suspicious = tls(&UpstreamTlsPlan {
        authorities: vec![other.certificate.as_str().into()],
        ..verified
    });
    let careless = tls(&UpstreamTlsPlan::default());
    let client = client();
    let get = || request(Method::GET, "/");
    for _ in 0..2 {
        for destination in [
            to(&careless, "up.test"),
            to(&trusting, "up.test"),
            to(&careless, "b.test"),
        ] {
            client.send(&destination, get(), &limits()).await.unwrap();
        }
        assert_eq!(client.idle_connections(), 3);
        for destination in [to(&suspicious, "up.test"), to(&trusting, "b.test")] {
            let error = client
                .send(&destination, get(), &limits())
                .await
                .unwrap_err();
            assert!(matches!(error, ClientError::Verification { .. }), "{error}");
            assert!(!error.was_written());
        }
    }
    let http2 = Destination {
        protocol: HttpProtocol::Http2,
        ..to(&trusting, "up.test")
    };
    let error = client.send(&http2, get(), &limits()).await.unwrap_err();
    assert!(
        error.to_string().contains("does not speak HTTP/2"),
        "{error}"
    );
}

#[tokio::test]
async fn speaks_http2_over_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let answer = |request: Request<hyper::body::Incoming>| async move {
                let text = request.uri().to_string();
                Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Full::new(
                    Bytes::from(text),
                )))
            };
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
            tokio::spawn(serving);
        }
    });
    let destination = Destination {
        protocol: HttpProtocol::Http2,
        ..plain(address)
    };
    let client = client();
    let call = |uri: &'static str| {
        let (client, destination) = (Arc::clone(&client), destination.clone());
        async move {
            let limits = limits();
            let answer = client.send(&destination, request(Method::GET, uri), &limits);
            answer.await.unwrap().into_body()
        }
    };
    assert_eq!(call("http://a.test/x?y").await, "http://a.test/x?y");
    let (one, two) = tokio::join!(call("/1"), call("/2"));
    assert_eq!(one, format!("http://{address}/1"));
    assert_eq!(two, format!("http://{address}/2"));
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}
