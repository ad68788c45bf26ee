//! JSONPath as Jayway's library reads it, which is what Apigee runs.
//!
//! Owns the dialect's quirks: `$.[0]` is `$[0]`, `.length()` and other functions at the end, filters with `=~` and `in`, and
//! the rule that an indefinite path gives a list. RFC 9535 libraries refuse or answer differently, and none of them bounds
//! its work. Refuses to run without end: at most [`STEPS_MAX`] nodes are looked at. Start at [`JsonPath::parse`].

mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::{Number, Value};

use super::java_regex::JavaRegex;

/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Nodes that one evaluation looks at.
pub const STEPS_MAX: usize = 1_000_000;
/// The deepest nesting of filters.
pub const DEPTH_MAX: usize = 16;

/// A parsed path.
#[derive(Debug)]
pub struct JsonPath {
    text: Box<str>,
    steps: Vec<Step>,
    function: Option<Function>,
}

/// Why a path gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// There is nothing at a definite path.
    #[error("there is nothing at the path '{0}'")]
    Missing(Box<str>),
    /// Too much to look at.
    #[error("the path '{0}' looks at more than {STEPS_MAX} values")]
    Limit(Box<str>),
}

#[derive(Debug)]
enum Step {
    /// Members by name; more than one makes the path indefinite.
    Names(Vec<Box<str>>),
    /// Elements by number, from the end when negative.
    Indexes(Vec<i64>),
    /// `[from:to:step]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `*`
    Any,
    /// `..`: the node and everything below it.
    Deep,
    Filter(Filter),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Length,
    Min,
    Max,
    Sum,
    Average,
    Keys,
    First,
    Last,
}

#[derive(Debug)]
enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// The path leads somewhere.
    Exists(Operand),
    Compare(Operand, Operator, Operand),
    Matches(Operand, JavaRegex),
}

#[derive(Debug)]
enum Operand {
    Literal(Value),
    List(Vec<Value>),
    /// Whether it starts at the document rather than at the current value.
    Path {
        from_root: bool,
        path: JsonPath,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    NotEquals,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Contains,
    /// `size` and `empty`
    Size,
    Empty,
}

impl JsonPath {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it can only lead to one place, so that its result is a value rather than a list.
    pub fn is_definite(&self) -> bool {
        self.function.is_some()
            || self.steps.iter().all(|step| match step {
                Step::Names(names) => names.len() == 1,
                Step::Indexes(indexes) => indexes.len() == 1,
                Step::Slice(..) | Step::Any | Step::Deep | Step::Filter(_) => false,
            })
    }

    /// What the path gives: the value at a definite path, else the list of all values found.
    ///
    /// # Errors
    /// When a definite path leads nowhere, or there is too much to look at.
    pub fn read(&self, document: &Value) -> Result<Value, JsonPathError> {
        let mut budget = STEPS_MAX;
        let found = self.select(document, document, &mut budget);
        let found = found.ok_or_else(|| JsonPathError::Limit(self.text.clone()))?;
        if let Some(function) = self.function {
            return function
                .apply(&found, self.is_plain())
                .ok_or_else(|| JsonPathError::Missing(self.text.clone()));
        }
        if self.is_definite() {
            let first = found.first().map(|value| (*value).clone());
            return first.ok_or_else(|| JsonPathError::Missing(self.text.clone()));
        }
        Ok(Value::Array(found.into_iter().cloned().collect()))
    }

    /// Whether the part before a function leads to one place.
    fn is_plain(&self) -> bool {
        self.steps.iter().all(|step| match step {
            Step::Names(names) => names.len() == 1,
            Step::Indexes(indexes) => indexes.len() == 1,
            _ => false,
        })
    }
}

impl Function {
    fn apply(self, found: &[&Value], plain: bool) -> Option<Value> {
        // Functions work on the elements of the one array found, or on everything an indefinite path found.
        let elements: Vec<&Value> = match found {
            [Value::Array(list)] if plain => list.iter().collect(),
            found => found.to_vec(),
        };
        let numbers = || elements.iter().filter_map(|value| value.as_f64());
        let number = |value: f64| Number::from_f64(value).map(Value::Number);
        match self {
            Self::Length => match found {
                [Value::Object(members)] if plain => Some(members.len().into()),
                [Value::String(text)] if plain => Some(text.chars().count().into()),
                [] if plain => None,
                _ => Some(elements.len().into()),
            },
            Self::Keys => match found {
                [Value::Object(members)] => {
                    Some(members.keys().cloned().map(Value::String).collect())
                }
                _ => None,
            },
            Self::First => elements.first().map(|value| (*value).clone()),
            Self::Last => elements.last().map(|value| (*value).clone()),
            Self::Min => numbers().reduce(f64::min).and_then(number),
            Self::Max => numbers().reduce(f64::max).and_then(number),
            Self::Sum => number(numbers().sum()),
            Self::Average => {
                let count = numbers().count();
                if count == 0 {
                    None
                } else {
                    number(numbers().sum::<f64>() / count as f64)
                }
            }
        }
    }
}

/// How a result reads as a variable: texts without quotes, everything else as JSON.
pub fn result_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
