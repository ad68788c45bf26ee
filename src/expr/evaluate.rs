//! Evaluation of an [`Expression`] over whatever implements [`Fields`].
//!
//! Nothing is allocated, except to lower-case values that are not ASCII or longer than [`LOWERED_INLINE_BYTES`].

use std::net::IpAddr;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use memchr::memmem;
use smallvec::SmallVec;

use super::pattern::Pattern;
use super::{AddressTest, Expression, Field, IntegerTest, Node, Predicate, Test, TextTest};

/// Values up to this length are lower-cased on the stack.
const LOWERED_INLINE_BYTES: usize = 256;

/// The values that an expression is evaluated over. An absent field makes its predicate false, whatever the operator.
pub trait Fields {
    /// The value of a text field with one value; never asked for headers, queries or path segments.
    fn text(&self, field: &Field) -> Option<&[u8]>;
    /// Shows every value of a header or query field to `visit`, until it breaks.
    fn each(&self, field: &Field, visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>);
    /// The value of a port field; never asked for the number of path segments.
    fn integer(&self, field: &Field) -> Option<i64>;
    /// The value of an address field.
    fn address(&self, field: &Field) -> Option<IpAddr>;
}

/// The part of the path that an expression matched: what Kong's `route.strip_path` removes.
#[derive(Debug, Clone)]
pub struct PathMatch<'x> {
    /// Where it stands in the path.
    pub range: Range<usize>,
    /// The regex that matched, where it was one.
    pub regex: Option<&'x Arc<Pattern>>,
    /// The regex saw the lower-cased path.
    pub lower: bool,
}

impl Expression {
    /// `None` when the expression is false; otherwise the part of the path that the last true predicate on `http.path`
    /// matched: the constant of `==` and `^=`, or the match of `~`.
    pub fn matches<F: Fields>(&self, fields: &F) -> Option<Option<PathMatch<'_>>> {
        let mut found = None;
        holds(&self.root, fields, &mut found).then_some(found)
    }
}

fn holds<'x, F: Fields>(node: &'x Node, fields: &F, found: &mut Option<PathMatch<'x>>) -> bool {
    match node {
        Node::All(parts) => parts.iter().all(|part| holds(part, fields, found)),
        Node::Any(parts) => parts.iter().any(|part| holds(part, fields, found)),
        Node::Not(inner) => {
            // What must not match is not what matched.
            let mut unused = None;
            !holds(inner, fields, &mut unused)
        }
        Node::Predicate(predicate) => predicate_holds(predicate, fields, found),
    }
}

fn predicate_holds<'x, F: Fields>(
    predicate: &'x Predicate,
    fields: &F,
    found: &mut Option<PathMatch<'x>>,
) -> bool {
    let field = &predicate.field;
    match &predicate.test {
        Test::Integer(test, number) => {
            let value = match field {
                Field::PathSegmentCount => fields.text(&Field::Path).map(|path| {
                    // A path has far fewer segments than an i64 counts.
                    i64::try_from(segments(path).count()).unwrap_or(i64::MAX)
                }),
                other => fields.integer(other),
            };
            value.is_some_and(|value| integer_holds(*test, value, *number))
        }
        Test::Address(test) => fields
            .address(field)
            .is_some_and(|address| address_holds(test, address)),
        Test::Text(test) => match field {
            Field::Header(_) | Field::Query(_) => every_or_any(predicate, test, fields),
            Field::PathSegments { first, last } => fields
                .text(&Field::Path)
                .and_then(|path| segment_range(path, *first, *last))
                .is_some_and(|text| text_holds(predicate.lower, test, text)),
            Field::Path => fields
                .text(field)
                .is_some_and(|path| path_holds(predicate.lower, test, path, found)),
            _ => fields
                .text(field)
                .is_some_and(|text| text_holds(predicate.lower, test, text)),
        },
    }
}

