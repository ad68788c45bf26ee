//! The discovery chain: what an upstream's name stands for, as `GET /v1/discovery-chain/:service` compiles it.
//!
//! Keys of nodes and targets are opaque and hold within one answer. Start at [`DiscoveryChain`].

use std::collections::BTreeMap;

use serde::Deserialize;

use super::answers::{MeshGateway, nullable};

/// Steps from the start to a target, at most: chains are flat, a longer one is a loop.
pub const DEPTH_MAX: usize = 32;

/// The answer's envelope.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChainAnswer {
    #[serde(deserialize_with = "nullable")]
    pub chain: DiscoveryChain,
}

/// A compiled chain.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiscoveryChain {
    #[serde(deserialize_with = "nullable")]
    pub service_name: String,
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub datacenter: String,
    /// `tcp`, `http`, `http2` or `grpc`.
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
    #[serde(deserialize_with = "nullable")]
    pub start_node: String,
    #[serde(deserialize_with = "nullable")]
    pub nodes: BTreeMap<String, ChainNode>,
    #[serde(deserialize_with = "nullable")]
    pub targets: BTreeMap<String, ChainTarget>,
}

/// A node: which of the three it is says `kind`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChainNode {
    /// `router`, `splitter` or `resolver`.
    #[serde(rename = "Type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// In order; the last matches everything.
    #[serde(deserialize_with = "nullable")]
    pub routes: Vec<ChainRoute>,
    #[serde(deserialize_with = "nullable")]
    pub splits: Vec<ChainSplit>,
    pub resolver: Option<ChainResolver>,
    pub load_balancer: Option<LoadBalancer>,
}

/// A way out of a router.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChainRoute {
    #[serde(deserialize_with = "nullable")]
    pub definition: RouteDefinition,
    #[serde(deserialize_with = "nullable")]
    pub next_node: String,
}

/// What a way out is for, and what is done on it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RouteDefinition {
    #[serde(rename = "Match", deserialize_with = "nullable")]
    pub matches: RouteMatch,
    #[serde(deserialize_with = "nullable")]
    pub destination: RouteDestination,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RouteMatch {
    #[serde(rename = "HTTP", deserialize_with = "nullable")]
    pub http: HttpMatch,
}

/// Every part that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HttpMatch {
    #[serde(deserialize_with = "nullable")]
    pub path_exact: String,
    #[serde(deserialize_with = "nullable")]
    pub path_prefix: String,
    #[serde(deserialize_with = "nullable")]
    pub path_regex: String,
    #[serde(deserialize_with = "nullable")]
    pub case_insensitive: bool,
    #[serde(deserialize_with = "nullable")]
    pub methods: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub header: Vec<HeaderMatch>,
    #[serde(deserialize_with = "nullable")]
    pub query_param: Vec<QueryMatch>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HeaderMatch {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub present: bool,
    #[serde(deserialize_with = "nullable")]
    pub exact: String,
    #[serde(deserialize_with = "nullable")]
    pub prefix: String,
    #[serde(deserialize_with = "nullable")]
    pub suffix: String,
    #[serde(deserialize_with = "nullable")]
    pub regex: String,
    #[serde(deserialize_with = "nullable")]
    pub invert: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct QueryMatch {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub present: bool,
    #[serde(deserialize_with = "nullable")]
    pub exact: String,
    #[serde(deserialize_with = "nullable")]
    pub regex: String,
}

/// What happens to a request on its way. Durations are Go's; see [`super::duration`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RouteDestination {
    #[serde(deserialize_with = "nullable")]
    pub prefix_rewrite: String,
    pub request_timeout: Option<serde_json::Value>,
    pub idle_timeout: Option<serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub num_retries: u32,
    #[serde(deserialize_with = "nullable")]
    pub retry_on_connect_failure: bool,
    #[serde(deserialize_with = "nullable")]
    pub retry_on_status_codes: Vec<u16>,
    #[serde(deserialize_with = "nullable")]
    pub retry_on: Vec<String>,
    pub request_headers: Option<HeaderEdits>,
    pub response_headers: Option<HeaderEdits>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HeaderEdits {
    #[serde(deserialize_with = "nullable")]
    pub add: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub set: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub remove: Vec<String>,
}

/// A share of the traffic.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChainSplit {
    /// Percent.
    #[serde(deserialize_with = "nullable")]
    pub weight: f64,
    #[serde(deserialize_with = "nullable")]
    pub next_node: String,
    pub request_headers: Option<HeaderEdits>,
    pub response_headers: Option<HeaderEdits>,
}

