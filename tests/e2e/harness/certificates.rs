//! A throw-away certificate authority.

use boring::asn1::Asn1Time;
use boring::bn::BigNum;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::rsa::Rsa;
use boring::x509::extension::{BasicConstraints, SubjectAlternativeName};
use boring::x509::{X509, X509Name, X509NameRef};

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Signs certificates for names.
pub(crate) struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

impl Authority {
    /// A new authority.
    pub(crate) fn new() -> Self {
        let key = ecdsa_key();
        let name = named("Test authority");
        let certificate = sign(&name, &name, &key, &key, &[], true);
        Self { key, certificate }
    }

    /// The authority's own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        pem_of(&self.certificate)
    }

    /// A certificate (ECDSA) whose common name is the first of `names`.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(ecdsa_key(), names)
    }

    /// The same with an RSA key.
    pub(crate) fn issue_rsa(&self, names: &[&str]) -> Pair {
        let key = PKey::from_rsa(Rsa::generate(2048).expect("an RSA key")).expect("a key");
        self.issue_with(key, names)
    }

    fn issue_with(&self, key: PKey<Private>, names: &[&str]) -> Pair {
        let subject = named(names.first().expect("a name"));
        let issuer = self.certificate.subject_name();
        let certificate = sign(&subject, issuer, &key, &self.key, names, false);
        let key = key.private_key_to_pem_pkcs8().expect("a key in PEM");
        Pair {
            certificate: pem_of(&certificate),
            key: String::from_utf8(key).expect("PEM is ASCII"),
        }
    }
}

fn ecdsa_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn named(name: &str) -> X509Name {
    let mut builder = X509Name::builder().expect("a name");
    builder.append_entry_by_text("CN", name).expect("a name");
    builder.build()
}

fn sign(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKey<Private>,
    signer: &PKey<Private>,
    names: &[&str],
    is_authority: bool,
) -> X509 {
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    let serial = BigNum::from_u32(rand::random::<u32>() >> 1).expect("a number");
    let serial = serial.to_asn1_integer().expect("a serial number");
    builder.set_serial_number(&serial).expect("a serial number");
    builder.set_subject_name(subject).expect("a subject");
    builder.set_issuer_name(issuer).expect("an issuer");
    builder.set_pubkey(key).expect("a key");
    let from = Asn1Time::days_from_now(0).expect("a time");
    let until = Asn1Time::days_from_now(2).expect("a time");
    builder.set_not_before(&from).expect("a time");
    builder.set_not_after(&until).expect("a time");
    if is_authority {
        let extension = BasicConstraints::new().critical().ca().build();
        let extension = extension.expect("an extension");
        builder.append_extension(&extension).expect("an extension");
    }
    if !names.is_empty() {
        let mut alternative = SubjectAlternativeName::new();
        for name in names {
            match name.parse::<std::net::IpAddr>() {
                Ok(_) => alternative.ip(name),
                Err(_) => alternative.dns(name),
            };
        }
        let extension = alternative
            .build(&builder.x509v3_context(None, None))
            .expect("an extension");
        builder.append_extension(&extension).expect("an extension");
    }
    builder
        .sign(signer, MessageDigest::sha256())
        .expect("a signature");
    builder.build()
}

fn pem_of(certificate: &X509) -> String {
    let pem = certificate.to_pem().expect("a certificate in PEM");
    String::from_utf8(pem).expect("PEM is ASCII")
}
