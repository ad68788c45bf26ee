//! Documents and what they compile to, as text files anyone can read.
//!
//! A case is a file under `golden/DIALECT`: a document, a line of dashes, and the plan as JSON or what is wrong with the
//! document, one finding a line. `UPDATE_GOLDEN=1` writes the second part anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use sallyport::dialects::kong::compile::{Options, compile_all};
use sallyport::dialects::kong::declarative::{Document, Syntax, load};
use sallyport::dialects::kong::entities::{RouterFlavor, WriteContext};
use sallyport::plugins;
use uuid::Uuid;

/// Between the document and what it compiles to.
const DASHES: &str = "\n----------\n";
/// 2023-11-14, so that time stamps are the same at every run.
const NOW_MILLIS: i64 = 1_700_000_000_000;

#[test]
fn kong_documents() {
    check_folder("kong", compile_kong);
}

/// Compiles a declarative document. A first line `# router_flavor: NAME` chooses the flavour.
fn compile_kong(document: &str) -> String {
    let flavor = document
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# router_flavor: "))
        .map_or(RouterFlavor::default(), |name| {
            RouterFlavor::from_name(name).expect("a flavour")
        });
    let catalog = plugins::catalog();
    let mut next = 0;
    let mut new_id = || {
        next += 1;
        Uuid::from_u128(next)
    };
    let mut context = WriteContext {
        now_millis: NOW_MILLIS,
        flavor,
        catalog: &catalog,
        new_id: &mut new_id,
        already_transformed: false,
    };
    let loaded = Document::parse(document, Syntax::Yaml)
        .and_then(|document| load(document, &mut context, &mut |_, _| {}));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            let texts: Vec<String> = error.findings().into_iter().map(|it| it.text).collect();
            return texts.join("\n");
        }
    };
    let (plan, findings) = compile_all(
        &loaded.entities,
        &catalog,
        &Options {
            flavor,
            mesh: false,
        },
    );
    let mut text: String = findings.iter().fold(String::new(), |mut text, finding| {
        writeln!(text, "{finding}").unwrap();
        text
    });
    text.push_str(&serde_json::to_string_pretty(&plan).unwrap());
    text
}

fn check_folder(dialect: &str, compile: fn(&str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder.join(dialect))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases for {dialect}");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    for path in cases {
        let text = std::fs::read_to_string(&path).unwrap();
        let (document, expected) = text.split_once(DASHES).unwrap_or((text.trim_end(), ""));
        let found = compile(document);
        if found.trim_end() == expected.trim_end() {
            continue;
        }
        if update {
            let text = format!("{document}{DASHES}{}\n", found.trim_end());
            std::fs::write(&path, text).unwrap();
            continue;
        }
        let line = found
            .lines()
            .zip(expected.lines())
            .position(|(found, expected)| found != expected)
            .unwrap_or_else(|| found.lines().count().min(expected.lines().count()));
        writeln!(
            wrong,
            "{}: line {} after the dashes: expected\n    {}\nfound\n    {}",
            path.display(),
            line + 1,
            expected.lines().nth(line).unwrap_or("the end"),
            found.lines().nth(line).unwrap_or("the end"),
        )
        .unwrap();
    }
    assert!(
        wrong.is_empty(),
        "\n{wrong}\nUPDATE_GOLDEN=1 takes what was found"
    );
}
