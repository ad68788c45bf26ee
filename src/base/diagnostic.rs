//! What is told to whoever wrote a configuration.
//!
//! Owns the one shape in which every reader of documents (settings, dialects, compile, link) reports what is wrong, all
//! at once. Refuses to know how it is shown: the command line prints it, the Admin API and bundle import map it to their
//! own shapes. Start at [`Diagnostic::error`].

use std::fmt;

use serde::Serialize;

use super::source_ref::SourceRef;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, but probably not as meant.
    Warning,
    /// The entity or document cannot be used as written.
    Error,
}

/// One finding about a configuration, with its place and a way out.
///
/// Shown as `FILE:LINE: SUBJECT: MESSAGE, HINT`, for example
/// `sallyport.toml:3: proxy_lisen: unknown key, did you mean 'proxy_listen'?`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the document may still be used.
    pub severity: Severity,
    /// A stable word for programs, in kebab case: `unknown-key`, `invalid-value`. Never changes with the wording.
    pub code: &'static str,
    /// Where it was written.
    pub at: SourceRef,
    /// What is wrong. Lower case, no final period, no type names of this program.
    pub message: String,
    /// What is allowed, or what to do instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding that forbids the use of its entity or document.
    pub fn error(code: &'static str, at: SourceRef, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            at,
            message: message.into(),
            hint: None,
        }
    }

    /// A finding that leaves the document usable.
    pub fn warning(code: &'static str, at: SourceRef, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            code,
            at,
            message: message.into(),
            hint: None,
        }
    }

    /// The same finding, with what is allowed.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether it forbids use.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_unknown() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ", {hint}"),
            None => Ok(()),
        }
    }
}

/// Whether any of the findings forbids use.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_line() {
        let at = SourceRef::document("sallyport.toml")
            .at_line(3)
            .about("proxy_lisen");
        let finding = Diagnostic::error("unknown-key", at, "unknown key")
            .with_hint("did you mean 'proxy_listen'?");
        assert_eq!(
            finding.to_string(),
            "sallyport.toml:3: proxy_lisen: unknown key, did you mean 'proxy_listen'?"
        );
        let bare = Diagnostic::warning("empty", SourceRef::default(), "nothing to do");
        assert_eq!(bare.to_string(), "nothing to do");
        assert!(has_errors(&[bare.clone(), finding]));
        assert!(!has_errors(&[bare]));
    }
}
