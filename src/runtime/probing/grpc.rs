//! `grpc.health.v1.Health/Check`, as far as a probe needs it.
//!
//! The two messages have one field each, so they are written and read by hand.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// What stands for "serving" and "not serving" among HTTP's statuses.
const SERVING: u16 = 200;
const NOT_SERVING: u16 = 503;
/// Status of a call to a method that a server does not have.
const UNIMPLEMENTED: &[u8] = b"12";

/// Asks for a service. 200 when it serves, or when the server does not know the question; another HTTP status as it
/// came; 503 otherwise.
pub(super) async fn check<S>(
    stream: S,
    secure: bool,
    authority: &[u8],
    service: &str,
) -> io::Result<u16>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let driver = tokio::spawn(async move {
        // What breaks the connection is told to the request.
        let _ = connection.await;
    });
    // The driver ends with the probe, also when that is given up.
    let _driver = AbortOnDrop(driver);
    let scheme = if secure { "https" } else { "http" };
    let authority = String::from_utf8_lossy(authority);
    let request = Request::post(format!("{scheme}://{authority}{PATH}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(question(service)))
        .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Ok(head.status.as_u16());
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(io::Error::other)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = grpc_status(&trailers).or_else(|| grpc_status(&head.headers));
    Ok(match status {
        Some(b"0") if serves(&body.to_bytes()) => SERVING,
        Some(UNIMPLEMENTED) => SERVING,
        _ => NOT_SERVING,
    })
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get("grpc-status").map(|status| status.as_bytes())
}

/// `HealthCheckRequest { string service = 1; }`, in a frame.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(service.len(), &mut message);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(mut number: usize, into: &mut BytesMut) {
    while number >= 0x80 {
        into.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

/// `HealthCheckResponse { ServingStatus status = 1; }` in a frame: is the status SERVING (1)?
fn serves(frame: &[u8]) -> bool {
    frame.get(5..) == Some(&[0x08, 0x01])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_messages() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question(&"x".repeat(300)).len(), 5 + 3 + 300);
        assert!(serves(&[0, 0, 0, 0, 2, 8, 1]));
        for other in [&[0, 0, 0, 0, 2, 8, 2][..], &[0, 0, 0, 0, 0], &[]] {
            assert!(!serves(other));
        }
    }
}
