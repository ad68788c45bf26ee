//! One request and its response, as plugins see them.
//!
//! The engine makes an [`Exchange`] for every request and drives it through the phases of [`crate::runtime::contract`].
//! It names no session and no socket, so a test can build one by hand.

use std::any::{Any, TypeId};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method};
use smallvec::SmallVec;

use crate::model::serving::AccessLogFormat;
use crate::runtime::connection::Connection;
use crate::runtime::head::{RequestHead, ResponseHead};
use crate::runtime::matched::{Captures, MatchedPath};
use crate::runtime::message::MessageLimits;
use crate::runtime::pipeline::Instance;
use crate::runtime::snapshot::{Credential, Forward, Principal, Route, Snapshot};
use crate::runtime::titled::TitledName;
use crate::runtime::told::{FieldName, FieldSet, RequestFields, ResponseFields};

/// A request, what is known of it, and what has been decided.
pub struct Exchange {
    /// The configuration that serves this request from first to last byte.
    pub snapshot: Arc<Snapshot>,
    pub connection: Arc<Connection>,
    pub request_id: RequestId,
    pub started: Instant,
    /// The client's address; behind a trusted proxy the one that it reported.
    pub client_address: IpAddr,
    /// Does the client speak TLS, as far as forwarding headers are believed?
    pub secure: bool,
    /// Is the client's protocol HTTP/2?
    pub http2: bool,
    /// The request's head as it will go upstream. Header edits are made here; for method, path, query and host see
    /// [`Exchange::edits`], because this head's own stay what the client sent.
    pub request: RequestHead,
    pub request_body: RequestBody,
    /// The normalised path when it differs from the path as sent.
    pub normal_path: Option<Box<[u8]>>,
    pub route: Option<Arc<Route>>,
    /// Where a step leads the request instead of where its route does.
    pub chosen_forward: Option<Arc<Forward>>,
    /// What becomes of the upstream's response body.
    pub response_holding: ResponseHolding,
    /// Are the messages of the tunnel that is asked for read by the gateway? Decided by the route.
    pub reads_messages: bool,
    /// Longest messages, where they are read.
    pub message_limits: MessageLimits,
    /// How the route's path condition matched.
    pub matched: MatchedPath,
    pub identity: Identity,
    /// Instances chosen so far, in order; later phases run these.
    pub chosen: SmallVec<[Arc<Instance>; 8]>,
    /// What goes upstream instead of what the client sent.
    pub edits: Option<Box<UpstreamEdits>>,
    /// The request target as sent upstream, for log entries.
    pub upstream_target: Option<Box<[u8]>>,
    /// The response's head after it was sent, for logging.
    pub response: Option<ResponseHead>,
    pub response_source: ResponseSource,
    /// Final status sent to the client; 0 before that, 499 when the client left.
    pub status: u16,
    /// Status that the upstream sent; 0 when it sent none.
    pub upstream_status: u16,
    /// Fields that go upstream instead of what the client sent under their names, see [`Exchange::tell_upstream`].
    pub request_fields: RequestFields,
    /// Headers added to the response, whoever makes it, before header_filter runs.
    pub response_fields: ResponseFields,
    pub tries: SmallVec<[Try; 1]>,
    pub timing: Timing,
    /// Bytes on the wire, heads included.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Further members of the log entry.
    pub notes: SmallVec<[(&'static str, serde_json::Value); 1]>,
    /// A plugin is going to change the body's length.
    body_length_changes: bool,
    stash: SmallVec<[(TypeId, Box<dyn Any + Send + Sync>); 1]>,
}

/// Where the request body is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    #[default]
    Absent,
    /// Still with the client; `length` when it announced one.
    Streaming { length: Option<u64> },
    /// Held whole.
    Held(Bytes),
}

/// What becomes of the upstream's response body before it is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseHolding {
    /// Held when an instance chosen takes part in the phase for whole messages.
    #[default]
    AsPlanned,
    /// Passed on as it comes, whoever takes part.
    Never,
    /// As planned, with a limit of its own, in bytes.
    UpTo(usize),
}

/// Who made the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseSource {
    #[default]
    None,
    Upstream,
    Gateway,
}

/// Who calls, as far as plugins have found out.
#[derive(Clone, Default)]
pub struct Identity {
    pub principal: Option<Arc<Principal>>,
    pub credential: Option<Arc<Credential>>,
    /// Groups that an authentication plugin vouched for.
    pub groups: SmallVec<[Arc<str>; 2]>,
}

