//! The ways out of a proxy: a listener for each upstream, and where its connections or requests lead.
//!
//! ```text
//! upstream ─▶ Search ─┬▶ tcp:  instances in order of failover ─▶ Dialer ─▶ bytes both ways
//!                     └▶ http: routes and clusters ─▶ plan; instances ─▶ rosters ─▶ requests take the routes
//! ```
//!
//! Start at [`Upstreams::new`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::dialling::{Dialling, Route, Routes};
use super::identity::MeshIdentity;
use super::plan_book::PlanBook;
use super::report::{self, UpstreamCounts};
use super::rosters::ranked;
use super::search::{Found, OF_QUERY, Reach, Search, SearchParts};
use super::sidecar::UpstreamRunner;
use super::watch::Watches;
use crate::dialects::consul::outbound::{LocalUpstream, Outbound};
use crate::dialects::consul::parts::Parts;
use crate::dialects::consul::registration::{
    DestinationKind, LocalListen, MeshProtocol, UpstreamConfiguration,
};
use crate::engine::mutual::Doors;
use crate::engine::mutual::outbound::{
    LocalAddress, OutboundCounts, OutboundListen, OutboundListener,
};
use crate::engine::mutual::requests::{RequestListen, RequestListener};
use crate::runtime::mutual::{Dialer, Offer};
use crate::runtime::roster::{Members, Roster, Rosters};

/// How often a listener is tried again whose address is taken.
const BIND_RETRY: Duration = Duration::from_millis(250);
/// How long connections of a listener that goes may still go on.
const DRAIN: Duration = Duration::from_secs(30);
/// How often everything is looked at again although nothing has changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What the listeners need.
pub struct UpstreamParts {
    pub watches: Arc<Watches>,
    pub doors: Doors,
    pub plans: Arc<PlanBook>,
    pub rosters: Arc<Rosters>,
    /// The service that mesh gateways are registered as.
    pub gateway_service: Arc<str>,
}

/// Runs the listeners of one proxy.
pub struct Upstreams {
    parts: Arc<UpstreamParts>,
    running: Arc<Mutex<BTreeMap<LocalListen, Running>>>,
}

struct Running {
    configuration: UpstreamConfiguration,
    /// Leaves of another service need another listener.
    identity: Arc<MeshIdentity>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// What the task of an upstream tells the others.
struct Shared {
    name: String,
    counts: Arc<OutboundCounts>,
    dialling: Arc<Dialling>,
    listener: Mutex<Option<Listener>>,
    /// Why the listener is not open.
    unopened: Mutex<Option<String>>,
    facts: ArcSwap<Facts>,
}

/// What the status page shows.
#[derive(Default)]
struct Facts {
    protocol: Option<MeshProtocol>,
    /// By resolver, then in the order of failover.
    instances: Vec<Vec<usize>>,
    trouble: Option<String>,
}

/// An open listener of either kind.
enum Listener {
    Bytes(OutboundListener),
    Requests(RequestListener),
}

impl Listener {
    fn close(&self) {
        match self {
            Self::Bytes(listener) => listener.close(),
            Self::Requests(listener) => listener.close(),
        }
    }

    fn cut(&self) {
        match self {
            Self::Bytes(listener) => listener.cut(),
            Self::Requests(listener) => listener.cut(),
        }
    }

    /// Lets what is open go on for a while.
    fn drain(self) {
        self.close();
        tokio::spawn(async move {
            tokio::time::sleep(DRAIN).await;
            self.cut();
        });
    }
}

impl Upstreams {
    pub fn new(parts: UpstreamParts) -> Arc<Self> {
        Arc::new(Self {
            parts: Arc::new(parts),
            running: Arc::default(),
        })
    }

