//! The plan: a whole configuration as plain, serializable data.
//!
//! Dialects write it, `runtime` links it, `sallyport plan` prints it. It holds no regex, socket, key object or trait
//! object. Parts are behind `Arc` so that a change of one entity makes one new part and shares the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::base::secret::Secret;
pub use crate::model::balance::*;
use crate::model::catalog::Catalog;
use crate::model::route::MatcherPlan;

/// Everything one node serves, keyed by stable ids.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// Where requests may go in; one entry per route.
    pub routes: BTreeMap<Uuid, Arc<RoutePlan>>,
    /// Where requests go out: how to reach an upstream application.
    pub forwards: BTreeMap<Uuid, Arc<ForwardPlan>>,
    /// Sets of endpoints with a balancing rule.
    pub clusters: BTreeMap<Uuid, Arc<ClusterPlan>>,
    /// Step sequences, shared by all routes that run the same plugins.
    pub pipelines: BTreeMap<PipelineKey, Arc<PipelinePlan>>,
    /// Who may call.
    pub principals: BTreeMap<Uuid, Arc<PrincipalPlan>>,
    /// What callers prove themselves with.
    pub credentials: BTreeMap<Uuid, Arc<CredentialPlan>>,
    /// Certificates shown to clients, chosen by server name.
    pub certificates: BTreeMap<Uuid, Arc<CertificatePlan>>,
    /// Authorities that steps may trust with the certificates of clients.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub authorities: BTreeMap<Uuid, Arc<AuthorityPlan>>,
}

/// A set of edits to a [`Plan`]: what one or several committed changes amount to. `None` removes the part.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PlanDelta {
    pub routes: BTreeMap<Uuid, Option<Arc<RoutePlan>>>,
    pub forwards: BTreeMap<Uuid, Option<Arc<ForwardPlan>>>,
    pub clusters: BTreeMap<Uuid, Option<Arc<ClusterPlan>>>,
    pub pipelines: BTreeMap<PipelineKey, Option<Arc<PipelinePlan>>>,
    pub principals: BTreeMap<Uuid, Option<Arc<PrincipalPlan>>>,
    pub credentials: BTreeMap<Uuid, Option<Arc<CredentialPlan>>>,
    pub certificates: BTreeMap<Uuid, Option<Arc<CertificatePlan>>>,
    pub authorities: BTreeMap<Uuid, Option<Arc<AuthorityPlan>>>,
}

impl Plan {
    /// Applies a delta; afterwards the plan equals the one a full compile would give.
    pub fn apply(&mut self, delta: &PlanDelta) {
        fn merge<K: Ord + Clone, V: Clone>(
            into: &mut BTreeMap<K, V>,
            edits: &BTreeMap<K, Option<V>>,
        ) {
            for (key, edit) in edits {
                match edit {
                    Some(part) => into.insert(key.clone(), part.clone()),
                    None => into.remove(key),
                };
            }
        }
        merge(&mut self.routes, &delta.routes);
        merge(&mut self.forwards, &delta.forwards);
        merge(&mut self.clusters, &delta.clusters);
        merge(&mut self.pipelines, &delta.pipelines);
        merge(&mut self.principals, &delta.principals);
        merge(&mut self.credentials, &delta.credentials);
        merge(&mut self.certificates, &delta.certificates);
        merge(&mut self.authorities, &delta.authorities);
    }
}

impl Plan {
    /// Replaces the secrets in configurations of plugins by fingerprints, for printing.
    pub fn conceal(&mut self, catalog: &Catalog) {
        for pipeline in self.pipelines.values_mut() {
            for step in &mut Arc::make_mut(pipeline).steps {
                let by_identity = step
                    .by_principal
                    .values_mut()
                    .chain(step.by_group.values_mut());
                for candidate in step.base.iter_mut().chain(by_identity) {
                    let instance = Arc::make_mut(&mut candidate.instance);
                    // What the catalog does not list is no user's plugin: a compiler has written its configuration.
                    if let Some(plugin) = catalog.plugin(&instance.plugin)
                        && let serde_json::Value::Object(config) = &mut instance.config
                    {
                        plugin.config.conceal(config);
                    }
                }
            }
        }
    }
}

