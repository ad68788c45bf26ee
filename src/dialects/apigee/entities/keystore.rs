//! Keystores and what they hold: certificates with their keys, and trusted certificates.

use serde::{Deserialize, Serialize};

use super::{Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// A keystore of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keystore {
    pub name: String,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for Keystore {
    const KIND: Kind = Kind::Keystore;
}

impl Keystore {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        let name = fields.name()?;
        fields.ignore(&["aliases", "certs", "keys"]);
        fields.finish()?;
        Ok(Self { name, stamp })
    }
}

/// An alias of a keystore: a certificate chain, with its key or trusted without one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeystoreAlias {
    pub name: String,
    /// PEM, the leaf first.
    pub certificate: String,
    /// PEM without passphrase; none for trusted certificates.
    #[serde(default)]
    pub key: Option<String>,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for KeystoreAlias {
    const KIND: Kind = Kind::KeystoreAlias;
}

impl KeystoreAlias {
    /// The name under which the oldest calls know the certificate.
    pub fn certificate_name(&self) -> String {
        format!("{}-cert", self.name)
    }
}
