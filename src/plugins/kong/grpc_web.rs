//! `grpc-web`: lets browsers call gRPC services (the gRPC-Web protocol, PROTOCOL-WEB.md of gRPC).
//!
//! Messages stand in bodies as gRPC frames them, plain or in base64; what gRPC says in trailers comes as a last frame of
//! the body, because browsers do not show trailers. With a `.proto` file messages may be JSON.

use std::sync::{Arc, LazyLock};

use ahash::AHashMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, TE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_http::ResponseHeader;
use prost_reflect::MessageDescriptor;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::grpc_messages::{Cut, cut, from_json, put_framed, show};
use crate::plugins::shared::proto_files;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::{Exchange, ResponseSource};
use crate::runtime::fault::{Fault, LocalResponse};
use crate::runtime::titled::TitledName;
use crate::runtime::told::ResponseField;

/// Longest message of an answer that is shown in JSON, in bytes (gRPC implementations: likewise, by default).
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// First byte of the frame that holds the trailers.
const TRAILERS_FRAME: u8 = 0x80;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static ALLOW_ORIGIN: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("Access-Control-Allow-Origin"));

config_record! {
    /// Translates calls of browsers into gRPC, plain or in base64, with messages in protobuf or, with a `.proto` file, in
    /// JSON.
    pub struct Config {
        /// A `.proto` file that describes the services, for messages in JSON (`application/grpc-web+json` and
        /// `application/grpc-web-text+json`). Without it messages are in protobuf only. It is found and read as that of
        /// `grpc-gateway`.
        proto: Option<String> = string().validated_by(check_proto),
        /// Whether the path goes upstream without the prefix that the route strips, instead of as it came.
        pass_stripped_path: Option<bool> = boolean(),
        /// Which sites may read the answers.
        allow_origin_header: Option<String> = string().default("*"),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("grpc-web", 3, Config::schema()),
        link,
    }
}

fn check_proto(value: &serde_json::Value) -> Result<(), String> {
    match value.as_str() {
        None | Some("") => Ok(()),
        Some(path) => methods(path).map(drop),
    }
}

/// The messages of every method, by its path.
fn methods(file: &str) -> Result<Methods, String> {
    let compiled = proto_files::compile(file)?;
    let services = compiled.pool.services();
    let methods: Vec<_> = services
        .flat_map(|it| it.methods().collect::<Vec<_>>())
        .collect();
    if methods.is_empty() {
        return Err(format!("{file}: there is no service with a method"));
    }
    let paths = methods.into_iter().map(|method| {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let messages = Messages {
            input: method.input(),
            output: method.output(),
        };
        (path.into_bytes(), Arc::new(messages))
    });
    Ok(paths.collect())
}

type Methods = AHashMap<Vec<u8>, Arc<Messages>>;

/// What a method takes and gives.
struct Messages {
    input: MessageDescriptor,
    output: MessageDescriptor,
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let origin = config.allow_origin_header.as_deref().unwrap_or("*");
    let file = config.proto.as_deref().filter(|file| !file.is_empty());
    Ok(Arc::new(GrpcWeb {
        methods: match file {
            Some(file) => methods(file).map_err(|reason| format!("config.proto: {reason}"))?,
            None => Methods::new(),
        },
        pass_stripped_path: config.pass_stripped_path.unwrap_or(false),
        origin: HeaderValue::try_from(origin)
            .map_err(|_| format!("config.allow_origin_header: '{origin}' is no header value"))?,
    }))
}

struct GrpcWeb {
    /// For messages in JSON.
    methods: Methods,
    pass_stripped_path: bool,
    origin: HeaderValue,
}

/// What this call needs on its way back.
struct Call {
    kind: HeaderValue,
    base64: bool,
    /// For messages in JSON.
    messages: Option<Arc<Messages>>,
    /// Of the answer, what is no whole message yet; for JSON only.
    rest: BytesMut,
    /// The answer could not be shown: nothing more of it is.
    broken: bool,
    /// What the upstream said of the call, in head or trailers.
    outcome: HeaderMap,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encoding {
    base64: bool,
    json: bool,
}

/// The encoding of a media type, if it is one of the protocol's.
fn encoding(kind: &[u8]) -> Option<Encoding> {
    let essence = kind.split(|byte| *byte == b';').next()?;
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let rest = essence.strip_prefix(b"application/grpc-web")?;
    let (base64, rest) = match rest.strip_prefix(b"-text") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let json = match rest {
        b"" | b"+proto" => false,
        b"+json" => true,
        _ => return None,
    };
    Some(Encoding { base64, json })
}

/// The last two segments of a path, where a method is named.
fn method_in(path: &[u8]) -> Option<&[u8]> {
    let last = path.iter().rposition(|byte| *byte == b'/')?;
    let first = path.get(..last)?.iter().rposition(|byte| *byte == b'/')?;
    path.get(first..)
}

impl Plugin for GrpcWeb {
    fn phases(&self) -> Phases {
        Phases::ACCESS
            .with(Phases::REQUEST_BODY)
            .with(Phases::HEADER_FILTER)
            .with(Phases::TRAILERS)
            .with(Phases::BODY_FILTER)
    }

