//! Faults as Kong answers them: error templates chosen by `Accept`, the compact form, the gRPC form.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::grpc_gateway;
use super::log_entry::{self, without_port};
use super::session_entry;
use crate::plugins::shared::headers::{lenient_value, number};
use crate::runtime::contract::{ProtocolProblem, Renderer};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::{Blame, Fault, FaultShape, LocalResponse, NoEndpoint};
use crate::runtime::session::Session;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Operators' own error templates, with up to two `%s`: the message, then the request id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorTemplates {
    /// Kong: `error_template_html`.
    pub html: Option<String>,
    /// Kong: `error_template_json`.
    pub json: Option<String>,
    /// Kong: `error_template_xml`.
    pub xml: Option<String>,
    /// Kong: `error_template_plain`.
    pub plain: Option<String>,
}

/// The renderer of Kong's dialect.
pub struct KongRenderer {
    templates: ErrorTemplates,
    /// Type of transport errors when neither `Accept` nor the request's own type decides.
    default_type: MediaType,
    workspace: Arc<str>,
}

impl KongRenderer {
    /// `error_default_type` as in the configuration (`text/plain` and so on; anything else counts as plain);
    /// `workspace` is the id shown in log entries.
    pub fn new(
        templates: ErrorTemplates,
        error_default_type: &str,
        workspace: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            templates,
            default_type: MediaType::parse(error_default_type).unwrap_or(MediaType::Plain),
            workspace: workspace.into(),
        }
    }

    /// The answer to a request of which nothing but the head and an id may be known.
    pub fn render(
        &self,
        fault: &Fault,
        headers: &HeaderMap,
        http2: bool,
        id: &str,
    ) -> LocalResponse {
        let mut response = LocalResponse::new(fault.status);
        let grpc = http2
            && headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc {
            self.render_grpc(fault, &mut response);
        } else if fault.shape == FaultShape::Plain {
            if let Some(message) = &fault.message {
                response
                    .headers
                    .push((CONTENT_TYPE, MediaType::Json.header()));
                response.body = compact(message).into();
            }
        } else {
            let kind = self.media_type(fault.shape, headers);
            let message = fault
                .message
                .clone()
                .unwrap_or_else(|| usual_message(fault.status));
            response.headers.push((CONTENT_TYPE, kind.header()));
            response.body = self.fill(kind, &message, id).into();
        }
        response.headers.extend(fault.headers.iter().cloned());
        response
    }

    fn render_grpc(&self, fault: &Fault, response: &mut LocalResponse) {
        let status = grpc_status(fault.status);
        let message = match &fault.message {
            Some(message) => lenient_value(&grpc_message(message)),
            None => HeaderValue::from_static(grpc_name(status)),
        };
        let kind = HeaderValue::from_static("application/grpc");
        response.headers.push((CONTENT_TYPE, kind));
        response
            .headers
            .push((GRPC_STATUS, number(u64::from(status))));
        response.headers.push((GRPC_MESSAGE, message));
    }

    fn media_type(&self, shape: FaultShape, headers: &HeaderMap) -> MediaType {
        let accepted = headers.get(ACCEPT).map(|accept| {
            negotiate(&String::from_utf8_lossy(accept.as_bytes())).unwrap_or(MediaType::Json)
        });
        match shape {
            FaultShape::Transport => accepted.unwrap_or_else(|| {
                headers
                    .get(CONTENT_TYPE)
                    .and_then(|kind| kind.to_str().ok())
                    .and_then(MediaType::parse)
                    .unwrap_or(self.default_type)
            }),
            FaultShape::Negotiated | FaultShape::Plain => accepted.unwrap_or(MediaType::Json),
        }
    }

    fn fill(&self, kind: MediaType, message: &str, id: &str) -> String {
        let (own, usual) = match kind {
            MediaType::Html => (&self.templates.html, HTML),
            MediaType::Json => (&self.templates.json, JSON),
            MediaType::Plain => (&self.templates.plain, PLAIN),
            MediaType::Xml => (&self.templates.xml, XML),
        };
        let template = own.as_deref().unwrap_or(usual);
        let message = kind.escape(message);
        let mut pieces = template.splitn(3, "%s");
        let mut text = String::with_capacity(template.len() + message.len() + id.len());
        text.push_str(pieces.next().unwrap_or_default());
        for (piece, value) in pieces.zip([&*message, id]) {
            text.push_str(value);
            text.push_str(piece);
        }
        text
    }
}

