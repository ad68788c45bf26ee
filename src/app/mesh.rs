//! `sallyport connect proxy`: an instance that is a proxy in the mesh and nothing else.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::task::AbortHandle;

use super::gateway::Gateway;
use super::listeners::{self, Name};
use super::{configuration, start};
use crate::cli::Configured;
use crate::engine::mutual::Doors;
use crate::runtime::node::NodePart;
use crate::runtime::roster::Rosters;
use crate::settings::Settings;
use crate::settings::general::Database;
use crate::settings::listen::Listen;
use crate::settings::proxying::{HeaderTokens, UpstreamHeaderTokens};
use crate::settings::value::{Raw, Value as _};
use crate::sources::consul::client::{AgentClient, AgentError};
use crate::sources::consul::discovery::{self, DiscoveryError, Naming};
use crate::sources::consul::edge::{Edge, EdgeListen, EdgeParts};
use crate::sources::consul::options::AgentOptions;
use crate::sources::consul::plan_book::PlanBook;
use crate::sources::consul::register::Registrar;
use crate::sources::consul::sidecar::{Sidecar, SidecarParts};
use crate::sources::consul::upstreams::{UpstreamParts, Upstreams};
use crate::sources::consul::watch::Watches;

/// Between tries to find the registration while the agent cannot be asked.
const FIND_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// What the command line says.
#[derive(Debug, Clone)]
pub(crate) struct ProxyOf {
    pub(crate) naming: Naming,
    /// Flags that stand for configuration keys, with their values.
    pub(crate) overrides: Vec<(&'static str, String)>,
}

impl ProxyOf {
    /// A name for the folder of the instance.
    fn folder(&self) -> String {
        let name = match &self.naming {
            Naming::ProxyId(id) => id.clone(),
            Naming::SidecarFor(id) => format!("{id}-sidecar"),
            Naming::ByHand(by_hand) => by_hand.id(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name: String = name
            .chars()
            .map(|c| if plain(c) { c } else { '_' })
            .take(64)
            .collect();
        format!("connect-{name}")
    }
}

/// Runs a proxy until it is told to end.
pub(crate) fn run(configured: &Configured, proxy_of: ProxyOf) -> anyhow::Result<()> {
    let mut settings = configuration::load_with(configured, &proxy_of.overrides)?;
    if configured.prefix.is_none() && !settings.is_set("prefix") {
        // Several proxies on one machine each need a folder.
        settings.general.prefix = settings.general.prefix.join(proxy_of.folder());
    }
    adapt(&mut settings);
    if !settings.is_set("status_listen") {
        // Another instance on this machine may have the usual address: this one goes without.
        let taken = |address| std::net::TcpListener::bind(address).is_err();
        let listeners = &mut settings.listen.status_listen.all;
        listeners.retain(|one| !taken(one.address));
    }
    start::run_with(configured, settings, false, Some(proxy_of))
}

/// Leaves out everything that a proxy does not have.
fn adapt(settings: &mut Settings) {
    settings.general.database = Database::Off;
    settings.general.declarative_config = None;
    settings.general.declarative_config_string = None;
    settings.listen.proxy_listen.all.clear();
    settings.listen.stream_listen.all.clear();
    settings.listen.admin_listen.all.clear();
    settings.listen.admin_gui_listen.all.clear();
    let off = Raw::Text("off".to_owned());
    if !settings.is_set("headers")
        && let Ok(none) = HeaderTokens::parse(&off)
    {
        settings.proxying.headers = none;
    }
    if !settings.is_set("headers_upstream")
        && let Ok(none) = UpstreamHeaderTokens::parse(&off)
    {
        settings.proxying.headers_upstream = none;
    }
}

/// The mesh part of an instance.
pub(crate) struct Mesh {
    role: Role,
    registrar: Option<Arc<Registrar>>,
    tasks: Vec<AbortHandle>,
}

/// What the instance is in the mesh.
#[derive(Clone)]
enum Role {
    /// The proxy of a service, and nothing else.
    Sidecar(Arc<Sidecar>),
    /// A service itself, beside everything else that it does.
    Edge(Arc<Edge>),
}

impl Mesh {
    /// Starts to follow the registration. Must be called on the control runtime.
    pub(crate) fn start(
        gateway: &Gateway,
        doors: Doors,
        proxy_of: ProxyOf,
    ) -> anyhow::Result<Self> {
        let settings = &gateway.settings;
        let watches = watches(gateway)?;
        let client = Arc::clone(watches.client());
        let plans = Arc::new(PlanBook::new(gateway.plans()));
        let sidecar = Sidecar::new(SidecarParts {
            upstreams: Upstreams::new(UpstreamParts {
                watches: Arc::clone(&watches),
                doors: doors.clone(),
                plans: Arc::clone(&plans),
                rosters: Rosters::of(&gateway.live),
                gateway_service: settings.consul.consul_mesh_gateway.as_str().into(),
            }),
            watches,
            doors,
            plans,
            authorize: settings.consul.consul_authorize,
            stale: settings.consul.consul_authorize_stale_ttl.0,
        });
        // Without a document of its own the instance would not count as ready.
        gateway.admin.adopt_document("connect");
        gateway
            .live
            .node()
            .add(Arc::new(Part(Role::Sidecar(Arc::clone(&sidecar)))));
        let registrar = match &proxy_of.naming {
            Naming::ByHand(by_hand) if by_hand.register => {
                Some(Arc::new(Registrar::new(Arc::clone(&client), by_hand)))
            }
            _ => None,
        };
        let mut tasks = Vec::new();
        if let Some(registrar) = &registrar {
            let registrar = Arc::clone(registrar);
            tasks.push(tokio::spawn(async move { registrar.keep().await }).abort_handle());
        }
        let id = find(&client, &proxy_of.naming);
        let found = match tokio::runtime::Handle::current()
            .block_on(async { tokio::time::timeout(FIND_PAUSE, id).await })
        {
            Ok(found) => Some(found?),
            // The agent is away: found later, when it is back.
            Err(_) => None,
        };
        let following = Arc::clone(&sidecar);
        let naming = proxy_of.naming.clone();
        let task = tokio::spawn(async move {
            let id = match found {
                Some(id) => id,
                None => match find(&client, &naming).await {
                    Ok(id) => id,
                    Err(error) => {
                        tracing::error!("{error}");
                        return;
                    }
                },
            };
            following.run(id, naming).await;
        });
        tasks.push(task.abort_handle());
        Ok(Self {
            role: Role::Sidecar(sidecar),
            registrar,
            tasks,
        })
    }

    /// Makes the gateway a service of the mesh, if it is to be one. Must be called on the control runtime.
    pub(crate) fn start_edge(
        gateway: &Gateway,
        doors: Doors,
        listeners: Vec<EdgeListen>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(service) = &gateway.settings.consul.consul_service else {
            return Ok(None);
        };
        let edge = Edge::start(EdgeParts {
            service: service.clone(),
            watches: watches(gateway)?,
            doors,
            listeners,
            stale: gateway.settings.consul.consul_authorize_stale_ttl.0,
            gateway_service: gateway.settings.consul.consul_mesh_gateway.as_str().into(),
            rosters: Rosters::of(&gateway.live),
        });
        let part = Part(Role::Edge(Arc::clone(&edge)));
        gateway.live.node().add(Arc::new(part));
        Ok(Some(Self {
            role: Role::Edge(edge),
            registrar: None,
            tasks: Vec::new(),
        }))
    }

    /// Is the instance nothing but a proxy?
    pub(crate) fn is_proxy(&self) -> bool {
        matches!(self.role, Role::Sidecar(_))
    }

    /// Tells when traffic may come for the first time; the argument names the address for callers.
    pub(crate) fn when_ready(&mut self, tell: impl FnOnce(String) + Send + 'static) {
        let role = self.role.clone();
        let waiting = tokio::spawn(async move {
            let addresses = match &role {
                Role::Sidecar(sidecar) => {
                    sidecar.ready().await;
                    sidecar.public_address().into_iter().collect()
                }
                Role::Edge(edge) => {
                    edge.ready().await;
                    edge.addresses()
                }
            };
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            tell(match addresses.is_empty() {
                true => String::new(),
                false => format!("; connect {}", addresses.join(", ")),
            });
        });
        self.tasks.push(waiting.abort_handle());
    }

    /// Second handles to the sockets of the gateway's listeners for the mesh that are open.
    pub(crate) fn sockets(&self, settings: &Settings) -> anyhow::Result<Vec<(Name, OwnedFd)>> {
        let Role::Edge(edge) = &self.role else {
            return Ok(Vec::new());
        };
        let all = settings.listen.proxy_listen.all.iter();
        let for_mesh: Vec<Listen> = all.filter(|one| one.connect).cloned().collect();
        let names = listeners::names(listeners::Role::Mesh, &for_mesh);
        let sockets = edge
            .sockets()
            .context("a listening socket cannot be kept")?;
        Ok(names.into_iter().zip(sockets).collect())
    }

    /// Brings settings that were read again in line with what a proxy is.
    pub(crate) fn adapt(&self, settings: &mut Settings) {
        if self.is_proxy() {
            adapt(settings);
        }
    }

    /// Leaves the mesh.
    pub(crate) async fn leave(self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(registrar) = &self.registrar {
            registrar.leave().await;
        }
    }
}

/// Looks for the registration until the agent has said which it is.
async fn find(client: &AgentClient, naming: &Naming) -> anyhow::Result<Option<String>> {
    loop {
        match discovery::find(client, naming).await {
            Ok(id) => return Ok(id),
            Err(DiscoveryError::Agent(
                error @ (AgentError::Unreachable(_)
                | AgentError::Failing { .. }
                | AgentError::Forbidden(_)),
            )) => tracing::warn!("the registration cannot be looked for: {error}"),
            Err(error) => bail!(error),
        }
        tokio::time::sleep(FIND_PAUSE).await;
    }
}

fn watches(gateway: &Gateway) -> anyhow::Result<Arc<Watches>> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        })
        .collect();
    let options = AgentOptions::read(&gateway.settings, &environment)
        .map_err(|wrong| anyhow!(wrong.join("\n")))?;
    let client = AgentClient::start(options, &gateway.resolver, &gateway.live)
        .map_err(|error| anyhow!("the agent's certificates: {error}"))?;
    Ok(Watches::new(client))
}

/// The mesh on the metrics and status pages.
struct Part(Role);

impl NodePart for Part {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn trouble(&self) -> Option<String> {
        match &self.0 {
            Role::Sidecar(sidecar) => sidecar.trouble(),
            Role::Edge(edge) => edge.trouble(),
        }
    }

    fn metrics(&self, page: &mut String) {
        match &self.0 {
            Role::Sidecar(sidecar) => sidecar.metrics(page),
            Role::Edge(edge) => edge.metrics(page),
        }
    }

    fn status(&self) -> Value {
        match &self.0 {
            Role::Sidecar(sidecar) => sidecar.status(),
            Role::Edge(edge) => edge.status(),
        }
    }
}
