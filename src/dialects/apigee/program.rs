//! The compiled program of a proxy endpoint, as data: what the flow plugin runs and `sallyport plan` prints.
//!
//! Written by [`super::compile`], read by the plugin when it is linked. Everything that a bundle refers to has been looked
//! up: resources are texts, target servers are clusters, shared flows are here whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::bundle::{Flows, LocalTarget, ProxyProperties, Step, TargetProperties, TlsInfo};
use super::entities::Cache;
use super::entities::cache::Expiry;

/// The name of the plugin that runs programs.
pub const PLUGIN: &str = "apigee-flow";

/// The configuration of an instance of [`PLUGIN`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Runs a proxy endpoint.
    Proxy(Box<ProxyProgram>),
    /// Answers what no proxy wants, in the shape of the dialect.
    Nothing {
        /// The virtual host by whose name the answer speaks.
        virtual_host: String,
    },
}

/// A proxy endpoint of a deployed revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxyProgram {
    pub organization: String,
    pub environment: String,
    pub proxy: String,
    pub revision: u32,
    pub endpoint: String,
    /// With the prefix of the deployment; `*` stands for one segment.
    pub base_path: String,
    /// As the bundle has it.
    pub configured_base_path: String,
    /// The virtual hosts by which it is reached, by the id of their route.
    pub entrances: BTreeMap<Uuid, Entrance>,
    pub handling: Handling,
    #[serde(default)]
    pub properties: ProxyProperties,
    pub flows: Flows,
    /// In the order in which they are tried; none is a null route.
    pub routes: Vec<Route>,
    pub targets: BTreeMap<String, Target>,
    /// The policies that steps name.
    pub policies: BTreeMap<String, Policy>,
    /// The shared flows that policies and hooks call, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared_flows: BTreeMap<String, SharedFlow>,
    #[serde(default)]
    pub hooks: Hooks,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entrance {
    pub virtual_host: String,
    pub aliases: Vec<String>,
    pub tls: bool,
    /// What is demanded of clients in the handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientCertificates>,
}

/// The certificates that a virtual host demands of its clients (`ClientAuthEnabled`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientCertificates {
    /// Authorities in the plan, those of the trust store.
    pub authorities: Vec<Uuid>,
    /// Any certificate will do (`IgnoreValidationErrors`).
    #[serde(default)]
    pub unverified: bool,
    /// Server names whose clients are asked; empty: all.
    #[serde(default)]
    pub server_names: Vec<String>,
}

/// What becomes of bodies, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Handling {
    /// The request's body is held whole before the first step.
    pub holds_request: bool,
    /// Longest request body that is held, in bytes.
    pub request_bytes_max: u64,
    /// The response's body is held whole before the first step of the response's side.
    pub holds_response: bool,
    /// Longest response body that is held, in bytes.
    pub response_bytes_max: u64,
    /// The reasons, in words.
    pub why: Vec<String>,
}

/// A route rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    pub to: RouteTo,
}

/// Where a route rule leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTo {
    Target(String),
    Url(Box<HttpWay>),
    Nowhere,
}

/// A target endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub flows: Flows,
    pub way: Way,
}

/// How a target is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    Http(Box<HttpWay>),
    Local(LocalTarget),
    Script(Box<ScriptWay>),
}

/// A Node.js program of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptWay {
    /// The executable that runs it.
    pub node: String,
    /// Path of its first file.
    pub main: String,
    /// All its files by path, in Base64.
    pub files: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Its properties; nothing else of it counts.
    pub http: HttpWay,
}

/// A target reached over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpWay {
    /// The base: a URL, perhaps a template; none with a balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The path behind a balancer's server, perhaps a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The forward in the plan. When `is_dynamic` its host stands for nothing, and the rest counts.
    pub forward: Uuid,
    /// The host is known only at run time.
    #[serde(default)]
    pub is_dynamic: bool,
    #[serde(default)]
    pub properties: TargetProperties,
    /// TLS that depends on the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DynamicTls>,
    /// The name that the target's certificate must have, as written (`target.expectedcn`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_name: Option<String>,
    /// Names of the balancer's servers by the endpoint of the cluster, for variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<Uuid, ServerName>,
}

/// A target server as variables tell of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerName {
    pub name: String,
    #[serde(default)]
    pub is_fallback: bool,
}

/// TLS settings that are templates, and the forwards that stand for what they may come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DynamicTls {
    pub info: TlsInfo,
    /// Forwards by what the templates come to; see [`DynamicTls::key`].
    pub forwards: BTreeMap<String, Uuid>,
}

impl DynamicTls {
    /// What settings come to, as a key.
    pub fn key(enabled: bool, key_store: &str, key_alias: &str, trust_store: &str) -> String {
        match enabled {
            false => "plain".to_owned(),
            true => format!("{key_store}/{key_alias}/{trust_store}"),
        }
    }
}

/// A policy that steps name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub kind: String,
    pub enabled: bool,
    pub continue_on_error: bool,
    pub config: Value,
    /// The texts of the resources that it names, by URL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, String>,
    /// Where it sends requests of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callout: Option<Way>,
    /// The cache that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheTerms>,
}

/// What a cache of the environment says of its entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheTerms {
    /// When entries end, unless the policy says so.
    pub expiry: Expiry,
    /// Larger values are not kept, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_bytes_max: Option<u64>,
    /// Most entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries_max: Option<u64>,
    /// Most bytes of all entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
}

impl CacheTerms {
    /// Those of a cache.
    pub fn of(cache: &Cache) -> Self {
        let bytes = |kib: u64| kib.saturating_mul(1 << 10);
        Self {
            expiry: cache.expiry.clone(),
            value_bytes_max: cache.skip_if_larger_kib.map(|kib| bytes(u64::from(kib))),
            entries_max: cache.size("maxElementsInMemory"),
            bytes_max: cache.size("inMemorySizeInKB").map(bytes),
        }
    }
}

/// A shared flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedFlow {
    pub revision: u32,
    pub steps: Vec<Step>,
    pub policies: BTreeMap<String, Policy>,
}

/// Shared flows around every proxy of the environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_proxy: Option<Hook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_target: Option<Hook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_target: Option<Hook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_proxy: Option<Hook>,
}

/// A shared flow at one of the four places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    pub shared_flow: String,
    pub continue_on_error: bool,
}
