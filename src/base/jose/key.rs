//! Keys that sign and verify, each for one algorithm.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boring::bn::BigNum;
use boring::ec::{EcGroup, EcKey};
use boring::ecdsa::EcdsaSig;
use boring::hash::hash;
use boring::nid::Nid;
use boring::pkey::{HasPublic, Id, PKey, PKeyRef, Private, Public};
use boring::rsa::{Padding, Rsa};
use boring::sign::{RsaPssSaltlen, Signer, Verifier};
use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha2::{Sha256, Sha384, Sha512};
use thiserror::Error;
use zeroize::Zeroizing;

use super::algorithm::{Algorithm, Family};
use crate::base::pem::{PEM_BYTES_MAX, parse_certificates, parse_key, parse_public_key};

/// Smallest RSA key, in bits (RFC 7518, 3.3).
const RSA_BITS_MIN: u32 = 2048;
/// Largest RSA key: verifying with larger ones takes too long.
const RSA_BITS_MAX: u32 = 16_384;

/// Why a key cannot be used. No text holds anything of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A secret or RSA key is too short for the algorithm.
    #[error("the key is too short for {0}, needed are {1} bits")]
    TooShort(&'static str, u32),
    /// It is a key of another kind.
    #[error("the key is of a kind that {0} does not take")]
    WrongKind(&'static str),
    /// It is an ECDSA key on another curve.
    #[error("the key is not on the curve of {0}")]
    WrongCurve(&'static str),
    /// The passphrase does not open it.
    #[error("the passphrase does not open the private key")]
    WrongPassphrase,
    /// It is no key at all.
    #[error("{0}")]
    Unreadable(String),
}

/// A key that signs.
pub struct SigningKey {
    algorithm: Algorithm,
    key: Signs,
}

enum Signs {
    Secret(Zeroizing<Vec<u8>>),
    Private(PKey<Private>),
}

/// A key that verifies.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: Verifies,
}

#[derive(Clone)]
enum Verifies {
    Secret(Zeroizing<Vec<u8>>),
    Public(PKey<Public>),
}

impl SigningKey {
    /// The key of a shared secret, which is at least as long as the digest.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(algorithm, secret)?;
        Ok(Self {
            algorithm,
            key: Signs::Secret(Zeroizing::new(secret.to_vec())),
        })
    }

    /// A private key in PEM form, opened with a passphrase where it is encrypted.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn pem(
        algorithm: Algorithm,
        pem: &str,
        passphrase: Option<&str>,
    ) -> Result<Self, KeyError> {
        let pem = tidied(pem);
        let key = match (passphrase, pem.contains("ENCRYPTED")) {
            (Some(passphrase), true) if pem.len() <= PEM_BYTES_MAX => {
                PKey::private_key_from_pem_passphrase(pem.as_bytes(), passphrase.as_bytes())
                    .map_err(|_| KeyError::WrongPassphrase)?
            }
            (_, true) => return Err(KeyError::WrongPassphrase),
            _ => parse_key(&pem).map_err(|error| KeyError::Unreadable(error.to_string()))?,
        };
        check_pair(algorithm, &key)?;
        Ok(Self {
            algorithm,
            key: Signs::Private(key),
        })
    }

    /// The signature of a message; none when the library fails.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.key {
            Signs::Secret(secret) => mac(self.algorithm, secret, message),
            Signs::Private(key) => match self.algorithm.curve() {
                Some((_, half)) => {
                    let digest = hash(self.algorithm.digest(), message).ok()?;
                    let key = key.ec_key().ok()?;
                    let signature = EcdsaSig::sign(&digest, &key).ok()?;
                    let mut both = signature.r().to_vec_padded(half).ok()?;
                    both.extend(signature.s().to_vec_padded(half).ok()?);
                    Some(both)
                }
                None => {
                    let mut signer = Signer::new(self.algorithm.digest(), key).ok()?;
                    if self.algorithm.family() == Family::RsaPss {
                        signer.set_rsa_padding(Padding::PKCS1_PSS).ok()?;
                        signer
                            .set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
                            .ok()?;
                    }
                    signer.update(message).ok()?;
                    signer.sign_to_vec().ok()
                }
            },
        }
    }
}

