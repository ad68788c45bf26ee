//! The life of the engine: bind, serve, drain.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_http::RequestHeader;
use pingora_proxy::http_proxy;
use tokio::sync::watch;

use crate::engine::accept::{Accepting, Bound, Serve, bind};
use crate::engine::admission::Admission;
use crate::engine::application::Application;
use crate::engine::descriptors;
use crate::engine::exchange::ExchangeDriver;
use crate::engine::exchange::pool::{self, Pool};
use crate::engine::front::Front;
use crate::engine::gateway::{ForcedDriver, Gateway};
use crate::engine::hooks::Hooks;
use crate::engine::io::Refuse;
use crate::engine::log::AccessLog;
use crate::engine::mutual::Doors;
use crate::engine::stream::{StreamFront, Streams};
use crate::engine::tls::{Acceptor, Offers};
use crate::engine::{phases, respond};
use crate::runtime::connection::Connection;
use crate::runtime::exchange::RequestBody;
use crate::runtime::fault::{Blame, Fault};
use crate::runtime::node::{Node, TrafficCounts};
use crate::runtime::snapshot::Snapshot;
use crate::settings::listen::Listen;
use crate::settings::tls::{CipherSuite, TlsSettings};

/// How long idle connections stay open after a hand-over.
const HAND_OVER_LINGER: Duration = Duration::from_secs(5);
/// How long tunnels have to end in order when the time to drain is over.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often a draining engine looks whether requests are still in flight.
const SETTLE_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Attempts that Pingora makes at most; the number that counts is the forward's own.
const ATTEMPTS_MAX: usize = 64;

/// What the engine is made with.
pub struct EngineOptions {
    /// Listeners for requests.
    pub listeners: Vec<Listen>,
    /// Listeners for streams.
    pub stream_listeners: Vec<Listen>,
    pub tls: TlsSettings,
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    pub node: Arc<Node>,
    pub access_log: Option<Arc<AccessLog>>,
    /// Worker threads, for pool sizes.
    pub workers: usize,
    /// Idle upstream connections kept by the duplex driver.
    pub upstream_pool_size: usize,
    /// Listening sockets handed over by a process that stops, by their address as configured.
    pub inherited: HashMap<String, RawFd>,
    /// Silence after which an HTTP/2 connection without streams is closed.
    pub http2_idle: Duration,
    /// How many descriptors the process may have, and how many of them are kept from traffic.
    pub descriptors: Option<(u64, u64)>,
    /// For tests: every request takes this driver, as far as it can.
    pub forced_driver: Option<ForcedDriver>,
}

/// Why the engine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The service stops: idle connections are closed at once.
    Stop,
    /// Another process accepts already: idle connections stay open for a while, so that a request sent at this very
    /// moment is answered; the answer tells the client to connect anew.
    HandOver,
}

/// Everything between sockets and snapshots.
pub struct Engine {
    application: Arc<Application>,
    pool: Arc<Pool>,
    bound: Vec<Bound>,
    stream_bound: Vec<Bound>,
    acceptors: HashMap<(Offers, CipherSuite), Arc<Acceptor>>,
    /// Of listeners that name none.
    usual_suite: CipherSuite,
    streams: Arc<Streams>,
    admission: Arc<Admission>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    node: Arc<Node>,
    refuse: Refuse,
    draining: Arc<AtomicBool>,
    /// Turns true when nothing is accepted any more.
    stop_accepting: watch::Sender<bool>,
    /// Turns true when connections without a request are to be closed.
    close_idle: watch::Sender<bool>,
    /// Turns true when the time to drain is over.
    part: watch::Sender<bool>,
}

