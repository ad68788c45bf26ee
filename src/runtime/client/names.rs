//! Names that calls go to.
//!
//! The resolver forgets a name that nobody holds, so those asked for lately are held here.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::ClientError;
use crate::runtime::resolver::{Answer, Name, Resolver, Watcher};

/// Names held; the one not used for longest gives way.
const NAMES_MAX: usize = 256;

/// Names with their last use.
pub(super) struct Names {
    resolver: Arc<Resolver>,
    held: Mutex<AHashMap<Arc<str>, Held>>,
    /// Starts each call at another address.
    turn: AtomicUsize,
}

struct Held {
    name: Arc<Name>,
    used: Instant,
}

/// Wakes a call that waits for a first answer.
#[derive(Default)]
struct Waiter(Notify);

impl Watcher for Waiter {
    fn changed(&self) {
        self.0.notify_one();
    }
}

impl Names {
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self {
            resolver,
            held: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The addresses of a name, each call beginning with the next one. Waits for a first answer until `deadline`.
    pub(super) async fn resolve(
        &self,
        host: &Arc<str>,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, ClientError> {
        let unresolved = |reason: &str| ClientError::Unresolved {
            name: Arc::clone(host),
            reason: reason.into(),
        };
        let name = self.hold(host);
        let answer = match tokio::time::timeout_at(deadline, first_answer(&name)).await {
            Ok(answer) => answer,
            Err(_) => return Err(unresolved("no name server answered in time")),
        };
        match &*answer {
            Answer::Pending => Err(unresolved("no name server answered in time")),
            Answer::NotFound => Err(unresolved("there is no such name")),
            Answer::Failed(reason) => Err(unresolved(reason)),
            Answer::Addresses(records) => {
                let mut addresses: Vec<IpAddr> =
                    records.iter().map(|record| record.address).collect();
                if !addresses.is_empty() {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len();
                    addresses.rotate_left(turn);
                }
                Ok(addresses)
            }
        }
    }

    fn hold(&self, host: &Arc<str>) -> Arc<Name> {
        let now = Instant::now();
        let mut held = self.held.lock();
        if let Some(known) = held.get_mut(host) {
            known.used = now;
            return Arc::clone(&known.name);
        }
        if held.len() >= NAMES_MAX
            && let Some(oldest) = held
                .iter()
                .min_by_key(|(_, known)| known.used)
                .map(|(host, _)| Arc::clone(host))
        {
            held.remove(&oldest);
        }
        let name = self.resolver.name(host);
        let known = Held {
            name: Arc::clone(&name),
            used: now,
        };
        held.insert(Arc::clone(host), known);
        name
    }
}

async fn first_answer(name: &Name) -> Arc<Answer> {
    let answer = name.answer();
    if *answer != Answer::Pending {
        return answer;
    }
    let waiter = Arc::new(Waiter::default());
    let watcher: std::sync::Weak<Waiter> = Arc::downgrade(&waiter);
    name.watch(watcher);
    loop {
        // Looked at after watching, so that no change falls between.
        let answer = name.answer();
        if *answer != Answer::Pending {
            return answer;
        }
        waiter.0.notified().await;
    }
}
