//! How a route's path condition matched, kept for as long as the exchange lives.

use std::sync::Arc;

use crate::expr::lowered;
use crate::expr::pattern::{Group, Pattern};

/// The part of the path that matched, and the expression that did, if any.
#[derive(Debug, Clone, Default)]
pub struct MatchedPath {
    length: Option<usize>,
    pattern: Option<Arc<Pattern>>,
    lowered: bool,
}

/// What a regular expression captured: `(number, name, text)`, numbered from 1. Groups that took no part are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    groups: Vec<OwnedGroup>,
}

/// A group's number, name and text.
type OwnedGroup = (usize, Option<Box<str>>, Box<[u8]>);

impl MatchedPath {
    /// `length`: bytes of the path that matched; `None` when the route has no path condition.
    pub fn new(length: Option<usize>, pattern: Option<Arc<Pattern>>) -> Self {
        Self {
            length,
            pattern,
            lowered: false,
        }
    }

    /// The same, for an expression that saw the lower-cased path.
    #[must_use]
    pub fn on_lowered_path(mut self, lowered: bool) -> Self {
        self.lowered = lowered;
        self
    }

    /// Bytes of the normalised path that matched; `None` when the route has no path condition.
    pub fn length(&self) -> Option<usize> {
        self.length
    }

    /// Runs the expression once more, this time for its groups.
    pub fn captures(&self, path: &[u8]) -> Captures {
        let Some(pattern) = &self.pattern else {
            return Captures::default();
        };
        if self.lowered {
            return lowered(path, |path| Captures::of(pattern, path));
        }
        Captures::of(pattern, path)
    }
}

impl Captures {
    fn of(pattern: &Pattern, path: &[u8]) -> Self {
        let owned =
            |(number, name, text): Group<'_, '_>| (number, name.map(Box::from), Box::from(text));
        Self {
            groups: pattern.groups(path).into_iter().map(owned).collect(),
        }
    }

    /// The group with this name, or this number in decimal.
    pub fn find(&self, name_or_number: &str) -> Option<&[u8]> {
        let number: Option<usize> = name_or_number.parse().ok();
        self.groups
            .iter()
            .find(|(index, name, _)| {
                name.as_deref() == Some(name_or_number) || Some(*index) == number
            })
            .map(|(_, _, text)| &**text)
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All groups: number, name, text.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Option<&str>, &[u8])> {
        self.groups
            .iter()
            .map(|(number, name, text)| (*number, name.as_deref(), &**text))
    }
}
