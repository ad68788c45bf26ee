//! Typed values, how they read as text, and how they compare.
//!
//! Owns the conversions of Apigee's flow variables, which follow Java's. Refuses to know where values come from.

use std::any::Any;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Names one of the messages that a transaction holds; whoever holds them gives the numbers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageHandle(pub u32);

/// A value of a flow variable. Null is the absence of a value.
#[derive(Clone)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// True or false.
    Boolean(bool),
    /// A Java `int`.
    Integer(i32),
    /// A Java `long`.
    Long(i64),
    /// A Java `float`.
    Float(f32),
    /// A Java `double`.
    Double(f64),
    /// Texts in order, such as the names of headers.
    Collection(Arc<[Arc<str>]>),
    /// A message, by reference.
    Message(MessageHandle),
    /// Nodes of an XML document, as the XML text that they read as.
    Nodes(Arc<str>),
    /// Something that only its maker understands, such as an object of a script.
    Object(Arc<dyn Any + Send + Sync>),
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.type_name();
        write!(f, "{name}({:?})", self.borrowed().into_text())
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for Value<'_> {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Cow::Borrowed(value))
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Cow::Owned(value))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(value: Cow<'a, str>) -> Self {
        Self::Text(value)
    }
}

impl<'a> Value<'a> {
    /// The name of its type, as traces and `ExtractVariables` spell it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Boolean(_) => "boolean",
            Self::Integer(_) => "integer",
            Self::Long(_) => "long",
            Self::Float(_) => "float",
            Self::Double(_) => "double",
            Self::Collection(_) => "collection",
            Self::Message(_) => "message",
            Self::Nodes(_) => "nodeset",
            Self::Object(_) => "object",
        }
    }

    /// The same value, borrowed.
    pub fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Long(value) => Value::Long(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Collection(list) => Value::Collection(Arc::clone(list)),
            Self::Message(handle) => Value::Message(*handle),
            Self::Nodes(text) => Value::Nodes(Arc::clone(text)),
            Self::Object(object) => Value::Object(Arc::clone(object)),
        }
    }

    /// The same value, owning its text.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Boolean(value) => Value::Boolean(value),
            Self::Integer(value) => Value::Integer(value),
            Self::Long(value) => Value::Long(value),
            Self::Float(value) => Value::Float(value),
            Self::Double(value) => Value::Double(value),
            Self::Collection(list) => Value::Collection(list),
            Self::Message(handle) => Value::Message(handle),
            Self::Nodes(text) => Value::Nodes(text),
            Self::Object(object) => Value::Object(object),
        }
    }

    /// It as text. A message reads as its body, which only its holder knows: here it is empty (see `variables::text_of`).
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text,
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
            Self::Integer(value) => Cow::Owned(value.to_string()),
            Self::Long(value) => Cow::Owned(value.to_string()),
            Self::Float(value) => Cow::Owned(java_decimal(value.to_string(), f64::from(value))),
            Self::Double(value) => Cow::Owned(java_decimal(value.to_string(), value)),
            Self::Collection(list) => Cow::Owned(format!("[{}]", list.join(", "))),
            Self::Message(_) => Cow::Borrowed(""),
            Self::Nodes(text) => Cow::Owned(text.as_ref().to_owned()),
            Self::Object(_) => Cow::Borrowed("[object Object]"),
        }
    }

    /// It as text without a copy when it is text.
    pub fn as_text(&self) -> Cow<'_, str> {
        self.borrowed().into_text()
    }

    /// It as a boolean: a boolean, or the text `true` or `false` in any case.
    pub fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            Self::Text(text) => crate::dialects::apigee::xml::boolean_of(text),
            _ => None,
        }
    }

    /// It as a number: a number, or a text that is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Text(text) => {
                let text = text.trim();
                // What Java takes and Rust takes too, without names such as "inf".
                let is_number = text
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
                is_number.then(|| text.parse().ok()).flatten()
            }
            Self::Integer(value) => Some(f64::from(*value)),
            Self::Long(value) => Some(*value as f64),
            Self::Float(value) => Some(f64::from(*value)),
            Self::Double(value) => Some(*value),
            _ => None,
        }
    }

    /// It as a whole number: a whole number, or a text that is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Integer(value) => Some(i64::from(*value)),
            Self::Long(value) => Some(*value),
            Self::Float(value) => whole(f64::from(*value)),
            Self::Double(value) => whole(*value),
            _ => None,
        }
    }

    fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Integer(_) | Self::Long(_) | Self::Float(_) | Self::Double(_)
        )
    }

    fn is_opaque(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Whether both are equal. Text dominates numbers; a boolean equals the text that spells it; objects equal nothing.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        if self.is_opaque() || other.is_opaque() {
            return false;
        }
        match (self, other) {
            (Value::Text(one), Value::Text(two)) => one == two,
            (Value::Message(one), Value::Message(two)) => one == two,
            (Value::Boolean(one), two) | (two, Value::Boolean(one)) => {
                two.as_boolean() == Some(*one)
            }
            (one, two) if one.is_number() && two.is_number() => {
                one.ordering(two) == Some(Ordering::Equal)
            }
            (one, two) => one.as_text() == two.as_text(),
        }
    }

    /// As [`Value::equals`], without regard to the case of letters.
    pub fn equals_ignoring_case(&self, other: &Value<'_>) -> bool {
        if self.is_opaque() || other.is_opaque() {
            return false;
        }
        self.equals(other) || {
            let (one, two) = (self.as_text(), other.as_text());
            one.eq_ignore_ascii_case(&two) || one.to_lowercase() == two.to_lowercase()
        }
    }

    /// Which is greater: as numbers when both are numbers or read as such, else as text. `None` for objects.
    pub fn ordering(&self, other: &Value<'_>) -> Option<Ordering> {
        if self.is_opaque() || other.is_opaque() {
            return None;
        }
        // Whole numbers are compared exactly: a double cannot tell large ones apart.
        if let (Some(one), Some(two)) = (self.as_exact(), other.as_exact()) {
            return Some(one.cmp(&two));
        }
        if let (Some(one), Some(two)) = (self.as_number(), other.as_number()) {
            return one.partial_cmp(&two);
        }
        Some(self.as_text().as_ref().cmp(other.as_text().as_ref()))
    }

    fn as_exact(&self) -> Option<i64> {
        match self {
            Self::Float(_) | Self::Double(_) => None,
            other => other.as_integer(),
        }
    }
}

