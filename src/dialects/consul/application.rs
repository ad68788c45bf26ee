//! The way of requests from a listener to an application on this machine: a route, a forward, and a cluster of one endpoint.
//!
//! Refuses to know why the listener is there. Start at [`Application::parts`].

use std::sync::Arc;

use uuid::Uuid;

use super::parts::Parts;
use super::registration::MeshProtocol;
use crate::model::plan::{
    ClusterPlan, EndpointPlan, ForwardPlan, PathJoining, PipelineKey, Protocol, ProtocolSet,
    RoutePlan, UpstreamTlsPlan,
};
use crate::model::route::{ExpressionText, MatcherPlan, Precedence};

/// An application, and what leads to it.
pub(super) struct Application {
    /// Of all parts, in the log and in metrics.
    pub(super) name: Arc<str>,
    /// For log entries, as JSON.
    pub(super) description: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) protocol: MeshProtocol,
    /// The listener's name: its requests are the only ones that go here.
    pub(super) entrance: String,
    /// Which of them; none: all.
    pub(super) condition: Option<ExpressionText>,
    pub(super) connect_timeout_ms: u32,
    /// The longest silence.
    pub(super) silence_ms: u32,
}

impl Application {
    /// The parts; `id` makes the id of each from its kind.
    pub(super) fn parts(self, id: impl Fn(&str) -> Uuid) -> Parts {
        let (route, forward, cluster) = (id("route"), id("forward"), id("cluster"));
        let endpoint = EndpointPlan {
            id: cluster,
            host: Arc::clone(&self.host),
            port: self.port,
            weight: 1,
            rank: 0,
            roster: None,
        };
        let cluster_plan = ClusterPlan::plain(cluster, Arc::clone(&self.name), vec![endpoint]);
        let forward_plan = ForwardPlan {
            id: forward,
            name: Some(Arc::clone(&self.name)),
            protocol: self.protocol.in_the_plan(),
            cluster,
            host: self.host,
            port: self.port,
            path: "/".into(),
            retries: 0,
            retry_statuses: Vec::new(),
            connect_timeout_ms: self.connect_timeout_ms,
            read_timeout_ms: self.silence_ms,
            write_timeout_ms: self.silence_ms,
            tls: UpstreamTlsPlan::default(),
            proxy_header: None,
            description: Arc::clone(&self.description),
        };
        let matcher = MatcherPlan {
            precedence: Precedence {
                id: route,
                ..Precedence::default()
            },
            entrance: Some(self.entrance),
            expression: self.condition,
            ..MatcherPlan::default()
        };
        let route_plan = route_of(route, self.name, matcher, forward, self.description);
        let mut parts = Parts::default();
        parts.clusters.insert(cluster, Arc::new(cluster_plan));
        parts.forwards.insert(forward, Arc::new(forward_plan));
        parts.routes.insert(route, Arc::new(route_plan));
        parts
    }
}

/// A route that passes requests on as they are.
pub(super) fn route_of(
    id: Uuid,
    name: Arc<str>,
    matcher: MatcherPlan,
    forward: Uuid,
    description: Arc<str>,
) -> RoutePlan {
    RoutePlan {
        id,
        name: Some(name),
        matchers: vec![matcher],
        protocols: ProtocolSet::of(&[Protocol::Http, Protocol::Https]),
        https_redirect_status: 426,
        strip_path: false,
        path_joining: PathJoining::default(),
        preserve_host: true,
        request_buffering: false,
        response_buffering: false,
        forward: Some(forward),
        pipeline: PipelineKey::default(),
        description,
    }
}
