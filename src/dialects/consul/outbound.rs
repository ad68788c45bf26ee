//! From a discovery chain to plan parts: what requests that leave by one local listener match, and where they lead.
//!
//! ```text
//! router ──▶ a route and a forward for each of its routes
//! splitter, resolver ──▶ a cluster whose endpoints are rosters, one for each resolver, by their shares
//! ```
//!
//! Instances are no part of it: they come and go in the rosters. Start at [`Outbound::compile`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::application::route_of;
use super::chain::{ChainNode, DiscoveryChain, RouteDefinition, RouteDestination};
use super::duration::timeout_of;
use super::header_edits;
use super::matching::expression;
use super::parts::Parts;
use super::registration::{MeshProtocol, PassiveHealth, UpstreamLimits};
use super::timeouts::ResolverTimeouts;
use super::walk::{self, WHOLE};
use crate::model::plan::{
    BalancePlan, ClusterPlan, EndpointPlan, ForwardPlan, HashInput, HealthPlan, PathJoining,
    PipelineKey, RoutePlan, StatusPlan, Thresholds, TrafficPlan, UpstreamTlsPlan,
};
use crate::model::route::{ExpressionText, MatcherPlan, Precedence};

/// More routes in one chain than this are refused.
const ROUTES_MAX: usize = 1_000;
/// Further tries where the router names no number.
const RETRIES: u16 = 2;
/// The port that applications see none of.
const PORT: u16 = 80;
/// Places on a ring of consistent hashing.
const SLOTS: u32 = 10_000;

/// What a local listener is, besides the chain.
#[derive(Debug, Clone, Copy)]
pub struct LocalUpstream<'a> {
    /// The name of the listener, the same for all parts of the plan and unlike that of any other.
    pub entrance: &'a str,
    /// The destination's name.
    pub name: &'a str,
    pub protocol: MeshProtocol,
    /// Instead of what resolvers say.
    pub connect_timeout: Option<Duration>,
    pub limits: UpstreamLimits,
    pub passive_health: Option<PassiveHealth>,
}

/// The parts of one listener.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outbound {
    pub parts: Parts,
    /// Roster by resolver.
    pub rosters: BTreeMap<String, Arc<str>>,
}

/// Where a route leads.
#[derive(Clone, Copy)]
struct End {
    cluster: Uuid,
    timeouts: ResolverTimeouts,
}

impl Outbound {
    /// The parts for a chain; without one everything goes to the resolver `only`. The error says what cannot be done.
    pub fn compile(
        upstream: LocalUpstream<'_>,
        chain: Option<&DiscoveryChain>,
        only: &str,
    ) -> Result<Self, String> {
        let mut made = Self::default();
        let Some(chain) = chain else {
            let shares = [(WHOLE, only)];
            let end = End {
                cluster: made.cluster(upstream, only, &shares, &BalancePlan::RoundRobin),
                timeouts: ResolverTimeouts::default(),
            };
            made.route(upstream, 0, &RouteDefinition::default(), end, 1)?;
            return Ok(made);
        };
        let start = walk::node(chain, &chain.start_node)?;
        if start.kind != "router" {
            let end = made.end(upstream, chain, &chain.start_node)?;
            made.route(upstream, 0, &RouteDefinition::default(), end, 1)?;
            return Ok(made);
        }
        let count = start.routes.len();
        if count == 0 || count > ROUTES_MAX {
            return Err(format!(
                "the router of '{}' has {count} routes, there must be between 1 and {ROUTES_MAX}",
                chain.service_name
            ));
        }
        for (index, route) in start.routes.iter().enumerate() {
            let end = made.end(upstream, chain, &route.next_node)?;
            made.route(upstream, index, &route.definition, end, count)?;
        }
        Ok(made)
    }

    fn end(
        &mut self,
        upstream: LocalUpstream<'_>,
        chain: &DiscoveryChain,
        name: &str,
    ) -> Result<End, String> {
        let shares = walk::shares(chain, name)?;
        let edited = |node: &ChainNode| {
            let mut splits = node.splits.iter();
            splits.any(|it| it.request_headers.is_some() || it.response_headers.is_some())
        };
        if chain.nodes.values().any(edited) {
            return Err(format!(
                "the splitter of '{}' changes headers, which only routers can do here",
                chain.service_name
            ));
        }
        let mut balance = BalancePlan::RoundRobin;
        for (_, resolver) in &shares {
            // Of several resolvers the first one that asks for anything counts.
            balance = balance_of(walk::node(chain, resolver)?)?;
            if balance != BalancePlan::RoundRobin {
                break;
            }
        }
        let resolvers = shares.iter().map(|(_, resolver)| *resolver);
        Ok(End {
            timeouts: ResolverTimeouts::of_all(chain, resolvers)?,
            cluster: self.cluster(upstream, name, &shares, &balance),
        })
    }

