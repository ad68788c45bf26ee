#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

//! Clusters whose addresses answer, refuse, stay silent or speak gRPC.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

use super::start;
use crate::model::plan::*;
use crate::runtime::cluster::{Cluster, Outcome};
use crate::runtime::live::Live;
use crate::runtime::resolver::{Resolver, ResolverOptions};

const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP server that answers with a status that the test may change, and counts.
struct Server {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            status: Arc::new(AtomicU16::new(200)),
            asked: Arc::default(),
        };
        let (status, asked) = (Arc::clone(&server.status), Arc::clone(&server.asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (status, asked) = (Arc::clone(&status), Arc::clone(&asked));
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    asked.fetch_add(1, Ordering::SeqCst);
                    let status = match request.starts_with("GET /alive HTTP/1.1\r\nHost: ") {
                        true => status.load(Ordering::SeqCst),
                        false => 400,
                    };
                    let answer = format!("HTTP/1.1 {status} x\r\nX-State: up\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        server
    }
}

fn http() -> HttpProbePlan {
    HttpProbePlan {
        method: "GET".into(),
        path: "/alive".into(),
        headers: vec![("X-Probe".into(), "1".into())],
        body: "".into(),
        statuses: StatusPlan {
            good: vec![200],
            bad: vec![500],
            others_are_good: false,
        },
        expected_headers: Vec::new(),
    }
}

fn probe(kind: ProbeKind) -> ProbePlan {
    ProbePlan {
        kind,
        timeout_ms: 300,
        concurrency: 2,
        healthy_every_ms: Some(40),
        unhealthy_every_ms: Some(40),
        port: None,
        tls: None,
        thresholds: Thresholds {
            successes: 2,
            connection_failures: 2,
            timeouts: 1,
            bad_statuses: 2,
            failures: 0,
        },
    }
}

fn cluster(live: &Live, probe: ProbePlan, addresses: &[SocketAddr]) -> Arc<Cluster> {
    let endpoints = addresses
        .iter()
        .zip(1..)
        .map(|(address, number)| EndpointPlan {
            id: Uuid::from_u128(number),
            host: address.ip().to_string().into(),
            port: address.port(),
            weight: 1,
            rank: 0,
            roster: None,
        });
    let plan = ClusterPlan {
        health: HealthPlan {
            probe: Some(probe),
            ..HealthPlan::default()
        },
        named: true,
        ..ClusterPlan::plain(Uuid::from_u128(7), "probed", endpoints.collect())
    };
    let handle = tokio::runtime::Handle::current();
    let resolver = Resolver::start(ResolverOptions::default(), &handle).unwrap();
    Cluster::link(Arc::new(plan), live, &resolver).unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn healthy(cluster: &Cluster) -> Vec<bool> {
    let addresses = cluster.addresses();
    addresses.iter().map(|it| it.vitals.is_healthy()).collect()
}

/// An address that refuses connections.
async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn follows_answers_down_and_up() {
    let live = Live::default();
    start(&live, &tokio::runtime::Handle::current());
    let (good, turning) = (Server::start().await, Server::start().await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [
        good.address,
        turning.address,
        refusing().await,
        silent.local_addr().unwrap(),
    ];
    let probed = cluster(&live, probe(ProbeKind::Http(http())), &addresses);
    until("the dead are found", || {
        healthy(&probed) == [true, true, false, false]
    })
    .await;
    turning.status.store(500, Ordering::SeqCst);
    until("a bad status", || !healthy(&probed)[1]).await;
    turning.status.store(404, Ordering::SeqCst);
    let asked = turning.asked.load(Ordering::SeqCst);
    until("probes of the sick", || {
        turning.asked.load(Ordering::SeqCst) > asked + 3
    })
    .await;
    assert!(!healthy(&probed)[1], "404 is neither good nor bad");
    turning.status.store(200, Ordering::SeqCst);
    until("recovery", || healthy(&probed)[1]).await;
    assert_eq!(probed.changes().counts(), (1, 3));
    // A plan without probes ends them.
    let mut plan = ClusterPlan::clone(&probed.plan);
    plan.health = HealthPlan::default();
    let handle = tokio::runtime::Handle::current();
    let resolver = Resolver::start(ResolverOptions::default(), &handle).unwrap();
    let unprobed = Cluster::link(Arc::new(plan), &live, &resolver).unwrap();
    drop(probed);
    let vitals = unprobed.addresses()[0].vitals.clone();
    until("nobody probes", || !vitals.is_probed()).await;
}

#[tokio::test]
async fn probes_what_traffic_ejected() {
    let live = Live::default();
    start(&live, &tokio::runtime::Handle::current());
    let server = Server::start().await;
    let mut plan = probe(ProbeKind::Connect);
    // Healthy addresses are not probed at all.
    plan.healthy_every_ms = None;
    let probed = cluster(&live, plan, &[server.address, refusing().await]);
    assert!(probed.set_health(Uuid::from_u128(1), None, false));
    assert!(probed.set_health(Uuid::from_u128(2), None, false));
    until("recovery", || healthy(&probed) == [true, false]).await;
}

#[tokio::test]
async fn expects_headers_and_other_ports() {
    let live = Live::default();
    start(&live, &tokio::runtime::Handle::current());
    let server = Server::start().await;
    for (value, expected) in [("up", true), ("down", false)] {
        let mut plan = probe(ProbeKind::Http(HttpProbePlan {
            expected_headers: vec![("x-state".into(), value.into())],
            ..http()
        }));
        plan.port = Some(server.address.port());
        plan.thresholds.successes = 1;
        plan.thresholds.bad_statuses = 1;
        let elsewhere = refusing().await;
        let probed = cluster(&live, plan, &[elsewhere]);
        probed.set_health(Uuid::from_u128(1), None, !expected);
        until(value, || healthy(&probed) == [expected]).await;
    }
}

#[tokio::test]
async fn asks_grpc_servers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mode = Arc::new(AtomicU16::new(0));
    let serving = Arc::clone(&mode);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mode = Arc::clone(&serving);
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let mode = mode.load(Ordering::SeqCst);
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(&request.collect().await.unwrap().to_bytes()[..5], [0; 5]);
                    let (message, status) = match mode {
                        0 => (&[0, 0, 0, 0, 2, 8, 1][..], "0"),
                        1 => (&[0, 0, 0, 0, 2, 8, 2][..], "0"),
                        _ => (&[][..], "12"),
                    };
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", status.parse().unwrap());
                    let body = Full::new(Bytes::from_static(message))
                        .with_trailers(async move { Some(Ok(trailers)) });
                    Ok::<_, Infallible>(http::Response::new(body))
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    let live = Live::default();
    let kind = ProbeKind::Grpc { service: "".into() };
    let probed = cluster(&live, probe(kind), &[address]);
    let vitals = probed.addresses()[0].vitals.clone();
    for (state, expected) in [(0, 200), (1, 503), (2, 200)] {
        mode.store(state, Ordering::SeqCst);
        let outcome = super::probe::probe(&probed, &vitals).await;
        assert_eq!(outcome, Some(Outcome::Answered(expected)), "{state}");
    }
}
