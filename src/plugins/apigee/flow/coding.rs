//! The coding in which bodies go out, where a property `compression.algorithm` asks for one.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use crate::base::bounded::read_at_most;
use crate::dialects::apigee::bundle::Compression;
use crate::dialects::apigee::message::{Message, MessageKind};
use crate::plugins::apigee::flow::context::PolicyFault;

const CODES: &str = "messaging.adaptors.http.flow";

/// Puts a message's body into the coding that is asked for, if it has a body. `most`: the longest plain body, in bytes.
pub(crate) fn recode(
    message: &mut Message,
    wanted: Compression,
    most: u64,
) -> Result<(), PolicyFault> {
    if message.content.is_empty() {
        return Ok(());
    }
    let current = message.headers.get_all(CONTENT_ENCODING);
    let current: Vec<String> = current
        .iter()
        .flat_map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            let codings = text.split(',').map(|coding| coding.trim().to_owned());
            codings.collect::<Vec<_>>()
        })
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    let has = match current.as_slice() {
        [] => Compression::None,
        [one] if one == "gzip" || one == "x-gzip" => Compression::Gzip,
        [one] if one == "deflate" => Compression::Deflate,
        // What we cannot open goes on as it came.
        _ => return Ok(()),
    };
    if has == wanted {
        return Ok(());
    }
    let plain = match has {
        Compression::None => message.content.clone(),
        coded => opened(&message.content, coded, most).map_err(|failed| fault(message, failed))?,
    };
    let (coded, name) = match wanted {
        Compression::None => (plain, None),
        Compression::Gzip => (packed(&plain, wanted), Some("gzip")),
        Compression::Deflate => (packed(&plain, wanted), Some("deflate")),
    };
    message.headers.remove(CONTENT_ENCODING);
    if let Some(name) = name {
        let value = HeaderValue::from_static(name);
        message.headers.insert(CONTENT_ENCODING, value);
    }
    message.headers.remove(CONTENT_LENGTH);
    if message.kind == MessageKind::Request {
        message
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(coded.len()));
    }
    message.content = coded;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Broken,
    TooLong,
}

fn fault(message: &Message, failed: Failed) -> PolicyFault {
    let is_request = message.kind == MessageKind::Request;
    match (failed, is_request) {
        (Failed::TooLong, true) => {
            PolicyFault::new(413, "protocol.http.TooBigBody", "Body buffer overflow")
        }
        (Failed::TooLong, false) => {
            PolicyFault::new(502, "protocol.http.TooBigBody", "Body buffer overflow")
        }
        (Failed::Broken, true) => PolicyFault::new(
            400,
            format!("{CODES}.DecompressionFailureAtRequest"),
            "Decompression failure at request",
        ),
        (Failed::Broken, false) => PolicyFault::new(
            502,
            format!("{CODES}.DecompressionFailureAtResponse"),
            "Decompression failure at response",
        ),
    }
}

fn opened(coded: &[u8], coding: Compression, most: u64) -> Result<Bytes, Failed> {
    let read = match coding {
        Compression::Deflate => read_at_most(ZlibDecoder::new(coded), most),
        _ => read_at_most(GzDecoder::new(coded), most),
    };
    let plain = read.map_err(|_| Failed::Broken)?;
    plain.map(Bytes::from).ok_or(Failed::TooLong)
}

fn packed(plain: &[u8], coding: Compression) -> Bytes {
    // Writing into memory cannot fail.
    let packed = match coding {
        Compression::Deflate => {
            let mut writer = ZlibEncoder::new(Vec::new(), Level::fast());
            let written = writer.write_all(plain);
            written.and_then(|()| writer.finish())
        }
        _ => {
            let mut writer = GzEncoder::new(Vec::new(), Level::fast());
            let written = writer.write_all(plain);
            written.and_then(|()| writer.finish())
        }
    };
    packed.unwrap_or_default().into()
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

    const MOST: u64 = 1_000;

    fn message(content: &'static str) -> Message {
        let mut message = Message::response();
        message.content = content.into();
        message
    }

    #[test]
    fn bodies_change_their_coding() {
        let mut message = message("a body that is long enough");
        for (wanted, name) in [
            (Compression::Gzip, Some("gzip")),
            (Compression::Deflate, Some("deflate")),
            (Compression::Deflate, Some("deflate")),
            (Compression::None, None),
        ] {
            recode(&mut message, wanted, MOST).unwrap();
            let coding = message.headers.get(CONTENT_ENCODING);
            assert_eq!(coding.map(|value| value.to_str().unwrap()), name);
        }
        assert_eq!(message.content, "a body that is long enough");
    }

    #[test]
    fn what_cannot_be_opened_is_told_or_left_alone() {
        let mut broken = message("not packed");
        let gzip = HeaderValue::from_static("gzip");
        broken.headers.insert(CONTENT_ENCODING, gzip.clone());
        let fault = recode(&mut broken, Compression::None, MOST).unwrap_err();
        assert_eq!(
            (fault.status, &*fault.name),
            (502, "DecompressionFailureAtResponse")
        );
        broken.kind = MessageKind::Request;
        let fault = recode(&mut broken, Compression::None, MOST).unwrap_err();
        assert_eq!(
            (fault.status, &*fault.name),
            (400, "DecompressionFailureAtRequest")
        );
        let mut bomb = Message::response();
        bomb.content = packed(&[0; 2_000], Compression::Gzip);
        bomb.headers.insert(CONTENT_ENCODING, gzip);
        let fault = recode(&mut bomb, Compression::None, MOST).unwrap_err();
        assert_eq!(fault.name, "TooBigBody");
        let mut foreign = message("br");
        let brotli = HeaderValue::from_static("br");
        foreign.headers.insert(CONTENT_ENCODING, brotli);
        recode(&mut foreign, Compression::Gzip, MOST).unwrap();
        assert_eq!(foreign.content, "br");
        let mut empty = Message::response();
        recode(&mut empty, Compression::Gzip, MOST).unwrap();
        assert!(empty.headers.is_empty());
    }
}
