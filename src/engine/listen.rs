//! Listeners and the life of the engine: bind, accept, drain.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use pingora_core::server::configuration::ServerConf;
use pingora_http::RequestHeader;
use pingora_proxy::http_proxy;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::engine::application::Application;
use crate::engine::exchange::ExchangeDriver;
use crate::engine::exchange::pool::{self, Pool};
use crate::engine::front::Front;
use crate::engine::gateway::{ForcedDriver, Gateway, Hooks};
use crate::engine::io::Refuse;
use crate::engine::log::AccessLog;
use crate::engine::tls::Acceptor;
use crate::engine::{phases, respond};
use crate::runtime::connection::Connection;
use crate::runtime::exchange::RequestBody;
use crate::runtime::fault::{Blame, Fault};
use crate::runtime::node::{Node, TrafficCounts};
use crate::runtime::snapshot::Snapshot;
use crate::settings::listen::Listen;
use crate::settings::tls::TlsSettings;

/// Connections that wait to be accepted, when the listener names no number.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept, so that a shortage of descriptors does not keep a core busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Silence after which an idle HTTP/2 connection is closed.
const HTTP2_IDLE: Duration = Duration::from_secs(180);
/// How long idle connections stay open after a hand-over.
const HAND_OVER_LINGER: Duration = Duration::from_secs(5);
/// How often a draining engine looks whether requests are still in flight.
const SETTLE_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Attempts that Pingora makes at most; the number that counts is the forward's own.
const ATTEMPTS_MAX: usize = 64;

/// What the engine is made with.
pub struct EngineOptions {
    pub listeners: Vec<Listen>,
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
    /// For tests: every request takes this driver, as far as it can.
    pub forced_driver: Option<ForcedDriver>,
}

/// A listener with its socket.
pub struct Bound {
    pub listen: Listen,
    /// The address really bound, where the configured one had port 0.
    pub local: SocketAddr,
    socket: StdListener,
}

impl AsFd for Bound {
    /// The listening socket, for a successor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A listener that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
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
    acceptors: HashMap<bool, Arc<Acceptor>>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    node: Arc<Node>,
    refuse: Refuse,
    draining: Arc<AtomicBool>,
}

