#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::super::store::embedded::{EmbeddedStore, Ownership};
use super::super::store::memory::MemoryStore;
use super::super::store::{Edit, Row};
use super::super::toy::{Toy, ToyChange};
use super::*;

fn plane(store: Arc<dyn Store>) -> (ControlPlane<Toy>, Receiver<Publication<Toy>>) {
    let (sender, receiver) = channel();
    let subscriber: Subscriber<Toy> = Box::new(move |publication| {
        let _ = sender.send(publication);
    });
    (ControlPlane::start(store, subscriber).unwrap(), receiver)
}

fn set(plane: &ControlPlane<Toy>, id: u128, text: &'static str) -> Result<u64, String> {
    plane
        .write_blocking(move |toys, _| Ok(((), toys.set(id, text)?)))
        .map(|((), revision)| revision)
}

/// A store whose commits wait for a gate and may fail.
struct Gated {
    inner: MemoryStore,
    gate: Mutex<()>,
    fails: AtomicBool,
    commits: AtomicUsize,
}

impl Gated {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::forgetful(),
            gate: Mutex::new(()),
            fails: AtomicBool::new(false),
            commits: AtomicUsize::new(0),
        })
    }
}

impl Store for Gated {
    fn load(&self) -> Result<Contents, StoreError> {
        self.inner.load()
    }
    fn commit(&self, expected: u64, edits: &[Edit]) -> Result<u64, StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let _gate = self.gate.lock();
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Closed {
                path: "disk".to_owned(),
            });
        }
        self.inner.commit(expected, edits)
    }
    fn watch(&self, _from: u64) -> Option<Watch> {
        None
    }
    fn node_id(&self) -> Uuid {
        self.inner.node_id()
    }
    fn name(&self) -> &'static str {
        "gated"
    }
}

#[test]
fn a_write_is_seen_published_and_stored() {
    let prefix = tempfile::tempdir().unwrap();
    let open = || Arc::new(EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap());
    let (first, published) = plane(open());
    assert_eq!(published.recv().unwrap().changes, []);
    assert_eq!(set(&first, 1, "a"), Ok(1));
    assert_eq!(first.read().text(1), Some("a"));
    let told = published.recv().unwrap();
    assert_eq!((told.revision, told.changes.len()), (1, 1));
    drop(first);
    let (second, published) = plane(open());
    assert_eq!(second.read().text(1), Some("a"));
    let told = published.recv().unwrap();
    assert_eq!(
        told.changes,
        [ToyChange {
            id: Uuid::from_u128(1),
            before: None,
            after: Some("a".into())
        }]
    );
}

#[test]
fn a_refused_write_leaves_nothing() {
    let (plane, published) = plane(Arc::new(MemoryStore::forgetful()));
    published.recv().unwrap();
    assert_eq!(set(&plane, 1, "refuse"), Err("refused".to_owned()));
    assert_eq!(plane.read().text(1), None);
    assert!(published.try_recv().is_err());
    assert_eq!(plane.committed().revision, 0);
}

#[test]
fn a_panicking_write_is_a_failure_and_the_next_one_works() {
    let (plane, _published) = plane(Arc::new(MemoryStore::forgetful()));
    let result = plane.write_blocking(|toys, _| -> Result<((), Vec<ToyChange>), String> {
        toys.set(1, "half")?;
        panic!("a bug")
    });
    assert!(result.unwrap_err().starts_with("failure: "));
    assert_eq!(set(&plane, 2, "b"), Ok(1));
    assert_eq!(plane.read().text(1), None);
}

#[test]
fn writes_that_wait_share_a_commit() {
    let store = Gated::new();
    let (plane, _published) = plane(store.clone());
    let gate = store.gate.lock();
    let revisions: Vec<u64> = std::thread::scope(|scope| {
        let write = |id: u128| set(&plane, id, "x").unwrap();
        let first = scope.spawn(move || write(0));
        // The first commit hangs at the gate; the rest gathers behind it.
        while store.commits.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let rest: Vec<_> = (1..=20).map(|id| scope.spawn(move || write(id))).collect();
        while plane.queue.capacity() > QUEUE_MAX - 20 {
            std::thread::yield_now();
        }
        drop(gate);
        let all = std::iter::once(first).chain(rest);
        all.map(|write| write.join().unwrap()).collect()
    });
    assert_eq!(revisions[0], 1);
    assert_eq!(revisions[1..], [2; 20]);
    assert_eq!(store.commits.load(Ordering::SeqCst), 2);
    assert_eq!(plane.read().0.len(), 21);
}