fn every_or_any<F: Fields>(predicate: &Predicate, test: &TextTest, fields: &F) -> bool {
    let mut seen = false;
    let mut decided = false;
    fields.each(&predicate.field, &mut |value| {
        seen = true;
        // `any` ends at the first success, "all" at the first failure.
        decided = text_holds(predicate.lower, test, value) == predicate.any;
        if decided {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    seen && decided == predicate.any
}

fn text_holds(lower: bool, test: &TextTest, value: &[u8]) -> bool {
    let holds = |value: &[u8]| match test {
        TextTest::Equals(text) => value == &**text,
        TextTest::Differs(text) => value != &**text,
        TextTest::StartsWith(text) => value.starts_with(text),
        TextTest::EndsWith(text) => value.ends_with(text),
        TextTest::Contains(text) => memmem::find(value, text).is_some(),
        TextTest::Matches(regex) => regex.is_match(value),
    };
    if lower {
        lowered(value, holds)
    } else {
        holds(value)
    }
}

/// Like [`text_holds`], and remembers what matched.
fn path_holds<'x>(
    lower: bool,
    test: &'x TextTest,
    path: &[u8],
    found: &mut Option<PathMatch<'x>>,
) -> bool {
    let matched = match test {
        TextTest::Equals(text) | TextTest::StartsWith(text) => {
            if !text_holds(lower, test, path) {
                return false;
            }
            PathMatch {
                range: 0..text.len().min(path.len()),
                regex: None,
                lower,
            }
        }
        TextTest::Matches(regex) => {
            let find = |path: &[u8]| regex.find(path);
            let Some(range) = (if lower {
                lowered(path, find)
            } else {
                find(path)
            }) else {
                return false;
            };
            // Lower-casing can change the length of text that is not ASCII.
            let end = range.end.min(path.len());
            PathMatch {
                range: range.start.min(end)..end,
                regex: Some(regex),
                lower,
            }
        }
        _ => return text_holds(lower, test, path),
    };
    *found = Some(matched);
    true
}

fn integer_holds(test: IntegerTest, value: i64, number: i64) -> bool {
    match test {
        IntegerTest::Equals => value == number,
        IntegerTest::Differs => value != number,
        IntegerTest::Greater => value > number,
        IntegerTest::GreaterOrEqual => value >= number,
        IntegerTest::Less => value < number,
        IntegerTest::LessOrEqual => value <= number,
    }
}

/// Addresses of different families are never equal and never in each other's networks.
fn address_holds(test: &AddressTest, address: IpAddr) -> bool {
    match test {
        AddressTest::Equals(expected) => address == *expected,
        AddressTest::Differs(expected) => address != *expected,
        AddressTest::In(network) => network.contains(&address),
        AddressTest::NotIn(network) => !network.contains(&address),
    }
}

/// Calls `then` with the lower-cased value.
pub fn lowered<R>(value: &[u8], then: impl FnOnce(&[u8]) -> R) -> R {
    if !value
        .iter()
        .any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii())
    {
        return then(value);
    }
    if !value.is_ascii()
        && let Ok(text) = str::from_utf8(value)
    {
        return then(text.to_lowercase().as_bytes());
    }
    let mut buffer: SmallVec<[u8; LOWERED_INLINE_BYTES]> = SmallVec::from_slice(value);
    buffer.make_ascii_lowercase();
    then(&buffer)
}

/// The segments of a path; empty ones at its end do not count.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    let path = path.get(..end).unwrap_or_default();
    path.split(|byte| *byte == b'/')
        .filter(move |_| !path.is_empty())
}

