//! Rosters: endpoints whose addresses somebody keeps up to date who is no name server.
//!
//! ```text
//! cluster ── asks for a roster by name ──▶ Rosters ◀── looks what is asked for ── keeper
//!    ▲                                        │                                     │
//!    └───────── told of changes ───────── Roster ◀──────────── members ─────────────┘
//! ```
//!
//! Owns the meeting of the two: a roster lives for as long as some cluster wants it, and keeps its members while its
//! keeper learns nothing new. Refuses to know where members come from. Start at [`Rosters::of`].

use std::sync::{Arc, Weak};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::runtime::live::Live;
use crate::runtime::mutual::Secured;
use crate::runtime::resolver::Watcher;

/// Most members of one roster; further ones are not used.
pub const MEMBERS_MAX: usize = 10_000;

/// The rosters that somebody wants.
#[derive(Default)]
pub struct Rosters {
    rosters: Mutex<AHashMap<Arc<str>, Weak<Roster>>>,
    /// Grows with each new one.
    asked: watch::Sender<u64>,
}

/// One address to be, with how it is spoken to.
#[derive(Clone)]
pub struct Member {
    /// Host name, IPv4 or IPv6 address without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// Share of traffic among the members of its rank; above 0.
    pub weight: u32,
    /// 0 is used first; see [`crate::model::plan::EndpointPlan::rank`], to which it is added.
    pub rank: u8,
    /// TLS in which both sides show certificates; none speaks as the forward says.
    pub secured: Option<Arc<Secured>>,
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        let secured = |member: &Self| {
            let secured = member.secured.as_ref()?;
            let cell = Arc::as_ptr(&secured.cell);
            Some((
                cell,
                secured.expected.clone(),
                secured.server_name.clone(),
                Arc::as_ptr(&secured.counts),
            ))
        };
        (&self.host, self.port, self.weight, self.rank)
            == (&other.host, other.port, other.weight, other.rank)
            && secured(self) == secured(other)
    }
}

/// What a keeper knows.
#[derive(Default, Clone, PartialEq)]
pub struct Members {
    pub all: Vec<Member>,
    /// False until the keeper has heard something for the first time.
    pub known: bool,
    /// Why there are none, or why they may be out of date.
    pub trouble: Option<String>,
}

/// The members behind one name.
pub struct Roster {
    pub name: Arc<str>,
    members: ArcSwap<Members>,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
}

impl Rosters {
    /// Those of this process.
    pub fn of(live: &Live) -> Arc<Self> {
        live.keep("rosters", Self::default)
    }

    /// The roster of that name, kept from now on for as long as somebody holds it.
    pub fn roster(&self, name: &Arc<str>) -> Arc<Roster> {
        let mut rosters = self.rosters.lock();
        if let Some(roster) = rosters.get(name).and_then(Weak::upgrade) {
            return roster;
        }
        rosters.retain(|_, roster| roster.strong_count() > 0);
        let roster = Arc::new(Roster {
            name: Arc::clone(name),
            members: ArcSwap::default(),
            watchers: Mutex::default(),
        });
        rosters.insert(Arc::clone(name), Arc::downgrade(&roster));
        drop(rosters);
        self.asked
            .send_modify(|count| *count = count.wrapping_add(1));
        roster
    }

    /// Those that somebody wants now.
    pub fn wanted(&self) -> Vec<Arc<Roster>> {
        let rosters = self.rosters.lock();
        rosters.values().filter_map(Weak::upgrade).collect()
    }

    /// Changes whenever a new one is wanted.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }
}

impl Roster {
    /// What is known now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Takes over what the keeper knows, and tells the watchers if it differs.
    pub fn set(&self, mut members: Members) {
        members.all.truncate(MEMBERS_MAX);
        if **self.members.load() == members {
            return;
        }
        self.members.store(Arc::new(members));
        // Called without the lock: a watcher may take its time.
        let watchers: Vec<Weak<dyn Watcher>> = {
            let mut watchers = self.watchers.lock();
            watchers.retain(|watcher| watcher.strong_count() > 0);
            watchers.clone()
        };
        for watcher in watchers {
            if let Some(watcher) = watcher.upgrade() {
                watcher.changed();
            }
        }
    }

    /// Calls `watcher` after each change, for as long as it lives.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut watchers = self.watchers.lock();
        if watchers.len() == watchers.capacity() {
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(watcher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_as_long_as_it_is_wanted_and_tells_of_news_only() {
        struct Heard(Mutex<u32>);
        impl Watcher for Heard {
            fn changed(&self) {
                *self.0.lock() += 1;
            }
        }
        let rosters = Rosters::default();
        let asked = rosters.asked();
        let name: Arc<str> = "r".into();
        let roster = rosters.roster(&name);
        assert!(Arc::ptr_eq(&roster, &rosters.roster(&name)));
        assert_eq!((rosters.wanted().len(), *asked.borrow()), (1, 1));
        let heard = Arc::new(Heard(Mutex::default()));
        let watcher: Weak<Heard> = Arc::downgrade(&heard);
        roster.watch(watcher);
        let members = Members {
            all: vec![Member {
                host: "192.0.2.1".into(),
                port: 1,
                weight: 1,
                rank: 0,
                secured: None,
            }],
            known: true,
            trouble: None,
        };
        roster.set(members.clone());
        roster.set(members);
        assert_eq!(*heard.0.lock(), 1);
        drop(roster);
        assert!(rosters.wanted().is_empty());
    }
}
