//! Proxies and shared flows: names that have revisions.

use serde::{Deserialize, Serialize};

use super::{Entity, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// What a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BundleKind {
    /// An API proxy.
    Proxy,
    /// A shared flow.
    SharedFlow,
}

impl BundleKind {
    /// The word in keys and paths.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proxy => "apis",
            Self::SharedFlow => "sharedflows",
        }
    }

    /// The kind of a word in keys and paths.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "apis" => Some(Self::Proxy),
            "sharedflows" => Some(Self::SharedFlow),
            _ => None,
        }
    }

    /// The only folder at the top of an archive.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Proxy => "apiproxy",
            Self::SharedFlow => "sharedflowbundle",
        }
    }

    /// The field that carries its name in answers.
    pub fn field(self) -> &'static str {
        match self {
            Self::Proxy => "aPIProxy",
            Self::SharedFlow => "sharedFlow",
        }
    }

    /// What it is called in messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::Proxy => "APIProxy",
            Self::SharedFlow => "SharedFlow",
        }
    }

    /// 404 for one that is missing.
    pub fn missing(self, name: &str, organization: &str) -> ApiError {
        ApiError::missing(
            "messaging.config.beans.ApplicationDoesNotExist",
            format!(
                "{} named {name} does not exist in organization {organization}",
                self.title()
            ),
        )
    }
}

/// A proxy or shared flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    pub name: String,
    /// The number of the newest revision that ever was: numbers are not given twice.
    pub newest: u32,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for Bundle {
    const KIND: Kind = Kind::Bundle;
}
