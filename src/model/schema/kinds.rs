//! Ready-made fields: the vocabulary in which records are described.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Field, Kind, Record};

/// Protocols that a route, service or plugin may name.
pub const PROTOCOLS: &[&str] = &[
    "grpc",
    "grpcs",
    "http",
    "https",
    "tcp",
    "tls",
    "tls_passthrough",
    "udp",
    "ws",
    "wss",
];

/// The protocols of plugins that run on all that the open reference gateway knows.
pub const OPEN_PROTOCOLS: &[&str] = &[
    "grpc",
    "grpcs",
    "http",
    "https",
    "tcp",
    "tls",
    "tls_passthrough",
    "udp",
];

/// The protocols of tunnels whose messages are read.
pub const MESSAGE_PROTOCOLS: &[&str] = &["ws", "wss"];

/// Those of [`PROTOCOLS`] that are not of [`HTTP_PROTOCOLS`].
pub const FURTHER_PROTOCOLS: &[&str] = &["tcp", "tls", "tls_passthrough", "udp", "ws", "wss"];

/// The protocols that most plugins run on.
pub const HTTP_PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https"];

/// The longest time-out accepted, in milliseconds.
pub const TIMEOUT_MAX_MS: u32 = 2_147_483_646;

/// Text.
pub fn string() -> Field {
    Field::of(Kind::String)
}

/// A whole number.
pub fn integer() -> Field {
    Field::of(Kind::Integer)
}

/// Any finite number.
pub fn number() -> Field {
    Field::of(Kind::Number)
}

/// True or false.
pub fn boolean() -> Field {
    Field::of(Kind::Boolean)
}

/// A list that keeps order and duplicates.
pub fn array(element: Field) -> Field {
    Field::of(Kind::Array(Box::new(element)))
}

/// A list without duplicates.
pub fn set(element: Field) -> Field {
    Field::of(Kind::Set(Box::new(element)))
}

/// A mapping with free keys.
pub fn map(keys: Field, values: Field) -> Field {
    Field::of(Kind::Map {
        keys: Box::new(keys),
        values: Box::new(values),
    })
}

/// A nested record.
pub fn record(record: impl Into<Arc<Record>>) -> Field {
    Field::of(Kind::Record(record.into()))
}

/// A link to a row of the named table.
pub fn foreign(table: &'static str) -> Field {
    Field::of(Kind::Foreign(table))
}

/// A record whose description depends on another field.
pub fn abstract_record() -> Field {
    Field::of(Kind::Abstract)
}

/// Anything: the form in conditions of checks.
pub fn any() -> Field {
    Field::of(Kind::Any)
}

/// The id of a row, made by the gateway when absent.
pub fn id() -> Field {
    uuid().auto().named("id")
}

/// Text in UUID form.
pub fn uuid() -> Field {
    string().uuid_form()
}

/// Seconds since 1970, set by the gateway.
pub fn timestamp() -> Field {
    let mut field = integer().auto();
    field.timestamp = true;
    field
}

/// Seconds since 1970 with milliseconds after the point, set by the gateway.
pub fn timestamp_fraction() -> Field {
    let mut field = number().auto();
    field.timestamp = true;
    field
}

/// Labels of a row, by which lists may be filtered.
pub fn tags() -> Field {
    set(string().validated_by(check_tag))
        .named("tags")
        .described("An optional set of strings for grouping and filtering.")
}

/// A name of letters and digits of any script and `. - _ ~`.
pub fn name() -> Field {
    string().unique().validated_by(check_name)
}

/// The name of an HTTP header.
pub fn header_name() -> Field {
    string().validated_by(check_header_name)
}

/// An HTTP method in capitals.
pub fn http_method() -> Field {
    string().matching("^[A-Z]+$", |text| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase())
    })
}

/// A host name or an address, without port.
pub fn host() -> Field {
    string().validated_by(check_host)
}

/// A port.
pub fn port() -> Field {
    integer().between(0, 65535)
}

/// A time in milliseconds, zero allowed.
pub fn timeout() -> Field {
    integer().between(0, TIMEOUT_MAX_MS)
}

/// The path of a URL.
pub fn path() -> Field {
    string()
        .starts_with("/")
        .validated_by(check_no_empty_segment)
        .validated_by(check_path)
}

/// An absolute URL.
pub fn url() -> Field {
    string().validated_by(check_url)
}

/// An IP address.
pub fn ip() -> Field {
    string().validated_by(check_ip)
}

/// An IP address or a range in CIDR notation.
pub fn ip_or_cidr() -> Field {
    string().validated_by(check_ip_or_cidr)
}

/// The server name of a TLS handshake: a host name, not an address, without port.
pub fn sni() -> Field {
    string().validated_by(check_sni)
}

/// The name of a cookie.
pub fn cookie_name() -> Field {
    string().validated_by(check_cookie_name)
}

/// One protocol.
pub fn protocol() -> Field {
    string().one_of(PROTOCOLS)
}

/// A set of protocols with a default.
pub fn protocols(default: &[&str]) -> Field {
    set(protocol()).required().default(json!(default))
}

