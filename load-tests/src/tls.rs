//! A throw-away certificate for the listeners of all contestants: ECDSA P-256, one day.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use boring::asn1::Asn1Time;
use boring::bn::BigNum;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::PKey;
use boring::x509::extension::SubjectAlternativeName;
use boring::x509::{X509, X509Name};

/// Paths of the PEM files.
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) bundle: PathBuf,
}

/// Makes a self-signed certificate for `localhost` and writes it into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn make_certificate(folder: &Path) -> Result<CertificateFiles> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_text("CN", "localhost")?;
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = BigNum::from_u32(1)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    let (from, until) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(1)?);
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    let names = SubjectAlternativeName::new()
        .dns("localhost")
        .build(&builder.x509v3_context(None, None))?;
    builder.append_extension(&names)?;
    builder.sign(&key, MessageDigest::sha256())?;
    let certificate = builder.build().to_pem()?;
    let key = key.private_key_to_pem_pkcs8()?;
    let files = CertificateFiles {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        bundle: folder.join("bundle.pem"),
    };
    fs::write(&files.certificate, &certificate).context("cannot write the certificate")?;
    fs::write(&files.key, &key).context("cannot write the key")?;
    fs::write(&files.bundle, [certificate, key].concat()).context("cannot write the bundle")?;
    Ok(files)
}