impl Renderer for KongRenderer {
    fn fault(&self, fault: &Fault, exchange: &Exchange) -> LocalResponse {
        self.render(
            fault,
            &exchange.request.headers,
            // A call that the gateway made of something else is nothing that its client knows of.
            exchange.http2 && exchange.stashed::<grpc_gateway::Call>().is_none(),
            exchange.request_id.as_str(),
        )
    }

    fn unrouted(&self, _: &Exchange) -> Fault {
        Fault::refuse(StatusCode::NOT_FOUND, "no Route matched with those values")
    }

    fn unforwarded(&self, _: &Exchange) -> Fault {
        Fault::refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "no Service found with those values",
        )
    }

    fn wrong_protocol(&self, problem: &ProtocolProblem, exchange: &Exchange) -> LocalResponse {
        let upgrade_required = StatusCode::UPGRADE_REQUIRED;
        let ask_upgrade = |message: &'static str, protocols: &'static str| {
            let fault = Fault::refuse(upgrade_required, message)
                .header(CONNECTION, HeaderValue::from_static("Upgrade"))
                .header(UPGRADE, HeaderValue::from_static(protocols));
            self.fault(&fault, exchange)
        };
        match problem {
            ProtocolProblem::NeedsTls { status } => match StatusCode::from_u16(*status) {
                Ok(status) if status.is_redirection() => {
                    LocalResponse::new(status).header(LOCATION, https_location(exchange))
                }
                _ => ask_upgrade("Please use HTTPS protocol", "TLS/1.2, HTTP/1.1"),
            },
            ProtocolProblem::NotGrpc => {
                let fault = Fault::refuse(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "Non-gRPC request matched gRPC route",
                );
                self.fault(&fault, exchange)
            }
            ProtocolProblem::NeedsWebSocket => {
                ask_upgrade("Please use WebSocket protocol", "websocket")
            }
            ProtocolProblem::WebSocketVersion => {
                ask_upgrade("Unsupported WebSocket version", "websocket").header(
                    HeaderName::from_static("sec-websocket-version"),
                    HeaderValue::from_static("13"),
                )
            }
            ProtocolProblem::NeedsHttp2 => ask_upgrade("Please use HTTP2 protocol", "HTTP/2"),
            ProtocolProblem::GrpcNeedsTls => LocalResponse::new(StatusCode::OK)
                .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
                .header(GRPC_STATUS, number(1))
                .header(
                    GRPC_MESSAGE,
                    HeaderValue::from_static("gRPC request matched gRPCs route"),
                ),
        }
    }

    fn no_endpoint(&self, reason: &NoEndpoint) -> Fault {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let fault = match reason {
            NoEndpoint::NoneUsable | NoEndpoint::Unlisted(_) => {
                Fault::refuse(unavailable, "failure to get a peer from the ring-balancer")
            }
            NoEndpoint::NameNotFound => Fault::refuse(unavailable, "name resolution failed"),
            NoEndpoint::TooMany(_) => Fault::refuse(
                unavailable,
                "too many requests of the upstream are in progress",
            ),
            NoEndpoint::Resolver(text) => {
                Fault::refuse(StatusCode::INTERNAL_SERVER_ERROR, text.clone())
            }
        };
        Fault {
            blame: Blame::Upstream,
            ..fault
        }
    }

    fn log_entry(&self, exchange: &Exchange, into: &mut Vec<u8>) {
        log_entry::write(exchange, &self.workspace, into);
    }

    fn session_entry(&self, session: &Session, into: &mut Vec<u8>) {
        session_entry::write(session, &self.workspace, into);
    }
}

/// The same target over https. The host is the one that a trusted proxy was asked for, if it says so.
fn https_location(exchange: &Exchange) -> HeaderValue {
    let forwarded = exchange
        .connection
        .trusted
        .then(|| exchange.request.headers.get("x-forwarded-host"))
        .flatten()
        .and_then(|host| host.to_str().ok());
    let host = without_port(forwarded.unwrap_or_else(|| exchange.host()));
    let mut location = format!("https://{host}").into_bytes();
    location.extend_from_slice(exchange.target());
    lenient_value(&location)
}

/// The compact message object.
pub fn compact(message: &str) -> String {
    format!("{{\"message\":{}}}", quoted(message))
}

/// The types in which errors can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaType {
    Json,
    Html,
    Plain,
    Xml,
}

