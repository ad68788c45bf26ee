#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::pin::Pin;

use boring::asn1::Asn1Time;
use boring::bn::BigNum;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::x509::X509NameBuilder;
use boring::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use pingora_core::tls::tokio_ssl::SslStream;

use super::*;
use crate::base::pem::KeyKind;

const NOW_DAYS: u32 = 0;

struct Maker {
    key: PKey<Private>,
    certificate: X509,
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// What a leaf is like.
#[derive(Clone)]
struct Kind {
    uris: Vec<&'static str>,
    client: bool,
    server: bool,
    expired: bool,
}

fn service(uri: &'static str) -> Kind {
    Kind {
        uris: vec![uri],
        client: true,
        server: true,
        expired: false,
    }
}

fn certificate(
    subject: &str,
    key: &PKey<Private>,
    issuer: Option<(&X509, &PKey<Private>)>,
    kind: Option<&Kind>,
) -> X509 {
    let name = |text: &str| {
        let mut builder = X509NameBuilder::new().unwrap();
        builder.append_entry_by_nid(Nid::COMMONNAME, text).unwrap();
        builder.build()
    };
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(rand::random::<u32>() >> 1).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    let subject = name(subject);
    builder.set_subject_name(&subject).unwrap();
    match issuer {
        Some((certificate, _)) => builder.set_issuer_name(certificate.subject_name()).unwrap(),
        None => builder.set_issuer_name(&subject).unwrap(),
    }
    builder.set_pubkey(key).unwrap();
    let expired = kind.is_some_and(|kind| kind.expired);
    let from = Asn1Time::from_unix(1_000_000_000).unwrap();
    let until = match expired {
        true => Asn1Time::from_unix(1_000_000_100).unwrap(),
        false => Asn1Time::days_from_now(NOW_DAYS + 2).unwrap(),
    };
    builder.set_not_before(&from).unwrap();
    builder.set_not_after(&until).unwrap();
    match kind {
        None => {
            let ca = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(&ca).unwrap();
            let usage = KeyUsage::new().key_cert_sign().build().unwrap();
            builder.append_extension(&usage).unwrap();
        }
        Some(kind) => {
            let mut purposes = ExtendedKeyUsage::new();
            if kind.client {
                purposes.client_auth();
            }
            if kind.server {
                purposes.server_auth();
            }
            builder
                .append_extension(&purposes.build().unwrap())
                .unwrap();
            if !kind.uris.is_empty() {
                let mut names = SubjectAlternativeName::new();
                for uri in &kind.uris {
                    names.uri(uri);
                }
                let names = names.build(&builder.x509v3_context(None, None)).unwrap();
                builder.append_extension(&names).unwrap();
            }
        }
    }
    let signer = issuer.map_or(key, |(_, key)| key);
    builder.sign(signer, MessageDigest::sha256()).unwrap();
    builder.build()
}

impl Maker {
    fn new(name: &str) -> Self {
        let key = key();
        let certificate = certificate(name, &key, None, None);
        Self { key, certificate }
    }

    fn leaf(&self, kind: &Kind) -> KeyPair {
        let key = key();
        let leaf = certificate(
            "leaf",
            &key,
            Some((&self.certificate, &self.key)),
            Some(kind),
        );
        KeyPair {
            leaf,
            chain: Vec::new(),
            key,
            kind: KeyKind::Ecdsa,
        }
    }

    /// Our key under another authority's signature.
    fn cross_signed_by(&self, other: &Self) -> X509 {
        let key = &self.key;
        certificate("new", key, Some((&other.certificate, &other.key)), None)
    }
}

fn roots(makers: &[&Maker]) -> Arc<Roots> {
    let certificates = makers.iter().map(|maker| maker.certificate.clone());
    Arc::new(Roots::new(certificates.collect()).unwrap())
}

/// Takes anybody with one URI.
struct OneUri;

impl PeerJudge for OneUri {
    fn judge(&self, names: &PeerNames) -> Result<Peer, Refusal> {
        match names.uris.as_slice() {
            [] => Err(Refusal::NoIdentity),
            [uri] => Ok(Peer {
                uri: uri.as_str().into(),
                name: "x".into(),
                serial: names.serial.as_str().into(),
                subject: Arc::new(()),
            }),
            _ => Err(Refusal::SeveralIdentities),
        }
    }
}

/// Shakes hands; what each side found about the other.
async fn shake(
    server: &MutualTls,
    client: &MutualTls,
) -> (
    Option<Result<Arc<Peer>, Refusal>>,
    Option<Result<Arc<Peer>, Refusal>>,
) {
    let (one, other) = tokio::io::duplex(1 << 16);
    let accepting = server.accepting(Offer::Http2, Arc::new(OneUri)).unwrap();
    let connecting = client
        .connecting(Some("db.internal"), Offer::Http2, Arc::new(OneUri))
        .unwrap();
    let mut server = SslStream::new(accepting, one).unwrap();
    let mut client = SslStream::new(connecting, other).unwrap();
    let serving = async {
        let _ = Pin::new(&mut server).accept().await;
        let outcome = MutualTls::outcome(server.ssl()).cloned();
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut server).await;
        drop(server);
        outcome
    };
    let calling = async {
        let _ = Pin::new(&mut client).connect().await;
        let outcome = MutualTls::outcome(client.ssl()).cloned();
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut client).await;
        drop(client);
        outcome
    };
    tokio::join!(serving, calling)
}