    fn start(
        &self,
        identity: &Arc<MeshIdentity>,
        configuration: &UpstreamConfiguration,
    ) -> Running {
        let name = configuration.destination.name.clone();
        let shared = Arc::new(Shared {
            dialling: Arc::new(Dialling::new(&name, configuration.passive_health)),
            name,
            counts: Arc::default(),
            listener: Mutex::default(),
            unopened: Mutex::default(),
            facts: ArcSwap::default(),
        });
        let search = SearchParts {
            watches: Arc::clone(&self.parts.watches),
            identity: Arc::clone(identity),
            gateway_service: Arc::clone(&self.parts.gateway_service),
        };
        let task = Task {
            parts: Arc::clone(&self.parts),
            identity: Arc::clone(identity),
            configuration: configuration.clone(),
            shared: Arc::clone(&shared),
            rosters: BTreeMap::new(),
            told: None,
        };
        Running {
            configuration: configuration.clone(),
            identity: Arc::clone(identity),
            shared,
            task: tokio::spawn(task.run(search)).abort_handle(),
        }
    }

    /// Takes the parts of a listener out of the plan when its last requests have had their time.
    fn forget(&self, listen: &LocalListen) {
        let (parts, running) = (Arc::clone(&self.parts), Arc::clone(&self.running));
        let listen = listen.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DRAIN).await;
            let running = running.lock();
            if !running.contains_key(&listen) {
                parts.plans.enter(&entrance(&listen), Parts::default());
            }
        });
    }
}

impl UpstreamRunner for Upstreams {
    fn apply(&self, identity: &Arc<MeshIdentity>, upstreams: &[UpstreamConfiguration]) {
        let mut running = self.running.lock();
        let mut wanted: BTreeMap<LocalListen, &UpstreamConfiguration> = BTreeMap::new();
        for upstream in upstreams {
            if wanted.insert(upstream.listen.clone(), upstream).is_some() {
                tracing::error!(upstream = %upstream.destination.name, "two upstreams listen on the same address, the later one does");
            }
        }
        let stale: Vec<LocalListen> = running
            .iter()
            .filter(|(listen, one)| {
                wanted.get(*listen).is_none_or(|wanted| {
                    **wanted != one.configuration || !Arc::ptr_eq(&one.identity, identity)
                })
            })
            .map(|(listen, _)| listen.clone())
            .collect();
        for listen in stale {
            if let Some(old) = running.remove(&listen) {
                old.stop();
            }
            if !wanted.contains_key(&listen) {
                self.forget(&listen);
            }
        }
        for (listen, configuration) in wanted {
            running
                .entry(listen)
                .or_insert_with(|| self.start(identity, configuration));
        }
    }

    fn status(&self) -> Value {
        let running = self.running.lock();
        let upstreams = running.values().map(|one| {
            let facts = one.shared.facts.load();
            json!({
                "destination": one.configuration.destination.name,
                "listen": show(&one.configuration.listen),
                "protocol": facts.protocol.map(MeshProtocol::word),
                "instances": facts.instances,
                "trouble": one.shared.unopened.lock().clone().or_else(|| facts.trouble.clone()),
            })
        });
        Value::Array(upstreams.collect())
    }

    fn metrics(&self, page: &mut String) {
        let running = self.running.lock();
        let counts: Vec<UpstreamCounts<'_>> = running
            .values()
            .map(|one| UpstreamCounts {
                upstream: &one.shared.name,
                listen: show(&one.configuration.listen),
                counts: &one.shared.counts,
            })
            .collect();
        report::outbound(page, &counts);
    }
}

