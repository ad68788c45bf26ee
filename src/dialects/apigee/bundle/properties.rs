//! The properties of endpoints: literal settings by name.
//!
//! A property that is not known changes nothing at Apigee either and gets a warning. One whose value cannot be meant is
//! an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::xml::{Element, Fields, Findings, boolean_of};

/// How long connecting to a target may take, in milliseconds. Property `connect.timeout.millis`.
const CONNECT_TIMEOUT_MS: u32 = 3_000;
/// How long a target may stay silent, in milliseconds. Property `io.timeout.millis`.
const IO_TIMEOUT_MS: u32 = 55_000;
/// How long an idle connection is kept, in milliseconds. Property `keepalive.timeout.millis`.
const KEEPALIVE_TIMEOUT_MS: u32 = 60_000;
/// Longest body that is held, in bytes. Property `response.payload.parse.limit`.
const PAYLOAD_BYTES_MAX: u64 = 10 << 20;

/// What a body is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    Gzip,
    Deflate,
    None,
}

/// Which headers or query parameters are passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retain {
    /// All of them.
    pub all: bool,
    /// Those named, when not all. Overrides `all` when it names any.
    pub names: Vec<String>,
}

impl Default for Retain {
    fn default() -> Self {
        Self {
            all: true,
            names: Vec::new(),
        }
    }
}

impl Retain {
    /// Is everything passed on?
    pub fn keeps_all(&self) -> bool {
        self.all && self.names.is_empty()
    }

    /// Is this one passed on? Names of headers are compared without regard to case.
    pub fn keeps(&self, name: &str) -> bool {
        self.keeps_all()
            || self
                .names
                .iter()
                .any(|kept| kept.eq_ignore_ascii_case(name))
    }
}

/// Statuses, `x` standing for any digit: `2xx`, `404`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CodePattern(String);

impl CodePattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let fits = text.len() == 3
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'x');
        fits.then_some(Self(text))
    }

    /// Does a status fit?
    pub fn matches(&self, status: u16) -> bool {
        let digits = [status / 100 % 10, status / 10 % 10, status % 10];
        let pattern = self.0.bytes();
        status < 1_000
            && pattern.zip(digits).all(|(wanted, digit)| {
                wanted == b'x' || u16::from(wanted.wrapping_sub(b'0')) == digit
            })
    }
}

/// Is a target's status a success? Without patterns: below 400.
pub fn is_success(codes: &[CodePattern], status: u16) -> bool {
    match codes {
        [] => status < 400,
        codes => codes.iter().any(|code| code.matches(status)),
    }
}

/// Settings of a connection to a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetProperties {
    pub connect_timeout_ms: u32,
    pub io_timeout_ms: u32,
    /// How long an idle connection is kept; none: as the gateway's settings say.
    pub keepalive_timeout_ms: Option<u32>,
    /// Empty: all below 400.
    pub success_codes: Vec<CodePattern>,
    pub request_streaming: bool,
    pub response_streaming: bool,
    pub compression: Option<Compression>,
    pub request_headers: Retain,
    pub response_headers: Retain,
    pub query_parameters: Retain,
    /// Method told in `X-HTTP-Method-Override`, by the method sent.
    pub method_override: BTreeMap<String, String>,
    pub allow_post_without_length: bool,
    pub allow_put_without_length: bool,
    pub ignore_allow_header_for_405: bool,
    pub request_payload_bytes_max: u64,
    pub response_payload_bytes_max: u64,
}

impl Default for TargetProperties {
    fn default() -> Self {
        Self {
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            io_timeout_ms: IO_TIMEOUT_MS,
            keepalive_timeout_ms: None,
            success_codes: Vec::new(),
            request_streaming: false,
            response_streaming: false,
            compression: None,
            request_headers: Retain::default(),
            response_headers: Retain::default(),
            query_parameters: Retain::default(),
            method_override: BTreeMap::new(),
            allow_post_without_length: false,
            allow_put_without_length: false,
            ignore_allow_header_for_405: false,
            request_payload_bytes_max: PAYLOAD_BYTES_MAX,
            response_payload_bytes_max: PAYLOAD_BYTES_MAX,
        }
    }
}

