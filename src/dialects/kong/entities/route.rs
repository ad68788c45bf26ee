//! Routes: which requests go to which service.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Protocol, Reference, RouterFlavor};
use crate::config_record;

mod rules;

use crate::model::schema::at_least_one_of;
use rules::{check_header_key, check_host, check_paths, check_sni, check_snis};

config_record! {
    /// An entry of `sources` or `destinations`: each member that is present must match.
    pub struct AddressMatch {
        /// An address or a range in CIDR notation.
        ip: Option<String> = ip_or_cidr(),
        /// A port.
        port: Option<u16> = port(),
    }
}

config_record! {
    /// A route. Kong: `routes`.
    pub struct Route {
        /// The id of the route.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The route name.
        name: Option<String> = name(),
        /// The protocols that the route takes.
        protocols: Vec<Protocol> = protocols(&["http", "https"]).len_min(1).exclusive_subsets(&[
            &["http", "https"], &["tcp", "tls", "udp"], &["tls_passthrough"], &["grpc", "grpcs"],
            &["ws", "wss"],
        ]),
        /// HTTP methods that match.
        methods: Option<Vec<String>> = set(http_method()),
        /// Host names that match, with `*` as the leftmost or rightmost label.
        hosts: Option<Vec<String>> = array(string().validated_by(check_host)).comma_separated(),
        /// Paths that match: prefixes, or regular expressions behind `~`.
        paths: Option<Vec<String>> = array(string().validated_by(check_paths)),
        /// Headers that must be present, with the values of which one must match.
        headers: Option<BTreeMap<String, Vec<String>>> =
            map(header_name().validated_by(check_header_key), array(string()).required()),
        /// The status of the answer when everything but the protocol matches.
        https_redirect_status_code: u16 =
            integer().required().default(426).one_of(&[426, 301, 302, 307, 308]),
        /// Among routes with matching regular expressions the higher number wins.
        regex_priority: Option<i64> = integer().default(0),
        /// Whether the matching prefix is removed from the path sent upstream.
        strip_path: bool = boolean().required().default(true),
        /// How the paths of service, route and request are joined.
        path_handling: Option<String> = string().default("v0").one_of(&["v0", "v1"]),
        /// Whether the request's Host header is sent upstream.
        preserve_host: bool = boolean().required().default(false),
        /// Whether request bodies are collected before they are sent upstream.
        request_buffering: bool = boolean().required().default(true),
        /// Whether response bodies are collected before they are sent to the client.
        response_buffering: bool = boolean().required().default(true),
        /// Server names of the TLS handshake that match.
        snis: Option<Vec<String>> = set(string().validated_by(check_sni)).comma_separated(),
        /// Sources of connections that match.
        sources: Option<Vec<AddressMatch>> = set(address_match()),
        /// Destinations of connections that match.
        destinations: Option<Vec<AddressMatch>> = set(address_match()),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
        /// The service that requests go to.
        service: Option<Reference> = foreign("services"),
        /// The condition as a router expression; only in the flavour `expressions`.
        expression: Option<String> = string(),
        /// Among matching expressions the higher number wins; only in the flavour `expressions`.
        priority: Option<u64> = integer().required().default(0).between(0, PRIORITY_MAX),
    }
}

/// The greatest `priority` of an expression: 2^46 - 1.
const PRIORITY_MAX: f64 = 70_368_744_177_663.0;

pub(super) fn definition(flavor: RouterFlavor) -> EntityDefinition {
    let mut schema = Route::schema();
    if flavor != RouterFlavor::Expressions {
        schema
            .fields
            .retain(|field| !matches!(field.name.as_ref(), "expression" | "priority"));
    }
    let schema = schema.check(check_snis());
    let mut definition = EntityDefinition::new(EntityKind::Route, "route", schema)
        .endpoint_key(&["name"])
        .link(
            "service",
            EntityKind::Service,
            OnDelete::Restrict,
            Some("routes"),
        );
    definition.complete = Some(|route, given, _| grpc_keeps_paths(route, given.fields));
    definition.verify = Some(|_, route, context| rules::verify(route, context.flavor));
    definition
}

/// A gRPC path names the method called, so `strip_path` is false unless someone insists.
fn grpc_keeps_paths(route: &mut Map<String, Value>, given: &Map<String, Value>) {
    let grpc = rules::protocols_of(route)
        .iter()
        .any(|protocol| matches!(*protocol, "grpc" | "grpcs"));
    if grpc && given.get("strip_path").is_none_or(Value::is_null) {
        route.insert("strip_path".into(), Value::Bool(false));
    }
}

fn address_match() -> crate::model::schema::Field {
    crate::model::schema::record(AddressMatch::schema().check(at_least_one_of(&["ip", "port"])))
}
