//! Self-signed certificates: the pairs shown to clients before anyone has configured one, and authorities for tests.

use std::net::IpAddr;

use boring::asn1::{Asn1Integer, Asn1Time};
use boring::bn::{BigNum, MsbOption};
use boring::ec::{EcGroup, EcKey};
use boring::error::ErrorStack;
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::rsa::Rsa;
use boring::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use boring::x509::{X509, X509NameBuilder};
use thiserror::Error;

const SECONDS_PER_DAY: i64 = 86_400;
/// The certificate is valid a little before it was made, for clients whose clock is slow.
const CLOCK_SKEW_SECONDS: i64 = 3_600;
/// Bits of a serial number: RFC 5280 allows 20 bytes.
const SERIAL_BITS: i32 = 159;

/// What kind of key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// For clients that know nothing newer.
    Rsa2048,
    /// Cheaper for both sides.
    EcdsaP256,
}

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct SelfSigned<'a> {
    pub algorithm: Algorithm,
    pub common_name: &'a str,
    /// Names and addresses for which it is valid.
    pub dns_names: &'a [&'a str],
    pub addresses: &'a [IpAddr],
    /// May it sign other certificates?
    pub authority: bool,
    /// When it is made, Unix seconds.
    pub not_before: i64,
    pub days: u32,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct PemPair {
    pub certificate: String,
    pub key: String,
}

/// The TLS library could not make a certificate.
#[derive(Debug, Error)]
#[error("cannot make a self-signed certificate")]
pub struct SelfSignedError(#[from] ErrorStack);

/// The pairs that a gateway without configured certificates shows, RSA first: for `localhost`, valid twenty years.
/// Kong: the default of `ssl_cert`.
pub fn default_pairs(now: i64) -> Result<[PemPair; 2], SelfSignedError> {
    let pair = |algorithm| {
        SelfSigned {
            algorithm,
            common_name: "localhost",
            dns_names: &["localhost"],
            addresses: &[],
            authority: false,
            not_before: now,
            days: 20 * 365,
        }
        .generate()
    };
    Ok([pair(Algorithm::Rsa2048)?, pair(Algorithm::EcdsaP256)?])
}

impl SelfSigned<'_> {
    /// Makes a fresh key and a certificate that it signs itself.
    pub fn generate(&self) -> Result<PemPair, SelfSignedError> {
        let key = self.algorithm.generate_key()?;
        let certificate = self.certificate(&key, None)?;
        Self::pair(&certificate, &key)
    }

    /// Makes a fresh key and a certificate signed by `issuer`.
    pub fn issue(
        &self,
        issuer: &X509,
        issuer_key: &PKey<Private>,
    ) -> Result<PemPair, SelfSignedError> {
        let key = self.algorithm.generate_key()?;
        let certificate = self.certificate(&key, Some((issuer, issuer_key)))?;
        Self::pair(&certificate, &key)
    }

    fn pair(certificate: &X509, key: &PKey<Private>) -> Result<PemPair, SelfSignedError> {
        Ok(PemPair {
            certificate: String::from_utf8_lossy(&certificate.to_pem()?).into_owned(),
            key: String::from_utf8_lossy(&key.private_key_to_pem_pkcs8()?).into_owned(),
        })
    }

    fn certificate(
        &self,
        key: &PKey<Private>,
        issuer: Option<(&X509, &PKey<Private>)>,
    ) -> Result<X509, ErrorStack> {
        let mut subject = X509NameBuilder::new()?;
        subject.append_entry_by_nid(Nid::ORGANIZATIONNAME, "Sallyport")?;
        subject.append_entry_by_nid(Nid::COMMONNAME, self.common_name)?;
        let subject = subject.build();
        let mut serial = BigNum::new()?;
        serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;

        let mut builder = X509::builder()?;
        // Version 3, counted from zero.
        builder.set_version(2)?;
        builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
        builder.set_subject_name(&subject)?;
        match issuer {
            Some((certificate, _)) => builder.set_issuer_name(certificate.subject_name())?,
            None => builder.set_issuer_name(&subject)?,
        }
        let end = self.not_before + i64::from(self.days) * SECONDS_PER_DAY;
        builder.set_not_before(&*Asn1Time::from_unix(self.not_before - CLOCK_SKEW_SECONDS)?)?;
        builder.set_not_after(&*Asn1Time::from_unix(end)?)?;
        builder.set_pubkey(key)?;
        self.add_extensions(&mut builder)?;
        let signer = issuer.map_or(key, |(_, issuer_key)| issuer_key);
        builder.sign(signer, MessageDigest::sha256())?;
        Ok(builder.build())
    }

    fn add_extensions(&self, builder: &mut boring::x509::X509Builder) -> Result<(), ErrorStack> {
        let mut usage = KeyUsage::new();
        usage.critical();
        if self.authority {
            let constraints = BasicConstraints::new().critical().ca().build()?;
            builder.append_extension(&constraints)?;
            usage.key_cert_sign().crl_sign();
        } else {
            let constraints = BasicConstraints::new().build()?;
            builder.append_extension(&constraints)?;
            usage.digital_signature();
            if self.algorithm == Algorithm::Rsa2048 {
                usage.key_encipherment();
            }
            let purposes = ExtendedKeyUsage::new()
                .server_auth()
                .client_auth()
                .build()?;
            builder.append_extension(&purposes)?;
        }
        builder.append_extension(&*usage.build()?)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(&identifier)?;
        if !self.dns_names.is_empty() || !self.addresses.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for name in self.dns_names {
                names.dns(name);
            }
            for address in self.addresses {
                names.ip(&address.to_string());
            }
            let names = names.build(&builder.x509v3_context(None, None))?;
            builder.append_extension(&names)?;
        }
        Ok(())
    }
}

impl Algorithm {
    fn generate_key(self) -> Result<PKey<Private>, ErrorStack> {
        match self {
            Self::Rsa2048 => PKey::from_rsa(Rsa::generate(2048)?),
            Self::EcdsaP256 => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
                PKey::from_ec_key(EcKey::generate(&group)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::base::pem::{KeyKind, KeyPair};

    #[test]
    fn makes_a_pair_of_each_kind() {
        let kinds = default_pairs(1_700_000_000)
            .unwrap()
            .map(|pair| KeyPair::parse(&pair.certificate, &pair.key).unwrap())
            .map(|pair| {
                assert!(pair.leaf.check_host("localhost").unwrap());
                pair.kind
            });
        assert_eq!(kinds, [KeyKind::Rsa, KeyKind::Ecdsa]);
    }
}