impl VerifyingKey {
    /// The key of a shared secret, which is at least as long as the digest.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(algorithm, secret)?;
        Ok(Self {
            algorithm,
            key: Verifies::Secret(Zeroizing::new(secret.to_vec())),
        })
    }

    /// A public key, or that of a certificate, in PEM form.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let pem = tidied(pem);
        let key = if pem.contains("CERTIFICATE-----") {
            let unreadable = |reason: String| KeyError::Unreadable(reason);
            let certificates =
                parse_certificates(&pem).map_err(|error| unreadable(error.to_string()))?;
            let first = certificates.first();
            let key = first.and_then(|certificate| certificate.public_key().ok());
            key.ok_or_else(|| unreadable("the certificate has no readable key".to_owned()))?
        } else {
            parse_public_key(&pem).map_err(|error| KeyError::Unreadable(error.to_string()))?
        };
        Self::public(algorithm, key)
    }

    /// A key in JSON form (RFC 7517): RSA or EC.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn json(algorithm: Algorithm, key: &Map<String, Value>) -> Result<Self, KeyError> {
        let unreadable = || KeyError::Unreadable("the JSON key cannot be read".to_owned());
        let number = |name: &str| -> Result<BigNum, KeyError> {
            let text = key.get(name).and_then(Value::as_str);
            let text = text.ok_or_else(unreadable)?;
            let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
            BigNum::from_slice(&bytes.map_err(|_| unreadable())?).map_err(|_| unreadable())
        };
        let kind = key.get("kty").and_then(Value::as_str).unwrap_or_default();
        let key = match (kind, algorithm.family()) {
            ("RSA", Family::Rsa | Family::RsaPss) => {
                let rsa = Rsa::from_public_components(number("n")?, number("e")?);
                PKey::from_rsa(rsa.map_err(|_| unreadable())?)
            }
            ("EC", Family::Ec) => {
                let curve = match key.get("crv").and_then(Value::as_str) {
                    Some("P-256") => Nid::X9_62_PRIME256V1,
                    Some("P-384") => Nid::SECP384R1,
                    Some("P-521") => Nid::SECP521R1,
                    _ => return Err(KeyError::WrongCurve(algorithm.name())),
                };
                let group = EcGroup::from_curve_name(curve).map_err(|_| unreadable())?;
                let (x, y) = (number("x")?, number("y")?);
                let point = EcKey::from_public_key_affine_coordinates(&group, &x, &y);
                PKey::from_ec_key(point.map_err(|_| unreadable())?)
            }
            _ => return Err(KeyError::WrongKind(algorithm.name())),
        };
        Self::public(algorithm, key.map_err(|_| unreadable())?)
    }

    fn public(algorithm: Algorithm, key: PKey<Public>) -> Result<Self, KeyError> {
        check_pair(algorithm, &key)?;
        Ok(Self {
            algorithm,
            key: Verifies::Public(key),
        })
    }

    /// Whether a signature is this key's.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Verifies::Secret(secret) => is_mac(self.algorithm, secret, message, signature),
            Verifies::Public(key) => self.verifies_public(key, message, signature).is_some(),
        }
    }

    fn verifies_public(
        &self,
        key: &PKeyRef<Public>,
        message: &[u8],
        signature: &[u8],
    ) -> Option<()> {
        let good = match self.algorithm.curve() {
            Some((_, half)) => {
                if signature.len() != 2 * half {
                    return None;
                }
                let (r, s) = signature.split_at_checked(half)?;
                let number = |bytes: &[u8]| BigNum::from_slice(bytes).ok();
                let signature = EcdsaSig::from_private_components(number(r)?, number(s)?).ok()?;
                let digest = hash(self.algorithm.digest(), message).ok()?;
                signature.verify(&digest, &*key.ec_key().ok()?).ok()?
            }
            None => {
                let mut verifier = Verifier::new(self.algorithm.digest(), key).ok()?;
                if self.algorithm.family() == Family::RsaPss {
                    verifier.set_rsa_padding(Padding::PKCS1_PSS).ok()?;
                    verifier
                        .set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
                        .ok()?;
                }
                verifier.update(message).ok()?;
                verifier.verify(signature).ok()?
            }
        };
        good.then_some(())
    }
}

/// Variables often hold PEM texts with their lines indented.
fn tidied(pem: &str) -> String {
    let lines = pem.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut text = lines.collect::<Vec<_>>().join("\n");
    text.push('\n');
    // Headers of old encrypted keys end with an empty line.
    if text.contains("DEK-Info:") {
        let mut all = String::with_capacity(text.len() + 1);
        for line in text.lines() {
            all.push_str(line);
            all.push('\n');
            if line.starts_with("DEK-Info:") {
                all.push('\n');
            }
        }
        return all;
    }
    text
}

