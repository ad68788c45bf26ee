//! Listeners that come and go while the engine runs, on which both sides show certificates.
//!
//! ```text
//! accept ─▶ bytes? ─▶ TLS? ─▶ handshake, peer judged ─┬▶ stream: authorize ─▶ application, bytes both ways
//!             └ none: a probe, not counted            └▶ requests: each admitted in the phases
//!                                   open connections ◀── review, when the authority has changed
//! ```
//!
//! Owns what lies between a socket and a caller who was let in. Whom a certificate speaks for, and what its owner may do,
//! a [`PeerAuthority`] says. Start at [`Doors::open`].

mod open;
pub mod outbound;
pub mod requests;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd as _, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use boring::ssl::NameType;
use parking_lot::Mutex;
use pingora_core::protocols::tls::ALPN;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use self::open::{OpenPeers, review};
use super::accept::{Accepting, BindError, Serve, bind};
use super::front::Front;
use super::io::Channel;
use super::read_ahead::{ReadAhead, TlsStream};
use super::stream::copy::{self, Carried, Patience, Side};
use crate::runtime::connection::{Caller, Connection, TlsFacts};
use crate::runtime::mutual::{
    MutualCell, MutualTls, Offer, Peer, PeerAuthority, PeerJudge, Refusal, RefusalCounts, Verdict,
};
use crate::runtime::node::Node;
use crate::runtime::snapshot::Snapshot;
use crate::settings::listen::Listen;

/// Streams may be silent for as long as their ends like: the kernel finds out who is gone.
const IDLE: Duration = Duration::from_secs(366 * 86_400);
/// Somebody who takes nothing that was sent for so long has hung up in all but name.
const STUCK: Duration = Duration::from_secs(3_600);
/// Silence after which the kernel asks the other end whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// To say goodbye to a caller who is turned away.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// Where the application is that stands behind a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Application {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// What connections of a listener carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carries {
    /// Bytes for an application.
    Stream {
        application: Application,
        connect_timeout: Duration,
    },
    /// Requests for the snapshot's routes; for those of `entrance` where there is one.
    Requests {
        http2: bool,
        entrance: Option<Arc<str>>,
    },
}

/// A listener to be opened.
#[derive(Clone)]
pub struct MutualListen {
    /// In logs.
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub carries: Carries,
    pub cell: Arc<MutualCell>,
    pub judge: Arc<dyn PeerJudge>,
    pub authority: Arc<dyn PeerAuthority>,
    pub handshake_timeout: Duration,
    /// More open connections than this are refused.
    pub connections_max: Option<u32>,
    pub counts: Arc<MutualCounts>,
}

/// What happened on a listener.
#[derive(Debug, Default)]
pub struct MutualCounts {
    pub refusals: RefusalCounts,
    /// Callers who were let in.
    pub accepted: AtomicU64,
    /// Connections that were let in and are open.
    pub open: AtomicU64,
    /// Open connections that were cut because their caller lost the right.
    pub cut: AtomicU64,
    /// Bytes of streams from callers.
    pub received: AtomicU64,
    /// Bytes of streams to callers.
    pub sent: AtomicU64,
}

/// Opens listeners of a running engine.
#[derive(Clone)]
pub struct Doors {
    pub(super) front: Arc<Front>,
    pub(super) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(super) node: Arc<Node>,
    pub(super) runtime: tokio::runtime::Handle,
    /// Turns true when the engine stops to accept.
    pub(super) shutdown: watch::Receiver<bool>,
}

/// A listener that is open until it is dropped or closed.
pub struct MutualListener {
    pub local: SocketAddr,
    stop: watch::Sender<bool>,
    open: Arc<OpenPeers>,
    /// A second handle to the socket, while it is open.
    handle: Arc<Mutex<Option<OwnedFd>>>,
}

impl MutualListener {
    /// Accepts no more; connections that are open go on.
    pub fn close(&self) {
        self.stop.send_replace(true);
        self.handle.lock().take();
    }

