//! What every user of regular expressions needs: one way to compile them within limits, and the literal text that all
//! matches of one must begin with, which lets an index file a regex under that text.
//!
//! A gateway holds thousands of small regexes and runs each on short texts. The crate `regex` is made for few regexes and
//! long texts: it prepares automata for both directions, and one `\d+` costs 80 KiB. The same engine without its automata
//! (`regex-automata`, bounded backtracking and simulation, linear in time as well) takes 9 KiB and was not slower.

use std::ops::Range;

use regex_automata::meta::{self, BuildError};
use regex_automata::util::primitives::PatternID;
use regex_automata::util::syntax;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

/// The largest compiled program of one regex. Bounds the memory that a hostile configuration can ask for.
pub const REGEX_PROGRAM_BYTES_MAX: usize = 1 << 20;
/// The longest regex text that is compiled.
pub const REGEX_TEXT_BYTES_MAX: usize = 16 << 10;

/// A compiled regex that searches bytes. Syntax and meaning are those of the crate `regex`.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: meta::Regex,
    text: Box<str>,
}

/// A group that took part in a match: its number, counted from 1, its name, and what it matched.
pub type Group<'p, 't> = (usize, Option<&'p str>, &'t [u8]);

/// Compiles a regex. The error says what is wrong in one line.
pub fn compile(text: &str) -> Result<Pattern, String> {
    if text.len() > REGEX_TEXT_BYTES_MAX {
        return Err(format!(
            "the pattern is longer than {REGEX_TEXT_BYTES_MAX} bytes"
        ));
    }
    let engines = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(REGEX_PROGRAM_BYTES_MAX))
        .dfa(false)
        .hybrid(false)
        .onepass(false);
    meta::Builder::new()
        .configure(engines)
        .syntax(syntax::Config::new().utf8(false))
        .build(text)
        .map(|regex| Pattern {
            regex,
            text: text.into(),
        })
        .map_err(|error| refusal(&error))
}

fn refusal(error: &BuildError) -> String {
    match (error.syntax_error(), error.size_limit()) {
        (Some(regex_syntax::Error::Parse(error)), _) => error.kind().to_string(),
        (Some(regex_syntax::Error::Translate(error)), _) => error.kind().to_string(),
        (_, Some(limit)) => format!("the compiled pattern would be larger than {limit} bytes"),
        _ => error.to_string().replace('\n', " "),
    }
}

impl Pattern {
    /// The text that it was compiled from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is found anywhere in `text`.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// Where it is found first.
    pub fn find(&self, text: &[u8]) -> Option<Range<usize>> {
        self.regex.find(text).map(|found| found.range())
    }

    /// The groups of the first match; empty when there is none, or no group took part.
    pub fn groups<'p, 't>(&'p self, text: &'t [u8]) -> Vec<Group<'p, 't>> {
        let mut found = self.regex.create_captures();
        self.regex.captures(text, &mut found);
        self.regex
            .group_info()
            .pattern_names(PatternID::ZERO)
            .enumerate()
            .skip(1)
            .filter_map(|(number, name)| {
                Some((number, name, text.get(found.get_group(number)?.range())?))
            })
            .collect()
    }
}

/// The text that every match begins with, for patterns anchored at the start; empty when nothing can be said.
///
/// `^/users/(?<id>\d+)` gives `/users/`; `^/a|/b` gives nothing, because its second alternative may match anywhere.
pub fn literal_prefix(pattern: &str) -> Vec<u8> {
    let mut literal = Vec::new();
    let Ok(hir) = ParserBuilder::new().utf8(false).build().parse(pattern) else {
        return literal;
    };
    if let HirKind::Concat(parts) = hir.kind()
        && let Some((first, rest)) = parts.split_first()
        && matches!(first.kind(), HirKind::Look(Look::Start))
    {
        for part in rest {
            if !collect(part, &mut literal) {
                break;
            }
        }
    }
    literal
}

/// Appends the literal that `hir` must begin with; true when what follows it may be appended too.
fn collect(hir: &Hir, literal: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(text) => {
            literal.extend_from_slice(&text.0);
            true
        }
        HirKind::Capture(group) => collect(&group.sub, literal),
        HirKind::Concat(parts) => parts.iter().all(|part| collect(part, literal)),
        HirKind::Repetition(repetition) => {
            if repetition.min > 0 {
                collect(&repetition.sub, literal);
            }
            false
        }
        HirKind::Class(_) | HirKind::Alternation(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    #[test]
    fn literal_prefixes() {
        for (pattern, expected) in [
            (r"^/users/(?<id>\d+)", "/users/"),
            (r"^/a|/b", ""),
            (r"^(/a/b)c+d", "/a/bc"),
            (r"^(?:/a|/b)", ""),
            (r"(?-u)^(?:/a/\d+)", "/a/"),
            (r"/a", ""),
            (r"(?m)^/a", ""),
            (r"(?i)^/a", "/"),
            (r"^/(?i)a", "/"),
            (r"^/a?b", "/"),
            (r"^/a{0}b", "/b"),
            (r"^(ab){2}", "abab"),
            (r"^\b/x", "/x"),
            (r"^", ""),
            (r"^(", ""),
        ] {
            let literal = literal_prefix(pattern);
            let literal = String::from_utf8(literal).unwrap();
            // The translator may simplify more or less than written here, but never wrongly: what it gives must be a
            // prefix of the longest possible literal.
            assert!(expected.starts_with(&literal), "{pattern}: {literal}");
            if !pattern.contains('{') {
                assert_eq!(literal, expected, "{pattern}");
            }
        }
    }

    #[test]
    fn searching() {
        let pattern = compile(r"/(?<word>[a-z]+)(\d)?(/é)?").unwrap();
        assert_eq!(pattern.find(b"--/ab1"), Some(2..6));
        assert!(pattern.is_match(b"\xff/a"));
        let text = "/ab/é".as_bytes();
        assert_eq!(
            pattern.groups(text),
            [
                (1, Some("word"), b"ab".as_slice()),
                (3, None, "/é".as_bytes())
            ]
        );
        assert_eq!(pattern.groups(b"-"), []);
        assert_eq!(compile(r"\d").unwrap().find("٣".as_bytes()), Some(0..2));
        assert_eq!(compile(r"(?-u)^.$").unwrap().find(b"\xff"), Some(0..1));
    }

    #[test]
    fn refusals_are_one_line() {
        for pattern in [
            "(",
            "(?=a)",
            r"\1",
            "[z-a]",
            "a{1000}{1000}",
            "(?P<n>a)(?P<n>b)",
            "\\",
        ] {
            let error = compile(pattern).unwrap_err();
            assert!(!error.contains('\n'), "{pattern}: {error}");
        }
        assert!(compile(&"a".repeat(REGEX_TEXT_BYTES_MAX + 1)).is_err());
    }
}
