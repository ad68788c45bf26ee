//! The ways out of a proxy: a listener for each upstream, and where its connections lead.
//!
//! ```text
//! upstream ─▶ discovery chain ─▶ targets in order of failover ─▶ instances of each ─▶ Dialer
//!        └─▶ prepared query (repeated) ──────────────────────────────┘
//! ```
//!
//! Connections are carried as bytes. A chain that splits or routes requests cannot be served so and is refused, as is a
//! way through mesh gateways. Start at [`Upstreams::new`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::authority::ExpectedPeer;
use super::client::{AgentAnswer, decode, encode};
use super::identity::{MeshIdentity, MeshRoots, watch_roots};
use super::sidecar::UpstreamRunner;
use super::watch::{Style, Watch, Watches};
use crate::dialects::consul::answers::{HealthEntry, QueryResult};
use crate::dialects::consul::chain::{ChainAnswer, ChainTarget, DEPTH_MAX, DiscoveryChain};
use crate::dialects::consul::instance::{Healthy, Instance, instances};
use crate::dialects::consul::registration::{
    DestinationKind, GatewayMode, LocalListen, MeshProtocol, UpstreamConfiguration,
};
use crate::engine::mutual::Doors;
use crate::engine::mutual::outbound::{
    LocalAddress, OutboundCounts, OutboundListen, OutboundListener,
};
use crate::runtime::mutual::{DialTarget, Dialer, Offer};

/// How often a listener is tried again whose address is taken.
const BIND_RETRY: Duration = Duration::from_millis(250);
/// How long connections of a listener that goes may still go on.
const DRAIN: Duration = Duration::from_secs(30);
/// How often a prepared query is executed.
const QUERY_EVERY: Duration = Duration::from_secs(10);
/// How often everything is looked at again although nothing has changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Runs the listeners of one proxy.
pub struct Upstreams {
    watches: Arc<Watches>,
    doors: Doors,
    running: Mutex<BTreeMap<LocalListen, Running>>,
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
    routes: ArcSwap<Routes>,
    offer: ArcSwap<Offer>,
    counts: Arc<OutboundCounts>,
    listener: Mutex<Option<OutboundListener>>,
    trouble: Mutex<Option<String>>,
}

/// Where connections lead: groups of instances in the order of failover.
#[derive(Default)]
struct Routes {
    groups: Vec<Vec<(u32, DialTarget)>>,
    /// Why there are none.
    trouble: Option<String>,
}

impl Upstreams {
    pub fn new(watches: Arc<Watches>, doors: Doors) -> Arc<Self> {
        Arc::new(Self {
            watches,
            doors,
            running: Mutex::default(),
        })
    }

