//! The control plane: the entities as of the newest commit, and the one way to change them.
//!
//! One writer thread takes writes from a bounded queue, runs them one after another on a draft of the entity set,
//! commits everything that a batch changed in one transaction, and only then publishes the entities, tells the
//! builder, and answers. So whatever was answered is stored for good, no reader sees what might still be lost, and
//! many writers share the price of one disk write.
//!
//! A write that fails its checks leaves the draft as it was. When the commit itself fails, nothing has changed, and
//! every write of the batch fails. When another node committed first, the entities are brought up to date and the
//! batch runs again: operations are therefore `FnMut`, and must not consume what they capture.

use std::error::Error as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::entities::{ChangeSet, Entities};
use super::jobs::{Answer, Job, Write};
use super::store::{Contents, News, Store, StoreError, Watch};

/// Writes that wait; the next ones wait before the queue.
const QUEUE_MAX: usize = 1024;
/// Writes that share one commit.
const BATCH_MAX: usize = 256;
/// Times a batch is run again because another node was faster.
const CONFLICTS_MAX: usize = 16;
/// Longest pause after the first lost race; it doubles with each further one, so that nodes that write at the same time
/// do not keep getting in each other's way.
const CONFLICT_PAUSE: Duration = Duration::from_micros(100);
/// The longest pause of all.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(50);
/// How often a watch looks whether its control plane is gone.
const WATCH_PATIENCE: Duration = Duration::from_millis(500);
/// Between two attempts to put the stop behind a full queue.
const STOP_RETRY: Duration = Duration::from_millis(1);

/// What an operation may know besides the entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The moment of the write, for time stamps.
    pub now: SystemTime,
}

