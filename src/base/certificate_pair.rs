//! Certificates as people look at them: who, for whom, until when; and making them for a described subject.

use boring::asn1::{Asn1Integer, Asn1Time, Asn1TimeRef};
use boring::bn::{BigNum, MsbOption};
use boring::error::ErrorStack;
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkcs12::Pkcs12;
use boring::pkey::PKey;
use boring::rsa::Rsa;
use boring::x509::extension::SubjectAlternativeName;
use boring::x509::{X509, X509Name, X509NameBuilder, X509NameRef, X509ReqBuilder};

use super::self_signed::PemPair;

const SECONDS_PER_DAY: i64 = 86_400;
/// Bits of a serial number: RFC 5280 allows 20 bytes.
const SERIAL_BITS: i32 = 159;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// `CN=…,O=…`, the common name first.
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal.
    pub serial_number: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Names for which it is valid.
    pub dns_names: Vec<String>,
}

/// What a certificate says.
pub fn facts(certificate: &X509) -> CertificateFacts {
    let serial = certificate.serial_number().to_bn().ok();
    let serial = serial.and_then(|number| number.to_hex_str().ok().map(|hex| hex.to_string()));
    let names = certificate.subject_alt_names();
    CertificateFacts {
        subject: name_text(certificate.subject_name()),
        issuer: name_text(certificate.issuer_name()),
        serial_number: serial.unwrap_or_default(),
        not_before: unix_seconds(certificate.not_before()),
        not_after: unix_seconds(certificate.not_after()),
        dns_names: names.map_or_else(Vec::new, |names| {
            names
                .iter()
                .filter_map(|name| name.dnsname().map(str::to_owned))
                .collect()
        }),
    }
}

fn unix_seconds(time: &Asn1TimeRef) -> i64 {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    since.map_or(0, |since| {
        i64::from(since.days) * SECONDS_PER_DAY + i64::from(since.secs)
    })
}

fn name_text(name: &X509NameRef) -> String {
    let mut parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let kind = entry
                .object()
                .nid()
                .short_name()
                .unwrap_or("OID")
                .to_owned();
            let value = entry.data().as_utf8();
            let value = value.map_or_else(|_| String::new(), |text| text.to_string());
            format!("{kind}={value}")
        })
        .collect();
    // The common name is written first, as Java and OpenSSL do.
    parts.reverse();
    parts.join(",")
}

/// The subject of a certificate that is to be made; empty parts are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub country: String,
    pub state: String,
    pub locality: String,
    pub organization: String,
    pub unit: String,
    pub email: String,
}

impl Subject {
    fn name(&self) -> Result<X509Name, ErrorStack> {
        let mut name = X509NameBuilder::new()?;
        for (nid, text) in [
            (Nid::COUNTRYNAME, &self.country),
            (Nid::STATEORPROVINCENAME, &self.state),
            (Nid::LOCALITYNAME, &self.locality),
            (Nid::ORGANIZATIONNAME, &self.organization),
            (Nid::ORGANIZATIONALUNITNAME, &self.unit),
            (Nid::COMMONNAME, &self.common_name),
            (Nid::PKCS9_EMAILADDRESS, &self.email),
        ] {
            if !text.is_empty() {
                name.append_entry_by_nid(nid, text)?;
            }
        }
        Ok(name.build())
    }

    /// A fresh RSA key with a certificate that it signs itself.
    ///
    /// # Errors
    ///
    /// When the library refuses, for example a country that has not two letters.
    pub fn self_signed(
        &self,
        bits: u32,
        dns_names: &[String],
        now: i64,
        days: u32,
        digest: MessageDigest,
    ) -> Result<PemPair, ErrorStack> {
        let key = PKey::from_rsa(Rsa::generate(bits)?)?;
        let name = self.name()?;
        let mut serial = BigNum::new()?;
        serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
        let mut builder = X509::builder()?;
        // Version 3, counted from zero.
        builder.set_version(2)?;
        builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_not_before(&*Asn1Time::from_unix(now)?)?;
        let end = now.saturating_add(i64::from(days) * SECONDS_PER_DAY);
        builder.set_not_after(&*Asn1Time::from_unix(end)?)?;
        builder.set_pubkey(&key)?;
        if !dns_names.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for one in dns_names {
                names.dns(one);
            }
            let extension = names.build(&builder.x509v3_context(None, None))?;
            builder.append_extension(&extension)?;
        }
        builder.sign(&key, digest)?;
        Ok(PemPair {
            certificate: String::from_utf8_lossy(&builder.build().to_pem()?).into_owned(),
            key: String::from_utf8_lossy(&key.private_key_to_pem_pkcs8()?).into_owned(),
        })
    }
}