impl PlanDelta {
    /// Takes in the edits of another dialect; ids of different dialects are never the same.
    pub fn merge(&mut self, other: Self) {
        self.routes.extend(other.routes);
        self.forwards.extend(other.forwards);
        self.clusters.extend(other.clusters);
        self.pipelines.extend(other.pipelines);
        self.principals.extend(other.principals);
        self.credentials.extend(other.credentials);
        self.certificates.extend(other.certificates);
        self.authorities.extend(other.authorities);
    }

    /// True when nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One way in: what it matches, what it runs, where it leads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoutePlan {
    pub id: Uuid,
    pub name: Option<Arc<str>>,
    /// Alternatives, each with its own precedence (a route with several paths splits into several).
    pub matchers: Vec<MatcherPlan>,
    /// Protocols that the route accepts, for the checks after a match.
    pub protocols: ProtocolSet,
    /// Status for plain-text requests to a route that accepts only TLS: 426, 301, 302, 307 or 308.
    pub https_redirect_status: u16,
    /// Remove the matched path prefix before forwarding.
    pub strip_path: bool,
    pub path_joining: PathJoining,
    /// Forward the client's Host header instead of the upstream's name.
    pub preserve_host: bool,
    pub request_buffering: bool,
    pub response_buffering: bool,
    /// Key into [`Plan::forwards`]; none means the route answers 503 unless a step answers first.
    pub forward: Option<Uuid>,
    /// Key into [`Plan::pipelines`].
    pub pipeline: PipelineKey,
    /// The route as its dialect shows it, for log entries: compact JSON.
    pub description: Arc<str>,
}

/// How the upstream's base path and the request path are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathJoining {
    /// With exactly one slash between (Kong: `path_handling` `v0`).
    #[default]
    Slash,
    /// By concatenation (Kong: `path_handling` `v1`).
    Concatenate,
}

/// The application protocols a route accepts, or a forward speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Http,
    Https,
    Grpc,
    Grpcs,
    Tcp,
    Tls,
    TlsPassthrough,
    Udp,
    Ws,
    Wss,
}

/// A set of [`Protocol`]s, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct ProtocolSet(pub u16);

impl ProtocolSet {
    /// Tunnels whose messages are read.
    pub const MESSAGES: Self = Self(1 << Protocol::Ws as u16 | 1 << Protocol::Wss as u16);

    pub fn of(protocols: &[Protocol]) -> Self {
        Self(protocols.iter().fold(0, |set, p| set | 1 << *p as u16))
    }

    pub fn contains(self, protocol: Protocol) -> bool {
        self.0 & (1 << protocol as u16) != 0
    }

    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that are carried as bytes, without a look at what they mean.
    pub const STREAMS: Self = Self(
        1 << Protocol::Tcp as u16
            | 1 << Protocol::Tls as u16
            | 1 << Protocol::TlsPassthrough as u16
            | 1 << Protocol::Udp as u16,
    );
}

impl Protocol {
    /// Does the connection run inside TLS?
    pub fn is_tls(self) -> bool {
        matches!(
            self,
            Self::Https | Self::Grpcs | Self::Tls | Self::TlsPassthrough | Self::Wss
        )
    }

    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }

    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "http" => Self::Http,
            "https" => Self::Https,
            "grpc" => Self::Grpc,
            "grpcs" => Self::Grpcs,
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "tls_passthrough" => Self::TlsPassthrough,
            "udp" => Self::Udp,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TlsPassthrough => "tls_passthrough",
            Self::Udp => "udp",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// How to reach one upstream application (Kong: a service).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForwardPlan {
    pub id: Uuid,
    pub name: Option<Arc<str>>,
    pub protocol: Protocol,
    /// Key into [`Plan::clusters`].
    pub cluster: Uuid,
    /// The name asked for: Host header and TLS server name unless the cluster or the route says otherwise.
    pub host: Arc<str>,
    pub port: u16,
    /// Base path put before the forwarded path; `/` when none.
    pub path: Arc<str>,
    /// Further attempts after the first one failed; 0 disables.
    pub retries: u16,
    /// Statuses of answers that count as a failed attempt, for requests that may be sent twice.
    pub retry_statuses: Vec<u16>,
    pub connect_timeout_ms: u32,
    pub read_timeout_ms: u32,
    pub write_timeout_ms: u32,
    pub tls: UpstreamTlsPlan,
    /// Connections to the upstream begin with a PROXY header that names the client. Streams only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_header: Option<ProxyHeaderVersion>,
    /// The service as its dialect shows it, for log entries: compact JSON.
    pub description: Arc<str>,
}

