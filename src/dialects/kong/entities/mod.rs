//! The entities of the Kong dialect: one file each, and the table that lists them.
//!
//! A file declares a typed view (what `compile` reads) and the schema (what clients write) in one text, and a
//! [`EntityDefinition`] with keys, links and rules of its own. Everything generic (reading, writing, links, uniqueness,
//! tags) lives in [`entity_set`](super::entity_set) and works from the table alone: a new entity is a file and a line.

mod acl;
mod basic_auth_credential;
mod ca_certificate;
mod certificate;
mod consumer;
mod consumer_group;
mod definition;
mod key;
mod key_auth_credential;
mod key_set;
mod mtls_auth_credential;
mod plugin;
mod route;
mod service;
mod sni;
mod target;
mod upstream;
mod vault;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::plan;

pub use acl::Acl;
pub use basic_auth_credential::BasicAuthCredential;
pub use ca_certificate::CaCertificate;
pub use certificate::{Certificate, SNIS};
pub use consumer::Consumer;
pub use consumer_group::{ConsumerGroup, ConsumerGroupMember};
pub use definition::{
    BeforeDelete, Complete, EntityDefinition, Expand, ForeignKey, Given, NestedPath, OnDelete,
    UniqueSet, Verify, WriteContext,
};
pub use key::{Key, KeyPem};
pub use key_auth_credential::KeyAuthCredential;
pub use key_set::KeySet;
pub use mtls_auth_credential::MtlsAuthCredential;
pub use plugin::Plugin;
pub use route::{AddressMatch, Route};
pub use service::{PROXY_HEADER_TAG, Service};
pub use sni::Sni;
pub use target::{DEFAULT_PORT, Target, normal_form as normal_target};
pub use upstream::{
    ActiveHealthcheck, ActiveHealthy, ActiveUnhealthy, Healthchecks, PassiveHealthcheck,
    PassiveHealthy, PassiveUnhealthy, Upstream,
};
pub use vault::{
    EnvVaultConfig, INSTALLED as INSTALLED_VAULTS, Vault, config_schema as vault_config,
};

/// Declares [`EntityKind`] and the definitions behind it.
macro_rules! entity_table {
    ($($kind:ident => $definition:path,)*) => {
        /// Which entity.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum EntityKind { $($kind,)* }

        impl EntityKind {
            /// Every kind, parents before the children that link to them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];
        }

        fn definitions(flavor: RouterFlavor) -> Vec<EntityDefinition> {
            vec![$($definition(flavor),)*]
        }
    };
}

// The order is that in which a flat document can be written: links point upwards.
entity_table! {
    CaCertificate => ca_certificate::definition,
    Certificate => certificate::definition,
    Sni => sni::definition,
    Service => service::definition,
    Route => route::definition,
    Consumer => consumer::definition,
    ConsumerGroup => consumer_group::definition,
    ConsumerGroupMember => consumer_group::member_definition,
    Plugin => plugin::definition,
    Upstream => upstream::definition,
    Target => target::definition,
    Vault => vault::definition,
    KeySet => key_set::definition,
    Key => key::definition,
    KeyAuthCredential => key_auth_credential::definition,
    BasicAuthCredential => basic_auth_credential::definition,
    MtlsAuthCredential => mtls_auth_credential::definition,
    HeaderCertAuthCredential => mtls_auth_credential::header_definition,
    Acl => acl::definition,
}

impl EntityKind {
    /// The kind stored in the table of this name, for example `keyauth_credentials`.
    pub fn from_table(table: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.table() == table)
    }

    /// The name of its table: the key in stores, declarative documents and error texts.
    pub fn table(self) -> &'static str {
        match self {
            Self::CaCertificate => "ca_certificates",
            Self::Certificate => "certificates",
            Self::Sni => "snis",
            Self::Service => "services",
            Self::Route => "routes",
            Self::Consumer => "consumers",
            Self::ConsumerGroup => "consumer_groups",
            Self::ConsumerGroupMember => "consumer_group_consumers",
            Self::Plugin => "plugins",
            Self::Upstream => "upstreams",
            Self::Target => "targets",
            Self::Vault => "vaults",
            Self::KeySet => "key_sets",
            Self::Key => "keys",
            Self::KeyAuthCredential => "keyauth_credentials",
            Self::BasicAuthCredential => "basicauth_credentials",
            Self::MtlsAuthCredential => "mtls_auth_credentials",
            Self::HeaderCertAuthCredential => "header_cert_auth_credentials",
            Self::Acl => "acls",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table())
    }
}

