//! The search for what an upstream's name stands for: its chain or query, and the instances behind that, all watched.
//!
//! ```text
//! destination ─▶ discovery chain ─▶ resolvers ─▶ targets in order of failover ─▶ instances of each
//!           └──▶ prepared query (repeated) ──────────────────────────────────────────▲
//! ```
//!
//! Owns what is watched and when it is looked at again. Refuses to know what is done with what is found. Start at
//! [`Search::start`], then [`Search::look`] after each [`Search::changed`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::identity::{MeshIdentity, MeshRoots, watch_roots};
use super::watch::{Watch, Watches};
use super::ways::{Here, TargetWatch, Ways, ways_of_query};
use crate::dialects::consul::answers::QueryResult;
use crate::dialects::consul::chain::DiscoveryChain;
use crate::dialects::consul::instance::Instance;
use crate::dialects::consul::registration::{Destination, DestinationKind, GatewayMode};
use crate::dialects::consul::spiffe::SpiffeId;
use crate::dialects::consul::timeouts::ResolverTimeouts;
use crate::dialects::consul::walk::{self, WHOLE};

/// The resolver that stands for what a prepared query finds.
pub const OF_QUERY: &str = "query";

/// What a search is made with.
#[derive(Clone)]
pub struct SearchParts {
    pub watches: Arc<Watches>,
    pub identity: Arc<MeshIdentity>,
    /// The service that mesh gateways are registered as.
    pub gateway_service: Arc<str>,
}

/// Which resolvers of a chain are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those to which what no route claims goes, by their shares.
    Plain,
    /// All of them.
    All,
}

/// Looks for the instances of one destination until it is dropped.
pub struct Search {
    parts: SearchParts,
    mode: Option<GatewayMode>,
    reach: Reach,
    roots: Arc<Watch<MeshRoots>>,
    source: Source,
    wakes: Wakes,
    /// As of this chain, seen from this datacenter.
    looked: (u64, String),
    resolvers: Result<Vec<Resolver>, String>,
}

enum Source {
    Chain(Arc<Watch<DiscoveryChain>>),
    Query(Arc<Watch<QueryResult>>),
}

/// A resolver with what it leads to.
struct Resolver {
    name: String,
    /// Hundredths of a percent; see [`walk::shares`].
    share: u32,
    timeouts: ResolverTimeouts,
    targets: Vec<TargetWatch>,
}

/// What a search has found by now.
#[derive(Default)]
pub struct Found {
    pub resolvers: Vec<FoundResolver>,
    /// The chain; none for queries, and before the agent has answered.
    pub chain: Option<Arc<DiscoveryChain>>,
    /// False until the agent has answered everything once.
    pub known: bool,
    /// Why there is nothing, or less than there should be.
    pub trouble: Option<String>,
}

/// Instances in groups in the order of failover; groups without instances are left out.
pub struct FoundResolver {
    pub name: String,
    /// [`WHOLE`] is everything.
    pub share: u32,
    pub timeouts: ResolverTimeouts,
    pub groups: Vec<Vec<Instance>>,
}

impl Search {
    /// Watches from now on. Must be called within a runtime.
    pub fn start(
        parts: SearchParts,
        destination: &Destination,
        mode: Option<GatewayMode>,
        reach: Reach,
    ) -> Self {
        let mut wakes = Wakes::default();
        let roots = watch_roots(&parts.watches);
        wakes.follow(&roots);
        // Where we are is in our certificate, which may come after the chain.
        wakes.wake_with(parts.identity.changes());
        let here = Here {
            watches: Arc::clone(&parts.watches),
            datacenter: String::new(),
            gateway_service: Arc::clone(&parts.gateway_service),
        };
        let source = match destination.kind {
            DestinationKind::Service => {
                let chain = here.chain(destination);
                wakes.follow(&chain);
                Source::Chain(chain)
            }
            DestinationKind::PreparedQuery => {
                let query = here.query(destination);
                wakes.follow(&query);
                Source::Query(query)
            }
        };
        wakes.keep();
        Self {
            parts,
            mode,
            reach,
            roots,
            source,
            wakes,
            looked: (0, String::new()),
            resolvers: Ok(Vec::new()),
        }
    }

    /// Looks for other resolvers from now on. True if that is a change.
    pub fn reach(&mut self, reach: Reach) -> bool {
        let changes = self.reach != reach;
        self.reach = reach;
        if changes {
            self.looked = (0, String::new());
        }
        changes
    }