/// What goes upstream instead of what the client sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamEdits {
    pub method: Option<Method>,
    /// Path in normal form; it is percent-encoded when written.
    pub path: Option<Vec<u8>>,
    /// Query without `?`; empty removes it.
    pub query: Option<Vec<u8>>,
    /// Path and query exactly as they are to be written; `path` and `query` do not count then.
    pub target: Option<Vec<u8>>,
    pub host: Option<HeaderValue>,
    /// The request's fields go upstream as they stand: what belongs to the connection is dropped, nothing is added.
    pub fields_as_given: bool,
    /// How long the connection is kept without a request, instead of what the settings say.
    pub idle: Option<Duration>,
}

/// One attempt at an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    pub address: SocketAddr,
    /// Since the request's start.
    pub began: Duration,
    /// Time to choose the endpoint.
    pub choosing: Duration,
    /// Set when this attempt was given up for another one.
    pub failed: Option<TryFailure>,
}

/// Why an attempt was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryFailure {
    /// The status it would have led to.
    pub code: u16,
}

/// Points in time, as far as reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// The upstream was chosen and the request is about to be sent.
    pub forwarded: Option<Instant>,
    /// The response's head has arrived, or the local response was made.
    pub answered: Option<Instant>,
    /// The last byte was sent.
    pub ended: Option<Instant>,
}

/// 128 random bits as 32 lower-case hex digits. They are chosen when somebody asks for them first: many requests pass
/// without that.
#[derive(Default)]
pub struct RequestId(OnceLock<[u8; 32]>);

impl RequestId {
    /// One that is chosen already.
    pub fn from_bits(bits: u128) -> Self {
        Self(OnceLock::from(Self::digits(bits)))
    }

