//! What a response's head says of its connection, and of where its body ends (RFC 9110, 7.6.1; RFC 9112, 6).
//!
//! Gathered while the fields are read: those that end at this hop then never enter a map only to be looked for and taken
//! out again. Strict where leniency leads to request smuggling.

use http::HeaderName;
use smallvec::SmallVec;

use super::codec::CodecError;
use crate::base::token::is_named;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// The Connection header lists `close`.
    pub(super) close: bool,
    /// It lists `keep-alive`.
    pub(super) keep_alive: bool,
    /// Other fields that it lists: they end here, too.
    pub(super) named: SmallVec<[HeaderName; 2]>,
    /// The one length that all Content-Length fields agree on.
    pub(super) length: Option<u64>,
    /// There is a Transfer-Encoding, and `chunked` is its last coding.
    pub(super) chunked: bool,
    /// Its last coding is another one.
    unknown_coding: bool,
}

impl Terms {
    /// Takes in a field. True when it ends at this hop.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) -> Result<bool, CodecError> {
        // By length first: few names are compared.
        let is = |expected: &[u8]| is_named(name, expected);
        match name.len() {
            7 => Ok(is(b"upgrade")),
            10 if is(b"connection") => {
                self.options(value);
                Ok(true)
            }
            10 => Ok(is(b"keep-alive")),
            14 if is(b"content-length") => self.length(value).map(|()| false),
            16 => Ok(is(b"proxy-connection")),
            17 if is(b"transfer-encoding") => {
                self.coding(value);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Can the body's end be told? Another last coding than `chunked` does not tell it.
    pub(super) fn check(&self) -> Result<(), CodecError> {
        match self.unknown_coding {
            true => Err(CodecError::Framing("last transfer coding is not chunked")),
            false => Ok(()),
        }
    }

    fn options(&mut self, value: &[u8]) {
        for option in members(value) {
            if is_named(option, b"close") {
                self.close = true;
            } else if is_named(option, b"keep-alive") {
                self.keep_alive = true;
            } else if !is_named(option, b"upgrade")
                && let Ok(name) = HeaderName::from_bytes(option)
            {
                self.named.push(name);
            }
        }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), CodecError> {
        for digits in members(value) {
            let number = match digits {
                digits if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                    std::str::from_utf8(digits)
                        .ok()
                        .and_then(|digits| digits.parse::<u64>().ok())
                }
                _ => None,
            };
            let number = number.ok_or(CodecError::Framing("content-length is not a number"))?;
            if self.length.is_some_and(|other| other != number) {
                return Err(CodecError::Framing("content-lengths differ"));
            }
            self.length = Some(number);
        }
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) {
        for coding in members(value) {
            self.chunked = is_named(coding, b"chunked");
            self.unknown_coding = !self.chunked;
        }
    }
}

fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn terms(fields: &[(&str, &str)]) -> Result<(Terms, Vec<bool>), CodecError> {
        let mut terms = Terms::default();
        let ending = fields
            .iter()
            .map(|(name, value)| terms.take(name.as_bytes(), value.as_bytes()))
            .collect::<Result<_, _>>()?;
        terms.check()?;
        Ok((terms, ending))
    }

    #[test]
    fn fields_of_the_connection_end_here() {
        let (terms, ending) = terms(&[
            ("cOnnection", "Keep-Alive, X-Own,upgrade"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("Upgrade", "h2c"),
            ("Server", "a"),
            ("Connection", "CLOSE"),
            ("Transfer-Encoding", "gzip, Chunked"),
        ])
        .unwrap();
        assert_eq!(ending, [true, true, true, true, false, true, true]);
        assert!(terms.close && terms.keep_alive && terms.chunked);
        assert_eq!(terms.named.as_slice(), ["x-own"]);
        assert_eq!(terms.length, None);
    }

    #[test]
    fn lengths_must_be_one_number() {
        let length = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|v| ("Content-Length", *v)).collect();
            terms(&fields).ok().map(|(terms, _)| terms.length)
        };
        assert_eq!(length(&["12"]), Some(Some(12)));
        assert_eq!(length(&["12", " 12 ,12"]), Some(Some(12)));
        for bad in [
            &["12", "13"][..],
            &["+1"],
            &[""],
            &["1,"],
            &["99999999999999999999"],
        ] {
            assert_eq!(length(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_a_last_chunked_coding_tells_the_end() {
        let chunked = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|v| ("Transfer-Encoding", *v)).collect();
            terms(&fields).ok().map(|(terms, _)| terms.chunked)
        };
        assert_eq!(chunked(&["chunked"]), Some(true));
        assert_eq!(chunked(&["gzip", "chunked"]), Some(true));
        assert_eq!(chunked(&["chunked", "gzip"]), None);
        assert_eq!(chunked(&["identity"]), None);
        assert_eq!(chunked(&["chunked,"]), None);
    }
}