    fn needs(&self) -> Needs {
        Needs {
            request_body: true,
            ..Needs::HEAD
        }
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let field = ResponseField::instead(&ALLOW_ORIGIN, self.origin.clone());
        exchange.response_fields.push(field);
        if exchange.request.method == Method::OPTIONS {
            let fixed = HeaderValue::from_static;
            let answer = LocalResponse::new(StatusCode::OK)
                .header(CONTENT_TYPE, fixed("application/grpc-web-text+proto"))
                .header(http::header::ACCESS_CONTROL_ALLOW_METHODS, fixed("POST"))
                .header(
                    http::header::ACCESS_CONTROL_ALLOW_HEADERS,
                    fixed("content-type,x-grpc-web,x-user-agent"),
                )
                .body("OK");
            return Flow::Respond(Box::new(answer));
        }
        let kind = exchange.request.headers.get(CONTENT_TYPE).cloned();
        let known =
            kind.and_then(|kind| encoding(kind.as_bytes()).map(|encoding| (kind, encoding)));
        let known = known.filter(|(_, encoding)| !encoding.json || !self.methods.is_empty());
        let Some((kind, encoding)) = known else {
            let expected = match self.methods.is_empty() {
                true => "Unknown Content-Type: gRPC-Web in protobuf is expected",
                false => "Unknown Content-Type: gRPC-Web in protobuf or JSON is expected",
            };
            return Flow::fault(Fault::plain(StatusCode::BAD_REQUEST, expected));
        };
        let mut messages = None;
        if encoding.json {
            messages = method_in(exchange.path()).and_then(|path| self.methods.get(path).cloned());
            if messages.is_none() {
                let unknown = "the path names no method of the .proto file";
                return Flow::fault(Fault::plain(StatusCode::BAD_REQUEST, unknown));
            }
        }
        if !self.pass_stripped_path && exchange.edits.as_ref().is_none_or(|it| it.path.is_none()) {
            let path = exchange.path().to_vec();
            exchange.edits_mut().path = Some(path);
        }
        for (name, value) in [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")] {
            // Only a header map at its size limit refuses; the upstream then refuses the call.
            let _ = exchange.request.insert_header(name, value);
        }
        exchange.stash(Call {
            kind,
            base64: encoding.base64,
            messages,
            rest: BytesMut::new(),
            broken: false,
            outcome: HeaderMap::new(),
        });
        Flow::Continue
    }

    fn request_body(
        &self,
        exchange: &mut Exchange,
        piece: &mut Bytes,
        _end: bool,
    ) -> Result<(), Box<Fault>> {
        let Some(call) = exchange.stashed::<Call>() else {
            return Ok(());
        };
        let refuse = |reason: String| Box::new(Fault::plain(StatusCode::BAD_REQUEST, reason));
        // The body is held: this is all of it.
        if call.base64 {
            *piece = decode(piece).ok_or_else(|| refuse("the body is not base64".to_owned()))?;
        }
        if let Some(messages) = &call.messages {
            *piece = to_protobuf(&messages.input, piece).map_err(refuse)?;
        }
        Ok(())
    }

    fn header_filter(&self, exchange: &mut Exchange, head: &mut ResponseHeader) {
        if exchange.response_source != ResponseSource::Upstream {
            return;
        }
        let Some(call) = exchange.stashed_mut::<Call>() else {
            return;
        };
        // A call that failed at once says so in the head alone.
        for name in [GRPC_STATUS, GRPC_MESSAGE] {
            if let Some(value) = head.headers.get(&name) {
                call.outcome.insert(name, value.clone());
            }
        }
        // As above.
        let _ = head.insert_header(CONTENT_TYPE, call.kind.clone());
        exchange.body_length_changes();
    }

    fn trailers(&self, exchange: &mut Exchange, trailers: &mut HeaderMap) {
        if let Some(call) = exchange.stashed_mut::<Call>() {
            call.outcome = std::mem::take(trailers);
        }
    }

