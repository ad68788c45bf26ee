//! Names of upstreams and their addresses, kept fresh in the background.
//!
//! ```text
//! Cluster ── name("a.test") ──▶ Name ◀── publish ── keeper ── lookup ──▶ name servers
//!    ▲                           │                 (one task, few lookups at a time)
//!    └───────── changed ─────────┘
//! ```
//!
//! Owns one [`Name`] for every distinct name that somebody uses; it is asked for again when its time to live ends and
//! forgotten when nobody holds it. No request ever waits for a name server, but for the first answer of a new name.
//! Refuses to know about ports and weights of configured endpoints. Start at [`Resolver::start`] and [`Resolver::name`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

mod hosts;
mod keeper;
mod lookup;
mod system_files;

use hosts::Hosts;
use lookup::Lookup;
use system_files::SystemFiles;

/// How names are resolved.
#[derive(Debug, Clone)]
pub struct ResolverOptions {
    /// Whom to ask; empty means those of `/etc/resolv.conf`, with its search list.
    pub name_servers: Vec<SocketAddr>,
    /// Names that are known without asking; a file that is missing knows none. Default `/etc/hosts`.
    pub hosts_file: PathBuf,
    /// Kinds of records asked for, in this order; the first kind with an answer counts.
    pub order: Vec<RecordKind>,
    /// How long an answer is used, instead of its own time to live.
    pub valid: Option<Duration>,
    /// How long an expired answer is still used while the name servers fail. Default one hour.
    pub stale: Duration,
    /// After how long a name that does not exist is asked for again. Default 30 s.
    pub not_found: Duration,
    /// After how long a name that could not be asked for is asked for again. Default 1 s.
    pub error: Duration,
}

impl Default for ResolverOptions {
    fn default() -> Self {
        Self {
            name_servers: Vec::new(),
            hosts_file: PathBuf::from("/etc/hosts"),
            order: vec![
                RecordKind::Last,
                RecordKind::Service,
                RecordKind::V4,
                RecordKind::V6,
            ],
            valid: None,
            stale: Duration::from_secs(3600),
            not_found: Duration::from_secs(30),
            error: Duration::from_secs(1),
        }
    }
}

/// What to ask a name server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// The kind that answered last for this name.
    Last,
    /// SRV: hosts with ports and weights.
    Service,
    /// A: IPv4 addresses. Aliases (CNAME) are followed.
    V4,
    /// AAAA: IPv6 addresses. Aliases (CNAME) are followed.
    V6,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The first resolution has not ended yet.
    Pending,
    /// At least one record, sorted.
    Addresses(Box<[AddressRecord]>),
    /// The name does not exist, or has no addresses.
    NotFound,
    /// It could not be asked for, for this reason.
    Failed(Arc<str>),
}

/// An address of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRecord {
    pub address: IpAddr,
    /// Present when an SRV record led to it.
    pub service: Option<ServiceRecord>,
}

/// What an SRV record says about an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    pub port: u16,
    /// Above 0.
    pub weight: u16,
    /// The host that the record names, without final dot.
    pub target: Arc<str>,
}

impl Answer {
    /// The answer for what is an address already.
    pub fn literal(address: IpAddr) -> Self {
        Self::Addresses(Box::new([AddressRecord {
            address,
            service: None,
        }]))
    }

    /// The records; empty unless there is an answer.
    pub fn records(&self) -> &[AddressRecord] {
        match self {
            Self::Addresses(records) => records,
            _ => &[],
        }
    }
}

/// Whoever must know when a name's answer has changed.
pub trait Watcher: Send + Sync {
    /// The answer has changed. Called from a background task; must not block.
    fn changed(&self);
}

/// One name, shared by all who use it.
pub struct Name {
    text: Arc<str>,
    answer: ArcSwap<Answer>,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
}

impl Name {
    fn new(text: Arc<str>, answer: Answer) -> Self {
        Self {
            text,
            answer: ArcSwap::from_pointee(answer),
            watchers: Mutex::default(),
        }
    }

    /// What is known now.
    pub fn answer(&self) -> Arc<Answer> {
        self.answer.load_full()
    }

    /// Calls `watcher` after each change, for as long as it lives.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut watchers = self.watchers.lock();
        // Swept only when the list would grow, so that many watchers of one name stay cheap.
        if watchers.len() == watchers.capacity() {
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(watcher);
    }

    /// Takes a new answer and tells the watchers if it differs.
    fn publish(&self, answer: Answer) {
        if **self.answer.load() == answer {
            return;
        }
        self.answer.store(Arc::new(answer));
        // Called without the lock: a watcher may take its time, or watch another name.
        let watchers: Vec<Weak<dyn Watcher>> = self.watchers.lock().clone();
        for watcher in watchers {
            if let Some(watcher) = watcher.upgrade() {
                watcher.changed();
            }
        }
    }
}

/// Resolves names for the whole process.
pub struct Resolver {
    names: Mutex<AHashMap<Arc<str>, Weak<Name>>>,
    hosts: Arc<Hosts>,
    /// To the keeper. Holds at most one entry for each new name, so it needs no limit of its own.
    arrivals: mpsc::UnboundedSender<Weak<Name>>,
}

/// Names remembered before forgotten ones are swept out for the first time.
const SWEEP_AT: usize = 1024;

impl Resolver {
    /// Reads the system's configuration, as far as the options leave it to decide, and starts the background task on
    /// `runtime`, where it runs until the resolver is dropped.
    pub fn start(
        options: ResolverOptions,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Arc<Self>, String> {
        let hosts = Arc::new(Hosts::read(&options.hosts_file));
        let lookup = Lookup::new(&options, Arc::clone(&hosts))?;
        let (arrivals, queue) = mpsc::unbounded_channel();
        runtime.spawn(keeper::run(
            lookup,
            SystemFiles::watch(options, Arc::clone(&hosts)),
            queue,
        ));
        Ok(Arc::new(Self {
            names: Mutex::default(),
            hosts,
            arrivals,
        }))
    }

    /// The name, asked for from now on for as long as somebody holds it. Letter case and a final dot do not matter.
    pub fn name(&self, text: &str) -> Arc<Name> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let mut names = self.names.lock();
        if let Some(name) = names.get(&*text).and_then(Weak::upgrade) {
            return name;
        }
        if names.len() >= SWEEP_AT && names.len() == names.capacity() {
            names.retain(|_, name| name.strong_count() > 0);
        }
        let text: Arc<str> = text.into();
        let answer = self.hosts.answer(&text).unwrap_or(Answer::Pending);
        let name = Arc::new(Name::new(Arc::clone(&text), answer));
        names.insert(text, Arc::downgrade(&name));
        if self.arrivals.send(Arc::downgrade(&name)).is_err() {
            // Only while the process ends: the keeper's runtime is gone.
            name.publish(Answer::Failed("the resolver has stopped".into()));
        }
        name
    }

    /// Number of names that somebody uses.
    pub fn names(&self) -> usize {
        let names = self.names.lock();
        names
            .values()
            .filter(|name| name.strong_count() > 0)
            .count()
    }
}

#[cfg(test)]
pub(in crate::runtime) mod tests;
