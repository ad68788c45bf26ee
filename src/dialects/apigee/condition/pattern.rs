//! Globs over texts and paths.
//!
//! Owns `Matches` and `MatchesPath`: patterns taken apart once, matched in time proportional to pattern times text at
//! worst, whatever they hold. Refuses regular expressions.

/// A glob over text: `*` is any run of characters, `%` makes the next character plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Character(char),
    Any,
}

impl Glob {
    /// Takes a pattern apart. Every text is one.
    pub fn new(pattern: &str) -> Self {
        let mut pieces = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            let piece = match character {
                '*' => Piece::Any,
                '%' => Piece::Character(characters.next().unwrap_or('%')),
                other => Piece::Character(other),
            };
            if piece != Piece::Any || pieces.last() != Some(&Piece::Any) {
                pieces.push(piece);
            }
        }
        Self { pieces }
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        star_match(
            &self.pieces,
            text.chars(),
            |piece| *piece == Piece::Any,
            |piece, character| *piece == Piece::Character(character),
        )
    }
}

/// A glob over paths: `*` within a segment, `**` for any number of segments, `{name}` like `*`, `%` makes the next
/// character plain. A slash at the end counts on neither side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`
    Many,
    /// `*` or `{name}`: one that is not empty.
    One,
    Literal(String),
    Glob(Glob),
}

impl PathPattern {
    /// Takes a pattern apart. Every text is one.
    pub fn new(pattern: &str) -> Self {
        let mut segments: Vec<Segment> = split_segments(pattern)
            .into_iter()
            .map(Segment::of)
            .collect();
        if segments.len() > 1 && segments.last().is_some_and(Segment::is_empty) {
            segments.pop();
        }
        segments.dedup_by(|two, one| *one == Segment::Many && *two == Segment::Many);
        Self { segments }
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &str) -> bool {
        let path = path.strip_suffix('/').unwrap_or(path);
        star_match(
            &self.segments,
            path.split('/'),
            |segment| *segment == Segment::Many,
            |segment, text| segment.matches(text),
        )
    }
}

/// The segments of a pattern: a slash after `%` or within braces separates nothing.
fn split_segments(pattern: &str) -> Vec<Vec<(char, bool)>> {
    let mut segments = vec![Vec::new()];
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        let piece = match character {
            '/' => {
                segments.push(Vec::new());
                continue;
            }
            '%' => (characters.next().unwrap_or('%'), true),
            other => (other, false),
        };
        if let Some(last) = segments.last_mut() {
            last.push(piece);
        }
    }
    segments
}

impl Segment {
    /// From characters, each with whether it was escaped.
    fn of(characters: Vec<(char, bool)>) -> Self {
        let mut pieces = Vec::new();
        let mut rest = characters.as_slice();
        while let [(character, escaped), tail @ ..] = rest {
            rest = tail;
            let piece = match (character, escaped) {
                ('*', false) => Piece::Any,
                ('{', false) => match tail
                    .iter()
                    .position(|(character, escaped)| *character == '}' && !escaped)
                {
                    Some(end) => {
                        rest = tail.get(end + 1..).unwrap_or_default();
                        Piece::Any
                    }
                    None => Piece::Character('{'),
                },
                (other, _) => Piece::Character(*other),
            };
            pieces.push(piece);
        }
        match pieces.as_slice() {
            [Piece::Any] => Self::One,
            // Written as two stars, not as braces.
            [Piece::Any, Piece::Any] if characters.len() == 2 => Self::Many,
            _ if pieces.contains(&Piece::Any) => {
                pieces.dedup_by(|two, one| *one == Piece::Any && *two == Piece::Any);
                Self::Glob(Glob { pieces })
            }
            _ => Self::Literal(
                pieces
                    .iter()
                    .filter_map(|piece| match piece {
                        Piece::Character(character) => Some(*character),
                        Piece::Any => None,
                    })
                    .collect(),
            ),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Literal(text) if text.is_empty())
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Many => false,
            Self::One => !text.is_empty(),
            Self::Literal(literal) => literal == text,
            Self::Glob(glob) => glob.matches(text),
        }
    }
}

