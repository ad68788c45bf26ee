//! Listeners for applications on this machine whose bytes go to a peer over mutual TLS.
//!
//! ```text
//! accept ─▶ targets in turn: connect, handshake, peer judged ─▶ bytes both ways
//! ```
//!
//! No byte of the application leaves before the peer has been judged. Start at [`Doors::open_outbound`].

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use super::{Doors, IDLE, STUCK, connect, goodbye, handshake_refusal};
use crate::engine::read_ahead::{ReadAhead, TlsStream};
use crate::engine::stream::copy::{self, Carried, Patience, Side};
use crate::runtime::mutual::{DialTarget, Dialer, MutualCell, MutualTls, Refusal, SecuredCounts};

/// Places that are tried for one connection.
const TARGETS_TRIED_MAX: usize = 3;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where applications connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAddress {
    Tcp(SocketAddr),
    /// A socket of the file system; a stale one is replaced, any other file is not.
    Unix {
        path: PathBuf,
        /// Permissions; absent ones are the process's usual.
        mode: Option<u32>,
    },
}

/// A listener to be opened.
#[derive(Clone)]
pub struct OutboundListen {
    /// In logs.
    pub name: Arc<str>,
    pub address: LocalAddress,
    pub cell: Arc<MutualCell>,
    pub dialer: Arc<dyn Dialer>,
    /// More open connections than this are closed at once.
    pub connections_max: Option<u32>,
    pub counts: Arc<OutboundCounts>,
}

/// What happened on a listener.
#[derive(Debug, Default)]
pub struct OutboundCounts {
    /// Connections to peers.
    pub peers: Arc<SecuredCounts>,
    /// Connections of applications.
    pub open: AtomicU64,
    /// Bytes to peers.
    pub sent: AtomicU64,
    /// Bytes from peers.
    pub received: AtomicU64,
}

/// A listener that is open until it is dropped.
pub struct OutboundListener {
    /// With the port that the system chose.
    pub address: LocalAddress,
    /// 1: accepts no more; 2: cuts what is open.
    stop: watch::Sender<u8>,
}

impl OutboundListener {
    /// Accepts no more; connections that are open go on.
    pub fn close(&self) {
        self.stop.send_if_modified(|stop| {
            let before = *stop;
            *stop = before.max(1);
            before != *stop
        });
    }

    /// Accepts no more and cuts what is open.
    pub fn cut(&self) {
        self.stop.send_replace(2);
    }
}

impl Drop for OutboundListener {
    fn drop(&mut self) {
        self.close();
    }
}

/// A bound socket of either kind.
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        #[allow(
            dead_code,
            reason = "dropped with the listener, which removes the file"
        )]
        file: SocketFile,
    },
}

/// A connection of either kind.
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Removes the file of a socket when the listener goes.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Doors {
    /// Binds and accepts from now on.
    pub fn open_outbound(&self, listen: OutboundListen) -> io::Result<OutboundListener> {
        let _entered = self.runtime.enter();
        let (socket, address) = match &listen.address {
            LocalAddress::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let local = LocalAddress::Tcp(listener.local_addr()?);
                (Socket::Tcp(TcpListener::from_std(listener)?), local)
            }
            LocalAddress::Unix { path, mode } => {
                let listener = bind_unix(path)?;
                let file = SocketFile(path.clone());
                if let Some(mode) = mode {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
                }
                (Socket::Unix { listener, file }, listen.address.clone())
            }
        };
        let (stop, stopped) = watch::channel(0);
        let accepting = accept(socket, Arc::new(listen), stopped, self.shutdown.clone());
        self.runtime.spawn(accepting);
        Ok(OutboundListener { address, stop })
    }
}