    fn start(
        &self,
        identity: &Arc<MeshIdentity>,
        configuration: &UpstreamConfiguration,
    ) -> Running {
        let shared = Arc::new(Shared {
            name: configuration.destination.name.clone(),
            routes: ArcSwap::default(),
            offer: ArcSwap::from_pointee(offer_of(configuration.protocol.unwrap_or_default())),
            counts: Arc::default(),
            listener: Mutex::default(),
            trouble: Mutex::default(),
        });
        let task = Task {
            watches: Arc::clone(&self.watches),
            doors: self.doors.clone(),
            identity: Arc::clone(identity),
            roots: watch_roots(&self.watches),
            configuration: configuration.clone(),
            shared: Arc::clone(&shared),
            wake: Arc::default(),
            forwarders: Vec::new(),
        };
        Running {
            configuration: configuration.clone(),
            identity: Arc::clone(identity),
            shared,
            task: tokio::spawn(task.run()).abort_handle(),
        }
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
            let routes = one.shared.routes.load();
            json!({
                "destination": one.configuration.destination.name,
                "listen": show(&one.configuration.listen),
                "instances": routes.groups.iter().map(Vec::len).collect::<Vec<_>>(),
                "trouble": one.shared.trouble.lock().clone().or_else(|| routes.trouble.clone()),
            })
        });
        Value::Array(upstreams.collect())
    }

    fn metrics(&self, page: &mut String) {
        use std::fmt::Write;

        let running = self.running.lock();
        let mut family =
            |name: &str, kind: &str, help: &str, value: &dyn Fn(&OutboundCounts) -> u64| {
                // Writing to text cannot fail.
                let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
                for one in running.values() {
                    let (upstream, value) = (label(&one.shared.name), value(&one.shared.counts));
                    let listen = label(&show(&one.configuration.listen));
                    let _ = writeln!(
                        page,
                        "{name}{{upstream=\"{upstream}\",listen=\"{listen}\"}} {value}"
                    );
                }
            };
        family(
            "sallyport_connect_outbound_connected_total",
            "counter",
            "Connections that reached their peer",
            &|counts| counts.connected.load(Relaxed),
        );
        family(
            "sallyport_connect_outbound_open",
            "gauge",
            "Connections that are open",
            &|counts| counts.open.load(Relaxed),
        );
        family(
            "sallyport_connect_outbound_sent_bytes_total",
            "counter",
            "Bytes to peers",
            &|counts| counts.sent.load(Relaxed),
        );
        family(
            "sallyport_connect_outbound_received_bytes_total",
            "counter",
            "Bytes from peers",
            &|counts| counts.received.load(Relaxed),
        );
        let name = "sallyport_connect_outbound_failed_total";
        let _ = writeln!(
            page,
            "# HELP {name} Tries to reach a peer that failed, by reason\n# TYPE {name} counter"
        );
        for one in running.values() {
            let upstream = label(&one.shared.name);
            let listen = label(&show(&one.configuration.listen));
            for (reason, count) in one
                .shared
                .counts
                .failures
                .all()
                .filter(|(_, count)| *count > 0)
            {
                let _ = writeln!(
                    page,
                    "{name}{{upstream=\"{upstream}\",listen=\"{listen}\",reason=\"{reason}\"}} {count}"
                );
            }
        }
    }
}