    fn cluster(
        &mut self,
        upstream: LocalUpstream<'_>,
        name: &str,
        shares: &[(u32, &str)],
        balance: &BalancePlan,
    ) -> Uuid {
        let id = id(upstream, "cluster", name);
        let endpoint = |(share, resolver): &(u32, &str)| {
            let roster: Arc<str> = format!("{} {resolver}", upstream.entrance).into();
            EndpointPlan {
                id: self::id(upstream, "endpoint", &format!("{name} {resolver}")),
                host: upstream.name.into(),
                port: PORT,
                weight: *share,
                rank: 0,
                roster: Some(roster),
            }
        };
        let endpoints: Vec<EndpointPlan> = shares.iter().map(endpoint).collect();
        for ((_, resolver), endpoint) in shares.iter().zip(&endpoints) {
            if let Some(roster) = &endpoint.roster {
                self.rosters
                    .insert((*resolver).to_owned(), Arc::clone(roster));
            }
        }
        let name = format!("{} ({name})", upstream.name);
        let cluster = ClusterPlan {
            balance: balance.clone(),
            health: upstream
                .passive_health
                .map_or_else(HealthPlan::default, health),
            exchanges_max: upstream.limits.concurrent_requests_max,
            ..ClusterPlan::plain(id, name, endpoints)
        };
        self.parts.clusters.insert(id, Arc::new(cluster));
        id
    }

    fn route(
        &mut self,
        upstream: LocalUpstream<'_>,
        index: usize,
        definition: &RouteDefinition,
        end: End,
        count: usize,
    ) -> Result<(), String> {
        let place = format!("route {} of '{}'", index + 1, upstream.name);
        let number = index.to_string();
        let (route, forward) = (
            id(upstream, "route", &number),
            id(upstream, "forward", &number),
        );
        let destination = &definition.destination;
        let edits = header_edits::pipeline(route, destination)
            .map_err(|what| format!("{place}: {what}"))?;
        let pipeline = match edits {
            None => PipelineKey::default(),
            Some(steps) => {
                let key = PipelineKey {
                    route: Some(route),
                    ..PipelineKey::default()
                };
                self.parts.pipelines.insert(key, Arc::new(steps));
                key
            }
        };
        let http = &definition.matches.http;
        let text = expression(http).map_err(|what| format!("{place}: {what}"))?;
        let rewrite = destination.prefix_rewrite.as_str();
        if !rewrite.is_empty() && !rewrite.starts_with('/') {
            return Err(format!(
                "{place}: PrefixRewrite '{rewrite}' does not begin with '/'"
            ));
        }
        let description: Arc<str> = json!({ "upstream": upstream.name, "route": index })
            .to_string()
            .into();
        let name: Arc<str> = format!("{} (outbound {index})", upstream.name).into();
        // Either one ends a silence, which is what the plan knows; the shorter one comes first.
        let mut silence: Option<u32> = None;
        for (field, value) in [
            ("RequestTimeout", &destination.request_timeout),
            ("IdleTimeout", &destination.idle_timeout),
        ] {
            let timeout = timeout_of(field, value.as_ref());
            if let Some(timeout) = timeout.map_err(|what| format!("{place}: {what}"))? {
                let timeout = milliseconds(timeout);
                silence = Some(silence.map_or(timeout, |known| known.min(timeout)));
            }
        }
        let silence = silence.unwrap_or_else(|| milliseconds(end.timeouts.request));
        let connect = upstream.connect_timeout.unwrap_or(end.timeouts.connect);
        let retry_statuses =
            retry_statuses(destination).map_err(|what| format!("{place}: {what}"))?;
        let plan = ForwardPlan {
            id: forward,
            name: Some(Arc::clone(&name)),
            // TLS comes with the members of the roster.
            protocol: upstream.protocol.in_the_plan(),
            cluster: end.cluster,
            host: upstream.name.into(),
            port: PORT,
            path: if rewrite.is_empty() { "/" } else { rewrite }.into(),
            retries: retries(destination),
            retry_statuses,
            connect_timeout_ms: milliseconds(connect),
            read_timeout_ms: silence,
            write_timeout_ms: silence,
            tls: UpstreamTlsPlan::default(),
            proxy_header: None,
            description: Arc::clone(&description),
        };
        let matcher = MatcherPlan {
            precedence: Precedence {
                // The first one that matches wins.
                rank: (count - index) as u64,
                id: route,
                ..Precedence::default()
            },
            entrance: Some(upstream.entrance.to_owned()),
            expression: text.map(|text| ExpressionText {
                text,
                stream: false,
            }),
            ..MatcherPlan::default()
        };
        let route_plan = RoutePlan {
            strip_path: !rewrite.is_empty(),
            path_joining: PathJoining::Concatenate,
            pipeline,
            ..route_of(route, name, matcher, forward, description)
        };
        self.parts.forwards.insert(forward, Arc::new(plan));
        self.parts.routes.insert(route, Arc::new(route_plan));
        Ok(())
    }
}

