//! From the target of a discovery chain to the places that may be dialled for it, watched.
//!
//! ```text
//! target ─▶ instances of the service ──────────────────┬▶ ways: where, and whom to expect there
//!      └──▶ mesh gateways, where the target wants them ┘
//! ```
//!
//! A gateway passes TLS on by its server name: what is expected at the other end is the service all the same. Start at
//! [`TargetWatch::start`].

use std::sync::Arc;

use super::client::{AgentAnswer, decode, encode};
use super::watch::{Style, Watch, Watches};
use crate::dialects::consul::answers::{HealthEntry, QueryResult};
use crate::dialects::consul::chain::{ChainAnswer, ChainTarget, DiscoveryChain};
use crate::dialects::consul::gateway::{self, Gateway};
use crate::dialects::consul::instance::{Healthy, Instance, instances};
use crate::dialects::consul::registration::{Destination, DestinationKind, GatewayMode};

/// How often a prepared query is executed.
pub const QUERY_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// Where we stand: what targets are judged by.
#[derive(Clone)]
pub struct Here {
    pub watches: Arc<Watches>,
    /// The datacenter of the agent; empty while it is not known.
    pub datacenter: String,
    /// The service that mesh gateways are registered as.
    pub gateway_service: Arc<str>,
}

/// The instances of one target.
pub struct TargetWatch {
    target: ChainTarget,
    health: Arc<Watch<Vec<HealthEntry>>>,
    gateways: Option<(GatewayMode, Arc<Watch<Vec<HealthEntry>>>)>,
}

/// Places to dial, and why there are not more.
#[derive(Default)]
pub struct Ways {
    pub all: Vec<Instance>,
    /// False until the agent has answered.
    pub known: bool,
    pub trouble: Option<String>,
}

impl TargetWatch {
    /// Watches a target from now on. `mode` wins over what the target says of mesh gateways. The error says why it
    /// cannot be reached.
    pub fn start(
        here: &Here,
        target: ChainTarget,
        mode: Option<GatewayMode>,
    ) -> Result<Self, String> {
        let service = &target.service;
        if !target.peer.is_empty() {
            return Err(format!(
                "'{service}' of peer '{}' cannot be reached: the agent does not tell the certificates of peered clusters",
                target.peer
            ));
        }
        let mode = gateway::mode_for(&target, &here.datacenter, mode);
        let gateways = match mode {
            GatewayMode::Direct => None,
            GatewayMode::Local => Some((mode, here.gateways(""))),
            GatewayMode::Remote => Some((mode, here.gateways(&target.datacenter))),
        };
        let mut asked = format!("/v1/health/connect/{}?cached", encode(service));
        let parts = [
            ("dc", &target.datacenter),
            ("ns", &target.namespace),
            ("partition", &target.partition),
            ("filter", &target.subset.filter),
        ];
        for (name, value) in parts {
            let is_default = matches!(name, "ns" | "partition") && value == "default";
            if !value.is_empty() && !is_default {
                asked = format!("{asked}&{name}={}", encode(value));
            }
        }
        Ok(Self {
            health: here.watches.watch(&asked, Style::Index, decode_health),
            target,
            gateways,
        })
    }

    /// Wakes `wake` with every change, for as long as the handles given are not aborted.
    pub fn each_watch(&self, mut visit: impl FnMut(&Watch<Vec<HealthEntry>>)) {
        visit(&self.health);
        if let Some((_, gateways)) = &self.gateways {
            visit(gateways);
        }
    }

