//! Sets of keys in JSON form (RFC 7517, section 5).

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::key::{KeyError, VerifyingKey};

/// Most keys of a set.
pub const KEYS_MAX: usize = 1_000;

/// A set of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySet {
    keys: Vec<Map<String, Value>>,
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        let Some(Value::Array(keys)) = document.get("keys") else {
            return Err("has no list 'keys'".to_owned());
        };
        if keys.len() > KEYS_MAX {
            return Err(format!("has more than {KEYS_MAX} keys"));
        }
        let keys = keys.iter().filter_map(Value::as_object).cloned();
        Ok(Self {
            keys: keys.collect(),
        })
    }

    /// The key under an identifier that may verify signatures of an algorithm; none when there is no such key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the key cannot be used.
    pub fn find(&self, id: &str, algorithm: Algorithm) -> Result<Option<VerifyingKey>, KeyError> {
        let text = |key: &Map<String, Value>, name: &str| -> Option<String> {
            key.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let named = self
            .keys
            .iter()
            .filter(|key| text(key, "kid").as_deref() == Some(id))
            .filter(|key| text(key, "use").is_none_or(|word| word == "sig"))
            .filter(|key| text(key, "alg").is_none_or(|name| name == algorithm.name()));
        let mut wrong = None;
        for key in named {
            match VerifyingKey::json(algorithm, key) {
                Ok(key) => return Ok(Some(key)),
                Err(error) => wrong = Some(error),
            }
        }
        wrong.map_or(Ok(None), Err)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keys_are_found_by_identifier_use_and_algorithm() {
        let set = r#"{"keys":[{"kid":"a","kty":"RSA","use":"enc"},{"kid":"b","kty":"RSA","alg":"RS512"},
            {"kid":"c","kty":"RSA"},7]}"#;
        let set = KeySet::parse(set).unwrap();
        for (id, found) in [
            ("a", Some(())),
            ("b", Some(())),
            ("x", Some(())),
            ("c", None),
        ] {
            let key = set.find(id, Algorithm::RS256).ok();
            assert_eq!(key.map(|key| assert!(key.is_none())), found, "{id}");
        }
        for text in ["", "{}", "[]", r#"{"keys":{}}"#] {
            assert!(KeySet::parse(text).is_err(), "{text}");
        }
    }
}