fn id(upstream: LocalUpstream<'_>, part: &str, name: &str) -> Uuid {
    let text = format!(
        "sallyport consul outbound {part} {} {name}",
        upstream.entrance
    );
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}

/// Further tries. Without a word about them as many as connections have: what was not sent may go elsewhere.
fn retries(destination: &RouteDestination) -> u16 {
    match destination.num_retries {
        0 => RETRIES,
        number => u16::try_from(number).unwrap_or(u16::MAX),
    }
}

/// Words of `RetryOn` that are about connections: those are tried again in any case.
const ABOUT_CONNECTIONS: [&str; 4] = [
    "connect-failure",
    "refused-stream",
    "reset",
    "reset-before-request",
];

/// Statuses that are tried again.
fn retry_statuses(destination: &RouteDestination) -> Result<Vec<u16>, String> {
    let mut statuses = destination.retry_on_status_codes.clone();
    for word in &destination.retry_on {
        match word.as_str() {
            "5xx" => statuses.extend(500..=599),
            "gateway-error" => statuses.extend([502, 503, 504]),
            "retriable-4xx" => statuses.push(409),
            word if ABOUT_CONNECTIONS.contains(&word) => {}
            word => {
                return Err(format!(
                    "RetryOn '{word}' is not supported; allowed are 5xx, gateway-error, retriable-4xx, {}",
                    ABOUT_CONNECTIONS.join(", ")
                ));
            }
        }
    }
    statuses.sort_unstable();
    statuses.dedup();
    Ok(statuses)
}

/// How the instances of a resolver are chosen.
fn balance_of(node: &ChainNode) -> Result<BalancePlan, String> {
    let Some(balancer) = &node.load_balancer else {
        return Ok(BalancePlan::RoundRobin);
    };
    match balancer.policy.as_str() {
        "" | "random" | "round_robin" => Ok(BalancePlan::RoundRobin),
        "least_request" => Ok(BalancePlan::LeastConnections),
        "ring_hash" | "maglev" => {
            let mut inputs = balancer.hash_policies.iter().map(|policy| {
                let value: Arc<str> = policy.field_value.as_str().into();
                match (policy.source_ip, policy.field.as_str()) {
                    (true, _) => Ok(HashInput::Address),
                    (_, "header") => Ok(HashInput::Header(value)),
                    (_, "cookie") => Ok(HashInput::Cookie {
                        name: value,
                        path: "/".into(),
                    }),
                    (_, "query_parameter") => Ok(HashInput::QueryArgument(value)),
                    (_, other) => Err(format!("LoadBalancer: cannot hash '{other}'")),
                }
            });
            Ok(BalancePlan::ConsistentHashing {
                slots: SLOTS,
                on: inputs.next().transpose()?.unwrap_or(HashInput::Address),
                fallback: inputs.next().transpose()?.unwrap_or(HashInput::None),
            })
        }
        other => Err(format!(
            "LoadBalancer.Policy '{other}' is none of random, round_robin, least_request, ring_hash and maglev"
        )),
    }
}

