//! House rules that the compiler does not know: floors, words, input and output, lengths of files.
//!
//! Reads the sources as text. Every violation is told with its rule and place; all at once. See `src/lib.rs` for the
//! floors and `docs/ARCHITECTURE.md` for the reasons.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Modules by floor, the lowest first.
const FLOORS: [&[&str]; 7] = [
    &["base"],
    &["expr"],
    &["model", "settings"],
    &["dialects", "runtime"],
    &["engine", "plugins", "control"],
    &["admin", "sources"],
    &["cli", "app"],
];

/// The top floor wires everything, itself included.
const TOP_FLOOR: usize = FLOORS.len() - 1;

/// The engine runs plans; words of the dialects that write them mean a leak.
const DIALECT_WORDS: [&str; 3] = ["kong", "apigee", "consul"];
const WITHOUT_DIALECT_WORDS: [&str; 2] = ["engine", "runtime"];

/// Pure floors: values in, values out.
const PURE: [&str; 4] = ["model", "expr", "dialects", "settings"];
const INPUT_AND_OUTPUT: [&str; 10] = [
    "tokio::",
    "pingora",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::ToSocketAddrs",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
];

/// Past some 600 lines a file has a second idea; past these it is told.
const FILE_LINES_MAX: usize = 800;

struct Source {
    /// Relative to `src`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The module under the crate's root that the file belongs to; empty for `lib.rs` and `main.rs`.
    fn module(&self) -> &str {
        let mut parts = self.path.iter();
        let first = parts
            .next()
            .and_then(|part| part.to_str())
            .unwrap_or_default();
        match first.strip_suffix(".rs") {
            Some("lib" | "main") => "",
            Some(name) => name,
            None => first,
        }
    }

    /// Whether the file holds tests only.
    fn is_test(&self) -> bool {
        let is_tests = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
        self.path.iter().any(is_tests)
    }

