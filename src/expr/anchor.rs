//! What an index may conclude from an expression without evaluating it.

use super::pattern::literal_prefix;
use super::{Expression, Field, Node, Predicate, Test, TextTest};

/// Alternatives that an anchor may have; beyond that the expression counts as unanchored.
const ALTERNATIVES_MAX: usize = 1024;

/// Necessary conditions of an expression: it can only match where they hold. `None` means that nothing is known.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Anchors {
    /// `http.host` is one of these.
    pub hosts: Option<Vec<Vec<u8>>>,
    /// `http.path` starts with one of these.
    pub paths: Option<Vec<Vec<u8>>>,
}

impl Expression {
    /// The hosts and path prefixes outside of which this expression cannot match.
    pub fn anchors(&self) -> Anchors {
        anchors(&self.root)
    }
}

fn anchors(node: &Node) -> Anchors {
    match node {
        Node::Predicate(predicate) => predicate_anchors(predicate),
        Node::Not(_) => Anchors::default(),
        Node::All(parts) => parts
            .iter()
            .map(anchors)
            .fold(Anchors::default(), |left, right| Anchors {
                hosts: narrower(left.hosts, right.hosts),
                paths: narrower(left.paths, right.paths),
            }),
        Node::Any(parts) => parts
            .iter()
            .map(anchors)
            .reduce(|left, right| Anchors {
                hosts: union(left.hosts, right.hosts),
                paths: union(left.paths, right.paths),
            })
            .unwrap_or_default(),
    }
}

fn predicate_anchors(predicate: &Predicate) -> Anchors {
    let mut found = Anchors::default();
    if predicate.lower {
        return found;
    }
    match (&predicate.field, &predicate.test) {
        (Field::Host, Test::Text(TextTest::Equals(host))) => {
            found.hosts = Some(vec![host.to_vec()])
        }
        (Field::Path, Test::Text(TextTest::Equals(path) | TextTest::StartsWith(path))) => {
            found.paths = Some(vec![path.to_vec()]);
        }
        (Field::Path, Test::Text(TextTest::Matches(regex))) => {
            let literal = literal_prefix(regex.as_str());
            if !literal.is_empty() {
                found.paths = Some(vec![literal]);
            }
        }
        _ => {}
    }
    found
}

/// Both hold, so either may be used: the one with fewer alternatives, and of single ones the longer.
fn narrower(left: Option<Vec<Vec<u8>>>, right: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let weight = |alternatives: &Vec<Vec<u8>>| {
        let shortest = alternatives.iter().map(Vec::len).min().unwrap_or(0);
        (alternatives.len(), usize::MAX - shortest)
    };
    match (left, right) {
        (Some(left), Some(right)) if weight(&right) < weight(&left) => Some(right),
        (Some(left), _) => Some(left),
        (None, right) => right,
    }
}

fn union(left: Option<Vec<Vec<u8>>>, right: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let (mut all, right) = (left?, right?);
    all.extend(right);
    (all.len() <= ALTERNATIVES_MAX).then_some(all)
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

    #[test]
    fn anchors_are_necessary_conditions() {
        for (text, hosts, paths) in [
            (
                r#"http.host == "a" && http.path ^= "/x""#,
                Some("a"),
                Some("/x"),
            ),
            (
                r#"(http.host == "a" || http.host == "b") && http.method == "GET""#,
                Some("a b"),
                None,
            ),
            (r#"http.host == "a" || http.method == "GET""#, None, None),
            (r#"!(http.host == "a")"#, None, None),
            (r#"lower(http.path) ^= "/x""#, None, None),
            (
                r#"http.path ~ "^/x/[0-9]+" && http.path ^= "/""#,
                None,
                Some("/x/"),
            ),
            (r#"http.path ~ "/x/[0-9]+""#, None, None),
        ] {
            let found = Expression::parse(text, Scope::Http).unwrap().anchors();
            let show = |set: Option<Vec<Vec<u8>>>| {
                set.map(|set| {
                    set.iter()
                        .map(|item| String::from_utf8_lossy(item).into_owned())
                        .collect::<Vec<_>>()
                        .join(" ")
                })
            };
            assert_eq!(show(found.hosts).as_deref(), hosts, "{text}");
            assert_eq!(show(found.paths).as_deref(), paths, "{text}");
        }
    }
}
