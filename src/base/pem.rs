//! Certificates and keys in PEM form: reading them, and saying what is wrong with them.
//!
//! Owns the rules that every reader of PEM shares: what may stand in a chain, whether a key belongs to a certificate,
//! what makes a certificate an authority. Refuses to know where a text came from: the caller adds the place. Start at
//! [`KeyPair::parse`] and [`parse_certificates`].

use boring::asn1::Asn1Time;
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{Id, PKey, Private, Public};
use boring::x509::X509;
use thiserror::Error;

/// Certificates in one text: leaf, intermediates, or a bundle of trust anchors.
pub const CERTIFICATES_MAX: usize = 2_000;
/// Longest PEM text that is looked at, in bytes.
pub const PEM_BYTES_MAX: usize = 4 << 20;

/// Why a PEM text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PemError {
    #[error("no certificate found, expected PEM text with '-----BEGIN CERTIFICATE-----'")]
    NoCertificate,
    #[error("certificate {position} is not valid: {cause}")]
    BadCertificate { position: usize, cause: String },
    #[error("more than {CERTIFICATES_MAX} certificates or {PEM_BYTES_MAX} bytes")]
    TooLong,
    #[error(
        "no private key found, expected PEM text with '-----BEGIN PRIVATE KEY-----' or one of its older forms"
    )]
    NoKey,
    #[error("the private key is encrypted, provide it without a passphrase")]
    EncryptedKey,
    #[error("the private key is not valid: {0}")]
    BadKey(String),
    #[error("no public key found, expected PEM text with '-----BEGIN PUBLIC KEY-----'")]
    NoPublicKey,
    #[error("the public key is not valid: {0}")]
    BadPublicKey(String),
    #[error("certificate does not match key")]
    Mismatch,
    #[error("the key is of a kind that TLS servers cannot use here, use RSA, ECDSA or Ed25519")]
    KeyKind,
    #[error("please submit only one certificate at a time")]
    SeveralCertificates,
    #[error("certificate expired, \"Not After\" time is in the past")]
    Expired,
    #[error(
        "certificate does not appear to be a CA because it is missing the \"CA\" basic constraint"
    )]
    NotAuthority,
}

/// The kinds of keys that a certificate can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    Rsa,
    Ecdsa,
    Ed25519,
}

/// A certificate, what leads from it to an authority, and its key.
#[derive(Clone)]
pub struct KeyPair {
    pub leaf: X509,
    /// Intermediates in the order of the text.
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
    pub kind: KeyKind,
}

impl KeyPair {
    /// Reads a chain (leaf first) and its key, and checks that they belong together.
    pub fn parse(certificate: &str, key: &str) -> Result<Self, PemError> {
        let mut certificates = parse_certificates(certificate)?.into_iter();
        let leaf = certificates.next().ok_or(PemError::NoCertificate)?;
        let key = parse_key(key)?;
        let public = leaf
            .public_key()
            .map_err(|error| PemError::BadCertificate {
                position: 1,
                cause: reason(&error),
            })?;
        if !public.public_eq(&key) {
            return Err(PemError::Mismatch);
        }
        let kind = match key.id() {
            Id::RSA => KeyKind::Rsa,
            Id::EC => KeyKind::Ecdsa,
            Id::ED25519 => KeyKind::Ed25519,
            _ => return Err(PemError::KeyKind),
        };
        Ok(Self {
            leaf,
            chain: certificates.collect(),
            key,
            kind,
        })
    }

    /// The curve of an ECDSA key.
    pub fn curve(&self) -> Option<Nid> {
        self.key.ec_key().ok()?.group().curve_name()
    }
}

