//! Sealing of small texts that are stored: AES-256 in GCM, with a key that stays on the machine.
//!
//! A sealed text begins with a mark, so that texts from before sealing are known; it is bound to a context, so that one
//! cannot be put in the place of another.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boring::symm::{Cipher, decrypt_aead, encrypt_aead};
use zeroize::Zeroizing;

/// Length of the key, in bytes.
pub const KEY_BYTES: usize = 32;

const MARK: &str = "sealed:1:";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A key that seals and opens.
#[derive(Clone)]
pub struct Seal {
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl Seal {
    /// Seals with a key that was made before.
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        Self {
            key: Zeroizing::new(key),
        }
    }

    /// Seals with a key that ends with the process.
    pub fn fleeting() -> Self {
        Self::new(rand::random())
    }

    /// The key as text, to be kept.
    pub fn to_text(&self) -> String {
        STANDARD.encode(*self.key)
    }

    /// The key of a text; none when it is no key.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        bytes.try_into().ok().map(Self::new)
    }

    /// The sealed form of a text, which only opens in the same context. None when the library fails.
    pub fn seal(&self, context: &str, text: &str) -> Option<String> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let mut tag = [0; TAG_BYTES];
        let sealed = encrypt_aead(
            Cipher::aes_256_gcm(),
            &*self.key,
            Some(&nonce),
            context.as_bytes(),
            text.as_bytes(),
            &mut tag,
        )
        .ok()?;
        let whole = [&nonce[..], &tag[..], &sealed].concat();
        Some(format!("{MARK}{}", STANDARD.encode(whole)))
    }

    /// The text of a sealed form; none when the key or the context is another one, or it was tampered with.
    pub fn open(&self, context: &str, sealed: &str) -> Option<String> {
        let whole = STANDARD.decode(sealed.strip_prefix(MARK)?).ok()?;
        let (nonce, rest) = whole.split_at_checked(NONCE_BYTES)?;
        let (tag, sealed) = rest.split_at_checked(TAG_BYTES)?;
        let text = decrypt_aead(
            Cipher::aes_256_gcm(),
            &*self.key,
            Some(nonce),
            context.as_bytes(),
            sealed,
            tag,
        )
        .ok()?;
        String::from_utf8(text).ok()
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let seal = Seal::fleeting();
        let sealed = seal.seal("map/a", "secret").unwrap();
        assert!(!sealed.contains("secret"));
        assert_ne!(sealed, seal.seal("map/a", "secret").unwrap());
        assert_eq!(seal.open("map/a", &sealed).as_deref(), Some("secret"));
        assert_eq!(seal.open("map/b", &sealed), None);
        assert_eq!(Seal::fleeting().open("map/a", &sealed), None);
        assert_eq!(seal.open("map/a", "secret"), None);
        assert_eq!(seal.open("map/a", "sealed:1:AAAA"), None);
        let again = Seal::from_text(&seal.to_text()).unwrap();
        assert_eq!(again.open("map/a", &sealed).as_deref(), Some("secret"));
        assert!(Seal::from_text("short").is_none());
    }
}
