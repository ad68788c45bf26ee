//! Idle connections of the client.
//!
//! Connections are shared only where everything that makes them what they are is equal: address, protocol, TLS identity
//! and server name. An HTTP/2 connection stays here while it is used, for others to use as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ahash::AHashMap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Address, ClientOptions, Destination, HttpProtocol};

/// What a request travels over.
pub(super) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    fn is_usable(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }
}

/// What two connections must have in common to stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    address: Address,
    /// Identity and server name.
    tls: Option<(u64, Arc<str>)>,
    protocol: HttpProtocol,
}

impl PoolKey {
    pub(super) fn of(destination: &Destination) -> Self {
        Self {
            address: destination.address.clone(),
            tls: destination
                .tls
                .as_ref()
                .map(|it| (it.tls.identity(), Arc::clone(&it.server_name))),
            protocol: destination.protocol,
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}

/// The idle connections.
pub(super) struct Pool {
    options: ClientOptions,
    lists: Mutex<Lists>,
    /// Is somebody sweeping?
    swept: AtomicBool,
}

#[derive(Default)]
struct Lists {
    by_key: AHashMap<PoolKey, Vec<Idle>>,
    idle: usize,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(options: ClientOptions) -> Self {
        Self {
            options,
            lists: Mutex::default(),
            swept: AtomicBool::new(false),
        }
    }

    pub(super) fn idle(&self) -> usize {
        self.lists.lock().idle
    }

    /// A connection that was open and silent a moment ago, the warmest first.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Connection> {
        let now = Instant::now();
        let mut lists = self.lists.lock();
        let Lists { by_key, idle } = &mut *lists;
        let list = by_key.get_mut(key)?;
        let mut taken = None;
        while let Some(last) = list.last_mut() {
            let fresh = now.duration_since(last.since) < self.options.idle;
            if fresh && last.connection.is_usable() {
                if let Connection::Http2(sender) = &last.connection {
                    last.since = now;
                    return Some(Connection::Http2(sender.clone()));
                }
                taken = list.pop();
                *idle -= 1;
                break;
            }
            list.pop();
            *idle -= 1;
        }
        if list.is_empty() {
            by_key.remove(key);
        }
        taken.map(|idle| idle.connection)
    }

    /// Keeps a connection that may serve again, if the limits allow.
    pub(super) fn keep(self: &Arc<Self>, key: &PoolKey, connection: Connection) {
        let mut lists = self.lists.lock();
        if lists.idle >= self.options.idle_max {
            return;
        }
        let list = lists.by_key.entry(key.clone()).or_default();
        // One HTTP/2 connection serves all.
        let most = match connection {
            Connection::Http1(_) => self.options.idle_per_destination_max,
            Connection::Http2(_) => self.options.idle_per_destination_max.min(1),
        };
        if list.len() >= most {
            return;
        }
        list.push(Idle {
            connection,
            since: Instant::now(),
        });
        lists.idle += 1;
        drop(lists);
        if !self.swept.swap(true, Ordering::AcqRel) {
            let sweeping = Sweeping(Arc::downgrade(self));
            tokio::spawn(sweeping.run(self.options.idle));
        }
    }

    /// Closes what was idle for too long or is closed already. False when nothing is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut lists = self.lists.lock();
        lists.by_key.retain(|_, list| {
            closed.extend(list.extract_if(.., |idle| {
                now.duration_since(idle.since) >= self.options.idle || !idle.connection.is_usable()
            }));
            !list.is_empty()
        });
        lists.idle -= closed.len();
        let left = lists.idle > 0;
        drop(lists);
        // Closing happens here, outside the lock.
        left
    }
}

/// The task that sweeps while there is something to sweep.
struct Sweeping(Weak<Pool>);

impl Sweeping {
    async fn run(self, every: std::time::Duration) {
        loop {
            tokio::time::sleep(every / 2).await;
            match self.0.upgrade() {
                Some(pool) if pool.sweep() => {}
                _ => return,
            }
        }
    }
}

impl Drop for Sweeping {
    /// Also when the runtime ends under it: the next connection kept starts another one.
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.swept.store(false, Ordering::Release);
        }
    }
}