impl Running {
    /// Accepts no more, and lets what is open go on for a while.
    fn stop(self) {
        self.task.abort();
        let Some(listener) = self.shared.listener.lock().take() else {
            return;
        };
        tracing::info!(upstream = %self.shared.name, listen = %show(&self.configuration.listen), "upstream listener closed");
        listener.close();
        tokio::spawn(async move {
            tokio::time::sleep(DRAIN).await;
            listener.cut();
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dialer for Shared {
    fn targets(&self, most: usize) -> Result<Vec<DialTarget>, String> {
        let routes = self.routes.load();
        let mut chosen: Vec<DialTarget> = Vec::new();
        for group in &routes.groups {
            let mut left: Vec<&(u32, DialTarget)> = group.iter().collect();
            while chosen.len() < most && !left.is_empty() {
                let index = draw(&left);
                chosen.push(left.swap_remove(index).1.clone());
            }
        }
        match chosen.is_empty() {
            false => Ok(chosen),
            true => Err(match &routes.trouble {
                Some(trouble) => trouble.clone(),
                None => format!("'{}' has no healthy instance", self.name),
            }),
        }
    }

    fn offer(&self) -> Offer {
        **self.offer.load()
    }
}

/// An index by chance, in the proportion of the weights.
fn draw(left: &[&(u32, DialTarget)]) -> usize {
    let total: u64 = left.iter().map(|(weight, _)| u64::from(*weight)).sum();
    let mut ticket = rand::rng().random_range(0..total.max(1));
    for (index, (weight, _)) in left.iter().enumerate() {
        let weight = u64::from(*weight);
        if ticket < weight {
            return index;
        }
        ticket -= weight;
    }
    0
}

/// The task behind an upstream.
struct Task {
    watches: Arc<Watches>,
    doors: Doors,
    identity: Arc<MeshIdentity>,
    roots: Arc<Watch<MeshRoots>>,
    configuration: UpstreamConfiguration,
    shared: Arc<Shared>,
    wake: Arc<Notify>,
    /// They wake this task when something that it watches changes.
    forwarders: Vec<AbortHandle>,
}

impl Drop for Task {
    fn drop(&mut self) {
        for forwarder in &self.forwarders {
            forwarder.abort();
        }
    }
}

/// Instances of one target, watched.
struct Group {
    target: ChainTarget,
    watch: Arc<Watch<Vec<HealthEntry>>>,
}

impl Task {
    async fn run(mut self) {
        let roots = Arc::clone(&self.roots);
        self.forward(&roots);
        let destination = self.configuration.destination.clone();
        let name = encode(&destination.name);
        match destination.kind {
            DestinationKind::Service => {
                let mut target = format!("/v1/discovery-chain/{name}");
                if !destination.datacenter.is_empty() {
                    target = format!("{target}?compile-dc={}", encode(&destination.datacenter));
                }
                if !destination.namespace.is_empty() {
                    let separator = if target.contains('?') { '&' } else { '?' };
                    target = format!("{target}{separator}ns={}", encode(&destination.namespace));
                }
                let chain = self.watches.watch(&target, Style::Index, decode_chain);
                self.forward(&chain);
                self.follow_chain(&chain).await;
            }
            DestinationKind::PreparedQuery => {
                let mut target = format!("/v1/query/{name}/execute?connect=true");
                if !destination.datacenter.is_empty() {
                    target = format!("{target}&dc={}", encode(&destination.datacenter));
                }
                let style = Style::Poll(QUERY_EVERY);
                let query = self.watches.watch(&target, style, decode_query);
                self.forward(&query);
                self.follow_query(&query).await;
            }
        }
    }

    /// Wakes the task with every change.
    fn forward<T: Send + Sync + 'static>(&mut self, watch: &Watch<T>) {
        let (mut changes, wake) = (watch.changes(), Arc::clone(&self.wake));
        let task = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                wake.notify_one();
            }
        });
        self.forwarders.push(task.abort_handle());
    }

    async fn wait(&self) {
        let pause = match self.shared.listener.lock().is_some() {
            true => LOOK_EVERY,
            false => BIND_RETRY,
        };
        let _ = tokio::time::timeout(pause, self.wake.notified()).await;
    }

    async fn follow_query(&mut self, query: &Watch<QueryResult>) {
        loop {
            self.open();
            let known = query.known();
            let routes = match (&known.value, &known.trouble) {
                (Some(result), _) => {
                    let found =
                        self.instances(&result.nodes, &result.service, Healthy::PassingAndWarning);
                    Routes {
                        groups: vec![self.group(found, None)],
                        trouble: None,
                    }
                }
                (None, Some(trouble)) => Routes {
                    groups: Vec::new(),
                    trouble: Some(trouble.error.to_string()),
                },
                (None, None) => Routes::default(),
            };
            self.shared.routes.store(Arc::new(routes));
            self.wait().await;
        }
    }

    async fn follow_chain(&mut self, chain: &Watch<DiscoveryChain>) {
        let mut version = 0;
        let mut groups: Result<Vec<Group>, String> = Ok(Vec::new());
        loop {
            self.open();
            let known = chain.known();
            if let Some(compiled) = known.value.as_ref().filter(|_| known.version != version) {
                version = known.version;
                self.take_protocol(compiled);
                groups = self.groups(compiled);
                if let Err(trouble) = &groups {
                    tracing::error!(upstream = %self.shared.name, "{trouble}");
                }
            }
            let trouble = known
                .trouble
                .as_ref()
                .map(|trouble| trouble.error.to_string());
            let routes = match &groups {
                Err(trouble) => Routes {
                    groups: Vec::new(),
                    trouble: Some(trouble.clone()),
                },
                Ok(groups) => Routes {
                    groups: groups.iter().map(|group| self.of_group(group)).collect(),
                    trouble: trouble.filter(|_| known.value.is_none()),
                },
            };
            self.shared.routes.store(Arc::new(routes));
            self.wait().await;
        }
    }

