//! Connections that were let in: who they belong to, and how they are cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::MutualCounts;
use crate::engine::wait::once;
use crate::runtime::mutual::{Peer, PeerAuthority, Review};

/// How often open connections are reviewed when nothing tells of a change.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Questions about open connections at the same time would crowd out those about new ones.
const PAUSE_BETWEEN: Duration = Duration::from_millis(1);

/// The open connections of a listener.
#[derive(Default)]
pub(super) struct OpenPeers {
    entries: Mutex<AHashMap<u64, Entry>>,
    next: AtomicU64,
}

struct Entry {
    peer: Arc<Peer>,
    cut: Arc<Cut>,
}

/// Tells one connection that it is to be cut.
#[derive(Default)]
struct Cut {
    /// Known without a lock, because the connection asks whenever it wakes.
    is_due: AtomicBool,
    due: Notify,
}

impl Cut {
    fn tell(&self) {
        self.is_due.store(true, Ordering::Release);
        self.due.notify_one();
    }
}

/// One open connection; it leaves when this is dropped.
pub(super) struct Entered {
    open: Arc<OpenPeers>,
    id: u64,
    cut: Arc<Cut>,
}

impl Entered {
    /// Waits until the connection is to be cut.
    pub(super) async fn cut(&self) {
        let is_due = || self.cut.is_due.load(Ordering::Acquire);
        once(self.cut.due.notified(), is_due).await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.open.entries.lock().remove(&self.id);
    }
}

impl OpenPeers {
    pub(super) fn enter(self: &Arc<Self>, peer: Arc<Peer>) -> Entered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cut = Arc::new(Cut::default());
        let entry = Entry {
            peer,
            cut: Arc::clone(&cut),
        };
        self.entries.lock().insert(id, entry);
        Entered {
            open: Arc::clone(self),
            id,
            cut,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    pub(super) fn cut_all(&self) {
        for entry in self.entries.lock().values() {
            entry.cut.tell();
        }
    }

    /// One peer of each identity.
    fn peers(&self) -> Vec<Arc<Peer>> {
        let entries = self.entries.lock();
        let by_uri: AHashMap<&str, &Arc<Peer>> = entries
            .values()
            .map(|entry| (&*entry.peer.uri, &entry.peer))
            .collect();
        by_uri.into_values().map(Arc::clone).collect()
    }

    /// Cuts every connection of one identity; how many there were.
    fn cut(&self, uri: &str) -> u64 {
        let entries = self.entries.lock();
        let of_peer = entries.values().filter(|entry| &*entry.peer.uri == uri);
        let mut count = 0;
        for entry in of_peer {
            entry.cut.tell();
            count += 1;
        }
        count
    }
}

/// Reviews open connections whenever the authority has changed, and now and then, until the last one has gone.
pub(super) async fn review(
    open: Arc<OpenPeers>,
    authority: Arc<dyn PeerAuthority>,
    counts: Arc<MutualCounts>,
    listener: Arc<str>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut changes = authority.changes();
    loop {
        let closing = *stopped.borrow();
        if closing && open.len() == 0 {
            return;
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    // Nobody tells of changes any more: the sweep has to do.
                    tokio::time::sleep(SWEEP_EVERY).await;
                }
            }
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            _ = stopped.changed(), if !closing => continue,
        }
        for peer in open.peers() {
            if let Review::Cut { reason } = authority.review(&peer).await {
                let connections = open.cut(&peer.uri);
                counts.cut.fetch_add(connections, Ordering::Relaxed);
                tracing::warn!(
                    listener = &*listener,
                    uri = &*peer.uri,
                    connections,
                    "open connections cut: {reason}"
                );
            }
            tokio::time::sleep(PAUSE_BETWEEN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::AtomicBool;

    use async_trait::async_trait;

    use super::*;
    use crate::runtime::head::RequestHead;
    use crate::runtime::mutual::{Admission, Verdict};

    struct Switch {
        closed: AtomicBool,
        changes: watch::Sender<u64>,
    }

    #[async_trait]
    impl PeerAuthority for Switch {
        async fn authorize(&self, _: &Peer) -> Verdict {
            Verdict::Allow
        }
        async fn review(&self, peer: &Peer) -> Review {
            match self.closed.load(Ordering::Relaxed) && &*peer.uri == "a" {
                true => Review::Cut { reason: "x".into() },
                false => Review::Keep,
            }
        }
        fn admit(&self, _: &Peer, _: &RequestHead) -> Admission {
            Admission::Allow { target: None }
        }
        fn changes(&self) -> watch::Receiver<u64> {
            self.changes.subscribe()
        }
    }

    fn peer(uri: &str) -> Arc<Peer> {
        Arc::new(Peer {
            uri: uri.into(),
            name: uri.into(),
            serial: "".into(),
            subject: Arc::new(()),
        })
    }

    #[tokio::test]
    async fn connections_of_those_who_lost_the_right_are_cut() {
        let authority = Arc::new(Switch {
            closed: AtomicBool::new(true),
            changes: watch::Sender::new(0),
        });
        let open = Arc::new(OpenPeers::default());
        let counts = Arc::new(MutualCounts::default());
        let (stop, stopped) = watch::channel(false);
        let (one, other) = (open.enter(peer("a")), open.enter(peer("b")));
        let task = tokio::spawn(review(
            Arc::clone(&open),
            Arc::clone(&authority) as Arc<dyn PeerAuthority>,
            Arc::clone(&counts),
            "test".into(),
            stopped,
        ));
        while authority.changes.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        authority.changes.send_replace(1);
        one.cut().await;
        assert_eq!(counts.cut.load(Ordering::Relaxed), 1);
        drop(one);
        assert_eq!(open.len(), 1);
        drop(other);
        stop.send_replace(true);
        task.await.unwrap();
    }
}
