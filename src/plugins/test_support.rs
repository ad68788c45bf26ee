//! A small world for plugin tests: principals, credentials, a route, exchanges made by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pingora_http::RequestHeader;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::base::pem::KeyPair;
use crate::base::secret::Secret;
use crate::base::self_signed::{Algorithm, PemPair, SelfSigned};
use crate::model::plan::{
    AuthorityPlan, ClusterPlan, CredentialPlan, EndpointPlan, ForwardPlan, InstancePlan,
    PathJoining, PipelineKey, PrincipalPlan, Protocol, ProtocolSet, RoutePlan, Scope,
    UpstreamTlsPlan,
};
use crate::model::serving::{
    AccessLogFormat, ClientAddressPlan, GatewayHeadersPlan, ServingPlan, UpstreamPoolPlan,
};
use crate::plugins::kong::renderer::{ErrorTemplates, KongRenderer};
use crate::runtime::authorities::{Authorities, Authority};
use crate::runtime::certificates::CertificateTable;
use crate::runtime::client::{Client, ClientOptions};
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::cluster::Cluster;
use crate::runtime::connection::{Connection, TlsFacts};
use crate::runtime::contract::{Flow, LinkContext, Plugin, PluginEntry};
use crate::runtime::directory::Directory;
use crate::runtime::exchange::{Exchange, RequestBody, RequestId};
use crate::runtime::live::Live;
use crate::runtime::pipeline::Pipeline;
use crate::runtime::resolver::{Resolver, ResolverOptions};
use crate::runtime::router::Router;
use crate::runtime::serving::Serving;
use crate::runtime::session::Session;
use crate::runtime::slots::Slots;
use crate::runtime::snapshot::{Credential, Forward, Principal, Route, Snapshot};

/// The id of the principal of this name.
pub(crate) fn principal_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// Status and text of a fault; `None` when the flow goes on.
pub(crate) fn refusal(flow: &Flow) -> Option<(u16, String)> {
    match flow {
        Flow::Continue => None,
        Flow::Fault(fault) => Some((
            fault.status.as_u16(),
            fault.message.as_deref().unwrap_or_default().to_owned(),
        )),
        Flow::Respond(response) => panic!("answered {}", response.status),
    }
}

/// A request to be.
pub(crate) struct Message {
    head: RequestHeader,
    body: RequestBody,
}

