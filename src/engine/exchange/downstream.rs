//! The response to the client, written by the exchange driver.
//!
//! HTTP/1.1 is written past Pingora's session, straight into the stream: head and first piece in one system call,
//! each further piece as it comes. HTTP/2 goes through the session, which owns the frames.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};
use http::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use pingora_core::protocols::http::ServerSession;
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;

use crate::base::token::is_named;
use crate::engine::buffers::Wire;
use crate::engine::client::Client;
use crate::engine::heads;
use crate::engine::wait::within;
use crate::runtime::exchange::Exchange;
use crate::runtime::head::ResponseHead;

/// Pieces up to this length are copied behind the head to save a system call, in bytes.
const COPIED_BYTES_MAX: usize = 32 * 1024;
/// A client that takes nothing for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How the body's end is told to an HTTP/1.x client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// No body follows the head.
    None,
    /// The head announced the length.
    Length,
    Chunked,
    /// HTTP/1.0 without a length: closing ends it.
    Close,
}

/// Writes one response.
pub(crate) struct Downstream {
    framing: Framing,
    http2: bool,
    sent: u64,
}

impl Downstream {
    /// Writes the head, with the first piece of the body if one is there already. `end`: nothing follows it. `added` is
    /// the exchange whose gateway headers are not in the head yet; over HTTP/2 they always are.
    pub(crate) async fn start(
        client: &mut Client<'_>,
        head: &mut ResponseHead,
        method: &Method,
        added: Option<&Exchange>,
        piece: Bytes,
        end: bool,
    ) -> Result<Self> {
        let http2 = client.is_http2();
        let bodiless = method == Method::HEAD
            || head.status().is_informational()
            || matches!(head.status().as_u16(), 204 | 304);
        if http2 {
            // What is not logged need not stay behind.
            let sent = match added {
                None => (**head).clone(),
                Some(_) => {
                    let rest = ResponseHeader::build_no_case(head.status(), Some(0))?;
                    std::mem::replace(&mut **head, rest)
                }
            };
            return Self::start_http2(client, sent, piece, bodiless, end).await;
        }
        let (version, keep_alive) = client.keeps();
        let framing = if bodiless {
            Framing::None
        } else if head.fields().contains(&CONTENT_LENGTH) {
            Framing::Length
        } else if end {
            head.insert_header(CONTENT_LENGTH, piece.len())?;
            Framing::Length
        } else if version == Version::HTTP_11 {
            Framing::Chunked
        } else {
            Framing::Close
        };
        let keep_alive = keep_alive && framing != Framing::Close;
        if !keep_alive {
            client.close();
        }
        let mut wire = Wire::take();
        put_head(&mut wire, head, added, framing, keep_alive);
        let mut this = Self {
            framing,
            http2,
            sent: 0,
        };
        let piece = if bodiless { Bytes::new() } else { piece };
        let rest = this.frame(&mut wire, piece, end);
        this.write(client, wire, rest).await?;
        Ok(this)
    }

    /// Writes a further piece; `end` closes the body.
    pub(crate) async fn piece(
        &mut self,
        client: &mut Client<'_>,
        piece: Bytes,
        end: bool,
    ) -> Result<()> {
        if self.http2 {
            self.sent += piece.len() as u64;
            if piece.is_empty() && !end {
                return Ok(());
            }
            let Client::Session(session) = client else {
                return Ok(());
            };
            return session.write_response_body(piece, end).await;
        }
        if self.framing == Framing::None || (piece.is_empty() && !end) {
            return Ok(());
        }
        let mut wire = Wire::take();
        let rest = self.frame(&mut wire, piece, end);
        if wire.is_empty() && rest.is_none() {
            return Ok(());
        }
        self.write(client, wire, rest).await
    }

    /// Bytes written, heads included.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// The body was cut short: an HTTP/1.x client learns it by the connection closing.
    pub(crate) fn abort(&self, client: &mut Client<'_>) {
        client.close();
    }

    async fn start_http2(
        client: &mut Client<'_>,
        mut head: ResponseHeader,
        piece: Bytes,
        bodiless: bool,
        end: bool,
    ) -> Result<Self> {
        if !head.headers.contains_key(DATE)
            && let Ok(date) = http::HeaderValue::from_bytes(&date_text())
        {
            head.insert_header(DATE, date)?;
        }
        head.remove_header(&TRANSFER_ENCODING);
        let this = Self {
            framing: if bodiless {
                Framing::None
            } else {
                Framing::Length
            },
            http2: true,
            sent: piece.len() as u64,
        };
        let head = Box::new(head);
        let is_last = bodiless || (end && piece.is_empty());
        let Client::Session(session) = client else {
            return Ok(this);
        };
        match &mut **session {
            // gRPC clients demand that a head without a body ends the stream by itself.
            ServerSession::H2(http2) => http2.write_response_header(head, is_last)?,
            session => session.write_response_header(head).await?,
        }
        if !is_last && !piece.is_empty() {
            session.write_response_body(piece, end).await?;
        }
        Ok(this)
    }

