//! What the agent answers, as far as it is looked at.
//!
//! Every type is tolerant: unknown fields are skipped, missing and `null` ones have their defaults, so that agents of
//! other releases do no harm. What is required is checked where it is used. The names are the agent's.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// `null` is the same as a missing field.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `GET /v1/agent/connect/ca/roots`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Roots {
    #[serde(rename = "ActiveRootID", deserialize_with = "nullable")]
    pub active_root_id: String,
    /// Empty while Connect is not bootstrapped.
    #[serde(deserialize_with = "nullable")]
    pub trust_domain: String,
    #[serde(deserialize_with = "nullable")]
    pub roots: Vec<Root>,
}

/// One root. All of them are trusted, whether active or not.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Root {
    #[serde(rename = "ID", deserialize_with = "nullable")]
    pub id: String,
    /// PEM, possibly several certificates.
    #[serde(deserialize_with = "nullable")]
    pub root_cert: String,
    #[serde(deserialize_with = "nullable")]
    pub active: bool,
}

/// `GET /v1/agent/connect/ca/leaf/:service`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Leaf {
    /// The leaf first, then every intermediate.
    #[serde(rename = "CertPEM")]
    pub cert_pem: String,
    /// Overwritten when dropped.
    #[serde(rename = "PrivateKeyPEM", deserialize_with = "wiped")]
    pub private_key_pem: Zeroizing<String>,
    #[serde(default, rename = "ServiceURI", deserialize_with = "nullable")]
    pub service_uri: String,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("service_uri", &self.service_uri)
            .finish_non_exhaustive()
    }
}

fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// `POST /v1/agent/connect/authorize`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Authorization {
    pub authorized: bool,
    /// For logs only: the texts differ between releases.
    #[serde(deserialize_with = "nullable")]
    pub reason: String,
}

/// `GET /v1/agent/service/:id`, and the members of `GET /v1/agent/services` and of health answers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AgentService {
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    #[serde(rename = "ID", deserialize_with = "nullable")]
    pub id: String,
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    #[serde(deserialize_with = "nullable")]
    pub address: String,
    #[serde(deserialize_with = "nullable")]
    pub port: u32,
    #[serde(deserialize_with = "nullable")]
    pub meta: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    #[serde(deserialize_with = "nullable")]
    pub weights: Weights,
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub partition: String,
    #[serde(deserialize_with = "nullable")]
    pub content_hash: String,
    #[serde(deserialize_with = "nullable")]
    pub proxy: ServiceProxy,
    #[serde(deserialize_with = "nullable")]
    pub connect: ServiceConnect,
}

/// An address under a name such as `lan` or `wan`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaggedAddress {
    #[serde(deserialize_with = "nullable")]
    pub address: String,
    #[serde(deserialize_with = "nullable")]
    pub port: u32,
}

/// Shares of traffic by health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Weights {
    pub passing: u32,
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

/// How a service takes part in the mesh without a proxy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceConnect {
    #[serde(deserialize_with = "nullable")]
    pub native: bool,
    #[serde(deserialize_with = "nullable")]
    pub peer_meta: PeerMeta,
}

/// How an instance that another cluster exported is to be addressed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerMeta {
    #[serde(rename = "SNI", deserialize_with = "nullable")]
    pub sni: Vec<String>,
    #[serde(rename = "SpiffeID", deserialize_with = "nullable")]
    pub spiffe_id: Vec<String>,
}

/// The proxy part of a registration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceProxy {
    #[serde(deserialize_with = "nullable")]
    pub destination_service_name: String,
    #[serde(rename = "DestinationServiceID", deserialize_with = "nullable")]
    pub destination_service_id: String,
    #[serde(deserialize_with = "nullable")]
    pub local_service_address: String,
    #[serde(deserialize_with = "nullable")]
    pub local_service_port: u32,
    #[serde(deserialize_with = "nullable")]
    pub local_service_socket_path: String,
    #[serde(deserialize_with = "nullable")]
    pub mode: String,
    /// Opaque to Consul; see [`super::registration`].
    #[serde(deserialize_with = "nullable")]
    pub config: serde_json::Map<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub upstreams: Vec<Upstream>,
    #[serde(deserialize_with = "nullable")]
    pub mesh_gateway: MeshGateway,
    #[serde(deserialize_with = "nullable")]
    pub expose: Expose,
}

/// Which way traffic to other datacenters goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MeshGateway {
    /// Empty, `none`, `local` or `remote`.
    #[serde(deserialize_with = "nullable")]
    pub mode: String,
}

