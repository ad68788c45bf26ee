#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

//! Real handshakes against a server of our own with certificates made for the occasion.

use std::net::{TcpListener, TcpStream};

use boring::ssl::{SslAcceptor, SslStream};

use super::*;
use crate::base::secret::Secret;
use crate::base::self_signed::{Algorithm, PemPair, SelfSigned};

const NOW: i64 = 1_790_000_000;

fn made<'a>(name: &'a str, authority: bool) -> SelfSigned<'a> {
    SelfSigned {
        algorithm: Algorithm::EcdsaP256,
        common_name: name,
        dns_names: &["up.test"],
        addresses: &[],
        authority,
        not_before: NOW,
        days: 3650,
    }
}

fn issue(what: SelfSigned<'_>, issuer: &PemPair) -> PemPair {
    let issuer = KeyPair::parse(&issuer.certificate, &issuer.key).unwrap();
    what.issue(&issuer.leaf, &issuer.key).unwrap()
}

/// A leaf with so many intermediates below one root.
fn chain(root: &PemPair, intermediates: usize, leaf: SelfSigned<'_>) -> PemPair {
    let mut issuer = root.clone();
    let mut below = String::new();
    for n in 0..intermediates {
        let name = format!("intermediate {n}");
        issuer = issue(made(&name, true), &issuer);
        below.insert_str(0, &issuer.certificate);
    }
    let mut leaf = issue(leaf, &issuer);
    leaf.certificate.push_str(&below);
    leaf
}

fn plan_of(pair: &PemPair) -> Arc<KeyPairPlan> {
    Arc::new(KeyPairPlan {
        certificate: pair.certificate.as_str().into(),
        key: Secret::new(pair.key.as_str()),
    })
}

/// Connects to a server with this certificate; gives what [`UpstreamTls::check_peer`] says and the common name of the
/// client certificate that the server saw.
fn connect(
    tls: &UpstreamTls,
    server: &PemPair,
    client_authority: Option<&PemPair>,
    name: &str,
) -> Result<(Result<(), String>, Option<String>), String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pair = KeyPair::parse(&server.certificate, &server.key).unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&pair.leaf).unwrap();
    for intermediate in &pair.chain {
        acceptor.add_extra_chain_cert(intermediate.clone()).unwrap();
    }
    acceptor.set_private_key(&pair.key).unwrap();
    acceptor.set_verify(SslVerifyMode::NONE);
    if let Some(authority) = client_authority {
        let anchors = Anchors::parse(&[authority.certificate.as_str().into()]).unwrap();
        acceptor.set_cert_store_ref(&anchors.store);
        acceptor.set_verify(SslVerifyMode::PEER);
    }
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let stream = acceptor.build().accept(stream).ok()?;
        let seen = stream.ssl().peer_certificate()?;
        let name = seen.subject_name().entries().last()?.data();
        Some(String::from_utf8_lossy(name.as_slice()).into_owned())
    });
    let stream = TcpStream::connect(address).unwrap();
    let connected: Result<SslStream<TcpStream>, String> = tls
        .connection(name, b"\x08http/1.1")
        .and_then(|ssl| ssl.connect(stream).map_err(|error| error.to_string()));
    let checked = connected.map(|stream| tls.check_peer(stream.ssl(), name));
    let seen = serving.join().unwrap();
    checked.map(|check| (check, seen))
}

fn verifying(authority: &PemPair, depth: Option<u8>) -> UpstreamTlsPlan {
    UpstreamTlsPlan {
        verify: Some(true),
        verify_depth: depth,
        authorities: vec![authority.certificate.as_str().into()],
        ..UpstreamTlsPlan::default()
    }
}

fn link(plan: &UpstreamTlsPlan) -> Result<Arc<UpstreamTls>, String> {
    let trust = Trust::link(&"".into()).unwrap();
    UpstreamTls::link(plan, None, &trust, &Live::default())
}

#[test]
fn verifies_chain_name_and_depth() {
    let root = made("root", true).generate().unwrap();
    let stranger = made("stranger", true).generate().unwrap();
    let addresses = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let leaf = SelfSigned {
        addresses: &addresses,
        ..made("leaf", false)
    };
    let direct = chain(&root, 0, leaf);
    let one = chain(&root, 1, leaf);
    let two = chain(&root, 2, leaf);
    let cases = [
        (&direct, &root, None, "up.test", true),
        (&direct, &root, Some(0), "up.test", true),
        (&direct, &root, None, "up.test.", true),
        (&direct, &root, None, "127.0.0.1", true),
        (&direct, &root, None, "[::1]", true),
        (&direct, &root, None, "127.0.0.2", false),
        (&direct, &root, None, "other.test", false),
        (&direct, &stranger, None, "up.test", false),
        (&one, &root, Some(0), "up.test", false),
        (&one, &root, None, "up.test", true),
        (&two, &root, None, "up.test", false),
        (&two, &root, Some(2), "up.test", true),
    ];
    let unverified = link(&UpstreamTlsPlan::default()).unwrap();
    for (server, authority, depth, name, accepted) in cases {
        let tls = link(&verifying(authority, depth)).unwrap();
        let result = connect(&tls, server, None, name);
        assert_eq!(result.is_ok(), accepted, "{name} {depth:?}: {result:?}");
        // A connection that somebody else made without verification gets the same verdict.
        let probe = Probe::new(&unverified, server);
        assert_eq!(
            tls.check_peer(probe.0.ssl(), name).is_ok(),
            accepted,
            "{name} {depth:?}"
        );
        assert!(connect(&unverified, server, None, name).unwrap().0.is_ok());
    }
    let tls = link(&verifying(&root, None)).unwrap();
    assert_eq!(
        tls.connection("", b"").err().as_deref(),
        Some(judge::NAMELESS)
    );
    assert!(unverified.connection("", b"").is_ok());
}

