//! A response as the bytes of a cache's entry.
//!
//! ```text
//! status u16 | reason u16 + bytes | fields u16 × (name u16 + bytes, value u32 + bytes) | body to the end
//! ```
//!
//! Numbers are big-endian. What is read shares the entry's memory.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::wire::drop_hop_by_hop;

/// The bytes of a response. None when it has more or longer parts than messages can have.
pub(super) fn encode(response: &Message) -> Option<Bytes> {
    let mut headers = response.headers.clone();
    drop_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    let reason = response.reason.as_deref().unwrap_or_default();
    let mut out = BytesMut::with_capacity(response.content.len() + 64 * headers.len() + 16);
    out.put_u16(response.status);
    out.put_u16(u16::try_from(reason.len()).ok()?);
    out.put_slice(reason.as_bytes());
    out.put_u16(u16::try_from(headers.len()).ok()?);
    for (name, value) in &headers {
        out.put_u16(u16::try_from(name.as_str().len()).ok()?);
        out.put_slice(name.as_str().as_bytes());
        out.put_u32(u32::try_from(value.len()).ok()?);
        out.put_slice(value.as_bytes());
    }
    out.put_slice(&response.content);
    Some(out.freeze())
}

/// The response that bytes stand for. None for bytes that [`encode`] did not make.
pub(super) fn decode(mut bytes: Bytes) -> Option<Message> {
    let mut response = Message::response();
    response.status = bytes.try_get_u16().ok()?;
    let length = usize::from(bytes.try_get_u16().ok()?);
    let reason = take(&mut bytes, length)?;
    if !reason.is_empty() {
        response.reason = Some(std::str::from_utf8(&reason).ok()?.into());
    }
    for _ in 0..bytes.try_get_u16().ok()? {
        let length = usize::from(bytes.try_get_u16().ok()?);
        let name = HeaderName::from_bytes(&take(&mut bytes, length)?).ok()?;
        let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
        let value = HeaderValue::from_maybe_shared(take(&mut bytes, length)?).ok()?;
        response.headers.append(name, value);
    }
    response.content = bytes;
    Some(response)
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let mut response = Message::response();
        response.status = 203;
        response.reason = Some("Fine".into());
        response.content = Bytes::from_static(b"\0body");
        for (name, value) in [
            ("X-A", "1"),
            ("X-A", "2"),
            ("Content-Length", "5"),
            ("Connection", "close"),
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            response
                .headers
                .append(name, HeaderValue::from_static(value));
        }
        let bytes = encode(&response).unwrap();
        let read = decode(bytes.clone()).unwrap();
        assert_eq!((read.status, read.reason.as_deref()), (203, Some("Fine")));
        assert_eq!(read.content, response.content);
        let values: Vec<_> = read.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(read.headers.len(), 2);
        let head = bytes.len() - response.content.len();
        for cut in 0..head {
            assert!(decode(bytes.slice(..cut)).is_none(), "{cut}");
        }
    }
}