/// Seconds that a row lives.
pub fn ttl() -> Field {
    number().between(0, 100_000_000)
}

fn check_tag(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    // JSON text is always valid UTF-8, so only ASCII can be wrong.
    match text
        .chars()
        .find(|c| matches!(c, ',' | '/') || (c.is_ascii() && !(' '..='~').contains(c)))
    {
        Some(_) => Err(format!(
            "invalid tag '{text}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
        )),
        None => Ok(()),
    }
}

fn check_name(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let sound = text
        .chars()
        .all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~'));
    if sound {
        Ok(())
    } else {
        Err(format!(
            "invalid value '{text}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"
        ))
    }
}

fn check_header_name(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    {
        Ok(())
    } else {
        Err(format!(
            "bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
        ))
    }
}

fn check_cookie_name(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    // RFC 6265: a token.
    let sound = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if sound {
        Ok(())
    } else {
        Err(format!(
            "bad cookie name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
        ))
    }
}

fn check_host(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    match parse_address(text) {
        Some(Address { port: None, .. }) => Ok(()),
        Some(_) => Err("must not have a port".into()),
        None if names_a_port(text) => Err("must not have a port".into()),
        None => Err(format!("invalid value: {text}")),
    }
}

/// Whether a text that is no address would be one without `:DIGITS` at its end, a port out of range.
pub(crate) fn names_a_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && parse_address(host).is_some_and(|address| address.port.is_none())
    })
}

fn check_sni(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    match parse_address(text) {
        None if names_a_port(text) => Err("must not have a port".into()),
        None => Err(format!("invalid value: {text}")),
        Some(Address { host, .. }) if host.is_ip() => Err("must not be an IP".into()),
        Some(Address { port: Some(_), .. }) => Err("must not have a port".into()),
        Some(_) => Ok(()),
    }
}

fn check_ip(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if text.parse::<IpAddr>().is_err() => Err(format!("not an ip address: {text}")),
        _ => Ok(()),
    }
}

fn check_ip_or_cidr(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if text.parse::<IpAddr>().is_err() && text.parse::<ipnet::IpNet>().is_err() => {
            Err(format!("invalid ip or cidr range: '{text}'"))
        }
        _ => Ok(()),
    }
}

/// Refuses `//`.
pub(crate) fn check_no_empty_segment(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if text.contains("//") => Err("must not have empty segments".into()),
        _ => Ok(()),
    }
}

/// Refuses characters that no path may hold, and broken percent-encoding.
pub(crate) fn check_path(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%:@!$&'()*+,;=".contains(&byte);
    if !text.bytes().all(legal) {
        return Err(format!(
            "invalid path: '{text}' (characters outside of the reserved list of RFC 3986 found)"
        ));
    }
    check_percent_encoding(text)
}

/// Refuses a `%` that two hexadecimal digits do not follow.
pub(crate) fn check_percent_encoding(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    for at in memchr::memchr_iter(b'%', bytes) {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            let shown: String = text.get(at..).unwrap_or("%").chars().take(3).collect();
            return Err(format!("invalid url-encoded value: '{shown}'"));
        }
    }
    Ok(())
}

fn check_url(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    if text.starts_with("//") && text.len() > 2 {
        return Err("missing scheme in url".into());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("missing host in url".into());
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Err("missing host in url".into());
    }
    let scheme_sound = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !scheme_sound {
        return Err("missing scheme in url".into());
    }
    Ok(())
}

/// A host as written in configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name, as written.
    Name(String),
}

impl Host {
    /// Whether it is an address.
    pub fn is_ip(&self) -> bool {
        matches!(self, Self::Ip(_))
    }
}

/// A host with an optional port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The port, when one was written.
    pub port: Option<u16>,
}

/// The longest host name, as DNS allows it in text form.
const HOST_NAME_BYTES_MAX: usize = 253;

/// Reads `name`, `name:port`, `1.2.3.4`, `1.2.3.4:port`, `::1`, `[::1]` or `[::1]:port`; `None` when it is none of these.
///
/// Names follow DNS loosely: letters, digits, `-`, `_` and dots, not starting with a dot or dash.
pub fn parse_address(text: &str) -> Option<Address> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let host = Host::Ip(IpAddr::V6(inside.parse().ok()?));
        let port = match after {
            "" => None,
            after => Some(parse_port(after.strip_prefix(':')?)?),
        };
        return Some(Address { host, port });
    }
    if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
        return Some(Address {
            host: Host::Ip(IpAddr::V6(address)),
            port: None,
        });
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(parse_port(port)?)),
    };
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return Some(Address {
            host: Host::Ip(IpAddr::V4(address)),
            port,
        });
    }
    is_host_name(host).then(|| Address {
        host: Host::Name(host.to_owned()),
        port,
    })
}

fn parse_port(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label_sound = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // Four numbers, one too large, are a mistyped address and not a name; nor is a bare number.
    let looks_like_ipv4 = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.len() <= HOST_NAME_BYTES_MAX && !looks_like_ipv4 && text.split('.').all(label_sound)
}
