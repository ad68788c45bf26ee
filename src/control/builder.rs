//! From commits to what serves: one thread that compiles what changed, links it, and publishes the snapshot.
//!
//! Commits that arrive while a build runs wait together and become one build, so a stream of writes never queues up
//! behind the builder. What is pending is one change per entity at most: it cannot grow beyond the entity set.
//!
//! A finding about one entity does not stop the rest: it is logged, and that entity does not serve.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::entities::{ChangeSet, Entities};
use super::plane::{Publication, Subscriber};
use crate::model::Diagnostic;
use crate::model::plan::PlanDelta;

/// Findings of one build that are logged one by one.
const FINDINGS_LOGGED_MAX: usize = 50;

/// Compiles what `changes` touch, from the entities before and after them. Pure.
pub type Compile<S> = Box<
    dyn FnMut(&S, &S, &[<S as Entities>::Change]) -> (PlanDelta, Vec<Diagnostic>) + Send + 'static,
>;

/// Links a delta onto everything linked before; the result contains the given revision.
pub type Link<N> = Box<dyn FnMut(&PlanDelta, u64) -> (Arc<N>, Vec<Diagnostic>) + Send + 'static>;

/// The builder; see the module. `N` is the snapshot. Dropping it ends the thread after the build under way.
pub struct Builder<S: Entities, N> {
    pending: Arc<Pending<S>>,
    snapshots: Arc<ArcSwap<N>>,
    served: watch::Receiver<Option<u64>>,
    thread: Option<JoinHandle<()>>,
}

struct Pending<S: Entities> {
    inner: Mutex<Inner<S>>,
    arrived: Condvar,
}

struct Inner<S: Entities> {
    changes: ChangeSet<S::Change>,
    newest: Option<(u64, Arc<S>)>,
    stopped: bool,
}

impl<S: Entities, N: Send + Sync + 'static> Builder<S, N> {
    /// Starts the thread; it waits for the first publication. `snapshots` holds what serves until then.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn start(
        compile: Compile<S>,
        link: Link<N>,
        snapshots: Arc<ArcSwap<N>>,
    ) -> std::io::Result<Self> {
        let pending = Arc::new(Pending {
            inner: Mutex::new(Inner {
                changes: ChangeSet::default(),
                newest: None,
                stopped: false,
            }),
            arrived: Condvar::new(),
        });
        let (announce, served) = watch::channel(None);
        let thread = Thread {
            pending: pending.clone(),
            compile,
            link,
            snapshots: snapshots.clone(),
            announce,
            built: Arc::new(S::default()),
            unbuilt: ChangeSet::default(),
        };
        let thread = std::thread::Builder::new()
            .name("control-builder".to_owned())
            .spawn(move || thread.serve())?;
        Ok(Self {
            pending,
            snapshots,
            served,
            thread: Some(thread),
        })
    }

    /// What the control plane calls with every commit.
    pub fn subscriber(&self) -> Subscriber<S> {
        let pending = self.pending.clone();
        Box::new(move |publication| pending.add(publication))
    }

    /// The revision that serves, as it changes; `None` before the first build.
    pub fn served(&self) -> watch::Receiver<Option<u64>> {
        self.served.clone()
    }

    /// What serves.
    pub fn snapshots(&self) -> &Arc<ArcSwap<N>> {
        &self.snapshots
    }

    /// Waits until `revision` or a newer one serves. False when the builder is gone.
    pub async fn serves(&self, revision: u64) -> bool {
        let mut served = self.served.clone();
        served
            .wait_for(|served| served.is_some_and(|served| served >= revision))
            .await
            .is_ok()
    }
}

impl<S: Entities, N> Drop for Builder<S, N> {
    fn drop(&mut self) {
        self.pending.inner.lock().stopped = true;
        self.pending.arrived.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<S: Entities> Pending<S> {
    fn add(&self, publication: Publication<S>) {
        let mut inner = self.inner.lock();
        inner.changes.add(publication.changes);
        inner.newest = Some((publication.revision, publication.entities));
        self.arrived.notify_all();
    }

    /// Everything that arrived since the last call, once there is something; `None` to end.
    fn take(&self) -> Option<(u64, Arc<S>, ChangeSet<S::Change>)> {
        let mut inner = self.inner.lock();
        loop {
            if inner.stopped {
                return None;
            }
            if let Some((revision, entities)) = inner.newest.take() {
                return Some((revision, entities, std::mem::take(&mut inner.changes)));
            }
            self.arrived.wait(&mut inner);
        }
    }
}

struct Thread<S: Entities, N> {
    pending: Arc<Pending<S>>,
    compile: Compile<S>,
    link: Link<N>,
    snapshots: Arc<ArcSwap<N>>,
    announce: watch::Sender<Option<u64>>,
    /// What the newest snapshot was built from.
    built: Arc<S>,
    /// Changes of a build that failed; the next build takes them along.
    unbuilt: ChangeSet<S::Change>,
}

impl<S: Entities, N> Thread<S, N> {
    fn serve(mut self) {
        while let Some((revision, entities, changes)) = self.pending.take() {
            let mut all = std::mem::take(&mut self.unbuilt);
            let changes = if all.is_empty() {
                changes
            } else {
                all.add(changes.into_vec());
                all
            };
            self.build(revision, entities, changes.into_vec());
        }
    }

    fn build(&mut self, revision: u64, entities: Arc<S>, changes: Vec<S::Change>) {
        let started = Instant::now();
        let (compile, link, built) = (&mut self.compile, &mut self.link, &self.built);
        // A bug in compiling one configuration must not end all further ones: what serves goes on serving.
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let (delta, mut findings) = compile(built, &entities, &changes);
            let compiled = started.elapsed();
            let (snapshot, more) = link(&delta, revision);
            findings.extend(more);
            (snapshot, findings, compiled)
        }));
        let Ok((snapshot, findings, compiled)) = attempt else {
            tracing::error!(
                revision,
                changes = changes.len(),
                "a build panicked, the configuration before it goes on serving"
            );
            self.unbuilt.add(changes);
            return;
        };
        self.snapshots.store(snapshot);
        self.built = entities;
        self.announce.send_replace(Some(revision));
        report(&findings);
        tracing::debug!(
            revision,
            changes = changes.len(),
            compile_us = compiled.as_micros(),
            total_us = started.elapsed().as_micros(),
            "a new configuration serves"
        );
    }
}

fn report(findings: &[Diagnostic]) {
    for finding in findings.iter().take(FINDINGS_LOGGED_MAX) {
        match finding.is_error() {
            true => tracing::error!(code = finding.code, "{finding}"),
            false => tracing::warn!(code = finding.code, "{finding}"),
        }
    }
    if let Some(more) = findings.len().checked_sub(FINDINGS_LOGGED_MAX)
        && more > 0
    {
        tracing::warn!(more, "further findings are not shown");
    }
}

#[cfg(test)]
mod tests;