impl Engine {
    /// Binds all listeners; all that cannot be had are reported at once. Nothing is accepted yet.
    pub fn bind(options: EngineOptions) -> Result<Self, Vec<String>> {
        let mut bound = Vec::new();
        let mut errors = Vec::new();
        for listen in &options.listeners {
            let inherited = options.inherited.get(&listen.address.to_string()).copied();
            match bind(listen, inherited) {
                Ok(listener) => bound.push(listener),
                Err(error) => errors.push(format!("{error}: {}", error.source)),
            }
        }
        let mut acceptors = HashMap::new();
        for listener in bound.iter().filter(|listener| listener.listen.ssl) {
            let http2 = listener.listen.http2;
            match Acceptor::new(&options.tls, http2, Arc::clone(&options.snapshots)) {
                Ok(acceptor) => {
                    acceptors.insert(http2, Arc::new(acceptor));
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let pool = Arc::new(Pool::new());
        let draining = Arc::new(AtomicBool::new(false));
        let gateway = Arc::new(Gateway {
            draining: Arc::clone(&draining),
            snapshots: Arc::clone(&options.snapshots),
            node: Arc::clone(&options.node),
            access_log: options.access_log,
            driver: ExchangeDriver::new(Arc::clone(&pool)),
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
        server_options.h2_idle_timeout = Some(HTTP2_IDLE);
        proxy.server_options = Some(server_options);
        Ok(Self {
            application: Arc::new(Application {
                gateway,
                proxy: Arc::new(proxy),
            }),
            pool,
            bound,
            acceptors,
            refuse: refuser(Arc::clone(&options.snapshots)),
            snapshots: options.snapshots,
            node: options.node,
            draining,
        })
    }

    /// The listeners as bound.
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Accepts and serves until `ending` says how to end; then stops accepting, lets requests in flight finish for at
    /// most `drain`, and returns.
    pub async fn run(mut self, mut ending: watch::Receiver<Option<Ending>>, drain: Duration) {
        let (stop_accepting, shutdown) = watch::channel(false);
        let (close_idle, idle_closes) = watch::channel(false);
        let sweeper = tokio::spawn(pool::sweep_regularly(Arc::clone(&self.pool)));
        let mut loops = Vec::new();
        for listener in std::mem::take(&mut self.bound) {
            let acceptor = listener
                .listen
                .ssl
                .then(|| self.acceptors.get(&listener.listen.http2).cloned())
                .flatten();
            let front = Arc::new(Front {
                application: Arc::clone(&self.application),
                acceptor,
                http2: listener.listen.http2,
                refuse: Arc::clone(&self.refuse),
                idle_closes: idle_closes.clone(),
            });
            let accepting = Accepting {
                front,
                snapshots: Arc::clone(&self.snapshots),
                node: Arc::clone(&self.node),
                local: listener.local,
                shutdown: shutdown.clone(),
            };
            loops.push(tokio::spawn(accepting.run(listener.socket)));
        }
        // An error means that the sender is gone: the same as a stop.
        let ending = match ending.wait_for(Option::is_some).await {
            Ok(ending) => ending.unwrap_or(Ending::Stop),
            Err(_) => Ending::Stop,
        };
        self.draining.store(true, Ordering::Relaxed);
        stop_accepting.send_replace(true);
        for accepting in loops {
            let _ = accepting.await;
        }
        if ending == Ending::HandOver {
            self.until(HAND_OVER_LINGER.min(drain), |counts| counts.active == 0)
                .await;
        }
        close_idle.send_replace(true);
        // Sessions that wait for a request end; those that serve one finish it.
        pingora_core::apps::HttpServerApp::http_cleanup(&*self.application).await;
        if !self.until(drain, |counts| counts.in_flight == 0).await {
            let in_flight = self.node.traffic.counts().in_flight;
            tracing::warn!(in_flight, "requests cut off at the end of the drain time");
        }
        sweeper.abort();
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

/// One listener at work.
struct Accepting {
    front: Arc<Front>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    node: Arc<Node>,
    local: SocketAddr,
    shutdown: watch::Receiver<bool>,
}

impl Accepting {
    async fn run(mut self, socket: StdListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, address = %self.local, "cannot accept");
                return;
            }
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.shutdown.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => self.serve(stream, peer),
                Err(error) => {
                    // The client's own failures are no reason to pause.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, address = %self.local, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn serve(&self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let front = Arc::clone(&self.front);
        let node = Arc::clone(&self.node);
        let shutdown = self.shutdown.clone();
        let serving = Arc::clone(&self.snapshots.load().serving);
        let local = stream.local_addr().unwrap_or(self.local);
        let port = serving.external_port(self.local.port());
        let trusted = serving.trusts(peer.ip());
        let idle = match serving.plan.client_idle_seconds {
            0 => Duration::from_secs(u64::from(u32::MAX)),
            seconds => Duration::from_secs(seconds),
        };
        let requests_max = match serving.plan.client_requests_max {
            0 => u32::MAX,
            requests => requests,
        };
        tokio::spawn(async move {
            let _open = Open::new(&node);
            let connection = Connection::new(peer, local, port, trusted);
            let served = front
                .serve(stream, connection, idle, requests_max, shutdown)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, client = %peer, "connection ended");
            }
        });
    }
}

/// An open connection, counted.
struct Open<'a>(&'a Node);

impl<'a> Open<'a> {
    fn new(node: &'a Node) -> Self {
        node.traffic.connection_opened();
        Self(node)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.traffic.connection_closed();
    }
}

fn bind(listen: &Listen, inherited: Option<RawFd>) -> Result<Bound, BindError> {
    let failed = |source| BindError {
        address: listen.address,
        source,
    };
    let socket = match inherited {
        Some(fd) => adopt(fd),
        None => open(listen).map_err(failed)?,
    };
    socket.set_nonblocking(true).map_err(failed)?;
    let socket: StdListener = socket.into();
    Ok(Bound {
        listen: listen.clone(),
        local: socket.local_addr().map_err(failed)?,
        socket,
    })
}

#[allow(
    unsafe_code,
    reason = "a descriptor received from the process that hands its listeners over has no other owner here"
)]
fn adopt(fd: RawFd) -> Socket {
    // SAFETY: the descriptor arrived over the hand-over socket and is given to exactly one listener.
    Socket::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open(listen: &Listen) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(listen.address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if listen.reuseport {
        socket.set_reuse_port(true)?;
    }
    if listen.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&listen.address.into())?;
    let backlog = listen.backlog.map_or(BACKLOG, |backlog| {
        i32::try_from(backlog).unwrap_or(i32::MAX)
    });
    socket.listen(backlog)?;
    Ok(socket)
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
        let mut exchange = phases::begin(snapshot, connection, Box::new(head), RequestBody::Absent);
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
