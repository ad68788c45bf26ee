//! Revisions of proxies and shared flows, and the files that they are made of.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Entity, Kind, Stamp};

/// A revision, without its files: each stands in a row of its own, so that pieces can be written side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for Revision {
    const KIND: Kind = Kind::Revision;
}

/// A file of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionFile(pub Content);

/// The bytes of a file in a form that fits a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Base64(String),
}

impl Content {
    /// The content for these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Text(text) => Cow::Borrowed(text.as_bytes()),
            Self::Base64(text) => Cow::Owned(STANDARD.decode(text).unwrap_or_default()),
        }
    }
}

impl Entity for RevisionFile {
    const KIND: Kind = Kind::RevisionFile;
}

impl RevisionFile {
    /// A file of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Content::of(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        self.0.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        for bytes in [&b""[..], b"<a/>", b"\xff\x00\xfe", "\u{feff}x".as_bytes()] {
            assert_eq!(&*Content::of(bytes).bytes(), bytes);
        }
    }
}
