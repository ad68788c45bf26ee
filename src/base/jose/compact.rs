//! Tokens as they travel: three parts in base64url between dots.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256 * 1024;

/// A token taken apart; nothing of it is verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Compact<'a> {
    /// What is signed: header and payload as they came.
    pub signed: &'a str,
    pub header: Map<String, Value>,
    /// As it came, in base64url; empty when it travels apart.
    pub encoded_payload: &'a str,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart; none when it is none. Its payload may be anything.
    pub fn parse(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        Some(Self {
            signed,
            header: serde_json::from_slice(&decode(header)?).ok()?,
            encoded_payload: payload,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// A text of the header.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }
}

fn decode(part: &str) -> Option<Vec<u8>> {
    // Some makers pad, which the standard forbids and everybody takes.
    URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()
}

/// A part of a token.
pub fn encode_part(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is signed of a header and a payload.
pub fn signing_input(header: &Map<String, Value>, payload: &[u8]) -> String {
    let header = Value::Object(header.clone()).to_string();
    format!(
        "{}.{}",
        encode_part(header.as_bytes()),
        encode_part(payload)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_parts_are_a_token() {
        let good = format!(
            "{}.{}.{}",
            encode_part(b"{}"),
            encode_part(b"x"),
            encode_part(b"y")
        );
        let token = Compact::parse(&good).map(|token| (token.payload, token.signature));
        assert_eq!(token, Some((b"x".to_vec(), b"y".to_vec())));
        for bad in [
            "", "foobar", "a.b", "a.b.c.d", "e30.x", "!!.x.y", "e30.!.y", "W10.x.y", "e30.x.!",
        ] {
            assert_eq!(Compact::parse(bad), None, "{bad}");
        }
        assert!(Compact::parse("e30..").is_some());
    }
}
