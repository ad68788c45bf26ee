//! What the dialects may know about the plugins: names, schemas, priorities and scopes, never their code.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::schema::{
    Check, FURTHER_PROTOCOLS, FieldErrors, HTTP_PROTOCOLS, MESSAGE_PROTOCOLS, OPEN_PROTOCOLS,
    Record,
};

/// What a plugin tells about itself.
#[derive(Debug, Clone)]
pub struct PluginInfo {
    /// The name by which configurations refer to it, for example `key-auth`.
    pub name: &'static str,
    /// Its version, as shown to administrators.
    pub version: &'static str,
    /// When it runs: higher first.
    pub priority: i32,
    /// The default of an instance's `protocols`, and with `further_protocols` the only ones it may have.
    pub protocols: &'static [&'static str],
    /// Protocols that an instance may name but does not have by default.
    pub further_protocols: &'static [&'static str],
    /// Whether an instance may be tied to a consumer (authentication itself may not).
    pub consumer_scope: bool,
    /// Whether an instance may be tied to a route.
    pub route_scope: bool,
    /// Whether an instance may be tied to a service.
    pub service_scope: bool,
    /// The description of its `config`.
    pub config: Arc<Record>,
    /// Checks over a whole instance; their paths start with `config.`.
    pub checks: Vec<Check>,
    /// The tables of credentials that belong to it, for example `keyauth_credentials`.
    pub credentials: &'static [&'static str],
}

impl PluginInfo {
    /// A plugin for all HTTP protocols and all scopes.
    pub fn new(name: &'static str, priority: i32, config: Record) -> Self {
        Self {
            name,
            version: env!("CARGO_PKG_VERSION"),
            priority,
            protocols: HTTP_PROTOCOLS,
            further_protocols: &[],
            consumer_scope: true,
            route_scope: true,
            service_scope: true,
            config: Arc::new(config),
            checks: Vec::new(),
            credentials: &[],
        }
    }

    /// Sets the protocols that an instance has by default and may have.
    pub fn protocols(mut self, protocols: &'static [&'static str]) -> Self {
        self.protocols = protocols;
        self
    }

    /// Lets instances name the protocols of tunnels whose messages are read (Kong Enterprise: `ws`, `wss`).
    pub fn with_messages(mut self) -> Self {
        self.further_protocols = MESSAGE_PROTOCOLS;
        self
    }

    /// Lets instances name these protocols, which they do not have by default.
    pub fn further_protocols(mut self, protocols: &'static [&'static str]) -> Self {
        self.further_protocols = protocols;
        self
    }

    /// Lets instances name every protocol there is, those of streams too.
    pub fn with_streams(self) -> Self {
        self.further_protocols(FURTHER_PROTOCOLS)
    }

    /// Whether an instance may name this protocol.
    pub fn allows(&self, protocol: &str) -> bool {
        self.protocols.contains(&protocol) || self.further_protocols.contains(&protocol)
    }

    /// Sets every protocol there is.
    pub fn all_protocols(self) -> Self {
        self.protocols(OPEN_PROTOCOLS).with_messages()
    }

    /// Refuses instances that are tied to a consumer.
    pub fn without_consumer(mut self) -> Self {
        self.consumer_scope = false;
        self
    }

    /// Refuses instances that are tied to a route or a service.
    pub fn without_route_and_service(mut self) -> Self {
        self.route_scope = false;
        self.service_scope = false;
        self
    }

    /// Adds a check over the whole instance (`at_least_one_of(&["config.allow", "config.deny"])`).
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Names the credential tables that belong to the plugin.
    pub fn credentials(mut self, tables: &'static [&'static str]) -> Self {
        self.credentials = tables;
        self
    }

    /// Checks the `config` of a filled instance and what spans it; the complaints are those about the instance.
    pub fn validate(&self, instance: &Map<String, Value>) -> FieldErrors {
        let mut errors = FieldErrors::new();
        match instance.get("config") {
            Some(Value::Object(config)) => {
                if let Err(found) = self.config.validate(config) {
                    errors.add_tree("config", found.into_json());
                }
            }
            _ => errors.add("config", "expected a record"),
        }
        for (field, allowed) in [
            ("consumer", self.consumer_scope),
            ("consumer_group", self.consumer_scope),
            ("route", self.route_scope),
            ("service", self.service_scope),
        ] {
            if !allowed && instance.get(field).is_some_and(|value| !value.is_null()) {
                errors.add(field, "value must be null");
            }
        }
        for check in &self.checks {
            check.run(instance, &mut errors);
        }
        errors
    }
}

/// All plugins of this build, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    plugins: BTreeMap<&'static str, Arc<PluginInfo>>,
}

impl Catalog {
    /// A catalog of the given plugins; of two with one name the later counts.
    pub fn new(plugins: impl IntoIterator<Item = PluginInfo>) -> Self {
        Self {
            plugins: plugins
                .into_iter()
                .map(|plugin| (plugin.name, Arc::new(plugin)))
                .collect(),
        }
    }

    /// The plugin of this name.
    pub fn plugin(&self, name: &str) -> Option<&PluginInfo> {
        self.plugins.get(name).map(Arc::as_ref)
    }

    /// All plugins, by name.
    pub fn iter(&self) -> impl Iterator<Item = &PluginInfo> {
        self.plugins.values().map(Arc::as_ref)
    }
}
