//! Answers that the gateway makes itself: faults, and complete local responses.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

/// Headers of a gateway-made answer.
pub type LocalHeaders = SmallVec<[(HeaderName, HeaderValue); 4]>;

/// A complete response made by the gateway or one of its plugins.
#[derive(Debug, Clone)]
pub struct LocalResponse {
    pub status: StatusCode,
    pub headers: LocalHeaders,
    pub body: Bytes,
}

impl LocalResponse {
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: LocalHeaders::new(),
            body: Bytes::new(),
        }
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// Why an exchange cannot go on. The dialect's [`crate::runtime::contract::Renderer`] turns it into a response.
#[derive(Debug, Clone)]
pub struct Fault {
    pub status: StatusCode,
    pub blame: Blame,
    pub shape: FaultShape,
    /// Text for the client; `None` is the status' usual text.
    pub message: Option<Cow<'static, str>>,
    /// Headers to send along, e.g. `WWW-Authenticate`.
    pub headers: LocalHeaders,
    /// For the log only, never for the client.
    pub cause: Option<String>,
    /// What went wrong, for instances that shape answers to faults themselves.
    pub kind: FaultKind,
}

/// What went wrong, as far as the engine can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FaultKind {
    /// Nothing of the below; the status and the text say it all.
    #[default]
    Other,
    /// No endpoint may be used, or the name has no addresses.
    NoEndpoint,
    /// The upstream could not be connected to.
    Connect,
    /// The TLS handshake with the upstream failed, or it is not whom the forward demands.
    TlsHandshake,
    /// The upstream stayed silent for too long.
    UpstreamTimeout,
    /// The upstream closed the connection before its response was complete.
    UpstreamClosed,
    /// The upstream's response cannot be understood.
    UpstreamMalformed,
    /// The request's body is longer than may be held or forwarded.
    RequestTooLarge,
    /// The response's body is longer than may be held.
    ResponseTooLarge,
}

/// Why no endpoint can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoEndpoint {
    /// The cluster has none that may be used.
    NoneUsable,
    /// The name does not exist, or has no addresses.
    NameNotFound,
    /// The name could not be asked for.
    Resolver(String),
    /// Whoever keeps the addresses has none, for this reason.
    Unlisted(String),
    /// As many exchanges as allowed are in progress.
    TooMany(u32),
}

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Client,
    Gateway,
    Upstream,
}

/// Which of a dialect's error shapes applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultShape {
    /// Routing and plugins: negotiated by `Accept`.
    Negotiated,
    /// The HTTP layer's own failures (bad request, upstream down): negotiated, with another default type.
    Transport,
    /// A compact message object.
    Plain,
}

impl Fault {
    /// A fault of routing or of a plugin, with its text for the client.
    pub fn refuse(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        let blame = if status.is_server_error() {
            Blame::Gateway
        } else {
            Blame::Client
        };
        Self {
            status,
            blame,
            shape: FaultShape::Negotiated,
            message: Some(message.into()),
            headers: LocalHeaders::new(),
            cause: None,
            kind: FaultKind::Other,
        }
    }

    /// A failure of the HTTP layer: the status says all that the client may know.
    #[cold]
    pub fn transport(status: StatusCode, blame: Blame, cause: impl Into<String>) -> Self {
        Self {
            status,
            blame,
            shape: FaultShape::Transport,
            message: None,
            headers: LocalHeaders::new(),
            cause: Some(cause.into()),
            kind: FaultKind::Other,
        }
    }

    /// A compact message object, without negotiation.
    pub fn plain(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            shape: FaultShape::Plain,
            ..Self::refuse(status, message)
        }
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Says what went wrong.
    pub fn kind(mut self, kind: FaultKind) -> Self {
        self.kind = kind;
        self
    }
}
