//! Upstreams: named groups of targets, with balancing and health checks.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor};
use crate::config_record;
use crate::model::schema::{
    Field, Record, any, array, conditional, distinct, integer, number, parse_address, string,
};

config_record! {
    /// When active probes make a target healthy.
    pub struct ActiveHealthy {
        /// Seconds between probes of healthy targets; zero for none.
        interval: f64 = seconds().default(0),
        /// Statuses that count as success.
        http_statuses: Vec<u16> = statuses(&[200, 302]),
        /// Successes that make a target healthy; zero for never.
        successes: u16 = counter(),
    }
}

config_record! {
    /// When active probes make a target unhealthy.
    pub struct ActiveUnhealthy {
        /// Seconds between probes of unhealthy targets; zero for none.
        interval: f64 = seconds().default(0),
        /// Statuses that count as failure.
        http_statuses: Vec<u16> = statuses(&[429, 404, 500, 501, 502, 503, 504, 505]),
        /// Connection failures that make a target unhealthy; zero for never.
        tcp_failures: u16 = counter(),
        /// Time-outs that make a target unhealthy; zero for never.
        timeouts: u16 = counter(),
        /// Failing statuses that make a target unhealthy; zero for never.
        http_failures: u16 = counter(),
    }
}

config_record! {
    /// Probes sent by the gateway.
    pub struct ActiveHealthcheck {
        /// What a probe is.
        r#type: String = check_type(),
        /// Seconds that a probe may take.
        timeout: f64 = seconds().default(1),
        /// Probes in flight at once.
        concurrency: u32 = integer().required().default(10).between(1, 2_147_483_648_u32),
        /// The path that a probe asks for.
        http_path: String = path().required().default("/"),
        /// The server name of a probe's handshake.
        https_sni: Option<String> = sni(),
        /// Whether a probe verifies the certificate.
        https_verify_certificate: bool = boolean().required().default(true),
        /// Headers of a probe.
        headers: Option<BTreeMap<String, Vec<String>>> =
            map(header_name(), array(string()).required()),
        /// When a target becomes healthy.
        healthy: ActiveHealthy = ActiveHealthy::schema_kind().required(),
        /// When a target becomes unhealthy.
        unhealthy: ActiveUnhealthy = ActiveUnhealthy::schema_kind().required(),
    }
}

config_record! {
    /// When traffic makes a target healthy.
    pub struct PassiveHealthy {
        /// Statuses that count as success.
        http_statuses: Vec<u16> = statuses(&[
            200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308,
        ]),
        /// Successes that make a target healthy; zero for never.
        successes: u16 = counter(),
    }
}

config_record! {
    /// When traffic makes a target unhealthy.
    pub struct PassiveUnhealthy {
        /// Statuses that count as failure.
        http_statuses: Vec<u16> = statuses(&[429, 500, 503]),
        /// Connection failures that make a target unhealthy; zero for never.
        tcp_failures: u16 = counter(),
        /// Time-outs that make a target unhealthy; zero for never.
        timeouts: u16 = counter(),
        /// Failing statuses that make a target unhealthy; zero for never.
        http_failures: u16 = counter(),
    }
}

config_record! {
    /// What traffic tells about targets.
    pub struct PassiveHealthcheck {
        /// What traffic is.
        r#type: String = check_type(),
        /// When a target becomes healthy.
        healthy: PassiveHealthy = PassiveHealthy::schema_kind().required(),
        /// When a target becomes unhealthy.
        unhealthy: PassiveUnhealthy = PassiveUnhealthy::schema_kind().required(),
    }
}

config_record! {
    /// How the health of targets is found out.
    pub struct Healthchecks {
        /// By probes.
        active: ActiveHealthcheck = ActiveHealthcheck::schema_kind().required(),
        /// By traffic.
        passive: PassiveHealthcheck = PassiveHealthcheck::schema_kind().required(),
        /// The least share of available weight, in per cent, for the whole to be healthy.
        threshold: f64 = number().required().default(0).between(0, 100),
    }
}