/// An open connection without verification.
struct Probe(SslStream<TcpStream>);

impl Probe {
    fn new(unverified: &UpstreamTls, server: &PemPair) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pair = KeyPair::parse(&server.certificate, &server.key).unwrap();
        let serving = std::thread::spawn(move || {
            let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
            acceptor.set_certificate(&pair.leaf).unwrap();
            for intermediate in &pair.chain {
                acceptor.add_extra_chain_cert(intermediate.clone()).unwrap();
            }
            acceptor.set_private_key(&pair.key).unwrap();
            let (stream, _) = listener.accept().unwrap();
            acceptor.build().accept(stream).unwrap();
        });
        let stream = TcpStream::connect(address).unwrap();
        let stream = unverified
            .connection("", b"")
            .unwrap()
            .connect(stream)
            .unwrap();
        serving.join().unwrap();
        Self(stream)
    }
}

#[test]
fn shows_the_nearest_client_certificate() {
    let root = made("root", true).generate().unwrap();
    let server = chain(&root, 0, made("server", false));
    let own = plan_of(&chain(&root, 0, made("own", false)));
    let inherited = plan_of(&chain(&root, 0, made("inherited", false)));
    let trust = Trust::link(&"".into()).unwrap();
    let live = Live::default();
    let cases = [
        (None, None, None),
        (None, Some(&inherited), Some("inherited")),
        (Some(&own), Some(&inherited), Some("own")),
    ];
    for (own, inherited, expected) in cases {
        let plan = UpstreamTlsPlan {
            client_certificate: own.cloned(),
            ..UpstreamTlsPlan::default()
        };
        let tls = UpstreamTls::link(&plan, inherited, &trust, &live).unwrap();
        let (_, seen) = connect(&tls, &server, Some(&root), "up.test").unwrap();
        assert_eq!(seen.as_deref(), expected);
        assert_eq!(tls.client_certificate().is_some(), expected.is_some());
    }
}

#[test]
fn equal_settings_share_and_different_ones_do_not() {
    let root = made("root", true).generate().unwrap();
    let other = made("other", true).generate().unwrap();
    let (live, trust) = (Live::default(), Trust::link(&"".into()).unwrap());
    let trusted = Trust::link(&root.certificate.as_str().into()).unwrap();
    let client = plan_of(&chain(&root, 0, made("client", false)));
    let link = |plan: &UpstreamTlsPlan, inherited, trust: &Trust| {
        UpstreamTls::link(plan, inherited, trust, &live).unwrap()
    };
    let plain = UpstreamTlsPlan::default();
    let verified = UpstreamTlsPlan {
        verify: Some(true),
        ..plain.clone()
    };
    let distinct = [
        link(&plain, None, &trust),
        link(&plain, Some(&client), &trust),
        link(&verifying(&root, None), None, &trust),
        link(&verifying(&root, Some(0)), None, &trust),
        link(&verifying(&other, None), None, &trust),
        link(&verified, None, &trusted),
    ];
    for (n, one) in distinct.iter().enumerate() {
        for another in &distinct[n + 1..] {
            assert_ne!(one.identity(), another.identity());
        }
    }
    let no = UpstreamTlsPlan {
        verify: Some(false),
        verify_depth: Some(3),
        ..plain
    };
    assert!(Arc::ptr_eq(&distinct[0], &link(&no, None, &trusted)));
    assert!(distinct[5].authorities().is_some() && distinct[0].authorities().is_none());
}

#[test]
fn says_which_certificate_is_wrong() {
    let root = made("root", true).generate().unwrap();
    let mut bad_authority = verifying(&root, None);
    bad_authority.authorities = vec!["nothing".into()];
    let bad_client = UpstreamTlsPlan {
        client_certificate: Some(plan_of(&PemPair {
            certificate: root.certificate.clone(),
            key: String::new(),
        })),
        ..UpstreamTlsPlan::default()
    };
    for (plan, start) in [
        (bad_authority, "ca certificate: no certificate found"),
        (bad_client, "client certificate: no private key found"),
    ] {
        let error = link(&plan).err().unwrap();
        assert!(error.starts_with(start), "{error}");
    }
    let error = Trust::link(&"nothing".into()).err().unwrap();
    assert!(error.starts_with("trusted certificates: "), "{error}");
}
