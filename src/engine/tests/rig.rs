//! A gateway from a hand-made plan, with scripted origins: no dialect takes part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

use crate::engine::{Ending, Engine, EngineOptions, ForcedDriver};
use crate::model::plan::{
    Candidate, ClusterPlan, EndpointPlan, ForwardPlan, InstancePlan, PathJoining, PipelineKey,
    PipelinePlan, PlanDelta, Protocol, ProtocolSet, RoutePlan, Scope, StepPlan, UpstreamTlsPlan,
};
use crate::model::route::MatcherPlan;
use crate::model::serving::{
    AccessLogFormat, ClientAddressPlan, GatewayHeadersPlan, ServingPlan, UpstreamPoolPlan,
};
use crate::runtime::certificates::CertificateTable;
use crate::runtime::client::{Client, ClientOptions};
use crate::runtime::contract::{PluginEntry, ProtocolProblem, Renderer};
use crate::runtime::directory::Directory;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::{Blame, Fault, LocalResponse, NoEndpoint};
use crate::runtime::link::{Linker, LinkerParts};
use crate::runtime::live::Live;
use crate::runtime::pipeline::Pipeline;
use crate::runtime::resolver::{Resolver, ResolverOptions};
use crate::runtime::router::Router;
use crate::runtime::serving::Serving;
use crate::runtime::session::Session;
use crate::runtime::slots::Slots;
use crate::runtime::snapshot::Snapshot;
use crate::settings::listen::Listen;
use crate::settings::tls::{CipherSuite, Span, TlsProtocols, TlsSettings};
use crate::settings::value::ByteSize;

/// No answer takes longer; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// An engine that serves, and the way to end it.
pub(super) struct Rig {
    pub(super) address: SocketAddr,
    stop: watch::Sender<Option<Ending>>,
    running: tokio::task::JoinHandle<()>,
}

/// Plain renderings, so that no dialect's shapes are tested here.
struct PlainRenderer;

impl Renderer for PlainRenderer {
    fn fault(&self, fault: &Fault, _exchange: &Exchange) -> LocalResponse {
        let text = fault.message.as_deref().unwrap_or("failed");
        LocalResponse::new(fault.status).body(format!("{} {text}", fault.status.as_u16()))
    }

    fn unrouted(&self, _exchange: &Exchange) -> Fault {
        Fault::refuse(http::StatusCode::NOT_FOUND, "no route")
    }

    fn unforwarded(&self, _exchange: &Exchange) -> Fault {
        Fault::refuse(http::StatusCode::SERVICE_UNAVAILABLE, "no forward")
    }

    fn wrong_protocol(&self, _problem: &ProtocolProblem, _exchange: &Exchange) -> LocalResponse {
        LocalResponse::new(http::StatusCode::UPGRADE_REQUIRED)
    }

    fn no_endpoint(&self, _reason: &NoEndpoint) -> Fault {
        Fault::transport(
            http::StatusCode::SERVICE_UNAVAILABLE,
            Blame::Upstream,
            "no endpoint",
        )
    }

    fn log_entry(&self, _exchange: &Exchange, _into: &mut Vec<u8>) {}

    fn session_entry(&self, _session: &Session, _into: &mut Vec<u8>) {}
}

/// What a rig is made of, with defaults that suit most tests.
pub(super) struct Setup {
    pub(super) endpoints: Vec<SocketAddr>,
    pub(super) plugins: Vec<PluginEntry>,
    pub(super) driver: Option<ForcedDriver>,
    pub(super) read_timeout: Duration,
    pub(super) held_bytes_max: usize,
    /// How many parts of the plan cannot be linked.
    pub(super) findings: usize,
}

