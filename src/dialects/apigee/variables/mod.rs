//! Flow variables: their names, their values, and the view through which conditions and templates read them.
//!
//! Owns types and comparison (`value`), names taken apart once (`name`) and the trait [`Variables`], which whoever runs
//! flows implements. Refuses to know which variables exist: the catalogue belongs to the flow engine.

pub mod name;
pub mod value;

use std::borrow::Cow;

pub use name::VariableName;
pub use value::{MessageHandle, Value};

/// What conditions and templates may read.
pub trait Variables {
    /// The value of a variable as of now; `None` when it is unset or out of scope (null).
    fn variable(&self, name: &VariableName) -> Option<Value<'_>>;

    /// The body of a message as text: what a message reads as where text is wanted. `None` for an unknown handle.
    fn message_text(&self, message: MessageHandle) -> Option<Cow<'_, str>>;

    /// A random number for template functions; tests may return fixed ones.
    fn random(&self) -> u64 {
        rand::random()
    }
}

/// The text of a value where text is wanted.
pub fn text_of<'v>(value: Value<'v>, variables: &'v impl Variables) -> Cow<'v, str> {
    match value {
        Value::Message(message) => variables.message_text(message).unwrap_or_default(),
        other => other.into_text(),
    }
}

/// A fixed set of variables: for tests and for checks at import.
#[cfg(test)]
pub(crate) struct Fixed(pub(crate) std::collections::HashMap<&'static str, Value<'static>>);

#[cfg(test)]
impl Fixed {
    pub(crate) fn of<const N: usize>(values: [(&'static str, Value<'static>); N]) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
impl Variables for Fixed {
    fn variable(&self, name: &VariableName) -> Option<Value<'_>> {
        self.0.get(name.as_str()).map(Value::borrowed)
    }

    fn message_text(&self, _: MessageHandle) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("body"))
    }

    fn random(&self) -> u64 {
        0x0123_4567_89AB_CDEF
    }
}
