//! Signatures on answers about revocation.

use boring::hash::MessageDigest;
use boring::pkey::{PKey, Public};
use boring::sign::Verifier;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// Verifies `signature` over `data`. SHA-1 is not accepted: forged answers are worth money.
pub(super) fn verify(
    algorithm: &AlgorithmIdentifierOwned,
    key: &PKey<Public>,
    data: &[u8],
    signature: &[u8],
) -> Result<(), String> {
    let digest = match algorithm.oid.to_string().as_str() {
        // RSA (PKCS #1) and ECDSA, each with SHA-256, 384, 512.
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => Some(MessageDigest::sha256()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(MessageDigest::sha384()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(MessageDigest::sha512()),
        // Ed25519 digests for itself.
        "1.3.101.112" => None,
        other => return Err(format!("is signed with an unknown algorithm ({other})")),
    };
    let failed = |_| "its signature cannot be verified".to_owned();
    let mut verifier = match digest {
        Some(digest) => Verifier::new(digest, key),
        None => Verifier::new_without_digest(key),
    }
    .map_err(failed)?;
    match verifier.verify_oneshot(signature, data).map_err(failed)? {
        true => Ok(()),
        false => Err("its signature is wrong".to_owned()),
    }
}
