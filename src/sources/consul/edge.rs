//! The gateway as a service of the mesh: its listeners for callers there, whose requests take the gateway's own routes,
//! and the services there that its routes lead to.
//!
//! Start at [`Edge::start`].

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::authority::{AnyService, ConnectAuthority};
use super::identity::MeshIdentity;
use super::intentions::IntentionBook;
use super::report::{self, MeshReport};
use super::rosters::RosterKeeper;
use super::search::SearchParts;
use super::watch::Watches;
use crate::engine::mutual::{Carries, Doors, MutualCounts, MutualListen, MutualListener};
use crate::runtime::mutual::PeerAuthority;
use crate::runtime::roster::Rosters;
use crate::settings::consul::Authorize;
use crate::settings::listen::Listen;

/// How often a listener is tried again whose address is taken.
const BIND_RETRY: Duration = Duration::from_millis(250);
/// A caller that does not finish its handshake in time is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener for callers in the mesh.
pub struct EdgeListen {
    listen: Listen,
    /// The socket of a predecessor, until the listener opens.
    inherited: Mutex<Option<TcpListener>>,
}

impl EdgeListen {
    pub fn new(listen: Listen, inherited: Option<TcpListener>) -> Self {
        Self {
            listen,
            inherited: Mutex::new(inherited),
        }
    }
}

/// What an edge is made of.
pub struct EdgeParts {
    /// The name in the mesh.
    pub service: String,
    pub watches: Arc<Watches>,
    pub doors: Doors,
    /// Where callers in the mesh connect; none for a gateway that only calls.
    pub listeners: Vec<EdgeListen>,
    pub stale: Duration,
    /// The service that mesh gateways are registered as.
    pub gateway_service: Arc<str>,
    /// The upstreams in the mesh that the gateway's routes want.
    pub rosters: Arc<Rosters>,
}

/// The gateway in the mesh.
pub struct Edge {
    parts: EdgeParts,
    identity: Arc<MeshIdentity>,
    keeper: RosterKeeper,
    authority: Arc<ConnectAuthority>,
    counts: Arc<MutualCounts>,
    open: Mutex<Vec<MutualListener>>,
    ready: watch::Sender<bool>,
    task: Mutex<Option<AbortHandle>>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Edge {
    /// Watches identity and intentions, and opens the listeners as soon as the identity can be used. Must be called
    /// within a runtime.
    pub fn start(parts: EdgeParts) -> Arc<Self> {
        let intentions = IntentionBook::start(&parts.watches, &parts.service);
        let identity = MeshIdentity::start(&parts.watches, &parts.service);
        let search = SearchParts {
            watches: Arc::clone(&parts.watches),
            identity: Arc::clone(&identity),
            gateway_service: Arc::clone(&parts.gateway_service),
        };
        let edge = Arc::new(Self {
            identity,
            keeper: RosterKeeper::start(search, Arc::clone(&parts.rosters)),
            authority: ConnectAuthority::new(
                &parts.service,
                Arc::clone(parts.watches.client()),
                intentions,
                // Requests are judged by the intentions in any case.
                Authorize::Intentions,
                parts.stale,
            ),
            counts: Arc::default(),
            open: Mutex::default(),
            ready: watch::Sender::new(false),
            task: Mutex::default(),
            parts,
        });
        let opening = Arc::downgrade(&edge);
        let identity = Arc::clone(&edge.identity);
        let task = tokio::spawn(async move {
            identity.ready().await;
            drop(identity);
            while let Some(edge) = opening.upgrade() {
                if edge.open() {
                    edge.ready.send_replace(true);
                    return;
                }
                drop(edge);
                tokio::time::sleep(BIND_RETRY).await;
            }
        });
        *edge.task.lock() = Some(task.abort_handle());
        edge
    }

    /// Opens what is not open. True when everything is.
    fn open(&self) -> bool {
        let mut open = self.open.lock();
        for wanted in self.parts.listeners.iter().skip(open.len()) {
            let (listen, inherited) = (&wanted.listen, wanted.inherited.lock().take());
            let opened = self.parts.doors.open_with(
                MutualListen {
                    name: self.parts.service.as_str().into(),
                    address: listen.address,
                    carries: Carries::Requests {
                        http2: listen.http2,
                        entrance: None,
                    },
                    cell: Arc::clone(self.identity.cell()),
                    judge: Arc::new(AnyService),
                    authority: Arc::clone(&self.authority) as Arc<dyn PeerAuthority>,
                    handshake_timeout: HANDSHAKE_TIMEOUT,
                    connections_max: None,
                    counts: Arc::clone(&self.counts),
                },
                inherited,
            );
            match opened {
                Ok(listener) => {
                    tracing::info!(service = %self.parts.service, address = %listener.local, "listener for the mesh open");
                    open.push(listener);
                }
                Err(error) => {
                    tracing::warn!("{error}: {}, tried again", error.source);
                    return false;
                }
            }
        }
        true
    }

    /// Waits until callers in the mesh are served.
    pub async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives as long as this.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Where callers in the mesh connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.open
            .lock()
            .iter()
            .map(|listener| listener.local)
            .collect()
    }

    /// Second handles to the sockets of open listeners, in the order of the settings.
    pub fn sockets(&self) -> std::io::Result<Vec<OwnedFd>> {
        let open = self.open.lock();
        let handles = open
            .iter()
            .filter_map(|listener| listener.handle().transpose());
        handles.collect()
    }

    /// Why traffic may not come yet.
    pub fn trouble(&self) -> Option<String> {
        self.identity.facts().trouble.clone().or_else(|| {
            let all_open = self.open.lock().len() == self.parts.listeners.len();
            (!all_open).then(|| "a listener for the mesh is not open yet".to_owned())
        })
    }

    fn report(&self) -> MeshReport {
        MeshReport {
            watches: Arc::clone(&self.parts.watches),
            identities: vec![Arc::clone(&self.identity)],
        }
    }

    /// An object for the status page.
    pub fn status(&self) -> Value {
        let mut status = self.report().status();
        if let Some(object) = status.as_object_mut() {
            let open = self.open.lock();
            let listeners = open.iter().map(|listener| {
                json!({ "address": listener.local.to_string(), "open": listener.open() })
            });
            object.insert("listeners".to_owned(), listeners.collect());
            object.insert("upstreams".to_owned(), self.keeper.status());
        }
        status
    }

    /// Lines for the metrics page.
    pub fn metrics(&self, page: &mut String) {
        self.report().metrics(page);
        report::inbound(page, &self.parts.service, &self.counts);
        report::questions(page, &self.parts.service, &self.authority.counts);
        self.keeper.metrics(page);
    }
}