/// The two forms of the PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyHeaderVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// TLS towards an upstream. Everything here takes part in connection reuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
pub struct UpstreamTlsPlan {
    /// Verify chain and peer; `None` is the dialect's default (Kong: no verification).
    pub verify: Option<bool>,
    /// Longest accepted chain of intermediates; `None` is 1 (Kong).
    pub verify_depth: Option<u8>,
    /// PEM trust anchors; empty means the globally configured trust.
    pub authorities: Vec<Arc<str>>,
    pub client_certificate: Option<Arc<KeyPairPlan>>,
    /// Whom a verified certificate must be for.
    pub peer: PeerRule,
    /// Versions that may be spoken; empty is TLS 1.2 and 1.3. Those between the lowest and the highest are spoken too.
    pub versions: Vec<TlsVersion>,
    /// Ciphers up to TLS 1.2, in OpenSSL's or IANA's names; empty is the TLS library's choice.
    pub ciphers: Vec<Arc<str>>,
}

/// Whom a verified certificate must be for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRule {
    /// The host asked for, by name or address.
    #[default]
    Name,
    /// One of these is among its URI names (Consul: SPIFFE ids). The host asked for does not matter.
    UriIn(Vec<Arc<str>>),
    /// This is its common name or one of its DNS names, whatever host was asked for (Apigee: `CommonName`).
    CommonName {
        name: Arc<str>,
        /// A leading `*.` in `name` stands for one label; without this it is compared as it is.
        wildcard: bool,
    },
}

/// A version of the TLS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TlsVersion {
    #[serde(rename = "TLSv1")]
    Tls1_0,
    #[serde(rename = "TLSv1.1")]
    Tls1_1,
    #[serde(rename = "TLSv1.2")]
    Tls1_2,
    #[serde(rename = "TLSv1.3")]
    Tls1_3,
}

/// A certificate chain with its key, PEM. The key prints as a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct KeyPairPlan {
    pub certificate: Arc<str>,
    pub key: Secret,
}

/// Endpoints and how to choose among them (Kong: an upstream, or a service's plain host).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterPlan {
    pub id: Uuid,
    /// Name in messages and metrics.
    pub name: Arc<str>,
    pub endpoints: Vec<EndpointPlan>,
    pub balance: BalancePlan,
    pub health: HealthPlan,
    /// Host header and server name for all endpoints.
    pub host_header: Option<Arc<str>>,
    /// Use the SRV target's name as Host header.
    pub use_srv_name: bool,
    /// Client certificate for all endpoints; a forward's own wins.
    pub client_certificate: Option<Arc<KeyPairPlan>>,
    /// Is this a named upstream with targets (health and Admin views apply), or a plain host?
    pub named: bool,
    /// More exchanges in progress than this are answered with 503; none does not limit (Consul:
    /// `limits.max_concurrent_requests`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchanges_max: Option<u32>,
}

impl ClusterPlan {
    /// Endpoints that take turns and are not checked; nothing else is said of them.
    pub fn plain(id: Uuid, name: impl Into<Arc<str>>, endpoints: Vec<EndpointPlan>) -> Self {
        Self {
            id,
            name: name.into(),
            endpoints,
            balance: BalancePlan::RoundRobin,
            health: HealthPlan::default(),
            host_header: None,
            use_srv_name: false,
            client_certificate: None,
            named: false,
            exchanges_max: None,
        }
    }
}

/// One configured endpoint; its name may resolve to several addresses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointPlan {
    pub id: Uuid,
    /// Host name, IPv4 or IPv6 address without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// Share of traffic; 0 receives none.
    pub weight: u32,
    /// 0 is used first. An endpoint with a higher rank is used only while none with a lower one is available, or when
    /// all of those have failed the same request.
    pub rank: u8,
    /// The name of the roster that keeps the addresses of this endpoint, instead of name servers. `host` and `port` are
    /// what it is called then (Consul: a service of the mesh).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roster: Option<Arc<str>>,
}

