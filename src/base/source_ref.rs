//! Where a piece of configuration was written.
//!
//! Owns the reference that diagnostics, plans and logs carry so that a reader finds the guilty line. Refuses to know
//! what a document contains: the dialect that reads it writes the words.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The place in a document that something was compiled from.
///
/// Shown as `kong.yaml:35: route "users"`; every part may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceRef {
    /// The file as the user named it, or a word for what is not a file ("environment", "admin api"). Empty when unknown.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub document: Arc<str>,
    /// Line, counted from 1. Absent when the document has no lines or the reader does not know them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The entity or key, in the words of its dialect: `route "users"`, `proxy_listen`. Empty for the whole document.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub subject: Arc<str>,
}

impl SourceRef {
    /// A whole document.
    pub fn document(document: impl Into<Arc<str>>) -> Self {
        Self {
            document: document.into(),
            line: None,
            subject: Arc::default(),
        }
    }

    /// An entity or key whose document is not known (Admin API writes) or is told elsewhere.
    pub fn subject(subject: impl Into<Arc<str>>) -> Self {
        Self {
            document: Arc::default(),
            line: None,
            subject: subject.into(),
        }
    }

    /// The same place, with its line (counted from 1).
    #[must_use]
    pub fn at_line(mut self, line: u32) -> Self {
        self.line = Some(line);
        self
    }

    /// The same place, narrowed to an entity or key.
    #[must_use]
    pub fn about(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.subject = subject.into();
        self
    }

    /// True when nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        self.document.is_empty() && self.line.is_none() && self.subject.is_empty()
    }
}

impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = 0;
        if !self.document.is_empty() {
            f.write_str(&self.document)?;
            parts += 1;
        }
        if let Some(line) = self.line {
            let colon = if parts > 0 { ":" } else { "line " };
            write!(f, "{colon}{line}")?;
            parts += 1;
        }
        if !self.subject.is_empty() {
            let colon = if parts > 0 { ": " } else { "" };
            write!(f, "{colon}{}", self.subject)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_parts_that_are_known() {
        let whole = SourceRef::document("kong.yaml");
        let cases = [
            (SourceRef::default(), ""),
            (whole.clone(), "kong.yaml"),
            (whole.clone().at_line(35), "kong.yaml:35"),
            (
                whole.clone().at_line(35).about("route \"users\""),
                "kong.yaml:35: route \"users\"",
            ),
            (whole.about("route \"users\""), "kong.yaml: route \"users\""),
            (SourceRef::subject("proxy_listen"), "proxy_listen"),
            (SourceRef::subject("route").at_line(2), "line 2: route"),
        ];
        for (place, shown) in cases {
            assert_eq!(place.to_string(), shown);
        }
    }
}
