//! Conditions of flows, steps, route rules and fault rules: parsed once, evaluated for every request.
//!
//! Owns the condition language: grammar and limits (`parse`), the tables of types and nulls (`evaluate`), globs
//! (`pattern`). Refuses to know variables; whoever evaluates hands in [`Variables`](super::variables::Variables).
//!
//! ```text
//! condition  := or                      (empty: true)
//! or         := and ( OR and )*
//! and        := unary ( AND unary )*
//! unary      := NOT unary | comparison
//! comparison := "(" or ")" | operand [ [NOT] operator operand ]
//! operand    := "text" | number | null | true | false | variable | 'variable with any characters'
//! ```

mod evaluate;
mod parse;
pub mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;

use super::java_regex::JavaRegex;
use super::variables::{Value, VariableName};
pub use evaluate::EvaluationError;
pub use parse::{BYTES_MAX, COMPARISONS_MAX, ConditionError, DEPTH_MAX};
use pattern::{Glob, PathPattern};

/// A parsed condition.
#[derive(Debug)]
pub struct Condition {
    text: Box<str>,
    root: Node,
}

impl Condition {
    /// As it was written, white space around it removed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The variables that it may read, in order of mention.
    pub fn variables(&self) -> Vec<&VariableName> {
        let mut found = Vec::new();
        self.root.collect(&mut found);
        found
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A node of the syntax tree; at most [`DEPTH_MAX`] deep.
#[derive(Debug)]
enum Node {
    /// The empty condition.
    True,
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// An operand alone.
    Truth(Operand),
    Compare(Operand, Operator, Operand),
    /// A pattern, known when the condition was parsed.
    Matches {
        subject: Operand,
        test: Test,
        negated: bool,
    },
}

impl Node {
    fn collect<'n>(&'n self, found: &mut Vec<&'n VariableName>) {
        match self {
            Self::True => {}
            Self::All(nodes) | Self::Any(nodes) => {
                nodes.iter().for_each(|node| node.collect(found))
            }
            Self::Not(node) => node.collect(found),
            Self::Truth(operand)
            | Self::Matches {
                subject: operand, ..
            } => found.extend(operand.variable()),
            Self::Compare(left, _, right) => {
                found.extend(left.variable());
                found.extend(right.variable());
            }
        }
    }
}

#[derive(Debug)]
enum Operand {
    Null,
    Literal(Value<'static>),
    Variable(VariableName),
}

impl Operand {
    fn variable(&self) -> Option<&VariableName> {
        match self {
            Self::Variable(name) => Some(name),
            _ => None,
        }
    }
}

/// How two operands are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    NotEquals,
    EqualsIgnoringCase,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    StartsWith,
    /// `~`
    Glob,
    /// `!~`
    NotGlob,
    /// `~/`
    Path,
    /// `~~`
    Regex,
}

/// A pattern that stands in the condition itself.
#[derive(Debug)]
enum Test {
    Glob(Glob),
    Path(PathPattern),
    Regex(JavaRegex),
}