/// Matches a list with stars: on a mismatch only the last star takes one more, so no more than a product of steps is needed.
fn star_match<P, T, I>(
    pattern: &[P],
    text: I,
    is_star: impl Fn(&P) -> bool,
    matches: impl Fn(&P, T) -> bool,
) -> bool
where
    T: Copy,
    I: Iterator<Item = T> + Clone,
{
    let mut text = text;
    let mut at = 0;
    let mut star: Option<(usize, I)> = None;
    loop {
        match pattern.get(at) {
            Some(piece) if is_star(piece) => {
                at += 1;
                star = Some((at, text.clone()));
                continue;
            }
            Some(piece) => {
                let mut ahead = text.clone();
                match ahead.next() {
                    None => return false,
                    Some(item) if matches(piece, item) => {
                        text = ahead;
                        at += 1;
                        continue;
                    }
                    Some(_) => {}
                }
            }
            None => {
                // Everything after a last star belongs to it.
                let after_star = star
                    .as_ref()
                    .is_some_and(|(next, _)| *next == pattern.len());
                if after_star || text.clone().next().is_none() {
                    return true;
                }
            }
        }
        let Some((next, mut from)) = star.take() else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        at = next;
        text = from.clone();
        star = Some((next, from));
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
    fn matches_texts() {
        let cases = [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*c", "ac", true),
            ("a*c", "a/b/c", true),
            ("*", "", true),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxbyybzz", false),
            ("*.json", "x.json", true),
            ("100%%", "100%", true),
            ("a%*b", "a*b", true),
            ("a%*b", "axb", false),
            ("", "", true),
            ("", "a", false),
            ("ä*", "äöü", true),
            ("**a", "bba", true),
            ("x%", "x%", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                Glob::new(pattern).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn matches_paths() {
        let cases = [
            ("/*/a/", "/x/a/", true),
            ("/*/a/", "/y/a/", true),
            ("/*/a/", "/y/a", true),
            ("/*/a/*", "/x/a/b", true),
            ("/*/a/*", "/x/a/b/c", false),
            ("/*/a/*", "/x/a/", false),
            ("/*/a/**", "/x/a/b/c/d", true),
            ("/*/a/{reader}/feed/", "/x/a/b/feed/", true),
            ("/*/a/{reader}/feed/", "/x/a/feed/", false),
            ("/a/**/feed/**", "/a/b/feed/rss/1234", true),
            ("/a/**/feed/**", "/a/feed", true),
            ("/a/**/feed/**", "/a/b/rss", false),
            ("/animals/*", "/animals/cat", true),
            ("/animals/*", "/animals/cat/wild", false),
            ("/animals/*", "/animals", false),
            ("/animals/*", "/animals/", false),
            ("/animals/**", "/animals/cat", true),
            ("/animals/**", "/animals/cat/wild", true),
            ("/animals/**", "/animals/", true),
            ("/animals/**", "/animals", true),
            ("/animals/**", "/animalsx", false),
            ("/c*t", "/cat", true),
            ("/c*t", "/ct", true),
            ("/c*t", "/c/t", false),
            ("/status", "/status/", true),
            ("/status", "/status", true),
            ("/status", "/Status", false),
            ("/status", "/status/x", false),
            ("", "", true),
            ("", "/", true),
            ("", "/a", false),
            ("/", "", true),
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", true),
            ("/**", "", true),
            ("/**", "/a/b", true),
            ("**", "/a/b", true),
            ("**/feed", "/a/b/feed", true),
            ("/a/%{user%}", "/a/{user}", true),
            ("/a/%{user%}", "/a/b", false),
            ("/a/%*", "/a/*", true),
            ("/a/%*", "/a/b", false),
            ("/v{n}/x", "/v12/x", true),
            ("/v{n}/x", "/w12/x", false),
            ("/{a}{b}/x", "/q/x", true),
            ("/{a}{b}/x", "/q/r/x", false),
            ("/a/{open", "/a/{open", true),
            ("/items/{id}.json", "/items/4.json", true),
            ("/**/b/**/d", "/a/b/c/b/d", true),
            ("/**/b/**/d", "/b/d", true),
            ("/**/b/**/d", "/b/c", false),
            ("/a//b", "/a//b", true),
            ("/a/*/b", "/a//b", false),
            ("/*", "/a%2Fb", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(
                PathPattern::new(pattern).matches(path),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn agrees_with_a_naive_matcher() {
        use proptest::prelude::*;
        fn naive(pattern: &[Segment], path: &[&str]) -> bool {
            match pattern {
                [] => path.is_empty(),
                [Segment::Many, rest @ ..] => {
                    (0..=path.len()).any(|taken| naive(rest, &path[taken..]))
                }
                [first, rest @ ..] => {
                    path.first().is_some_and(|text| first.matches(text)) && naive(rest, &path[1..])
                }
            }
        }
        let part = prop::sample::select(vec!["a", "b", "*", "**", "{x}", "a*", ""]);
        let segment = prop::sample::select(vec!["a", "b", "ab", ""]);
        let strategy = (
            prop::collection::vec(part, 0..6),
            prop::collection::vec(segment, 0..7),
        );
        let mut runner = proptest::test_runner::TestRunner::default();
        runner
            .run(&strategy, |(pattern, path)| {
                let pattern = PathPattern::new(&format!("/{}", pattern.join("/")));
                let path = format!("/{}", path.join("/"));
                let segments: Vec<_> = path.strip_suffix('/').unwrap_or(&path).split('/').collect();
                prop_assert_eq!(
                    pattern.matches(&path),
                    naive(&pattern.segments, &segments),
                    "{:?} {}",
                    pattern,
                    path
                );
                Ok(())
            })
            .unwrap();
    }
}
