//! The errors of the management API: status, code and text as Apigee's clients know them.
//!
//! Source: Apigee Edge, "error shape". Whoever answers a client renders [`ApiError::to_json`] with [`ApiError::status`].

use std::fmt;

use serde_json::{Value, json};

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status of the answer.
    pub status: u16,
    /// What programs tell apart, for example `messaging.config.beans.CacheDoesNotExist`.
    pub code: &'static str,
    /// The text for people; clients print it.
    pub message: String,
    /// Further findings, one each: what else is wrong with a bundle.
    pub contexts: Vec<String>,
}

impl ApiError {
    /// An error with a code of its own.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            contexts: Vec::new(),
        }
    }

    /// 400: what was sent cannot be used.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "messaging.config.beans.InvalidRequest", message)
    }

    /// 400 for one field of a body.
    pub fn field(name: &str, message: impl fmt::Display) -> Self {
        Self::bad_request(format!("field {name}: {message}"))
    }

    /// 409: the name is taken.
    pub fn exists(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(409, code, message)
    }

    /// 404.
    pub fn missing(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(404, code, message)
    }

    /// 400: something else still uses it.
    pub fn in_use(message: impl Into<String>) -> Self {
        Self::new(400, "messaging.config.beans.EntityInUse", message)
    }

    /// 500. The answer hides the text; the log shows it.
    pub fn failure(reason: impl Into<String>) -> Self {
        Self::new(500, "messaging.runtime.InternalError", reason)
    }

    /// The same error with further findings.
    #[must_use]
    pub fn with_contexts(mut self, contexts: Vec<String>) -> Self {
        self.contexts = contexts;
        self
    }

    /// Whether the text must not be shown to clients.
    pub fn is_failure(&self) -> bool {
        self.status >= 500 && self.status != 501
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Value {
        let message = if self.is_failure() {
            "An unexpected error occurred"
        } else {
            &self.message
        };
        json!({"code": self.code, "message": message, "contexts": self.contexts})
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for context in &self.contexts {
            write!(f, "; {context}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}