    /// Waits until something may have changed, but not longer than this.
    pub async fn changed(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.wakes.notify.notified()).await;
    }

    /// What is found at present.
    pub fn look(&mut self) -> Found {
        let roots = self.roots.known().value;
        let trust_domain = roots.as_ref().map_or("", |roots| &roots.trust_domain);
        let known = match &self.source {
            Source::Query(query) => {
                let ways = ways_of_query(&query.known(), trust_domain);
                return found_by_query(ways);
            }
            Source::Chain(chain) => chain.known(),
        };
        let Some(chain) = &known.value else {
            return Found {
                trouble: known.trouble.map(|trouble| trouble.error.to_string()),
                ..Found::default()
            };
        };
        let looked = (known.version, self.datacenter());
        if self.looked != looked {
            self.resolvers = self.resolvers(chain, &looked.1);
            self.looked = looked;
        }
        let mut found = Found {
            chain: Some(Arc::clone(chain)),
            known: true,
            ..Found::default()
        };
        let resolvers = match &self.resolvers {
            Ok(resolvers) => resolvers,
            Err(trouble) => {
                found.trouble = Some(trouble.clone());
                return found;
            }
        };
        for resolver in resolvers {
            let mut groups = Vec::new();
            for target in &resolver.targets {
                let ways = target.ways(trust_domain);
                found.known &= ways.known;
                found.trouble = found.trouble.or(ways.trouble);
                if !ways.all.is_empty() {
                    groups.push(ways.all);
                }
            }
            found.resolvers.push(FoundResolver {
                name: resolver.name.clone(),
                share: resolver.share,
                timeouts: resolver.timeouts,
                groups,
            });
        }
        found
    }

    /// Our own, as our certificate says; empty before there is one.
    fn datacenter(&self) -> String {
        match SpiffeId::parse(&self.parts.identity.facts().uri) {
            Ok(SpiffeId::Service(own)) => own.datacenter,
            _ => String::new(),
        }
    }

    fn resolvers(
        &mut self,
        chain: &DiscoveryChain,
        datacenter: &str,
    ) -> Result<Vec<Resolver>, String> {
        let here = Here {
            watches: Arc::clone(&self.parts.watches),
            datacenter: datacenter.to_owned(),
            gateway_service: Arc::clone(&self.parts.gateway_service),
        };
        let names: Vec<(u32, &str)> = match self.reach {
            Reach::Plain => walk::shares(chain, walk::plain_start(chain)?)?,
            Reach::All => {
                let nodes = chain.nodes.iter();
                let resolvers = nodes.filter(|(_, node)| node.kind == "resolver");
                resolvers.map(|(name, _)| (WHOLE, name.as_str())).collect()
            }
        };
        self.wakes.forget();
        let mut resolvers = Vec::new();
        for (share, name) in names {
            let mut targets = Vec::new();
            for target in walk::targets(chain, name)? {
                let target = TargetWatch::start(&here, target, self.mode)?;
                target.each_watch(|watch| self.wakes.follow(watch));
                targets.push(target);
            }
            resolvers.push(Resolver {
                name: name.to_owned(),
                share,
                timeouts: ResolverTimeouts::of(chain, name)?,
                targets,
            });
        }
        Ok(resolvers)
    }
}

fn found_by_query(ways: Ways) -> Found {
    let groups = match ways.all.is_empty() {
        true => Vec::new(),
        false => vec![ways.all],
    };
    Found {
        resolvers: vec![FoundResolver {
            name: OF_QUERY.to_owned(),
            share: WHOLE,
            timeouts: ResolverTimeouts::default(),
            groups,
        }],
        chain: None,
        known: ways.known,
        trouble: ways.trouble,
    }
}

/// Tasks that wake a search when something it watches changes.
#[derive(Default)]
struct Wakes {
    notify: Arc<Notify>,
    /// For as long as the search.
    kept: Vec<AbortHandle>,
    /// Until the chain changes.
    passing: Vec<AbortHandle>,
}

impl Wakes {
    fn follow<T: Send + Sync + 'static>(&mut self, watch: &Watch<T>) {
        self.wake_with(watch.changes());
    }

    fn wake_with<T: Send + Sync + 'static>(&mut self, mut changes: watch::Receiver<T>) {
        let notify = Arc::clone(&self.notify);
        let task = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                notify.notify_one();
            }
        });
        self.passing.push(task.abort_handle());
    }

    /// What is followed by now is followed to the end.
    fn keep(&mut self) {
        self.kept.append(&mut self.passing);
    }

    fn forget(&mut self) {
        for task in self.passing.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for task in self.passing.iter().chain(&self.kept) {
            task.abort();
        }
    }
}