impl MediaType {
    /// The type for a media type or range; parameters are ignored.
    fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        [
            ("application/json", Self::Json),
            ("application/*", Self::Json),
            ("*/*", Self::Json),
            ("text/html", Self::Html),
            ("text/plain", Self::Plain),
            ("text/*", Self::Plain),
            ("application/xml", Self::Xml),
        ]
        .into_iter()
        .find(|(name, _)| essence.eq_ignore_ascii_case(name))
        .map(|(_, kind)| kind)
    }

    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
        })
    }

    /// Messages may quote what a client sent.
    fn escape(self, message: &str) -> Cow<'_, str> {
        match self {
            Self::Plain => Cow::Borrowed(message),
            Self::Json => {
                let quoted = quoted(message);
                // Without the quotation marks, which stand in the template.
                let inside = quoted.get(1..quoted.len().saturating_sub(1));
                Cow::Owned(inside.unwrap_or_default().to_owned())
            }
            Self::Html | Self::Xml => {
                if memchr::memchr3(b'&', b'<', b'>', message.as_bytes()).is_none() {
                    return Cow::Borrowed(message);
                }
                let text = message.replace('&', "&amp;").replace('<', "&lt;");
                Cow::Owned(text.replace('>', "&gt;"))
            }
        }
    }
}

/// The type that an `Accept` header likes best; of equals the first.
fn negotiate(accept: &str) -> Option<MediaType> {
    let mut best: Option<(MediaType, f32)> = None;
    for range in accept.split(',') {
        let Some(kind) = MediaType::parse(range) else {
            continue;
        };
        let quality = range
            .split(';')
            .skip(1)
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0));
        if quality > 0.0 && best.is_none_or(|(_, highest)| quality > highest) {
            best = Some((kind, quality));
        }
    }
    best.map(|(kind, _)| kind)
}

fn quoted(text: &str) -> String {
    // Text can always be written as JSON.
    serde_json::to_string(text).unwrap_or_default()
}

const JSON: &str = "{\n  \"message\":\"%s\",\n  \"request_id\":\"%s\"\n}";
const PLAIN: &str = "%s\nrequest_id: %s\n";
const XML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>%s</message>\n  <requestid>%s</requestid>\n</error>\n";
const HTML: &str = "<!doctype html>
<html>
  <head>
    <meta charset=\"utf-8\">
    <title>Error</title>
  </head>
  <body>
    <h1>Error</h1>
    <p>%s.</p>
    <p>request_id: %s</p>
  </body>
</html>
";

/// The text for a status when none is given.
fn usual_message(status: StatusCode) -> Cow<'static, str> {
    Cow::Borrowed(match status.as_u16() {
        400 => "Bad request",
        401 => "Unauthorized",
        402 => "Payment required",
        403 => "Forbidden",
        404 => "Not found",
        405 => "Method not allowed",
        406 => "Not acceptable",
        407 => "Proxy authentication required",
        408 => "Request timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length required",
        412 => "Precondition failed",
        413 => "Payload too large",
        414 => "URI too long",
        415 => "Unsupported media type",
        416 => "Range not satisfiable",
        417 => "Expectation failed",
        418 => "I'm a teapot",
        421 => "Misdirected request",
        422 => "Unprocessable entity",
        423 => "Locked",
        424 => "Failed dependency",
        425 => "Too early",
        426 => "Upgrade required",
        428 => "Precondition required",
        429 => "Too many requests",
        431 => "Request header fields too large",
        451 => "Unavailable for legal reasons",
        494 => "Request header or cookie too large",
        500 => "An unexpected error occurred",
        501 => "Not implemented",
        502 => "An invalid response was received from the upstream server",
        503 => "The upstream server is currently unavailable",
        504 => "The upstream server is timing out",
        505 => "HTTP version not supported",
        506 => "Variant also negotiates",
        507 => "Insufficient storage",
        508 => "Loop detected",
        510 => "Not extended",
        511 => "Network authentication required",
        other => {
            return Cow::Owned(format!("The upstream server responded with {other}"));
        }
    })
}

fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        200 => 0,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        429 => 8,
        499 => 1,
        500 => 13,
        501 => 12,
        503 => 14,
        504 => 4,
        status => match status / 100 {
            4 => 3,
            5 => 13,
            _ => 2,
        },
    }
}

