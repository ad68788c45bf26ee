//! Regular expressions as `java.util.regex` writes them, run by a backtracking engine under a step limit.
//!
//! Owns matching, finding and replacing; `translate` turns Java's syntax into that of the crate `fancy-regex` and names
//! what it cannot. Refuses to run without end: past [`STEPS_MAX`] a match is an error, never a hang.

mod translate;

use fancy_regex::{Captures, Regex, RegexBuilder};

/// Backtracking steps of one match.
pub const STEPS_MAX: usize = 200_000;
/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 8 * 1024;
/// The largest compiled program, in bytes.
const PROGRAM_BYTES_MAX: usize = 4 << 20;
/// The longest text that replacing makes.
pub const REPLACED_BYTES_MAX: usize = 16 << 20;

/// A compiled pattern. It remembers whether it must match the whole text.
#[derive(Debug)]
pub struct JavaRegex {
    pattern: Box<str>,
    regex: Regex,
}

/// The match took more steps than allowed, or its result would be too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("matching the regular expression '{pattern}' takes more than {STEPS_MAX} steps")]
pub struct StepLimit {
    /// The pattern as written.
    pub pattern: Box<str>,
}

impl JavaRegex {
    /// A pattern that must match the whole of a text, as `String.matches` does.
    ///
    /// # Errors
    /// A sentence saying what of Java's syntax is wrong or not supported.
    pub fn whole(pattern: &str) -> Result<Self, String> {
        let translated = translate::translate(pattern)?;
        Self::build(pattern, &format!(r"\A(?:{translated})\z"))
    }

    /// A pattern that may match anywhere in a text.
    ///
    /// # Errors
    /// As [`JavaRegex::whole`].
    pub fn anywhere(pattern: &str) -> Result<Self, String> {
        Self::build(pattern, &translate::translate(pattern)?)
    }

    fn build(pattern: &str, translated: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(translated)
            .backtrack_limit(STEPS_MAX)
            .delegate_size_limit(PROGRAM_BYTES_MAX)
            .delegate_dfa_size_limit(PROGRAM_BYTES_MAX)
            .build();
        let regex = built.map_err(|error| {
            format!(
                "'{pattern}' is not a regular expression: {}",
                first_line(&error)
            )
        })?;
        Ok(Self {
            pattern: pattern.into(),
            regex,
        })
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    fn limit(&self) -> StepLimit {
        StepLimit {
            pattern: self.pattern.clone(),
        }
    }

    /// Whether the text matches.
    ///
    /// # Errors
    /// When it takes too many steps.
    pub fn is_match(&self, text: &str) -> Result<bool, StepLimit> {
        self.regex.is_match(text).map_err(|_| self.limit())
    }

    /// The first match.
    ///
    /// # Errors
    /// When it takes too many steps.
    pub fn find<'t>(&self, text: &'t str) -> Result<Option<&'t str>, StepLimit> {
        let found = self.regex.find(text).map_err(|_| self.limit())?;
        Ok(found.map(|found| found.as_str()))
    }

    /// The text with matches replaced, at most `count` of them. In the replacement `$1` and `${name}` stand for groups, a
    /// backslash makes the next character plain, as `Matcher.appendReplacement` says.
    ///
    /// # Errors
    /// When it takes too many steps or grows too large.
    pub fn replace(
        &self,
        text: &str,
        replacement: &str,
        count: usize,
    ) -> Result<String, StepLimit> {
        let mut replaced = String::with_capacity(text.len());
        let mut end = 0;
        for captures in self.regex.captures_iter(text).take(count) {
            let captures = captures.map_err(|_| self.limit())?;
            let Some(whole) = captures.get(0) else {
                continue;
            };
            replaced.push_str(text.get(end..whole.start()).unwrap_or_default());
            append_replacement(&captures, replacement, &mut replaced);
            end = whole.end();
            if replaced.len() > REPLACED_BYTES_MAX {
                return Err(self.limit());
            }
        }
        replaced.push_str(text.get(end..).unwrap_or_default());
        Ok(replaced)
    }
}

fn first_line(error: &fancy_regex::Error) -> String {
    let text = error.to_string();
    // The delegate's message draws the pattern; its last line says what is wrong.
    let line = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    line.trim().trim_start_matches("error: ").to_owned()
}

