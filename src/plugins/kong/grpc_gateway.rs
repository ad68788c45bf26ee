//! `grpc-gateway`: methods of gRPC services called with JSON over HTTP, as rules in a `.proto` file say
//! (`google.api.http`).
//!
//! A request is matched against the rules' paths; path, query and body become the method's message. The answer of a
//! method that gives one message is held until the call's outcome is known, which decides the status; those of a method
//! that streams are passed on as they come, each a line of JSON.

mod fields;
mod messages;
mod rules;
mod template;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode;
use pingora_http::ResponseHeader;
use serde_json::{Value, json};

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::grpc_messages::{Cut, cut};
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::{Exchange, RequestBody, ResponseHolding, ResponseSource};
use crate::runtime::fault::{Fault, LocalResponse};
use crate::runtime::head::ResponseHead;
use crate::runtime::titled::TitledName;
use crate::runtime::told::ResponseField;

use rules::Rules;

/// Longest message of a stream, in bytes (gRPC implementations: likewise, by default).
const STREAMED_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest message of an upstream about a failure that is repeated, in characters.
const REASON_CHARACTERS_MAX: usize = 4096;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What a client says of its own encoding is not for the upstream.
const ENCODINGS: [HeaderName; 4] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// Codes of gRPC that the gateway itself gives.
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const UNKNOWN: u32 = 2;
    pub(super) const INTERNAL: u32 = 13;
}

static ALLOW_ORIGIN: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("Access-Control-Allow-Origin"));

config_record! {
    /// Lets clients call methods of gRPC services with JSON: the rules of `google.api.http` in a `.proto` file say by
    /// which paths, and where the fields of messages come from. The service's protocol must be `grpc` or `grpcs`, the
    /// route's `http` or `https`.
    pub struct Config {
        /// The `.proto` file. A relative path starts at the folder that the gateway was started in. Imports are looked
        /// for beside the file; `google/api/annotations.proto`, `google/api/http.proto` and `google/protobuf/` are built
        /// in. The file is read when the plugin is configured: send the configuration again, changed, to have it read
        /// again.
        proto: Option<String> = string().validated_by(check_proto),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("grpc-gateway", 998, Config::schema()),
        link,
    }
}

fn check_proto(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(path) => Rules::load(path).map(drop),
        None => Ok(()),
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let rules = config.proto.as_deref().map(Rules::load).transpose();
    let rules = rules.map_err(|reason| format!("config.proto: {reason}"))?;
    Ok(Arc::new(GrpcGateway {
        rules: rules.map(Arc::new),
    }))
}

struct GrpcGateway {
    /// `None` without a file: every request is refused then (Kong: likewise).
    rules: Option<Arc<Rules>>,
}

/// A call on its way: kept in the exchange, which also tells that its client speaks no gRPC.
pub(super) struct Call {
    binding: Arc<rules::Binding>,
    /// Of the answer, what is no whole message yet.
    rest: BytesMut,
    /// What the upstream said of the call behind its messages.
    outcome: Option<Outcome>,
    /// Is the answer shown as lines?
    streams: bool,
    /// Nothing more of it is shown.
    ended: bool,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    code: u32,
    message: String,
}

impl Outcome {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// What head or trailers say.
    fn of(fields: &HeaderMap) -> Option<Self> {
        let code = fields.get(GRPC_STATUS)?;
        // What is no number is no code of anybody's.
        let code = code.to_str().ok().and_then(|code| code.parse().ok());
        let message = fields
            .get(GRPC_MESSAGE)
            .map_or(&b""[..], |it| it.as_bytes());
        let message = percent_decode(message).decode_utf8_lossy();
        let message = message.chars().take(REASON_CHARACTERS_MAX).collect();
        Some(Self {
            code: code.unwrap_or(code::UNKNOWN),
            message,
        })
    }

    fn to_json(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }

    /// The status that stands for the code (Kong: the same ones).
    fn status(&self) -> StatusCode {
        let status = match self.code {
            code::OK => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            14 => 503,
            16 => 401,
            _ => 500,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

#[async_trait]
impl Plugin for GrpcGateway {
    fn phases(&self) -> Phases {
        Phases::ACCESS
            .with(Phases::MESSAGE)
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
        let any = HeaderValue::from_static("*");
        let field = ResponseField::instead(&ALLOW_ORIGIN, any);
        exchange.response_fields.push(field);
        if exchange.request.method == Method::OPTIONS {
            return Flow::Respond(Box::new(preflight()));
        }
        let refuse = |reason: String| Flow::fault(Fault::plain(StatusCode::BAD_REQUEST, reason));
        let Some(rules) = &self.rules else {
            let reason = "transcoding requests require a .proto file defining the service";
            return refuse(reason.to_owned());
        };
        let speaks_grpc = exchange
            .forward()
            .is_none_or(|forward| forward.plan.protocol.is_grpc());
        if !speaks_grpc {
            let cause = "grpc-gateway: the protocol of the service must be 'grpc' or 'grpcs'";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Flow::fault(Fault::plain(status, "An unexpected error occurred").cause(cause));
        }
        let method = exchange.request.method.as_str();
        let Ok(path) = std::str::from_utf8(exchange.path()) else {
            return refuse("the path is not UTF-8".to_owned());
        };
        let Some((binding, variables)) = rules.find(method, path) else {
            let unknown = match rules.knows(method) {
                true => format!("Unknown path \"{path}\""),
                false => format!("Unknown method \"{method}\""),
            };
            return refuse(format!("failed to transcode .proto file {unknown}"));
        };
        let body = match &exchange.request_body {
            RequestBody::Held(body) => body.clone(),
            RequestBody::Absent | RequestBody::Streaming { .. } => Bytes::new(),
        };
        let query = exchange.upstream_query();
        let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
        let called = messages::call_body(binding, &variables, query, arguments_max, &body);
        let binding = Arc::clone(binding);
        let called = match called {
            Ok(called) => called,
            Err(reason) => return refuse(reason),
        };
        exchange.request_body = RequestBody::Held(called);
        if binding.method.gives_many {
            exchange.response_holding = ResponseHolding::Never;
        }
        let edits = exchange.edits_mut();
        edits.method = Some(Method::POST);
        edits.target = Some(binding.method.path.to_vec());
        for name in ENCODINGS {
            exchange.request.remove_header(&name);
        }
        for (name, value) in [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")] {
            // Only a header map at its size limit refuses; the upstream then refuses the call.
            let _ = exchange.request.insert_header(name, value);
        }
        exchange.stash(Call {
            binding,
            rest: BytesMut::new(),
            outcome: None,
            streams: false,
            ended: false,
        });
        Flow::Continue
    }

    fn trailers(&self, exchange: &mut Exchange, trailers: &mut HeaderMap) {
        if let Some(call) = exchange.stashed_mut::<Call>() {
            call.outcome = Outcome::of(trailers);
            trailers.clear();
        }
    }

    /// The answer of a method that gives one message.
    async fn message(
        &self,
        exchange: &mut Exchange,
        head: &mut ResponseHead,
        body: &mut Bytes,
    ) -> Flow {
        if !is_grpc(head) {
            return Flow::Continue;
        }
        let Some(call) = exchange.stashed_mut::<Call>() else {
            return Flow::Continue;
        };
        let said = call.outcome.take().or_else(|| Outcome::of(&head.headers));
        let unsaid = || {
            Outcome::new(
                code::UNKNOWN,
                "the upstream ended the call without a status",
            )
        };
        let mut outcome = said.unwrap_or_else(unsaid);
        if outcome.code == code::OK {
            match shown(call, body) {
                Ok(json) => *body = json.into(),
                Err(reason) => outcome = Outcome::new(code::INTERNAL, reason),
            }
        }
        if outcome.code != code::OK {
            *body = outcome.to_json().to_string().into();
        }
        say(&outcome, head);
        shows_json(head);
        Flow::Continue
    }

    /// The answer of a method that streams. That of another one was shown already.
    fn header_filter(&self, exchange: &mut Exchange, head: &mut ResponseHeader) {
        if exchange.response_source != ResponseSource::Upstream || !is_grpc(head) {
            return;
        }
        let Some(call) = exchange.stashed_mut::<Call>() else {
            return;
        };
        if !call.binding.method.gives_many {
            return;
        }
        // A call that failed at once says so in the head alone.
        if let Some(outcome) = Outcome::of(&head.headers) {
            say(&outcome, head);
            call.outcome = Some(outcome);
        }
        call.streams = true;
        shows_json(head);
        exchange.body_length_changes();
    }

    /// The answers of a method that streams them.
    fn body_filter(&self, exchange: &mut Exchange, piece: &mut Bytes, end: bool) {
        if exchange.response_source != ResponseSource::Upstream {
            return;
        }
        let Some(call) = exchange.stashed_mut::<Call>() else {
            return;
        };
        if call.streams {
            *piece = lines(call, piece, end);
        }
    }
}

/// Is this an answer to a call? Something between may have answered in its own way.
fn is_grpc(head: &ResponseHeader) -> bool {
    let kind = head.headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Status and fields of the head for this outcome.
fn say(outcome: &Outcome, head: &mut ResponseHeader) {
    // Numbers below 1000 are accepted, whatever they mean.
    let _ = head.set_status(outcome.status());
    // As above.
    let _ = head.insert_header(GRPC_STATUS, outcome.code.to_string());
}

fn shows_json(head: &mut ResponseHeader) {
    // Only a header map at its size limit refuses, and this one has the field.
    let _ = head.insert_header(CONTENT_TYPE, "application/json");
}

/// The one message of the answer in JSON.
fn shown(call: &Call, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut rest = BytesMut::from(body);
    let message = match cut(&mut rest, usize::MAX) {
        Cut::Message(message) => message,
        Cut::Nothing => return Err("the upstream's answer has no message".to_owned()),
        Cut::Broken(reason) => return Err(reason.to_owned()),
    };
    if !rest.is_empty() {
        return Err("the upstream's answer has more than one message".to_owned());
    }
    messages::to_json(&call.binding, message)
}

/// What of a stream can be shown, a message a line; a failure is the last line.
fn lines(call: &mut Call, piece: &[u8], end: bool) -> Bytes {
    if call.ended {
        return Bytes::new();
    }
    call.rest.extend_from_slice(piece);
    let mut shown = Vec::new();
    let mut failed = None;
    while failed.is_none() {
        match cut(&mut call.rest, STREAMED_MESSAGE_BYTES_MAX) {
            Cut::Message(message) => match messages::to_json(&call.binding, message) {
                Ok(json) => {
                    shown.extend(json);
                    shown.push(b'\n');
                }
                Err(reason) => failed = Some(Outcome::new(code::INTERNAL, reason)),
            },
            Cut::Nothing => break,
            Cut::Broken(reason) => failed = Some(Outcome::new(code::INTERNAL, reason)),
        }
    }
    if end && failed.is_none() {
        failed = match call.outcome.take() {
            Some(outcome) if outcome.code != code::OK => Some(outcome),
            Some(_) if call.rest.is_empty() => None,
            _ => Some(Outcome::new(code::UNKNOWN, "the upstream broke off")),
        };
    }
    if let Some(outcome) = failed {
        call.ended = true;
        call.rest = BytesMut::new();
        shown.extend(json!({"error": outcome.to_json()}).to_string().into_bytes());
        shown.push(b'\n');
    }
    shown.into()
}

/// The answer to browsers that ask before they call.
fn preflight() -> LocalResponse {
    let fixed = HeaderValue::from_static;
    LocalResponse::new(StatusCode::OK)
        .header(CONTENT_TYPE, fixed("application/json"))
        .header(
            http::header::ACCESS_CONTROL_ALLOW_METHODS,
            fixed("GET,POST,PUT,PATCH,DELETE"),
        )
        .header(
            http::header::ACCESS_CONTROL_ALLOW_HEADERS,
            fixed("content-type"),
        )
        .body("OK")
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;
    use crate::plugins::test_support::{Message, World, refusal};

    #[test]
    fn a_broken_file_is_refused_when_it_is_configured() {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.proto");
        std::fs::write(&path, "syntax = \"proto3\";\nmessage A { B b = 1; }").unwrap();
        let refused = world.refused(entry(), json!({"proto": path}));
        let text = refused["config"]["proto"].as_str().unwrap();
        assert!(text.contains("a.proto:2:13: "), "{text}");
        assert_eq!(world.refused(entry(), json!({})), json!({}));
    }

    #[test]
    fn without_a_file_or_a_grpc_service_nothing_is_translated() {
        let world = World::new();
        let plugin = world.link(entry(), json!({}));
        let mut exchange = world.exchange(Message::get("/v1/x"));
        let (status, text) = refusal(&plugin.access(&mut exchange)).unwrap();
        assert_eq!(status, 400);
        assert!(text.contains("require a .proto file"), "{text}");
        let mut exchange = world.exchange(Message::new("OPTIONS", "/v1/x"));
        let Flow::Respond(answer) = plugin.access(&mut exchange) else {
            panic!("browsers are answered");
        };
        assert_eq!(answer.status, 200);
    }

    #[test]
    fn codes_become_statuses() {
        let statuses: Vec<u16> = (0..18)
            .map(|code| Outcome::new(code, "").status().as_u16())
            .collect();
        let expected = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 500, 500, 503, 500, 401,
            500,
        ];
        assert_eq!(statuses, expected);
        let mut fields = HeaderMap::new();
        assert_eq!(Outcome::of(&fields), None);
        fields.insert(GRPC_STATUS, HeaderValue::from_static("5"));
        fields.insert(GRPC_MESSAGE, HeaderValue::from_static("no%20such%C3%A4"));
        assert_eq!(Outcome::of(&fields), Some(Outcome::new(5, "no suchä")));
        fields.insert(GRPC_STATUS, HeaderValue::from_static("x"));
        assert_eq!(Outcome::of(&fields).unwrap().code, code::UNKNOWN);
    }

    fn call() -> Call {
        let rules = rules::tests::rules(
            "rpc All(Empty) returns (stream Deep) { option (google.api.http) = { get: \"/all\" }; }",
        );
        let rules = rules.unwrap();
        Call {
            binding: Arc::clone(rules.find("GET", "/all").unwrap().0),
            rest: BytesMut::new(),
            outcome: None,
            streams: true,
            ended: false,
        }
    }

    #[test]
    fn messages_of_a_stream_are_lines_however_they_are_cut() {
        let whole = b"\0\0\0\0\x03\x0a\x01a\0\0\0\0\0\0\0\0\0\x03\x0a\x01b";
        let expected = concat!(
            "{\"text\":\"a\",\"numbers\":[]}\n",
            "{\"text\":\"\",\"numbers\":[]}\n",
            "{\"text\":\"b\",\"numbers\":[]}\n",
        );
        for size in 1..=whole.len() {
            let mut call = call();
            let mut text = Vec::new();
            for piece in whole.chunks(size) {
                text.extend(lines(&mut call, piece, false));
            }
            call.outcome = Some(Outcome::new(code::OK, ""));
            text.extend(lines(&mut call, b"", true));
            assert_eq!(
                String::from_utf8(text).unwrap(),
                expected,
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn a_stream_that_fails_says_so_in_its_last_line() {
        let text = |call: &mut Call, piece: &[u8], end| {
            String::from_utf8(lines(call, piece, end).to_vec()).unwrap()
        };
        let mut failed = call();
        failed.outcome = Some(Outcome::new(5, "gone"));
        assert_eq!(
            text(&mut failed, b"", true),
            "{\"error\":{\"code\":5,\"message\":\"gone\"}}\n"
        );
        for (piece, end) in [
            (&b"\0\0\0\0\x09half"[..], true),
            (b"\x01\0\0\0\0", false),
            (b"\0\xff\xff\xff\xff", false),
            (b"\0\0\0\0\x01\xff", false),
        ] {
            let mut call = call();
            let shown = text(&mut call, piece, end);
            assert!(shown.starts_with("{\"error\":{\"code\":"), "{shown}");
            assert_eq!(text(&mut call, b"\0\0\0\0\0", true), "", "it is over");
        }
    }
}