fn check_secret(algorithm: Algorithm, secret: &[u8]) -> Result<(), KeyError> {
    if algorithm.family() != Family::Hmac {
        return Err(KeyError::WrongKind(algorithm.name()));
    }
    let bits = u32::from(algorithm.bits());
    match secret.len() * 8 < bits as usize {
        true => Err(KeyError::TooShort(algorithm.name(), bits)),
        false => Ok(()),
    }
}

fn check_pair<T: HasPublic>(algorithm: Algorithm, key: &PKeyRef<T>) -> Result<(), KeyError> {
    let name = algorithm.name();
    match (algorithm.family(), key.id()) {
        (Family::Rsa | Family::RsaPss, Id::RSA) => match key.bits() {
            bits if bits < RSA_BITS_MIN => Err(KeyError::TooShort(name, RSA_BITS_MIN)),
            bits if bits > RSA_BITS_MAX => Err(KeyError::Unreadable(format!(
                "the key has more than {RSA_BITS_MAX} bits"
            ))),
            _ => Ok(()),
        },
        (Family::Ec, Id::EC) => {
            let key = key.ec_key().map_err(|_| KeyError::WrongKind(name))?;
            let curve = key.group().curve_name();
            match curve == algorithm.curve().map(|(curve, _)| curve) {
                true => Ok(()),
                false => Err(KeyError::WrongCurve(name)),
            }
        }
        _ => Err(KeyError::WrongKind(name)),
    }
}

fn mac(algorithm: Algorithm, secret: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    macro_rules! mac {
        ($hash:ty) => {{
            let mut mac = Hmac::<$hash>::new_from_slice(secret).ok()?;
            mac.update(message);
            Some(mac.finalize().into_bytes().to_vec())
        }};
    }
    match algorithm.bits() {
        256 => mac!(Sha256),
        384 => mac!(Sha384),
        _ => mac!(Sha512),
    }
}