/// The definitions of all entities, for one flavour of the router.
#[derive(Debug)]
pub struct EntityTable {
    definitions: Vec<EntityDefinition>,
}

impl EntityTable {
    /// The table for a flavour; the flavour decides which fields a route has. Made once for each.
    pub fn of(flavor: RouterFlavor) -> &'static Self {
        static TABLES: [LazyLock<EntityTable>; 3] = [
            LazyLock::new(|| EntityTable::new(RouterFlavor::Traditional)),
            LazyLock::new(|| EntityTable::new(RouterFlavor::TraditionalCompatible)),
            LazyLock::new(|| EntityTable::new(RouterFlavor::Expressions)),
        ];
        &TABLES[flavor as usize]
    }

    fn new(flavor: RouterFlavor) -> Self {
        Self {
            definitions: definitions(flavor),
        }
    }

    /// The definition of a kind.
    pub fn definition(&self, kind: EntityKind) -> &EntityDefinition {
        // The enum and the list come from one macro call, in one order.
        &self.definitions[kind as usize]
    }

    /// All definitions, parents first.
    pub fn iter(&self) -> impl Iterator<Item = &EntityDefinition> {
        self.definitions.iter()
    }

    /// The definition whose collection stands at `/PATH`.
    pub fn by_path(&self, path: &str) -> Option<&EntityDefinition> {
        self.iter().find(|definition| definition.path == Some(path))
    }
}

impl EntityKind {
    /// The definition for the usual flavour: links, keys and names are the same in all.
    pub fn definition(self) -> &'static EntityDefinition {
        EntityTable::of(RouterFlavor::default()).definition(self)
    }
}

/// How the router reads routes. Kong: `router_flavor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouterFlavor {
    /// The original router.
    Traditional,
    /// Classic route fields, compiled into expressions.
    #[default]
    TraditionalCompatible,
    /// Routes may be expressions.
    Expressions,
}

impl RouterFlavor {
    /// Reads the setting; `None` for an unknown word.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "traditional" => Some(Self::Traditional),
            "traditional_compatible" => Some(Self::TraditionalCompatible),
            "expressions" => Some(Self::Expressions),
            _ => None,
        }
    }

    /// The word in the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traditional => "traditional",
            Self::TraditionalCompatible => "traditional_compatible",
            Self::Expressions => "expressions",
        }
    }
}

/// A link to another row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The id of the row linked to.
    pub id: Uuid,
}

/// A protocol of a route, service or plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// gRPC over plain HTTP/2.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// A plain stream.
    Tcp,
    /// A stream in TLS that ends here.
    Tls,
    /// A stream in TLS that passes through.
    TlsPassthrough,
    /// Datagrams.
    Udp,
    /// WebSocket messages over plain HTTP.
    Ws,
    /// WebSocket messages over TLS.
    Wss,
}

impl Protocol {
    /// The word in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TlsPassthrough => "tls_passthrough",
            Self::Udp => "udp",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether it belongs to the HTTP family (with gRPC and WebSocket), not to streams.
    pub fn is_http_family(self) -> bool {
        matches!(
            self,
            Self::Grpc | Self::Grpcs | Self::Http | Self::Https | Self::Ws | Self::Wss
        )
    }

    /// The plan's word for it.
    pub fn plan(self) -> plan::Protocol {
        match self {
            Self::Grpc => plan::Protocol::Grpc,
            Self::Grpcs => plan::Protocol::Grpcs,
            Self::Http => plan::Protocol::Http,
            Self::Https => plan::Protocol::Https,
            Self::Tcp => plan::Protocol::Tcp,
            Self::Tls => plan::Protocol::Tls,
            Self::TlsPassthrough => plan::Protocol::TlsPassthrough,
            Self::Udp => plan::Protocol::Udp,
            Self::Ws => plan::Protocol::Ws,
            Self::Wss => plan::Protocol::Wss,
        }
    }
}