/// Reads every certificate of a text; at least one.
pub fn parse_certificates(pem: &str) -> Result<Vec<X509>, PemError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    if pem.len() > PEM_BYTES_MAX {
        return Err(PemError::TooLong);
    }
    let mut certificates = Vec::new();
    let mut rest = pem;
    while let Some(begin) = rest.find(BEGIN) {
        rest = rest.get(begin..).unwrap_or_default();
        let position = certificates.len() + 1;
        if position > CERTIFICATES_MAX {
            return Err(PemError::TooLong);
        }
        let end = rest.find(END).ok_or_else(|| PemError::BadCertificate {
            position,
            cause: format!("'{END}' is missing"),
        })?;
        let block = rest.get(..end + END.len()).unwrap_or_default();
        let certificate =
            X509::from_pem(block.as_bytes()).map_err(|error| PemError::BadCertificate {
                position,
                cause: reason(&error),
            })?;
        certificates.push(certificate);
        rest = rest.get(end + END.len()..).unwrap_or_default();
    }
    if certificates.is_empty() {
        return Err(PemError::NoCertificate);
    }
    Ok(certificates)
}

/// Reads a private key without passphrase: PKCS #8, PKCS #1 or SEC 1.
pub fn parse_key(pem: &str) -> Result<PKey<Private>, PemError> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(PemError::TooLong);
    }
    if !pem.contains("PRIVATE KEY-----") {
        return Err(PemError::NoKey);
    }
    // Asked for here because the library would ask for a passphrase.
    if pem.contains("ENCRYPTED") {
        return Err(PemError::EncryptedKey);
    }
    PKey::private_key_from_pem(pem.as_bytes()).map_err(|error| PemError::BadKey(reason(&error)))
}

/// Reads a public key in `SubjectPublicKeyInfo` form.
pub fn parse_public_key(pem: &str) -> Result<PKey<Public>, PemError> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(PemError::TooLong);
    }
    if !pem.contains("PUBLIC KEY-----") {
        return Err(PemError::NoPublicKey);
    }
    PKey::public_key_from_pem(pem.as_bytes())
        .map_err(|error| PemError::BadPublicKey(reason(&error)))
}

/// Reads one certificate of an authority that is valid at `now` (Unix seconds) and gives its SHA-256 digest as
/// lower-case hex.
pub fn check_authority(pem: &str, now: i64) -> Result<String, PemError> {
    let certificates = parse_certificates(pem)?;
    let [certificate] = certificates.as_slice() else {
        return Err(PemError::SeveralCertificates);
    };
    let bad = |error: boring::error::ErrorStack| PemError::BadCertificate {
        position: 1,
        cause: reason(&error),
    };
    let now = Asn1Time::from_unix(now).map_err(bad)?;
    if *certificate.not_after() < *now {
        return Err(PemError::Expired);
    }
    let der = certificate.to_der().map_err(bad)?;
    if !is_authority(&der) {
        return Err(PemError::NotAuthority);
    }
    let digest = certificate.digest(MessageDigest::sha256()).map_err(bad)?;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The first line of the library's errors, which says most.
fn reason(error: &boring::error::ErrorStack) -> String {
    error
        .errors()
        .first()
        .and_then(boring::error::Error::reason)
        .unwrap_or("unreadable")
        .to_lowercase()
        .replace('_', " ")
}

/// Does this certificate (DER) carry the basic constraint `CA: TRUE`? The library checks it while it verifies a chain
/// but does not tell. X.509, RFC 5280 §4.2.1.9.
fn is_authority(der: &[u8]) -> bool {
    /// `2.5.29.19` with tag and length.
    const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
    const SEQUENCE: u8 = 0x30;
    const EXTENSIONS: u8 = 0xa3;
    const OCTETS: u8 = 0x04;
    const TRUE: &[u8] = &[0x01, 0x01, 0xff];

    // Certificate, to-be-signed part, extensions, each extension.
    let extensions = element(der, SEQUENCE)
        .and_then(|(certificate, _)| element(certificate, SEQUENCE))
        .and_then(|(signed, _)| elements(signed).find(|(tag, _)| *tag == EXTENSIONS))
        .and_then(|(_, wrapped)| element(wrapped, SEQUENCE));
    let Some((extensions, _)) = extensions else {
        return false;
    };
    elements(extensions)
        .filter_map(|(_, extension)| extension.strip_prefix(BASIC_CONSTRAINTS))
        .filter_map(|parts| elements(parts).find(|(tag, _)| *tag == OCTETS))
        .filter_map(|(_, value)| element(value, SEQUENCE))
        .any(|(constraints, _)| constraints.starts_with(TRUE))
}

/// The content of the element with this tag at the start of `der`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = next_element(der)?;
    (found == tag).then_some((content, rest))
}

