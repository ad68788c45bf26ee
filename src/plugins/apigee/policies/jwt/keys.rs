//! The keys of a policy, out of variables, and kept as long as the variables say the same.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::Token;
use crate::base::jose::{Algorithm, KeySet, SigningKey, VerifyingKey};
use crate::dialects::apigee::policies::jwt::{Encoding, Key};
use crate::dialects::apigee::policies::texts::RefOrText;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::scope::Scope;

/// What was read last from a text, so that it is not read again while the text stays.
pub(super) struct Last<V>(Mutex<Option<(Algorithm, Zeroizing<String>, V)>>);

impl<V> Default for Last<V> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<V: Clone> Last<V> {
    fn of<E>(
        &self,
        algorithm: Algorithm,
        text: &str,
        read: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        if let Some((known, of, value)) = &*self.0.lock()
            && *known == algorithm
            && **of == *text
        {
            return Ok(value.clone());
        }
        let value = read()?;
        *self.0.lock() = Some((algorithm, Zeroizing::new(text.to_owned()), value.clone()));
        Ok(value)
    }
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The bytes of a secret; none when it is not written so.
fn secret_of(text: &str, encoding: Encoding) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = match encoding {
        Encoding::Text => text.as_bytes().to_vec(),
        Encoding::Base64 => GeneralPurpose::new(&STANDARD, LENIENT)
            .decode(text.trim())
            .ok()?,
        Encoding::Base64Url => GeneralPurpose::new(&URL_SAFE, LENIENT)
            .decode(text.trim())
            .ok()?,
        Encoding::Hexadecimal => {
            let digits: Vec<u8> = text
                .trim()
                .chars()
                .map(|digit| {
                    digit
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                })
                .collect::<Option<_>>()?;
            let mut bytes = Vec::with_capacity(digits.len() / 2);
            for pair in digits.chunks(2) {
                let [high, low] = pair else { return None };
                bytes.push(high << 4 | low);
            }
            bytes
        }
    };
    Some(Zeroizing::new(bytes))
}

/// Where the key of a token is.
pub(super) enum Found {
    Key(VerifyingKey),
    /// In the set that this URL serves, under this identifier.
    Remote {
        url: String,
        id: String,
    },
}

impl Token {
    fn secret(
        &self,
        scope: &Scope,
        variable: &str,
        encoding: Encoding,
    ) -> Result<Zeroizing<Vec<u8>>, PolicyFault> {
        let text = self.text(scope, variable);
        let text = text.ok_or_else(|| self.unresolved(variable))?;
        secret_of(&text, encoding).ok_or_else(|| {
            let message = format!("variable {variable} is not encoded as the policy says");
            self.fault("InvalidSecretKey", message)
        })
    }

    /// The key to sign with.
    pub(super) fn signing_key(
        &self,
        scope: &Scope,
        algorithm: Algorithm,
    ) -> Result<Arc<SigningKey>, PolicyFault> {
        let read = match &self.config.key {
            Some(Key::Secret { variable, encoding }) => {
                let secret = self.secret(scope, variable, *encoding)?;
                SigningKey::secret(algorithm, &secret).map(Arc::new)
            }
            Some(Key::Private {
                variable,
                passphrase,
            }) => {
                let pem = self.text(scope, variable);
                let pem = Zeroizing::new(pem.ok_or_else(|| self.unresolved(variable))?);
                let phrase = passphrase.as_deref();
                let phrase = phrase.and_then(|name| self.text(scope, name));
                let phrase = phrase.map(Zeroizing::new);
                let whole = phrase
                    .as_ref()
                    .map_or_else(String::new, |it| it.to_string());
                let whole = Zeroizing::new(format!("{whole}\n{}", *pem));
                self.signing.of(algorithm, &whole, || {
                    let phrase = phrase.as_ref().map(|phrase| phrase.as_str());
                    SigningKey::pem(algorithm, &pem, phrase).map(Arc::new)
                })
            }
            _ => return Err(self.fault("SigningFailed", "there is no key to sign with")),
        };
        read.map_err(|error| self.key_fault(&error))
    }

