//! One connection that is proxied as a stream of bytes, as plugins see it.
//!
//! The engine makes a [`Session`] for every connection of a stream listener, and for those of others that pass through
//! unopened. It names no socket, so a test can build one by hand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use smallvec::SmallVec;

use crate::runtime::connection::Connection;
use crate::runtime::contract::Renderer;
use crate::runtime::exchange::{Identity, Try};
use crate::runtime::pipeline::Instance;
use crate::runtime::serving::Serving;
use crate::runtime::snapshot::{Forward, Route, Snapshot};

/// A stream, what is known of it, and what has been decided.
pub struct Session {
    /// The settings that serve this stream. Not the whole snapshot: a stream may live for days, and what it does not
    /// use shall not live with it.
    pub serving: Arc<Serving>,
    pub renderer: Arc<dyn Renderer>,
    pub connection: Arc<Connection>,
    pub started: Instant,
    /// The client's address; behind a trusted proxy the one that its PROXY header named.
    pub client_address: IpAddr,
    /// The server name that the client asked for, whether its TLS ends here or not. Lower-case.
    pub server_name: Option<Box<str>>,
    pub route: Option<Arc<Route>>,
    /// Who calls, as far as plugins have found out.
    pub identity: Identity,
    /// Instances chosen, in order; the log phase runs these.
    pub chosen: SmallVec<[Arc<Instance>; 4]>,
    /// How it ended: 200, or why it could not be carried to its end.
    pub status: StatusCode,
    pub tries: SmallVec<[Try; 1]>,
    /// An endpoint was chosen for the first time.
    pub forwarded: Option<Instant>,
    /// The connection to the endpoint was there.
    pub connected: Option<Instant>,
    /// Both sides were closed.
    pub ended: Option<Instant>,
    /// Bytes from the client, without those of TLS that ends here.
    pub received: u64,
    /// Bytes to the client, without those of TLS that ends here.
    pub sent: u64,
    /// Further members of the log entry.
    pub notes: SmallVec<[(&'static str, serde_json::Value); 1]>,
}

/// What a step before the first byte decided.
#[derive(Debug)]
pub enum Verdict {
    Continue,
    /// Close the connection. The client sees no reason; the log does.
    Close(Closing),
}

/// Why a stream is closed before its first byte went anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// For log entries: 400, 403, 500, 502 or 503 where the reason is the gateway's own.
    pub status: StatusCode,
    /// For the log only.
    pub cause: String,
}

impl Closing {
    pub fn new(status: StatusCode, cause: impl Into<String>) -> Self {
        Self {
            status,
            cause: cause.into(),
        }
    }
}

impl Session {
    /// A stream at its start.
    pub fn new(snapshot: &Snapshot, connection: Arc<Connection>, started: Instant) -> Self {
        Self {
            client_address: connection.peer.ip(),
            server_name: None,
            serving: Arc::clone(&snapshot.serving),
            renderer: Arc::clone(&snapshot.renderer),
            connection,
            started,
            route: None,
            identity: Identity::default(),
            chosen: SmallVec::new(),
            status: StatusCode::OK,
            tries: SmallVec::new(),
            forwarded: None,
            connected: None,
            ended: None,
            received: 0,
            sent: 0,
            notes: SmallVec::new(),
        }
    }

    /// Where the matched route leads.
    pub fn forward(&self) -> Option<&Arc<Forward>> {
        self.route.as_ref()?.forward.as_ref()
    }

    /// Milliseconds between the start and `at`.
    pub fn milliseconds_until(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}
