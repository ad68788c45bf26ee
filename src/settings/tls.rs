//! TLS to clients and to upstreams.

use std::path::PathBuf;
use std::time::Duration;

use super::key::{choice, keys};
use super::value::{ByteSize, Raw, Value};

keys! {
    /// TLS to clients and to upstreams.
    pub struct TlsSettings {
        /// Versions offered to clients. Does not count with the suites `modern` and `old`, which have their own.
        ssl_protocols: TlsProtocols = "TLSv1.2 TLSv1.3";
        /// A named set of versions and ciphers, after Mozilla's recommendations: `modern` is TLS 1.3, `intermediate` has the
        /// ciphers of TLS 1.2 with forward secrecy, `old` goes down to TLS 1.0, `custom` takes `ssl_protocols` and
        /// `ssl_ciphers`. A listener's flag `ssl_cipher_suite=…` chooses another one for it.
        ssl_cipher_suite: CipherSuite = "intermediate";
        /// Ciphers for TLS 1.2 and older in the notation of OpenSSL; counts with `ssl_cipher_suite = custom`.
        ssl_ciphers: Option<CipherList> = "";
        /// How long a client may resume a session, `1d` or a number of seconds.
        ssl_session_timeout: Span = "1d";
        /// Room for sessions of clients that use no tickets, some 4,000 in each mebibyte; 0 keeps none.
        ssl_session_cache_size: ByteSize = "10m";
        /// Whether clients are given tickets to resume sessions with. Without them TLS 1.3 resumes none.
        ssl_session_tickets: bool = "on";
        /// Whether clients that ask are shown, with a certificate that names an OCSP responder and comes with the
        /// certificate of its issuer, the responder's answer that it was not revoked. Answers are fetched in the
        /// background.
        ssl_stapling: bool = "off";
        /// The default certificates, PEM files with their chains, for names that no SNI entity knows. Without any, an RSA
        /// and an ECDSA pair are generated in `prefix` at the first start.
        ssl_cert: Vec<PathBuf> = "" => reloads();
        /// The keys of `ssl_cert`, PEM, in the same order.
        ssl_cert_key: Vec<PathBuf> = "" => reloads();
        /// The certificates of addresses with `ssl` in `admin_listen`, PEM files with their chains; without any those of
        /// `ssl_cert` are shown. Read at start.
        admin_ssl_cert: Vec<PathBuf> = "";
        /// The keys of `admin_ssl_cert`, PEM, in the same order.
        admin_ssl_cert_key: Vec<PathBuf> = "";
        /// As `admin_ssl_cert`, for `status_listen`.
        status_ssl_cert: Vec<PathBuf> = "";
        /// The keys of `status_ssl_cert`, PEM, in the same order.
        status_ssl_cert_key: Vec<PathBuf> = "";
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

/// A span of time as nginx writes it: a number of seconds, or with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(
    /// At most a year.
    pub Duration,
);

impl Value for Span {
    fn parse(raw: &Raw) -> Result<Self, String> {
        const SECONDS_MAX: u64 = 366 * 86_400;
        let text = raw.one()?;
        let (digits, unit) = match text.as_bytes().last() {
            Some(b's') => (text.strip_suffix('s'), 1),
            Some(b'm') => (text.strip_suffix('m'), 60),
            Some(b'h') => (text.strip_suffix('h'), 3_600),
            Some(b'd') => (text.strip_suffix('d'), 86_400),
            _ => (Some(text), 1),
        };
        let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
        let number = number.ok_or_else(|| format!("'{text}' is not a span of time"))?;
        match number.checked_mul(unit) {
            Some(seconds) if seconds <= SECONDS_MAX => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(format!("{text} is out of range")),
        }
    }

    fn allowed() -> String {
        "a number of seconds, or with `s`, `m`, `h` or `d`, at most a year".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
        let seconds = self.0.as_secs();
        let unit = UNITS.iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
        match unit {
            Some((unit, name)) if seconds > 0 => format!("{}{name}", seconds / unit).into(),
            _ => "0s".into(),
        }
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