/// The end of a way.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChainResolver {
    /// Made up by Consul because nobody wrote one.
    #[serde(deserialize_with = "nullable")]
    pub default: bool,
    pub connect_timeout: Option<serde_json::Value>,
    pub request_timeout: Option<serde_json::Value>,
    /// Key into [`DiscoveryChain::targets`].
    #[serde(deserialize_with = "nullable")]
    pub target: String,
    pub failover: Option<Failover>,
}

/// Where to go when a target has no healthy instance, in order.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Failover {
    #[serde(deserialize_with = "nullable")]
    pub targets: Vec<String>,
}

/// How instances are chosen.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LoadBalancer {
    /// `random`, `round_robin`, `least_request`, `ring_hash` or `maglev`.
    #[serde(deserialize_with = "nullable")]
    pub policy: String,
    #[serde(deserialize_with = "nullable")]
    pub hash_policies: Vec<HashPolicy>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HashPolicy {
    /// `header`, `cookie` or `query_parameter`.
    #[serde(deserialize_with = "nullable")]
    pub field: String,
    #[serde(deserialize_with = "nullable")]
    pub field_value: String,
    #[serde(rename = "SourceIP", deserialize_with = "nullable")]
    pub source_ip: bool,
    #[serde(deserialize_with = "nullable")]
    pub terminal: bool,
}

/// A set of instances.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChainTarget {
    #[serde(rename = "ID", deserialize_with = "nullable")]
    pub id: String,
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    #[serde(deserialize_with = "nullable")]
    pub service_subset: String,
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub partition: String,
    #[serde(deserialize_with = "nullable")]
    pub peer: String,
    #[serde(deserialize_with = "nullable")]
    pub datacenter: String,
    #[serde(deserialize_with = "nullable")]
    pub mesh_gateway: MeshGateway,
    #[serde(deserialize_with = "nullable")]
    pub subset: Subset,
    /// Outside this cluster.
    #[serde(deserialize_with = "nullable")]
    pub external: bool,
    #[serde(rename = "SNI", deserialize_with = "nullable")]
    pub sni: String,
    #[serde(deserialize_with = "nullable")]
    pub name: String,
}

/// Which instances of a service belong to a target.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Subset {
    #[serde(deserialize_with = "nullable")]
    pub filter: String,
    /// Without it, instances with warnings count as healthy.
    #[serde(deserialize_with = "nullable")]
    pub only_passing: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reads_a_chain_without_configuration() {
        let answer: ChainAnswer = serde_json::from_str(
            r#"{"Chain":{"ServiceName":"db","Namespace":"default","Datacenter":"dc1","Protocol":"tcp",
              "StartNode":"resolver:db.default.dc1",
              "Nodes":{"resolver:db.default.dc1":{"Type":"resolver","Name":"db.default.dc1",
                "Resolver":{"ConnectTimeout":"5s","Default":true,"Target":"db.default.dc1"}}},
              "Targets":{"db.default.dc1":{"ID":"db.default.dc1","Service":"db","Namespace":"default","Datacenter":"dc1",
                "MeshGateway":{},"Subset":{},"SNI":"db.default.dc1.internal.t","Name":"n"}}}}"#,
        )
        .unwrap();
        let chain = answer.chain;
        let start = chain.nodes.get(&chain.start_node).unwrap();
        let resolver = start.resolver.as_ref().unwrap();
        assert!(resolver.default);
        assert_eq!(chain.targets[&resolver.target].service, "db");
    }
}