    fn take_protocol(&self, chain: &DiscoveryChain) {
        let protocol = self
            .configuration
            .protocol
            .or_else(|| MeshProtocol::from_word(&chain.protocol))
            .unwrap_or_default();
        self.shared.offer.store(Arc::new(offer_of(protocol)));
    }

    /// The targets of a chain in the order of failover, each watched from now on.
    fn groups(&mut self, chain: &DiscoveryChain) -> Result<Vec<Group>, String> {
        let targets = targets_of(chain)?;
        let mut groups = Vec::new();
        for target in targets {
            self.check_way(chain, &target)?;
            let mut asked = format!("/v1/health/connect/{}?cached", encode(&target.service));
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
            let watch = self.watches.watch(&asked, Style::Index, decode_health);
            self.forward(&watch);
            groups.push(Group { target, watch });
        }
        Ok(groups)
    }

    /// Can the target be reached without help?
    fn check_way(&self, chain: &DiscoveryChain, target: &ChainTarget) -> Result<(), String> {
        let service = &target.service;
        if !target.peer.is_empty() {
            return Err(format!(
                "'{service}' of peer '{}' cannot be reached: the agent does not tell the certificates of peered clusters",
                target.peer
            ));
        }
        let written = match target.mesh_gateway.mode.as_str() {
            "local" => Some(GatewayMode::Local),
            "remote" => Some(GatewayMode::Remote),
            "none" => Some(GatewayMode::Direct),
            _ => None,
        };
        let mode = self.configuration.gateway.or(written).unwrap_or_default();
        let elsewhere = !target.datacenter.is_empty() && target.datacenter != chain.datacenter;
        match elsewhere && mode != GatewayMode::Direct {
            true => Err(format!(
                "'{service}' in '{}' is behind mesh gateways, which are not supported, use MeshGateway mode 'none'",
                target.datacenter
            )),
            false => Ok(()),
        }
    }

    fn of_group(&self, group: &Group) -> Vec<(u32, DialTarget)> {
        let known = group.watch.known();
        let healthy = match group.target.subset.only_passing {
            true => Healthy::Passing,
            false => Healthy::PassingAndWarning,
        };
        let Some(entries) = &known.value else {
            return Vec::new();
        };
        if entries.is_empty() && known.filtered {
            tracing::warn!(upstream = %self.shared.name, service = %group.target.service, "the token may not see the instances");
        }
        let found = self.instances(entries, &group.target.service, healthy);
        self.group(found, Some(&group.target.sni))
    }

    fn instances(&self, entries: &[HealthEntry], asked: &str, healthy: Healthy) -> Vec<Instance> {
        let roots = self.roots.known().value;
        let trust_domain = roots.as_ref().map_or("", |roots| &roots.trust_domain);
        let (found, skipped) = instances(entries, asked, trust_domain, healthy);
        for skipped in skipped {
            tracing::warn!(upstream = %self.shared.name, instance = %skipped.id, "left out: {}", skipped.why);
        }
        found
    }

    fn group(&self, found: Vec<Instance>, sni: Option<&str>) -> Vec<(u32, DialTarget)> {
        let sni = sni.filter(|sni| !sni.is_empty());
        let target = |instance: Instance| {
            let name = instance.server_name.as_deref().or(sni);
            let target = DialTarget {
                host: instance.host.into(),
                port: instance.port,
                server_name: name.map(Into::into),
                judge: Arc::new(ExpectedPeer {
                    identities: instance.identities,
                }),
            };
            (instance.weight, target)
        };
        found.into_iter().map(target).collect()
    }