fn label(outcome: &Option<Result<Arc<Peer>, Refusal>>) -> &'static str {
    match outcome {
        None => "none",
        Some(Ok(_)) => "ok",
        Some(Err(refusal)) => refusal.label(),
    }
}

#[tokio::test]
async fn every_bad_certificate_has_its_own_reason() {
    let mesh = Maker::new("mesh");
    let foreign = Maker::new("foreign");
    let good = service("spiffe://t/ns/default/dc/dc1/svc/web");
    let server = MutualTls::build(mesh.leaf(&good), roots(&[&mesh])).unwrap();
    let kind = |change: fn(&mut Kind)| {
        let mut kind = good.clone();
        change(&mut kind);
        mesh.leaf(&kind)
    };
    for (pair, expected) in [
        (kind(|_| {}), "ok"),
        (kind(|kind| kind.expired = true), "certificate_expired"),
        (kind(|kind| kind.client = false), "wrong_purpose"),
        (kind(|kind| kind.server = false), "ok"),
        (kind(|kind| kind.uris.clear()), "no_identity"),
        (
            kind(|kind| kind.uris.push("spiffe://t/x")),
            "several_identities",
        ),
        (foreign.leaf(&good), "unknown_authority"),
    ] {
        // The client trusts the server whatever its own certificate is.
        let client = MutualTls::build(pair, roots(&[&mesh])).unwrap();
        let (found, _) = shake(&server, &client).await;
        assert_eq!(label(&found), expected);
    }
}

#[tokio::test]
async fn servers_are_judged_as_servers() {
    let mesh = Maker::new("mesh");
    let good = service("spiffe://t/ns/default/dc/dc1/svc/web");
    let client = MutualTls::build(mesh.leaf(&good), roots(&[&mesh])).unwrap();
    let mut only_client = good.clone();
    only_client.server = false;
    for (kind, expected) in [(&good, "ok"), (&only_client, "wrong_purpose")] {
        let server = MutualTls::build(mesh.leaf(kind), roots(&[&mesh])).unwrap();
        let (_, found) = shake(&server, &client).await;
        assert_eq!(label(&found), expected);
    }
}

#[tokio::test]
async fn a_new_authority_is_reached_over_the_old_one() {
    let (old, new) = (Maker::new("old"), Maker::new("new"));
    let good = service("spiffe://t/ns/default/dc/dc1/svc/web");
    let server = MutualTls::build(old.leaf(&good), roots(&[&old])).unwrap();
    let mut pair = new.leaf(&good);
    let without = MutualTls::build(pair.clone(), roots(&[&old, &new])).unwrap();
    pair.chain.push(new.cross_signed_by(&old));
    assert!(roots(&[&old]).verify(&pair).is_ok());
    let with = MutualTls::build(pair, roots(&[&old, &new])).unwrap();
    assert_eq!(label(&shake(&server, &with).await.0), "ok");
    assert_eq!(
        label(&shake(&server, &without).await.0),
        "unknown_authority"
    );
}

#[test]
fn leaves_are_checked_against_roots() {
    let (mesh, foreign) = (Maker::new("mesh"), Maker::new("foreign"));
    let mut kind = service("spiffe://t/ns/default/dc/dc1/svc/web");
    assert!(roots(&[&mesh]).verify(&mesh.leaf(&kind)).is_ok());
    assert!(roots(&[&foreign]).verify(&mesh.leaf(&kind)).is_err());
    kind.expired = true;
    assert!(roots(&[&mesh]).verify(&mesh.leaf(&kind)).is_err());
    assert_eq!(roots(&[&mesh, &mesh]).certificates().len(), 1);
}