    fn digits(bits: u128) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'0'; 32];
        let bytes = bits.to_be_bytes();
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
            if let [high, low] = pair {
                *high = DIGITS[usize::from(byte >> 4)];
                *low = DIGITS[usize::from(byte & 15)];
            }
        }
        text
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.get_or_init(|| Self::digits(rand::random()))
    }

    pub fn as_str(&self) -> &str {
        // Only hex digits are ever stored.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// The same one: it is chosen by now.
impl Clone for RequestId {
    fn clone(&self) -> Self {
        Self(OnceLock::from(*self.as_bytes()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Exchange {
    /// An exchange at its start. `client_address` begins as the connection's peer.
    pub fn new(
        snapshot: Arc<Snapshot>,
        connection: Arc<Connection>,
        request: RequestHead,
        started: Instant,
    ) -> Self {
        connection.requests.fetch_add(1, Ordering::Relaxed);
        let client_address = connection.peer.ip();
        let secure = connection.is_tls();
        let http2 = request.version() == http::Version::HTTP_2;
        Self {
            snapshot,
            connection,
            request_id: RequestId::default(),
            started,
            client_address,
            secure,
            http2,
            request,
            request_body: RequestBody::Absent,
            normal_path: None,
            route: None,
            chosen_forward: None,
            response_holding: ResponseHolding::default(),
            reads_messages: false,
            message_limits: MessageLimits::default(),
            matched: MatchedPath::default(),
            identity: Identity::default(),
            chosen: SmallVec::new(),
            edits: None,
            upstream_target: None,
            response: None,
            response_source: ResponseSource::None,
            status: 0,
            upstream_status: 0,
            request_fields: RequestFields::default(),
            response_fields: ResponseFields::default(),
            tries: SmallVec::new(),
            timing: Timing::default(),
            request_bytes: 0,
            response_bytes: 0,
            notes: SmallVec::new(),
            body_length_changes: false,
            stash: SmallVec::new(),
        }
    }

    /// Tells the upstream something in a header field, instead of what the client sent under that name; `None` sends nothing.
    ///
    /// The field has a place in the head only where something of this route may look at the head again.
    pub fn tell_upstream(&mut self, name: impl Into<FieldName>, value: Option<HeaderValue>) {
        let name = name.into();
        match name.is_asked_for() || self.is_head_looked_at() {
            true => self.put_in_head(&name, value),
            false => self.request_fields.tell(name, value),
        }
    }

    /// The same for each field of a set.
    pub fn tell_upstream_set(&mut self, set: &Arc<FieldSet>) {
        if self.is_head_looked_at() {
            for field in set.iter() {
                self.put_in_head(&field.name, field.value.clone());
            }
        } else {
            self.request_fields.tell_set(set);
        }
    }

    /// May something of this route look at the request's head again?
    fn is_head_looked_at(&self) -> bool {
        match &self.route {
            Some(route) => {
                route.pipeline.needs.request_head
                    || self.snapshot.serving.plan.access_log == AccessLogFormat::Entry
            }
            None => true,
        }
    }

    fn put_in_head(&mut self, name: &TitledName, value: Option<HeaderValue>) {
        match value {
            // Fails only for a map of more than 32,768 names, which the engine's limits do not let in.
            Some(value) => drop(self.request.insert_header(name.title.clone(), value)),
            None => drop(self.request.remove_header(&name.name)),
        }
    }

    /// The request target as sent: path, and query if any. An absolute-form target is reduced to these.
    pub fn target(&self) -> &[u8] {
        let raw = self.request.raw_path();
        match raw.first() {
            Some(b'/') | None => raw,
            Some(_) => {
                // Absolute form: cut `scheme://authority`.
                let after_scheme = memchr::memmem::find(raw, b"://")
                    .map_or(raw, |at| raw.get(at + 3..).unwrap_or_default());
                match after_scheme.iter().position(|b| matches!(b, b'/' | b'?')) {
                    Some(at) => after_scheme.get(at..).unwrap_or_default(),
                    None => b"/",
                }
            }
        }
    }

    /// The path as sent, without query.
    pub fn raw_path(&self) -> &[u8] {
        self.path_and_query().0
    }

    /// The query as sent, without `?`; `None` without a question mark.
    pub fn query(&self) -> Option<&[u8]> {
        self.path_and_query().1
    }

    fn path_and_query(&self) -> (&[u8], Option<&[u8]>) {
        if let Some(parts) = self.request.plain_target() {
            return parts;
        }
        let target = self.target();
        match memchr::memchr(b'?', target) {
            Some(at) => {
                let (path, rest) = target.split_at(at);
                (path, rest.get(1..))
            }
            None => (target, None),
        }
    }

    /// The path in normal form: what routes match.
    pub fn path(&self) -> &[u8] {
        self.normal_path
            .as_deref()
            .unwrap_or_else(|| self.raw_path())
    }

    /// The query that goes upstream at present: edited, or as sent.
    pub fn upstream_query(&self) -> Option<&[u8]> {
        match self.edits.as_ref().and_then(|edits| edits.query.as_deref()) {
            Some([]) => None,
            Some(query) => Some(query),
            None => self.query(),
        }
    }

    /// The host asked for, as sent: the Host header or the `:authority`.
    pub fn host(&self) -> &str {
        std::str::from_utf8(self.raw_host()).unwrap_or_default()
    }

    /// The same, for those who pass it on.
    pub fn raw_host(&self) -> &[u8] {
        self.request.host().unwrap_or_default()
    }

    /// Where the request goes: where a step chose, or where the matched route leads.
    pub fn forward(&self) -> Option<&Arc<Forward>> {
        match &self.chosen_forward {
            Some(forward) => Some(forward),
            None => self.route.as_ref()?.forward.as_ref(),
        }
    }

    /// Edits of method, path, query and host; made on first use.
    pub fn edits_mut(&mut self) -> &mut UpstreamEdits {
        self.edits.get_or_insert_with(Box::default)
    }

    /// Groups captured by the route's regular expression; empty when it has none. Computed at each call.
    pub fn captures(&self) -> Captures {
        self.matched.captures(self.path())
    }

    /// Declares that the body to be sent will not have the length the head announces.
    pub fn body_length_changes(&mut self) {
        self.body_length_changes = true;
    }

    /// Did a plugin declare so?
    pub fn is_body_length_changing(&self) -> bool {
        self.body_length_changes
    }

    /// Keeps a plugin's own state for its later phases; one value per type.
    pub fn stash<T: Any + Send + Sync>(&mut self, value: T) {
        let key = TypeId::of::<T>();
        match self.stash.iter_mut().find(|(kind, _)| *kind == key) {
            Some((_, slot)) => *slot = Box::new(value),
            None => self.stash.push((key, Box::new(value))),
        }
    }

    /// What was stashed under this type.
    pub fn stashed<T: Any + Send + Sync>(&self) -> Option<&T> {
        let key = TypeId::of::<T>();
        self.stash
            .iter()
            .find(|(kind, _)| *kind == key)
            .and_then(|(_, value)| value.downcast_ref())
    }

    /// What was stashed under this type, to change it.
    pub fn stashed_mut<T: Any + Send + Sync>(&mut self) -> Option<&mut T> {
        let key = TypeId::of::<T>();
        self.stash
            .iter_mut()
            .find(|(kind, _)| *kind == key)
            .and_then(|(_, value)| value.downcast_mut())
    }

    /// Milliseconds between the request's start and `at`.
    pub fn milliseconds_until(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}
