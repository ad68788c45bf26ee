//! The listeners of the Admin API, the status interface and the page: bound once, served until told to pause.
//!
//! They pause when a successor is about to take over, so that nothing is written behind its back, and resume when it
//! does not come up. Connections that arrive in between wait in the system's queue.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::gateway::Gateway;
use super::listeners::{self, Inherited, Keepsakes, Role};
use crate::admin::dispatch::{self, Front};
use crate::admin::guard::Guard;
use crate::admin::node::{BoundListener, Node};
use crate::admin::{apigee, page, server, special, status_listener};
use crate::engine::Acceptor;
use crate::runtime::certificates::ServerCertificate;
use crate::settings::listen::Listen;

/// The bound listeners with what they serve.
pub(crate) struct Administration {
    sockets: Vec<(TcpListener, Option<Arc<Acceptor>>, Router)>,
    running: Option<(watch::Sender<bool>, JoinSet<()>)>,
}

impl Administration {
    /// Binds all listeners, or takes over a predecessor's. They do not accept yet.
    pub(crate) fn bind(
        gateway: &Gateway,
        inherited: &mut Inherited,
        keepsakes: &mut Keepsakes,
        listeners_bound: &mut Vec<BoundListener>,
    ) -> anyhow::Result<Self> {
        let listen = &gateway.settings.listen;
        let mut bind = |role: Role, all: &[Listen]| -> anyhow::Result<Vec<TcpListener>> {
            let mut bound = Vec::new();
            for (one, name) in all.iter().zip(listeners::names(role, all)) {
                let socket = listeners::bind(role, one, &name, inherited)?;
                let address = socket
                    .local_addr()
                    .context("a listening socket has no address")?;
                listeners_bound.push(listeners::bound(role, one, address));
                keepsakes.keep(name, &socket)?;
                bound.push(socket);
            }
            Ok(bound)
        };
        let admin = bind(Role::Admin, &listen.admin_listen.all)?;
        let status = bind(Role::Status, &listen.status_listen.all)?;
        let pages = bind(Role::Page, &listen.admin_gui_listen.all)?;
        let page_ports: Vec<u16> = pages
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .map(|address| address.port())
            .collect();
        let guard = || Guard {
            page_ports: page_ports.clone(),
            users: Arc::clone(&gateway.admin.users),
            tokens: Arc::clone(&gateway.admin.tokens),
            ..Guard::new(&gateway.node.identity().hostname)
        };
        let front = Front {
            admin: Arc::clone(&gateway.admin),
            table: special::table(gateway.admin.entities),
            guard: guard(),
        };
        let admin_router = dispatch::router(front, apigee::router(Arc::clone(&gateway.admin)));
        let status_router = status_listener::router(
            Arc::clone(&gateway.admin),
            &gateway.node.identity().hostname,
        );
        let page_router = page::router(Arc::clone(&gateway.admin), guard());
        let mut sockets = Vec::new();
        let own = &gateway.files.administration;
        for (all, bound, own, router) in [
            (&listen.admin_listen.all, admin, &own.admin, admin_router),
            (
                &listen.status_listen.all,
                status,
                &own.status,
                status_router,
            ),
            (&listen.admin_gui_listen.all, pages, &None, page_router),
        ] {
            let tls = acceptor(gateway, all, own)?;
            for (listen, socket) in all.iter().zip(bound) {
                let tls = tls.clone().filter(|_| listen.ssl);
                sockets.push((socket, tls, router.clone()));
            }
        }
        Ok(Self {
            sockets,
            running: None,
        })
    }

    /// Begins to accept.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (socket, tls, router) in &self.sockets {
            let socket = socket
                .try_clone()
                .context("a listening socket cannot be used")?;
            let (tls, router, mut stopped) = (tls.clone(), router.clone(), stopped.clone());
            tasks.spawn(async move {
                let told = async move {
                    // A lost sender counts as the word to stop.
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                if let Err(error) = server::serve(socket, tls, router, told).await {
                    tracing::error!(%error, "an administrative listener ended");
                }
            });
        }
        self.running = Some((stop, tasks));
        Ok(())
    }

    /// Stops accepting and waits for the requests in flight.
    pub(crate) async fn pause(&mut self) {
        if let Some((stop, mut tasks)) = self.running.take() {
            stop.send_replace(true);
            while tasks.join_next().await.is_some() {}
        }
    }
}

/// What accepts TLS for those of the listeners that have it.
fn acceptor(
    gateway: &Gateway,
    listeners: &[Listen],
    own: &Option<Arc<ServerCertificate>>,
) -> anyhow::Result<Option<Arc<Acceptor>>> {
    if !listeners.iter().any(|one| one.ssl) {
        return Ok(None);
    }
    let snapshots = gateway.snapshots();
    let acceptor = Acceptor::administrative(&gateway.settings.tls, own.clone(), snapshots)
        .map_err(anyhow::Error::msg)?;
    Ok(Some(Arc::new(acceptor)))
}
