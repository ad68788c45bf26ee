//! `ServiceCallout`: asks another service in the middle of a flow.

use serde::{Deserialize, Serialize};

use super::message_edits::{self, Edits};
use super::{Bodies, Callout, Parsed, PolicyReader};
use crate::dialects::apigee::bundle::{read_http_target, read_local_target};
use crate::dialects::apigee::xml::Fields;

/// How long a call may take where nothing is written, in milliseconds.
const TIMEOUT_MS: u64 = 55_000;
/// The message that is sent where none is named.
const REQUEST: &str = "servicecallout.request";

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The message to send.
    pub request: String,
    pub clear_payload: bool,
    /// The request was named; otherwise a fresh one is made for each call.
    pub is_named: bool,
    pub edits: Edits,
    /// Where the response goes; without it nobody waits for one.
    pub response: Option<String>,
    pub timeout_ms: u64,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let mut config = Config {
        request: REQUEST.to_owned(),
        clear_payload: true,
        is_named: false,
        edits: Edits::default(),
        response: None,
        timeout_ms: TIMEOUT_MS,
    };
    if let Some(element) = fields.child("Request", findings) {
        let mut request = Fields::new(element);
        if let Some(name) = request.attribute_text("variable") {
            config.request = name.to_owned();
            config.is_named = true;
        }
        config.clear_payload = request.boolean_attribute("clearPayload", true, findings);
        config.edits = message_edits::read(&mut request, false, findings);
        request.finish(findings);
    }
    config.response = fields
        .filled_text("Response", findings)
        .map(|text| text.into_owned());
    if let Some(timeout) = fields.number("Timeout", 1..=3_600_000, findings) {
        config.timeout_ms = timeout;
    }
    let http = fields.child_spelled(&["HTTPTargetConnection", "HttpTargetConnection"], findings);
    let local = fields.child("LocalTargetConnection", findings);
    let callout = match (http, local) {
        (Some(element), None) => Callout::Http(Box::new(read_http_target(element, findings))),
        (None, Some(element)) => Callout::Local(read_local_target(element, findings)?),
        (None, None) => {
            reader.error(
                "ConnectionInfoMissing",
                "needs <HTTPTargetConnection> or <LocalTargetConnection>",
            );
            return None;
        }
        (Some(_), Some(_)) => {
            reader.error(
                "several-targets",
                "has both <HTTPTargetConnection> and <LocalTargetConnection>, one is allowed",
            );
            return None;
        }
    };
    // The request itself is sent with its body.
    let bodies = match config.request.as_str() {
        "request" => Bodies::REQUEST,
        _ => Bodies::NONE,
    };
    let mut parsed = reader.parsed(&config)?.with_bodies(bodies);
    parsed.callout = Some(callout);
    Some(parsed)
}