/// Settings of a connection from clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyProperties {
    pub request_streaming: bool,
    pub response_streaming: bool,
    pub compression: Option<Compression>,
    /// How long a whole exchange may take.
    pub api_timeout_ms: Option<u64>,
    /// Methods that are not allowed.
    pub refused_methods: Vec<String>,
    pub refuses_http10: bool,
    pub refuses_http11: bool,
    /// The address that the client connected to is added to `X-Forwarded-For`.
    pub forwards_own_address: bool,
    /// Lower-case names of headers that may be sent more than once though they have one value only.
    pub duplicates_allowed: Vec<String>,
}

struct Property<'a> {
    name: &'a str,
    value: String,
    at: SourceRef,
}

fn properties<'a>(element: Element<'a>, findings: &mut Findings) -> Vec<Property<'a>> {
    let mut fields = Fields::new(element);
    let mut list = Vec::new();
    for child in fields.children("Property") {
        let mut property = Fields::new(child);
        if let Some(name) = property.required_attribute("name", findings) {
            list.push(Property {
                name,
                value: child.text().into_owned(),
                at: child.place().about(format!("property \"{name}\"")),
            });
        }
        property.finish(findings);
    }
    fields.finish(findings);
    list
}

impl Property<'_> {
    fn flag(&self, findings: &mut Findings) -> bool {
        boolean_of(&self.value).unwrap_or_else(|| {
            let message = format!("must be true or false, not '{}'", self.value);
            findings.error("invalid-value", self.at.clone(), message);
            false
        })
    }

    fn milliseconds(&self, default: u32, findings: &mut Findings) -> u32 {
        match self.value.parse::<u32>() {
            Ok(0) => u32::MAX,
            Ok(number) => number,
            Err(_) => {
                let message = format!("must be a number of milliseconds, not '{}'", self.value);
                findings.error("invalid-value", self.at.clone(), message);
                default
            }
        }
    }

    /// A number of bytes, with `K` or `M` for powers of 1024.
    fn bytes(&self, findings: &mut Findings) -> u64 {
        /// Nothing longer is ever held.
        const LIMIT_MAX: u64 = 100 << 20;
        let text = self.value.trim().to_ascii_lowercase();
        let text = text.strip_suffix('b').unwrap_or(&text);
        let (digits, factor) = match text.as_bytes().last() {
            Some(b'k') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm') => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1),
        };
        let bytes = digits
            .trim()
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        match bytes {
            Some(bytes) if (1..=LIMIT_MAX).contains(&bytes) => bytes,
            _ => {
                let message = format!("must be a size from 1 to 100M, not '{}'", self.value);
                findings.error("invalid-value", self.at.clone(), message);
                PAYLOAD_BYTES_MAX
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let names = self.value.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn compression(&self, findings: &mut Findings) -> Option<Compression> {
        match &*self.value {
            "gzip" => Some(Compression::Gzip),
            "deflate" => Some(Compression::Deflate),
            "none" => Some(Compression::None),
            "" => None,
            other => {
                let message = format!("must be gzip, deflate or none, not '{other}'");
                findings.error("invalid-value", self.at.clone(), message);
                None
            }
        }
    }

    fn codes(&self, findings: &mut Findings) -> Vec<CodePattern> {
        let mut codes = Vec::new();
        for text in self.names() {
            match CodePattern::parse(&text) {
                Some(code) => codes.push(code),
                None => {
                    let message = format!("'{text}' is no status, write 404 or 4xx");
                    findings.error("invalid-value", self.at.clone(), message);
                }
            }
        }
        codes
    }

    fn unknown(&self, findings: &mut Findings) {
        findings.warning(
            "unknown-property",
            self.at.clone(),
            "is not known and has no effect",
        );
    }
}

/// Reads `<Properties>` of a connection to a target.
pub(super) fn read_target_properties(
    element: Element<'_>,
    findings: &mut Findings,
) -> TargetProperties {
    let mut read = TargetProperties::default();
    let mut overrides_enabled = None;
    for property in properties(element, findings) {
        match property.name {
            "connect.timeout.millis" => {
                read.connect_timeout_ms = property.milliseconds(CONNECT_TIMEOUT_MS, findings);
            }
            "io.timeout.millis" => {
                read.io_timeout_ms = property.milliseconds(IO_TIMEOUT_MS, findings);
            }
            "keepalive.timeout.millis" => {
                let limit = property.milliseconds(KEEPALIVE_TIMEOUT_MS, findings);
                read.keepalive_timeout_ms = Some(limit);
            }
            "success.codes" => read.success_codes = property.codes(findings),
            "request.streaming.enabled" => read.request_streaming = property.flag(findings),
            "response.streaming.enabled" => read.response_streaming = property.flag(findings),
            "compression.algorithm" => read.compression = property.compression(findings),
            "request.retain.headers.enabled" => read.request_headers.all = property.flag(findings),
            "request.retain.headers" => read.request_headers.names = property.names(),
            "response.retain.headers.enabled" => {
                read.response_headers.all = property.flag(findings)
            }
            "response.retain.headers" => read.response_headers.names = property.names(),
            "retain.queryparams.enabled" => read.query_parameters.all = property.flag(findings),
            "retain.queryparams" => read.query_parameters.names = property.names(),
            "enable.method.override" => overrides_enabled = Some(property.flag(findings)),
            "allow.post.without.content.length" => {
                read.allow_post_without_length = property.flag(findings);
            }
            "allow.put.without.content.length" => {
                read.allow_put_without_length = property.flag(findings);
            }
            "ignore.allow.header.for.405" => {
                read.ignore_allow_header_for_405 = property.flag(findings);
            }
            "request.payload.parse.limit" => {
                read.request_payload_bytes_max = property.bytes(findings);
            }
            "response.payload.parse.limit" => {
                read.response_payload_bytes_max = property.bytes(findings);
            }
            // HTTP/1.1 is what targets are spoken to; there is no proxy before them.
            "supports.http10" | "supports.http11" => {
                if !property.flag(findings) && property.name == "supports.http11" {
                    findings.error(
                        "unsupported-property",
                        property.at.clone(),
                        "targets are spoken to in HTTP/1.1 only",
                    );
                }
            }
            "use.proxy" | "use.proxy.tunneling" | "use.proxy.host.header.with.target.uri" => {
                findings.warning(
                    "no-effect",
                    property.at.clone(),
                    "has no effect, targets are reached without a forward proxy",
                );
            }
            name => match name.strip_suffix(".override.method") {
                Some(method) if !property.value.is_empty() => {
                    read.method_override
                        .insert(method.to_owned(), property.value.clone());
                }
                _ => property.unknown(findings),
            },
        }
    }
    if overrides_enabled == Some(false) {
        read.method_override.clear();
    }
    read
}

/// Reads `<Properties>` of a connection from clients.
pub(super) fn read_proxy_properties(
    element: Element<'_>,
    findings: &mut Findings,
) -> ProxyProperties {
    let mut read = ProxyProperties::default();
    for property in properties(element, findings) {
        match property.name {
            "request.streaming.enabled" => read.request_streaming = property.flag(findings),
            "response.streaming.enabled" => read.response_streaming = property.flag(findings),
            "compression.algorithm" => read.compression = property.compression(findings),
            "X-Forwarded-For" => read.forwards_own_address = property.flag(findings),
            "api.timeout" => {
                let limit = property.milliseconds(u32::MAX, findings);
                read.api_timeout_ms = (limit != u32::MAX).then_some(u64::from(limit));
            }
            "allow.http10" => read.refuses_http10 = !property.flag(findings),
            "allow.http11" => read.refuses_http11 = !property.flag(findings),
            "HTTPHeader.allowDuplicates" | "HTTPHeader.multiValued" => {
                let names = property.names().into_iter();
                read.duplicates_allowed
                    .extend(names.map(|name| name.to_ascii_lowercase()));
            }
            "request.payload.parse.limit" | "response.payload.parse.limit" => {
                findings.warning(
                    "no-effect",
                    property.at.clone(),
                    "has no effect in a proxy endpoint, set it on the target endpoint",
                );
            }
            name => match name.strip_prefix("allow.http.method.") {
                Some(method) => {
                    if !property.flag(findings) {
                        read.refused_methods.push(method.to_ascii_uppercase());
                    }
                }
                None => property.unknown(findings),
            },
        }
    }
    read
}
