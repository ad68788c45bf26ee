//! The life of a proxy: what its registration says becomes listeners, and changes with it.
//!
//! ```text
//! registration watch ─▶ ProxyConfiguration ─┬▶ service ─▶ identity, intentions, authority
//!                       (bad: the old stays) ├▶ public listener ─▶ Doors, once the identity can be used
//!                                            └▶ upstreams ─▶ UpstreamRunner
//! ```
//!
//! Start at [`Sidecar::run`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::authority::{AnyService, ConnectAuthority};
use super::client::encode;
use super::discovery::{Naming, decode_service};
use super::identity::MeshIdentity;
use super::intentions::IntentionBook;
use super::plan_book::PlanBook;
use super::report::MeshReport;
use super::watch::{Style, Watch, Watches};
use crate::dialects::consul::answers::AgentService;
use crate::dialects::consul::compile;
use crate::dialects::consul::expose;
use crate::dialects::consul::parts::Parts;
use crate::dialects::consul::registration::{
    LocalApplication, MeshProtocol, ProxyConfiguration, PublicListener, UpstreamConfiguration,
};
use crate::engine::mutual::requests::{RequestListen, RequestListener};
use crate::engine::mutual::{
    Application, Carries, Doors, MutualCounts, MutualListen, MutualListener,
};
use crate::model::plan::PlanDelta;
use crate::runtime::mutual::PeerAuthority;
use crate::settings::consul::Authorize;

/// How often a listener is tried again whose address is taken.
const BIND_RETRY: Duration = Duration::from_millis(250);
/// How long connections of a listener that is closed may go on.
const DRAIN: Duration = Duration::from_secs(30);

/// Takes plan parts over.
pub type PlanSink = Arc<dyn Fn(&PlanDelta) + Send + Sync>;

/// Runs the listeners for upstreams.
pub trait UpstreamRunner: Send + Sync {
    /// Brings the listeners in line with these: opens, changes, drains.
    fn apply(&self, identity: &Arc<MeshIdentity>, upstreams: &[UpstreamConfiguration]);

    /// What the status page says about them.
    fn status(&self) -> Value;

    /// Lines for the metrics page.
    fn metrics(&self, page: &mut String);
}

/// What a proxy is made of.
pub struct SidecarParts {
    pub watches: Arc<Watches>,
    pub doors: Doors,
    pub plans: Arc<PlanBook>,
    pub upstreams: Arc<dyn UpstreamRunner>,
    pub authorize: Authorize,
    /// How long the agent's last word counts while it cannot be asked.
    pub stale: Duration,
}

/// A proxy at work.
pub struct Sidecar {
    parts: SidecarParts,
    state: Mutex<State>,
    ready: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// What is in force.
    configuration: Option<ProxyConfiguration>,
    service: Option<Service>,
    public: Option<Public>,
    /// Listeners for exposed paths, by port.
    exposed: BTreeMap<u16, (bool, RequestListener)>,
    /// Why the newest registration is not in force.
    trouble: Option<String>,
}

/// Everything that goes with the name of the service.
#[derive(Clone)]
struct Service {
    identity: Arc<MeshIdentity>,
    authority: Arc<ConnectAuthority>,
}

struct Public {
    listener: MutualListener,
    counts: Arc<MutualCounts>,
}

