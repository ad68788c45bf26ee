//! Virtual hosts: where proxies are called.

use serde::{Deserialize, Serialize};

use super::environment::Properties;
use super::{Entity, Fields, Kind, Stamp, TlsInfo};
use crate::dialects::apigee::error::ApiError;

/// The virtual host that stands for the plain proxy listeners.
pub const PLAIN: &str = "default";
/// The virtual host that stands for the TLS proxy listeners.
pub const SECURE: &str = "secure";

/// A virtual host of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualHost {
    pub name: String,
    /// Names and addresses that clients ask for, perhaps with a port; `*` or none at all: any.
    pub host_aliases: Vec<String>,
    pub interfaces: Vec<String>,
    pub listen_options: Vec<String>,
    pub retry_options: Vec<String>,
    /// The port of the proxy listener that it stands for, as a text; empty: whichever.
    pub port: String,
    #[serde(default)]
    pub base_url: String,
    #[serde(default)]
    pub properties: Properties,
    #[serde(rename = "sSLInfo", default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsInfo>,
    /// One of the two that every environment has: they stand for listeners, whatever their port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub built_in: bool,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for VirtualHost {
    const KIND: Kind = Kind::VirtualHost;
}

impl VirtualHost {
    /// One of the two that exist from the start; any host name is theirs.
    pub fn built_in(name: &str, tls: bool, stamp: Stamp) -> Self {
        Self {
            name: name.to_owned(),
            host_aliases: Vec::new(),
            interfaces: Vec::new(),
            listen_options: Vec::new(),
            retry_options: Vec::new(),
            port: if tls { "443" } else { "80" }.to_owned(),
            base_url: String::new(),
            properties: Properties::default(),
            tls: tls.then(|| TlsInfo {
                enabled: true,
                ..TlsInfo::default()
            }),
            built_in: true,
            stamp,
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        let host = Self {
            name: fields.name()?,
            host_aliases: fields.texts("hostAliases")?,
            interfaces: fields.texts("interfaces")?,
            listen_options: fields.texts("listenOptions")?,
            retry_options: fields.texts("retryOptions")?,
            port: fields
                .port("port")?
                .map_or_else(String::new, |port| port.to_string()),
            base_url: fields.text("baseUrl")?.unwrap_or_default(),
            properties: Properties::read(&mut fields)?,
            tls: TlsInfo::read(&mut fields)?,
            built_in: false,
            stamp,
        };
        fields.ignore(&[
            "useBuiltInFreeTrialCert",
            "builtIn",
            "propagateTLSInformation",
        ]);
        fields.finish()?;
        host.check_tls()?;
        for (field, list) in [
            ("interfaces", &host.interfaces),
            ("listenOptions", &host.listen_options),
        ] {
            if !list.is_empty() {
                return Err(ApiError::field(
                    field,
                    "is not supported: listeners are settings of the instance ('proxy_listen')",
                ));
            }
        }
        Ok(host)
    }

    /// What a listener cannot do for one virtual host alone is refused.
    fn check_tls(&self) -> Result<(), ApiError> {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        let refused = |reason: &str| Err(ApiError::field("sSLInfo", reason));
        if tls.client_auth_enabled && !tls.enabled {
            return refused("clientAuthEnabled needs enabled as well");
        }
        if tls.client_auth_enabled && tls.trust_store.is_none() && !tls.ignore_validation_errors {
            return refused("clientAuthEnabled needs a trustStore");
        }
        if tls.common_name.is_some() {
            return refused("commonName is for targets, clients are judged by trustStore alone");
        }
        if !tls.ciphers.is_empty() || !tls.protocols.is_empty() {
            return refused(
                "ciphers and protocols are settings of the instance ('ssl_ciphers', 'ssl_protocols')",
            );
        }
        Ok(())
    }

    /// Whether clients speak TLS to it.
    pub fn is_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.enabled)
    }

    /// The host names without ports, lower case; empty means any.
    pub fn hosts(&self) -> Vec<String> {
        let hosts: Vec<String> = self
            .host_aliases
            .iter()
            .map(|alias| match alias.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => alias,
            })
            .map(str::to_ascii_lowercase)
            .collect();
        if hosts.iter().any(|host| host == "*") {
            return Vec::new();
        }
        hosts
    }
}
