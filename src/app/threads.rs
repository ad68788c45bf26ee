//! The threads that proxy, apart from those for everything else: a build of 100,000 routes delays no request.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// The threads that proxy.
pub(crate) enum ProxyThreads {
    /// One thread with a runtime of its own: nothing is shared, so nothing is synchronised.
    One {
        handle: Handle,
        end: oneshot::Sender<()>,
        thread: JoinHandle<()>,
    },
    /// Several that take work from each other.
    Many(Runtime),
}

impl ProxyThreads {
    /// Starts so many.
    pub(crate) fn start(count: usize) -> anyhow::Result<Self> {
        if count > 1 {
            return Ok(Self::Many(several("proxy", count)?));
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no threads can be started")?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let drive = move || {
            // A lost sender means the end as well.
            let _ = runtime.block_on(ended);
            // Tasks that are still there are cut off here.
            drop(runtime);
        };
        let thread = std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(drive)
            .context("no threads can be started")?;
        Ok(Self::One {
            handle,
            end,
            thread,
        })
    }

    /// Where tasks are started.
    pub(crate) fn handle(&self) -> &Handle {
        match self {
            Self::One { handle, .. } => handle,
            Self::Many(runtime) => runtime.handle(),
        }
    }

    /// Ends the threads; what has not ended by then is cut off. Blocks, at most so long for each thread that is busy.
    pub(crate) fn stop(self, patience: Duration) {
        match self {
            Self::One { end, thread, .. } => {
                // Gone already only if the thread has panicked.
                let _ = end.send(());
                let _ = thread.join();
            }
            Self::Many(runtime) => runtime.shutdown_timeout(patience),
        }
    }
}

/// A runtime of several threads.
pub(crate) fn several(name: &str, count: usize) -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .worker_threads(count)
        .thread_name(name)
        .build()
        .context("no threads can be started")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn tasks_run_on_their_own_threads_and_are_cut_off() {
        for count in [1, 2] {
            let threads = ProxyThreads::start(count).unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            let endless = threads.handle().spawn(async move {
                let name = std::thread::current().name().map(str::to_owned);
                tell.send(name).unwrap();
                std::future::pending::<()>().await;
            });
            assert_eq!(told.recv().unwrap().as_deref(), Some("proxy"));
            threads.stop(Duration::from_secs(5));
            assert!(endless.is_finished());
        }
    }
}
