//! Target servers: hosts that target endpoints balance over by name.

use serde::{Deserialize, Serialize};

use super::{Entity, Fields, Kind, Stamp, TlsInfo};
use crate::dialects::apigee::error::ApiError;

/// A target server of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetServer {
    pub name: String,
    pub host: String,
    pub port: u16,
    /// Receives requests.
    pub is_enabled: bool,
    #[serde(rename = "sSLInfo", default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsInfo>,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for TargetServer {
    const KIND: Kind = Kind::TargetServer;
}

impl TargetServer {
    /// Reads a body, which replaces the whole entity.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        let server = Self {
            name: fields.name()?,
            host: fields.needed("host")?,
            port: match fields.port("port")? {
                Some(port) => port,
                None => return Err(ApiError::field("port", "is missing")),
            },
            is_enabled: fields.switch("isEnabled")?.unwrap_or(true),
            tls: TlsInfo::read(&mut fields)?,
            stamp,
        };
        if let Some(protocol) = fields.text("protocol")?
            && !protocol.eq_ignore_ascii_case("http")
        {
            return Err(ApiError::field(
                "protocol",
                format!("'{protocol}' is not supported, allowed is http"),
            ));
        }
        fields.ignore(&[]);
        fields.finish()?;
        if server
            .host
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '/')
        {
            return Err(ApiError::field(
                "host",
                format!("'{}' is no host name or address", server.host),
            ));
        }
        Ok(server)
    }
}
