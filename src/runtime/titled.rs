//! A header name with its customary spelling, which HTTP/1.1 shows.

use bytes::Bytes;
use http::HeaderName;

use crate::base::token::is_named;

/// A header name in the two forms that writers need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TitledName {
    pub name: HeaderName,
    /// As sent over HTTP/1.1. Cheap to clone.
    pub title: Bytes,
}

impl TitledName {
    /// A name known when this was written. What is no header name becomes one that nobody uses; a test would show it.
    pub fn fixed(title: &'static str) -> Self {
        let name =
            HeaderName::try_from(title).unwrap_or_else(|_| HeaderName::from_static("x-misnamed"));
        Self {
            name,
            title: Bytes::from_static(title.as_bytes()),
        }
    }

    /// The error says what is no header name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name =
            HeaderName::try_from(text).map_err(|_| format!("'{text}' is not a header name"))?;
        Ok(Self {
            name,
            title: Bytes::copy_from_slice(text.as_bytes()),
        })
    }

    /// Is it this name, in whatever case?
    pub fn is(&self, name: &[u8]) -> bool {
        is_named(name, self.name.as_str().as_bytes())
    }
}
