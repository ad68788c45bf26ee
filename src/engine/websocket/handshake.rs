//! The opening handshake (RFC 6455, 4): what a request must say, and what an answer must prove.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method};
use pingora_http::{RequestHeader, ResponseHeader};
use sha1::{Digest, Sha1};

use crate::runtime::contract::ProtocolProblem;

/// The only version there is.
pub(crate) const VERSION: &[u8] = b"13";
/// What is hashed with the key (RFC 6455, 1.3).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A key is that many random bytes.
const KEY_BYTES: usize = 16;

/// What keeps a request from being a handshake, on a route that takes nothing else.
pub(crate) fn problem(request: &RequestHeader) -> Option<ProtocolProblem> {
    let asks = request.method == Method::GET
        && lists(&request.headers, &UPGRADE, b"websocket")
        && lists(&request.headers, &CONNECTION, b"upgrade");
    if !asks {
        return Some(ProtocolProblem::NeedsWebSocket);
    }
    let version = request.headers.get(SEC_WEBSOCKET_VERSION);
    let known = version.is_some_and(|version| version.as_bytes().trim_ascii() == VERSION);
    (!known).then_some(ProtocolProblem::WebSocketVersion)
}

/// The key of a handshake; `None` when it is not 16 bytes in base64, or given twice.
pub(crate) fn key(request: &RequestHeader) -> Option<&[u8]> {
    let mut keys = request.headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next()?.as_bytes();
    let is_key = STANDARD
        .decode(key)
        .is_ok_and(|bytes| bytes.len() == KEY_BYTES);
    (is_key && keys.next().is_none()).then_some(key)
}

/// Adds to a handshake that came over HTTP/2 what one over HTTP/1 has.
pub(crate) fn fill_in(request: &mut RequestHeader) {
    let fields = [
        (CONNECTION, "Upgrade".to_owned()),
        (UPGRADE, "websocket".to_owned()),
        (SEC_WEBSOCKET_KEY, fresh_key()),
    ];
    for (name, value) in fields {
        // Only a header map at its size limit refuses; the handshake is then incomplete, and refused.
        let _ = request.insert_header(name, value);
    }
}

fn fresh_key() -> String {
    STANDARD.encode(rand::random::<[u8; KEY_BYTES]>())
}

/// What an answer must show for a key.
pub(crate) fn accept_value(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(SALT).finalize())
}

/// Does the answer agree to a WebSocket, and to the one that was asked for?
pub(crate) fn agrees(head: &ResponseHeader, key: &[u8]) -> bool {
    lists(&head.headers, &UPGRADE, b"websocket")
        && head
            .headers
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_some_and(|accept| accept.as_bytes().trim_ascii() == accept_value(key).as_bytes())
}

/// Is the word in one of the field's lists, in any case?
fn lists(headers: &HeaderMap, name: &HeaderName, word: &[u8]) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut members = value.as_bytes().split(|byte| *byte == b',');
        members.any(|member| member.trim_ascii().eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn proves_the_key_of_the_standard() {
        assert_eq!(
            accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_ne!(fresh_key(), fresh_key());
    }

    #[test]
    fn tells_what_is_missing() {
        let good = [
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "WebSocket"),
            ("Sec-WebSocket-Version", "13"),
        ];
        assert_eq!(problem(&request(&good)), None);
        let cases: [&[(&str, &str)]; 3] = [&[], &good[..1], &[good[1]]];
        for fields in cases {
            assert_eq!(
                problem(&request(fields)),
                Some(ProtocolProblem::NeedsWebSocket)
            );
        }
        let old = [good[0], good[1], ("Sec-WebSocket-Version", "8")];
        for fields in [&good[..2], &old] {
            assert_eq!(
                problem(&request(fields)),
                Some(ProtocolProblem::WebSocketVersion)
            );
        }
    }

    #[test]
    fn takes_one_key_of_sixteen_bytes() {
        let name = "Sec-WebSocket-Key";
        let good = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(key(&request(&[(name, good)])), Some(good.as_bytes()));
        for bad in ["", "dGhlIHNhbXBsZQ==", "not base64 at all!"] {
            assert_eq!(key(&request(&[(name, bad)])), None, "{bad}");
        }
        assert_eq!(key(&request(&[(name, good), (name, good)])), None);
    }
}