    /// A handle to the socket for a successor; none when it is closed.
    pub fn handle(&self) -> io::Result<Option<OwnedFd>> {
        let handle = self.handle.lock();
        handle.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Accepts no more and cuts what is open.
    pub fn cut(&self) {
        self.close();
        self.open.cut_all();
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

impl Drop for MutualListener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Doors {
    /// Ends a listener, which `stop` stops, when the engine ends; over when the listener is.
    fn ending_with_the_engine(
        &self,
        stop: &watch::Sender<bool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (stop, mut engine) = (stop.clone(), self.shutdown.clone());
        async move {
            tokio::select! {
                _ = engine.wait_for(|end| *end) => drop(stop.send_replace(true)),
                () = stop.closed() => {}
            }
        }
    }

    /// Binds and accepts from now on.
    pub fn open(&self, listen: MutualListen) -> Result<MutualListener, BindError> {
        self.open_with(listen, None)
    }

    /// The same, with a socket that a predecessor has left instead of a new one.
    pub fn open_with(
        &self,
        listen: MutualListen,
        inherited: Option<StdListener>,
    ) -> Result<MutualListener, BindError> {
        // The runtime's reactor takes the socket.
        let _entered = self.runtime.enter();
        let bound = bind(
            &Listen {
                address: listen.address,
                ssl: true,
                http2: false,
                proxy_protocol: false,
                connect: false,
                reuseport: false,
                backlog: None,
                ssl_cipher_suite: None,
            },
            inherited.map(IntoRawFd::into_raw_fd),
        )?;
        let local = bound.local;
        // Without a second handle the listener works, but cannot be handed over.
        let handle = Arc::new(Mutex::new(bound.as_fd().try_clone_to_owned().ok()));
        let (stop, stopped) = watch::channel(false);
        let open = Arc::new(OpenPeers::default());
        let reviewing = review(
            Arc::clone(&open),
            Arc::clone(&listen.authority),
            Arc::clone(&listen.counts),
            Arc::clone(&listen.name),
            stopped.clone(),
        );
        self.runtime.spawn(reviewing);
        let front = MutualFront {
            listen,
            front: Arc::clone(&self.front),
            open: Arc::clone(&open),
        };
        let accepting = Accepting {
            serve: Arc::new(front),
            snapshots: Arc::clone(&self.snapshots),
            node: Arc::clone(&self.node),
            // Peers are few and known by name: each listener counts for itself.
            admission: Arc::default(),
            shutdown: stopped,
        };
        self.runtime.spawn(accepting.run(bound));
        let ended = self.ending_with_the_engine(&stop);
        let kept = Arc::clone(&handle);
        self.runtime.spawn(async move {
            ended.await;
            // A socket that is still held would take connections that nobody serves.
            kept.lock().take();
        });
        Ok(MutualListener {
            local,
            stop,
            open,
            handle,
        })
    }
}

/// One listener at work.
struct MutualFront {
    listen: MutualListen,
    front: Arc<Front>,
    open: Arc<OpenPeers>,
}

impl Serve for MutualFront {
    async fn serve(
        &self,
        stream: TcpStream,
        connection: Connection,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let client = connection.peer;
        match self.admit(stream, connection, shutdown).await {
            Ok(()) => Ok(()),
            Err(Ended::Probe) => Ok(()),
            Err(Ended::Broken(error)) => Err(error),
            Err(Ended::Refused(refusal, peer)) => {
                self.listen.counts.refusals.count(&refusal);
                let uri = peer.as_ref().map(|peer| &*peer.uri);
                let listener = &*self.listen.name;
                let reason = refusal.label();
                tracing::warn!(%client, listener, reason, uri, "caller refused: {refusal}");
                Ok(())
            }
        }
    }
}

/// Why a connection was not served to its end.
enum Ended {
    /// Nothing came: a health check, or somebody who has changed his mind.
    Probe,
    Refused(Refusal, Option<Arc<Peer>>),
    Broken(io::Error),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

impl MutualFront {
    async fn admit(
        &self,
        stream: TcpStream,
        connection: Connection,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), Ended> {
        let limit = self.listen.connections_max.unwrap_or(u32::MAX);
        let open = self.listen.counts.open.load(Ordering::Relaxed);
        if open >= u64::from(limit) {
            return Err(Refusal::TooMany.into());
        }
        match &self.listen.carries {
            Carries::Stream {
                application,
                connect_timeout,
            } => {
                let shaken = self.shake(stream, &connection).await?;
                let (mut stream, peer, _) = shaken;
                // Known before the question is asked: a change of mind in between is heard.
                let entry = self.open.enter(Arc::clone(&peer));
                let verdict = self.listen.authority.authorize(&peer).await;
                if let Some(refusal) = refusal_of(verdict) {
                    goodbye(&mut stream).await;
                    return Err(Ended::Refused(refusal, Some(peer)));
                }
                let carrying = self.carry(&mut stream, application, *connect_timeout);
                let carried = tokio::select! {
                    carried = carrying => Some(carried),
                    () = entry.cut() => None,
                };
                match carried {
                    Some(Err(refusal)) => {
                        goodbye(&mut stream).await;
                        Err(Ended::Refused(refusal, Some(peer)))
                    }
                    Some(Ok(())) => Ok(()),
                    None => {
                        goodbye(&mut stream).await;
                        Ok(())
                    }
                }
            }
            Carries::Requests { http2, entrance } => {
                let shaken = self.shake(stream, &connection).await?;
                let (stream, peer, alpn) = shaken;
                let entry = self.open.enter(Arc::clone(&peer));
                if let Some(entrance) = entrance {
                    let _ = connection.entrance.set(Arc::clone(entrance));
                }
                let caller = Caller::new(peer, Arc::clone(&self.listen.authority));
                let _ = connection.caller.set(caller);
                // Those who name no protocol on a listener for HTTP/2 know beforehand what is spoken.
                let alpn = match (alpn, http2) {
                    (Some(alpn), _) => alpn,
                    (None, true) => ALPN::H2,
                    (None, false) => ALPN::H1,
                };
                let counts = &self.listen.counts;
                let _counted = Counted::new(counts);
                let channel = Channel::Tls(Box::new(stream));
                let serving = self
                    .front
                    .serve_channel(channel, alpn, connection, shutdown);
                tokio::select! {
                    biased;
                    () = entry.cut() => Ok(()),
                    served = serving => served.map_err(Ended::Broken),
                }
            }
        }
    }

    /// Shakes hands in time.
    async fn shake(
        &self,
        stream: TcpStream,
        connection: &Connection,
    ) -> Result<(TlsStream, Arc<Peer>, Option<ALPN>), Ended> {
        let shaking = self.shake_at_leisure(stream, connection);
        match tokio::time::timeout(self.listen.handshake_timeout, shaking).await {
            Ok(shaken) => shaken,
            Err(_) => Err(Refusal::HandshakeTimeout.into()),
        }
    }

    async fn shake_at_leisure(
        &self,
        stream: TcpStream,
        connection: &Connection,
    ) -> Result<(TlsStream, Arc<Peer>, Option<ALPN>), Ended> {
        let mut first = [0; 1];
        match stream.peek(&mut first).await {
            Ok(0) => return Err(Ended::Probe),
            Ok(_) if first[0] != TLS_HANDSHAKE => return Err(Refusal::NotTls.into()),
            Ok(_) => {}
            Err(error) => return Err(Ended::Broken(error)),
        }
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
        // Without it a caller that vanished is noticed later.
        let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let Some(tls) = self.listen.cell.load() else {
            return Err(Refusal::NotReady.into());
        };
        let offer = match self.listen.carries {
            Carries::Stream { .. } => Offer::Nothing,
            Carries::Requests { http2: false, .. } => Offer::Http1,
            Carries::Requests { http2: true, .. } => Offer::Http2,
        };
        let failed = |what: String| Ended::from(Refusal::Handshake(what));
        let ssl = tls
            .accepting(offer, Arc::clone(&self.listen.judge))
            .map_err(failed)?;
        let mut stream = TlsStream::new(ssl, ReadAhead::new(stream))
            .map_err(|error| failed(error.to_string()))?;
        let shaken = Pin::new(&mut stream).accept().await;
        let peer = match (MutualTls::outcome(stream.ssl()), shaken) {
            (Some(Err(refusal)), _) => return Err(refusal.clone().into()),
            (Some(Ok(peer)), Ok(())) => Arc::clone(peer),
            (_, Err(error)) => return Err(handshake_refusal(&error).into()),
            (None, Ok(())) => return Err(Refusal::NoCertificate.into()),
        };
        let ssl = stream.ssl();
        let alpn = match ssl.selected_alpn_protocol() {
            Some(b"h2") => Some(ALPN::H2),
            Some(_) => Some(ALPN::H1),
            None => None,
        };
        let facts = TlsFacts {
            server_name: ssl
                .servername(NameType::HOST_NAME)
                .map(|name| name.to_ascii_lowercase().into()),
            version: ssl.version_str(),
            cipher: ssl
                .current_cipher()
                .map_or("", boring::ssl::SslCipherRef::name),
            // Who calls is told by `Connection::caller`.
            client_certificate: None,
        };
        let _ = connection.tls.set(facts);
        Ok((stream, peer, alpn))
    }

    /// Carries bytes between the caller and the application.
    async fn carry<S: Side>(
        &self,
        stream: &mut S,
        application: &Application,
        limit: Duration,
    ) -> Result<(), Refusal> {
        let unreachable = |what: String| Refusal::ApplicationUnreachable(what);
        let late = |_| unreachable(format!("no connection within {limit:?}"));
        let counts = Counted::new(&self.listen.counts);
        match application {
            Application::Tcp { host, port } => {
                let connecting = connect(host, *port);
                let mut upstream = tokio::time::timeout(limit, connecting)
                    .await
                    .map_err(late)?
                    .map_err(|error| unreachable(format!("{host}:{port}: {error}")))?;
                counts.run(stream, &mut upstream).await;
            }
            Application::Unix(path) => {
                let connecting = UnixStream::connect(path);
                let mut upstream = tokio::time::timeout(limit, connecting)
                    .await
                    .map_err(late)?
                    .map_err(|error| unreachable(format!("{}: {error}", path.display())))?;
                counts.run(stream, &mut upstream).await;
            }
        }
        Ok(())
    }
}

impl Side for TlsStream {}

impl Side for TcpStream {
    fn is_bare(&self) -> bool {
        true
    }
}

impl Side for UnixStream {
    fn is_bare(&self) -> bool {
        true
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = match host.parse::<IpAddr>() {
        Ok(address) => TcpStream::connect((address, port)).await?,
        Err(_) => TcpStream::connect((host, port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An open connection, counted with what it carries, also when it is cut.
struct Counted<'a> {
    counts: &'a MutualCounts,
}

impl<'a> Counted<'a> {
    fn new(counts: &'a MutualCounts) -> Self {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self { counts }
    }

    async fn run<S: Side, U: Side>(&self, stream: &mut S, upstream: &mut U) {
        let patience = Patience {
            idle: IDLE,
            stuck: STUCK,
        };
        let mut tally = Tally {
            counts: self.counts,
            carried: Carried::default(),
        };
        if let Err(error) = copy::run(stream, upstream, patience, &mut tally.carried).await {
            tracing::debug!(%error, "stream ended");
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds up what was carried, however it ends.
struct Tally<'a> {
    counts: &'a MutualCounts,
    carried: Carried,
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let Carried {
            to_upstream,
            to_client,
        } = self.carried;
        self.counts
            .received
            .fetch_add(to_upstream, Ordering::Relaxed);
        self.counts.sent.fetch_add(to_client, Ordering::Relaxed);
    }
}

fn refusal_of(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Allow => None,
        Verdict::Deny { reason } => Some(Refusal::Denied(reason.to_string())),
        Verdict::Unknown { reason } => Some(Refusal::Unanswered(reason.to_string())),
    }
}

/// Ends TLS properly, if the caller takes it.
async fn goodbye(stream: &mut (impl AsyncWrite + Unpin)) {
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, stream.shutdown()).await;
}

/// What the TLS library found wrong before there was a certificate to look at.
pub(crate) fn handshake_refusal(error: &boring::ssl::Error) -> Refusal {
    let reasons = error.ssl_error().map(|stack| stack.errors());
    let reason = reasons
        .and_then(|errors| errors.first())
        .and_then(boring::error::Error::reason);
    match reason {
        Some("PEER_DID_NOT_RETURN_A_CERTIFICATE") => Refusal::NoCertificate,
        Some(what @ ("UNSUPPORTED_PROTOCOL" | "NO_SHARED_CIPHER" | "NO_CIPHERS_AVAILABLE")) => {
            Refusal::Version(what.to_lowercase().replace('_', " "))
        }
        Some("HTTP_REQUEST" | "HTTPS_PROXY_REQUEST" | "WRONG_VERSION_NUMBER") => Refusal::NotTls,
        Some(what) => Refusal::Handshake(what.to_lowercase().replace('_', " ")),
        None => match error.io_error() {
            Some(error) => Refusal::Handshake(error.to_string()),
            None => Refusal::Handshake("the caller has gone".to_owned()),
        },
    }
}