impl Sidecar {
    pub fn new(parts: SidecarParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            state: Mutex::default(),
            ready: watch::Sender::new(false),
        })
    }

    /// Follows the registration until cancelled. `id` is that of the registration; none by hand.
    pub async fn run(self: Arc<Self>, id: Option<String>, naming: Naming) {
        let registration: Option<Arc<Watch<AgentService>>> = id.map(|id| {
            let target = format!("/v1/agent/service/{}", encode(&id));
            self.parts
                .watches
                .watch(&target, Style::Hash, decode_service)
        });
        let mut known = match naming {
            Naming::ByHand(by_hand) => Some(Arc::new(by_hand.registration())),
            _ => None,
        };
        let mut changes = registration.as_ref().map(|watch| watch.changes());
        let mut taken: Option<Arc<AgentService>> = None;
        loop {
            if let Some(changes) = &mut changes {
                let now = changes.borrow_and_update().clone();
                known = now.value.or(known);
            }
            if let Some(service) = &known
                && !taken
                    .as_ref()
                    .is_some_and(|taken| Arc::ptr_eq(taken, service))
            {
                self.take(service);
                taken = Some(Arc::clone(service));
            }
            let settled = self.settle();
            self.ready.send_replace(settled && self.is_ready());
            let mut identity = self.state.lock().service.as_ref().map(|service| {
                // Opening waits for this one.
                service.identity.cell().changes()
            });
            let pause = match settled {
                true => Duration::from_secs(1),
                false => BIND_RETRY,
            };
            tokio::select! {
                () = changed(&mut changes) => {}
                () = changed_cell(&mut identity) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes a registration over, unless something is wrong with it.
    fn take(&self, registration: &AgentService) {
        let configuration = match ProxyConfiguration::read(registration) {
            Ok(configuration) => configuration,
            Err(wrong) => {
                for what in &wrong {
                    tracing::error!(id = %registration.id, "the registration is not taken over: {what}");
                }
                self.state.lock().trouble = Some(wrong.join("; "));
                return;
            }
        };
        for warning in &configuration.warnings {
            tracing::warn!(id = %registration.id, "{warning}");
        }
        let mut state = self.state.lock();
        state.trouble = None;
        let old = state.configuration.replace(configuration.clone());
        let same_service = old
            .as_ref()
            .is_some_and(|old| old.service == configuration.service);
        if !same_service {
            state.service = Some(self.service(&configuration.service));
        }
        let public_changed =
            old.as_ref().and_then(|old| old.public.as_ref()) != configuration.public.as_ref();
        if (public_changed || !same_service)
            && let Some(public) = state.public.take()
        {
            drain(public.listener);
            if let Some(old) = &old {
                let entrance = compile::entrance(&old.service);
                self.parts.plans.enter(&entrance, Parts::default());
            }
        }
        self.expose(&mut state, old.as_ref(), &configuration);
        let service = state.service.clone();
        drop(state);
        tracing::info!(id = %registration.id, service = %configuration.service, upstreams = configuration.upstreams.len(), "the registration is in force");
        if let Some(service) = service {
            self.parts
                .upstreams
                .apply(&service.identity, &configuration.upstreams);
        }
    }

    /// Brings listeners and routes of exposed paths in line; what cannot be opened is told.
    fn expose(
        &self,
        state: &mut State,
        old: Option<&ProxyConfiguration>,
        new: &ProxyConfiguration,
    ) {
        if old.is_some_and(|old| old.exposed == new.exposed && old.public == new.public) {
            return;
        }
        // Where the application and the public listener are, these paths and listeners are, too.
        let application = match new.public.as_ref().map(|public| &public.application) {
            Some(LocalApplication::Tcp { host, .. }) => host.as_str(),
            _ => "127.0.0.1",
        };
        let bind = new.public.as_ref().map(|public| public.bind.host.as_str());
        let host = bind.unwrap_or("127.0.0.1").trim_matches(['[', ']']);
        self.parts
            .plans
            .enter("expose", expose::exposed(application, &new.exposed));
        let wanted = expose::ports(&new.exposed);
        // Those that stay the same stay open.
        state
            .exposed
            .retain(|port, (http2, _)| wanted.get(port) == Some(&*http2));
        for (port, http2) in wanted {
            if state.exposed.contains_key(&port) {
                continue;
            }
            let opened = match host.parse::<IpAddr>() {
                Ok(ip) => self.parts.doors.open_requests(RequestListen {
                    address: SocketAddr::new(ip, port),
                    entrance: expose::entrance(port).into(),
                    http2,
                    connections_max: None,
                    counts: Arc::default(),
                }),
                Err(_) => {
                    tracing::error!(port, "exposed paths: '{host}' is not an IP address");
                    continue;
                }
            };
            match opened {
                Ok(listener) => {
                    tracing::info!(address = %listener.local, "listener for exposed paths open");
                    state.exposed.insert(port, (http2, listener));
                }
                Err(error) => {
                    tracing::error!("exposed paths: {error}: {}", error.source);
                    state.trouble = Some(format!("exposed paths: {error}: {}", error.source));
                }
            }
        }
    }

    fn service(&self, name: &str) -> Service {
        let watches = &self.parts.watches;
        let intentions = IntentionBook::start(watches, name);
        Service {
            identity: MeshIdentity::start(watches, name),
            authority: ConnectAuthority::new(
                name,
                Arc::clone(watches.client()),
                intentions,
                self.parts.authorize,
                self.parts.stale,
            ),
        }
    }

    /// Opens the public listener as soon as it can be opened. False when it is to be tried again soon.
    fn settle(&self) -> bool {
        let mut state = self.state.lock();
        let (Some(configuration), Some(service)) = (&state.configuration, &state.service) else {
            return true;
        };
        let Some(public) = &configuration.public else {
            return true;
        };
        if state.public.is_some() || service.identity.cell().load().is_none() {
            return true;
        }
        match self.open(&configuration.service, public, service) {
            Ok(opened) => {
                tracing::info!(service = %configuration.service, address = %opened.listener.local, protocol = public.protocol.word(), "public listener open");
                state.public = Some(opened);
                state.trouble = None;
                true
            }
            Err(trouble) => {
                if state.trouble.as_deref() != Some(trouble.as_str()) {
                    tracing::error!(service = %configuration.service, "public listener: {trouble}");
                    state.trouble = Some(trouble);
                }
                false
            }
        }
    }

    fn open(
        &self,
        name: &str,
        public: &PublicListener,
        service: &Service,
    ) -> Result<Public, String> {
        let ip: IpAddr = match public.bind.host.trim_matches(['[', ']']) {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host
                .parse()
                .map_err(|_| format!("bind_address '{host}' is not an IP address"))?,
        };
        let counts = Arc::new(MutualCounts::default());
        let carries = match public.protocol {
            MeshProtocol::Tcp => Carries::Stream {
                application: match &public.application {
                    LocalApplication::Tcp { host, port } => Application::Tcp {
                        host: host.clone(),
                        port: *port,
                    },
                    LocalApplication::Socket(path) => Application::Unix(PathBuf::from(path)),
                },
                connect_timeout: public.connect_timeout,
            },
            protocol => Carries::Requests {
                http2: protocol != MeshProtocol::Http,
                entrance: Some(compile::entrance(name).into()),
            },
        };
        if public.protocol.has_requests() {
            // Before the first request can come.
            let parts = compile::inbound(name, public)?;
            self.parts.plans.enter(&compile::entrance(name), parts);
        }
        let listener = self
            .parts
            .doors
            .open(MutualListen {
                name: name.into(),
                address: SocketAddr::new(ip, public.bind.port),
                carries,
                cell: Arc::clone(service.identity.cell()),
                judge: Arc::new(AnyService),
                authority: Arc::clone(&service.authority) as Arc<dyn PeerAuthority>,
                handshake_timeout: public.handshake_timeout,
                connections_max: public.connections_max,
                counts: Arc::clone(&counts),
            })
            .map_err(|error| format!("{error}: {}", error.source))?;
        Ok(Public { listener, counts })
    }

    fn is_ready(&self) -> bool {
        self.trouble().is_none()
    }

    /// Why traffic may not come yet.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        let Some(configuration) = &state.configuration else {
            let known = state.trouble.clone();
            return Some(known.unwrap_or_else(|| "the registration is not known yet".to_owned()));
        };
        if let Some(service) = &state.service
            && let Some(trouble) = &service.identity.facts().trouble
        {
            return Some(trouble.clone());
        }
        (configuration.public.is_some() && state.public.is_none())
            .then(|| "the public listener is not open yet".to_owned())
    }

    /// Waits until traffic may come.
    pub async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives as long as this.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Where callers in the mesh connect.
    pub fn public_address(&self) -> Option<SocketAddr> {
        self.state
            .lock()
            .public
            .as_ref()
            .map(|public| public.listener.local)
    }

    fn report(&self) -> MeshReport {
        let state = self.state.lock();
        MeshReport {
            watches: Arc::clone(&self.parts.watches),
            identities: state
                .service
                .iter()
                .map(|service| Arc::clone(&service.identity))
                .collect(),
        }
    }

    /// An object for the status page.
    pub fn status(&self) -> Value {
        let mut status = self.report().status();
        let state = self.state.lock();
        if let Some(object) = status.as_object_mut() {
            object.insert("trouble".to_owned(), json!(state.trouble));
            let public = state.public.as_ref().map(|public| {
                json!({
                    "address": public.listener.local.to_string(),
                    "open": public.listener.open(),
                })
            });
            object.insert("public".to_owned(), json!(public));
            let configuration = state.configuration.as_ref();
            let warnings = configuration.map(|configuration| &configuration.warnings);
            object.insert("warnings".to_owned(), json!(warnings));
            let exposed: Vec<u16> = state.exposed.keys().copied().collect();
            object.insert("exposed".to_owned(), json!(exposed));
            object.insert("upstreams".to_owned(), self.parts.upstreams.status());
        }
        status
    }

    /// Lines for the metrics page.
    pub fn metrics(&self, page: &mut String) {
        self.report().metrics(page);
        let state = self.state.lock();
        if let (Some(public), Some(configuration)) = (&state.public, &state.configuration) {
            super::report::inbound(page, &configuration.service, &public.counts);
        }
        if let (Some(service), Some(configuration)) = (&state.service, &state.configuration) {
            super::report::questions(page, &configuration.service, &service.authority.counts);
        }
        drop(state);
        self.parts.upstreams.metrics(page);
    }
}

/// Lets connections of a closed listener end by themselves for a while.
fn drain(listener: MutualListener) {
    listener.close();
    tokio::spawn(async move {
        tokio::time::sleep(DRAIN).await;
        listener.cut();
    });
}

async fn changed(changes: &mut Option<watch::Receiver<super::watch::Known<AgentService>>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn changed_cell(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