config_record! {
    /// A group of targets under a host name. Kong: `upstreams`.
    pub struct Upstream {
        /// The id of the upstream.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The host name by which services refer to it.
        name: String = string().required().unique().validated_by(check_name),
        /// How a target is chosen.
        algorithm: String = string().required().default("round-robin")
            .one_of(&["consistent-hashing", "least-connections", "round-robin", "latency", "sticky-sessions"]),
        /// What is hashed.
        hash_on: String = hash_input(),
        /// What is hashed when the first has no value.
        hash_fallback: String = hash_input(),
        /// The header for `header`.
        hash_on_header: Option<String> = header_name(),
        /// The header for a fallback of `header`.
        hash_fallback_header: Option<String> = header_name(),
        /// The cookie for `cookie`; made when a request has none.
        hash_on_cookie: Option<String> = cookie_name(),
        /// The path of a cookie that is made.
        hash_on_cookie_path: Option<String> = path().default("/"),
        /// The query argument for `query_arg`.
        hash_on_query_arg: Option<String> = plain_name(),
        /// The query argument for a fallback of `query_arg`.
        hash_fallback_query_arg: Option<String> = plain_name(),
        /// The capture of the route's path for `uri_capture`.
        hash_on_uri_capture: Option<String> = plain_name(),
        /// The capture of the route's path for a fallback of `uri_capture`.
        hash_fallback_uri_capture: Option<String> = plain_name(),
        /// The cookie of `sticky-sessions`, which keeps a client at one target.
        sticky_sessions_cookie: Option<String> = cookie_name(),
        /// The path of that cookie.
        sticky_sessions_cookie_path: Option<String> = path().default("/"),
        /// Slots on the ring of consistent hashing.
        slots: u32 = integer().required().default(10000).between(10, 65536),
        /// How the health of targets is found out.
        healthchecks: Healthchecks = Healthchecks::schema_kind().required(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
        /// The Host header sent to targets.
        host_header: Option<String> = string().validated_by(check_host_with_port),
        /// The certificate shown to targets.
        client_certificate: Option<Reference> = foreign("certificates"),
        /// Whether the name of a SRV answer is sent as Host header.
        use_srv_name: Option<bool> = boolean().default(false),
    }
}

fn seconds() -> Field {
    number().required().between(0, 65535)
}

fn counter() -> Field {
    integer().required().default(0).between(0, 255)
}

fn statuses(default: &[u16]) -> Field {
    array(integer().between(100, 999))
        .required()
        .default(default.to_vec())
}

fn check_type() -> Field {
    string()
        .required()
        .default("http")
        .one_of(&["tcp", "http", "https", "grpc", "grpcs"])
}

fn hash_input() -> Field {
    string().required().default("none").one_of(&[
        "none",
        "consumer",
        "ip",
        "header",
        "cookie",
        "path",
        "query_arg",
        "uri_capture",
    ])
}

fn plain_name() -> Field {
    string().len_min(1)
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut definition = EntityDefinition::new(
        EntityKind::Upstream,
        "upstream",
        with_checks(Upstream::schema()),
    )
    .endpoint_key(&["name"])
    .link(
        "client_certificate",
        EntityKind::Certificate,
        OnDelete::Restrict,
        Some("upstreams"),
    );
    definition.complete = Some(|upstream, given, _| settle_algorithm(upstream, given.fields));
    definition
}

fn with_checks(mut schema: Record) -> Record {
    let is = |value: &str| string().eq(value);
    for (input, choice, name) in [
        ("hash_on", "header", "hash_on_header"),
        ("hash_fallback", "header", "hash_fallback_header"),
        ("hash_on", "cookie", "hash_on_cookie"),
        ("hash_fallback", "cookie", "hash_on_cookie"),
        ("hash_on", "query_arg", "hash_on_query_arg"),
        ("hash_fallback", "query_arg", "hash_fallback_query_arg"),
        ("hash_on", "uri_capture", "hash_on_uri_capture"),
        ("hash_fallback", "uri_capture", "hash_fallback_uri_capture"),
    ] {
        schema = schema.check(conditional(input, is(choice), name, any().required()));
    }
    // Without a first hash there is no fallback; a cookie is made when absent, so its fallback is never reached.
    for choice in ["none", "cookie"] {
        schema = schema.check(conditional(
            "hash_on",
            is(choice),
            "hash_fallback",
            string().one_of(&["none"]),
        ));
    }
    for choice in ["consumer", "ip", "path"] {
        let others: Vec<&str> = [
            "none",
            "consumer",
            "ip",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ]
        .into_iter()
        .filter(|other| *other != choice)
        .collect();
        schema = schema.check(conditional(
            "hash_on",
            is(choice),
            "hash_fallback",
            string().one_of(&others),
        ));
    }
    schema
        .check(conditional(
            "algorithm",
            is("sticky-sessions"),
            "sticky_sessions_cookie",
            any().required(),
        ))
        .check(distinct(&["hash_on_header", "hash_fallback_header"]))
        .check(distinct(&["hash_on_query_arg", "hash_fallback_query_arg"]))
        .check(distinct(&[
            "hash_on_uri_capture",
            "hash_fallback_uri_capture",
        ]))
}

/// Keeps `algorithm` and `hash_on` consistent: what the client wrote decides, the other follows.
fn settle_algorithm(upstream: &mut Map<String, Value>, given: &Map<String, Value>) {
    let word = |row: &Map<String, Value>, field: &str| {
        row.get(field).and_then(Value::as_str).map(str::to_owned)
    };
    let algorithm = word(upstream, "algorithm");
    match (word(given, "algorithm"), word(given, "hash_on")) {
        (Some(chosen), _)
            if matches!(
                chosen.as_str(),
                "least-connections" | "latency" | "sticky-sessions"
            ) =>
        {
            for (field, value) in [("hash_on", "none"), ("hash_fallback", "none")] {
                upstream.insert(field.into(), value.into());
            }
        }
        (_, Some(input)) if input != "none" => {
            upstream.insert("algorithm".into(), "consistent-hashing".into());
        }
        (given_algorithm, Some(_))
            if given_algorithm.is_none() && algorithm.as_deref() == Some("consistent-hashing") =>
        {
            upstream.insert("algorithm".into(), "round-robin".into());
        }
        _ => {}
    }
}

fn check_name(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let complaint = match parse_address(text) {
        None => "must be a valid hostname",
        Some(address) if address.host.is_ip() => "no ip addresses allowed",
        Some(address) if address.port.is_some() => "no port allowed",
        Some(_) => return Ok(()),
    };
    Err(format!("Invalid name ('{text}'); {complaint}"))
}

fn check_host_with_port(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if parse_address(text).is_none() => Err(format!("invalid hostname: {text}")),
        _ => Ok(()),
    }
}
