#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::sync::Barrier;

use super::super::plane::ControlPlane;
use super::super::store::memory::MemoryStore;
use super::super::toy::{Toy, ToyChange};
use super::*;

/// What was built: the revision, and the changes of each build so far.
type Built = (u64, Vec<Vec<ToyChange>>);

fn builder(
    mut observe: impl FnMut(&Toy, &Toy, &[ToyChange]) + Send + 'static,
) -> Builder<Toy, Built> {
    let builds = Arc::new(Mutex::new(Vec::new()));
    let seen = builds.clone();
    let compile: Compile<Toy> = Box::new(move |before, after, changes| {
        observe(before, after, changes);
        seen.lock().push(changes.to_vec());
        (PlanDelta::default(), Vec::new())
    });
    let link: Link<Built> =
        Box::new(move |_, revision| (Arc::new((revision, builds.lock().clone())), Vec::new()));
    Builder::start(
        compile,
        link,
        Arc::new(ArcSwap::from_pointee((0, Vec::new()))),
    )
    .unwrap()
}

fn publication(revision: u64, id: u128, before: Option<&str>, after: &str) -> Publication<Toy> {
    let mut entities = Toy::default();
    entities.set(id, after).unwrap();
    Publication {
        revision,
        entities: Arc::new(entities),
        changes: vec![ToyChange {
            id: uuid::Uuid::from_u128(id),
            before: before.map(Into::into),
            after: Some(after.into()),
        }],
    }
}

#[tokio::test]
async fn what_a_plane_commits_serves() {
    let builder = builder(|_, _, _| {});
    let store = Arc::new(MemoryStore::forgetful());
    let plane = ControlPlane::start(store, builder.subscriber()).unwrap();
    let ((), revision) = plane
        .write(|toys: &mut Toy, _| Ok(((), toys.set(1, "a")?)))
        .await
        .unwrap();
    assert!(builder.serves(revision).await);
    assert_eq!(builder.snapshots().load().0, revision);
    assert_eq!(*builder.served().borrow(), Some(revision));
}

#[tokio::test]
async fn commits_during_a_build_become_one() {
    let barrier = Arc::new(Barrier::new(2));
    let inside = barrier.clone();
    let mut first = true;
    let builder = builder(move |_, _, _| {
        if std::mem::take(&mut first) {
            inside.wait();
            inside.wait();
        }
    });
    let publish = builder.subscriber();
    publish(publication(1, 1, None, "a"));
    barrier.wait();
    publish(publication(2, 1, Some("a"), "b"));
    publish(publication(3, 1, Some("b"), "c"));
    barrier.wait();
    assert!(builder.serves(3).await);
    let snapshot = builder.snapshots().load_full();
    assert_eq!(snapshot.1.len(), 2);
    let merged = &snapshot.1[1][0];
    assert_eq!(merged.before.as_deref(), Some("a"));
    assert_eq!(merged.after.as_deref(), Some("c"));
}

#[tokio::test]
async fn a_panic_keeps_what_serves_and_the_next_build_makes_up_for_it() {
    let builder = builder(|before, _, changes| {
        assert!(
            changes.len() != 1
                || before.text(1).is_some()
                || changes[0].after.as_deref() != Some("bug")
        );
    });
    let publish = builder.subscriber();
    publish(publication(1, 1, None, "bug"));
    // Either merged while pending or taken along afterwards: both changes end up in the build that works.
    publish(publication(2, 2, None, "good"));
    assert!(builder.serves(2).await);
    let snapshot = builder.snapshots().load_full();
    assert_eq!(snapshot.1.last().unwrap().len(), 2);
}
