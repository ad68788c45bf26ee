//! Patterns that take texts apart: `/items/{id}`, `Bearer {token}`.
//!
//! Owns the patterns of ExtractVariables: what is in braces is captured, the rest is literal but for `*` and `**`. In paths
//! a capture is one segment; elsewhere it reaches to the literal that follows. Refuses regular expressions.

/// The longest pattern, in bytes.
const BYTES_MAX: usize = 4096;
/// The most captures.
const CAPTURES_MAX: usize = 64;

/// A parsed pattern.
#[derive(Debug)]
pub struct TextPattern {
    pieces: Vec<Piece>,
    is_path: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Capture(Box<str>),
    /// `*`
    Any,
    /// `**`
    Many,
}

impl TextPattern {
    /// Parses a pattern; in a path captures and `*` stay within a segment.
    ///
    /// # Errors
    /// A sentence saying what is wrong: a capture without a name, two captures with nothing between them.
    pub fn parse(pattern: &str, is_path: bool) -> Result<Self, String> {
        if pattern.is_empty() || pattern.len() > BYTES_MAX {
            return Err(format!(
                "a pattern has 1 to {BYTES_MAX} bytes (InvalidPattern)"
            ));
        }
        let mut pieces = Vec::new();
        let mut captures = 0;
        let mut rest = pattern;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('{') {
                let (name, behind) = inner
                    .split_once('}')
                    .ok_or_else(|| format!("'{pattern}' has no closing brace (InvalidPattern)"))?;
                let name = name.trim();
                if name.is_empty() {
                    return Err(format!(
                        "'{pattern}' has braces without a name (PatternWithoutVariable)"
                    ));
                }
                if matches!(pieces.last(), Some(Piece::Capture(_))) {
                    return Err(format!(
                        "'{pattern}' has two variables with nothing between them (InvalidPattern)"
                    ));
                }
                captures += 1;
                pieces.push(Piece::Capture(name.into()));
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix("**") {
                pieces.push(Piece::Many);
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix('*') {
                pieces.push(Piece::Any);
                rest = behind;
            } else {
                let end = rest.find(['{', '*']).unwrap_or(rest.len());
                let (literal, behind) = rest.split_at(end);
                pieces.push(Piece::Literal(literal.into()));
                rest = behind;
            }
        }
        if captures == 0 {
            return Err(format!(
                "'{pattern}' has no variable in braces (PatternWithoutVariable)"
            ));
        }
        if captures > CAPTURES_MAX {
            return Err(format!(
                "'{pattern}' has more than {CAPTURES_MAX} variables"
            ));
        }
        Ok(Self { pieces, is_path })
    }

    /// Names and what they capture when the whole text matches.
    pub fn captures<'p, 't>(
        &'p self,
        text: &'t str,
        ignore_case: bool,
    ) -> Option<Vec<(&'p str, &'t str)>> {
        // A slash at the end of a path does not count.
        let text = if self.is_path {
            text.strip_suffix('/').unwrap_or(text)
        } else {
            text
        };
        let pieces = self.trimmed();
        let mut matcher = Matcher {
            is_path: self.is_path,
            ignore_case,
            steps: STEPS_MAX,
            found: Vec::new(),
        };
        matcher.matches(pieces, text).then_some(matcher.found)
    }

    fn trimmed(&self) -> &[Piece] {
        match self.pieces.split_last() {
            Some((Piece::Literal(last), before)) if self.is_path && &**last == "/" => before,
            _ => &self.pieces,
        }
    }
}

/// Tries of one match; patterns with many wild cards on long texts end here without a match.
const STEPS_MAX: usize = 200_000;

struct Matcher<'p, 't> {
    is_path: bool,
    ignore_case: bool,
    steps: usize,
    found: Vec<(&'p str, &'t str)>,
}

impl<'p, 't> Matcher<'p, 't> {
    /// The depth is the number of pieces.
    fn matches(&mut self, pieces: &'p [Piece], text: &'t str) -> bool {
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 {
            return false;
        }
        let Some((first, rest)) = pieces.split_first() else {
            return text.is_empty();
        };
        if let Piece::Literal(literal) = first {
            let Some((start, behind)) = text.split_at_checked(literal.len()) else {
                return false;
            };
            let equal = if self.ignore_case {
                start.eq_ignore_ascii_case(literal)
            } else {
                *start == **literal
            };
            return equal && self.matches(rest, behind);
        }
        let stays_in_segment = self.is_path && *first != Piece::Many;
        let most = if stays_in_segment {
            text.find('/').unwrap_or(text.len())
        } else {
            text.len()
        };
        let least = usize::from(!matches!(first, Piece::Many) && self.is_path);
        // A capture reaches to the next literal: the shortest first, so that it ends at its first occurrence.
        let mut ends = text
            .char_indices()
            .map(|(index, _)| index)
            .chain([text.len()]);
        while let Some(end) = ends.next().filter(|end| *end <= most) {
            if end < least {
                continue;
            }
            let (taken, behind) = text.split_at(end);
            let kept = self.found.len();
            if let Piece::Capture(name) = first {
                self.found.push((name, taken));
            }
            if self.matches(rest, behind) {
                return true;
            }
            self.found.truncate(kept);
        }
        false
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
    fn takes_texts_apart() {
        let cases = [
            ("/items/{id}", true, "/items/4", Some("id=4")),
            ("/items/{id}", true, "/items/4/", Some("id=4")),
            ("/items/{id}/", true, "/items/4", Some("id=4")),
            ("/items/{id}", true, "/items/4/x", None),
            ("/items/{id}", true, "/items/", None),
            ("/items/{id}", true, "/Items/4", None),
            ("/a/{x}/b/{y}", true, "/a/1/b/2", Some("x=1 y=2")),
            ("/*/{x}", true, "/q/1", Some("x=1")),
            ("/**/{x}", true, "/q/r/1", Some("x=1")),
            ("/a/{x}/**", true, "/a/1/b/c", Some("x=1")),
            ("/{x}.json", true, "/a.json", Some("x=a")),
            ("/a%2F/{x}", true, "/a%2F/y", Some("x=y")),
            ("Bearer {token}", false, "Bearer a.b/c", Some("token=a.b/c")),
            ("Bearer {token}", false, "Basic x", None),
            ("{a}:{b}", false, "1:2:3", Some("a=1 b=2:3")),
            ("{a}", false, "", Some("a=")),
            ("x{a}y*", false, "x1yz", Some("a=1")),
            (
                "{user}@{host}",
                false,
                "me@x.test",
                Some("user=me host=x.test"),
            ),
        ];
        for (pattern, is_path, text, expected) in cases {
            let parsed = TextPattern::parse(pattern, is_path).unwrap();
            let found = parsed.captures(text, false).map(|found| {
                let shown: Vec<_> = found
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                shown.join(" ")
            });
            assert_eq!(found.as_deref(), expected, "{pattern} on {text}");
        }
        let parsed = TextPattern::parse("bearer {t}", false).unwrap();
        assert!(parsed.captures("BEARER x", true).is_some());
        assert!(parsed.captures("BEARER x", false).is_none());
    }

    #[test]
    fn refuses_patterns_without_meaning() {
        for (pattern, part) in [
            ("", "1 to"),
            ("/a", "PatternWithoutVariable"),
            ("{}", "PatternWithoutVariable"),
            ("{a", "closing"),
            ("{a}{b}", "nothing between"),
        ] {
            let error = TextPattern::parse(pattern, false).expect_err(pattern);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn ends() {
        let pattern = format!("{}b", "{x}a".repeat(20).replace("{x}", "*a*{x}a"));
        let parsed = TextPattern::parse(&pattern, false).unwrap();
        assert!(parsed.captures(&"a".repeat(2000), true).is_none());
    }
}
