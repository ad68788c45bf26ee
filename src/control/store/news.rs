//! Telling watchers about commits: a bounded queue for each, and a request to reload for those that fall behind.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::Edit;

/// Commits kept for a watcher that is busy; one that falls further behind is told to reload.
const QUEUE_MAX: usize = 256;

/// What a watcher hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// One commit.
    Committed {
        /// Its revision.
        revision: u64,
        /// Its edits.
        edits: Arc<[Edit]>,
    },
    /// Something was missed: load everything.
    Reload,
}

/// One watcher's end. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    queue: Receiver<News>,
    lagging: Arc<Mutex<bool>>,
}

impl Watch {
    /// The next news, in the order of commits; `None` when none came within `patience`. Blocks.
    ///
    /// # Errors
    ///
    /// [`WatchEnded`] when the store is gone.
    pub fn next(&mut self, patience: Duration) -> Result<Option<News>, WatchEnded> {
        match self.queue.try_recv() {
            Ok(news) => return Ok(Some(news)),
            Err(_) if std::mem::take(&mut *self.lagging.lock()) => return Ok(Some(News::Reload)),
            Err(_) => {}
        }
        match self.queue.recv_timeout(patience) {
            Ok(news) => Ok(Some(news)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(WatchEnded),
        }
    }
}

/// The watched store is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchEnded;

/// Where one watcher's news go, and whether it missed some.
type Watcher = (SyncSender<News>, Arc<Mutex<bool>>);

/// The store's end: everyone who watches.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    watchers: Mutex<Vec<Watcher>>,
}

impl Announcer {
    /// A new watcher. `behind` says that commits were made since the revision it knows: it starts with a reload.
    pub(super) fn watch(&self, behind: bool) -> Watch {
        let (sender, queue) = sync_channel(QUEUE_MAX);
        let lagging = Arc::new(Mutex::new(behind));
        self.watchers.lock().push((sender, lagging.clone()));
        Watch { queue, lagging }
    }

    /// Tells every watcher; never waits for one.
    pub(super) fn announce(&self, revision: u64, edits: &[Edit]) {
        let mut watchers = self.watchers.lock();
        if watchers.is_empty() {
            return;
        }
        let edits: Arc<[Edit]> = edits.into();
        watchers.retain(|(sender, lagging)| {
            let news = News::Committed {
                revision,
                edits: edits.clone(),
            };
            match sender.try_send(news) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    *lagging.lock() = true;
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
    }
}