    /// The key to verify with.
    pub(super) fn verifying_key(
        &self,
        scope: &Scope,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Found, PolicyFault> {
        let read = match &self.config.key {
            Some(Key::Secret { variable, encoding }) => {
                let secret = self.secret(scope, variable, *encoding)?;
                VerifyingKey::secret(algorithm, &secret)
            }
            Some(Key::Public(part)) => {
                let pem = self.key_text(scope, part)?;
                self.verifying
                    .of(algorithm, &pem, || VerifyingKey::pem(algorithm, &pem))
            }
            Some(Key::KeySet(part)) => {
                let text = self.key_text(scope, part)?;
                let set = self
                    .sets
                    .of(algorithm, &text, || KeySet::parse(&text).map(Arc::new));
                let set = set.map_err(|reason| {
                    self.fault("KeyParsingFailed", format!("the set of keys {reason}"))
                })?;
                let id = self.key_id(id)?;
                return self
                    .in_set(&set, algorithm, id)?
                    .map(Found::Key)
                    .ok_or_else(|| self.no_key());
            }
            Some(Key::KeySetUrl(part)) => {
                let url = self.key_text(scope, part)?.trim().to_owned();
                let id = self.key_id(id)?.to_owned();
                return Ok(Found::Remote { url, id });
            }
            _ => return Err(self.fault("WrongKeyType", "there is no key to verify with")),
        };
        read.map(Found::Key).map_err(|error| self.key_fault(&error))
    }

    /// The key in a set that somebody serves.
    pub(super) async fn remote_key(
        &self,
        url: &str,
        id: &str,
        algorithm: Algorithm,
    ) -> Result<VerifyingKey, PolicyFault> {
        let Some(remote) = &self.remote else {
            return Err(self.no_key());
        };
        for wants_news in [false, true] {
            let set = remote.set(url, wants_news).await.map_err(|reason| {
                let message = format!("the set of keys cannot be fetched: {reason}");
                self.fault("KeyParsingFailed", message)
            })?;
            if let Some(key) = self.in_set(&set, algorithm, id)? {
                return Ok(key);
            }
        }
        Err(self.no_key())
    }

    fn key_text(&self, scope: &Scope, part: &RefOrText) -> Result<String, PolicyFault> {
        let reference = part.reference.as_deref();
        let found = reference.and_then(|name| self.text(scope, name));
        found
            .or_else(|| part.text.clone())
            .ok_or_else(|| self.unresolved(reference.unwrap_or_default()))
    }

    fn key_id<'a>(&self, id: Option<&'a str>) -> Result<&'a str, PolicyFault> {
        id.ok_or_else(|| self.fault("KeyIdMissing", "the token names no key"))
    }

    fn in_set(
        &self,
        set: &KeySet,
        algorithm: Algorithm,
        id: &str,
    ) -> Result<Option<VerifyingKey>, PolicyFault> {
        set.find(id, algorithm)
            .map_err(|error| self.key_fault(&error))
    }

    fn no_key(&self) -> PolicyFault {
        self.fault("NoMatchingPublicKey", "no key of the set fits the token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_decoded() {
        for (text, encoding, bytes) in [
            ("abc", Encoding::Text, Some(b"abc".to_vec())),
            ("YWJj", Encoding::Base64, Some(b"abc".to_vec())),
            ("YQ==", Encoding::Base64, Some(b"a".to_vec())),
            ("YQ", Encoding::Base64Url, Some(b"a".to_vec())),
            ("-_8", Encoding::Base64Url, Some(vec![0xfb, 0xff])),
            ("6A6b", Encoding::Hexadecimal, Some(b"jk".to_vec())),
            ("6A6", Encoding::Hexadecimal, None),
            ("zz", Encoding::Hexadecimal, None),
            ("!", Encoding::Base64, None),
        ] {
            let secret = secret_of(text, encoding).map(|secret| secret.to_vec());
            assert_eq!(secret, bytes, "{text}");
        }
    }
}
