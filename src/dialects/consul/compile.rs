//! From a proxy registration to plan parts: what requests that arrive on its public listener match, and where they lead.
//!
//! Listeners of streams need no plan: their bytes go straight to the application. Start at [`inbound`].

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::parts::Parts;
use super::registration::{LocalApplication, MeshProtocol, PublicListener};
use crate::model::plan::{
    BalancePlan, ClusterPlan, EndpointPlan, ForwardPlan, HealthPlan, PathJoining, PipelineKey,
    Protocol, ProtocolSet, RoutePlan, UpstreamTlsPlan,
};
use crate::model::route::{MatcherPlan, Precedence};

/// The longest silence of an application, where the registration names none, in milliseconds.
const READ_TIMEOUT_MS: u32 = 60_000;

/// The name of a service's public listener, for the routes that are for it.
pub fn entrance(service: &str) -> String {
    format!("inbound {service}")
}

/// The parts behind a public listener that carries requests. They take every request that comes in there.
pub fn inbound(service: &str, public: &PublicListener) -> Result<Parts, String> {
    let (host, application_port) = match &public.application {
        LocalApplication::Tcp { host, port } => (Arc::<str>::from(host.as_str()), *port),
        LocalApplication::Socket(path) => {
            return Err(format!(
                "Proxy.LocalServiceSocketPath '{path}' works with protocol 'tcp' only, not with '{}'",
                public.protocol.word()
            ));
        }
    };
    let id = |part: &str| {
        let name = format!("sallyport consul inbound {part} {service}");
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    };
    let (route_id, forward_id, cluster_id) = (id("route"), id("forward"), id("cluster"));
    let description: Arc<str> = json!({ "service": service }).to_string().into();
    let name: Arc<str> = format!("{service} (inbound)").into();
    let milliseconds =
        |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let silence = public.request_timeout.map_or(READ_TIMEOUT_MS, milliseconds);
    let cluster = ClusterPlan {
        id: cluster_id,
        name: Arc::clone(&name),
        endpoints: vec![EndpointPlan {
            id: cluster_id,
            host: Arc::clone(&host),
            port: application_port,
            weight: 1,
            rank: 0,
            roster: None,
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
        id: forward_id,
        name: Some(Arc::clone(&name)),
        // HTTP/2 without TLS is what the plan calls gRPC.
        protocol: match public.protocol {
            MeshProtocol::Http2 | MeshProtocol::Grpc => Protocol::Grpc,
            MeshProtocol::Http | MeshProtocol::Tcp => Protocol::Http,
        },
        cluster: cluster_id,
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
            id: route_id,
            ..Precedence::default()
        },
        entrance: Some(entrance(service)),
        ..MatcherPlan::default()
    };
    let route = RoutePlan {
        id: route_id,
        name: Some(name),
        matchers: vec![matcher],
        protocols: ProtocolSet::of(&[Protocol::Http, Protocol::Https]),
        https_redirect_status: 426,
        strip_path: false,
        path_joining: PathJoining::default(),
        preserve_host: true,
        request_buffering: false,
        response_buffering: false,
        forward: Some(forward_id),
        pipeline: PipelineKey::default(),
        description,
    };
    let mut parts = Parts::default();
    parts.clusters.insert(cluster_id, Arc::new(cluster));
    parts.forwards.insert(forward_id, Arc::new(forward));
    parts.routes.insert(route_id, Arc::new(route));
    Ok(parts)
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
        let parts = inbound("web", &public).unwrap();
        plan.apply(&parts.delta_from(&Parts::default()));
        let route = plan.routes.values().next().unwrap();
        let forward = &plan.forwards[&route.forward.unwrap()];
        assert_eq!((forward.port, forward.protocol), (9000, Protocol::Grpc));
        plan.apply(&Parts::default().delta_from(&parts));
        assert_eq!(plan, crate::model::plan::Plan::default());
        let socket = PublicListener {
            application: LocalApplication::Socket("/x".to_owned()),
            ..public
        };
        assert!(inbound("web", &socket).is_err());
    }
}
