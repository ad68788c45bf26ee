//! Keeps the rosters that the gateway's own upstreams want: `NAME.connect.consul` becomes addresses and identities.
//!
//! ```text
//! Rosters: wanted ─▶ one task for each ─▶ Search ─▶ members, each with whom to expect ─▶ Roster ─▶ clusters
//! ```
//!
//! Start at [`RosterKeeper::start`].

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::authority::ExpectedPeer;
use super::identity::MeshIdentity;
use super::report;
use super::search::{Found, Reach, Search, SearchParts};
use crate::dialects::consul::instance::Instance;
use crate::dialects::consul::mesh_name::MeshName;
use crate::dialects::consul::registration::Destination;
use crate::dialects::consul::walk::WHOLE;
use crate::runtime::mutual::{Secured, SecuredCounts};
use crate::runtime::roster::{Member, Members, Roster, Rosters};

/// How often everything is looked at again although nothing has changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often rosters that nobody wants any more are let go.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Keeps rosters until it is dropped.
pub struct RosterKeeper {
    kept: Arc<Mutex<BTreeMap<Arc<str>, Kept>>>,
    task: AbortHandle,
}

struct Kept {
    roster: Weak<Roster>,
    counts: Arc<SecuredCounts>,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for RosterKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RosterKeeper {
    /// Keeps every roster that is wanted from now on. Must be called within a runtime.
    pub fn start(parts: SearchParts, rosters: Arc<Rosters>) -> Self {
        let kept: Arc<Mutex<BTreeMap<Arc<str>, Kept>>> = Arc::default();
        let keeping = Arc::clone(&kept);
        let task = tokio::spawn(async move {
            let mut asked = rosters.asked();
            loop {
                keep(&keeping, &parts, rosters.wanted());
                // The sender lives as long as the rosters.
                let _ = tokio::time::timeout(TIDY_EVERY, asked.changed()).await;
            }
        });
        Self {
            kept,
            task: task.abort_handle(),
        }
    }

    /// A list for the status page.
    pub fn status(&self) -> Value {
        let kept = self.kept.lock();
        let rosters = kept.iter().filter_map(|(name, kept)| {
            let members = kept.roster.upgrade()?.members();
            Some(json!({
                "destination": name,
                "instances": members.all.len(),
                "trouble": members.trouble,
            }))
        });
        Value::Array(rosters.collect())
    }

    /// Lines for the metrics page.
    pub fn metrics(&self, page: &mut String) {
        let kept = self.kept.lock();
        let counts = kept.iter().map(|(name, kept)| (&**name, &*kept.counts));
        report::secured(page, &counts.collect::<Vec<_>>());
    }
}

fn keep(kept: &Mutex<BTreeMap<Arc<str>, Kept>>, parts: &SearchParts, wanted: Vec<Arc<Roster>>) {
    let mut kept = kept.lock();
    kept.retain(|_, kept| kept.roster.strong_count() > 0);
    for roster in wanted {
        let same = |kept: &Kept| Weak::ptr_eq(&kept.roster, &Arc::downgrade(&roster));
        if kept.get(&roster.name).is_some_and(same) {
            continue;
        }
        let Some(name) = MeshName::of_host(&roster.name) else {
            continue;
        };
        let counts: Arc<SecuredCounts> = Arc::default();
        let follower = Follower {
            parts: parts.clone(),
            roster: Arc::downgrade(&roster),
            counts: Arc::clone(&counts),
            told: None,
        };
        let task = tokio::spawn(follower.run(name)).abort_handle();
        let entry = Kept {
            roster: Arc::downgrade(&roster),
            counts,
            task,
        };
        kept.insert(Arc::clone(&roster.name), entry);
    }
}

/// The task behind a roster.
struct Follower {
    parts: SearchParts,
    roster: Weak<Roster>,
    counts: Arc<SecuredCounts>,
    /// The trouble that the log knows about.
    told: Option<String>,
}

impl Follower {
    async fn run(mut self, name: MeshName) {
        let destination = Destination {
            kind: name.kind,
            name: name.name.clone(),
            namespace: String::new(),
            partition: String::new(),
            peer: String::new(),
            datacenter: name.datacenter.clone(),
        };
        let mut search = Search::start(self.parts.clone(), &destination, None, Reach::Plain);
        loop {
            let found = search.look();
            let members = members(&self.parts.identity, &self.counts, found);
            if self.told != members.trouble {
                if let Some(trouble) = &members.trouble {
                    tracing::warn!(upstream = %name, "{trouble}");
                }
                self.told = members.trouble.clone();
            }
            match self.roster.upgrade() {
                Some(roster) => roster.set(members),
                None => return,
            }
            search.changed(LOOK_EVERY).await;
        }
    }
}

/// What was found as members of a roster, every resolver with its share.
fn members(identity: &MeshIdentity, counts: &Arc<SecuredCounts>, found: Found) -> Members {
    let alone = found.resolvers.len() == 1;
    let mut all = Vec::new();
    for resolver in &found.resolvers {
        let share = (!alone).then_some(resolver.share);
        all.extend(ranked(identity, counts, &resolver.groups, share));
    }
    let nobody = found.known && all.is_empty();
    Members {
        all,
        known: found.known || found.trouble.is_some(),
        trouble: found
            .trouble
            .or_else(|| nobody.then(|| "there is no healthy instance".to_owned())),
    }
}

/// Groups in the order of failover as members, who divide `share` between them if there is one.
pub(super) fn ranked(
    identity: &MeshIdentity,
    counts: &Arc<SecuredCounts>,
    groups: &[Vec<Instance>],
    share: Option<u32>,
) -> Vec<Member> {
    let mut members = Vec::new();
    for (rank, group) in groups.iter().enumerate() {
        let total: u64 = group.iter().map(|one| u64::from(one.weight)).sum();
        for instance in group {
            let weight = match share {
                None => u64::from(instance.weight),
                Some(0) => continue,
                Some(share) => {
                    (u64::from(share.min(WHOLE)) * u64::from(instance.weight) / total.max(1)).max(1)
                }
            };
            members.push(Member {
                host: instance.host.as_str().into(),
                port: instance.port,
                weight: u32::try_from(weight).unwrap_or(u32::MAX),
                rank: u8::try_from(rank).unwrap_or(u8::MAX),
                secured: Some(Arc::new(secured(identity, counts, instance))),
            });
        }
    }
    members
}

fn secured(identity: &MeshIdentity, counts: &Arc<SecuredCounts>, instance: &Instance) -> Secured {
    let expected: Vec<String> = instance
        .identities
        .iter()
        .map(ToString::to_string)
        .collect();
    Secured {
        cell: Arc::clone(identity.cell()),
        judge: Arc::new(ExpectedPeer {
            identities: instance.identities.clone(),
        }),
        expected: expected.join(" or ").into(),
        server_name: instance.server_name.as_deref().map(Into::into),
        counts: Arc::clone(counts),
    }
}
