//! The request as it goes upstream: what is dropped, what is added. One set of rules, two writers.
//!
//! The exchange driver writes bytes, the duplex driver edits Pingora's header; both walk the same rules, so that a
//! route never behaves differently by driver.

use bytes::BufMut;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderValue, Method};
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use crate::base::token::is_named;
use crate::engine::heads::put_field;
use crate::model::plan::Protocol;
use crate::model::route::port_of;
use crate::runtime::cluster::Picked;
use crate::runtime::exchange::Exchange;
use crate::runtime::head::Fields;
use crate::runtime::path;
use crate::runtime::snapshot::{Forward, Route};
use crate::runtime::titled::TitledName;
use crate::runtime::told::FieldName;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY: HeaderName = HeaderName::from_static("proxy");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How the request's body is framed on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    None,
    Length(u64),
}

/// Where this attempt goes.
pub(crate) struct Destination<'a> {
    pub(crate) route: &'a Route,
    pub(crate) forward: &'a Forward,
    pub(crate) picked: &'a Picked,
}

/// Header names listed in the client's Connection header: they end here.
type Named = SmallVec<[HeaderName; 4]>;

/// Is the request WebSocket's (or nobody's) upgrade? Other upgrades are not forwarded.
pub(crate) fn is_websocket_upgrade(exchange: &Exchange) -> bool {
    let upgrade = exchange.request.fields().get(&UPGRADE);
    upgrade.is_some_and(|value| is_named(value, b"websocket"))
}

/// The name that the upstream is asked for.
pub(crate) fn upstream_host<'a>(
    exchange: &'a Exchange,
    destination: &'a Destination<'_>,
) -> HostSource<'a> {
    if let Some(host) = exchange
        .edits
        .as_ref()
        .and_then(|edits| edits.host.as_ref())
    {
        return HostSource::Value(host);
    }
    if destination.route.plan.preserve_host {
        return HostSource::AsSent(exchange.raw_host());
    }
    HostSource::Value(authority(destination))
}

/// The endpoint's name, with its port unless that is the protocol's own.
fn authority<'a>(destination: &'a Destination<'_>) -> &'a HeaderValue {
    let endpoint = &destination.picked.endpoint;
    let usual = match destination.forward.plan.protocol {
        Protocol::Http | Protocol::Grpc | Protocol::Ws => 80,
        Protocol::Https | Protocol::Grpcs | Protocol::Wss => 443,
        Protocol::Tcp | Protocol::Tls | Protocol::TlsPassthrough | Protocol::Udp => 0,
    };
    if endpoint.port == usual {
        &endpoint.authority
    } else {
        &endpoint.authority_with_port
    }
}

/// A host name as a header value or as the client sent it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HostSource<'a> {
    Value(&'a HeaderValue),
    AsSent(&'a [u8]),
}

impl HostSource<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Value(value) => value.as_bytes(),
            Self::AsSent(bytes) => bytes,
        }
    }
}

/// Appends the path and query that go upstream, percent-encoded.
pub(crate) fn put_upstream_target(
    exchange: &Exchange,
    destination: &Destination<'_>,
    into: &mut Vec<u8>,
) {
    let edits = exchange.edits.as_deref();
    if let Some(target) = edits.and_then(|edits| edits.target.as_deref()) {
        into.extend_from_slice(target);
        return;
    }
    match edits.and_then(|edits| edits.path.as_deref()) {
        Some(path) => path::encode_into(into, path),
        None => {
            let route = &destination.route.plan;
            let parts = path::UpstreamPath {
                base: destination.forward.plan.path.as_bytes(),
                request: exchange.path(),
                matched_length: exchange.matched.length(),
                strip: route.strip_path,
                join: route.path_joining,
            };
            path::write_upstream_path(into, parts);
        }
    }
    if let Some(query) = exchange.upstream_query() {
        into.push(b'?');
        into.extend_from_slice(query);
    }
}

/// Keeps the target for the log entry, where somebody will write one.
pub(crate) fn note_target(exchange: &mut Exchange, destination: &Destination<'_>) {
    let mut target = Vec::with_capacity(128);
    put_upstream_target(exchange, destination, &mut target);
    exchange.upstream_target = Some(target.into_boxed_slice());
}

