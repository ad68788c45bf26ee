//! Lists of revoked certificates (RFC 5280, 5).

use std::collections::HashSet;

use ahash::RandomState;
use boring::x509::X509;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::time::Time;

use super::{CLOCK_SKEW_SECONDS, ENDLESS_SECONDS, Status, signature};

const ISSUING_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");

/// A verified list of one authority.
pub(super) struct RevokedList {
    issuer: [u8; 32],
    /// Numbers as their encoding has them.
    revoked: HashSet<Box<[u8]>, RandomState>,
    next_update: i64,
}

impl RevokedList {
    /// Reads a list, DER or PEM, and verifies that `issuer` signed it and that it is of this time.
    pub(super) fn read(
        text: &[u8],
        issuer_der: &[u8],
        issuer: &X509,
        now: i64,
    ) -> Result<Self, String> {
        let unreadable = |error: x509_cert::der::Error| format!("the list is unreadable: {error}");
        let list = match text.starts_with(b"-----BEGIN") {
            true => {
                let (label, der) = x509_cert::der::pem::decode_vec(text)
                    .map_err(|error| format!("the list is unreadable: {error}"))?;
                if label != "X509 CRL" {
                    return Err(format!("'{label}' is not a list of revoked certificates"));
                }
                CertificateList::from_der(&der).map_err(unreadable)?
            }
            false => CertificateList::from_der(text).map_err(unreadable)?,
        };
        let authority = Certificate::from_der(issuer_der).map_err(unreadable)?;
        let tbs = &list.tbs_cert_list;
        if tbs.issuer != authority.tbs_certificate.subject {
            return Err("the list is another authority's".to_owned());
        }
        let data = tbs.to_der().map_err(unreadable)?;
        let key = issuer
            .public_key()
            .map_err(|error| format!("a key is not usable: {error}"))?;
        signature::verify(
            &list.signature_algorithm,
            &key,
            &data,
            list.signature.raw_bytes(),
        )
        .map_err(|reason| format!("the list cannot be used: {reason}"))?;
        // A list for part of the certificates says so in a critical extension: it would prove nothing about the rest.
        let extensions = tbs.crl_extensions.iter().flatten();
        for extension in extensions {
            if extension.critical {
                let what = match extension.extn_id == ISSUING_POINT {
                    true => "covers only part of the certificates".to_owned(),
                    false => format!("has the unknown extension {}", extension.extn_id),
                };
                return Err(format!("the list {what}"));
            }
        }
        let this_update = seconds(&tbs.this_update);
        let next_update = match &tbs.next_update {
            Some(time) => seconds(time),
            None => this_update
                .saturating_add(ENDLESS_SECONDS)
                .max(now + ENDLESS_SECONDS),
        };
        let read = Self {
            issuer: Sha256::digest(issuer_der).into(),
            revoked: tbs
                .revoked_certificates
                .iter()
                .flatten()
                .map(|revoked| revoked.serial_number.as_bytes().into())
                .collect(),
            next_update,
        };
        if this_update > now + CLOCK_SKEW_SECONDS || !read.is_current(now) {
            return Err("the list is not of this time".to_owned());
        }
        Ok(read)
    }

    pub(super) fn is_current(&self, now: i64) -> bool {
        self.next_update >= now - CLOCK_SKEW_SECONDS
    }

    pub(super) fn is_of(&self, issuer_der: &[u8]) -> bool {
        self.issuer == <[u8; 32]>::from(Sha256::digest(issuer_der))
    }

    /// What it says about a certificate of its authority.
    pub(super) fn status(&self, der: &[u8]) -> Result<Status, String> {
        let certificate = Certificate::from_der(der).map_err(|error| error.to_string())?;
        let number = certificate.tbs_certificate.serial_number.as_bytes();
        Ok(match self.revoked.contains(number) {
            true => Status::Revoked,
            false => Status::Good,
        })
    }
}

fn seconds(time: &Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}