impl Setup {
    pub(super) fn to(endpoints: &[SocketAddr]) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            plugins: Vec::new(),
            driver: None,
            read_timeout: PATIENCE,
            held_bytes_max: 1 << 20,
            findings: 0,
        }
    }

    pub(super) fn driver(mut self, driver: Option<ForcedDriver>) -> Self {
        self.driver = driver;
        self
    }

    /// Starts an engine with one route for everything.
    pub(super) async fn start(self) -> Rig {
        let delta = self.delta();
        let live = Arc::new(Live::default());
        let handle = tokio::runtime::Handle::current();
        let resolver = Resolver::start(ResolverOptions::default(), &handle).unwrap();
        let snapshot = Snapshot {
            revision: 0,
            router: Router::default(),
            stream_router: Router::default(),
            passthrough_router: Router::default(),
            routes: Slots::default(),
            global_pipeline: Arc::new(Pipeline::default()),
            global_stream_pipeline: Arc::default(),
            directory: Directory::default(),
            certificates: CertificateTable::new(None),
            authorities: Default::default(),
            certificate_requests: Default::default(),
            forwards: imbl::OrdMap::new(),
            clusters: imbl::OrdMap::new(),
            serving: Arc::new(Serving::link(serving(self.held_bytes_max)).unwrap()),
            renderer: Arc::new(PlainRenderer),
        };
        let mut linker = Linker::new(LinkerParts {
            live: Arc::clone(&live),
            client: Client::new(Arc::clone(&resolver), ClientOptions::default()),
            resolver,
            plugins: self.plugins,
            prefix: ".".into(),
            snapshot,
        });
        let (snapshot, findings) = linker.apply(&delta, 1);
        assert_eq!(findings.len(), self.findings, "{findings:?}");
        let engine = Engine::bind(EngineOptions {
            listeners: vec![Listen {
                address: "127.0.0.1:0".parse().unwrap(),
                ssl: false,
                http2: true,
                proxy_protocol: false,
                connect: false,
                reuseport: false,
                backlog: None,
                ssl_cipher_suite: None,
            }],
            stream_listeners: Vec::new(),
            tls: TlsSettings {
                ssl_protocols: TlsProtocols {
                    tls1_2: true,
                    tls1_3: true,
                    ..TlsProtocols::default()
                },
                ssl_cipher_suite: CipherSuite::Intermediate,
                ssl_ciphers: None,
                ssl_session_timeout: Span(Duration::from_secs(60)),
                ssl_session_cache_size: ByteSize(1 << 20),
                ssl_session_tickets: true,
                ssl_stapling: false,
                ssl_cert: Vec::new(),
                ssl_cert_key: Vec::new(),
                admin_ssl_cert: Vec::new(),
                admin_ssl_cert_key: Vec::new(),
                status_ssl_cert: Vec::new(),
                status_ssl_cert_key: Vec::new(),
                client_ssl: false,
                client_ssl_cert: None,
                client_ssl_cert_key: None,
                lua_ssl_trusted_certificate: Vec::new(),
            },
            snapshots: Arc::new(ArcSwap::new(snapshot)),
            node: Arc::clone(live.node()),
            access_log: None,
            workers: 1,
            upstream_pool_size: 64,
            inherited: Default::default(),
            http2_idle: PATIENCE,
            descriptors: None,
            forced_driver: self.driver,
        })
        .unwrap();
        let address = engine.bound()[0].local;
        let (stop, stopped) = watch::channel(None);
        let running = tokio::spawn(engine.run(stopped, PATIENCE));
        Rig {
            address,
            stop,
            running,
        }
    }

    fn delta(&self) -> PlanDelta {
        let id = Uuid::from_u128(1);
        let endpoints = self.endpoints.iter().enumerate();
        let endpoints = endpoints.map(|(number, address)| EndpointPlan {
            id: Uuid::from_u128(number as u128),
            host: address.ip().to_string().into(),
            port: address.port(),
            weight: 100,
            rank: 0,
            roster: None,
        });
        let cluster = ClusterPlan {
            named: true,
            ..ClusterPlan::plain(id, "origin", endpoints.collect())
        };
        let forward = ForwardPlan {
            id,
            name: None,
            protocol: Protocol::Http,
            cluster: id,
            host: "origin.test".into(),
            port: 80,
            path: "/".into(),
            retries: 5,
            retry_statuses: Vec::new(),
            connect_timeout_ms: 5_000,
            read_timeout_ms: u32::try_from(self.read_timeout.as_millis()).unwrap(),
            write_timeout_ms: 5_000,
            tls: UpstreamTlsPlan::default(),
            proxy_header: None,
            description: "{}".into(),
        };
        let pipeline = PipelineKey {
            forward: None,
            route: Some(id),
            stream: false,
        };
        let route = RoutePlan {
            id,
            name: None,
            matchers: vec![MatcherPlan::default()],
            protocols: ProtocolSet::of(&[Protocol::Http, Protocol::Https]),
            https_redirect_status: 426,
            strip_path: false,
            path_joining: PathJoining::Slash,
            preserve_host: false,
            request_buffering: true,
            response_buffering: true,
            forward: Some(id),
            pipeline,
            description: "{}".into(),
        };
        let steps = self.plugins.iter().map(|entry| StepPlan {
            plugin: entry.info.name.into(),
            base: Some(Candidate {
                rank: 10,
                instance: Arc::new(InstancePlan {
                    protocols: Default::default(),
                    id: Uuid::new_v5(&id, entry.info.name.as_bytes()),
                    plugin: entry.info.name.into(),
                    config: serde_json::json!({}),
                    scope: Scope::default(),
                }),
            }),
            by_principal: BTreeMap::new(),
            by_group: BTreeMap::new(),
        });
        PlanDelta {
            routes: BTreeMap::from([(id, Some(Arc::new(route)))]),
            forwards: BTreeMap::from([(id, Some(Arc::new(forward)))]),
            clusters: BTreeMap::from([(id, Some(Arc::new(cluster)))]),
            pipelines: BTreeMap::from([(
                pipeline,
                Some(Arc::new(PipelinePlan {
                    steps: steps.collect(),
                })),
            )]),
            ..PlanDelta::default()
        }
    }
}

