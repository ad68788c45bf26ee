//! From text to pieces.
//!
//! Owns what counts as a variable or a call and what stays. Nothing that merely has braces is an error; a known function
//! with the wrong arguments is.

use super::function::{Call, Function};
use super::{Piece, Reference, Template};
use crate::base::diagnostic::Diagnostic;
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::variables::VariableName;

/// The longest template, in bytes.
pub const BYTES_MAX: usize = 1 << 20;
/// The most variables and calls in one template.
pub const PIECES_MAX: usize = 10_000;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template, line {line}, column {column}: {message}")]
pub struct TemplateError {
    /// Within the template, counted from 1.
    pub line: u32,
    /// In characters within its line, counted from 1.
    pub column: u32,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl TemplateError {
    /// The error for whoever wrote it; `at` is the place of the element that holds the template.
    pub fn diagnostic(&self, at: SourceRef) -> Diagnostic {
        Diagnostic::error("invalid-template", at, self.to_string())
    }
}

/// An argument of a call.
#[derive(Debug)]
pub(super) enum Argument {
    Literal(Box<str>),
    Reference(Reference),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// For a known function with arguments that cannot be right, and for texts beyond the limits.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_delimited(text, "{", "}")
    }

    /// Parses a text in which variables stand between other delimiters (`variablePrefix`, `variableSuffix`); functions
    /// are known between braces only.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn parse_delimited(text: &str, prefix: &str, suffix: &str) -> Result<Self, TemplateError> {
        let fail = |at: usize, message: String| {
            let before = text.get(..at).unwrap_or_default();
            let line = before.rsplit('\n').next().unwrap_or_default();
            TemplateError {
                line: 1 + before.matches('\n').count() as u32,
                column: 1 + line.chars().count() as u32,
                message,
            }
        };
        if text.len() > BYTES_MAX {
            return Err(fail(0, format!("is longer than {BYTES_MAX} bytes")));
        }
        let mut pieces = Vec::new();
        // Beginning of the text that is not yet in a piece, and where the search goes on.
        let (mut plain, mut from) = (0, 0);
        if prefix.is_empty() || suffix.is_empty() {
            return Ok(Self::literal(text));
        }
        while let Some(found) = text.get(from..).and_then(|rest| rest.find(prefix)) {
            let at = from + found;
            let inside = at + prefix.len();
            let rest = text.get(inside..).unwrap_or_default();
            from = inside;
            let Some((piece, length)) =
                expression(rest, suffix).map_err(|message| fail(at, message))?
            else {
                continue;
            };
            if pieces.len() >= PIECES_MAX {
                return Err(fail(at, format!("has more than {PIECES_MAX} variables")));
            }
            if let Some(before) = text.get(plain..at).filter(|before| !before.is_empty()) {
                pieces.push(Piece::Literal(before.into()));
            }
            pieces.push(piece);
            from = inside + length;
            plain = from;
        }
        if let Some(rest) = text.get(plain..).filter(|rest| !rest.is_empty()) {
            pieces.push(Piece::Literal(rest.into()));
        }
        Ok(Self {
            text: text.into(),
            pieces,
        })
    }
}

/// What begins behind an opening brace, with its length to behind the closing one. `None`: the brace is plain text.
fn expression(rest: &str, suffix: &str) -> Result<Option<(Piece, usize)>, String> {
    let word = word_of(rest);
    let after = rest.get(word.len()..).unwrap_or_default();
    if !VariableName::is_plain(word) {
        return Ok(None);
    }
    if after.starts_with(suffix) {
        let reference = Reference {
            name: VariableName::new(word),
            default: None,
        };
        return Ok(Some((
            Piece::Reference(reference),
            word.len() + suffix.len(),
        )));
    }
    if let Some(default) = after.strip_prefix(':') {
        let Some(end) = default.find(suffix) else {
            return Ok(None);
        };
        let default = default.get(..end).unwrap_or_default();
        if default.contains(['{', '\n', '"']) {
            return Ok(None);
        }
        let length = word.len() + 1 + default.len() + suffix.len();
        let reference = Reference {
            name: VariableName::new(word),
            default: Some(default.into()),
        };
        return Ok(Some((Piece::Reference(reference), length)));
    }
    if suffix != "}" || !after.starts_with('(') {
        return Ok(None);
    }
    let Some(function) = Function::named(word) else {
        return Ok(None);
    };
    let inside = after.get(1..).unwrap_or_default();
    let Some((arguments, behind)) = arguments(inside) else {
        return Ok(None);
    };
    if !behind.starts_with('}') {
        return Ok(None);
    }
    let call = Call::new(function, arguments)?;
    Ok(Some((
        Piece::Call(Box::new(call)),
        rest.len() - behind.len() + 1,
    )))
}

fn word_of(text: &str) -> &str {
    let end = text.find(|character: char| {
        !(character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-'))
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// Arguments up to the closing parenthesis, and what follows it. `None` when it is no list of arguments.
fn arguments(text: &str) -> Option<(Vec<Argument>, &str)> {
    let mut list = Vec::new();
    let mut rest = text;
    if let Some(behind) = rest.strip_prefix(')') {
        return Some((list, behind));
    }
    loop {
        let argument;
        (argument, rest) = self::argument(rest)?;
        list.push(argument);
        let separator = rest.chars().next()?;
        rest = rest.get(separator.len_utf8()..)?;
        match separator {
            ',' => {}
            ')' => return Some((list, rest)),
            _ => return None,
        }
    }
}

fn argument(text: &str) -> Option<(Argument, &str)> {
    if let Some(body) = text.strip_prefix('\'') {
        let (literal, rest) = body.split_once('\'')?;
        return Some((Argument::Literal(literal.into()), rest));
    }
    let word = word_of(text);
    let rest = text.get(word.len()..)?;
    let is_number = word
        .strip_prefix('-')
        .unwrap_or(word)
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    if is_number && !word.is_empty() && word != "-" {
        return Some((Argument::Literal(word.into()), rest));
    }
    if !VariableName::is_plain(word) {
        return None;
    }
    let mut reference = Reference {
        name: VariableName::new(word),
        default: None,
    };
    let Some(default) = rest.strip_prefix(':') else {
        return Some((Argument::Reference(reference), rest));
    };
    let end = default.find([',', ')'])?;
    let (default, rest) = default.split_at_checked(end)?;
    reference.default = Some(default.into());
    Some((Argument::Reference(reference), rest))
}
