#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use super::*;
use crate::dialects::apigee::entities::*;

fn server(name: &str) -> TargetServer {
    TargetServer {
        name: name.to_owned(),
        host: "h.test".to_owned(),
        port: 80,
        is_enabled: true,
        tls: None,
        stamp: Stamp::default(),
    }
}

#[test]
fn lists_are_ranges_below_their_parent() {
    let mut set = EntitySet::new();
    for (environment, name) in [
        ("test", "b"),
        ("test", "a"),
        ("prod", "c"),
        ("testing", "d"),
    ] {
        set.put(&["o", environment, name], &server(name));
    }
    let names = |below: &[&str]| -> Vec<String> {
        let rows = set.list(Kind::TargetServer, below);
        rows.map(|row| row.name().to_owned()).collect()
    };
    assert_eq!(names(&["o", "test"]), ["a", "b"]);
    assert_eq!(names(&["o"]), ["c", "a", "b", "d"]);
    assert_eq!(names(&["p"]), Vec::<String>::new());
    assert_eq!(
        set.find::<TargetServer>(&["o", "test", "a"]),
        Some(server("a"))
    );
    assert_eq!(set.find::<Cache>(&["o", "test", "a"]), None);
}

#[test]
fn rows_survive_the_store_and_ids_are_stable() {
    let mut set = EntitySet::new();
    let change = set.put(&["o", "test", "a"], &server("a"));
    let row = change.after.unwrap();
    let again = Row::from_stored(row.kind, row.id, row.json.clone()).unwrap();
    assert_eq!(*row, again);
    assert_eq!(row.id, Key::of(&["o", "test", "a"]).id(Kind::TargetServer));
    assert_ne!(row.id, Key::of(&["o", "test\0a"]).id(Kind::Cache));
    assert!(Row::from_stored(row.kind, row.id, "[]".into()).is_err());
}

#[test]
fn aliases_follow_their_entity() {
    let mut set = EntitySet::new();
    let mut developer = Developer {
        developer_id: "d1".to_owned(),
        email: "Ann@Test.example".to_owned(),
        first_name: "A".to_owned(),
        last_name: "B".to_owned(),
        user_name: "ann".to_owned(),
        status: "active".to_owned(),
        attributes: Vec::new(),
        stamp: Stamp::default(),
    };
    set.put(&["o", "d1"], &developer);
    let found = |set: &EntitySet, email: &str| {
        set.by_alias(Kind::Developer, "o", email)
            .map(|row| row.name().to_owned())
    };
    assert_eq!(found(&set, "ann@test.example").as_deref(), Some("d1"));
    developer.email = "new@test.example".to_owned();
    set.put(&["o", "d1"], &developer);
    assert_eq!(found(&set, "ann@test.example"), None);
    assert_eq!(found(&set, "new@test.example").as_deref(), Some("d1"));
    set.remove(Kind::Developer, &["o", "d1"]);
    assert_eq!(found(&set, "new@test.example"), None);
}

#[test]
fn differences_are_what_was_written() {
    let mut before = EntitySet::new();
    before.put(&["o", "test", "a"], &server("a"));
    before.put(&["o", "test", "b"], &server("b"));
    let mut after = before.clone();
    let changed = after.put(&["o", "test", "c"], &server("c"));
    let removed = after
        .remove(Kind::TargetServer, &["o", "test", "a"])
        .unwrap();
    let mut difference = EntitySet::difference(&before, &after);
    difference.sort_by(|one, two| one.key.cmp(&two.key));
    assert_eq!(difference, [removed, changed]);
    assert_eq!(after.remove_below(Kind::TargetServer, &["o"]).len(), 2);
    assert!(after.is_empty());
}

#[test]
fn bundles_are_read_whole() {
    let mut set = EntitySet::new();
    let revision = ["o", "apis", "p", "10"];
    set.put(&revision, &Revision::default());
    set.put(&["o", "apis", "p", "9"], &Revision::default());
    set.put(
        &["o", "apis", "p", "10", "proxies/default.xml"],
        &RevisionFile::of(b"<ProxyEndpoint/>"),
    );
    assert_eq!(set.revisions("o", BundleKind::Proxy, "p"), [9, 10]);
    let files = set.files("o", BundleKind::Proxy, "p", 10);
    assert_eq!(files.len(), 1);
    assert_eq!(&*files["proxies/default.xml"], b"<ProxyEndpoint/>");
    assert!(set.files("o", BundleKind::Proxy, "p", 1).is_empty());
    let mut deployment = Deployment {
        base_path: "/".to_owned(),
        retires_at_ms: None,
        stamp: Stamp::default(),
    };
    set.put(&["o", "test", "apis", "p", "10"], &deployment);
    deployment.retires_at_ms = Some(1);
    set.put(&["o", "test", "apis", "p", "9"], &deployment);
    let deployed = set.deployed(&["o", "test"]);
    assert_eq!(deployed.len(), 1);
    assert_eq!(deployed[0].revision, 10);
}