fn serving(held_bytes_max: usize) -> ServingPlan {
    ServingPlan {
        trusted: Vec::new(),
        client_address: ClientAddressPlan {
            header: "x-real-ip".into(),
            recursive: false,
        },
        request_headers_max: 100,
        response_headers_max: 100,
        query_arguments_max: 100,
        request_body_bytes_max: 0,
        held_body_bytes_max: held_bytes_max,
        client_idle_seconds: 60,
        tunnel_idle_seconds: None,
        client_head_ms: 10_000,
        client_body_bytes_per_second: 0,
        listener_connections_max: 0,
        address_connections_max: 0,
        client_requests_max: 10_000,
        retry_percent: 20,
        upstream_pool: UpstreamPoolPlan {
            idle_per_peer_max: 16,
            requests_max: 1000,
            idle_seconds: 60,
        },
        headers: GatewayHeadersPlan {
            product: "gateway/1".into(),
            server: true,
            via: true,
            ..GatewayHeadersPlan::default()
        },
        error_type: "text/plain".into(),
        trust_anchors: "".into(),
        client_certificate: None,
        port_map: Vec::new(),
        access_log: AccessLogFormat::Combined,
    }
}

impl Rig {
    /// Sends bytes on a new connection, ends the sending side, and reads to the end.
    pub(super) async fn converse(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "no end to the answer to {:?}: {:?}",
                    String::from_utf8_lossy(bytes.as_ref()),
                    String::from_utf8_lossy(&answer)
                )
            })
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request that asks for the connection to be closed.
    pub(super) async fn ask(&self, head: &str, body: &[u8]) -> String {
        let mut bytes = format!("{head}\r\nHost: a.test\r\nConnection: close\r\n\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.converse(bytes).await
    }

    /// Tells the engine to end.
    pub(super) fn end(&self, ending: Ending) {
        self.stop.send(Some(ending)).unwrap();
    }

    /// Ends the engine and waits for it.
    pub(super) async fn stop(self) {
        self.end(Ending::Stop);
        self.ended().await;
    }

    /// Waits for an engine that was told to end.
    pub(super) async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("the engine drains in time")
            .unwrap();
    }
}

/// An origin that answers every request on every connection with what `answer` makes of it.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
}

/// What an origin does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Waits for the next request.
    Stay,
    /// Closes, without having said so.
    Close,
}

impl Origin {
    pub(super) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&str) -> (Vec<u8>, Then) + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&answer)));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// Answers with the request as received, length announced.
    pub(super) async fn echo() -> Self {
        Self::start(|request| (whole(request.as_bytes()), Then::Stay)).await
    }
}

/// A complete response with this body.
pub(super) fn whole(body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

async fn serve<F>(mut stream: TcpStream, answer: Arc<F>)
where
    F: Fn(&str) -> (Vec<u8>, Then),
{
    let mut seen = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = request_length(&seen) {
                break length;
            }
            match stream.read_buf(&mut seen).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let request: Vec<u8> = seen.drain(..length).collect();
        let (bytes, then) = answer(&String::from_utf8_lossy(&request));
        if stream.write_all(&bytes).await.is_err() || then == Then::Close {
            return;
        }
    }
}

/// Length of the first whole request, if it is there.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        let end = memchr::memmem::find(&bytes[head..], b"0\r\n\r\n")?;
        return Some(head + end + 5);
    }
    let body = text
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .map_or(0, |length| length.trim().parse().unwrap());
    (bytes.len() >= head + body).then_some(head + body)
}