/// An instance that fails so often in a row is left out for a while.
fn health(passive: PassiveHealth) -> HealthPlan {
    HealthPlan {
        probe: None,
        traffic: Some(TrafficPlan {
            statuses: StatusPlan {
                good: Vec::new(),
                bad: (500..=599).collect(),
                others_are_good: true,
            },
            thresholds: Thresholds {
                successes: 1,
                failures: u16::try_from(passive.failures_max).unwrap_or(u16::MAX),
                ..Thresholds::default()
            },
        }),
        eject_for_ms: u64::try_from(passive.interval.as_millis()).ok(),
        available_percent_above: 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::expr::{Expression, Scope};
    use crate::model::plan::Plan;

    fn upstream() -> LocalUpstream<'static> {
        LocalUpstream {
            entrance: "127.0.0.1:9191",
            name: "web",
            protocol: MeshProtocol::Http,
            connect_timeout: None,
            limits: UpstreamLimits::default(),
            passive_health: None,
        }
    }

    fn chain(nodes: &str) -> DiscoveryChain {
        let text = format!(r#"{{"ServiceName":"web","StartNode":"start","Nodes":{{{nodes}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    const ROUTED: &str = r#"
        "start":{"Type":"router","Routes":[
            {"Definition":{"Match":{"HTTP":{"PathPrefix":"/v1/","Header":[{"Name":"x-a","Exact":"1"}]}},
             "Destination":{"PrefixRewrite":"/","RequestTimeout":"90s","IdleTimeout":"3s","NumRetries":2,"RetryOn":["reset"],"RetryOnStatusCodes":[503]}},
             "NextNode":"split"},
            {"Definition":{"Match":{"HTTP":{"PathPrefix":"/"}}},"NextNode":"a"}]},
        "split":{"Type":"splitter","Splits":[{"Weight":75,"NextNode":"a"},{"Weight":25,"NextNode":"b"}]},
        "a":{"Type":"resolver","Resolver":{"Target":"t","ConnectTimeout":"25s","RequestTimeout":"90s"},"LoadBalancer":{"Policy":"least_request"}},
        "b":{"Type":"resolver","Resolver":{"Target":"t"}}"#;

    #[test]
    fn routes_and_splits_become_parts_of_the_plan_and_go_without_a_trace() {
        let made = Outbound::compile(upstream(), Some(&chain(ROUTED)), "").unwrap();
        let mut plan = Plan::default();
        plan.apply(&made.parts.delta_from(&Parts::default()));
        let mut routes: Vec<_> = plan.routes.values().collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.matchers[0].precedence));
        let first = &plan.forwards[&routes[0].forward.unwrap()];
        assert_eq!(
            (&*first.path, first.retries, first.read_timeout_ms),
            ("/", 2, 3000)
        );
        assert_eq!(first.retry_statuses, [503]);
        // What the router says, and what the resolvers do.
        let second = &plan.forwards[&routes[1].forward.unwrap()];
        let waits = |it: &ForwardPlan| (it.connect_timeout_ms, it.read_timeout_ms);
        assert_eq!(
            (waits(first), waits(second)),
            ((25_000, 3_000), (25_000, 90_000))
        );
        assert!(routes[0].strip_path && !routes[1].strip_path);
        let split = &plan.clusters[&first.cluster];
        let shares: Vec<_> = split.endpoints.iter().map(|it| it.weight).collect();
        assert_eq!(shares, [7500, 2500]);
        assert_eq!(split.balance, BalancePlan::LeastConnections);
        assert_eq!(made.rosters.len(), 2);
        for route in routes {
            let text = &route.matchers[0].expression.as_ref().unwrap().text;
            Expression::parse(text, Scope::Http).unwrap();
        }
        assert!(made.parts.delta_from(&made.parts).is_empty());
        plan.apply(&Parts::default().delta_from(&made.parts));
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (nodes, what) in [
            (r#""start":{"Type":"router","Routes":[]}"#, "routes"),
            (
                r#""start":{"Type":"router","Routes":[{"Definition":{"Destination":{"RequestHeaders":{"Add":{"a":"$(b)"}}}},"NextNode":"r"}]},
                   "r":{"Type":"resolver","Resolver":{}}"#,
                "header 'a'",
            ),
            (
                r#""start":{"Type":"router","Routes":[{"Definition":{"Destination":{"RetryOn":["unavailable"]}},"NextNode":"r"}]},
                   "r":{"Type":"resolver","Resolver":{}}"#,
                "RetryOn 'unavailable'",
            ),
            (
                r#""start":{"Type":"resolver","LoadBalancer":{"Policy":"best"}}"#,
                "best",
            ),
        ] {
            let refused = Outbound::compile(upstream(), Some(&chain(nodes)), "").unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
    }
}
