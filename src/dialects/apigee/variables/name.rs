//! The name of a variable, taken apart once.
//!
//! Owns the split of `request.header.accept.2` into a message and a property, so that reading costs no parsing. Refuses
//! to know which messages exist: a name that looks like a property may also be a plain variable.

use std::fmt;

use crate::dialects::apigee::message::Property;

/// A variable's name, as written and as read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VariableName {
    text: Box<str>,
    /// Length of the message's name, and what is asked of the message.
    property: Option<(usize, Property)>,
}

impl fmt::Debug for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&str> for VariableName {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl VariableName {
    /// The longest name that templates and conditions take, in bytes.
    pub const BYTES_MAX: usize = 1024;

    /// Takes a name apart. Any text is a name; whether it names something shows when it is read.
    pub fn new(text: &str) -> Self {
        // The leftmost split wins: `request.header.content.x` asks for the header `content.x`.
        let property = text
            .match_indices('.')
            .filter(|(at, _)| *at > 0)
            .find_map(|(at, _)| Some((at, Property::parse(text.get(at + 1..)?)?)));
        Self {
            text: text.into(),
            property,
        }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The message and its property, when the name can be read so.
    pub fn of_message(&self) -> Option<(&str, &Property)> {
        let (length, property) = self.property.as_ref()?;
        Some((self.text.get(..*length)?, property))
    }

    /// Whether a text may stand as a variable in a template: a letter or `_`, then letters, digits, `_`, `.`, `-`.
    pub fn is_plain(text: &str) -> bool {
        let mut bytes = text.bytes();
        bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
            && text.len() <= Self::BYTES_MAX
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
    fn splits_messages_from_properties() {
        let cases = [
            ("request.header.Accept", Some(("request", "header.accept"))),
            ("request.header.x.2", Some(("request", "header.x.2"))),
            (
                "request.header.content.y",
                Some(("request", "header.content.y")),
            ),
            ("a.b.c.content", Some(("a.b.c", "content"))),
            (
                "request.queryparam.A.values.count",
                Some(("request", "queryparam.A.values.count")),
            ),
            ("response.status.code", Some(("response", "status.code"))),
            ("request", None),
            ("proxy.pathsuffix", None),
            (".content", None),
            ("", None),
            ("a..", None),
        ];
        for (text, expected) in cases {
            let name = VariableName::new(text);
            let split = name
                .of_message()
                .map(|(message, property)| (message.to_owned(), property.to_string()));
            let expected =
                expected.map(|(message, property)| (message.to_owned(), property.to_owned()));
            assert_eq!(split, expected, "{text}");
        }
    }
}