    /// Lines with their numbers, without comments. What stands in string literals is kept: a path or word there counts.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, into: &mut Vec<Source>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                into.push(Source {
                    path: path.strip_prefix(root).unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    walk(&root, &root, &mut sources);
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Fails with everything that breaks `rule`.
fn report(rule: &str, violations: &BTreeSet<String>) {
    if violations.is_empty() {
        return;
    }
    let mut text = format!("{rule}\n");
    for violation in violations {
        writeln!(text, "  src/{violation}").unwrap();
    }
    panic!("{text}");
}

/// The modules of the crate that a line names: `crate::model::…` and each member of `crate::{…}`.
fn crate_modules(line: &str) -> Vec<String> {
    let mut modules = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("crate::") {
        let before = rest[..at].chars().next_back();
        rest = &rest[at + "crate::".len()..];
        // `$crate::` in a macro names the same module; part of a longer word names something else.
        if before.is_some_and(|character| character.is_alphanumeric() || character == '_') {
            continue;
        }
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        if let Some(group) = rest.strip_prefix('{') {
            let group = group.split('}').next().unwrap_or_default();
            let heads = group
                .split(',')
                .map(|part| part.trim().split("::").next().unwrap_or_default());
            modules.extend(heads.filter(|head| !head.is_empty()).map(str::to_owned));
        } else {
            let word: String = rest
                .chars()
                .take_while(|character| is_word(*character))
                .collect();
            modules.push(word);
        }
    }
    modules
}

#[test]
fn every_module_has_a_floor() {
    let mut violations = BTreeSet::new();
    for source in sources() {
        let module = source.module();
        if !module.is_empty() && floor_of(module).is_none() {
            violations.insert(format!("{}: module '{module}'", source.path.display()));
        }
    }
    report(
        "a module of the crate belongs to a floor: add it to FLOORS and to the table in src/lib.rs",
        &violations,
    );
}

#[test]
fn imports_go_down() {
    let mut violations = BTreeSet::new();
    for source in sources() {
        let module = source.module();
        let Some(floor) = floor_of(module) else {
            continue;
        };
        for (number, line) in source.code() {
            for imported in crate_modules(line) {
                let Some(below) = floor_of(&imported) else {
                    continue;
                };
                let allowed = below < floor || imported == module || floor == TOP_FLOOR;
                if !allowed {
                    violations.insert(format!(
                        "{}:{number}: '{module}' (floor {floor}) imports '{imported}' (floor {below})",
                        source.path.display()
                    ));
                }
            }
        }
    }
    report(
        "a module imports lower floors only, never a neighbour: move what both need down, or hand it in from 'app'",
        &violations,
    );
}

#[test]
fn the_engine_speaks_no_dialect() {
    let mut violations = BTreeSet::new();
    for source in sources() {
        if !WITHOUT_DIALECT_WORDS.contains(&source.module()) {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            let line = line.to_ascii_lowercase();
            for word in DIALECT_WORDS.iter().filter(|word| line.contains(**word)) {
                violations.insert(format!("{}:{}: '{word}'", source.path.display(), index + 1));
            }
        }
    }
    report(
        "'engine' and 'runtime' know no dialect, not even in comments: let the plan carry what differs",
        &violations,
    );
}

#[test]
fn pure_floors_do_no_input_or_output() {
    let mut violations = BTreeSet::new();
    for source in sources() {
        if !PURE.contains(&source.module()) {
            continue;
        }
        for (number, line) in source.code() {
            for what in INPUT_AND_OUTPUT.iter().filter(|what| line.contains(**what)) {
                violations.insert(format!("{}:{number}: '{what}'", source.path.display()));
            }
        }
    }
    report(
        "'model', 'expr', 'dialects' and 'settings' are pure: take files, clocks and networks as arguments",
        &violations,
    );
}

#[test]
fn only_the_top_floor_uses_anyhow() {
    let mut violations = BTreeSet::new();
    for source in sources() {
        if floor_of(source.module()).is_none_or(|floor| floor == TOP_FLOOR) {
            continue;
        }
        for (number, _) in source.code().filter(|(_, line)| line.contains("anyhow")) {
            violations.insert(format!("{}:{number}", source.path.display()));
        }
    }
    report(
        "'anyhow' is for 'cli' and 'app': elsewhere an error type says what failed",
        &violations,
    );
}

#[test]
fn files_hold_one_idea() {
    let mut violations = BTreeSet::new();
    for source in sources() {
        let lines = source.text.lines().count();
        // A long table of cases is one idea.
        if lines > FILE_LINES_MAX && !source.is_test() {
            violations.insert(format!("{}: {lines} lines", source.path.display()));
        }
    }
    report(
        "a file of more than 800 lines holds two ideas: split it by the second",
        &violations,
    );
}

#[test]
fn modules_say_what_they_own() {
    let mut violations = BTreeSet::new();
    for source in sources() {
        if !source.text.starts_with("//!") && !source.is_test() {
            violations.insert(source.path.display().to_string());
        }
    }
    report("a file begins with '//!' and what it owns", &violations);
}

/// Texts that are written from the table of settings, and the two lines between which they stand.
const BEGIN: &str = "keys: begin";
const END: &str = "keys: end";

#[test]
fn written_keys_are_the_known_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let texts = [
        ("docs/OPERATING.md", sallyport::settings::manual::manual()),
        ("conf/sallyport.toml", sallyport::settings::manual::sample()),
    ];
    let mut violations = String::new();
    for (file, table) in texts {
        let path = root.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let begin = text
            .find(BEGIN)
            .and_then(|at| Some(at + text[at..].find('\n')? + 1))
            .expect(BEGIN);
        let end = text[..text.find(END).expect(END)]
            .rfind('\n')
            .expect("a line of its own")
            + 1;
        let fresh = format!("{}\n{table}{}", &text[..begin], &text[end..]);
        if fresh == text {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, fresh).unwrap();
        } else {
            writeln!(violations, "  {file}").unwrap();
        }
    }
    assert!(
        violations.is_empty(),
        "the keys in these files are not those of the settings: run the tests with UPDATE_GOLDEN=1\n{violations}"
    );
}

#[test]
fn the_rules_see_what_they_look_for() {
    assert_eq!(crate_modules("use crate::model::plan::Plan;"), ["model"]);
    assert_eq!(
        crate_modules("use crate::{base, model::Plan};"),
        ["base", "model"]
    );
    assert_eq!(
        crate_modules("<$crate::settings::value::Value>::allowed"),
        ["settings"]
    );
    assert_eq!(
        crate_modules("use super::key; // othercrate::x"),
        Vec::<String>::new()
    );
}
