//! Requests that go on while something else happens, and what became of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::eventually;

/// What went wrong is told so often at most.
const TOLD_MAX: usize = 10;

/// Somebody who asks again and again, in a thread of its own.
pub(crate) struct Traffic {
    seen: Arc<Seen>,
    worker: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    good: AtomicUsize,
    bad: AtomicUsize,
    told: Mutex<Vec<String>>,
}

impl Traffic {
    /// Begins; `ask` says what was wrong with an answer.
    pub(crate) fn start(mut ask: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let worker = std::thread::spawn(move || {
            while !shared.stop.load(Ordering::SeqCst) {
                let Err(error) = ask() else {
                    shared.good.fetch_add(1, Ordering::SeqCst);
                    continue;
                };
                shared.bad.fetch_add(1, Ordering::SeqCst);
                let mut told = shared.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.len() < TOLD_MAX {
                    told.push(error);
                }
            }
        });
        Self { seen, worker }
    }

    /// Waits until so many more requests were answered well, or one was not.
    pub(crate) fn goes_on(&self, more: usize) {
        let before = self.seen.good.load(Ordering::SeqCst);
        eventually("traffic goes on", || {
            let good = self.seen.good.load(Ordering::SeqCst);
            let over = self.worker.is_finished() || self.seen.bad.load(Ordering::SeqCst) > 0;
            (over || good >= before + more).then_some(())
        });
    }

    /// Ends it; an error if anything was not answered well.
    pub(crate) fn end(self) -> Result<(), String> {
        self.seen.stop.store(true, Ordering::SeqCst);
        let whole = self.worker.join().is_ok();
        let (good, bad) = (&self.seen.good, &self.seen.bad);
        if whole && bad.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let told = self
            .seen
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Err(format!("{bad:?} failed, {good:?} did not: {told:?}"))
    }
}
