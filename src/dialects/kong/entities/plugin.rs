//! Plugin instances: which plugin runs where, with which configuration.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    EntityDefinition, EntityKind, Given, OnDelete, Protocol, Reference, RouterFlavor, UniqueSet,
    WriteContext,
};
use crate::config_record;
use crate::dialects::kong::entity_set::EntitySet;
use crate::model::schema::FieldErrors;

config_record! {
    /// An instance of a plugin. Kong: `plugins`.
    pub struct Plugin {
        /// The id of the instance.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The name of the plugin.
        name: String = string().required(),
        /// A label of this instance.
        instance_name: Option<String> = name(),
        /// The route that it runs on; null for all.
        route: Option<Reference> = foreign("routes").default(Value::Null),
        /// The service that it runs on; null for all.
        service: Option<Reference> = foreign("services").default(Value::Null),
        /// The consumer that it runs for; null for all.
        consumer: Option<Reference> = foreign("consumers").default(Value::Null),
        /// The consumer group that it runs for; null for all.
        consumer_group: Option<Reference> = foreign("consumer_groups").default(Value::Null),
        /// The configuration, as the plugin describes it.
        config: Map<String, Value> = abstract_record(),
        /// The protocols on which it runs.
        protocols: Vec<Protocol> = protocols(HTTP_PROTOCOLS),
        /// Whether it runs.
        enabled: bool = boolean().required().default(true),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let cascade = OnDelete::Cascade;
    let mut definition = EntityDefinition::new(EntityKind::Plugin, "plugin", Plugin::schema())
        .endpoint_key(&["instance_name"])
        .link("route", EntityKind::Route, cascade, Some("plugins"))
        .link("service", EntityKind::Service, cascade, Some("plugins"))
        .link("consumer", EntityKind::Consumer, cascade, Some("plugins"))
        .link(
            "consumer_group",
            EntityKind::ConsumerGroup,
            cascade,
            Some("plugins"),
        )
        .unique(UniqueSet::with_null(&[
            "name",
            "route",
            "service",
            "consumer",
            "consumer_group",
        ]));
    definition.complete = Some(complete);
    definition.verify = Some(verify);
    definition
}

/// Fills the configuration and the protocols as the plugin's own description says.
fn complete(plugin: &mut Map<String, Value>, given: &Given<'_>, context: &mut WriteContext<'_>) {
    let Some(info) = plugin
        .get("name")
        .and_then(Value::as_str)
        .and_then(|name| context.catalog.plugin(name))
    else {
        return;
    };
    let config = match plugin.get_mut("config").map(Value::take) {
        None | Some(Value::Null) => Value::Object(info.config.fill(Map::new())),
        Some(Value::Object(config)) => Value::Object(info.config.fill(config)),
        Some(Value::Array(list)) if list.is_empty() => Value::Object(info.config.fill(Map::new())),
        Some(other) => other,
    };
    plugin.insert("config".into(), config);
    let keeps = given.before.is_some() && !given.fields.contains_key("protocols");
    if !keeps && given.fields.get("protocols").is_none_or(Value::is_null) {
        plugin.insert("protocols".into(), info.protocols.iter().copied().collect());
    }
}

fn verify(set: &EntitySet, plugin: &Map<String, Value>, context: &WriteContext<'_>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let Some(name) = plugin.get("name").and_then(Value::as_str) else {
        return errors;
    };
    let Some(info) = context.catalog.plugin(name) else {
        errors.add(
            "name",
            format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property"),
        );
        return errors;
    };
    errors.merge(info.validate(plugin));
    let protocols = words(plugin.get("protocols"));
    if let Some(wrong) = protocols.iter().position(|protocol| !info.allows(protocol)) {
        let mut list = vec![Value::Null; wrong];
        let allowed = [info.protocols, info.further_protocols].concat();
        list.push(format!("expected one of: {}", allowed.join(", ")).into());
        errors.add_tree("protocols", list.into());
    }
    if errors.is_empty() {
        verify_overlap(set, plugin, &protocols, &mut errors);
    }
    errors
}

/// A plugin that shares no protocol with its route, or with any route of its service, would never run.
fn verify_overlap(
    set: &EntitySet,
    plugin: &Map<String, Value>,
    protocols: &[&str],
    errors: &mut FieldErrors,
) {
    let overlaps = |row: &crate::dialects::kong::entity_set::Row| {
        row.parse::<ProtocolsOnly>().is_ok_and(|route| {
            route
                .protocols
                .iter()
                .any(|protocol| protocols.contains(&protocol.name()))
        })
    };
    if let Some(route) = linked(plugin, "route") {
        if let Some(row) = set.row(EntityKind::Route, route)
            && !overlaps(row)
        {
            errors.add("protocols", "must match the associated route's protocols");
        }
    } else if let Some(service) = linked(plugin, "service") {
        let mut routes = set
            .children(EntityKind::Route, "service", service)
            .peekable();
        if routes.peek().is_some() && !routes.any(|row| overlaps(row)) {
            errors.add(
                "protocols",
                "must match the protocols of at least one route pointing to this Plugin's service",
            );
        }
    }
}

#[derive(serde::Deserialize)]
struct ProtocolsOnly {
    protocols: Vec<Protocol>,
}

fn linked(row: &Map<String, Value>, field: &str) -> Option<Uuid> {
    let id = row.get(field)?.get("id")?.as_str()?;
    Uuid::try_parse(id).ok()
}

fn words(list: Option<&Value>) -> Vec<&str> {
    match list {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
