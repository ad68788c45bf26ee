//! Services: where requests go.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Protocol, Reference, RouterFlavor};
use crate::config_record;
use crate::model::schema::{FieldErrors, any, conditional, json, parse_address, string};

config_record! {
    /// A service: the upstream application that routes lead to. Kong: `services`.
    pub struct Service {
        /// The id of the service.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The service name.
        name: Option<String> = name(),
        /// How often a request is tried again on failure to reach the upstream.
        retries: Option<u32> = integer().default(5).between(0, 32767),
        /// The protocol spoken with the upstream.
        protocol: Protocol = protocol().required().default("http"),
        /// The host of the upstream: a name, an address, or the name of an upstream entity.
        host: String = host().required(),
        /// The port of the upstream.
        port: u16 = port().required().default(80),
        /// The path put before that of each request.
        path: Option<String> = path(),
        /// Milliseconds to wait for a connection.
        connect_timeout: Option<u32> = integer().default(60000).between(1, TIMEOUT_MAX_MS),
        /// Milliseconds between two successive writes.
        write_timeout: Option<u32> = integer().default(60000).between(1, TIMEOUT_MAX_MS),
        /// Milliseconds between two successive reads.
        read_timeout: Option<u32> = integer().default(60000).between(1, TIMEOUT_MAX_MS),
        /// Strings for grouping and filtering. `proxy_protocol:v1` or `proxy_protocol:v2` makes connections to the
        /// upstream of a `tcp` or `tls` service begin with a PROXY header that names the client.
        tags: Option<Vec<String>> = tags(),
        /// The certificate shown to the upstream.
        client_certificate: Option<Reference> = foreign("certificates"),
        /// Whether the certificate of the upstream is verified; null leaves it to the general setting.
        tls_verify: Option<bool> = boolean(),
        /// How long the chain of the upstream's certificate may be.
        tls_verify_depth: Option<u32> = integer().between(0, 64),
        /// The authorities trusted for the upstream's certificate.
        ca_certificates: Option<Vec<Uuid>> = array(uuid()),
        /// Whether the service takes part; without it its routes are as if absent.
        enabled: bool = boolean().required().default(true),
    }
}

/// A tag that starts so is no mere label: Kong has no field for what it says.
pub const PROXY_HEADER_TAG: &str = "proxy_protocol:";

/// Protocols whose upstream speaks TLS and may be verified.
const TLS: &[&str] = &["https", "tls", "wss"];

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut schema = Service::schema().check(conditional(
        "protocol",
        string().one_of(&["tcp", "tls", "udp", "grpc", "grpcs", "tls_passthrough"]),
        "path",
        any().eq(Value::Null),
    ));
    for field in [
        "client_certificate",
        "tls_verify",
        "tls_verify_depth",
        "ca_certificates",
    ] {
        schema = schema.check(conditional(
            "protocol",
            string().not_one_of(TLS),
            field,
            any().eq(Value::Null),
        ));
    }
    let mut definition = EntityDefinition::new(EntityKind::Service, "service", schema)
        .endpoint_key(&["name"])
        .link(
            "client_certificate",
            EntityKind::Certificate,
            OnDelete::Restrict,
            Some("services"),
        );
    definition.shorthands.push(
        string()
            .named("url")
            .described("Sets protocol, host, port and path at once."),
    );
    definition.expand = Some(expand_url);
    definition.verify = Some(|_, service, _| check_tags(service));
    definition
}

/// Holds the tag about PROXY headers to what can be done.
fn check_tags(service: &Map<String, Value>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let tags = match service.get("tags") {
        Some(Value::Array(tags)) => tags.as_slice(),
        _ => &[],
    };
    let mut asked = tags
        .iter()
        .filter_map(|tag| tag.as_str()?.strip_prefix(PROXY_HEADER_TAG));
    let Some(version) = asked.next() else {
        return errors;
    };
    let protocol = service.get("protocol").and_then(Value::as_str);
    if !matches!(version, "v1" | "v2") || asked.next().is_some() {
        errors.add(
            "tags",
            format!("'{PROXY_HEADER_TAG}' must be followed by 'v1' or 'v2', in one tag only"),
        );
    } else if !matches!(protocol, Some("tcp" | "tls")) {
        errors.add(
            "tags",
            format!(
                "'{PROXY_HEADER_TAG}{version}' can only be set when 'protocol' is 'tcp' or 'tls'"
            ),
        );
    }
    errors
}

/// Splits `url` into protocol, host, port and path.
fn expand_url(given: &mut Map<String, Value>) -> Result<(), FieldErrors> {
    let Some(url) = given.shift_remove("url") else {
        return Ok(());
    };
    let url = match url {
        Value::Null => return Ok(()),
        Value::String(url) => url,
        _ => return Err(FieldErrors::one("url", "expected a string")),
    };
    let missing_host = || FieldErrors::one("url", "missing host in url");
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url.strip_prefix("//").unwrap_or(&url)),
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    // A service holds no user, query or fragment.
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Err(missing_host());
    }
    let (host, port) = match parse_address(authority) {
        Some(address) => {
            let host = match address.port {
                Some(_) => authority
                    .rsplit_once(':')
                    .map_or(authority, |(host, _)| host),
                None => authority,
            };
            (host, address.port)
        }
        // What is no host is refused by the rule of the field, in its words.
        None => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let protocol = match (scheme, port) {
        (Some(scheme), _) => Some(scheme),
        (None, Some(443)) => Some("https"),
        (None, _) => None,
    };
    let port = port.unwrap_or(match protocol {
        Some("https" | "wss") => 443,
        _ => 80,
    });
    if let Some(protocol) = protocol {
        given.insert("protocol".into(), json!(protocol));
    }
    given.insert("host".into(), json!(host));
    given.insert("port".into(), json!(port));
    given.insert(
        "path".into(),
        if path.is_empty() {
            Value::Null
        } else {
            json!(path)
        },
    );
    Ok(())
}
