//! Conditions: parse once, evaluate often. Pure, and without opinions about where the values come from.
//!
//! This module owns the expression language of route matching (Kong calls it ATC): its grammar, its types, its
//! limits and its evaluation. It does not know what a request is; whoever evaluates an expression implements
//! [`Fields`].
//!
//! Start with [`Expression::parse`] in `parse.rs`, then [`Expression::matches`] in `evaluate.rs`. `check.rs` says which
//! literals fit which fields, `field.rs` lists what can be asked about, `pattern.rs` holds what every user of regular expressions needs.
//!
//! ```text
//! conjunction := disjunction ( "&&" disjunction )*
//! disjunction := term ( "||" term )*                       // yes: || binds tighter than &&
//! term        := predicate | "(" conjunction ")" | "!" "(" conjunction ")"
//! predicate   := lhs operator literal
//! lhs         := field | "lower" "(" lhs ")" | "any" "(" lhs ")"
//! operator    := == != ~ ^= =^ > >= < <= in "not in" contains
//! literal     := "text" | r#"raw text"# | integer | address | address "/" bits
//! ```

mod anchor;
mod check;
mod evaluate;
mod field;
mod parse;
pub mod pattern;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use anchor::Anchors;
pub use evaluate::{Fields, PathMatch, lowered};
pub use field::{Field, Kind, Scope};
pub use parse::{DEPTH_MAX, EXPRESSION_BYTES_MAX, PREDICATES_MAX, ParseError};

use pattern::Pattern;

/// A parsed, type-checked condition with its regexes compiled. The plan keeps the text, the running router this.
#[derive(Debug)]
pub struct Expression {
    root: Node,
}

/// A node of the syntax tree; at most [`DEPTH_MAX`] deep.
#[derive(Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Predicate(Predicate),
}

/// One comparison of a field with a literal.
#[derive(Debug)]
struct Predicate {
    field: Field,
    /// Compare the lower-cased value.
    lower: bool,
    /// One value of a multi-valued field suffices; otherwise all must satisfy the test.
    any: bool,
    test: Test,
}

/// What a predicate asks of a value; the parser has made sure that it fits the field's kind.
#[derive(Debug)]
enum Test {
    Text(TextTest),
    Integer(IntegerTest, i64),
    Address(AddressTest),
}

#[derive(Debug)]
enum TextTest {
    Equals(Box<[u8]>),
    Differs(Box<[u8]>),
    StartsWith(Box<[u8]>),
    EndsWith(Box<[u8]>),
    Contains(Box<[u8]>),
    /// Shared, because whoever learns of a match may want its groups long after.
    Matches(Arc<Pattern>),
}

#[derive(Debug, Clone, Copy)]
enum IntegerTest {
    Equals,
    Differs,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug)]
enum AddressTest {
    Equals(IpAddr),
    Differs(IpAddr),
    In(IpNet),
    NotIn(IpNet),
}
