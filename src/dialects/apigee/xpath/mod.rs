//! XPath 1.0 over the dialect's own tree.
//!
//! Owns the whole language but for variables and the namespace axis, which no policy can give meaning to. It is our own
//! because evaluation must be bounded: published engines follow a stranger's document and expression wherever they lead.
//! Refuses to look at more than [`STEPS_MAX`] nodes. Start at [`XPath::parse`].

mod evaluate;
mod function;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use super::xml::{Attribute, Document, Node, escape_attribute, write_node};
use function::Function;

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 8 * 1024;
/// The deepest nesting of parentheses, predicates and calls.
pub const DEPTH_MAX: usize = 32;
/// Nodes that one evaluation looks at; long texts count more than once.
pub const STEPS_MAX: usize = 2_000_000;

/// A parsed expression.
#[derive(Debug)]
pub struct XPath {
    text: Box<str>,
    root: Expression,
}

/// The evaluation looks at more nodes than allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the XPath '{0}' looks at more than {STEPS_MAX} nodes")]
pub struct XPathLimit(pub Box<str>);

/// What an expression gives.
#[derive(Debug)]
pub enum Outcome<'d> {
    /// Nodes in document order.
    Nodes(Vec<Item<'d>>),
    Number(f64),
    Text(Cow<'d, str>),
    Boolean(bool),
}

/// A node or an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Item<'d> {
    Node(Node<'d>),
    /// An attribute and its place among those of its element.
    Attribute(Attribute<'d>, u32),
}

impl<'d> Item<'d> {
    /// Its place in document order: attributes come between their element and its children.
    fn order(&self) -> (u32, u32) {
        match self {
            Self::Node(node) => (node.index(), 0),
            Self::Attribute(attribute, number) => (attribute.element().node().index(), number + 1),
        }
    }

    /// Its string value.
    pub fn text(&self) -> Cow<'d, str> {
        match self {
            Self::Node(node) => node.text(),
            Self::Attribute(attribute, _) => Cow::Borrowed(attribute.value()),
        }
    }

    /// It as XML: an element with everything below it, an attribute as it is written.
    pub fn write_xml(&self, into: &mut String) {
        match self {
            Self::Node(node) => write_node(*node, into),
            Self::Attribute(attribute, _) => {
                into.push_str(&format!(
                    "{}=\"{}\"",
                    attribute.full_name(),
                    escape_attribute(attribute.value())
                ));
            }
        }
    }
}

impl<'d> Outcome<'d> {
    /// As text: of nodes, the first one's.
    pub fn text(&self) -> Cow<'d, str> {
        match self {
            Self::Nodes(items) => items.first().map(Item::text).unwrap_or_default(),
            Self::Number(number) => Cow::Owned(number_text(*number)),
            Self::Text(text) => text.clone(),
            Self::Boolean(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        }
    }

    /// As a boolean: nodes and texts are true unless empty.
    pub fn boolean(&self) -> bool {
        match self {
            Self::Nodes(items) => !items.is_empty(),
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::Text(text) => !text.is_empty(),
            Self::Boolean(value) => *value,
        }
    }

    /// As a number; what is none is NaN.
    pub fn number(&self) -> f64 {
        match self {
            Self::Nodes(_) => number_of(&self.text()),
            Self::Number(number) => *number,
            Self::Text(text) => number_of(text),
            Self::Boolean(value) => f64::from(u8::from(*value)),
        }
    }

    /// Whether it is an empty set of nodes.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nodes(items) if items.is_empty())
    }

    /// Nodes as XML, one after another; anything else as text.
    pub fn xml(&self) -> String {
        match self {
            Self::Nodes(items) => {
                let mut text = String::new();
                items.iter().for_each(|item| item.write_xml(&mut text));
                text
            }
            other => other.text().into_owned(),
        }
    }
}

/// A number as XPath 1.0, 4.2 prints it.
fn number_text(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    number.to_string()
}

/// A text as a number: digits with at most a point and a minus, white space around it ignored; else NaN.
fn number_of(text: &str) -> f64 {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.bytes().any(|byte| byte.is_ascii_digit());
    if is_number {
        text.parse().unwrap_or(f64::NAN)
    } else {
        f64::NAN
    }
}

impl XPath {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the expression gives, seen from the document node.
    ///
    /// # Errors
    /// When it looks at too many nodes.
    pub fn evaluate<'d>(&self, document: &'d Document) -> Result<Outcome<'d>, XPathLimit> {
        evaluate::evaluate(&self.root, document).ok_or_else(|| XPathLimit(self.text.clone()))
    }
}

/// Chains of operators are lists, so the depth of the tree is that of the text's nesting.
#[derive(Debug)]
enum Expression {
    Or(Vec<Expression>),
    And(Vec<Expression>),
    /// A first operand, and comparisons with further ones from left to right.
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// A first operand, and further ones from left to right.
    Calculate(Box<Expression>, Vec<(Arithmetic, Expression)>),
    Negate(Box<Expression>),
    Union(Vec<Expression>),
    Literal(Box<str>),
    Number(f64),
    Call(Function, Vec<Expression>),
    /// A path from the document (absolute) or from the node in question.
    Path {
        absolute: bool,
        steps: Vec<Step>,
    },
    /// Something in parentheses, or a call, with predicates and steps behind it.
    Filtered {
        from: Box<Expression>,
        predicates: Vec<Expression>,
        steps: Vec<Step>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug)]
struct Step {
    axis: Axis,
    test: Test,
    predicates: Vec<Expression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Child,
    Descendant,
    DescendantOrSelf,
    Parent,
    Ancestor,
    AncestorOrSelf,
    FollowingSibling,
    PrecedingSibling,
    Following,
    Preceding,
    Attribute,
    Itself,
}

impl Axis {
    /// Whether positions count backwards in document order.
    fn is_reverse(self) -> bool {
        matches!(
            self,
            Self::Ancestor
                | Self::AncestorOrSelf
                | Self::Preceding
                | Self::PrecedingSibling
                | Self::Parent
        )
    }
}

#[derive(Debug)]
enum Test {
    /// `*`
    AnyName,
    /// `p:*`
    AnyIn(Arc<str>),
    /// A name in a namespace or outside of all.
    Name {
        namespace: Option<Arc<str>>,
        local: Box<str>,
    },
    /// `node()`
    AnyNode,
    /// `text()`
    Text,
    /// `comment()`
    Comment,
    /// `processing-instruction()`, with a target perhaps.
    Instruction(Option<Box<str>>),
}
