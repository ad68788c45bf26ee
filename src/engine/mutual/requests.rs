//! Listeners for requests that come and go while the engine runs: what comes in by them takes routes of their own.
//!
//! Start at [`Doors::open_requests`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pingora_core::protocols::tls::ALPN;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Doors;
use super::outbound::OutboundCounts;
use crate::engine::accept::{Accepting, BindError, Serve, bind};
use crate::engine::front::Front;
use crate::engine::io::Channel;
use crate::runtime::connection::Connection;
use crate::settings::listen::Listen;

/// A listener to be opened.
#[derive(Clone)]
pub struct RequestListen {
    pub address: SocketAddr,
    /// Which routes are for it; see [`crate::model::route::MatcherPlan::entrance`].
    pub entrance: Arc<str>,
    /// HTTP/2 with prior knowledge is spoken, too.
    pub http2: bool,
    /// More open connections than this are closed at once.
    pub connections_max: Option<u32>,
    pub counts: Arc<OutboundCounts>,
}

/// A listener that is open until it is dropped.
pub struct RequestListener {
    pub local: SocketAddr,
    stop: watch::Sender<bool>,
    cut: watch::Sender<bool>,
}

impl RequestListener {
    /// Accepts no more; requests in progress are answered, and then their connections end.
    pub fn close(&self) {
        self.stop.send_replace(true);
    }

    /// Accepts no more and cuts what is open.
    pub fn cut(&self) {
        self.close();
        self.cut.send_replace(true);
    }
}

impl Drop for RequestListener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Doors {
    /// Binds and accepts from now on.
    pub fn open_requests(&self, listen: RequestListen) -> Result<RequestListener, BindError> {
        // The runtime's reactor takes the socket.
        let _entered = self.runtime.enter();
        let bound = bind(
            &Listen {
                address: listen.address,
                ssl: false,
                http2: listen.http2,
                proxy_protocol: false,
                connect: false,
                reuseport: false,
                backlog: None,
                ssl_cipher_suite: None,
            },
            None,
        )?;
        let local = bound.local;
        let (stop, stopped) = watch::channel(false);
        let (cut, _) = watch::channel(false);
        let accepting = Accepting {
            serve: Arc::new(RequestFront {
                listen,
                front: Arc::clone(&self.front),
                cut: cut.clone(),
            }),
            snapshots: Arc::clone(&self.snapshots),
            node: Arc::clone(&self.node),
            // Its clients are on this machine: each listener counts for itself.
            admission: Arc::default(),
            shutdown: stopped,
        };
        self.runtime.spawn(accepting.run(bound));
        self.runtime.spawn(self.ending_with_the_engine(&stop));
        Ok(RequestListener { local, stop, cut })
    }
}

/// One listener at work.
struct RequestFront {
    listen: RequestListen,
    front: Arc<Front>,
    cut: watch::Sender<bool>,
}

/// An open connection, counted.
struct Counted<'a>(&'a OutboundCounts);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Serve for RequestFront {
    async fn serve(
        &self,
        stream: TcpStream,
        connection: Connection,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let counts = &*self.listen.counts;
        let before = counts.open.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(counts);
        let limit = self.listen.connections_max.unwrap_or(u32::MAX);
        if before >= u64::from(limit) {
            counts
                .peers
                .failures
                .count(&crate::runtime::mutual::Refusal::TooMany);
            let listener = &*self.listen.entrance;
            tracing::warn!(listener, limit, "too many connections");
            return Ok(());
        }
        let _ = connection.entrance.set(Arc::clone(&self.listen.entrance));
        let serving = async {
            let alpn = match self.listen.http2 {
                true => self.front.recognised(&stream).await?,
                false => ALPN::H1,
            };
            self.front
                .serve_channel(Channel::Plain(stream), alpn, connection, shutdown)
                .await
        };
        let mut cut = self.cut.subscribe();
        tokio::select! {
            served = serving => served,
            Ok(_) = cut.wait_for(|cut| *cut) => Ok(()),
        }
    }
}