fn is_mac(algorithm: Algorithm, secret: &[u8], message: &[u8], signature: &[u8]) -> bool {
    macro_rules! verify {
        ($hash:ty) => {
            Hmac::<$hash>::new_from_slice(secret).is_ok_and(|mut mac| {
                mac.update(message);
                mac.verify_slice(signature).is_ok()
            })
        };
    }
    match algorithm.bits() {
        256 => verify!(Sha256),
        384 => verify!(Sha384),
        _ => verify!(Sha512),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;
    use serde_json::json;

    fn pair(algorithm: Algorithm) -> PKey<Private> {
        match algorithm.curve() {
            Some((curve, _)) => {
                let group = EcGroup::from_curve_name(curve).unwrap();
                PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
            }
            None => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        }
    }

    fn pem(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn keys(algorithm: Algorithm, rsa: &PKey<Private>) -> (SigningKey, VerifyingKey) {
        if algorithm.family() == Family::Hmac {
            let secret = [7; 64];
            return (
                SigningKey::secret(algorithm, &secret).unwrap(),
                VerifyingKey::secret(algorithm, &secret).unwrap(),
            );
        }
        let made = pair_of(algorithm, rsa);
        let private = pem(made.private_key_to_pem_pkcs8().unwrap());
        let public = pem(made.public_key_to_pem().unwrap());
        // As a variable may hold it.
        let public = public.replace('\n', "\n      ");
        (
            SigningKey::pem(algorithm, &private, None).unwrap(),
            VerifyingKey::pem(algorithm, &public).unwrap(),
        )
    }

    fn pair_of(algorithm: Algorithm, rsa: &PKey<Private>) -> PKey<Private> {
        match algorithm.family() {
            Family::Ec => pair(algorithm),
            _ => rsa.clone(),
        }
    }

    #[test]
    fn every_algorithm_verifies_what_it_signed() {
        let rsa = pair(Algorithm::RS256);
        for algorithm in Algorithm::ALL {
            let name = algorithm.name();
            assert_eq!(Algorithm::from_name(name), Some(algorithm));
            let (signing, verifying) = keys(algorithm, &rsa);
            let mut signature = signing.sign(b"message").unwrap();
            assert!(verifying.verifies(b"message", &signature), "{name}");
            assert!(!verifying.verifies(b"another", &signature), "{name}");
            assert!(!verifying.verifies(b"message", &[]), "{name}");
            signature[3] ^= 1;
            assert!(!verifying.verifies(b"message", &signature), "{name}");
        }
        assert_eq!(Algorithm::from_name("none"), None);
        assert_eq!(Algorithm::from_name("hs256"), None);
    }

    #[test]
    fn others_can_verify_it() {
        // A second implementation judges, where it knows the algorithm.
        let rsa = pair(Algorithm::RS256);
        for algorithm in Algorithm::ALL {
            let name = algorithm.name();
            let Ok(theirs) = name.parse::<jsonwebtoken::Algorithm>() else {
                assert_eq!(algorithm, Algorithm::ES512);
                continue;
            };
            let made = pair_of(algorithm, &rsa);
            let public = made.public_key_to_pem().unwrap();
            let private = pem(made.private_key_to_pem_pkcs8().unwrap());
            let (signing, key) = match algorithm.family() {
                Family::Hmac => (
                    SigningKey::secret(algorithm, &[7; 64]).unwrap(),
                    jsonwebtoken::DecodingKey::from_secret(&[7; 64]),
                ),
                Family::Ec => (
                    SigningKey::pem(algorithm, &private, None).unwrap(),
                    jsonwebtoken::DecodingKey::from_ec_pem(&public).unwrap(),
                ),
                _ => (
                    SigningKey::pem(algorithm, &private, None).unwrap(),
                    jsonwebtoken::DecodingKey::from_rsa_pem(&public).unwrap(),
                ),
            };
            let signature = URL_SAFE_NO_PAD.encode(signing.sign(b"message").unwrap());
            let good = jsonwebtoken::crypto::verify(&signature, b"message", &key, theirs);
            assert!(good.unwrap(), "{name}");
        }
    }

    #[test]
    fn keys_are_for_their_algorithms() {
        let rsa = pair(Algorithm::RS256);
        let ec = pair(Algorithm::ES256);
        let public = |key: &PKey<Private>| pem(key.public_key_to_pem().unwrap());
        let error = |algorithm, pem: &str| VerifyingKey::pem(algorithm, pem).err();
        assert_eq!(
            error(Algorithm::ES256, &public(&rsa)),
            Some(KeyError::WrongKind("ES256"))
        );
        assert_eq!(
            error(Algorithm::RS256, &public(&ec)),
            Some(KeyError::WrongKind("RS256"))
        );
        assert_eq!(
            error(Algorithm::ES384, &public(&ec)),
            Some(KeyError::WrongCurve("ES384"))
        );
        assert!(matches!(
            error(Algorithm::RS256, "nothing"),
            Some(KeyError::Unreadable(_))
        ));
        let small = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
        assert_eq!(
            error(Algorithm::PS256, &public(&small)),
            Some(KeyError::TooShort("PS256", 2048))
        );
        assert_eq!(
            SigningKey::secret(Algorithm::HS384, &[0; 47]).err(),
            Some(KeyError::TooShort("HS384", 384))
        );
        // A public key must never be taken for a shared secret.
        assert_eq!(
            VerifyingKey::secret(Algorithm::RS256, public(&rsa).as_bytes()).err(),
            Some(KeyError::WrongKind("RS256"))
        );
    }

    #[test]
    fn encrypted_keys_want_their_passphrase() {
        let rsa = pair(Algorithm::RS256);
        let cipher = boring::symm::Cipher::aes_256_cbc();
        let private = rsa.private_key_to_pem_pkcs8_passphrase(cipher, b"open");
        let private = pem(private.unwrap());
        assert!(SigningKey::pem(Algorithm::RS256, &private, Some("open")).is_ok());
        for passphrase in [None, Some("wrong")] {
            let key = SigningKey::pem(Algorithm::RS256, &private, passphrase);
            assert_eq!(key.err(), Some(KeyError::WrongPassphrase));
        }
    }

    #[test]
    fn json_keys_are_read() {
        let rsa = pair(Algorithm::RS256);
        let parts = rsa.rsa().unwrap();
        let text = |number: &boring::bn::BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
        let key = json!({"kty": "RSA", "n": text(parts.n()), "e": text(parts.e())});
        let key = VerifyingKey::json(Algorithm::PS512, key.as_object().unwrap()).unwrap();
        let private = pem(rsa.private_key_to_pem_pkcs8().unwrap());
        let signing = SigningKey::pem(Algorithm::PS512, &private, None).unwrap();
        assert!(key.verifies(b"m", &signing.sign(b"m").unwrap()));
        for bad in [
            json!({"kty": "RSA", "n": "!", "e": "AQAB"}),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
            json!({}),
        ] {
            let key = VerifyingKey::json(Algorithm::RS256, bad.as_object().unwrap());
            assert!(key.is_err(), "{bad}");
        }
        let off = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"});
        assert!(VerifyingKey::json(Algorithm::ES256, off.as_object().unwrap()).is_err());
    }
}