/// Segments `first` to `last` with the slashes between them; absent unless the path has all of them.
fn segment_range(path: &[u8], first: usize, last: usize) -> Option<&[u8]> {
    let mut begin = None;
    let mut at = usize::from(path.starts_with(b"/"));
    for (number, segment) in segments(path).enumerate() {
        if number == first {
            begin = Some(at);
        }
        if number == last {
            return path.get(begin?..at + segment.len());
        }
        at += segment.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::super::Scope;
    use super::*;

    struct Sample;

    impl Fields for Sample {
        fn text(&self, field: &Field) -> Option<&[u8]> {
            match field {
                Field::Protocol => Some(b"https"),
                Field::Method => Some(b"GET"),
                Field::Host => Some(b"Example.com"),
                Field::Path => Some("/Foo/bar/baz/".as_bytes()),
                _ => None,
            }
        }

        fn each(&self, field: &Field, visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) {
            let values: &[&[u8]] = match field {
                Field::Header(name) if name == "x_many" => &[b"One", b"two"],
                Field::Query(name) if name == "q" => &[b""],
                _ => &[],
            };
            let _ = values.iter().try_for_each(|value| visit(value));
        }

        fn integer(&self, field: &Field) -> Option<i64> {
            (*field == Field::DestinationPort).then_some(8443)
        }

        fn address(&self, field: &Field) -> Option<IpAddr> {
            (*field == Field::SourceAddress).then(|| "10.1.2.3".parse().unwrap())
        }
    }

    #[test]
    fn predicates() {
        for (text, expected) in [
            (r#"net.protocol == "https""#, true),
            (r#"tls.sni != "a""#, false),
            (r#"http.host == "example.com""#, false),
            (r#"lower(http.host) == "example.com""#, true),
            (r#"http.path ^= "/Foo""#, true),
            (r#"http.path =^ "baz/""#, true),
            (r#"http.path contains "/bar/""#, true),
            (r#"http.path ~ "ba[rz]""#, true),
            (r#"http.path.segments.0 == "Foo""#, true),
            (r#"http.path.segments.1 == "bar""#, true),
            (r#"http.path.segments.1_2 == "bar/baz""#, true),
            (r#"http.path.segments.0_2 == "Foo/bar/baz""#, true),
            (r#"http.path.segments.3 != "x""#, false),
            (r#"http.path.segments.2_3 != "x""#, false),
            ("http.path.segments.len == 3", true),
            (r#"http.headers.x_many == "One""#, false),
            (r#"any(http.headers.x_many) == "One""#, true),
            (r#"any(http.headers.x_many) == "three""#, false),
            (r#"any(lower(http.headers.x_many)) == "one""#, true),
            (r#"http.headers.x_many ~ "[eo]""#, true),
            (r#"http.headers.x_none != "a""#, false),
            (r#"any(http.headers.x_none) != "a""#, false),
            (r#"http.queries.q == """#, true),
            (
                "net.dst.port == 8443 && net.dst.port > 8442 && net.dst.port <= 8443",
                true,
            ),
            ("net.src.port != 1", false),
            (
                "net.src.ip == 10.1.2.3 && net.src.ip in 10.0.0.0/8 && net.src.ip not in fd00::/8",
                true,
            ),
            ("net.src.ip not in 10.0.0.0/8", false),
            ("net.src.ip in fd00::/8", false),
            ("net.src.ip == fd00::1", false),
            ("net.dst.ip not in 10.0.0.0/8", false),
            (r#"!(tls.sni == "a")"#, true),
        ] {
            let parsed = Expression::parse(text, Scope::Http).unwrap();
            assert_eq!(parsed.matches(&Sample).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn matched_path() {
        for (text, expected) in [
            (r#"http.path ^= "/Foo""#, Some(0..4)),
            (r#"lower(http.path) ^= "/foo/""#, Some(0..5)),
            (r#"http.path == "/Foo/bar/baz/""#, Some(0..13)),
            (r#"http.path ~ "^/Foo/[a-z]+""#, Some(0..8)),
            (r#"http.path ~ "/bar|/baz""#, Some(4..8)),
            (r#"http.path ^= "/Foo" && http.path ^= "/""#, Some(0..1)),
            (r#"http.path =^ "/""#, None),
            (r#"http.method == "GET""#, None),
            (r#"!(http.path == "/x") "#, None),
        ] {
            let parsed = Expression::parse(text, Scope::Http).unwrap();
            assert_eq!(
                parsed.matches(&Sample).unwrap().map(|path| path.range),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn segments_of_odd_paths() {
        for (path, count, first) in [
            ("/", 0, None),
            ("", 0, None),
            ("/a", 1, Some("a")),
            ("/a//", 1, Some("a")),
        ] {
            assert_eq!(segments(path.as_bytes()).count(), count, "{path}");
            assert_eq!(
                segment_range(path.as_bytes(), 0, 0),
                first.map(str::as_bytes),
                "{path}"
            );
        }
    }

    #[test]
    fn lower_casing() {
        for (value, expected) in [("abc", "abc"), ("ABC", "abc"), ("ÄB", "äb"), ("", "")] {
            lowered(value.as_bytes(), |value| {
                assert_eq!(value, expected.as_bytes())
            });
        }
        lowered(b"A\xff", |value| assert_eq!(value, b"a\xff"));
    }
}