#[test]
fn a_failed_commit_changes_nothing_and_fails_everyone() {
    let store = Gated::new();
    let (plane, published) = plane(store.clone());
    published.recv().unwrap();
    store.fails.store(true, Ordering::SeqCst);
    let refused = set(&plane, 1, "a").unwrap_err();
    assert!(refused.starts_with("failure: disk: closed"), "{refused}");
    assert_eq!(plane.read().text(1), None);
    assert!(published.try_recv().is_err());
    store.fails.store(false, Ordering::SeqCst);
    assert_eq!(set(&plane, 1, "b"), Ok(1));
}

#[test]
fn planes_that_share_a_store_see_each_other_and_lose_nothing() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::shared());
    let (left, left_told) = plane(store.clone());
    let (right, right_told) = plane(store.clone());
    let count = |plane: &ControlPlane<Toy>| {
        for _ in 0..50 {
            let add = plane.write_blocking(|toys: &mut Toy, _| {
                let count: u32 = toys.text(1).map_or(0, |text| text.parse().unwrap());
                Ok(((), toys.set(1, &(count + 1).to_string())?))
            });
            add.unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| count(&left));
        scope.spawn(|| count(&right));
    });
    for told in [left_told, right_told] {
        let mut seen = 0;
        // Every plane is told of everything, in order, and ends up with the whole sum.
        let last = told
            .iter()
            .inspect(|told| {
                assert!(told.revision >= seen);
                seen = told.revision;
            })
            .find(|told| told.entities.text(1) == Some("100"));
        assert!(last.is_some());
    }
}

#[test]
fn a_successor_takes_over_what_its_predecessor_still_wrote() {
    let prefix = tempfile::tempdir().unwrap();
    let (old, _) = plane(Arc::new(
        EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap(),
    ));
    let (new, _) = plane(Arc::new(
        EmbeddedStore::open(prefix.path(), Ownership::Follow).unwrap(),
    ));
    assert_eq!(set(&old, 1, "late"), Ok(1));
    assert_eq!(new.read().text(1), None);
    old.stop();
    assert!(set(&old, 2, "too late").is_err());
    assert_eq!(set(&new, 2, "mine"), Ok(2));
    assert_eq!(new.read().text(1), Some("late"));
}

#[tokio::test]
async fn a_refreshed_successor_reads_on_and_owns_the_store() {
    let prefix = tempfile::tempdir().unwrap();
    let open = |ownership| Arc::new(EmbeddedStore::open(prefix.path(), ownership).unwrap());
    let (old, _) = plane(open(Ownership::Own));
    let (new, _) = plane(open(Ownership::Follow));
    let written = old.write(|toys, _| Ok(((), toys.set(1, "late")?))).await;
    assert_eq!(written, Ok(((), 1)));
    tokio::task::spawn_blocking(move || old.stop())
        .await
        .unwrap();
    assert_eq!(new.refresh().await, Ok(1));
    assert_eq!(new.read().text(1), Some("late"));
    assert!(EmbeddedStore::open(prefix.path(), Ownership::Own).is_err());
}

#[test]
fn an_unreadable_row_stops_the_start() {
    #[derive(Debug, Clone, Default)]
    struct Picky;
    impl Entities for Picky {
        type Change = ToyChange;
        type Error = String;
        fn restore(_: &[Row]) -> Result<Self, String> {
            Err("routes 1: no JSON".to_owned())
        }
        fn absorb(&mut self, _: &[Edit]) -> Result<Vec<ToyChange>, String> {
            Ok(Vec::new())
        }
        fn difference(_: &Self, _: &Self) -> Vec<ToyChange> {
            Vec::new()
        }
        fn failure(reason: String) -> String {
            reason
        }
    }
    let store = Arc::new(MemoryStore::forgetful());
    let refused = ControlPlane::<Picky>::start(store, Box::new(|_| {}));
    let text = refused.map(|_| ()).unwrap_err().to_string();
    assert_eq!(text, "store 'off', revision 0: routes 1: no JSON");
}