    /// The places at present. `trust_domain` is that of the roots.
    pub fn ways(&self, trust_domain: &str) -> Ways {
        let known = self.health.known();
        let service = &self.target.service;
        let Some(entries) = &known.value else {
            return Ways {
                trouble: known.trouble.map(|trouble| trouble.error.to_string()),
                ..Ways::default()
            };
        };
        let healthy = match self.target.subset.only_passing {
            true => Healthy::Passing,
            false => Healthy::PassingAndWarning,
        };
        let (mut found, skipped) = instances(entries, service, trust_domain, healthy);
        for skipped in skipped {
            tracing::warn!(%service, instance = %skipped.id, "left out: {}", skipped.why);
        }
        let mut trouble = match entries.is_empty() && known.filtered {
            true => Some(format!(
                "the token may not see the instances of '{service}'"
            )),
            false => None,
        };
        let sni = Some(&self.target.sni).filter(|sni| !sni.is_empty());
        for instance in &mut found {
            instance.server_name = instance.server_name.take().or_else(|| sni.cloned());
        }
        if let Some((mode, gateways)) = &self.gateways
            && !found.is_empty()
        {
            let answer = gateways.known();
            let entries = answer.value.as_deref().map_or(&[][..], Vec::as_slice);
            let gateways: Vec<Gateway> = gateway::gateways(entries, *mode);
            if gateways.is_empty() {
                trouble = Some(format!(
                    "'{service}' in '{}' is behind mesh gateways, of which none is healthy",
                    self.target.datacenter
                ));
            }
            found = gateway::through(&found, &gateways);
        }
        Ways {
            all: found,
            known: true,
            trouble,
        }
    }
}

impl Here {
    fn gateways(&self, datacenter: &str) -> Arc<Watch<Vec<HealthEntry>>> {
        let mut asked = format!(
            "/v1/health/service/{}?cached",
            encode(&self.gateway_service)
        );
        if !datacenter.is_empty() {
            asked = format!("{asked}&dc={}", encode(datacenter));
        }
        self.watches.watch(&asked, Style::Index, decode_health)
    }

    /// The discovery chain of a service.
    pub fn chain(&self, destination: &Destination) -> Arc<Watch<DiscoveryChain>> {
        let mut asked = format!("/v1/discovery-chain/{}", encode(&destination.name));
        let mut separator = '?';
        for (name, value) in [
            ("compile-dc", &destination.datacenter),
            ("ns", &destination.namespace),
            ("partition", &destination.partition),
        ] {
            if !value.is_empty() {
                asked = format!("{asked}{separator}{name}={}", encode(value));
                separator = '&';
            }
        }
        self.watches.watch(&asked, Style::Index, decode_chain)
    }

    /// What a prepared query finds.
    pub fn query(&self, destination: &Destination) -> Arc<Watch<QueryResult>> {
        debug_assert!(destination.kind == DestinationKind::PreparedQuery);
        let mut asked = format!(
            "/v1/query/{}/execute?connect=true",
            encode(&destination.name)
        );
        if !destination.datacenter.is_empty() {
            asked = format!("{asked}&dc={}", encode(&destination.datacenter));
        }
        let style = Style::Poll(QUERY_EVERY);
        self.watches.watch(&asked, style, decode_query)
    }
}

/// The places that a prepared query has found.
pub fn ways_of_query(known: &super::watch::Known<QueryResult>, trust_domain: &str) -> Ways {
    let Some(result) = &known.value else {
        return Ways {
            trouble: known.trouble.as_ref().map(|it| it.error.to_string()),
            ..Ways::default()
        };
    };
    let healthy = Healthy::PassingAndWarning;
    let (all, skipped) = instances(&result.nodes, &result.service, trust_domain, healthy);
    for skipped in skipped {
        tracing::warn!(service = %result.service, instance = %skipped.id, "left out: {}", skipped.why);
    }
    Ways {
        all,
        known: true,
        trouble: None,
    }
}

fn decode_chain(answer: &AgentAnswer) -> Result<DiscoveryChain, String> {
    decode::<ChainAnswer>(&answer.body).map(|answer| answer.chain)
}

fn decode_query(answer: &AgentAnswer) -> Result<QueryResult, String> {
    decode(&answer.body)
}

fn decode_health(answer: &AgentAnswer) -> Result<Vec<HealthEntry>, String> {
    decode(&answer.body)
}