    /// Puts framing, and the piece if it is short, into `wire`; returns the piece when it is to be written separately.
    fn frame(
        &mut self,
        wire: &mut Vec<u8>,
        piece: Bytes,
        end: bool,
    ) -> Option<(Bytes, &'static [u8])> {
        match self.framing {
            Framing::None => None,
            Framing::Length | Framing::Close => copy_or_return(wire, piece, b""),
            Framing::Chunked => {
                let last: &'static [u8] = if end { b"0\r\n\r\n" } else { b"" };
                if piece.is_empty() {
                    wire.put_slice(last);
                    return None;
                }
                put_hex(wire, piece.len());
                wire.put_slice(b"\r\n");
                let tail: &'static [u8] = if end { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                copy_or_return(wire, piece, tail)
            }
        }
    }

    async fn write(
        &mut self,
        client: &mut Client<'_>,
        wire: Wire,
        rest: Option<(Bytes, &'static [u8])>,
    ) -> Result<()> {
        let Some(io) = client.io() else {
            return pingora_error::Error::e_explain(
                ErrorType::InternalError,
                "not on a gateway stream",
            );
        };
        self.sent += wire.len() as u64;
        if let Some((piece, tail)) = &rest {
            self.sent += (piece.len() + tail.len()) as u64;
        }
        let (piece, tail) = rest.unwrap_or_default();
        let mut all = wire.as_slice().chain(piece).chain(tail);
        let written = within(WRITE_TIMEOUT, io.write_all_shared(&mut all)).await;
        let written = written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        written.or_err(ErrorType::WriteError, "writing the response")
    }
}

fn copy_or_return(
    wire: &mut Vec<u8>,
    piece: Bytes,
    tail: &'static [u8],
) -> Option<(Bytes, &'static [u8])> {
    if piece.len() > COPIED_BYTES_MAX {
        return Some((piece, tail));
    }
    wire.put_slice(&piece);
    wire.put_slice(tail);
    None
}

fn put_head(
    wire: &mut Vec<u8>,
    head: &ResponseHead,
    added: Option<&Exchange>,
    framing: Framing,
    keep_alive: bool,
) {
    wire.put_slice(b"HTTP/1.1 ");
    wire.put_slice(head.status().as_str().as_bytes());
    wire.put_u8(b' ');
    wire.put_slice(head.reason().as_bytes());
    wire.put_slice(b"\r\n");
    head.each(|name, value| {
        let is_coding = is_named(name, TRANSFER_ENCODING.as_str().as_bytes());
        let is_left_out =
            is_coding || added.is_some_and(|exchange| heads::is_written_anew(exchange, name));
        if !is_left_out {
            heads::put_field(wire, name, value);
        }
    });
    if let Some(exchange) = added {
        heads::put_gateway_headers(exchange, head.fields(), wire);
    }
    if !head.fields().contains(&DATE) {
        wire.put_slice(b"Date: ");
        wire.put_slice(&date_text());
        wire.put_slice(b"\r\n");
    }
    if framing == Framing::Chunked {
        wire.put_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if head.status() == StatusCode::SWITCHING_PROTOCOLS {
        // The head's own Connection field names the switch.
        wire.put_slice(b"\r\n");
        return;
    }
    wire.put_slice(if keep_alive {
        b"Connection: keep-alive\r\n\r\n".as_slice()
    } else {
        b"Connection: close\r\n\r\n".as_slice()
    });
}

fn put_hex(wire: &mut Vec<u8>, number: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        wire.put_u8(DIGITS[(number >> (4 * place)) & 15]);
    }
}

/// The current date for the Date header, formatted once a second.
fn date_text() -> [u8; 29] {
    thread_local! {
        static CACHED: RefCell<(u64, [u8; 29])> = const { RefCell::new((0, [b' '; 29])) };
    }
    let now = SystemTime::now();
    let second = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    CACHED.with_borrow_mut(|cached| {
        if cached.0 != second {
            let text = httpdate::fmt_http_date(now);
            if let Ok(text) = <[u8; 29]>::try_from(text.as_bytes()) {
                *cached = (second, text);
            }
        }
        cached.1
    })
}
