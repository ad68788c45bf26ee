//! Forwards that only requests bring to light: hosts in URLs with variables and in `target.url`, and names that a target's
//! certificate must have (`target.expectedcn`).
//!
//! A forward is made on first use from a profile (a forward of the plan, whose timeouts and TLS count) and kept, because
//! it resolves the name and its identity is what makes connections reusable.

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::dialects::apigee::url::UrlParts;
use crate::model::plan::{ClusterPlan, EndpointPlan, ForwardPlan, PeerRule, Protocol};
use crate::runtime::client::Client;
use crate::runtime::contract::LinkContext;
use crate::runtime::live::Live;
use crate::runtime::resolver::Resolver;
use crate::runtime::serving::Serving;
use crate::runtime::snapshot::Forward;
use crate::runtime::upstream_tls::UpstreamTls;

/// Hosts that are kept; the one asked for longest ago makes room.
const KEPT_MAX: usize = 1_000;

/// See the module.
pub(crate) struct DynamicForwards {
    live: Arc<Live>,
    resolver: Arc<Resolver>,
    serving: Arc<Serving>,
    client: Arc<Client>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    turn: u64,
    forwards: AHashMap<Key, Entry>,
}

/// What tells forwards apart: the forward that each was made from, and what is other about it.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    /// Another host: TLS, name, port.
    Host(Uuid, bool, String, u16),
    /// Another name in the target's certificate; the cluster and port are those of the first forward.
    Name(Uuid, Uuid, String),
}

struct Entry {
    /// What it was made from: another one makes another forward.
    profile: Arc<ForwardPlan>,
    forward: Arc<Forward>,
    used: u64,
}

impl DynamicForwards {
    pub(crate) fn of(context: &LinkContext<'_>) -> Arc<Self> {
        context.live.keep("flow forwards", || Self {
            live: Arc::clone(context.live),
            resolver: Arc::clone(context.resolver),
            serving: Arc::clone(context.serving),
            client: Arc::clone(context.client),
            kept: Mutex::default(),
        })
    }

    /// The forward to a host, with the timeouts and TLS of a profile.
    pub(crate) fn to(&self, profile: &Forward, url: &UrlParts) -> Result<Arc<Forward>, String> {
        let key = Key::Host(profile.plan.id, url.secure, url.host.clone(), url.port);
        self.keep(key, profile, || self.link(profile, url))
    }

    /// The same forward, to a target whose certificate bears this name whatever host is asked for.
    pub(crate) fn expecting(
        &self,
        forward: &Arc<Forward>,
        name: &str,
    ) -> Result<Arc<Forward>, String> {
        let known = &forward.plan;
        if forward.tls.is_none() {
            return Ok(Arc::clone(forward));
        }
        let key = Key::Name(known.id, known.cluster, name.to_owned());
        self.keep(key, forward, || {
            let mut plan = ForwardPlan::clone(known);
            plan.tls.peer = PeerRule::CommonName {
                name: name.into(),
                wildcard: false,
            };
            let client = forward.cluster.plan.client_certificate.as_ref();
            let tls = UpstreamTls::link(&plan.tls, client, &self.serving.trust, &self.live)?;
            Ok(Arc::new(Forward {
                plan: Arc::new(plan),
                cluster: Arc::clone(&forward.cluster),
                retries: Arc::clone(&forward.retries),
                tls: Some(tls),
            }))
        })
    }

    /// What is kept under a key and was made from the same forward, or what `make` gives.
    fn keep(
        &self,
        key: Key,
        profile: &Forward,
        make: impl FnOnce() -> Result<Arc<Forward>, String>,
    ) -> Result<Arc<Forward>, String> {
        let mut kept = self.kept.lock();
        kept.turn += 1;
        let turn = kept.turn;
        let same_cluster = |entry: &Entry| match key {
            Key::Host(..) => true,
            Key::Name(..) => Arc::ptr_eq(&entry.forward.cluster, &profile.cluster),
        };
        if let Some(entry) = kept.forwards.get_mut(&key)
            && Arc::ptr_eq(&entry.profile, &profile.plan)
            && same_cluster(entry)
        {
            entry.used = turn;
            return Ok(Arc::clone(&entry.forward));
        }
        let forward = make()?;
        if kept.forwards.len() >= KEPT_MAX && !kept.forwards.contains_key(&key) {
            let oldest = kept.forwards.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                kept.forwards.remove(&key);
            }
        }
        let entry = Entry {
            profile: Arc::clone(&profile.plan),
            forward: Arc::clone(&forward),
            used: turn,
        };
        kept.forwards.insert(key, entry);
        Ok(forward)
    }

    fn link(&self, profile: &Forward, url: &UrlParts) -> Result<Arc<Forward>, String> {
        let host: Arc<str> = url.host.as_str().into();
        let id = Uuid::new_v5(&profile.plan.id, url.authority().as_bytes());
        let endpoint = EndpointPlan {
            id,
            host: Arc::clone(&host),
            port: url.port,
            weight: 1,
            rank: 0,
            roster: None,
        };
        let cluster = ClusterPlan::plain(id, Arc::clone(&host), vec![endpoint]);
        let plan = ForwardPlan {
            protocol: if url.secure {
                Protocol::Https
            } else {
                Protocol::Http
            },
            cluster: id,
            host,
            port: url.port,
            ..(*profile.plan).clone()
        };
        let context = LinkContext {
            live: &self.live,
            resolver: &self.resolver,
            serving: &self.serving,
            client: &self.client,
            prefix: std::path::Path::new("."),
        };
        Forward::link_alone(Arc::new(plan), Arc::new(cluster), &context)
    }
}
