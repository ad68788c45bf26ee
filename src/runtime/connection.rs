//! What is known of one client connection, for all its requests.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::mutual::{Peer, PeerAuthority};
use crate::runtime::snapshot::{Principal, Snapshot};

/// Facts of a client connection. Made when it is accepted, shared by its requests.
#[derive(Debug)]
pub struct Connection {
    /// The number of this connection in the process, from 1.
    pub serial: u64,
    /// Requests that began on it.
    pub requests: AtomicU64,
    /// The other end of the TCP connection (or what a PROXY header said).
    pub peer: SocketAddr,
    /// The peer's IP address as text, for headers and logs.
    pub peer_text: Box<str>,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The listening port as the world sees it (after the port map).
    pub port: u16,
    /// The same as text.
    pub port_text: Box<str>,
    /// Is `peer` among the trusted addresses? Decided once, with the settings at accept time.
    pub trusted: bool,
    /// Set when the TLS handshake is done; empty on plain connections.
    pub tls: OnceLock<TlsFacts>,
    /// Set on listeners where callers show certificates, before the first request.
    pub caller: OnceLock<Caller>,
    /// Set on listeners with routes of their own, before the first request.
    pub entrance: OnceLock<Arc<str>>,
}

/// Who calls, and who says what it may do.
pub struct Caller {
    pub peer: Arc<Peer>,
    pub authority: Arc<dyn PeerAuthority>,
    /// The principal whose custom id is the peer's name, as of one revision.
    principal: ArcSwapOption<(u64, Option<Arc<Principal>>)>,
}

impl Caller {
    pub fn new(peer: Arc<Peer>, authority: Arc<dyn PeerAuthority>) -> Self {
        Self {
            peer,
            authority,
            principal: ArcSwapOption::empty(),
        }
    }

    /// The principal that the caller is, looked for once in each revision.
    pub fn principal(&self, snapshot: &Snapshot) -> Option<Arc<Principal>> {
        if let Some(known) = self.principal.load().as_deref()
            && known.0 == snapshot.revision
        {
            return known.1.clone();
        }
        let name = &*self.peer.name;
        let found = snapshot
            .directory
            .principal_where(|principal| principal.plan.custom_id.as_deref() == Some(name))
            .cloned();
        let known = (snapshot.revision, found.clone());
        self.principal.store(Some(Arc::new(known)));
        found
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.peer.fmt(f)
    }
}

/// What the TLS handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// Server name from the ClientHello, lower-case.
    pub server_name: Option<Box<str>>,
    pub version: &'static str,
    pub cipher: &'static str,
    /// What the client showed, if it was asked for and showed something. The client holds its key; nothing else has been
    /// verified.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

impl Connection {
    /// A connection whose TLS handshake, if any, is still to come.
    pub fn new(peer: SocketAddr, local: SocketAddr, port: u16, trusted: bool) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            requests: AtomicU64::new(0),
            peer,
            peer_text: peer.ip().to_string().into(),
            local,
            port,
            port_text: port.to_string().into(),
            trusted,
            tls: OnceLock::new(),
            caller: OnceLock::new(),
            entrance: OnceLock::new(),
        }
    }

    pub fn server_name(&self) -> Option<&str> {
        self.tls.get()?.server_name.as_deref()
    }

    pub fn is_tls(&self) -> bool {
        self.tls.get().is_some()
    }
}
