//! permessage-deflate (RFC 7692): what is agreed on, and messages opened for those who look into them.
//!
//! Where nobody looks, the extension passes between client and upstream as they like. Where somebody does, both sides are
//! held to compress each message by itself: then one can be opened without the ones before it, and no window is kept.

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, HeaderValue};

use crate::engine::websocket::frame::{Compression, Violation};
use crate::runtime::message::code;

/// The only extension that passes: any other may change frames in ways that are not known here.
const NAME: &str = "permessage-deflate";
/// The sender of this name forgets its window after each message.
const CLIENT_FORGETS: &str = "client_no_context_takeover";
const SERVER_FORGETS: &str = "server_no_context_takeover";
/// What senders leave off a message, and receivers put back (RFC 7692, 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// Output taken at a time, in bytes.
const STEP_BYTES: usize = 16 * 1024;

/// What the upstream is offered: the client's offers of this extension, or the first of them held to messages by
/// themselves. `None` removes the header.
pub(crate) fn offer(headers: &HeaderMap, opened: bool) -> Option<HeaderValue> {
    let mut offers = extensions(headers).filter(|extension| extension.name == NAME);
    let text = match opened {
        true => {
            let mut offer = offers.next()?;
            offer.add(SERVER_FORGETS);
            offer.add(CLIENT_FORGETS);
            offer.text()
        }
        false => {
            let offers: Vec<String> = offers.map(|offer| offer.text()).collect();
            offers.join(", ")
        }
    };
    match text.is_empty() {
        true => None,
        false => HeaderValue::try_from(text).ok(),
    }
}

/// What an upstream's answer agrees to. `offered`: what it was offered. With `opened` the answer for the client is
/// completed. The error says what is wrong with the answer.
pub(crate) fn agreed(
    answer: &HeaderMap,
    offered: bool,
    opened: bool,
) -> Result<(Compression, Option<HeaderValue>), &'static str> {
    let mut agreed = extensions(answer);
    let Some(mut extension) = agreed.next() else {
        return Ok((Compression::Off, None));
    };
    if !offered || extension.name != NAME || agreed.next().is_some() {
        return Err("it agrees to an extension that was not offered");
    }
    if !opened {
        return Ok((
            Compression::Passed,
            HeaderValue::try_from(extension.text()).ok(),
        ));
    }
    if !extension.has(SERVER_FORGETS) {
        return Err("it agrees to compression but not to the terms offered");
    }
    // The client is told so by this answer, whatever it offered (RFC 7692, 7.1.1.2).
    extension.add(CLIENT_FORGETS);
    Ok((
        Compression::Opened,
        HeaderValue::try_from(extension.text()).ok(),
    ))
}

/// The content of a message that was compressed by itself.
pub(crate) fn open(compressed: &[u8], limit: usize) -> Result<Bytes, Violation> {
    let broken = Violation {
        code: code::INVALID_DATA,
        reason: "compressed data is broken",
    };
    let mut inflater = Decompress::new(false);
    let mut output = Vec::with_capacity(STEP_BYTES.min(compressed.len().saturating_mul(4)));
    for input in [compressed, &TAIL] {
        let mut input = input;
        loop {
            if output.len() > limit {
                return Err(Violation {
                    code: code::TOO_BIG,
                    reason: "Payload Too Large",
                });
            }
            output.reserve(STEP_BYTES);
            let (taken, given) = (inflater.total_in(), inflater.total_out());
            let status = inflater
                .decompress_vec(input, &mut output, FlushDecompress::Sync)
                .map_err(|_| broken)?;
            let taken = usize::try_from(inflater.total_in() - taken).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            if status == Status::StreamEnd {
                // A last block ends the data; a sender may use one (RFC 7692, 7.2.3.5).
                return within(output, limit);
            }
            let idle = taken == 0 && inflater.total_out() == given;
            if idle || (input.is_empty() && output.len() < output.capacity()) {
                if !input.is_empty() {
                    return Err(broken);
                }
                break;
            }
        }
    }
    within(output, limit)
}

fn within(output: Vec<u8>, limit: usize) -> Result<Bytes, Violation> {
    if output.len() > limit {
        return Err(Violation {
            code: code::TOO_BIG,
            reason: "Payload Too Large",
        });
    }
    Ok(output.into())
}

