//! `grpc-web`: lets browsers call gRPC services (the gRPC-Web protocol, PROTOCOL-WEB.md of gRPC).
//!
//! Messages stand in bodies as gRPC frames them, plain or in base64; what gRPC says in trailers comes as a last frame of
//! the body, because browsers do not show trailers.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, TE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_http::ResponseHeader;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::configuration::read;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::{Exchange, ResponseField, ResponseSource};
use crate::runtime::fault::{Fault, LocalResponse};
use crate::runtime::titled::TitledName;

/// First byte of the frame that holds the trailers.
const TRAILERS_FRAME: u8 = 0x80;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static ALLOW_ORIGIN: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("Access-Control-Allow-Origin"));

config_record! {
    /// Translates calls of browsers into gRPC, with messages in protobuf, plain or in base64.
    pub struct Config {
        /// A `.proto` file for messages in JSON. Such messages are not translated by this version: it must be empty.
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
        Some(_) => Err(
            "messages in JSON are not translated by this version; leave it empty for protobuf"
                .to_owned(),
        ),
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let origin = config.allow_origin_header.as_deref().unwrap_or("*");
    Ok(Arc::new(GrpcWeb {
        pass_stripped_path: config.pass_stripped_path.unwrap_or(false),
        origin: HeaderValue::try_from(origin)
            .map_err(|_| format!("config.allow_origin_header: '{origin}' is no header value"))?,
    }))
}

struct GrpcWeb {
    pass_stripped_path: bool,
    origin: HeaderValue,
}

/// What this call needs on its way back.
struct Call {
    kind: HeaderValue,
    base64: bool,
    /// What the upstream said of the call, in head or trailers.
    outcome: HeaderMap,
}

/// Whether a media type is one of the protocol's, and whether it is base64. JSON is not among them.
fn encoding(kind: &[u8]) -> Option<bool> {
    let essence = kind.split(|byte| *byte == b';').next()?;
    Some(match essence.trim_ascii().to_ascii_lowercase().as_slice() {
        b"application/grpc-web" | b"application/grpc-web+proto" => false,
        b"application/grpc-web-text" | b"application/grpc-web-text+proto" => true,
        _ => return None,
    })
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
        let Some((kind, base64)) =
            kind.and_then(|kind| encoding(kind.as_bytes()).map(|base64| (kind, base64)))
        else {
            return Flow::fault(Fault::plain(
                StatusCode::BAD_REQUEST,
                "Unknown Content-Type: gRPC-Web in protobuf is expected",
            ));
        };
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
            base64,
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
        // The body is held: this is all of it.
        if exchange.stashed::<Call>().is_some_and(|call| call.base64) {
            *piece = decode(piece).ok_or_else(|| {
                Box::new(Fault::plain(
                    StatusCode::BAD_REQUEST,
                    "the body is not base64",
                ))
            })?;
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
        let Some(call) = exchange.stashed::<Call>() else {
            return;
        };
        if end {
            let mut whole = BytesMut::from(&**piece);
            put_trailers(&call.outcome, &mut whole);
            *piece = whole.freeze();
        }
        if call.base64 && !piece.is_empty() {
            // Pieces are padded each by itself, which readers of this protocol expect.
            *piece = STANDARD.encode(&piece).into();
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
            ("application/grpc-web", Some(false)),
            ("application/grpc-web+proto", Some(false)),
            ("Application/gRPC-Web-Text; charset=x", Some(true)),
            ("application/grpc-web-text+proto", Some(true)),
            ("application/grpc-web+json", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(encoding(kind.as_bytes()), expected, "{kind}");
        }
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
