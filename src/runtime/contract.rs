//! The contract between engine and plugins: phases, needs, verdicts, and the table that lists plugins.
//!
//! ```text
//! client ──▶ rewrite ──▶ route ──▶ access ──▶ balance ──▶ upstream
//!            (global     (checks)  (sync, then            │
//!             instances)            async part)           ▼
//! client ◀── log ◀── body_filter ◀── header_filter ◀── message
//!            (after   (per chunk,     (head; also for   (whole response,
//!             the end) sync)           local answers)    only if held)
//! ```
//!
//! Streams, which are not looked into, have two phases of their own:
//!
//! ```text
//! client ──▶ route ──▶ preread ──▶ balance ──▶ bytes both ways ──▶ log_session
//! ```
//!
//! An instance is chosen when its step is reached in access, so an identity found by an earlier step decides later
//! ones; later phases run exactly the instances chosen. If access ends early the remaining instances are still chosen,
//! and run in header_filter, body_filter and log.
//!
//! Where a route reads the messages of its tunnels (WebSocket), `handshake` follows access; then each message passes
//! `client_message` or `upstream_message`, and `tunnel_ended` comes before log. Only instances whose protocols say so
//! are chosen there.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_http::ResponseHeader;

use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::runtime::certificate_requests::CertificateRequest;
use crate::runtime::client::Client;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::{Fault, LocalResponse, NoEndpoint};
use crate::runtime::head::ResponseHead;
use crate::runtime::live::Live;
use crate::runtime::message::{Message, MessageVerdict, TunnelEnd};
use crate::runtime::resolver::Resolver;
use crate::runtime::serving::Serving;
use crate::runtime::session::{Session, Verdict};

/// The phases in which a plugin takes part; absent phases cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases(u32);

impl Phases {
    pub const NONE: Self = Self(0);
    /// Before routing; only global instances.
    pub const REWRITE: Self = Self(1);
    /// After routing, before the upstream: [`Plugin::access`].
    pub const ACCESS: Self = Self(1 << 1);
    /// As `ACCESS`, after it, for what must wait: [`Plugin::access_async`].
    pub const ACCESS_ASYNC: Self = Self(1 << 2);
    /// The whole response, held up to a limit, before its head is sent: [`Plugin::message`].
    pub const MESSAGE: Self = Self(1 << 3);
    /// The response's head: [`Plugin::header_filter`].
    pub const HEADER_FILTER: Self = Self(1 << 4);
    /// Each piece of the response's body: [`Plugin::body_filter`].
    pub const BODY_FILTER: Self = Self(1 << 5);
    /// After the exchange has ended: [`Plugin::log`].
    pub const LOG: Self = Self(1 << 6);
    /// The response's head, for what must wait, before its body is passed on: [`Plugin::response_head`].
    pub const RESPONSE_HEAD: Self = Self(1 << 7);
    /// Answers to faults that the gateway ran into by itself: [`Plugin::fault`].
    pub const FAULT: Self = Self(1 << 8);
    /// Only where a tunnel of messages is asked for, after access: [`Plugin::handshake`].
    pub const HANDSHAKE: Self = Self(1 << 9);
    /// Each message from the client in a tunnel: [`Plugin::client_message`].
    pub const CLIENT_MESSAGE: Self = Self(1 << 10);
    /// Each message from the upstream in a tunnel: [`Plugin::upstream_message`].
    pub const UPSTREAM_MESSAGE: Self = Self(1 << 11);
    /// After a tunnel of messages has ended: [`Plugin::tunnel_ended`].
    pub const TUNNEL_END: Self = Self(1 << 12);
    /// Each piece of the request's body on its way to the upstream: [`Plugin::request_body`].
    pub const REQUEST_BODY: Self = Self(1 << 13);
    /// What an upstream says behind its response's body: [`Plugin::trailers`].
    pub const TRAILERS: Self = Self(1 << 14);
    /// Before the first byte of a stream goes anywhere: [`Plugin::preread`].
    pub const PREREAD: Self = Self(1 << 15);
    /// After a stream has ended: [`Plugin::log_session`].
    pub const LOG_SESSION: Self = Self(1 << 16);

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a plugin needs; `link` folds the needs of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The whole request body, held up to the limit, before [`Plugin::access`].
    pub request_body: bool,
    /// The request's head with the fields in which other plugins tell who calls: to look at them, to change or to log them.
    /// Where no plugin of a route has this need, such fields are written to the upstream only, which costs much less than
    /// a place in the head.
    pub request_head: bool,
}