    /// Opens the listener if it is not open.
    fn open(&self) {
        let mut slot = self.shared.listener.lock();
        if slot.is_some() {
            return;
        }
        let opened = address_of(&self.configuration.listen).and_then(|address| {
            self.doors
                .open_outbound(OutboundListen {
                    name: self.shared.name.as_str().into(),
                    address,
                    cell: Arc::clone(self.identity.cell()),
                    dialer: Arc::clone(&self.shared) as Arc<dyn Dialer>,
                    connect_timeout: self.configuration.connect_timeout,
                    connections_max: self.configuration.limits.connections_max,
                    counts: Arc::clone(&self.shared.counts),
                })
                .map_err(|error| format!("cannot listen: {error}"))
        });
        let mut trouble = self.shared.trouble.lock();
        let listen = show(&self.configuration.listen);
        match opened {
            Ok(listener) => {
                tracing::info!(upstream = %self.shared.name, listen, "upstream listener open");
                *slot = Some(listener);
                *trouble = None;
            }
            Err(what) => {
                if trouble.as_deref() != Some(&what) {
                    tracing::error!(upstream = %self.shared.name, listen, "{what}");
                    *trouble = Some(what);
                }
            }
        }
    }
}

/// The targets of a chain that carries bytes, in the order of failover.
fn targets_of(chain: &DiscoveryChain) -> Result<Vec<ChainTarget>, String> {
    let mut name = chain.start_node.as_str();
    for _ in 0..DEPTH_MAX {
        let node = chain
            .nodes
            .get(name)
            .ok_or_else(|| format!("the discovery chain has no node '{name}'"))?;
        match (
            node.kind.as_str(),
            node.splits.as_slice(),
            node.routes.as_slice(),
        ) {
            ("splitter", [only], _) => name = &only.next_node,
            ("router", _, [only]) => name = &only.next_node,
            ("resolver", ..) => {
                let resolver = node
                    .resolver
                    .as_ref()
                    .ok_or("the discovery chain has a resolver without content")?;
                let failover = resolver.failover.iter().flat_map(|way| &way.targets);
                return std::iter::once(&resolver.target)
                    .chain(failover)
                    .map(|id| {
                        let target = chain.targets.get(id).cloned();
                        target.ok_or_else(|| format!("the discovery chain has no target '{id}'"))
                    })
                    .collect();
            }
            (kind, ..) => {
                return Err(format!(
                    "the discovery chain of '{}' has a {kind}, which needs requests to be looked at; this is not supported for local upstreams",
                    chain.service_name
                ));
            }
        }
    }
    Err("the discovery chain does not end".to_owned())
}

fn offer_of(protocol: MeshProtocol) -> Offer {
    match protocol {
        MeshProtocol::Tcp => Offer::Nothing,
        MeshProtocol::Http => Offer::Http1,
        MeshProtocol::Http2 | MeshProtocol::Grpc => Offer::Http2,
    }
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

fn label(text: &str) -> String {
    text.replace(['"', '\\', '\n'], "_")
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn chain(nodes: &str) -> DiscoveryChain {
        let text = format!(
            r#"{{"ServiceName":"db","StartNode":"start","Nodes":{{{nodes}}},
                "Targets":{{"t1":{{"ID":"t1","Service":"db"}},"t2":{{"ID":"t2","Service":"db-far"}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn failover_comes_in_order() {
        let names = |nodes: &str| {
            targets_of(&chain(nodes)).map(|targets| {
                targets
                    .into_iter()
                    .map(|target| target.service)
                    .collect::<Vec<_>>()
            })
        };
        let with_failover = r#""start":{"Type":"resolver","Resolver":{"Target":"t1","Failover":{"Targets":["t2"]}}}"#;
        assert_eq!(names(with_failover).unwrap(), ["db", "db-far"]);
        for bad in [
            r#""start":{"Type":"resolver","Resolver":{"Target":"t9"}}"#,
            r#""start":{"Type":"splitter","Splits":[{"Weight":50,"NextNode":"a"},{"Weight":50,"NextNode":"b"}]}"#,
            r#""start":{"Type":"splitter","Splits":[{"Weight":100,"NextNode":"start"}]}"#,
            r#""other":{}"#,
        ] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }
}