impl Running {
    /// Accepts no more, and lets what is open go on for a while.
    fn stop(self) {
        self.task.abort();
        if let Some(listener) = self.shared.listener.lock().take() {
            tracing::info!(upstream = %self.shared.name, listen = %show(&self.configuration.listen), "upstream listener closed");
            listener.drain();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind an upstream.
struct Task {
    parts: Arc<UpstreamParts>,
    identity: Arc<MeshIdentity>,
    configuration: UpstreamConfiguration,
    shared: Arc<Shared>,
    /// Held, so that what is known stays.
    rosters: BTreeMap<Arc<str>, Arc<Roster>>,
    /// The trouble that the log knows about.
    told: Option<String>,
}

impl Task {
    async fn run(mut self, search: SearchParts) {
        let destination = self.configuration.destination.clone();
        let mut search = Search::start(
            search,
            &destination,
            self.configuration.gateway,
            Reach::Plain,
        );
        loop {
            let mut found = search.look();
            let protocol = self.protocol(&found);
            let requests = protocol.is_some_and(|it| self.carries_requests(it));
            let reach = if requests { Reach::All } else { Reach::Plain };
            if search.reach(reach) {
                found = search.look();
            }
            if let Some(protocol) = protocol {
                let trouble = match requests {
                    true => self.lead_requests(protocol, &found),
                    false => self.lead_bytes(protocol, &found),
                };
                self.tell(protocol, &found, trouble);
                self.open(protocol, requests);
            } else if let Some(trouble) = &found.trouble {
                // Nothing is known of it yet, not even its protocol.
                self.tell_trouble(Some(trouble.clone()));
            }
            let pause = match self.shared.listener.lock().is_some() || protocol.is_none() {
                true => LOOK_EVERY,
                false => BIND_RETRY,
            };
            search.changed(pause).await;
        }
    }

    /// What is spoken; none while nobody has said.
    fn protocol(&self, found: &Found) -> Option<MeshProtocol> {
        if self.configuration.protocol.is_some() {
            return self.configuration.protocol;
        }
        match (self.configuration.destination.kind, &found.chain) {
            (DestinationKind::PreparedQuery, _) => Some(MeshProtocol::Tcp),
            (DestinationKind::Service, Some(chain)) => {
                Some(MeshProtocol::from_word(&chain.protocol).unwrap_or_default())
            }
            (DestinationKind::Service, None) => None,
        }
    }

    /// Are requests looked at? Not those of sockets in the file system, which are carried as bytes.
    fn carries_requests(&self, protocol: MeshProtocol) -> bool {
        protocol.has_requests() && matches!(self.configuration.listen, LocalListen::Tcp(_))
    }

    /// Routes, clusters and members for what is found. Gives what is wrong.
    fn lead_requests(&mut self, protocol: MeshProtocol, found: &Found) -> Option<String> {
        let entrance = entrance(&self.configuration.listen);
        if self.configuration.destination.kind == DestinationKind::Service && found.chain.is_none()
        {
            return found.trouble.clone();
        }
        let upstream = LocalUpstream {
            entrance: &entrance,
            name: &self.shared.name,
            protocol,
            connect_timeout: self.configuration.connect_timeout,
            limits: self.configuration.limits,
            passive_health: self.configuration.passive_health,
        };
        let made = match Outbound::compile(upstream, found.chain.as_deref(), OF_QUERY) {
            Ok(made) => made,
            // What served so far goes on.
            Err(wrong) => return Some(wrong),
        };
        let mut rosters = BTreeMap::new();
        for resolver in &found.resolvers {
            let Some(name) = made.rosters.get(&resolver.name) else {
                continue;
            };
            let roster = self.parts.rosters.roster(name);
            let peers = &self.shared.counts.peers;
            roster.set(Members {
                all: ranked(&self.identity, peers, &resolver.groups, None),
                known: found.known,
                trouble: found.trouble.clone(),
            });
            rosters.insert(Arc::clone(name), roster);
        }
        // Members first: the routes find them.
        self.parts.plans.enter(&entrance, made.parts);
        self.rosters = rosters;
        found.trouble.clone()
    }

    fn lead_bytes(&mut self, protocol: MeshProtocol, found: &Found) -> Option<String> {
        let entrance = entrance(&self.configuration.listen);
        self.parts.plans.enter(&entrance, Parts::default());
        let offer = match protocol {
            MeshProtocol::Tcp => Offer::Nothing,
            MeshProtocol::Http => Offer::Http1,
            MeshProtocol::Http2 | MeshProtocol::Grpc => Offer::Http2,
        };
        let connect_timeout = self.configuration.connect_timeout;
        let resolvers = found.resolvers.iter();
        let routes = resolvers
            .map(|found| Route::of(found, connect_timeout))
            .collect();
        self.shared.dialling.lead(Routes {
            routes,
            offer,
            trouble: found.trouble.clone(),
        });
        found.trouble.clone()
    }

    fn tell(&mut self, protocol: MeshProtocol, found: &Found, trouble: Option<String>) {
        let counts = found.resolvers.iter();
        let instances = counts.map(|one| one.groups.iter().map(Vec::len).collect());
        self.shared.facts.store(Arc::new(Facts {
            protocol: Some(protocol),
            instances: instances.collect(),
            trouble: trouble.clone(),
        }));
        self.tell_trouble(trouble);
    }

    fn tell_trouble(&mut self, trouble: Option<String>) {
        if self.told != trouble {
            if let Some(trouble) = &trouble {
                tracing::error!(upstream = %self.shared.name, "{trouble}");
            }
            self.told = trouble;
        }
    }

    /// Opens the listener if it is not open, or is one of the other kind.
    fn open(&self, protocol: MeshProtocol, requests: bool) {
        let mut slot = self.shared.listener.lock();
        match &*slot {
            Some(Listener::Requests(_)) if requests => return,
            Some(Listener::Bytes(_)) if !requests => return,
            _ => {}
        }
        if let Some(old) = slot.take() {
            old.drain();
        }
        let opened = match requests {
            true => self.open_requests(protocol),
            false => self.open_bytes(),
        };
        let mut unopened = self.shared.unopened.lock();
        let listen = show(&self.configuration.listen);
        match opened {
            Ok(listener) => {
                tracing::info!(upstream = %self.shared.name, listen, protocol = protocol.word(), "upstream listener open");
                *slot = Some(listener);
                *unopened = None;
            }
            Err(what) => {
                if unopened.as_deref() != Some(&what) {
                    tracing::error!(upstream = %self.shared.name, listen, "{what}");
                    *unopened = Some(what);
                }
            }
        }
    }

    fn open_bytes(&self) -> Result<Listener, String> {
        let address = address_of(&self.configuration.listen)?;
        let opened = self.parts.doors.open_outbound(OutboundListen {
            name: self.shared.name.as_str().into(),
            address,
            cell: Arc::clone(self.identity.cell()),
            dialer: Arc::clone(&self.shared.dialling) as Arc<dyn Dialer>,
            connections_max: self.configuration.limits.connections_max,
            counts: Arc::clone(&self.shared.counts),
        });
        opened
            .map(Listener::Bytes)
            .map_err(|error| format!("cannot listen: {error}"))
    }

    fn open_requests(&self, protocol: MeshProtocol) -> Result<Listener, String> {
        let LocalAddress::Tcp(address) = address_of(&self.configuration.listen)? else {
            return Err("requests need a listener with a port".to_owned());
        };
        let opened = self.parts.doors.open_requests(RequestListen {
            address,
            entrance: entrance(&self.configuration.listen).into(),
            http2: protocol != MeshProtocol::Http,
            connections_max: self.configuration.limits.connections_max,
            counts: Arc::clone(&self.shared.counts),
        });
        opened
            .map(Listener::Requests)
            .map_err(|error| format!("cannot listen: {}", error.source))
    }
}

/// The name of a listener, for the routes that are for it.
fn entrance(listen: &LocalListen) -> String {
    format!("outbound {}", show(listen))
}

fn address_of(listen: &LocalListen) -> Result<LocalAddress, String> {
    match listen {
        LocalListen::Socket { path, mode } => Ok(LocalAddress::Unix {
            path: PathBuf::from(path),
            mode: *mode,
        }),
        LocalListen::Tcp(bind) => {
            let host = bind.host.trim_matches(['[', ']']);
            let ip: IpAddr = match host {
                "localhost" => IpAddr::from([127, 0, 0, 1]),
                host => host
                    .parse()
                    .map_err(|_| format!("'{host}' is not an IP address"))?,
            };
            Ok(LocalAddress::Tcp(SocketAddr::new(ip, bind.port)))
        }
    }
}

fn show(listen: &LocalListen) -> String {
    match listen {
        LocalListen::Tcp(bind) if bind.host.contains(':') => {
            format!("[{}]:{}", bind.host, bind.port)
        }
        LocalListen::Tcp(bind) => format!("{}:{}", bind.host, bind.port),
        LocalListen::Socket { path, .. } => format!("unix:{path}"),
    }
}