/// Which plugin instances can apply: (forward with own instances, route with own instances). The empty key is the
/// global pipeline, run for requests without a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PipelineKey {
    pub forward: Option<Uuid>,
    pub route: Option<Uuid>,
    /// Only instances that are for streams, instead of only those that are for requests.
    pub stream: bool,
}

impl PipelineKey {
    /// The same for streams.
    pub fn of_streams(self) -> Self {
        Self {
            stream: true,
            ..self
        }
    }
}

/// As text, because keys of JSON objects are: `global`, `forward ID`, `route ID` or `forward ID route ID`, with
/// ` streams` behind it for those of streams.
impl Serialize for PipelineKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = if self.stream { " streams" } else { "" };
        match (self.forward, self.route) {
            (None, None) => serializer.collect_str(&format_args!("global{kind}")),
            (Some(forward), None) => {
                serializer.collect_str(&format_args!("forward {forward}{kind}"))
            }
            (None, Some(route)) => serializer.collect_str(&format_args!("route {route}{kind}")),
            (Some(forward), Some(route)) => {
                serializer.collect_str(&format_args!("forward {forward} route {route}{kind}"))
            }
        }
    }
}

/// Plugin steps in the order in which they run.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct PipelinePlan {
    pub steps: Vec<StepPlan>,
}

/// One plugin name in a pipeline, with every instance that may be the one that runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepPlan {
    pub plugin: Arc<str>,
    /// The instance that runs when the caller's identity decides nothing.
    pub base: Option<Candidate>,
    /// Instances that apply to one principal.
    pub by_principal: BTreeMap<Uuid, Candidate>,
    /// Instances that apply to one group of principals.
    pub by_group: BTreeMap<Uuid, Candidate>,
}

/// A plugin instance and how specific its scope is: the lowest `rank` wins.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    pub rank: u8,
    pub instance: Arc<InstancePlan>,
}

/// One configured plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstancePlan {
    pub id: Uuid,
    pub plugin: Arc<str>,
    /// All fields filled in and checked against the plugin's schema.
    pub config: serde_json::Value,
    pub scope: Scope,
    /// Where it runs: read for connections and for tunnels of messages, whose routes share pipelines with others.
    pub protocols: ProtocolSet,
}

/// What an instance was attached to; all empty means everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Scope {
    pub route: Option<Uuid>,
    pub forward: Option<Uuid>,
    pub principal: Option<Uuid>,
    pub group: Option<Uuid>,
}

/// A caller (Kong: a consumer).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrincipalPlan {
    pub id: Uuid,
    pub username: Option<Arc<str>>,
    pub custom_id: Option<Arc<str>>,
    /// Groups whose plugin instances apply, with their names, sorted by name.
    pub groups: Vec<(Arc<str>, Uuid)>,
    /// Group names for access lists (Kong: `acls`), sorted.
    pub acl_groups: Vec<Arc<str>>,
    /// The principal as its dialect shows it, for log entries: compact JSON.
    pub description: Arc<str>,
}

/// Something a caller presents (Kong: a key, a user name).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CredentialPlan {
    pub id: Uuid,
    /// Which mechanism looks it up, e.g. `key-auth`.
    pub kind: Arc<str>,
    /// The value looked up.
    pub key: Secret,
    pub principal: Uuid,
    /// What else the mechanism needs, e.g. a password hash.
    pub secret: Option<Secret>,
    /// Unix seconds after which it is void.
    pub expires_at: Option<i64>,
}

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuthorityPlan {
    pub id: Uuid,
    /// PEM, exactly one.
    pub certificate: Arc<str>,
}

/// A server certificate with the names it is shown for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CertificatePlan {
    pub id: Uuid,
    /// One or two pairs of different key types; the client's abilities decide.
    pub pairs: Vec<KeyPairPlan>,
    /// `name`, `*.suffix`, `prefix.*` or `*`.
    pub server_names: Vec<Arc<str>>,
}