    fn body_filter(&self, exchange: &mut Exchange, piece: &mut Bytes, end: bool) {
        if exchange.response_source != ResponseSource::Upstream {
            return;
        }
        let Some(call) = exchange.stashed_mut::<Call>() else {
            return;
        };
        if let Some(messages) = call.messages.clone() {
            *piece = call.shown(&messages.output, piece);
        }
        if end {
            let mut whole = BytesMut::from(&**piece);
            if call.broken || !call.rest.is_empty() {
                // What the upstream says of the call is not true of what the client got.
                call.outcome = HeaderMap::new();
                call.outcome
                    .insert(GRPC_STATUS, HeaderValue::from_static("13"));
            }
            put_trailers(&call.outcome, &mut whole);
            *piece = whole.freeze();
        }
        if call.base64 && !piece.is_empty() {
            // Pieces are padded each by itself, which readers of this protocol expect.
            *piece = STANDARD.encode(&piece).into();
        }
    }
}

impl Call {
    /// Pieces of the answer with JSON for each message that is whole.
    fn shown(&mut self, kind: &MessageDescriptor, piece: &[u8]) -> Bytes {
        let mut shown = BytesMut::new();
        if self.broken {
            return Bytes::new();
        }
        self.rest.extend_from_slice(piece);
        let reason = loop {
            let message = match cut(&mut self.rest, MESSAGE_BYTES_MAX) {
                Cut::Message(message) => message,
                Cut::Nothing => return shown.freeze(),
                Cut::Broken(reason) => break reason.to_owned(),
            };
            let mut json = serde_json::Serializer::new(Vec::with_capacity(256));
            if let Err(reason) = show(kind, message, &mut json) {
                break reason;
            }
            let json = json.into_inner();
            shown.put_u8(0);
            // Some times the length of a message, which is limited.
            shown.put_u32(u32::try_from(json.len()).unwrap_or(u32::MAX));
            shown.put_slice(&json);
        };
        tracing::error!(%reason, "an answer cannot be shown in JSON");
        self.broken = true;
        self.rest = BytesMut::new();
        shown.freeze()
    }
}

/// Frames with JSON as frames with protobuf. The error is for the client.
fn to_protobuf(kind: &MessageDescriptor, body: &[u8]) -> Result<Bytes, String> {
    let mut rest = BytesMut::from(body);
    let mut framed = BytesMut::new();
    loop {
        match cut(&mut rest, usize::MAX) {
            Cut::Message(json) => {
                let json = std::str::from_utf8(&json).map_err(|_| "the body is not UTF-8")?;
                put_framed(&from_json(kind, json)?, &mut framed)?;
            }
            Cut::Nothing if rest.is_empty() => return Ok(framed.freeze()),
            Cut::Nothing => return Err("the body ends within a message".to_owned()),
            Cut::Broken(reason) => return Err(reason.to_owned()),
        }
    }
}

/// The frame that stands for the trailers.
fn put_trailers(trailers: &HeaderMap, into: &mut BytesMut) {
    let mut text = Vec::new();
    for (name, value) in trailers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    into.put_u8(TRAILERS_FRAME);
    // Trailers are limited far below this by the connection.
    into.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    into.put_slice(&text);
}

/// Base64 that may be several texts in a row, each with its padding.
fn decode(text: &[u8]) -> Option<Bytes> {
    let (quanta, rest) = text.as_chunks::<4>();
    if !rest.trim_ascii().is_empty() {
        return None;
    }
    let mut plain = Vec::with_capacity(text.len() / 4 * 3);
    let mut start = 0;
    for (index, quantum) in quanta.iter().enumerate() {
        if quantum.ends_with(b"=") || index + 1 == quanta.len() {
            let end = (index + 1) * 4;
            STANDARD
                .decode_vec(text.get(start..end)?, &mut plain)
                .ok()?;
            start = end;
        }
    }
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn knows_its_media_types() {
        for (kind, expected) in [
            ("application/grpc-web", Some((false, false))),
            ("application/grpc-web+proto", Some((false, false))),
            ("Application/gRPC-Web-Text; charset=x", Some((true, false))),
            ("application/grpc-web-text+proto", Some((true, false))),
            ("application/grpc-web+json", Some((false, true))),
            ("application/grpc-web-text+json;x", Some((true, true))),
            ("application/grpc-web+thrift", None),
            ("application/grpc", None),
            ("application/json", None),
            ("", None),
        ] {
            let found = encoding(kind.as_bytes()).map(|it| (it.base64, it.json));
            assert_eq!(found, expected, "{kind}");
        }
        assert_eq!(method_in(b"/a/b.S/M"), Some(&b"/b.S/M"[..]));
        assert_eq!(method_in(b"/M"), None);
    }

    #[test]
    fn decodes_texts_in_a_row() {
        assert_eq!(decode(b"").unwrap(), "");
        assert_eq!(decode(b"YQ==YmM=ZGVm").unwrap(), "abcdef");
        for bad in [&b"YQ="[..], b"Y!==", b"YQ==Y"] {
            assert_eq!(decode(bad), None);
        }
    }

    #[test]
    fn trailers_are_a_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        let mut frame = BytesMut::new();
        put_trailers(&trailers, &mut frame);
        assert_eq!(&frame[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }
}
