//! TLS to clients and to upstreams.

use std::path::PathBuf;

use super::key::{choice, keys};
use super::value::{Raw, Value};

keys! {
    /// TLS to clients and to upstreams.
    pub struct TlsSettings {
        /// Versions offered to clients.
        ssl_protocols: TlsProtocols = "TLSv1.2 TLSv1.3";
        /// A named set of ciphers for TLS 1.2 and older, after Mozilla's recommendations; `custom` takes `ssl_ciphers`.
        ssl_cipher_suite: CipherSuite = "intermediate";
        /// Ciphers for TLS 1.2 and older in the notation of OpenSSL; counts with `ssl_cipher_suite = custom`.
        ssl_ciphers: Option<CipherList> = "";
        /// The default certificates, PEM files with their chains, for names that no SNI entity knows. Without any, an RSA
        /// and an ECDSA pair are generated in `prefix` at the first start.
        ssl_cert: Vec<PathBuf> = "" => reloads();
        /// The keys of `ssl_cert`, PEM, in the same order.
        ssl_cert_key: Vec<PathBuf> = "" => reloads();
        /// Whether upstreams are shown `client_ssl_cert` when service and upstream name no certificate of their own.
        client_ssl: bool = "off" => reloads();
        /// The certificate of `client_ssl`, a PEM file with its chain.
        client_ssl_cert: Option<PathBuf> = "" => reloads();
        /// The key of `client_ssl_cert`, PEM.
        client_ssl_cert_key: Option<PathBuf> = "" => reloads();
        /// Whom TLS connections of the gateway trust where an entity asks for verification and names no CA: `system`, and
        /// PEM files.
        lua_ssl_trusted_certificate: Vec<TrustAnchor> = "system" => reloads();
    }
}

/// Versions of TLS. Kong: `ssl_protocols`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsProtocols {
    /// TLS 1.0.
    pub tls1_0: bool,
    /// TLS 1.1.
    pub tls1_1: bool,
    /// TLS 1.2.
    pub tls1_2: bool,
    /// TLS 1.3.
    pub tls1_3: bool,
}

impl Value for TlsProtocols {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let mut protocols = Self::default();
        for word in raw
            .many()
            .iter()
            .flat_map(|part| part.split_ascii_whitespace())
        {
            match word {
                "TLSv1" => protocols.tls1_0 = true,
                "TLSv1.1" => protocols.tls1_1 = true,
                "TLSv1.2" => protocols.tls1_2 = true,
                "TLSv1.3" => protocols.tls1_3 = true,
                other => return Err(format!("'{other}' is not a version of TLS")),
            }
        }
        let versions = [
            protocols.tls1_0,
            protocols.tls1_1,
            protocols.tls1_2,
            protocols.tls1_3,
        ];
        let (Some(first), Some(last)) = (
            versions.iter().position(|offered| *offered),
            versions.iter().rposition(|offered| *offered),
        ) else {
            return Err("must not be empty".to_owned());
        };
        // The TLS library takes a lowest and a highest version.
        if versions
            .iter()
            .take(last)
            .skip(first)
            .any(|offered| !offered)
        {
            return Err("leaves out a version between two others".to_owned());
        }
        Ok(protocols)
    }

    fn allowed() -> String {
        "neighbours among `TLSv1`, `TLSv1.1`, `TLSv1.2`, `TLSv1.3`".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        let words = [
            (self.tls1_0, "TLSv1"),
            (self.tls1_1, "TLSv1.1"),
            (self.tls1_2, "TLSv1.2"),
            (self.tls1_3, "TLSv1.3"),
        ];
        words
            .iter()
            .filter(|(offered, _)| *offered)
            .map(|(_, word)| *word)
            .collect::<Vec<_>>()
            .join(" ")
            .into()
    }
}

choice! {
    /// Named sets of ciphers. Kong: `ssl_cipher_suite`.
    pub enum CipherSuite {
        /// TLS 1.3 only.
        Modern = "modern",
        /// What every current client speaks.
        Intermediate = "intermediate",
        /// For very old clients.
        Old = "old",
        /// What `ssl_ciphers` says.
        Custom = "custom",
        ! "fips" = "the TLS library of this program is not a validated module",
    }
}

/// Ciphers in the notation of OpenSSL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CipherList(
    /// The text, which the TLS library judges.
    pub String,
);

impl Value for CipherList {
    fn parse(raw: &Raw) -> Result<Self, String> {
        // Commas and colons both separate ciphers in OpenSSL's notation.
        let joined = raw.many().join(":");
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_+!@=. ".contains(&byte);
        match joined.bytes().all(is_allowed) && !joined.is_empty() {
            true => Ok(Self(joined)),
            false => Err(format!("'{joined}' is not a list of ciphers")),
        }
    }

    fn allowed() -> String {
        "ciphers in the notation of OpenSSL, separated by `:`".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        self.0.as_str().into()
    }
}

/// Where trusted certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustAnchor {
    /// The system's own.
    System,
    /// A PEM file.
    File(PathBuf),
}

impl Value for TrustAnchor {
    fn parse(raw: &Raw) -> Result<Self, String> {
        match raw.one()? {
            "system" => Ok(Self::System),
            _ => PathBuf::parse(raw).map(Self::File),
        }
    }

    fn allowed() -> String {
        "`system` or a path".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::System => "system".into(),
            Self::File(path) => path.json(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn protocols_are_a_range() {
        let parse = |text: &str| TlsProtocols::parse(&Raw::Text(text.to_owned()));
        assert_eq!(parse("TLSv1.2 TLSv1.3").unwrap().json(), "TLSv1.2 TLSv1.3");
        assert_eq!(parse("TLSv1.3, TLSv1.2").unwrap().json(), "TLSv1.2 TLSv1.3");
        assert!(parse("TLSv1.1 TLSv1.3").is_err());
        assert!(parse("SSLv3").is_err());
        assert!(parse("").is_err());
    }
}