/// Writes the head for HTTP/1.1.
pub(crate) fn write_head(
    exchange: &Exchange,
    destination: &Destination<'_>,
    body: BodyFraming,
    into: &mut Vec<u8>,
) {
    let method = upstream_method(exchange);
    into.put_slice(method.as_str().as_bytes());
    into.put_u8(b' ');
    put_upstream_target(exchange, destination, into);
    into.put_slice(b" HTTP/1.1\r\nHost: ");
    into.put_slice(upstream_host(exchange, destination).as_bytes());
    into.put_slice(match is_websocket_upgrade(exchange) {
        true => b"\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n".as_slice(),
        false => b"\r\nConnection: keep-alive\r\n".as_slice(),
    });
    let fields = exchange.request.fields();
    let named = named_by_connection(fields);
    exchange.request.each(|name, value| {
        if !is_dropped(exchange, &named, name) {
            put_field(into, name, value);
        }
    });
    if wants_trailers(fields) {
        put_field(into, b"TE", b"trailers");
    }
    match body {
        BodyFraming::Length(length) => {
            into.put_slice(b"Content-Length: ");
            into.put_slice(itoa::Buffer::new().format(length).as_bytes());
            into.put_slice(b"\r\n");
        }
        BodyFraming::None => {}
    }
    told(exchange).for_each(|(name, value)| put_field(into, &name.title, value.as_bytes()));
    for_each_added(exchange, destination, |name, value| {
        put_field(into, &name.title, value);
    });
    into.put_slice(b"\r\n");
}

