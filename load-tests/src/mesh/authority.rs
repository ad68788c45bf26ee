//! The root of a mesh that outlives its agent: an agent in development mode would make a new one at each start.

use anyhow::{Context, Result};
use boring::asn1::Asn1Time;
use boring::bn::BigNum;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::PKey;
use boring::x509::extension::{
    BasicConstraints, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use boring::x509::{X509, X509Name};

/// The cluster's name in the trust domain, which ends in `.consul`.
pub(crate) const CLUSTER: &str = "11111111-2222-3333-4444-555555555555";

/// A root and its key, PEM.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new root for the mesh: ECDSA P-256, thirty days.
    ///
    /// # Errors
    /// When the TLS library refuses.
    pub(crate) fn new() -> Result<Self> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = EcKey::generate(&group)?;
        let pair = PKey::from_ec_key(key.clone())?;
        let mut name = X509Name::builder()?;
        name.append_entry_by_text("CN", "Mesh")?;
        let name = name.build();
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        // Roots are told apart by their serial numbers, too.
        let mut bytes = [0; 8];
        boring::rand::rand_bytes(&mut bytes)?;
        let mut serial = BigNum::from_slice(&bytes)?;
        serial.clear_bit(63)?;
        let serial = serial.to_asn1_integer()?;
        builder.set_serial_number(&serial)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_pubkey(&pair)?;
        let (from, until) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(30)?);
        builder.set_not_before(&from)?;
        builder.set_not_after(&until)?;
        let authority = BasicConstraints::new().critical().ca().build()?;
        builder.append_extension(&authority)?;
        let mut usage = KeyUsage::new();
        usage
            .critical()
            .key_cert_sign()
            .crl_sign()
            .digital_signature();
        let usage = usage.build()?;
        builder.append_extension(&usage)?;
        let identity = SubjectAlternativeName::new()
            .uri(&format!("spiffe://{CLUSTER}.consul"))
            .build(&builder.x509v3_context(None, None))?;
        builder.append_extension(&identity)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(&identifier)?;
        builder.sign(&pair, MessageDigest::sha256())?;
        let text = |pem: Vec<u8>| String::from_utf8(pem).context("PEM is text");
        Ok(Self {
            certificate: text(builder.build().to_pem()?)?,
            // The form that the agent reads.
            key: text(key.private_key_to_pem()?)?,
        })
    }
}