fn whole(value: f64) -> Option<i64> {
    let fits = value.fract() == 0.0 && value.abs() < 9.0e18;
    fits.then_some(value as i64)
}

/// What Java's `Double.toString` gives, from the shortest text that reads back as the value.
fn java_decimal(shortest: String, value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = value.abs();
    if value == 0.0 || (1e-3..1e7).contains(&size) {
        return if shortest.contains('.') {
            shortest
        } else {
            shortest + ".0"
        };
    }
    // One digit before the point, and an exponent.
    let scientific = format!("{:e}", shortest.parse().unwrap_or(value));
    match scientific.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => scientific,
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
    fn reads_as_java_would_print_it() {
        let cases = [
            (Value::Integer(-3), "-3"),
            (Value::Long(1_566_275_920_240), "1566275920240"),
            (Value::Double(1.0), "1.0"),
            (Value::Double(0.5), "0.5"),
            (Value::Double(1e7), "1.0E7"),
            (Value::Double(1.5e-5), "1.5E-5"),
            (Value::Double(123_456_789.0), "1.23456789E8"),
            (Value::Double(f64::NAN), "NaN"),
            (Value::Float(0.1), "0.1"),
            (Value::Boolean(true), "true"),
            (
                Value::Collection(Arc::from([Arc::from("a"), Arc::from("b")])),
                "[a, b]",
            ),
        ];
        for (value, text) in cases {
            assert_eq!(value.into_text(), text);
        }
    }

    #[test]
    fn compares_with_adaptation() {
        let text = |text: &'static str| Value::from(text);
        let equal = [
            (text("a"), text("a"), true),
            (text("a"), text("A"), false),
            (Value::Integer(400), text("400"), true),
            (Value::Integer(400), text("400.0"), false),
            (Value::Integer(1), Value::Double(1.0), true),
            (Value::Boolean(true), text("true"), true),
            (text("TRUE"), Value::Boolean(true), true),
            (Value::Boolean(false), text("no"), false),
            (Value::Boolean(true), Value::Integer(1), false),
            (Value::Object(Arc::new(1)), text("[object Object]"), false),
        ];
        for (one, two, expected) in equal {
            assert_eq!(one.equals(&two), expected, "{one:?} = {two:?}");
            assert_eq!(two.equals(&one), expected, "{two:?} = {one:?}");
        }
        assert!(text("Ä").equals_ignoring_case(&text("ä")));
        let order = [
            (text("9"), text("10"), Ordering::Less),
            (text("9"), text("1O"), Ordering::Greater),
            (Value::Integer(5), text("0"), Ordering::Greater),
            (
                Value::Long(9_007_199_254_740_993),
                Value::Long(9_007_199_254_740_992),
                Ordering::Greater,
            ),
            (text("b"), text("a"), Ordering::Greater),
            (Value::Double(0.5), text("0.25"), Ordering::Greater),
        ];
        for (one, two, expected) in order {
            assert_eq!(one.ordering(&two), Some(expected), "{one:?} {two:?}");
        }
    }
}
