#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

fn put(kind: &str, id: u128, json: &str) -> Edit {
    Edit {
        kind: kind.into(),
        id: Uuid::from_u128(id),
        json: Some(json.into()),
    }
}

fn delete(kind: &str, id: u128) -> Edit {
    Edit {
        kind: kind.into(),
        id: Uuid::from_u128(id),
        json: None,
    }
}

fn texts(store: &EmbeddedStore) -> Vec<(u128, String, u64)> {
    let mut rows: Vec<_> = store
        .load()
        .unwrap()
        .rows
        .into_iter()
        .map(|row| (row.id.as_u128(), row.json.to_string(), row.revision))
        .collect();
    rows.sort();
    rows
}

#[test]
fn keeps_rows_revision_and_node_id() {
    let prefix = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
    assert_eq!(store.load().unwrap(), Contents::default());
    let first = [put("routes", 1, "a"), put("routes", 2, "b")];
    assert_eq!(store.commit(0, &first).unwrap(), 1);
    let second = [
        put("routes", 1, "c"),
        delete("routes", 2),
        delete("routes", 9),
    ];
    assert_eq!(store.commit(1, &second).unwrap(), 2);
    let node_id = store.node_id();
    drop(store);
    let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
    assert_eq!(store.load().unwrap().revision, 2);
    assert_eq!(texts(&store), [(1, "c".to_owned(), 2)]);
    assert_eq!(store.node_id(), node_id);
}

#[test]
fn refuses_a_commit_computed_from_an_older_revision() {
    let prefix = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
    store.commit(0, &[put("routes", 1, "a")]).unwrap();
    let refused = store.commit(0, &[put("routes", 1, "b")]);
    assert!(matches!(
        refused,
        Err(StoreError::Conflict {
            expected: 0,
            found: 1
        })
    ));
    assert_eq!(texts(&store), [(1, "a".to_owned(), 1)]);
}

#[test]
fn one_process_owns_a_prefix_until_it_hands_over() {
    let prefix = tempfile::tempdir().unwrap();
    let old = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
    let refused = EmbeddedStore::open(prefix.path(), Ownership::Own)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&format!(
            "in use by another process (pid {})",
            std::process::id()
        )),
        "{refused}"
    );
    let new = EmbeddedStore::open(prefix.path(), Ownership::Follow).unwrap();
    assert_eq!(new.load().unwrap().revision, 0);
    old.commit(0, &[put("routes", 1, "a")]).unwrap();
    assert!(matches!(
        new.take_over(Duration::ZERO),
        Err(StoreError::HandOverPending { .. })
    ));
    old.close();
    assert!(matches!(
        old.commit(1, &[put("routes", 1, "late")]),
        Err(StoreError::Closed { .. })
    ));
    assert!(matches!(
        new.commit(0, &[put("routes", 1, "b")]),
        Err(StoreError::Conflict { found: 1, .. })
    ));
    assert_eq!(new.commit(1, &[put("routes", 1, "b")]).unwrap(), 2);
    assert_eq!(texts(&new), [(1, "b".to_owned(), 2)]);
}

#[test]
fn refuses_what_it_cannot_read_and_says_what_to_do() {
    type Prepare = fn(&Path);
    let garbage = |path: &Path| std::fs::write(path, "not a database at all ".repeat(99)).unwrap();
    let foreign = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch("PRAGMA application_id = 7; CREATE TABLE x (y);")
            .unwrap();
    };
    let newer = |path: &Path| {
        EmbeddedStore::open(path.parent().unwrap(), Ownership::Own).unwrap();
        let connection = Connection::open(path).unwrap();
        connection
            .execute("UPDATE meta SET value = 99 WHERE key = 'format'", [])
            .unwrap();
    };

    let cases: [(&str, Prepare); 3] = [
        ("damaged", garbage),
        ("not a store of this program", foreign),
        ("has store format 99, this program reads up to 1", newer),
    ];
    for (expected, prepare) in cases {
        let prefix = tempfile::tempdir().unwrap();
        prepare(&prefix.path().join(FILE_NAME));
        let refused = EmbeddedStore::open(prefix.path(), Ownership::Own)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(refused.contains(FILE_NAME), "{refused}");
    }
}

#[test]
fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let prefix = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
    let mode = std::fs::metadata(store.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

const CRASH_PREFIX: &str = "SALLYPORT_TEST_CRASH_PREFIX";

/// Runs only as a child of the next test: commits pairs of rows for ever and reports each commit.
#[test]
fn crash_child() {
    let Some(prefix) = std::env::var_os(CRASH_PREFIX) else {
        return;
    };
    let store = EmbeddedStore::open(Path::new(&prefix), Ownership::Own).unwrap();
    let mut revision = store.load().unwrap().revision;
    loop {
        let json = (revision + 1).to_string();
        let edits = [put("routes", 1, &json), put("routes", 2, &json)];
        revision = store.commit(revision, &edits).unwrap();
        writeln!(std::io::stdout(), "committed {revision}").unwrap();
    }
}

#[test]
fn a_kill_loses_nothing_answered_and_leaves_no_half_change() {
    let prefix = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "control::store::embedded::tests::crash_child",
                "--exact",
                "--nocapture",
            ])
            .env(CRASH_PREFIX, prefix.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let revisions =
            lines.filter_map(|line| line.ok()?.strip_prefix("committed ")?.parse().ok());
        answered = revisions.take(7 * round).last().unwrap_or(answered);
        child.kill().unwrap();
        child.wait().unwrap();
        let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
        let found = store.load().unwrap().revision;
        assert!(found >= answered, "answered {answered}, found {found}");
        let json = found.to_string();
        assert_eq!(
            texts(&store),
            [(1, json.clone(), found), (2, json, found)],
            "both rows of one commit"
        );
        answered = found;
    }
}

#[test]
fn a_copy_taken_in_the_middle_is_of_one_moment() {
    let prefix = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
    for revision in 0..20 {
        let json = (revision + 1).to_string();
        store
            .commit(
                revision,
                &[put("routes", 1, &json), put("routes", 2, &json)],
            )
            .unwrap();
    }
    // As if the machine had lost the tail of the log: whatever length survives, commits are whole.
    let log = std::fs::read(prefix.path().join(format!("{FILE_NAME}-wal"))).unwrap();
    for kept in (0..=log.len()).step_by(log.len() / 37 + 1) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(store.path(), copy.path().join(FILE_NAME)).unwrap();
        std::fs::write(
            copy.path().join(format!("{FILE_NAME}-wal")),
            log.get(..kept).unwrap(),
        )
        .unwrap();
        let copy = EmbeddedStore::open(copy.path(), Ownership::Own).unwrap();
        let found = copy.load().unwrap().revision;
        let json = found.to_string();
        match found {
            0 => assert_eq!(texts(&copy), []),
            _ => assert_eq!(texts(&copy), [(1, json.clone(), found), (2, json, found)]),
        }
    }
}