impl Needs {
    /// Of the request's fields only those that clients send, or nothing at all.
    pub const NOTHING: Self = Self {
        request_body: false,
        request_head: false,
    };
    /// The head as the upstream is going to get it.
    pub const HEAD: Self = Self {
        request_body: false,
        request_head: true,
    };
}

/// What a step decided.
#[derive(Debug)]
pub enum Flow {
    Continue,
    /// Answer with this and go to the response phases.
    Respond(Box<LocalResponse>),
    /// Answer with the dialect's rendering of this.
    Fault(Box<Fault>),
}

impl Flow {
    pub fn fault(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

/// A configured plugin instance. Holds configuration only: state of a request lives in the [`Exchange`], state that
/// outlives a configuration in [`Live`].
#[async_trait]
pub trait Plugin: Send + Sync {
    /// The phases this instance takes part in; asked once, when it is linked.
    fn phases(&self) -> Phases;

    /// What it needs; asked once, when it is linked. Unless it says otherwise the head, which is always right.
    fn needs(&self) -> Needs {
        Needs::HEAD
    }

    /// Another limit than the usual one for a held request body, in bytes; asked when it is to be held.
    fn request_body_bytes_max(&self) -> Option<u64> {
        None
    }

    /// Before routing. May change the request; only global instances run.
    fn rewrite(&self, _exchange: &mut Exchange) -> Flow {
        Flow::Continue
    }

    /// What it wants of clients before their requests are known: a certificate. Asked once, when it is linked.
    fn certificate_request(&self) -> Option<CertificateRequest> {
        None
    }

    /// After routing: authenticate, limit, change the request. Must not block.
    fn access(&self, _exchange: &mut Exchange) -> Flow {
        Flow::Continue
    }

    /// As [`Plugin::access`], for what has to wait for something.
    async fn access_async(&self, _exchange: &mut Exchange) -> Flow {
        Flow::Continue
    }

    /// A tunnel of messages is asked for (a WebSocket, on a route whose messages are read): set limits, or refuse.
    fn handshake(&self, _exchange: &mut Exchange) -> Flow {
        Flow::Continue
    }

    /// A whole message from the client, before it goes on. It may be changed, but for its kind. Must not block.
    fn client_message(&self, _exchange: &mut Exchange, _message: &mut Message) -> MessageVerdict {
        MessageVerdict::Pass
    }

    /// A whole message from the upstream, before it goes on. It may be changed, but for its kind. Must not block.
    fn upstream_message(&self, _exchange: &mut Exchange, _message: &mut Message) -> MessageVerdict {
        MessageVerdict::Pass
    }

    /// A tunnel of messages has ended; before [`Plugin::log`].
    fn tunnel_ended(&self, _exchange: &mut Exchange, _end: &TunnelEnd) {}

    /// A piece of the request's body on its way to the upstream. `end` marks the last call, whose piece may be empty; a
    /// request without a body is one call. To hold data back take it and leave an empty piece.
    fn request_body(
        &self,
        _exchange: &mut Exchange,
        _piece: &mut Bytes,
        _end: bool,
    ) -> Result<(), Box<Fault>> {
        Ok(())
    }

    /// What the upstream says behind its response's body, before the last call of [`Plugin::body_filter`]. Fields left
    /// here reach clients that know trailers, unless that last call adds to the body.
    fn trailers(&self, _exchange: &mut Exchange, _trailers: &mut HeaderMap) {}

    /// The whole response is held: head and body. Either may be replaced.
    async fn message(
        &self,
        _exchange: &mut Exchange,
        _head: &mut ResponseHead,
        _body: &mut Bytes,
    ) -> Flow {
        Flow::Continue
    }

    /// The head of an upstream's response, before anything of it is sent; its body streams or is held as
    /// [`Exchange::response_holding`] says. With `Respond` the answer stands instead of the upstream's response.
    async fn response_head(&self, _exchange: &mut Exchange, _head: &mut ResponseHead) -> Flow {
        Flow::Continue
    }

    /// The gateway ran into a fault by itself: the upstream cannot be reached, stays silent, a body is too long. Gives
    /// the answer, or `None` to leave it to the dialect's renderer. Called once, and for no answer that a plugin gave.
    async fn fault(&self, _exchange: &mut Exchange, _fault: &Fault) -> Option<LocalResponse> {
        None
    }

    /// The response's head, from the upstream or from the gateway, before it is sent. A plugin that will change the
    /// body's length calls [`Exchange::body_length_changes`] here.
    fn header_filter(&self, _exchange: &mut Exchange, _head: &mut ResponseHeader) {}

    /// A piece of the response's body. `end` marks the last call, whose piece may be empty. To hold data back take it
    /// and leave an empty piece.
    fn body_filter(&self, _exchange: &mut Exchange, _piece: &mut Bytes, _end: bool) {}

    /// The exchange is over; nothing can be changed any more. Must not block: hand work to a queue.
    fn log(&self, _exchange: &Exchange) {}

    /// A stream was routed, and its TLS accepted if it ends here; nothing has been read of what it carries.
    async fn preread(&self, _session: &mut Session) -> Verdict {
        Verdict::Continue
    }

    /// A stream is over, whether it was ever carried or not. Must not block: hand work to a queue.
    fn log_session(&self, _session: &Session) {}
}

/// What a plugin may use while it is linked.
pub struct LinkContext<'a> {
    pub live: &'a Arc<Live>,
    /// Resolves names of upstreams that only requests bring to light.
    pub resolver: &'a Arc<Resolver>,
    /// What holds for every request at the time of linking: trust in upstreams, limits.
    pub serving: &'a Arc<Serving>,
    /// Folder for relative paths in configurations, when the operator named one.
    pub prefix: &'a std::path::Path,
    /// For requests of the plugin's own.
    pub client: &'a Arc<Client>,
}

/// Builds an instance from its plan; the error text says which field and what is allowed.
pub type LinkPlugin = fn(&Arc<InstancePlan>, &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String>;

/// One line of the plugin table.
pub struct PluginEntry {
    pub info: PluginInfo,
    pub link: LinkPlugin,
}

/// Why a request's protocol does not fit the route that it matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolProblem {
    /// Plain text on a route that accepts only TLS; answered with this status, 426 or a redirect.
    NeedsTls { status: u16 },
    /// Not gRPC's media type on a gRPC route.
    NotGrpc,
    /// HTTP/1.x on a gRPC route.
    NeedsHttp2,
    /// Plain text on a route that accepts only gRPC over TLS.
    GrpcNeedsTls,
    /// No WebSocket handshake on a route that takes nothing else.
    NeedsWebSocket,
    /// A WebSocket handshake of a version that is not spoken; the answer names the one that is.
    WebSocketVersion,
}

/// Turns faults into responses and exchanges into log entries, in a dialect's shapes.
pub trait Renderer: Send + Sync {
    /// The response for a fault. Must not fail.
    fn fault(&self, fault: &Fault, exchange: &Exchange) -> LocalResponse;

    /// The fault for a request that matched no route.
    fn unrouted(&self, exchange: &Exchange) -> Fault;

    /// The fault for a request whose route leads nowhere.
    fn unforwarded(&self, exchange: &Exchange) -> Fault;

    /// The response to a request whose protocol its route does not accept.
    fn wrong_protocol(&self, problem: &ProtocolProblem, exchange: &Exchange) -> LocalResponse;

    /// The fault when no endpoint can be chosen.
    fn no_endpoint(&self, reason: &NoEndpoint) -> Fault;

    /// One access log line in the dialect's form, appended without line end.
    fn log_entry(&self, exchange: &Exchange, into: &mut Vec<u8>);

    /// The same for a stream.
    fn session_entry(&self, session: &Session, into: &mut Vec<u8>);
}
