//! Whom to trust: configured anchors, or the system's.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use boring::error::ErrorStack;
use boring::x509::X509;
use boring::x509::store::{X509Store, X509StoreBuilder};
use sha2::{Digest, Sha256};

use crate::base::pem::parse_certificates;

/// Where systems keep the certificates that they trust, the usual places first.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another bundle; as OpenSSL has it.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";
/// Largest bundle that is read, in bytes.
const BUNDLE_BYTES_MAX: u64 = 4 << 20;

/// Trust for upstreams whose plan names no authorities: configured anchors, or the system's.
pub struct Trust {
    pem: Arc<str>,
    pub(super) fingerprint: [u8; 32],
    anchors: OnceLock<Result<Anchors, String>>,
}

/// Certificates that end a chain.
#[derive(Clone)]
pub(super) struct Anchors {
    pub(super) certificates: Arc<Box<[X509]>>,
    pub(super) store: X509Store,
}

impl Trust {
    /// Trust in these PEM certificates; an empty text is the system's trust, read when it is first needed.
    pub fn link(pem: &Arc<str>) -> Result<Arc<Self>, String> {
        let trust = Self {
            pem: Arc::clone(pem),
            fingerprint: Sha256::digest(pem.as_bytes()).into(),
            anchors: OnceLock::new(),
        };
        if !pem.is_empty() {
            trust.anchors()?;
        }
        Ok(Arc::new(trust))
    }

    pub(super) fn anchors(&self) -> Result<Anchors, String> {
        let read = || {
            if self.pem.is_empty() {
                let (path, text) = system_bundle()?;
                Anchors::parse(&[text.into()])
                    .map_err(|error| format!("trusted certificates of {}: {error}", path.display()))
            } else {
                Anchors::parse(&[Arc::clone(&self.pem)])
                    .map_err(|error| format!("trusted certificates: {error}"))
            }
        };
        self.anchors.get_or_init(read).clone()
    }
}

impl Anchors {
    pub(super) fn parse(pems: &[Arc<str>]) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for pem in pems {
            certificates.extend(parse_certificates(pem).map_err(|error| error.to_string())?);
        }
        let store = || {
            let mut store = X509StoreBuilder::new()?;
            for certificate in &certificates {
                store.add_cert(certificate)?;
            }
            Ok(store.build())
        };
        let store = store().map_err(|error: ErrorStack| error.to_string())?;
        Ok(Self {
            certificates: Arc::new(certificates.into_boxed_slice()),
            store,
        })
    }
}

/// The first bundle of trusted certificates that the system has, with its path.
pub fn system_bundle() -> Result<(PathBuf, String), String> {
    use std::io::Read;

    let paths = match std::env::var_os(BUNDLE_VARIABLE) {
        Some(path) => vec![PathBuf::from(path)],
        None => SYSTEM_BUNDLES.iter().map(PathBuf::from).collect(),
    };
    for path in &paths {
        let mut text = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(BUNDLE_BYTES_MAX).read_to_end(&mut text));
        if read.is_ok() {
            return Ok((path.clone(), String::from_utf8_lossy(&text).into_owned()));
        }
    }
    Err(format!(
        "cannot read the system's trusted certificates, looked for {}; install them, name a file in {BUNDLE_VARIABLE}, \
         or configure the trusted certificates",
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    ))
}