impl Message {
    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn new(method: &str, target: &str) -> Self {
        let mut head = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        head.insert_header("Host", "gateway.test").unwrap();
        Self {
            head,
            body: RequestBody::Absent,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.append_header(name.to_owned(), value).unwrap();
        self
    }

    pub(crate) fn body(mut self, kind: &str, body: &str) -> Self {
        self.body = RequestBody::Held(Bytes::from(body.to_owned()));
        self.header("Content-Type", kind)
            .header("Content-Length", &body.len().to_string())
    }
}

/// What a snapshot is made of.
pub(crate) struct World {
    pub(crate) live: Arc<Live>,
    directory: Directory,
    authorities: Authorities,
    route: Arc<Route>,
}

/// An authority with its key, which issues certificates for clients.
pub(crate) struct Issuer {
    pub(crate) id: Uuid,
    pair: PemPair,
}

impl Issuer {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            id: principal_id(name),
            pair: Self::describe(name, &[], true).generate().unwrap(),
        }
    }

    /// A certificate with this common name, which is its only DNS name too.
    pub(crate) fn issue(&self, name: &str) -> PemPair {
        let issuer = KeyPair::parse(&self.pair.certificate, &self.pair.key).unwrap();
        Self::describe(name, &[name], false)
            .issue(&issuer.leaf, &issuer.key)
            .unwrap()
    }

    fn describe<'a>(name: &'a str, dns_names: &'a [&'a str], authority: bool) -> SelfSigned<'a> {
        SelfSigned {
            algorithm: Algorithm::EcdsaP256,
            common_name: name,
            dns_names,
            addresses: &[],
            authority,
            not_before: 1_790_000_000,
            days: 3650,
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let id = |name: &str| Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes());
        let forward = Forward {
            plan: Arc::new(ForwardPlan {
                id: id("service"),
                name: Some("shop".into()),
                protocol: Protocol::Http,
                cluster: id("cluster"),
                host: "origin.test".into(),
                port: 80,
                path: "/".into(),
                retries: 5,
                retry_statuses: Vec::new(),
                connect_timeout_ms: 60_000,
                read_timeout_ms: 60_000,
                write_timeout_ms: 60_000,
                tls: UpstreamTlsPlan::default(),
                proxy_header: None,
                description: r#"{"name":"shop"}"#.into(),
            }),
            cluster: cluster(id("cluster")),
            retries: Arc::default(),
            tls: None,
        };
        let route = Route {
            plan: Arc::new(RoutePlan {
                id: id("route"),
                name: Some("basket".into()),
                matchers: Vec::new(),
                protocols: ProtocolSet::of(&[Protocol::Http]),
                https_redirect_status: 426,
                strip_path: true,
                path_joining: PathJoining::Slash,
                preserve_host: false,
                request_buffering: true,
                response_buffering: true,
                forward: Some(forward.plan.id),
                pipeline: PipelineKey::default(),
                description: r#"{"name":"basket"}"#.into(),
            }),
            pipeline: Arc::default(),
            forward: Some(Arc::new(forward)),
        };
        Self {
            live: Arc::default(),
            directory: Directory::default(),
            authorities: Authorities::default(),
            route: Arc::new(route),
        }
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        self.route.clone()
    }

    pub(crate) fn principal(mut self, name: &str, acl_groups: &[&str]) -> Self {
        self.directory
            .put_principal(Arc::new(Principal::new(Arc::new(PrincipalPlan {
                id: principal_id(name),
                username: Some(name.into()),
                custom_id: None,
                groups: Vec::new(),
                acl_groups: acl_groups.iter().map(|group| Arc::from(*group)).collect(),
                description: json!({"username": name}).to_string().into(),
            }))));
        self
    }

    /// A principal that is nothing but its description.
    pub(crate) fn described(mut self, name: &str, description: &str) -> Self {
        self.directory
            .put_principal(Arc::new(Principal::new(Arc::new(PrincipalPlan {
                id: principal_id(name),
                username: None,
                custom_id: None,
                groups: Vec::new(),
                acl_groups: Vec::new(),
                description: description.into(),
            }))));
        self
    }

    pub(crate) fn authority(mut self, issuer: &Issuer) -> Self {
        let plan = AuthorityPlan {
            id: issuer.id,
            certificate: issuer.pair.certificate.as_str().into(),
        };
        self.authorities.insert(Authority::link(&plan).unwrap());
        self
    }

    pub(crate) fn credential(
        self,
        kind: &str,
        key: &str,
        principal: &str,
        secret: Option<&str>,
    ) -> Self {
        self.put_credential(kind, key, principal, secret, None)
    }

    pub(crate) fn expiring_credential(
        self,
        kind: &str,
        key: &str,
        principal: &str,
        expires_at: i64,
    ) -> Self {
        self.put_credential(kind, key, principal, None, Some(expires_at))
    }

    fn put_credential(
        mut self,
        kind: &str,
        key: &str,
        principal: &str,
        secret: Option<&str>,
        expires_at: Option<i64>,
    ) -> Self {
        self.directory
            .put_credential(Arc::new(Credential::new(Arc::new(CredentialPlan {
                id: principal_id(key),
                kind: kind.into(),
                key: Secret::new(key),
                principal: principal_id(principal),
                secret: secret.map(Secret::new),
                expires_at,
            }))));
        self
    }

    /// Attaches a principal with a credential, as an authentication plugin would.
    pub(crate) fn authenticate(&self, exchange: &mut Exchange, name: &str) {
        let principal = exchange.snapshot.principal(&principal_id(name)).unwrap();
        exchange.identity.principal = Some(principal.clone());
        exchange.identity.credential = Some(Arc::new(Credential::new(Arc::new(CredentialPlan {
            id: principal_id(&format!("{name}'s")),
            kind: "test".into(),
            key: Secret::new(name),
            principal: principal_id(name),
            secret: None,
            expires_at: None,
        }))));
    }

    /// An instance's plan, its configuration filled and found valid.
    pub(crate) fn instance(&self, entry: &PluginEntry, config: Value) -> Arc<InstancePlan> {
        let (config, errors) = filled(entry, config);
        assert_eq!(errors, json!({}), "{}", entry.info.name);
        Arc::new(InstancePlan {
            protocols: Default::default(),
            id: principal_id(entry.info.name),
            plugin: entry.info.name.into(),
            config,
            scope: Scope::default(),
        })
    }

    pub(crate) fn link(&self, entry: PluginEntry, config: Value) -> Arc<dyn Plugin> {
        let plan = self.instance(&entry, config);
        self.try_link(&entry, &plan).unwrap()
    }

    pub(crate) fn try_link(
        &self,
        entry: &PluginEntry,
        plan: &Arc<InstancePlan>,
    ) -> Result<Arc<dyn Plugin>, String> {
        self.with_context(|context| (entry.link)(plan, context))
    }

    /// Hands `operation` what instances are linked with.
    pub(crate) fn with_context<T>(&self, operation: impl FnOnce(&LinkContext<'_>) -> T) -> T {
        operation(&LinkContext {
            live: &self.live,
            resolver: &resolver(),
            serving: &Arc::new(Serving::link(serving()).unwrap()),
            prefix: Path::new("."),
            client: &Client::new(resolver(), ClientOptions::default()),
        })
    }

    /// The complaints about a configuration.
    pub(crate) fn refused(&self, entry: PluginEntry, config: Value) -> Value {
        let (_, errors) = filled(&entry, config);
        errors
    }

    /// A stream from `192.0.2.1` that has matched no route yet.
    pub(crate) fn session(&self) -> Session {
        let exchange = self.exchange(Message::get("/"));
        let connection = Arc::clone(&exchange.connection);
        Session::new(&exchange.snapshot, connection, exchange.started)
    }

    /// An exchange that has matched the one route, at its access phase.
    pub(crate) fn exchange(&self, message: Message) -> Exchange {
        self.exchange_from(message, false)
    }

    /// The same over TLS, with the certificate that the client showed.
    pub(crate) fn secure_exchange(
        &self,
        message: Message,
        client_certificate: Option<Arc<ClientCertificate>>,
    ) -> Exchange {
        let exchange = self.exchange(message);
        let facts = TlsFacts {
            server_name: None,
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            client_certificate,
        };
        exchange.connection.tls.set(facts).unwrap();
        exchange
    }

    /// The same from a peer that is trusted or not.
    pub(crate) fn exchange_from(&self, message: Message, trusted: bool) -> Exchange {
        let snapshot = Arc::new(Snapshot {
            revision: 1,
            router: Router::default(),
            stream_router: Router::default(),
            passthrough_router: Router::default(),
            routes: Slots::default(),
            global_pipeline: Arc::new(Pipeline::default()),
            global_stream_pipeline: Arc::default(),
            directory: self.directory.clone(),
            certificates: CertificateTable::new(None),
            authorities: self.authorities.clone(),
            certificate_requests: Default::default(),
            forwards: imbl::OrdMap::new(),
            clusters: imbl::OrdMap::new(),
            serving: Arc::new(Serving::link(serving()).unwrap()),
            renderer: Arc::new(KongRenderer::new(
                ErrorTemplates::default(),
                "text/plain",
                "w",
            )),
        });
        let connection = Connection::new(
            "192.0.2.1:40000".parse().unwrap(),
            "192.0.2.9:8000".parse().unwrap(),
            8000,
            trusted,
        );
        let mut exchange = Exchange::new(
            snapshot,
            Arc::new(connection),
            message.head.into(),
            Instant::now(),
        );
        exchange.request_id = RequestId::from_bits(7);
        exchange.request_body = message.body;
        exchange.route = Some(self.route());
        exchange
    }
}