/// A request for a certificate of the same subject and key, PEM.
///
/// # Errors
///
/// When the texts are no certificate and key.
pub fn signing_request(certificate: &str, key: &str) -> Result<String, ErrorStack> {
    let certificate = X509::from_pem(certificate.as_bytes())?;
    let key = PKey::private_key_from_pem(key.as_bytes())?;
    let mut builder = X509ReqBuilder::new()?;
    builder.set_subject_name(certificate.subject_name())?;
    builder.set_pubkey(&key)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok(String::from_utf8_lossy(&builder.build().to_pem()?).into_owned())
}

/// Certificate chain and key of a PKCS #12 file, PEM, the leaf first.
///
/// # Errors
///
/// When it is no such file, the password is wrong, or certificate or key is missing.
pub fn from_pkcs12(der: &[u8], password: &str) -> Result<PemPair, String> {
    let text = |error: ErrorStack| {
        let reason = error
            .errors()
            .first()
            .and_then(boring::error::Error::reason);
        let reason = reason.unwrap_or("unreadable").to_lowercase();
        format!(
            "the PKCS #12 file cannot be read: {}",
            reason.replace('_', " ")
        )
    };
    let parsed = Pkcs12::from_der(der)
        .and_then(|file| file.parse2(password))
        .map_err(text)?;
    let (Some(leaf), Some(key)) = (parsed.cert, parsed.pkey) else {
        return Err("the PKCS #12 file holds no certificate with its key".to_owned());
    };
    let mut pem = leaf.to_pem().map_err(text)?;
    for further in parsed.ca.into_iter().flatten() {
        pem.extend(further.to_pem().map_err(text)?);
    }
    let key = key.private_key_to_pem_pkcs8().map_err(text)?;
    Ok(PemPair {
        certificate: String::from_utf8_lossy(&pem).into_owned(),
        key: String::from_utf8_lossy(&key).into_owned(),
    })
}

/// A private key without passphrase, PEM, from one that may have one.
///
/// # Errors
///
/// When it is no key, or the passphrase is wrong.
pub fn decrypt_key(pem: &str, password: &str) -> Result<String, String> {
    if !pem.contains("ENCRYPTED") {
        return Ok(pem.to_owned());
    }
    let key = PKey::private_key_from_pem_passphrase(pem.as_bytes(), password.as_bytes());
    let plain = key.and_then(|key| key.private_key_to_pem_pkcs8());
    plain
        .map(|pem| String::from_utf8_lossy(&pem).into_owned())
        .map_err(|_| "the private key cannot be decrypted with this password".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::base::pem::{KeyPair, parse_certificates};

    fn pair() -> PemPair {
        let subject = Subject {
            common_name: "api.test".to_owned(),
            organization: "Acme".to_owned(),
            country: "DE".to_owned(),
            ..Subject::default()
        };
        let names = ["api.test".to_owned()];
        let made = subject.self_signed(2048, &names, 1_700_000_000, 10, MessageDigest::sha256());
        made.unwrap()
    }

    #[test]
    fn certificates_tell_what_was_asked_for() {
        let pair = pair();
        assert!(KeyPair::parse(&pair.certificate, &pair.key).is_ok());
        let facts = facts(&parse_certificates(&pair.certificate).unwrap()[0]);
        assert_eq!(facts.subject, "CN=api.test,O=Acme,C=DE");
        assert_eq!(facts.issuer, facts.subject);
        assert_eq!(facts.not_before, 1_700_000_000);
        assert_eq!(facts.not_after, 1_700_864_000);
        assert_eq!(facts.dns_names, ["api.test"]);
        let request = signing_request(&pair.certificate, &pair.key).unwrap();
        assert!(request.contains("BEGIN CERTIFICATE REQUEST"));
    }

    #[test]
    fn pkcs12_files_open_with_their_password() {
        let pair = pair();
        let leaf = X509::from_pem(pair.certificate.as_bytes()).unwrap();
        let key = PKey::private_key_from_pem(pair.key.as_bytes()).unwrap();
        let file = Pkcs12::builder().build("secret", "a", &key, &leaf).unwrap();
        let der = file.to_der().unwrap();
        let opened = from_pkcs12(&der, "secret").unwrap();
        assert_eq!(opened.certificate, pair.certificate);
        assert!(KeyPair::parse(&opened.certificate, &opened.key).is_ok());
        assert!(from_pkcs12(&der, "wrong").is_err());
        assert!(from_pkcs12(b"nothing", "").is_err());
    }
}
