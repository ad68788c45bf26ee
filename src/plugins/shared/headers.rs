//! Header fields: configured names, values built once, edits that cannot fail half-way.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

/// A header name from a configuration, ready for use: clones share its text.
#[derive(Debug, Clone)]
pub(crate) struct ConfiguredName {
    shown: Bytes,
    name: HeaderName,
}

impl ConfiguredName {
    /// Reads a name; its letter case is kept for HTTP/1 clients.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let name = HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| format!("'{text}' is not a valid header"))?;
        Ok(Self {
            shown: Bytes::copy_from_slice(text.as_bytes()),
            name,
        })
    }

    pub(crate) fn name(&self) -> &HeaderName {
        &self.name
    }

    pub(crate) fn set_request(&self, head: &mut RequestHeader, value: HeaderValue) {
        set_request(head, self.shown.clone(), value);
    }

    pub(crate) fn add_request(&self, head: &mut RequestHeader, value: HeaderValue) {
        // As in `set_request`.
        let _ = head.append_header(self.shown.clone(), value);
    }

    pub(crate) fn set_response(&self, head: &mut ResponseHeader, value: HeaderValue) {
        set_response(head, self.shown.clone(), value);
    }

    pub(crate) fn add_response(&self, head: &mut ResponseHeader, value: HeaderValue) {
        // As in `set_request`.
        let _ = head.append_header(self.shown.clone(), value);
    }
}

/// Replaces all values of a request header.
pub(crate) fn set_request(
    head: &mut RequestHeader,
    name: impl pingora_http::IntoCaseHeaderName,
    value: HeaderValue,
) {
    // Fails only for a map of more than 32,768 names, which the engine's limits do not let in.
    let _ = head.insert_header(name, value);
}

/// Replaces all values of a response header.
pub(crate) fn set_response(
    head: &mut ResponseHeader,
    name: impl pingora_http::IntoCaseHeaderName,
    value: HeaderValue,
) {
    // As in `set_request`.
    let _ = head.insert_header(name, value);
}

/// Numbers below this have their header value made once.
const PREPARED_NUMBERS: usize = 1024;

static NUMBERS: LazyLock<Vec<HeaderValue>> =
    LazyLock::new(|| (0..PREPARED_NUMBERS).map(HeaderValue::from).collect());

/// The decimal form of a number.
pub(crate) fn number(value: u64) -> HeaderValue {
    usize::try_from(value)
        .ok()
        .and_then(|index| NUMBERS.get(index).cloned())
        .unwrap_or_else(|| lenient_value(itoa::Buffer::new().format(value).as_bytes()))
}

/// A header value made of text that may hold anything: bytes that no header may carry are left out.
pub(crate) fn lenient_value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| {
        let sound: Vec<u8> = text
            .iter()
            .copied()
            .filter(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 127))
            .collect();
        HeaderValue::from_bytes(&sound).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
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

    #[test]
    fn writes_numbers() {
        for value in [0, 7, 1023, 1024, u64::MAX] {
            assert_eq!(number(value).to_str().unwrap(), value.to_string());
        }
    }

    #[test]
    fn keeps_no_line_break() {
        assert_eq!(lenient_value(b"a\r\nb: c"), "ab: c");
        assert_eq!(lenient_value("é".as_bytes()).as_bytes(), "é".as_bytes());
    }
}