/// Binds a socket of the file system, in place of one that nobody listens on any more.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;

    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let is_stale = std::os::unix::net::UnixStream::connect(path).is_err();
            if !is_socket || !is_stale {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

async fn accept(
    socket: Socket,
    listen: Arc<OutboundListen>,
    mut stopped: watch::Receiver<u8>,
    mut engine: watch::Receiver<bool>,
) {
    loop {
        let accepting = async {
            match &socket {
                Socket::Tcp(listener) => {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    Ok::<_, io::Error>(Accepted::Tcp(stream))
                }
                Socket::Unix { listener, .. } => {
                    listener.accept().await.map(|(s, _)| Accepted::Unix(s))
                }
            }
        };
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            _ = stopped.wait_for(|stop| *stop > 0) => return,
            _ = engine.wait_for(|end| *end) => return,
        };
        match accepted {
            Ok(accepted) => {
                let (listen, mut stopped) = (Arc::clone(&listen), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(accepted, &listen) => {}
                        // A sender that is gone has closed the listener; what is open goes on.
                        Ok(_) = stopped.wait_for(|stop| *stop > 1) => {}
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, listener = &*listen.name, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// An open connection, counted with what it carries, also when it is cut.
struct Open<'a> {
    counts: &'a OutboundCounts,
    carried: Carried,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Carried {
            to_upstream,
            to_client,
        } = self.carried;
        self.counts.sent.fetch_add(to_upstream, Ordering::Relaxed);
        self.counts.received.fetch_add(to_client, Ordering::Relaxed);
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(accepted: Accepted, listen: &OutboundListen) {
    let counts = &*listen.counts;
    let before = counts.open.fetch_add(1, Ordering::Relaxed);
    let mut open = Open {
        counts,
        carried: Carried::default(),
    };
    let limit = listen.connections_max.unwrap_or(u32::MAX);
    if before >= u64::from(limit) {
        counts.peers.failures.count(&Refusal::TooMany);
        tracing::warn!(listener = &*listen.name, limit, "too many connections");
        return;
    }
    let mut upstream = match dial(listen).await {
        Ok(upstream) => upstream,
        Err(what) => {
            tracing::warn!(listener = &*listen.name, "no connection to a peer: {what}");
            return;
        }
    };
    counts.peers.connected.fetch_add(1, Ordering::Relaxed);
    let carried = match accepted {
        Accepted::Tcp(mut client) => carry(&mut client, &mut upstream, &mut open.carried).await,
        Accepted::Unix(mut client) => carry(&mut client, &mut upstream, &mut open.carried).await,
    };
    if let Err(error) = carried {
        tracing::debug!(%error, listener = &*listen.name, "stream ended");
    }
}

async fn carry<C: Side>(
    client: &mut C,
    upstream: &mut TlsStream,
    carried: &mut Carried,
) -> Result<(), copy::Broken> {
    let patience = Patience {
        idle: IDLE,
        stuck: STUCK,
    };
    copy::run(client, upstream, patience, carried).await
}

/// Connects to the first target that can be connected to and is whom it should be.
async fn dial(listen: &OutboundListen) -> Result<TlsStream, String> {
    let counts = &listen.counts;
    let refused = |refusal: &Refusal| counts.peers.failures.count(refusal);
    let targets = listen
        .dialer
        .targets(TARGETS_TRIED_MAX)
        .inspect_err(|what| {
            refused(&Refusal::ApplicationUnreachable(what.clone()));
        })?;
    let mut last = "there is no instance".to_owned();
    for target in &targets {
        let dialling = dial_one(listen, target);
        let refusal = match tokio::time::timeout(target.connect_timeout, dialling).await {
            Ok(Ok(stream)) => {
                listen.dialer.report(target, true);
                return Ok(stream);
            }
            Ok(Err(refusal)) => refusal,
            Err(_) => {
                let limit = target.connect_timeout;
                Refusal::ApplicationUnreachable(format!("no connection within {limit:?}"))
            }
        };
        refused(&refusal);
        // Without a certificate of our own nothing is said about the peer.
        if refusal != Refusal::NotReady {
            listen.dialer.report(target, false);
        }
        let (host, port, reason) = (&*target.host, target.port, refusal.label());
        tracing::warn!(
            listener = &*listen.name,
            host,
            port,
            reason,
            "peer not used: {refusal}"
        );
        last = format!("{host}:{port}: {refusal}");
    }
    Err(last)
}

async fn dial_one(listen: &OutboundListen, target: &DialTarget) -> Result<TlsStream, Refusal> {
    let tls = listen.cell.load().ok_or(Refusal::NotReady)?;
    let unreachable = |error: io::Error| Refusal::ApplicationUnreachable(error.to_string());
    let stream = connect(&target.host, target.port)
        .await
        .map_err(unreachable)?;
    let (name, judge) = (target.server_name.as_deref(), Arc::clone(&target.judge));
    let ssl = tls
        .connecting(name, listen.dialer.offer(), judge)
        .map_err(Refusal::Handshake)?;
    let failed = |error: &dyn std::fmt::Display| Refusal::Handshake(error.to_string());
    let stream = ReadAhead::new(stream);
    let mut stream = TlsStream::new(ssl, stream).map_err(|error| failed(&error))?;
    let shaken = Pin::new(&mut stream).connect().await;
    match (MutualTls::outcome(stream.ssl()).cloned(), shaken) {
        (Some(Err(refusal)), _) => Err(refusal),
        (Some(Ok(_)), Ok(())) => Ok(stream),
        (_, Err(error)) => Err(handshake_refusal(&error)),
        (None, Ok(())) => {
            goodbye(&mut stream).await;
            Err(Refusal::NoCertificate)
        }
    }
}