/// Edits Pingora's header of this attempt: the same rules. Framing headers are Pingora's own business.
pub(crate) fn edit_head(
    exchange: &Exchange,
    destination: &Destination<'_>,
    head: &mut RequestHeader,
) -> pingora_error::Result<()> {
    let upgrade = is_websocket_upgrade(exchange);
    let framing: SmallVec<[(HeaderName, HeaderValue); 2]> = [CONTENT_LENGTH, TRANSFER_ENCODING]
        .into_iter()
        .filter_map(|name| head.headers.get(&name).cloned().map(|value| (name, value)))
        .collect();
    let version = head.version;
    *head = (*exchange.request).clone();
    head.set_version(version);
    head.set_method(upstream_method(exchange).clone());
    let mut target = Vec::with_capacity(128);
    put_upstream_target(exchange, destination, &mut target);
    head.set_raw_path(&target)?;
    let named = named_by_connection(exchange.request.fields());
    let dropped: SmallVec<[HeaderName; 16]> = head
        .headers
        .keys()
        .filter(|name| is_dropped(exchange, &named, name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in dropped {
        head.remove_header(&name);
    }
    for (name, value) in framing {
        head.insert_header(name, value)?;
    }
    if let Ok(host) = HeaderValue::from_bytes(upstream_host(exchange, destination).as_bytes()) {
        head.insert_header(HOST, host)?;
    }
    if exchange.request.headers.contains_key(EXPECT) {
        head.insert_header(EXPECT, "100-continue")?;
    }
    if upgrade {
        head.insert_header(UPGRADE, "websocket")?;
        head.insert_header(CONNECTION, "keep-alive, Upgrade")?;
    } else if version <= http::Version::HTTP_11 {
        head.insert_header(CONNECTION, "keep-alive")?;
    }
    if wants_trailers(exchange.request.fields()) {
        head.insert_header(TE, "trailers")?;
    }
    for (name, value) in told(exchange) {
        head.insert_header(name.title.clone(), value.clone())?;
    }
    let mut result = Ok(());
    for_each_added(exchange, destination, |name, value| {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && let Err(error) = head.insert_header(name.title.clone(), value)
        {
            result = Err(error);
        }
    });
    result
}

/// The method that goes upstream.
pub(crate) fn upstream_method(exchange: &Exchange) -> &Method {
    exchange
        .edits
        .as_ref()
        .and_then(|edits| edits.method.as_ref())
        .unwrap_or(exchange.request.method())
}

/// Hop-by-hop fields, and those that are written anew. Names come as sent, in any case.
fn is_dropped(exchange: &Exchange, named: &Named, name: &[u8]) -> bool {
    let is = |other: &HeaderName| is_named(name, other.as_str().as_bytes());
    if has_fields_as_given(exchange) {
        return match name.len() {
            2 => is(&TE),
            4 => is(&HOST),
            6 => is(&EXPECT),
            7 => is(&UPGRADE),
            10 => is(&CONNECTION) || is(&KEEP_ALIVE),
            14 => is(&CONTENT_LENGTH),
            17 => is(&TRANSFER_ENCODING),
            // Proxy-Authorization and the like speak of the hop that ends here.
            _ => is(&PROXY) || starts_with_proxy(name),
        } || exchange.request_fields.stand_for(name)
            || named.iter().any(is);
    }
    is_own(exchange, name) || exchange.request_fields.stand_for(name) || named.iter().any(is)
}

/// Fields that are the gateway's own to write, or that end here.
fn is_own(exchange: &Exchange, name: &[u8]) -> bool {
    let headers = &exchange.snapshot.serving.headers;
    let is = |other: &HeaderName| is_named(name, other.as_str().as_bytes());
    let is_titled = |other: &Option<TitledName>| other.as_ref().is_some_and(|it| it.is(name));
    // By length first: most fields are none of these.
    let always = match name.len() {
        2 => is(&TE),
        3 => is(&VIA) && headers.via_http1.is_some(),
        4 => is(&HOST),
        5 => is(&PROXY),
        6 => is(&EXPECT),
        7 => is(&UPGRADE),
        9 => is(&X_REAL_IP),
        10 => is(&CONNECTION) || is(&KEEP_ALIVE),
        14 => is(&CONTENT_LENGTH),
        15 => is(&X_FORWARDED_FOR),
        16 => {
            is(&PROXY_CONNECTION)
                || is(&X_FORWARDED_HOST)
                || is(&X_FORWARDED_PATH)
                || is(&X_FORWARDED_PORT)
        }
        17 => is(&TRANSFER_ENCODING) || is(&X_FORWARDED_PROTO),
        18 => is(&X_FORWARDED_PREFIX),
        _ => false,
    };
    always || is_titled(&headers.request_id_upstream) || is_titled(&headers.caller_upstream)
}

/// What plugins tell the upstream. Under a name of the gateway's own, which only a configuration can bring, the gateway's
/// word counts, as it does for such fields in the head.
fn told(exchange: &Exchange) -> impl Iterator<Item = (&TitledName, &HeaderValue)> {
    let may_be_told = |name: &FieldName| match name {
        FieldName::Fixed(_) => true,
        FieldName::Configured(name) => !is_own(exchange, &name.title),
    };
    let fields = exchange.request_fields.iter();
    fields
        .filter(move |field| may_be_told(&field.name))
        .filter_map(|field| Some((&*field.name, field.value.as_ref()?)))
}

fn starts_with_proxy(name: &[u8]) -> bool {
    name.get(..6)
        .is_some_and(|start| is_named(start, b"proxy-"))
}

fn has_fields_as_given(exchange: &Exchange) -> bool {
    let edits = exchange.edits.as_deref();
    edits.is_some_and(|edits| edits.fields_as_given)
}

fn named_by_connection(fields: Fields<'_>) -> Named {
    let mut named = Named::new();
    for value in fields.named(CONNECTION.as_str()) {
        for member in value.split(|b| *b == b',') {
            let member = member.trim_ascii();
            if is_named(member, b"keep-alive")
                || is_named(member, b"close")
                || is_named(member, b"upgrade")
            {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(member) {
                named.push(name);
            }
        }
    }
    named
}

fn wants_trailers(fields: Fields<'_>) -> bool {
    fields.named(TE.as_str()).any(|value| {
        value.split(|b| *b == b',').any(|member| {
            member
                .split(|b| *b == b';')
                .next()
                .is_some_and(|coding| is_named(coding.trim_ascii(), b"trailers"))
        })
    })
}

/// A value behind those that the client sent under its name. `scratch` is used to put them together.
fn behind<'a>(
    fields: Fields<'_>,
    name: &HeaderName,
    value: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    scratch.clear();
    for sent in fields.named(name.as_str()) {
        scratch.extend_from_slice(sent);
        scratch.extend_from_slice(b", ");
    }
    if scratch.is_empty() {
        return value;
    }
    scratch.extend_from_slice(value);
    scratch
}

/// Calls `add` with every field that the gateway adds.
fn for_each_added(
    exchange: &Exchange,
    destination: &Destination<'_>,
    mut add: impl FnMut(&TitledName, &[u8]),
) {
    if has_fields_as_given(exchange) {
        return;
    }
    let connection = &exchange.connection;
    let fields = exchange.request.fields();
    let serving = &exchange.snapshot.serving;

    // Neither of them takes memory until it is needed.
    let (mut address, mut scratch) = (Vec::new(), Vec::new());
    let peer = connection.peer_text.as_bytes();
    let client = match exchange.client_address == connection.peer.ip() {
        true => peer,
        false => {
            put_address(exchange.client_address, &mut address);
            &address
        }
    };
    // The connecting peer is appended to a list; without one the client's address starts it.
    let last = match fields.contains(&X_FORWARDED_FOR) {
        true => peer,
        false => client,
    };
    let forwarded = behind(fields, &X_FORWARDED_FOR, last, &mut scratch);
    add(&titled::X_FORWARDED_FOR, forwarded);
    add(&titled::X_REAL_IP, client);

    // A trusted peer's own statement stands; anybody else's is not even looked for.
    let stated = |name: &HeaderName| match connection.trusted {
        true => fields.get(name),
        false => None,
    };
    let state = |name: &TitledName, value: &[u8], add: &mut dyn FnMut(&TitledName, &[u8])| {
        add(name, stated(&name.name).unwrap_or(value));
    };
    let proto: &[u8] = if connection.is_tls() {
        b"https"
    } else {
        b"http"
    };
    state(&titled::X_FORWARDED_PROTO, proto, &mut add);
    let host = exchange.raw_host();
    let name = port_of(host).map_or(host, |(name, _)| name);
    state(&titled::X_FORWARDED_HOST, name, &mut add);
    state(
        &titled::X_FORWARDED_PORT,
        connection.port_text.as_bytes(),
        &mut add,
    );
    state(&titled::X_FORWARDED_PATH, exchange.raw_path(), &mut add);

    let stripped = destination
        .route
        .plan
        .strip_path
        .then(|| exchange.matched.length())
        .flatten()
        .and_then(|length| exchange.path().get(..length))
        .filter(|prefix| !matches!(*prefix, b"" | b"/"));
    match stated(&X_FORWARDED_PREFIX) {
        Some(incoming) => add(&titled::X_FORWARDED_PREFIX, incoming),
        None => {
            if let Some(prefix) = stripped {
                scratch.clear();
                path::encode_into(&mut scratch, prefix);
                add(&titled::X_FORWARDED_PREFIX, &scratch);
            }
        }
    }

    let via = if exchange.http2 {
        &serving.headers.via_http2
    } else {
        &serving.headers.via_http1
    };
    if let Some(via) = via {
        let via = behind(fields, &VIA, via.as_bytes(), &mut scratch);
        add(&titled::VIA, via);
    }
    if let Some(name) = &serving.headers.request_id_upstream {
        add(name, exchange.request_id.as_bytes());
    }
    if let (Some(name), Some(caller)) = (&serving.headers.caller_upstream, connection.caller.get())
    {
        add(name, caller.peer.name.as_bytes());
    }
}

fn put_address(address: std::net::IpAddr, into: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    let _ = write!(into, "{address}");
}

/// The names of fields that the gateway adds.
mod titled {
    use std::sync::LazyLock;

    use crate::runtime::titled::TitledName;

    macro_rules! names {
        ($($name:ident = $title:literal;)*) => {
            $(pub(super) static $name: LazyLock<TitledName> =
                LazyLock::new(|| TitledName::fixed($title));)*
        };
    }

    names! {
        VIA = "Via";
        X_FORWARDED_FOR = "X-Forwarded-For";
        X_FORWARDED_HOST = "X-Forwarded-Host";
        X_FORWARDED_PATH = "X-Forwarded-Path";
        X_FORWARDED_PORT = "X-Forwarded-Port";
        X_FORWARDED_PREFIX = "X-Forwarded-Prefix";
        X_FORWARDED_PROTO = "X-Forwarded-Proto";
        X_REAL_IP = "X-Real-IP";
    }
}
