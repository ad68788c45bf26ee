//! The files that say how names are resolved: looked at now and then, and read again when they have changed.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::runtime::resolver::ResolverOptions;
use crate::runtime::resolver::hosts::Hosts;
use crate::runtime::resolver::lookup::Lookup;

/// Where the system names its name servers.
const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// The files, as they were when last read.
pub(super) struct SystemFiles {
    pub(super) options: ResolverOptions,
    hosts: Arc<Hosts>,
    hosts_mark: Mark,
    resolver_mark: Mark,
}

/// What tells one content of a file from another: time of change and length. `None` for a file that is not there.
type Mark = Option<(SystemTime, u64)>;

impl SystemFiles {
    /// Just read.
    pub(super) fn watch(options: ResolverOptions, hosts: Arc<Hosts>) -> Self {
        Self {
            hosts_mark: mark(hosts.path()),
            resolver_mark: mark(Path::new(RESOLVER_FILE)),
            options,
            hosts,
        }
    }

    /// How to look names up from now on, if a file has changed. One that is unusable leaves things as they are.
    pub(super) fn changed(&mut self) -> Option<Lookup> {
        let hosts_mark = mark(self.hosts.path());
        let resolver_mark = mark(Path::new(RESOLVER_FILE));
        let hosts_changed = hosts_mark != self.hosts_mark;
        let servers_changed =
            self.options.name_servers.is_empty() && resolver_mark != self.resolver_mark;
        (self.hosts_mark, self.resolver_mark) = (hosts_mark, resolver_mark);
        if hosts_changed {
            self.hosts.read_again();
            tracing::info!(path = %self.hosts.path().display(), "read the hosts file again");
        }
        if servers_changed {
            tracing::info!(path = RESOLVER_FILE, "read the name servers again");
        }
        if !hosts_changed && !servers_changed {
            return None;
        }
        Lookup::new(&self.options, Arc::clone(&self.hosts))
            .inspect_err(|error| tracing::warn!(%error, "the name servers stay as they were"))
            .ok()
    }
}

fn mark(path: &Path) -> Mark {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
