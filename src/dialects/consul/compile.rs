//! From a proxy registration to plan parts: what requests that arrive on its public listener match, and where they lead.
//!
//! Listeners of streams need no plan: their bytes go straight to the application. Start at [`inbound`].

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::registration::{LocalApplication, MeshProtocol, PublicListener};
use crate::model::plan::{
    BalancePlan, ClusterPlan, EndpointPlan, ForwardPlan, HealthPlan, PathJoining, PipelineKey,
    PlanDelta, Protocol, ProtocolSet, RoutePlan, UpstreamTlsPlan,
};
use crate::model::route::{MatcherPlan, Precedence};

/// The longest silence of an application, where the registration names none, in milliseconds.
const READ_TIMEOUT_MS: u32 = 60_000;

/// The parts of one listener, by which they can be taken away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundIds {
    pub route: Uuid,
    pub forward: Uuid,
    pub cluster: Uuid,
}

impl InboundIds {
    /// Those of a service's public listener: always the same.
    pub fn of(service: &str) -> Self {
        let id = |part: &str| {
            let name = format!("sallyport consul inbound {part} {service}");
            Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
        };
        Self {
            route: id("route"),
            forward: id("forward"),
            cluster: id("cluster"),
        }
    }

    /// What takes the parts away.
    pub fn removal(self) -> PlanDelta {
        let mut delta = PlanDelta::default();
        delta.routes.insert(self.route, None);
        delta.forwards.insert(self.forward, None);
        delta.clusters.insert(self.cluster, None);
        delta
    }
}

/// The parts behind a public listener that carries requests. They take every request: a proxy has no other such listener,
/// and the port that routes see is the one in `Host`, which is not that of the listener.
pub fn inbound(service: &str, public: &PublicListener) -> Result<PlanDelta, String> {
    let (host, application_port) = match &public.application {
        LocalApplication::Tcp { host, port } => (Arc::<str>::from(host.as_str()), *port),
        LocalApplication::Socket(path) => {
            return Err(format!(
                "Proxy.LocalServiceSocketPath '{path}' works with protocol 'tcp' only, not with '{}'",
                public.protocol.word()
            ));
        }
    };
    let ids = InboundIds::of(service);
    let description: Arc<str> = json!({ "service": service }).to_string().into();
    let name: Arc<str> = format!("{service} (inbound)").into();
    let milliseconds =
        |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let silence = public.request_timeout.map_or(READ_TIMEOUT_MS, milliseconds);
    let cluster = ClusterPlan {
        id: ids.cluster,
        name: Arc::clone(&name),
        endpoints: vec![EndpointPlan {
            id: ids.cluster,
            host: Arc::clone(&host),
            port: application_port,
            weight: 1,
            rank: 0, roster: None,
        }],
        balance: BalancePlan::RoundRobin,
        health: HealthPlan::default(),
        host_header: None,
        use_srv_name: false,
        client_certificate: None,
        named: false,
        exchanges_max: None,
    };
    let forward = ForwardPlan {
        id: ids.forward,
        name: Some(Arc::clone(&name)),
        // HTTP/2 without TLS is what the plan calls gRPC.
        protocol: match public.protocol {
            MeshProtocol::Http2 | MeshProtocol::Grpc => Protocol::Grpc,
            MeshProtocol::Http | MeshProtocol::Tcp => Protocol::Http,
        },
        cluster: ids.cluster,
        host,
        port: application_port,
        path: "/".into(),
        retries: 0,
        retry_statuses: Vec::new(),
        connect_timeout_ms: milliseconds(public.connect_timeout),
        read_timeout_ms: silence,
        write_timeout_ms: silence,
        tls: UpstreamTlsPlan::default(),
        proxy_header: None,
        description: Arc::clone(&description),
    };
    let matcher = MatcherPlan {
        precedence: Precedence {
            id: ids.route,
            ..Precedence::default()
        },
        ..MatcherPlan::default()
    };
    let route = RoutePlan {
        id: ids.route,
        name: Some(name),
        matchers: vec![matcher],
        protocols: ProtocolSet::of(&[Protocol::Http, Protocol::Https]),
        https_redirect_status: 426,
        strip_path: false,
        path_joining: PathJoining::default(),
        preserve_host: true,
        request_buffering: false,
        response_buffering: false,
        forward: Some(ids.forward),
        pipeline: PipelineKey::default(),
        description,
    };
    let mut delta = PlanDelta::default();
    delta.clusters.insert(ids.cluster, Some(Arc::new(cluster)));
    delta.forwards.insert(ids.forward, Some(Arc::new(forward)));
    delta.routes.insert(ids.route, Some(Arc::new(route)));
    Ok(delta)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::dialects::consul::registration::Bind;

    #[test]
    fn a_listener_leads_to_its_application_and_goes_without_a_trace() {
        let public = PublicListener {
            bind: Bind {
                host: "127.0.0.1".to_owned(),
                port: 21000,
            },
            protocol: MeshProtocol::Grpc,
            application: LocalApplication::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 9000,
            },
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(10),
            request_timeout: None,
            connections_max: None,
        };
        let mut plan = crate::model::plan::Plan::default();
        plan.apply(&inbound("web", &public).unwrap());
        let route = plan.routes.values().next().unwrap();
        let forward = &plan.forwards[&route.forward.unwrap()];
        assert_eq!((forward.port, forward.protocol), (9000, Protocol::Grpc));
        plan.apply(&InboundIds::of("web").removal());
        assert_eq!(plan, crate::model::plan::Plan::default());
        let socket = PublicListener {
            application: LocalApplication::Socket("/x".to_owned()),
            ..public
        };
        assert!(inbound("web", &socket).is_err());
    }
}
