//! What every user of regular expressions needs: one way to compile them within limits, and the literal text that all
//! matches of one must begin with, which lets an index file a regex under that text.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

/// The largest compiled program of one regex. Bounds the memory that a hostile configuration can ask for.
pub const REGEX_PROGRAM_BYTES_MAX: usize = 1 << 20;
/// The most memory that the lazy automaton of one regex uses per thread that runs it.
pub const REGEX_CACHE_BYTES_MAX: usize = 256 << 10;
/// The longest regex text that is compiled.
pub const REGEX_TEXT_BYTES_MAX: usize = 16 << 10;

/// Compiles a regex that searches bytes. The error says what is wrong in one line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > REGEX_TEXT_BYTES_MAX {
        return Err(format!(
            "the pattern is longer than {REGEX_TEXT_BYTES_MAX} bytes"
        ));
    }
    RegexBuilder::new(pattern)
        .size_limit(REGEX_PROGRAM_BYTES_MAX)
        .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("the compiled pattern would be larger than {limit} bytes")
            }
            other => syntax_error(pattern).unwrap_or_else(|| other.to_string().replace('\n', " ")),
        })
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

fn syntax_error(pattern: &str) -> Option<String> {
    match ParserBuilder::new().utf8(false).build().parse(pattern) {
        Err(regex_syntax::Error::Parse(error)) => Some(error.kind().to_string()),
        Err(regex_syntax::Error::Translate(error)) => Some(error.kind().to_string()),
        _ => None,
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
