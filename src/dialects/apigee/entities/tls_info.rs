//! TLS as target servers, virtual hosts and endpoints describe it: `SSLInfo`.

use serde::{Deserialize, Serialize};

use super::Fields;
use crate::dialects::apigee::error::ApiError;

/// `sSLInfo`. Names of stores may be references: `ref://NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsInfo {
    /// Whether TLS is spoken at all.
    pub enabled: bool,
    /// Two-way TLS: show a certificate, or demand one.
    pub client_auth_enabled: bool,
    /// Where the own certificate is, or a reference to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_store: Option<String>,
    /// The own certificate's alias in the key store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_alias: Option<String>,
    /// Where trusted certificates are, or a reference to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_store: Option<String>,
    /// Whether a peer that does not verify is accepted all the same.
    pub ignore_validation_errors: bool,
    #[serde(default)]
    pub ciphers: Vec<String>,
    #[serde(default)]
    pub protocols: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<CommonName>,
}

/// The name that a target's certificate must bear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommonName {
    pub value: String,
    pub wildcard_match: bool,
}

impl TlsInfo {
    /// Reads `sSLInfo`; none when the body has none.
    pub(super) fn read(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let Some(mut given) = fields.object("sSLInfo")? else {
            return Ok(None);
        };
        let common_name = read_common_name(&mut given)?;
        let info = Self {
            enabled: given.switch("enabled")?.unwrap_or(false),
            client_auth_enabled: given.switch("clientAuthEnabled")?.unwrap_or(false),
            key_store: given.text("keyStore")?.filter(|text| !text.is_empty()),
            key_alias: given.text("keyAlias")?.filter(|text| !text.is_empty()),
            trust_store: given.text("trustStore")?.filter(|text| !text.is_empty()),
            ignore_validation_errors: given.switch("ignoreValidationErrors")?.unwrap_or(false),
            ciphers: given.texts("ciphers")?,
            protocols: given.texts("protocols")?,
            common_name,
        };
        given.finish()?;
        Ok(Some(info))
    }

    /// The stores it names, without those of references.
    pub fn stores(&self) -> impl Iterator<Item = &str> {
        [&self.key_store, &self.trust_store]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

fn read_common_name(given: &mut Fields) -> Result<Option<CommonName>, ApiError> {
    let Some(value) = given.take("commonName") else {
        return Ok(None);
    };
    match value {
        serde_json::Value::String(value) if value.is_empty() => Ok(None),
        serde_json::Value::String(value) => Ok(Some(CommonName {
            value,
            wildcard_match: false,
        })),
        serde_json::Value::Object(fields) => {
            let mut fields = Fields::new(fields);
            let name = CommonName {
                value: fields.needed("value")?,
                wildcard_match: fields.switch("wildcardMatch")?.unwrap_or(false),
            };
            fields.finish()?;
            Ok(Some(name))
        }
        _ => Err(ApiError::field("commonName", "is not a text")),
    }
}
