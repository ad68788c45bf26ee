//! Who is at the other end of a mutual TLS connection, and the one who says what it may do.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::Refusal;
use crate::runtime::head::RequestHead;

/// What a leaf certificate says about its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerNames {
    /// The URIs among its alternative names, in order.
    pub uris: Vec<String>,
    /// The serial number as pairs of lower-case hex digits between colons.
    pub serial: String,
}

/// Somebody whose certificate was accepted.
#[derive(Clone)]
pub struct Peer {
    /// The identity as the certificate has it.
    pub uri: Arc<str>,
    /// Its short name, for applications, logs and principals.
    pub name: Arc<str>,
    pub serial: Arc<str>,
    /// What the judge made of the identity, for the authority that belongs to it.
    pub subject: Arc<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// Tells whom a certificate with a good chain speaks for. Asked within the handshake, so it must not wait.
pub trait PeerJudge: Send + Sync {
    fn judge(&self, names: &PeerNames) -> Result<Peer, Refusal>;
}

/// May a connection be served?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Somebody who knows has said no.
    Deny {
        reason: Arc<str>,
    },
    /// Nobody could be asked. Counts as no.
    Unknown {
        reason: Arc<str>,
    },
}

/// May a connection that is open stay so?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Review {
    Keep,
    Cut { reason: Arc<str> },
}

/// May a request be served?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Yes, with this target instead of its own if there is one.
    Allow { target: Option<String> },
    /// No: 403.
    Deny { reason: Arc<str> },
    /// It cannot be judged as it is written: 400.
    Malformed { reason: Arc<str> },
}

/// Somewhere to connect to, and whom to expect there.
#[derive(Clone)]
pub struct DialTarget {
    /// Host name, IPv4 or IPv6 address without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// Sent, not compared.
    pub server_name: Option<Arc<str>>,
    pub judge: Arc<dyn PeerJudge>,
    /// For resolution, connection and handshake together.
    pub connect_timeout: Duration,
}

/// Knows where connections of one upstream lead at this moment.
pub trait Dialer: Send + Sync {
    /// At most so many places in the order in which they are to be tried; the error says why there is none.
    fn targets(&self, most: usize) -> Result<Vec<DialTarget>, String>;

    /// The protocol that is named by ALPN.
    fn offer(&self) -> super::Offer;

    /// What came of a try to connect to one of the targets.
    fn report(&self, target: &DialTarget, connected: bool);
}

/// Says what callers may do on one listener.
#[async_trait]
pub trait PeerAuthority: Send + Sync {
    /// May this caller connect? Asked once for each connection that carries no requests, before any byte of it reaches
    /// the application.
    async fn authorize(&self, peer: &Peer) -> Verdict;

    /// May this connection, which was allowed once, go on? A question that cannot be answered is no reason to cut it.
    async fn review(&self, peer: &Peer) -> Review;

    /// May this caller make this request? Asked for each request on connections that carry some; must not wait.
    fn admit(&self, peer: &Peer, request: &RequestHead) -> Admission;

    /// Changes whenever open connections are to be reviewed.
    fn changes(&self) -> watch::Receiver<u64>;
}
