//! OCSP (RFC 6960): the question about one certificate, and the verification of the answer.

use boring::x509::X509;
use bytes::Bytes;
use sha1::{Digest, Sha1};
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, Null, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse,
    OcspResponseStatus, Request, ResponderId, TbsRequest, Version,
};

use super::{CLOCK_SKEW_SECONDS, ENDLESS_SECONDS, Status, signature};

const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");

/// A verified answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: Status,
    /// When a newer answer is to be had, Unix seconds.
    pub next_update: i64,
    /// The answer as it came, for stapling.
    pub encoded: Bytes,
}

/// The question about a certificate.
pub fn question(der: &[u8], issuer_der: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: x509_cert::der::Error| format!("cannot ask about a certificate: {error}");
    let certificate = Certificate::from_der(der).map_err(failed)?;
    let issuer = Certificate::from_der(issuer_der).map_err(failed)?;
    let request = OcspRequest {
        tbs_request: TbsRequest {
            version: Version::V1,
            requestor_name: None,
            request_list: vec![Request {
                req_cert: identify(&certificate, &issuer).map_err(failed)?,
                single_request_extensions: None,
            }],
            request_extensions: None,
        },
        optional_signature: None,
    };
    request.to_der().map_err(failed)
}

/// How certificates are called in questions: by hashes of their issuer, and number.
fn identify(
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<CertId, x509_cert::der::Error> {
    let issuer = &issuer.tbs_certificate;
    let hash = |data: &[u8]| OctetString::new(Sha1::digest(data).to_vec());
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifierOwned {
            oid: SHA_1,
            parameters: Some(Any::from(Null)),
        },
        issuer_name_hash: hash(&issuer.subject.to_der()?)?,
        issuer_key_hash: hash(
            issuer
                .subject_public_key_info
                .subject_public_key
                .raw_bytes(),
        )?,
        serial_number: certificate.tbs_certificate.serial_number.clone(),
    })
}

/// Reads and verifies the answer to [`question`] at `now` (Unix seconds).
pub fn read(encoded: Bytes, der: &[u8], issuer_der: &[u8], now: i64) -> Result<Answer, String> {
    let unreadable = |error: x509_cert::der::Error| format!("its answer is unreadable: {error}");
    let response = OcspResponse::from_der(&encoded).map_err(unreadable)?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(format!("it answered '{:?}'", response.response_status));
    }
    let bytes = response
        .response_bytes
        .filter(|bytes| bytes.response_type == BASIC)
        .ok_or("its answer is of an unknown kind")?;
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(unreadable)?;
    let certificate = Certificate::from_der(der).map_err(unreadable)?;
    let issuer = Certificate::from_der(issuer_der).map_err(unreadable)?;
    verify(&basic, &issuer, issuer_der, now)?;
    let wanted = identify(&certificate, &issuer).map_err(unreadable)?;
    let single = basic
        .tbs_response_data
        .responses
        .iter()
        .find(|single| {
            let about = &single.cert_id;
            about.serial_number == wanted.serial_number
                && about.issuer_name_hash == wanted.issuer_name_hash
                && about.issuer_key_hash == wanted.issuer_key_hash
        })
        .ok_or("its answer is about another certificate")?;
    let this_update = seconds(&single.this_update);
    let next_update = match &single.next_update {
        Some(time) => seconds(time),
        None => this_update.saturating_add(ENDLESS_SECONDS),
    };
    if this_update > now + CLOCK_SKEW_SECONDS || next_update < now - CLOCK_SKEW_SECONDS {
        return Err("its answer is not of this time".to_owned());
    }
    let status = match single.cert_status {
        CertStatus::Good(_) => Status::Good,
        CertStatus::Revoked(_) => Status::Revoked,
        CertStatus::Unknown(_) => return Err("it does not know the certificate".to_owned()),
    };
    Ok(Answer {
        status,
        next_update,
        encoded,
    })
}

fn seconds(time: &OcspGeneralizedTime) -> i64 {
    let duration = time.0.to_unix_duration();
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The answer must be signed by the issuer, or by one to whom the issuer has given this task.
fn verify(
    basic: &BasicOcspResponse,
    issuer: &Certificate,
    issuer_der: &[u8],
    now: i64,
) -> Result<(), String> {
    let unreadable = |error: x509_cert::der::Error| format!("its answer is unreadable: {error}");
    let bad_key = |error: boring::error::ErrorStack| format!("a key is not usable: {error}");
    let issuer_key = X509::from_der(issuer_der)
        .and_then(|issuer| issuer.public_key())
        .map_err(bad_key)?;
    let data = basic.tbs_response_data.to_der().map_err(unreadable)?;
    let responder = &basic.tbs_response_data.responder_id;
    let signed_by = |key| {
        signature::verify(
            &basic.signature_algorithm,
            key,
            &data,
            basic.signature.raw_bytes(),
        )
    };
    if is_called(issuer, responder) {
        return signed_by(&issuer_key);
    }
    let delegates = basic.certs.iter().flatten();
    let delegate = delegates
        .into_iter()
        .find(|certificate| is_called(certificate, responder))
        .ok_or("its answer is signed by somebody unknown")?;
    let tbs = &delegate.tbs_certificate;
    let for_this = matches!(
        tbs.get::<ExtendedKeyUsage>(),
        Ok(Some((_, usages))) if usages.0.contains(&OCSP_SIGNING)
    );
    if !for_this || tbs.issuer != issuer.tbs_certificate.subject {
        return Err("its answer is signed by somebody who may not".to_owned());
    }
    let validity = &tbs.validity;
    let second = |time: &x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
    };
    if second(&validity.not_before) > now + CLOCK_SKEW_SECONDS
        || second(&validity.not_after) < now - CLOCK_SKEW_SECONDS
    {
        return Err("its answer is signed with an expired certificate".to_owned());
    }
    let delegate = delegate.to_der().map_err(unreadable)?;
    let delegate = X509::from_der(&delegate).map_err(bad_key)?;
    if !delegate.verify(&issuer_key).map_err(bad_key)? {
        return Err("its answer is signed by somebody who may not".to_owned());
    }
    signed_by(&delegate.public_key().map_err(bad_key)?.as_ref().to_owned())
}

fn is_called(certificate: &Certificate, responder: &ResponderId) -> bool {
    let certificate = &certificate.tbs_certificate;
    match responder {
        ResponderId::ByName(name) => *name == certificate.subject,
        ResponderId::ByKey(hash) => {
            let key = &certificate.subject_public_key_info.subject_public_key;
            hash.as_bytes() == &Sha1::digest(key.raw_bytes())[..]
        }
    }
}
