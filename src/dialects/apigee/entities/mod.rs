//! What the management API keeps: one file for each kind of entity, with its fields under the names of the API.
//!
//! Owns what an entity is made of, how it is read from a body, and what it is called when it is missing. Refuses to know
//! where entities are kept: that is [`entity_set`](super::entity_set). Start at [`Kind`] for all of them and the keys
//! they stand under.

pub mod api_product;
pub mod app;
pub mod app_key;
pub mod attribute;
pub mod bundle;
pub mod cache;
pub mod deployment;
pub mod developer;
pub mod environment;
pub mod fields;
pub mod flow_hook;
pub mod key_value_map;
pub mod keystore;
mod kind;
pub mod organization;
pub mod reference;
pub mod resource_file;
pub mod revision;
pub mod stamp;
pub mod target_server;
pub mod tls_info;
pub mod virtual_host;

pub use api_product::ApiProduct;
pub use app::App;
pub use app_key::{AppKey, ProductApproval};
pub use attribute::Attribute;
pub use bundle::{Bundle, BundleKind};
pub use cache::Cache;
pub use deployment::Deployment;
pub use developer::Developer;
pub use environment::Environment;
pub use fields::Fields;
pub use flow_hook::{FlowHook, HookPoint};
pub use key_value_map::{KeyValueMap, MapScope};
pub use keystore::{Keystore, KeystoreAlias};
pub use kind::{Entity, Kind};
pub use organization::Organization;
pub use reference::Reference;
pub use resource_file::ResourceFile;
pub use revision::{Revision, RevisionFile};
pub use stamp::Stamp;
pub use target_server::TargetServer;
pub use tls_info::TlsInfo;
pub use virtual_host::VirtualHost;