impl Moment {
    /// Milliseconds since 1970.
    pub fn unix_ms(&self) -> i64 {
        let since = self.now.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// Whole seconds since 1970.
    pub fn unix_seconds(&self) -> i64 {
        self.unix_ms() / 1000
    }
}

/// The entities as of one commit.
#[derive(Debug, Clone)]
pub struct Committed<S> {
    /// The commit.
    pub revision: u64,
    /// Everything as of that commit.
    pub entities: Arc<S>,
}

/// A commit, told to whoever must act on it. The first one after a start holds every entity as a change.
#[derive(Debug, Clone)]
pub struct Publication<S: Entities> {
    /// The commit.
    pub revision: u64,
    /// Everything as of that commit.
    pub entities: Arc<S>,
    /// What changed since the publication before; at most one for each entity.
    pub changes: Vec<S::Change>,
}

/// Who hears of commits, in their order. Called by the writer thread before it answers, so it must be quick.
pub type Subscriber<S> = Box<dyn Fn(Publication<S>) + Send>;

/// The control plane; see the module. Dropping it finishes the queue and closes the store.
pub struct ControlPlane<S: Entities> {
    current: Arc<ArcSwap<Committed<S>>>,
    store: Arc<dyn Store>,
    queue: mpsc::Sender<Message<S>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

enum Message<S: Entities> {
    Write(Box<dyn Job<S>>),
    News(News),
    Refresh(oneshot::Sender<Result<u64, String>>),
    Stop,
}

impl<S: Entities> ControlPlane<S> {
    /// Loads the store, publishes what it holds to `subscriber`, and starts the writer.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the store cannot be read, holds a row that this program cannot read, or no thread can start.
    pub fn start(store: Arc<dyn Store>, subscriber: Subscriber<S>) -> Result<Self, StartError> {
        let contents = store.load()?;
        let watch = store.watch(contents.revision);
        let entities = restore::<S>(&contents, store.name())?;
        let changes = S::difference(&S::default(), &entities);
        let first = Committed {
            revision: contents.revision,
            entities: Arc::new(entities),
        };
        subscriber(Publication {
            revision: first.revision,
            entities: first.entities.clone(),
            changes,
        });
        let current = Arc::new(ArcSwap::from_pointee(first));
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            current: current.clone(),
            store: store.clone(),
            subscriber,
        };
        let writer = std::thread::Builder::new()
            .name("control-writer".to_owned())
            .spawn(move || writer.serve(inbox))
            .map_err(StartError::Thread)?;
        if let Some(watch) = watch {
            let queue = queue.downgrade();
            std::thread::Builder::new()
                .name("control-watch".to_owned())
                .spawn(move || forward_news(watch, &queue))
                .map_err(StartError::Thread)?;
        }
        Ok(Self {
            current,
            store,
            queue,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// The entities as of the newest commit.
    pub fn read(&self) -> Arc<S> {
        self.current.load().entities.clone()
    }

    /// The newest commit with its entities.
    pub fn committed(&self) -> Committed<S> {
        Committed::clone(&self.current.load())
    }

    /// The store's word for itself, e.g. `embedded`.
    pub fn store_name(&self) -> &'static str {
        self.store.name()
    }

    /// The id of the store's node.
    pub fn node_id(&self) -> Uuid {
        self.store.node_id()
    }

    /// Runs `operation` on the entities and stores what it changed. Answers when that is stored for good, with the
    /// operation's value and the revision that contains it. The operation returns every change that it made to the
    /// draft; it may run more than once, and what it did before a refusal is undone.
    ///
    /// # Errors
    ///
    /// The operation's refusal, or a failure (Kong: code 8) when the store failed; nothing has changed then.
    pub async fn write<T, F>(&self, operation: F) -> Answer<T, S>
    where
        T: Send + 'static,
        F: FnMut(&mut S, &Moment) -> Result<(T, Vec<S::Change>), S::Error> + Send + 'static,
    {
        let (job, answer) = Write::queued(operation);
        if self.queue.send(Message::Write(job)).await.is_err() {
            return Err(stopping::<S>());
        }
        answer.await.unwrap_or_else(|_| Err(stopping::<S>()))
    }

    /// [`ControlPlane::write`] for threads that may block.
    pub fn write_blocking<T, F>(&self, operation: F) -> Answer<T, S>
    where
        T: Send + 'static,
        F: FnMut(&mut S, &Moment) -> Result<(T, Vec<S::Change>), S::Error> + Send + 'static,
    {
        let (job, answer) = Write::queued(operation);
        if self.queue.blocking_send(Message::Write(job)).is_err() {
            return Err(stopping::<S>());
        }
        answer
            .blocking_recv()
            .unwrap_or_else(|_| Err(stopping::<S>()))
    }

    /// Takes the store over and reads it again, for a process that loaded while its predecessor still wrote. Returns
    /// the revision then current.
    ///
    /// # Errors
    ///
    /// A failure when the predecessor does not let go, or the store cannot be read; the entities stay as they are.
    pub async fn refresh(&self) -> Result<u64, S::Error> {
        let (answer, receiver) = oneshot::channel();
        if self.queue.send(Message::Refresh(answer)).await.is_err() {
            return Err(stopping::<S>());
        }
        match receiver.await {
            Ok(result) => result.map_err(S::failure),
            Err(_) => Err(stopping::<S>()),
        }
    }

    /// Finishes the writes that are queued, then lets go of the store. Later writes are refused. Blocks.
    pub fn stop(&self) {
        // A full queue drains by itself, so this ends. Inside an async context blocking is the caller's choice.
        let mut message = Message::Stop;
        while let Err(mpsc::error::TrySendError::Full(back)) = self.queue.try_send(message) {
            message = back;
            std::thread::sleep(STOP_RETRY);
        }
        if let Some(writer) = self.writer.lock().take() {
            // It catches panics of operations; should it have died all the same, there is nothing left to wait for.
            let _ = writer.join();
        }
    }
}

impl<S: Entities> Drop for ControlPlane<S> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why a control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored row cannot be read.
    #[error("store '{store}', revision {revision}: {reason}")]
    Row {
        /// The store.
        store: String,
        /// What it was at.
        revision: u64,
        /// Which row, and why.
        reason: String,
    },
    /// The system refused a thread.
    #[error("cannot start a control thread")]
    Thread(#[source] std::io::Error),
}

fn restore<S: Entities>(contents: &Contents, name: &str) -> Result<S, StartError> {
    S::restore(&contents.rows).map_err(|reason| StartError::Row {
        store: name.to_owned(),
        revision: contents.revision,
        reason,
    })
}

fn stopping<S: Entities>() -> S::Error {
    S::failure("the control plane is stopping".to_owned())
}

/// Hands other nodes' commits to the writer until either end is gone.
fn forward_news<S: Entities>(mut watch: Watch, queue: &mpsc::WeakSender<Message<S>>) {
    loop {
        let news = watch.next(WATCH_PATIENCE);
        let Some(queue) = queue.upgrade() else { return };
        match news {
            Ok(None) => {}
            Ok(Some(news)) => {
                if queue.blocking_send(Message::News(news)).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// The writer thread's own things.
struct Writer<S: Entities> {
    current: Arc<ArcSwap<Committed<S>>>,
    store: Arc<dyn Store>,
    subscriber: Subscriber<S>,
}

impl<S: Entities> Writer<S> {
    fn serve(self, mut inbox: mpsc::Receiver<Message<S>>) {
        let mut stopped = false;
        while !stopped && let Some(first) = inbox.blocking_recv() {
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Write(job) => batch.push(job),
                    // What is not a write keeps its place in the order.
                    Message::News(news) => {
                        self.commit(std::mem::take(&mut batch));
                        self.hear(news);
                    }
                    Message::Refresh(answer) => {
                        self.commit(std::mem::take(&mut batch));
                        let _ = answer.send(self.take_over());
                    }
                    Message::Stop => {
                        stopped = true;
                        break;
                    }
                }
                if batch.len() < BATCH_MAX {
                    next = inbox.try_recv().ok();
                }
            }
            self.commit(batch);
        }
        inbox.close();
        while let Ok(message) = inbox.try_recv() {
            if let Message::Write(job) = message {
                job.fail("the control plane is stopping");
            }
        }
        self.store.close();
    }

    /// Runs, stores, publishes and answers a batch.
    fn commit(&self, mut batch: Vec<Box<dyn Job<S>>>) {
        if batch.is_empty() {
            return;
        }
        let outcome = self.try_commit(&mut batch);
        for job in batch {
            match &outcome {
                Ok(revision) => job.answer(*revision),
                Err(reason) => job.fail(reason),
            }
        }
    }

    fn try_commit(&self, batch: &mut [Box<dyn Job<S>>]) -> Result<u64, String> {
        for attempt in 0..CONFLICTS_MAX {
            let base = self.current.load_full();
            let moment = Moment {
                now: SystemTime::now(),
            };
            let mut draft = S::clone(&base.entities);
            let mut changes = ChangeSet::default();
            for job in batch.iter_mut() {
                let mut trial = draft.clone();
                if let Some(made) = job.run(&mut trial, &moment) {
                    draft = trial;
                    changes.add(made);
                }
            }
            if changes.is_empty() {
                return Ok(base.revision);
            }
            match self.store.commit(base.revision, &changes.edits()) {
                Ok(revision) => {
                    self.publish(revision, Arc::new(draft), changes.into_vec());
                    return Ok(revision);
                }
                Err(StoreError::Conflict { .. }) => {
                    self.reload()?;
                    let longest = (CONFLICT_PAUSE * (1 << attempt)).min(CONFLICT_PAUSE_MAX);
                    // Random, or nodes in step would stay in step.
                    std::thread::sleep(longest.mul_f64(rand::random()));
                }
                Err(error) => {
                    let reason = with_causes(&error);
                    tracing::error!(error = %reason, "cannot store a change, nothing was changed");
                    return Err(reason);
                }
            }
        }
        Err(format!(
            "other nodes kept committing first, gave up after {CONFLICTS_MAX} attempts"
        ))
    }

    fn hear(&self, news: News) {
        let base = self.current.load_full();
        let (revision, edits) = match news {
            // Our own commits come back too.
            News::Committed { revision, .. } if revision <= base.revision => return,
            News::Committed { revision, edits } => (revision, edits),
            News::Reload => {
                // Logged there; the next commit will conflict and try again.
                let _ = self.reload();
                return;
            }
        };
        let mut entities = S::clone(&base.entities);
        match entities.absorb(&edits) {
            Ok(changes) => self.publish(revision, Arc::new(entities), changes),
            Err(reason) => tracing::error!(
                revision,
                reason,
                "cannot read another node's change, serving without it"
            ),
        }
    }

    fn take_over(&self) -> Result<u64, String> {
        self.store.claim().map_err(|error| with_causes(&error))?;
        self.reload()
    }

    fn reload(&self) -> Result<u64, String> {
        let load = || -> Result<(u64, S), String> {
            let contents = self.store.load().map_err(|error| with_causes(&error))?;
            let entities = S::restore(&contents.rows)?;
            Ok((contents.revision, entities))
        };
        let (revision, entities) = load().inspect_err(|reason| {
            tracing::error!(error = %reason, "cannot read the store again");
        })?;
        let base = self.current.load_full();
        if revision > base.revision {
            let changes = S::difference(&base.entities, &entities);
            self.publish(revision, Arc::new(entities), changes);
        }
        Ok(self.current.load().revision)
    }

    fn publish(&self, revision: u64, entities: Arc<S>, changes: Vec<S::Change>) {
        self.current.store(Arc::new(Committed {
            revision,
            entities: entities.clone(),
        }));
        (self.subscriber)(Publication {
            revision,
            entities,
            changes,
        });
    }
}

/// An error with everything that caused it, as one line.
fn with_causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