fn append_replacement(captures: &Captures<'_, str>, replacement: &str, into: &mut String) {
    let group = |name: &str| match name.parse::<usize>() {
        Ok(number) => captures.get(number),
        Err(_) => captures.name(name),
    };
    let mut rest = replacement;
    while let Some(at) = rest.find(['$', '\\']) {
        let (before, special) = rest.split_at(at);
        into.push_str(before);
        if let Some(escaped) = special.strip_prefix('\\') {
            let mut characters = escaped.chars();
            into.extend(characters.next());
            rest = characters.as_str();
            continue;
        }
        let named = special
            .strip_prefix("${")
            .and_then(|after| after.split_once('}'));
        if let Some((name, after)) = named {
            into.push_str(group(name).map_or("", |found| found.as_str()));
            rest = after;
            continue;
        }
        let after = special.get(1..).unwrap_or_default();
        // As many digits as still name a group, at least one.
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let length = (1..=digits.min(3)).rev().find(|length| {
            *length == 1
                || after
                    .get(..*length)
                    .and_then(|number| number.parse().ok())
                    .is_some_and(|number: usize| number < captures.len())
        });
        match length.and_then(|length| after.split_at_checked(length)) {
            Some((number, after)) => {
                into.push_str(group(number).map_or("", |found| found.as_str()));
                rest = after;
            }
            None => {
                into.push('$');
                rest = after;
            }
        }
    }
    into.push_str(rest);
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
    fn matches_the_whole_text() {
        let cases = [
            ("GET|POST", "GET", true),
            ("GET|POST", "GETS", false),
            ("a.c", "abc", true),
            ("a.c", "a\nc", false),
            ("(?s)a.c", "a\nc", true),
            ("(?i)abc", "ABC", true),
            ("a(?i)b(?-i)c", "aBc", true),
            ("a(?i)b(?-i)c", "aBC", false),
            (r"\d+", "123", true),
            (r"\d+", "\u{663}", false),
            (r"\w+\s\w+", "ab cd", true),
            (r"\p{Alpha}+", "abc", true),
            (r"\p{Alpha}+", "äbc", false),
            (r"\p{IsAlphabetic}+", "äbc", true),
            (r"\p{L}\P{Lu}", "äb", true),
            (r"\pL+", "äb", true),
            (r"(a+)+b", "aaab", true),
            (r"(\w)\1", "aa", true),
            (r"(?<x>\w)\k<x>", "ab", false),
            (r"a++b", "aab", true),
            (r"a++ab", "aab", false),
            (r"(?=.*\d)(?=.*[a-z]).{3,}", "a1b", true),
            (r"(?!admin).*", "admin2", false),
            (r"\Qa.b\E+", "a.bb", true),
            (r"\Qa.b", "a.b", true),
            (r"[a-z&&[^aeiou]]+", "xyz", true),
            (r"[a-z&&[^aeiou]]+", "xay", false),
            (r"[a-c[x-z]]+", "ax", true),
            (r"[\d\-.]+", "1-2.3", true),
            (r"[^\s]+", "a b", false),
            (r"\x41\u0042\t", "AB\t", true),
            (r"\/a\/b", "/a/b", true),
            (r"\h+", " \t", true),
            (r"\R", "\r\n", true),
            (r"^/v1/.*$", "/v1/x", true),
            (r"[~~a]", "~", true),
            (r"[a#b ]+", "a# b", true),
            (r".*[(].*", "a(b", true),
            (r"\.json", ".json", true),
            (r"[]a]", "]", true),
            ("", "", true),
            (r"(a{2,3}b){2}", "aabaaab", true),
            (r"a{1,64}b{1,64}c{1,64}(d{1,64}){1,64}", "abcdd", true),
            (r"a{2,}", "aaa", true),
            (r"(?x) a b # c", "ab", true),
        ];
        for (pattern, text, expected) in cases {
            let regex =
                JavaRegex::whole(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.is_match(text), Ok(expected), "{pattern} on {text:?}");
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        for (pattern, part) in [
            ("a(", ""),
            ("[a", "']' is missing"),
            ("*", ""),
            (r"\p{InGreek}", "InGreek"),
            (r"\p{Nonsense}", ""),
            (r"a\", "backslash"),
            (r"\G", r"\G"),
            (r"\y", r"\y"),
            ("a{1000}{1000}{1000}", "repeats"),
            ("(?:(?:a?){1000}x?){1,1000}", "repeats"),
        ] {
            let error = JavaRegex::whole(pattern).expect_err(pattern);
            assert!(error.contains(part), "{pattern}: {error}");
        }
        assert!(JavaRegex::whole(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn stops_runaway_patterns() {
        let regex = JavaRegex::whole(r"(a*)*\1b").unwrap();
        assert!(regex.is_match(&"a".repeat(4000)).is_err());
    }

    #[test]
    fn replaces() {
        let cases = [
            ("o", "0", usize::MAX, "f00 b0x"),
            ("o", "0", 1, "f0o box"),
            (r"(\w)(\w)", "$2$1", usize::MAX, "ofo obx"),
            (r"(\w)o", "${1}0", usize::MAX, "f0o b0x"),
            ("o", r"\$", usize::MAX, "f$$ b$x"),
            ("(f)", "$10", usize::MAX, "f0oo box"),
            ("", "-", usize::MAX, "-f-o-o- -b-o-x-"),
        ];
        for (pattern, replacement, count, expected) in cases {
            let regex = JavaRegex::anywhere(pattern).unwrap();
            assert_eq!(
                regex.replace("foo box", replacement, count).unwrap(),
                expected,
                "{pattern}"
            );
        }
    }
}