/// Paths of the application that are reachable without the mesh.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Expose {
    #[serde(deserialize_with = "nullable")]
    pub checks: bool,
    #[serde(deserialize_with = "nullable")]
    pub paths: Vec<serde_json::Value>,
}

/// An upstream of a proxy registration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Upstream {
    #[serde(deserialize_with = "nullable")]
    pub destination_type: String,
    #[serde(deserialize_with = "nullable")]
    pub destination_name: String,
    #[serde(deserialize_with = "nullable")]
    pub destination_namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub destination_partition: String,
    #[serde(deserialize_with = "nullable")]
    pub destination_peer: String,
    #[serde(deserialize_with = "nullable")]
    pub datacenter: String,
    #[serde(deserialize_with = "nullable")]
    pub local_bind_address: String,
    #[serde(deserialize_with = "nullable")]
    pub local_bind_port: u32,
    #[serde(deserialize_with = "nullable")]
    pub local_bind_socket_path: String,
    #[serde(deserialize_with = "nullable")]
    pub local_bind_socket_mode: String,
    #[serde(deserialize_with = "nullable")]
    pub config: serde_json::Map<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub mesh_gateway: MeshGateway,
}

/// A member of `GET /v1/health/connect/:service`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthEntry {
    #[serde(deserialize_with = "nullable")]
    pub node: CatalogNode,
    #[serde(deserialize_with = "nullable")]
    pub service: AgentService,
    #[serde(deserialize_with = "nullable")]
    pub checks: Vec<HealthCheck>,
}

/// The node part of a health entry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CatalogNode {
    #[serde(deserialize_with = "nullable")]
    pub node: String,
    #[serde(deserialize_with = "nullable")]
    pub address: String,
    #[serde(deserialize_with = "nullable")]
    pub datacenter: String,
    #[serde(deserialize_with = "nullable")]
    pub tagged_addresses: BTreeMap<String, String>,
}

/// One check of a health entry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthCheck {
    #[serde(rename = "CheckID", deserialize_with = "nullable")]
    pub check_id: String,
    /// `passing`, `warning` or `critical`.
    #[serde(deserialize_with = "nullable")]
    pub status: String,
}

/// `GET /v1/query/:name/execute`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct QueryResult {
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    #[serde(deserialize_with = "nullable")]
    pub nodes: Vec<HealthEntry>,
    #[serde(deserialize_with = "nullable")]
    pub datacenter: String,
}

/// `GET /v1/agent/self`, as far as it is looked at.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AgentSelf {
    #[serde(deserialize_with = "nullable")]
    pub config: AgentConfig,
}

/// What an agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AgentConfig {
    #[serde(deserialize_with = "nullable")]
    pub datacenter: String,
    #[serde(deserialize_with = "nullable")]
    pub node_name: String,
    #[serde(deserialize_with = "nullable")]
    pub version: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn unknown_and_missing_and_null_do_no_harm() {
        let roots: Roots = serde_json::from_str(
            r#"{"ActiveRootID":"a","TrustDomain":"t.consul","New":1,
                "Roots":[{"ID":"a","SerialNumber":18247053834799394611,"RootCert":"pem",
                          "IntermediateCerts":null,"Active":true}]}"#,
        )
        .unwrap();
        assert_eq!(roots.roots[0].root_cert, "pem");
        let none: Roots = serde_json::from_str(r#"{"Roots":null,"TrustDomain":null}"#).unwrap();
        assert_eq!(none, Roots::default());
        let service: AgentService = serde_json::from_str(
            r#"{"Kind":"connect-proxy","ID":"web-1-sidecar-proxy","Service":"web-sidecar-proxy",
                "Tags":null,"Meta":null,"Port":21001,"Weights":null,"ContentHash":"e4",
                "Proxy":{"DestinationServiceName":"web","LocalServicePort":9002,"Config":null,
                  "Upstreams":[{"DestinationName":"db","LocalBindPort":9191,"Config":{"connect_timeout_ms":3000}}]}}"#,
        )
        .unwrap();
        assert_eq!(service.weights.passing, 1);
        assert_eq!(service.proxy.upstreams[0].local_bind_port, 9191);
    }

    #[test]
    fn keys_are_not_shown() {
        let leaf: Leaf = serde_json::from_str(
            r#"{"CertPEM":"c","PrivateKeyPEM":"-----BEGIN EC PRIVATE KEY-----hidden","ServiceURI":"u"}"#,
        )
        .unwrap();
        assert!(!format!("{leaf:?}").contains("hidden"));
    }
}
