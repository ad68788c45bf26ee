//! Message templates: texts with `{variable}`, `{variable:default}` and `{function(arguments)}`.
//!
//! Owns their grammar (`parse`), their functions (`function`) and the rule of what stays as it is: braces that hold
//! neither a variable's name nor a known function are plain text, so JSON passes through. Refuses to know what a template
//! is for; whoever renders one says what an unresolved variable means.

mod escape;
mod function;
mod parse;
#[cfg(test)]
mod tests;
mod xeger;

use std::borrow::Cow;
use std::fmt;

use super::java_regex::StepLimit;
use super::variables::{VariableName, Variables, text_of};
use function::Call;
pub use parse::{BYTES_MAX, PIECES_MAX, TemplateError};

/// The longest text that rendering makes, in bytes.
pub const RENDERED_BYTES_MAX: usize = 16 << 20;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    text: Box<str>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Literal(Box<str>),
    Reference(Reference),
    Call(Box<Call>),
}

/// A variable with what stands for it when it is unresolved.
#[derive(Debug)]
struct Reference {
    name: VariableName,
    default: Option<Box<str>>,
}

/// What becomes of a variable that is unset and has no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// Empty text (`IgnoreUnresolvedVariables` true).
    Empty,
    /// Rendering fails and names it.
    Fails,
}

/// Why a template was not rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A variable is unset, has no default and may not be missing.
    #[error("unable to resolve variable {0}")]
    Unresolved(Box<str>),
    /// The result is larger than [`RENDERED_BYTES_MAX`].
    #[error("the text of the template is larger than {RENDERED_BYTES_MAX} bytes")]
    TooLarge,
    /// A regular expression took too many steps.
    #[error(transparent)]
    Steps(#[from] StepLimit),
    /// A function's argument, known only now, does not fit.
    #[error("function {function}: {reason}")]
    Argument {
        /// The function.
        function: &'static str,
        /// Why its argument does not fit.
        reason: String,
    },
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Template {
    /// A text that is not a template: braces are plain.
    pub fn literal(text: &str) -> Self {
        Self {
            text: text.into(),
            pieces: vec![Piece::Literal(text.into())],
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text when it is the same for every request.
    pub fn fixed(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables that it reads, in order of mention.
    pub fn variables(&self) -> Vec<&VariableName> {
        let mut found = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(_) => {}
                Piece::Reference(reference) => found.push(&reference.name),
                Piece::Call(call) => found.extend(call.variables()),
            }
        }
        found
    }

    /// The text with everything in place.
    ///
    /// # Errors
    /// When a variable may not be missing and is, or a function runs into a limit.
    pub fn render<'t>(
        &'t self,
        variables: &'t impl Variables,
        unresolved: Unresolved,
    ) -> Result<Cow<'t, str>, RenderError> {
        match self.pieces.as_slice() {
            [] => return Ok(Cow::Borrowed("")),
            [piece] => return piece.render(variables, unresolved),
            _ => {}
        }
        let mut text = String::with_capacity(self.text.len());
        for piece in &self.pieces {
            text.push_str(&piece.render(variables, unresolved)?);
            if text.len() > RENDERED_BYTES_MAX {
                return Err(RenderError::TooLarge);
            }
        }
        Ok(Cow::Owned(text))
    }
}

impl Piece {
    fn render<'t>(
        &'t self,
        variables: &'t impl Variables,
        unresolved: Unresolved,
    ) -> Result<Cow<'t, str>, RenderError> {
        match self {
            Self::Literal(text) => Ok(Cow::Borrowed(text)),
            Self::Reference(reference) => match reference.resolve(variables) {
                Some(text) => Ok(text),
                None => missing(reference, unresolved),
            },
            Self::Call(call) => call.render(variables, unresolved),
        }
    }
}

impl Reference {
    fn resolve<'t>(&'t self, variables: &'t impl Variables) -> Option<Cow<'t, str>> {
        match variables.variable(&self.name) {
            Some(value) => Some(text_of(value, variables)),
            None => self.default.as_deref().map(Cow::Borrowed),
        }
    }
}

fn missing(
    reference: &Reference,
    unresolved: Unresolved,
) -> Result<Cow<'static, str>, RenderError> {
    match unresolved {
        Unresolved::Empty => Ok(Cow::Borrowed("")),
        Unresolved::Fails => Err(RenderError::Unresolved(reference.name.as_str().into())),
    }
}
