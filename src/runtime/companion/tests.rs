#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use super::*;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Listens on the socket  and ends with its input.
const SERVER: &str = "import os, socket, sys, threading\n\
    s = socket.socket(socket.AF_UNIX)\n\
    s.bind(os.environ['SALLYPORT_SOCKET'])\n\
    s.listen()\n\
    print(open('data/x.txt').read(), sys.argv[1], os.environ['GIVEN'], os.environ.get('HOME'))\n\
    sys.stdin.read()\n";

fn spec(program: &str) -> ProgramSpec {
    ProgramSpec {
        name: "test".to_owned(),
        program: program.to_owned(),
        arguments: vec!["server.py".to_owned(), "argument".to_owned()],
        environment: vec![("GIVEN".to_owned(), "value".to_owned())],
        files: vec![
            ("server.py".to_owned(), SERVER.into()),
            ("data/x.txt".to_owned(), "text".into()),
        ],
    }
}

async fn gone(path: &Path) {
    let until = tokio::time::Instant::now() + LONG;
    while path.exists() {
        assert!(tokio::time::Instant::now() < until, "{}", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_serves_until_nobody_uses_it() {
    let live = Live::default();
    let companions = Companions::of(&live);
    companions.start(&Handle::current());
    let first = companions.companion(&live, "a", || spec("python3"));
    let socket = first.ready(LONG).await.expect("a socket");
    let second = companions.companion(&live, "a", || panic!("it runs already"));
    assert_eq!(second.ready(LONG).await.as_deref(), Some(&*socket));
    drop(first);
    tokio::net::UnixStream::connect(&socket).await.unwrap();
    drop(second);
    gone(socket.parent().unwrap()).await;
}

#[tokio::test]
async fn a_program_that_ends_is_started_again() {
    let live = Live::default();
    let companions = Companions::of(&live);
    companions.start(&Handle::current());
    // The first time it makes a mark and ends; the second time it serves.
    let program = format!(
        "import os, sys\nif not os.path.exists('mark'):\n    open('mark', 'w').close()\n    sys.exit(3)\n{SERVER}"
    );
    let mut spec = spec("python3");
    spec.files[0].1 = program.into();
    let companion = companions.companion(&live, "a", || spec);
    let socket = companion.ready(LONG).await.expect("a socket");
    assert!(socket.with_file_name("mark").exists());
}

#[tokio::test]
async fn what_cannot_run_is_never_ready() {
    let live = Live::default();
    let companions = Companions::of(&live);
    let idle = companions.companion(&live, "no runtime", || panic!("not started"));
    assert_eq!(idle.ready(Duration::from_millis(1)).await, None);
    companions.start(&Handle::current());
    let missing = companions.companion(&live, "missing", || spec("/no/such/program"));
    assert_eq!(missing.ready(Duration::from_millis(50)).await, None);
    let mut outside = spec("python3");
    outside.files.push(("../x".to_owned(), "x".into()));
    let outside = companions.companion(&live, "outside", || outside);
    assert_eq!(outside.ready(Duration::from_millis(50)).await, None);
}
