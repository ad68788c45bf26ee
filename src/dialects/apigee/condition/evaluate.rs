//! From tree and variables to true or false.
//!
//! Owns the documented tables: what null gives with each operator, and how types adapt.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::pattern::{Glob, PathPattern};
use super::{Condition, Node, Operand, Operator, Test};
use crate::dialects::apigee::java_regex::{JavaRegex, StepLimit};
use crate::dialects::apigee::variables::{Value, Variables, text_of};

/// Why a condition has no answer. Everything else that may go wrong is settled when it is parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// A regular expression took too many steps on this text: treat the request as one that must not pass.
    #[error(transparent)]
    Steps(#[from] StepLimit),
}

impl Condition {
    /// Whether it holds.
    ///
    /// # Errors
    /// Only when a regular expression takes more steps than it may.
    pub fn evaluate(&self, variables: &impl Variables) -> Result<bool, EvaluationError> {
        self.root.evaluate(variables)
    }
}

impl Node {
    fn evaluate(&self, variables: &impl Variables) -> Result<bool, EvaluationError> {
        Ok(match self {
            Self::True => true,
            Self::All(nodes) => {
                for node in nodes {
                    if !node.evaluate(variables)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Any(nodes) => {
                for node in nodes {
                    if node.evaluate(variables)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::Not(node) => !node.evaluate(variables)?,
            Self::Truth(operand) => operand
                .value(variables)
                .and_then(|value| value.as_boolean())
                .unwrap_or(false),
            Self::Compare(left, operator, right) => {
                let (left, right) = (left.value(variables), right.value(variables));
                operator.holds(left, right, variables)?
            }
            Self::Matches {
                subject,
                test,
                negated,
            } => match subject.value(variables) {
                None => *negated,
                Some(value) => test.matches(&text_of(value, variables))? != *negated,
            },
        })
    }
}

impl Operand {
    fn value<'v>(&'v self, variables: &'v impl Variables) -> Option<Value<'v>> {
        match self {
            Self::Null => None,
            Self::Literal(value) => Some(value.borrowed()),
            Self::Variable(name) => variables.variable(name),
        }
    }
}

impl Test {
    fn matches(&self, text: &str) -> Result<bool, EvaluationError> {
        Ok(match self {
            Self::Glob(glob) => glob.matches(text),
            Self::Path(pattern) => pattern.matches(text),
            Self::Regex(regex) => regex.is_match(text)?,
        })
    }
}

impl Operator {
    fn holds<V: Variables>(
        self,
        left: Option<Value<'_>>,
        right: Option<Value<'_>>,
        variables: &V,
    ) -> Result<bool, EvaluationError> {
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => return Ok(self.with_null(left.is_none(), right.is_none())),
        };
        let ordered = |accepted: &[Ordering]| {
            left.ordering(&right)
                .is_some_and(|ordering| accepted.contains(&ordering))
        };
        let texts = || -> (Cow<'_, str>, Cow<'_, str>) {
            (
                text_of(left.borrowed(), variables),
                text_of(right.borrowed(), variables),
            )
        };
        Ok(match self {
            Self::Equals => left.equals(&right),
            Self::NotEquals => !left.equals(&right),
            Self::EqualsIgnoringCase => left.equals_ignoring_case(&right),
            Self::Greater => ordered(&[Ordering::Greater]),
            Self::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
            Self::Less => ordered(&[Ordering::Less]),
            Self::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
            Self::StartsWith => {
                let (text, prefix) = texts();
                text.starts_with(prefix.as_ref())
            }
            // Patterns from variables are taken apart each time; they are rare.
            Self::Glob | Self::NotGlob => {
                let (text, pattern) = texts();
                Glob::new(&pattern).matches(&text) == (self == Self::Glob)
            }
            Self::Path => {
                let (text, pattern) = texts();
                PathPattern::new(&pattern).matches(&text)
            }
            Self::Regex => {
                let (text, pattern) = texts();
                // What is no pattern matches nothing.
                match JavaRegex::whole(&pattern) {
                    Ok(regex) => regex.is_match(&text)?,
                    Err(_) => false,
                }
            }
        })
    }

    /// The table of null operands (Apigee: "Null operands in conditional statements").
    fn with_null(self, left: bool, right: bool) -> bool {
        let both = left && right;
        match self {
            Self::Equals | Self::EqualsIgnoringCase => both,
            Self::NotEquals => !both,
            Self::StartsWith | Self::Glob | Self::Path | Self::Regex => false,
            Self::Greater => left && !right,
            Self::GreaterOrEqual => right,
            Self::Less => right && !left,
            Self::LessOrEqual => left,
            Self::NotGlob => left && !right,
        }
    }
}