impl Engine {
    /// Binds all listeners; all that cannot be had are reported at once. Nothing is accepted yet.
    pub fn bind(options: EngineOptions) -> Result<Self, Vec<String>> {
        if let Some((limit, reserved)) = options.descriptors {
            descriptors::reserve(limit, reserved);
        }
        let mut errors = Vec::new();
        let mut bind_all = |listeners: &[Listen]| -> Vec<Bound> {
            let mut bound = Vec::new();
            for listen in listeners {
                let inherited = options.inherited.get(&listen.address.to_string()).copied();
                match bind(listen, inherited) {
                    Ok(listener) => bound.push(listener),
                    Err(error) => errors.push(format!("{error}: {}", error.source)),
                }
            }
            bound
        };
        let bound = bind_all(&options.listeners);
        let stream_bound = bind_all(&options.stream_listeners);
        let mut acceptors = HashMap::new();
        let usual = options.tls.ssl_cipher_suite;
        let requests = bound.iter().map(|listener| (listener, offers_of(listener)));
        let streams = stream_bound
            .iter()
            .map(|listener| (listener, Offers::Nothing));
        for (listener, offers) in requests.chain(streams) {
            let kind = (offers, listener.listen.ssl_cipher_suite.unwrap_or(usual));
            // Listeners with the same properties share one, and with it the sessions of their clients.
            if !listener.listen.ssl || acceptors.contains_key(&kind) {
                continue;
            }
            let snapshots = Arc::clone(&options.snapshots);
            match Acceptor::new(&options.tls, offers, kind.1, snapshots) {
                Ok(acceptor) => {
                    acceptors.insert(kind, Arc::new(acceptor));
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let pool = Arc::new(Pool::new());
        let (part, parting) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let streams = Arc::new(Streams {
            snapshots: Arc::clone(&options.snapshots),
            node: Arc::clone(&options.node),
            access_log: options.access_log.clone(),
        });
        let gateway = Arc::new(Gateway {
            draining: Arc::clone(&draining),
            snapshots: Arc::clone(&options.snapshots),
            node: Arc::clone(&options.node),
            access_log: options.access_log,
            driver: ExchangeDriver::new(Arc::clone(&pool), parting),
            forced: options.forced_driver,
        });
        let conf = ServerConf {
            threads: options.workers.max(1),
            upstream_keepalive_pool_size: options.upstream_pool_size.max(1),
            max_retries: ATTEMPTS_MAX,
            ..ServerConf::default()
        };
        let mut proxy = http_proxy(&Arc::new(conf), Hooks(Arc::clone(&gateway)));
        let mut server_options = pingora_core::apps::HttpServerOptions::default();
        server_options.h2_idle_timeout = Some(options.http2_idle);
        proxy.server_options = Some(server_options);
        // WebSockets over HTTP/2 (RFC 8441).
        let mut http2 = default_h2_options();
        http2.enable_connect_protocol();
        proxy.h2_options = Some(http2);
        Ok(Self {
            application: Arc::new(Application {
                gateway,
                proxy: Arc::new(proxy),
            }),
            pool,
            bound,
            stream_bound,
            acceptors,
            usual_suite: usual,
            streams,
            admission: Arc::default(),
            refuse: refuser(Arc::clone(&options.snapshots)),
            snapshots: options.snapshots,
            node: options.node,
            draining,
            stop_accepting: watch::Sender::new(false),
            close_idle: watch::Sender::new(false),
            part,
        })
    }

    /// The listeners for requests as bound.
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// The listeners for streams as bound.
    pub fn stream_bound(&self) -> &[Bound] {
        &self.stream_bound
    }

    /// Opens further listeners while the engine runs, on this runtime.
    pub fn doors(&self, runtime: tokio::runtime::Handle) -> Doors {
        let front = Front {
            application: Arc::clone(&self.application),
            acceptor: None,
            http2: false,
            refuse: Arc::clone(&self.refuse),
            streams: Arc::clone(&self.streams),
            idle_closes: self.close_idle.subscribe(),
        };
        Doors {
            front: Arc::new(front),
            snapshots: Arc::clone(&self.snapshots),
            node: Arc::clone(&self.node),
            runtime,
            shutdown: self.stop_accepting.subscribe(),
        }
    }

    /// Accepts and serves until `ending` says how to end; then stops accepting, lets requests in flight finish for at
    /// most `drain`, and returns.
    pub async fn run(mut self, mut ending: watch::Receiver<Option<Ending>>, drain: Duration) {
        let shutdown = self.stop_accepting.subscribe();
        let idle_closes = self.close_idle.subscribe();
        let sweeper = tokio::spawn(pool::sweep_regularly(Arc::clone(&self.pool)));
        let mut loops = Vec::new();
        for listener in std::mem::take(&mut self.bound) {
            let front = Front {
                application: Arc::clone(&self.application),
                acceptor: self.acceptor(&listener, offers_of(&listener)),
                http2: listener.listen.http2,
                refuse: Arc::clone(&self.refuse),
                streams: Arc::clone(&self.streams),
                idle_closes: idle_closes.clone(),
            };
            let accepting = self.accepting(front, &shutdown);
            loops.push(tokio::spawn(accepting.run(listener)));
        }
        for listener in std::mem::take(&mut self.stream_bound) {
            let front = StreamFront {
                streams: Arc::clone(&self.streams),
                acceptor: self.acceptor(&listener, Offers::Nothing),
            };
            let accepting = self.accepting(front, &shutdown);
            loops.push(tokio::spawn(accepting.run(listener)));
        }
        // An error means that the sender is gone: the same as a stop.
        let ending = match ending.wait_for(Option::is_some).await {
            Ok(ending) => ending.unwrap_or(Ending::Stop),
            Err(_) => Ending::Stop,
        };
        self.draining.store(true, Ordering::Relaxed);
        self.stop_accepting.send_replace(true);
        for accepting in loops {
            let _ = accepting.await;
        }
        if ending == Ending::HandOver {
            self.until(HAND_OVER_LINGER.min(drain), |counts| counts.active == 0)
                .await;
        }
        self.close_idle.send_replace(true);
        // Sessions that wait for a request end; those that serve one finish it.
        pingora_core::apps::HttpServerApp::http_cleanup(&*self.application).await;
        let settled = |counts: &TrafficCounts| counts.in_flight + counts.sessions_open == 0;
        if !self.until(drain, settled).await {
            let counts = self.node.traffic.counts();
            tracing::warn!(
                in_flight = counts.in_flight,
                streams = counts.sessions_open,
                "cut off at the end of the drain time"
            );
            // Tunnels say goodbye to both sides.
            self.part.send_replace(true);
            self.until(FAREWELL, settled).await;
        }
        sweeper.abort();
    }

    /// What accepts TLS for a listener; none without TLS.
    fn acceptor(&self, listener: &Bound, offers: Offers) -> Option<Arc<Acceptor>> {
        let suite = listener.listen.ssl_cipher_suite.unwrap_or(self.usual_suite);
        let acceptor = self.acceptors.get(&(offers, suite)).cloned();
        acceptor.filter(|_| listener.listen.ssl)
    }

    fn accepting<S: Serve>(&self, serve: S, shutdown: &watch::Receiver<bool>) -> Accepting<S> {
        Accepting {
            serve: Arc::new(serve),
            snapshots: Arc::clone(&self.snapshots),
            node: Arc::clone(&self.node),
            admission: Arc::clone(&self.admission),
            shutdown: shutdown.clone(),
        }
    }

    /// Waits until the counts are as wished, but not longer than `limit`. False when the time was over first.
    async fn until(&self, limit: Duration, wished: impl Fn(&TrafficCounts) -> bool) -> bool {
        let looking = async {
            let mut looks = tokio::time::interval(SETTLE_LOOK_EVERY);
            while !wished(&self.node.traffic.counts()) {
                looks.tick().await;
            }
        };
        tokio::time::timeout(limit, looking).await.is_ok()
    }
}

/// What a listener for requests offers inside TLS.
fn offers_of(listener: &Bound) -> Offers {
    match listener.listen.http2 {
        true => Offers::Http2,
        false => Offers::Http1,
    }
}

/// Renders the answer to requests that no session could be made of.
fn refuser(snapshots: Arc<ArcSwap<Snapshot>>) -> Refuse {
    Arc::new(move |connection, status| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let Ok(head) = RequestHeader::build("GET", b"/", Some(0)) else {
            return bytes::Bytes::new();
        };
        let connection = Arc::new(Connection::new(
            connection.peer,
            connection.local,
            connection.port,
            false,
        ));
        let snapshot = snapshots.load_full();
        let mut exchange = phases::begin(snapshot, connection, head.into(), RequestBody::Absent);
        let fault = Fault::transport(status, Blame::Client, "request could not be read");
        let local = phases::answer(&mut exchange, &fault);
        phases::made_here(&mut exchange);
        match respond::prepare(&mut exchange, *local) {
            Ok((head, body)) => {
                let mut wire = bytes::BytesMut::with_capacity(512);
                head_to_wire(&head, &mut wire);
                wire.extend_from_slice(&body);
                wire.freeze()
            }
            Err(_) => bytes::Bytes::new(),
        }
    })
}

fn head_to_wire(head: &pingora_http::ResponseHeader, wire: &mut bytes::BytesMut) {
    wire.extend_from_slice(b"HTTP/1.1 ");
    wire.extend_from_slice(head.status.as_str().as_bytes());
    wire.extend_from_slice(b" ");
    wire.extend_from_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    wire.extend_from_slice(b"\r\nConnection: close\r\n");
    head.header_to_h1_wire(wire);
    wire.extend_from_slice(b"\r\n");
}