fn grpc_name(status: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(usize::from(status)).copied().unwrap_or("Unknown")
}

/// Percent-encodes what a gRPC status message may not hold (gRPC over HTTP/2: Status-Message).
fn grpc_message(text: &str) -> Cow<'_, [u8]> {
    let sound = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    if text.bytes().all(sound) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut encoded = Vec::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if sound(byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Cow::Owned(encoded)
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

    fn renderer() -> KongRenderer {
        KongRenderer::new(ErrorTemplates::default(), "text/plain", "w")
    }

    fn render(
        fault: &Fault,
        headers: &[(&'static str, &'static str)],
        http2: bool,
    ) -> (String, String) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let answer = renderer().render(fault, &map, http2, "r1");
        let kind = answer
            .headers
            .first()
            .map_or("", |(_, kind)| kind.to_str().unwrap());
        (
            kind.to_owned(),
            String::from_utf8(answer.body.to_vec()).unwrap(),
        )
    }

    #[test]
    fn writes_each_type() {
        let fault = Fault::refuse(StatusCode::FORBIDDEN, "no <b>\"x\"");
        for (accept, kind, body) in [
            (
                "application/json",
                "application/json; charset=utf-8",
                "{\n  \"message\":\"no <b>\\\"x\\\"\",\n  \"request_id\":\"r1\"\n}",
            ),
            (
                "text/plain",
                "text/plain; charset=utf-8",
                "no <b>\"x\"\nrequest_id: r1\n",
            ),
            (
                "application/xml",
                "application/xml; charset=utf-8",
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>no &lt;b&gt;\"x\"</message>\n  <requestid>r1</requestid>\n</error>\n",
            ),
            (
                "text/html",
                "text/html; charset=utf-8",
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n    <p>no &lt;b&gt;\"x\".</p>\n    <p>request_id: r1</p>\n  </body>\n</html>\n",
            ),
        ] {
            let seen = render(&fault, &[("accept", accept)], false);
            assert_eq!(seen, (kind.to_owned(), body.to_owned()));
        }
    }

    #[test]
    fn negotiates() {
        for (accept, kind) in [
            ("*/*", Some(MediaType::Json)),
            ("text/*", Some(MediaType::Plain)),
            (
                "text/html;q=0.8, application/xml;q=0.9",
                Some(MediaType::Xml),
            ),
            ("text/html, application/json", Some(MediaType::Html)),
            ("image/png, text/plain;q=0.1", Some(MediaType::Plain)),
            ("image/png", None),
            ("text/html;q=x", None),
            ("", None),
        ] {
            assert_eq!(negotiate(accept), kind, "{accept}");
        }
    }

    #[test]
    fn transport_faults_have_their_own_default() {
        let fault = Fault::transport(StatusCode::BAD_GATEWAY, Blame::Upstream, "refused");
        let plain = "An invalid response was received from the upstream server\nrequest_id: r1\n";
        assert_eq!(render(&fault, &[], false).1, plain);
        let (kind, _) = render(&fault, &[("content-type", "application/json")], false);
        assert_eq!(kind, "application/json; charset=utf-8");
        let (kind, _) = render(&fault, &[("accept", "image/png")], false);
        assert_eq!(kind, "application/json; charset=utf-8");
    }

    #[test]
    fn plain_and_grpc_forms() {
        let fault = Fault::plain(StatusCode::UNAUTHORIZED, "no");
        assert_eq!(render(&fault, &[], false).1, "{\"message\":\"no\"}");
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/grpc+proto"),
        );
        let answer = renderer().render(&fault, &headers, true, "r1");
        let value = |name: &HeaderName| {
            answer
                .headers
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        assert_eq!(value(&GRPC_STATUS).as_deref(), Some("16"));
        assert_eq!(value(&GRPC_MESSAGE).as_deref(), Some("no"));
        assert!(answer.body.is_empty());
    }

    #[test]
    fn fills_own_templates() {
        for (template, expected) in [
            ("oops", "oops"),
            ("<%s>", "<m>"),
            ("%s/%s", "m/r1"),
            ("%s/%s/%s", "m/r1/%s"),
        ] {
            let templates = ErrorTemplates {
                plain: Some(template.to_owned()),
                ..ErrorTemplates::default()
            };
            let renderer = KongRenderer::new(templates, "text/plain", "w");
            assert_eq!(renderer.fill(MediaType::Plain, "m", "r1"), expected);
        }
    }
}
