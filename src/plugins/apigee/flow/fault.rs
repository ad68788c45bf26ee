//! Faults in the shape of the dialect: the default answers, and what the engine's own faults are called.

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::json;

use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::xml::escape_text;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::runtime::fault::{Fault, FaultKind};

const UNAVAILABLE: &str = "The Service is temporarily unavailable";

/// No target can be asked; the reason goes to the log.
pub(crate) fn unavailable(reason: &str) -> PolicyFault {
    tracing::warn!("{reason}");
    PolicyFault::new(
        503,
        "messaging.adaptors.http.flow.ServiceUnavailable",
        UNAVAILABLE,
    )
}

/// TLS towards the target cannot be set up.
pub(crate) fn tls_failed(reason: &str) -> PolicyFault {
    PolicyFault::new(
        503,
        "messaging.adaptors.http.flow.SslHandshakeFailed",
        format!("SSL Handshake failed {reason}"),
    )
}

/// The target stayed silent.
pub(crate) fn gateway_timeout() -> PolicyFault {
    let mut fault = PolicyFault::new(
        504,
        "messaging.adaptors.http.flow.GatewayTimeout",
        "Gateway Timeout",
    );
    fault.reason = Some("TARGET_READ_TIMEOUT".to_owned());
    fault
}

/// A request that brings something says nothing of its length.
pub(crate) fn length_required() -> PolicyFault {
    PolicyFault::new(
        411,
        "messaging.adaptors.http.flow.LengthRequired",
        "Content-Length is missing",
    )
}

/// A policy made a URL or path that cannot be called.
pub(crate) fn bad_path(reason: &str) -> PolicyFault {
    tracing::info!("{reason}");
    PolicyFault::new(500, "protocol.http.BadPath", "Invalid request path")
}

/// No route rule fits.
pub(crate) fn unrouted() -> PolicyFault {
    PolicyFault::new(
        500,
        "messaging.runtime.RouteFailed",
        "Unable to route the message to a TargetEndpoint",
    )
}

/// The proxy that was to be called is not there.
pub(crate) fn no_local_target(name: &str) -> PolicyFault {
    PolicyFault::new(
        500,
        "messaging.runtime.TargetMissing",
        format!("Proxy {name} is not deployed in this environment"),
    )
}

/// Proxies call each other too deeply.
pub(crate) fn too_deep(most: u32) -> PolicyFault {
    PolicyFault::new(
        500,
        "messaging.runtime.ProxyChainTooDeep",
        format!("Proxies and shared flows are nested more than {most} deep"),
    )
}

/// The whole exchange takes too long.
pub(crate) fn api_timed_out() -> PolicyFault {
    PolicyFault::new(504, "flow.APITimedOut", "API timed out")
}

/// No shared flow of this name is deployed.
pub(crate) fn no_shared_flow(name: &str) -> PolicyFault {
    PolicyFault::new(
        500,
        "flow.SharedFlowNotFound",
        format!("Shared Flow {name} Not Found"),
    )
}

/// The target answered with a status that is not a success.
pub(crate) fn error_response(status: u16) -> PolicyFault {
    let mut fault = PolicyFault::new(
        status,
        "messaging.adaptors.http.flow.ErrorResponseCode",
        format!("Received {status} Response"),
    );
    fault.reason = None;
    fault
}

/// A condition could not be decided.
pub(crate) fn undecided(condition: &str, reason: &str) -> PolicyFault {
    tracing::info!("condition '{condition}': {reason}");
    PolicyFault::new(
        500,
        "steps.condition.EvaluationFailed",
        format!("Condition could not be evaluated: {reason}"),
    )
}

/// What one of the engine's faults is called.
pub(crate) fn of_engine(fault: &Fault) -> PolicyFault {
    const FLOW: &str = "messaging.adaptors.http.flow.";
    let made = |status: u16, code: &str, message: &str| {
        PolicyFault::new(status, format!("{FLOW}{code}"), message)
    };
    let mut made = match fault.kind {
        FaultKind::NoEndpoint => made(503, "NoActiveTargets", UNAVAILABLE),
        FaultKind::Connect => made(503, "ServiceUnavailable", UNAVAILABLE),
        FaultKind::TlsHandshake => {
            let reason = fault.cause.as_deref().unwrap_or_default();
            return tls_failed(reason.rsplit("failed: ").next().unwrap_or_default());
        }
        FaultKind::UpstreamTimeout => made(504, "GatewayTimeout", "Gateway Timeout"),
        FaultKind::UpstreamClosed => made(502, "UnexpectedEOFAtTarget", "Unexpected EOF at target"),
        FaultKind::UpstreamMalformed => {
            made(502, "BadResponse", "Response of the target cannot be read")
        }
        FaultKind::RequestTooLarge => {
            PolicyFault::new(413, "protocol.http.TooBigBody", "Body buffer overflow")
        }
        FaultKind::ResponseTooLarge => {
            PolicyFault::new(502, "protocol.http.TooBigBody", "Body buffer overflow")
        }
        FaultKind::Other => made(
            fault.status.as_u16(),
            "InternalError",
            fault.message.as_deref().unwrap_or("Internal error"),
        ),
    };
    made.reason = match fault.kind {
        FaultKind::UpstreamTimeout => Some("TARGET_READ_TIMEOUT".to_owned()),
        _ => None,
    };
    made
}

/// The answer that a fault has as long as nobody changes it. `request` decides between JSON and XML.
pub(crate) fn default_response(fault: &PolicyFault, request: Option<&Message>) -> Message {
    let mut response = Message::response();
    response.status = fault.status;
    let (media, body) = match request.is_some_and(is_xml) {
        true => ("text/xml", xml(fault)),
        false => (
            "application/json",
            json(&fault.message, &fault.code, fault.reason.as_deref()),
        ),
    };
    response
        .headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.content = Bytes::from(body);
    response
}

/// The default body.
pub(crate) fn json(message: &str, code: &str, reason: Option<&str>) -> String {
    let detail = match reason {
        Some(reason) => json!({"errorcode": code, "reason": reason}),
        None => json!({"errorcode": code}),
    };
    // Written in the order that Edge prints.
    format!(
        "{{\"fault\":{{\"faultstring\":{},\"detail\":{detail}}}}}",
        json!(message)
    )
}

fn xml(fault: &PolicyFault) -> String {
    format!(
        "<Envelope xmlns=\"http://www.w3.org/2003/05/soap-envelope\"><Body><Fault><faultcode>soap:Server</faultcode>\
         <faultstring>{}</faultstring><faultactor/><Reason/><detail><source><errorcode>{}</errorcode></source></detail>\
         </Fault></Body></Envelope>",
        escape_text(&fault.message),
        escape_text(&fault.code)
    )
}

fn is_xml(request: &Message) -> bool {
    request.media_type().is_some_and(|media| {
        let media = media.to_ascii_lowercase();
        media == "text/xml" || media == "application/xml" || media.ends_with("soap+xml")
    })
}