/// One extension of a list, with its parameters as they stand.
struct Extension<'a> {
    name: &'a str,
    parameters: Vec<&'a str>,
}

impl<'a> Extension<'a> {
    fn parse(text: &'a str) -> Self {
        let mut words = text.split(';').map(str::trim);
        Self {
            name: words.next().unwrap_or_default(),
            parameters: words.filter(|word| !word.is_empty()).collect(),
        }
    }

    fn has(&self, parameter: &str) -> bool {
        self.parameters.contains(&parameter)
    }

    fn add(&mut self, parameter: &'a str) {
        if !self.has(parameter) {
            self.parameters.push(parameter);
        }
    }

    fn text(&self) -> String {
        let mut text = self.name.to_owned();
        for parameter in &self.parameters {
            text.push_str("; ");
            text.push_str(parameter);
        }
        text
    }
}

/// The extensions listed. Quoted values hold no separators in this extension, and others do not pass.
fn extensions(headers: &HeaderMap) -> impl Iterator<Item = Extension<'_>> {
    headers
        .get_all(SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(Extension::parse)
        .filter(|extension| !extension.name.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::io::Write as _;

    use flate2::Compression as Level;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap());
        headers
    }

    /// As senders compress: flushed, without the flush's tail.
    pub(crate) fn compress(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Level::default());
        encoder.write_all(plain).unwrap();
        encoder.flush().unwrap();
        let mut bytes = encoder.get_ref().clone();
        assert!(bytes.ends_with(&TAIL), "{bytes:?}");
        bytes.truncate(bytes.len() - TAIL.len());
        bytes
    }

    #[test]
    fn opens_what_was_compressed() {
        for plain in [&b""[..], b"a", &b"word ".repeat(50_000)] {
            let opened = open(&compress(plain), 1 << 20).unwrap();
            assert!(opened == plain, "{} bytes", plain.len());
        }
        // The example of RFC 7692, 7.2.3.1.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(open(&hello, 5).unwrap(), "Hello");
        // With a last block, 7.2.3.5.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(open(&last, 5).unwrap(), "Hello");
    }

    #[test]
    fn a_bomb_is_opened_no_further_than_the_limit() {
        let bomb = compress(&vec![0; 50 << 20]);
        assert!(bomb.len() < 1 << 18, "{} bytes", bomb.len());
        assert_eq!(open(&bomb, 1 << 20).unwrap_err().code, code::TOO_BIG);
        let edge = compress(&[7; 100]);
        assert!(open(&edge, 100).is_ok());
        assert_eq!(open(&edge, 99).unwrap_err().code, code::TOO_BIG);
    }

    #[test]
    fn broken_data_is_told_from_long_data() {
        for bytes in [&[0xFF; 10][..], &[0x07, 1, 2, 3]] {
            let violation = open(bytes, 1000).unwrap_err();
            assert_eq!(violation.code, code::INVALID_DATA, "{bytes:?}");
        }
    }

    #[test]
    fn offers_only_what_passes() {
        let given =
            headers("x-other; a=1, permessage-deflate; client_max_window_bits, permessage-deflate");
        let passed = offer(&given, false).unwrap();
        assert_eq!(
            passed,
            "permessage-deflate; client_max_window_bits, permessage-deflate"
        );
        let opened = offer(&given, true).unwrap();
        assert_eq!(
            opened,
            "permessage-deflate; client_max_window_bits; server_no_context_takeover; client_no_context_takeover"
        );
        assert_eq!(offer(&headers("x-other"), true), None);
        assert_eq!(offer(&HeaderMap::new(), false), None);
    }

    #[test]
    fn agrees_to_what_was_offered() {
        let none = agreed(&HeaderMap::new(), true, true).unwrap();
        assert_eq!(none, (Compression::Off, None));
        let plain = headers("permessage-deflate");
        assert_eq!(agreed(&plain, true, false).unwrap().0, Compression::Passed);
        assert!(agreed(&plain, false, false).is_err());
        assert!(agreed(&plain, true, true).is_err());
        assert!(agreed(&headers("x-other"), true, false).is_err());
        let (compression, answer) = agreed(
            &headers("permessage-deflate; server_no_context_takeover"),
            true,
            true,
        )
        .unwrap();
        assert_eq!(compression, Compression::Opened);
        assert_eq!(
            answer.unwrap(),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        );
    }
}
