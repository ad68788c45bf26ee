//! Listening sockets, and the loop that accepts from one.
//!
//! Owns what is the same for every listener: binding, taking over a predecessor's socket, PROXY headers, the facts of a
//! connection, and the pause when nothing can be accepted. What a connection is then used for is a [`Serve`]; a listener
//! may come and go at any time, with a `shutdown` of its own.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::engine::admission::{Admission, OnListener};
use crate::engine::{descriptors, proxy_header};
use crate::runtime::connection::Connection;
use crate::runtime::node::Node;
use crate::runtime::snapshot::Snapshot;
use crate::settings::listen::Listen;

/// Connections that wait to be accepted, when the listener names no number.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept, so that a shortage of descriptors does not keep a core busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener with its socket.
pub struct Bound {
    pub listen: Listen,
    /// The address really bound, where the configured one had port 0.
    pub local: SocketAddr,
    pub(crate) socket: StdListener,
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

/// What the connections of a listener are used for.
pub(crate) trait Serve: Send + Sync + 'static {
    /// Serves one connection to its end. `shutdown` turns true when the listener ends.
    fn serve(
        &self,
        stream: TcpStream,
        connection: Connection,
        shutdown: watch::Receiver<bool>,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// One listener at work.
pub(crate) struct Accepting<S> {
    pub(crate) serve: Arc<S>,
    pub(crate) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(crate) node: Arc<Node>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) shutdown: watch::Receiver<bool>,
}

impl<S: Serve> Accepting<S> {
    /// Accepts until the shutdown.
    pub(crate) async fn run(self, bound: Bound) {
        let listener = match TcpListener::from_std(bound.socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, address = %bound.local, "cannot accept");
                return;
            }
        };
        let local = bound.local;
        let expects_header = bound.listen.proxy_protocol;
        let open = Arc::new(AtomicUsize::new(0));
        let mut shutdown = self.shutdown.clone();
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        // It is served, being here already; the next ones wait where they cost nothing.
                        let short = descriptors::is_reserved(&stream);
                        self.start(stream, peer, local, expects_header, &open);
                        if short {
                            await_descriptors(&listener, local).await;
                        }
                    }
                    // The client's own failures are no reason to pause.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(%error, address = %local, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        await_descriptors(&listener, local).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    fn start(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        listening: SocketAddr,
        expects_header: bool,
        open: &Arc<AtomicUsize>,
    ) {
        let limits = AtMost::of(&self.snapshots);
        let Some(on_listener) = OnListener::admit(open, limits.on_listener) else {
            self.admission
                .refused(peer.ip(), "listener_connections_max");
            return;
        };
        let admission = Arc::clone(&self.admission);
        // Only of a listener for all addresses the socket knows better than the listener.
        let local = match listening.ip().is_unspecified() {
            true => stream.local_addr().unwrap_or(listening),
            false => listening,
        };
        let serve = Arc::clone(&self.serve);
        let node = Arc::clone(&self.node);
        let snapshots = Arc::clone(&self.snapshots);
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let (_open, _on_listener) = (Open::new(&node), on_listener);
            let mut client = peer;
            if expects_header {
                match proxy_header::receive(&mut stream).await {
                    // Read off in any case, or the client's own bytes could not be found; believed from few.
                    Ok(proxied) if snapshots.load().serving.trusts(peer.ip()) => {
                        client = proxied.client.unwrap_or(peer);
                    }
                    Ok(_) => tracing::debug!(%peer, "a PROXY header was not believed"),
                    Err(error) => {
                        tracing::info!(%peer, listener = %listening, "{error}");
                        return;
                    }
                }
            }
            let Some(_admitted) = admission.admit(client.ip(), limits.of_address) else {
                admission.refused(client.ip(), "address_connections_max");
                return;
            };
            let connection = {
                let snapshot = snapshots.load();
                let serving = &snapshot.serving;
                let port = serving.external_port(listening.port());
                Connection::new(client, local, port, serving.trusts(client.ip()))
            };
            if let Err(error) = serve.serve(stream, connection, shutdown).await {
                tracing::debug!(%error, %client, "connection ended");
            }
        });
    }
}

/// Waits while all descriptors are taken but those that are kept for others.
async fn await_descriptors(listener: &TcpListener, local: SocketAddr) {
    if descriptors::has_room(listener.as_fd()) {
        return;
    }
    tracing::warn!(listener = %local, "descriptors run out: nothing is accepted until some are free");
    while !descriptors::has_room(listener.as_fd()) {
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    tracing::warn!(listener = %local, "descriptors are free again");
}

/// How many connections there may be at a time; 0 is no limit.
#[derive(Clone, Copy)]
struct AtMost {
    on_listener: usize,
    of_address: usize,
}

impl AtMost {
    fn of(snapshots: &ArcSwap<Snapshot>) -> Self {
        let snapshot = snapshots.load();
        let plan = &snapshot.serving.plan;
        Self {
            on_listener: plan.listener_connections_max,
            of_address: plan.address_connections_max,
        }
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

/// Binds a listener, or adopts the socket that a predecessor has left.
pub(crate) fn bind(listen: &Listen, inherited: Option<RawFd>) -> Result<Bound, BindError> {
    let failed = |source| BindError {
        address: listen.address,
        source,
    };
    let socket = match inherited {
        Some(fd) => adopt(fd),
        None => open(listen).map_err(failed)?,
    };
    socket.set_nonblocking(true).map_err(failed)?;
    // Connections inherit it, which saves a call for each. What is written is written whole: waiting for more to come
    // would only delay it.
    socket.set_tcp_nodelay(true).map_err(failed)?;
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
