//! Companions: programs that run beside the gateway and answer HTTP over a Unix socket.
//!
//! ```text
//! Companion ── dropped ──▶ supervisor: folder, start ─▶ ready? ─▶ serves ─▶ ends ─▶ waits ─┐
//!   ▲ ready(): the socket ◀──────────┘   ▲                                                 │
//!   └ kept in Live as long as used       └─────────── longer each time ────────────────────┘
//! ```
//!
//! Owns the program's folder, process, output and restarts. Refuses to know what the program is, and to send requests to
//! it. A companion that nobody uses any more is stopped. The program's standard input is a pipe that the gateway holds and
//! never writes to: its end tells the program that the gateway is gone, however that happened. Start at [`Companions`].

mod folder;
mod output;
mod supervisor;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::runtime::live::Live;

/// The environment variable that tells the program where to listen.
pub const SOCKET_VARIABLE: &str = "SALLYPORT_SOCKET";

/// A program, complete: two that are the same are one companion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSpec {
    /// What the log calls it.
    pub name: String,
    /// The executable: a path, or a name that is looked for on `PATH`.
    pub program: String,
    /// Paths in them are relative to the program's folder.
    pub arguments: Vec<String>,
    /// Its whole environment besides `PATH` and [`SOCKET_VARIABLE`].
    pub environment: Vec<(String, String)>,
    /// What lies in its folder, by relative path.
    pub files: Vec<(String, Bytes)>,
}

/// Does this executable exist? A name without a slash is looked for on `PATH`.
pub fn is_there(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        let about = std::fs::metadata(path);
        about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| runs(&folder.join(program)))
}

/// Where companions come from; one for the process, found with [`Companions::of`].
#[derive(Default)]
pub struct Companions {
    runtime: OnceLock<Handle>,
}

impl Companions {
    /// The one of this process.
    pub fn of(live: &Live) -> Arc<Self> {
        live.keep("companions", Self::default)
    }

    /// Says on which runtime companions are watched, once; without it none is started.
    pub fn start(&self, runtime: &Handle) {
        // A second one would be a mistake of the start-up code, and the first may be in use.
        let _ = self.runtime.set(runtime.clone());
    }

    /// The companion kept under a key, started now unless it runs already. The key must tell different programs apart.
    pub fn companion(
        &self,
        live: &Live,
        key: &str,
        spec: impl FnOnce() -> ProgramSpec,
    ) -> Arc<Companion> {
        live.keep(format!("companion {key}"), || {
            let (state, ready) = watch::channel(State::Starting);
            let (stop, stopped) = oneshot::channel();
            if let Some(runtime) = self.runtime.get() {
                runtime.spawn(supervisor::run(spec(), state, stopped));
            }
            Companion { ready, _stop: stop }
        })
    }
}

/// What a program is doing.
#[derive(Debug, Clone)]
enum State {
    /// It does not listen yet, or has ended and is going to be started again.
    Starting,
    /// It listens there.
    Ready(Arc<Path>),
}

/// One program; see the module. Stopped when dropped.
pub struct Companion {
    ready: watch::Receiver<State>,
    /// Its end is what the supervisor waits for.
    _stop: oneshot::Sender<()>,
}

impl Companion {
    /// The socket where the program listens, as soon as it does. None when it does not within `limit`.
    pub async fn ready(&self, limit: Duration) -> Option<Arc<Path>> {
        if let State::Ready(path) = &*self.ready.borrow() {
            return Some(Arc::clone(path));
        }
        let mut ready = self.ready.clone();
        let listens = ready.wait_for(|state| matches!(state, State::Ready(_)));
        let state = tokio::time::timeout(limit, listens).await.ok()?.ok()?;
        match &*state {
            State::Ready(path) => Some(Arc::clone(path)),
            State::Starting => None,
        }
    }
}

#[cfg(test)]
mod tests;