fn filled(entry: &PluginEntry, config: Value) -> (Value, Value) {
    let Value::Object(config) = config else {
        panic!("a configuration is an object");
    };
    let config = Value::Object(entry.info.config.fill(config));
    let Value::Object(instance) = json!({"config": config}) else {
        panic!("an instance is an object");
    };
    let errors = entry.info.validate(&instance).into_json();
    (config, errors)
}

/// Nobody asks it for a name, so its runtime may end at once.
fn resolver() -> Arc<Resolver> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let resolver = Resolver::start(ResolverOptions::default(), runtime.handle()).unwrap();
    runtime.shutdown_background();
    resolver
}

/// A cluster of one address.
fn cluster(id: Uuid) -> Arc<Cluster> {
    let endpoint = EndpointPlan {
        id,
        host: "192.0.2.20".into(),
        port: 80,
        weight: 100,
        rank: 0,
        roster: None,
    };
    let plan = ClusterPlan::plain(id, "origin.test", vec![endpoint]);
    Cluster::link(Arc::new(plan), &Live::default(), &resolver()).unwrap()
}

fn serving() -> ServingPlan {
    ServingPlan {
        trusted: Vec::new(),
        client_address: ClientAddressPlan {
            header: "x-real-ip".into(),
            recursive: false,
        },
        request_headers_max: 100,
        response_headers_max: 100,
        query_arguments_max: 100,
        request_body_bytes_max: 0,
        held_body_bytes_max: 1 << 20,
        client_idle_seconds: 65,
        tunnel_idle_seconds: None,
        client_head_ms: 10_000,
        client_body_bytes_per_second: 0,
        listener_connections_max: 0,
        address_connections_max: 0,
        client_requests_max: 10_000,
        retry_percent: 20,
        upstream_pool: UpstreamPoolPlan {
            idle_per_peer_max: 512,
            requests_max: 10_000,
            idle_seconds: 60,
        },
        headers: GatewayHeadersPlan::default(),
        error_type: "text/plain".into(),
        trust_anchors: "".into(),
        client_certificate: None,
        port_map: Vec::new(),
        access_log: AccessLogFormat::Entry,
    }
}
