//! Targets: the addresses behind an upstream.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor, UniqueSet};
use crate::config_record;
use crate::model::schema::{Host, parse_address};

/// The port of a target that names none.
pub const DEFAULT_PORT: u16 = 8000;

config_record! {
    /// An address behind an upstream. Kong: `targets`.
    pub struct Target {
        /// The id of the target.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: f64 = timestamp_fraction(),
        /// When it was last written, in seconds since 1970.
        updated_at: f64 = timestamp_fraction(),
        /// The upstream that it serves.
        upstream: Reference = foreign("upstreams").required(),
        /// A host name or address, with port.
        target: String = string().required().validated_by(check_target),
        /// Its share of the requests; zero takes it out.
        weight: u32 = integer().required().default(100).between(0, 65535),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

impl Target {
    /// Host and port; `None` only for a row that was not written through the rules.
    pub fn host_and_port(&self) -> Option<(Host, u16)> {
        let address = parse_address(&self.target)?;
        Some((address.host, address.port.unwrap_or(DEFAULT_PORT)))
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut definition = EntityDefinition::new(EntityKind::Target, "target", Target::schema())
        .path(None)
        .link(
            "upstream",
            EntityKind::Upstream,
            OnDelete::Cascade,
            Some("targets"),
        )
        .unique(UniqueSet::of(&["target", "upstream"]));
    definition.endpoint_key = Some("target");
    definition.endpoint_key_scope = Some("upstream");
    definition.put_creates = false;
    definition.fraction_times = true;
    definition.complete = Some(|target, _, _| normalize(target));
    definition
}

fn check_target(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if parse_address(text).is_none() => Err(format!(
            "Invalid target ('{text}'); not a valid hostname or ip address"
        )),
        _ => Ok(()),
    }
}

fn normalize(target: &mut Map<String, Value>) {
    let normal = target
        .get("target")
        .and_then(Value::as_str)
        .and_then(normal_form);
    if let Some(normal) = normal {
        target.insert("target".into(), normal.into());
    }
}

/// The form in which targets are stored and looked up: `host:port`, names in lower case, IPv6 in brackets.
pub fn normal_form(text: &str) -> Option<String> {
    let address = parse_address(text)?;
    let port = address.port.unwrap_or(DEFAULT_PORT);
    Some(match address.host {
        Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        Host::Ip(ip) => format!("{ip}:{port}"),
        Host::Name(name) => format!("{}:{port}", name.to_ascii_lowercase()),
    })
}