/// Tags and contents of the elements in a row.
fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = next_element(der)?;
        der = rest;
        Some((tag, content))
    })
}

fn next_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        // More than four bytes of length do not occur in a text of at most PEM_BYTES_MAX.
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let bytes = rest.get(..count)?;
        rest = rest.get(count..)?;
        bytes
            .iter()
            .fold(0usize, |length, byte| length << 8 | usize::from(*byte))
    };
    Some((tag, rest.get(..length)?, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::base::self_signed::{Algorithm, SelfSigned};

    fn made(algorithm: Algorithm, authority: bool) -> (String, String) {
        let made = SelfSigned {
            algorithm,
            common_name: "localhost",
            dns_names: &["localhost"],
            addresses: &[],
            authority,
            not_before: 1_700_000_000,
            days: 3650,
        };
        let pair = made.generate().unwrap();
        (pair.certificate, pair.key)
    }

    #[test]
    fn reads_pairs_and_says_what_is_wrong() {
        let (rsa_certificate, rsa_key) = made(Algorithm::Rsa2048, false);
        let (certificate, key) = made(Algorithm::EcdsaP256, false);
        let pair = KeyPair::parse(&certificate, &key).unwrap();
        assert_eq!(pair.kind, KeyKind::Ecdsa);
        assert_eq!(pair.curve(), Some(Nid::X9_62_PRIME256V1));
        let chain = format!("{rsa_certificate}\n{certificate}");
        let pair = KeyPair::parse(&chain, &rsa_key).unwrap();
        assert_eq!((pair.kind, pair.chain.len()), (KeyKind::Rsa, 1));

        let cut = certificate.replace("-----END", "---END");
        let garbled = certificate.replacen("MI", "!!", 1);
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let cases = [
            ("", &*key, "no certificate found"),
            (&*certificate, "", "no private key found"),
            (&*certificate, &*rsa_key, "certificate does not match key"),
            (&*cut, &*key, "certificate 1 is not valid: '-----END"),
            (&*garbled, &*key, "certificate 1 is not valid"),
            (&*certificate, &*encrypted, "without a passphrase"),
        ];
        for (certificate, key, message) in cases {
            let error = KeyPair::parse(certificate, key).err().unwrap();
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn tells_authorities() {
        let (plain, _) = made(Algorithm::EcdsaP256, false);
        let (authority, _) = made(Algorithm::EcdsaP256, true);
        let now = 1_710_000_000;
        let digest = check_authority(&authority, now).unwrap();
        assert_eq!(digest.len(), 64);
        let both = format!("{authority}{plain}");
        let late = 1_700_000_000 + 3651 * 86_400;
        let cases = [
            (&plain, now, PemError::NotAuthority),
            (&both, now, PemError::SeveralCertificates),
            (&authority, late, PemError::Expired),
        ];
        for (pem, now, expected) in cases {
            assert_eq!(check_authority(pem, now), Err(expected));
        }
    }

    #[test]
    fn survives_any_bytes_as_der() {
        for length in [0u8, 1, 2, 0x80, 0x84, 0xff] {
            for tag in [0x30, 0xa3, 0x04] {
                let der = [tag, length, 0x30, length, 0xff, 0xff, 0xff, 0xff];
                assert!(!is_authority(&der));
            }
        }
    }
}
