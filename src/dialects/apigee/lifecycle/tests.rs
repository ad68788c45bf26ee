#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use super::*;

fn stamp(now: i64) -> Stamp {
    Stamp::new(now, "ann")
}

fn bundle(name: &str) -> BundleName {
    BundleName {
        organization: "o".to_owned(),
        kind: BundleKind::Proxy,
        name: name.to_owned(),
    }
}

fn proxy(path: &str, hosts: &str) -> Files {
    let text = format!(
        "<ProxyEndpoint name='default'><HTTPProxyConnection><BasePath>{path}</BasePath>{hosts}\
         </HTTPProxyConnection></ProxyEndpoint>"
    );
    Files::from_iter([("proxies/default.xml".into(), text.as_bytes().into())])
}

fn order(revision: u32, replaces: bool) -> Order {
    Order {
        environment: "test".to_owned(),
        revision,
        replaces,
        delay_seconds: 0,
        base_path: "/".to_owned(),
    }
}

fn set() -> EntitySet {
    let mut set = EntitySet::new();
    found(
        &mut set,
        "o",
        &["test".to_owned(), "prod".to_owned()],
        &stamp(0),
    );
    set
}

fn imported(set: &mut EntitySet, name: &str, files: &Files) -> u32 {
    import(set, &bundle(name), files, &stamp(1)).unwrap().0
}

#[test]
fn revisions_grow_and_numbers_are_not_given_twice() {
    let mut set = set();
    let files = proxy("/x", "");
    assert_eq!(imported(&mut set, "p", &files), 1);
    assert_eq!(imported(&mut set, "p", &files), 2);
    delete_revision(&mut set, &bundle("p"), 2).unwrap();
    assert_eq!(imported(&mut set, "p", &files), 3);
    assert_eq!(set.revisions("o", BundleKind::Proxy, "p"), [1, 3]);
    assert_eq!(set.files("o", BundleKind::Proxy, "p", 3), files);
    assert!(import(&mut set, &bundle("../p"), &files, &stamp(1)).is_err());
    let missing = delete_revision(&mut set, &bundle("q"), 1).unwrap_err();
    assert_eq!(missing.status, 404);
    assert_eq!(
        missing.message,
        "APIProxy named q does not exist in organization o"
    );
}

#[test]
fn a_taken_path_is_refused_unless_a_revision_takes_over() {
    let mut set = set();
    imported(&mut set, "p", &proxy("/x", ""));
    imported(&mut set, "p", &proxy("/x/", ""));
    imported(
        &mut set,
        "q",
        &proxy("x", "<VirtualHost>secure</VirtualHost>"),
    );
    imported(
        &mut set,
        "r",
        &proxy("/x", "<VirtualHost>other</VirtualHost>"),
    );
    deploy(&mut set, &bundle("p"), &order(1, false), &stamp(1)).unwrap();
    let told = |result: Result<(Deployment, Vec<Change>), ApiError>| result.unwrap_err().message;
    assert_eq!(
        told(deploy(&mut set, &bundle("p"), &order(2, false), &stamp(1))),
        "Path /x conflicts with existing deployment path for revision 1 of the APIProxy p in environment test"
    );
    let taken = told(deploy(&mut set, &bundle("q"), &order(1, true), &stamp(1)));
    assert!(taken.contains("revision 1 of the APIProxy p"), "{taken}");
    let unknown = told(deploy(&mut set, &bundle("r"), &order(1, true), &stamp(1)));
    assert!(unknown.contains("VirtualHost named other"), "{unknown}");
    let prefixed = Order {
        base_path: "/v1".to_owned(),
        ..order(1, false)
    };
    deploy(&mut set, &bundle("q"), &prefixed, &stamp(1)).unwrap();
    deploy(&mut set, &bundle("p"), &order(2, true), &stamp(1)).unwrap();
    let running = |set: &EntitySet| -> Vec<u32> {
        let running = set.deployed(&["o", "test", "apis", "p"]);
        running.iter().map(|deployed| deployed.revision).collect()
    };
    assert_eq!(running(&set), [2]);
    let again = deploy(&mut set, &bundle("p"), &order(2, false), &stamp(9)).unwrap();
    assert!(again.1.is_empty());
    let elsewhere = Order {
        environment: "prod".to_owned(),
        ..order(1, false)
    };
    deploy(&mut set, &bundle("p"), &elsewhere, &stamp(1)).unwrap();
    let nowhere = Order {
        environment: "none".to_owned(),
        ..order(1, false)
    };
    let missing = deploy(&mut set, &bundle("p"), &nowhere, &stamp(1)).unwrap_err();
    assert_eq!(missing.status, 404);
}

#[test]
fn a_replaced_revision_stays_listed_for_the_delay() {
    let mut set = set();
    imported(&mut set, "p", &proxy("/x", ""));
    imported(&mut set, "p", &proxy("/x", ""));
    deploy(&mut set, &bundle("p"), &order(1, false), &stamp(1)).unwrap();
    let delayed = Order {
        delay_seconds: 2,
        ..order(2, true)
    };
    deploy(&mut set, &bundle("p"), &delayed, &stamp(1_000)).unwrap();
    assert_eq!(set.deployed(&["o"]).len(), 1);
    assert_eq!(set.list(Kind::Deployment, &["o"]).count(), 2);
    assert!(remove_retired_by(&mut set, 2_999).is_empty());
    assert_eq!(remove_retired_by(&mut set, 3_000).len(), 1);
    assert_eq!(set.list(Kind::Deployment, &["o"]).count(), 1);
}

#[test]
fn what_runs_cannot_be_deleted() {
    let mut set = set();
    imported(&mut set, "p", &proxy("/x", ""));
    deploy(&mut set, &bundle("p"), &order(1, false), &stamp(1)).unwrap();
    assert_eq!(delete(&mut set, &bundle("p")).unwrap_err().status, 400);
    assert_eq!(
        delete_revision(&mut set, &bundle("p"), 1)
            .unwrap_err()
            .status,
        400
    );
    undeploy(&mut set, &bundle("p"), "test", 1).unwrap();
    let not = undeploy(&mut set, &bundle("p"), "test", 1).unwrap_err();
    assert_eq!(not.code, "distribution.RevisionNotDeployed");
    let before = set.len();
    assert_eq!(delete(&mut set, &bundle("p")).unwrap().len(), 3);
    assert_eq!(set.len(), before - 3);
}

#[test]
fn pieces_are_judged_alone() {
    for (piece, text, told) in [
        (Piece::Policy, "<AssignMessage name='A b'/>", None),
        (
            Piece::Policy,
            "<AssignMessage/>",
            Some("f.xml:1: AssignMessage has no name"),
        ),
        (Piece::Policy, "<A name='a/b'/>", Some("may hold 1 to 255")),
        (
            Piece::Target,
            "<ProxyEndpoint name='x'/>",
            Some("expected TargetEndpoint"),
        ),
        (Piece::Proxy, "<ProxyEndpoint name='x'>", Some("f.xml:1:")),
    ] {
        match (judge_piece(piece, "f.xml", text.as_bytes()), told) {
            (Ok(_), None) => {}
            (Err(finding), Some(told)) => assert!(finding.contains(told), "{finding}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let twice = Files::from_iter([
        ("policies/a.xml".into(), b"<A name='x'/>"[..].into()),
        ("policies/b.xml".into(), b"<B name='x'/>"[..].into()),
    ]);
    let told = judge_files(BundleKind::Proxy, &twice, true);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(judge_files(BundleKind::Proxy, &twice, false).len(), 1);
}
