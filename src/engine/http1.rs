//! Ordinary HTTP/1.1 requests, read without a session of Pingora's.
//!
//! Most requests are: a head that arrives in one piece, without a body or with a short one of announced length. They are
//! read here, at a fraction of what a session costs. A head that arrives in pieces is waited for. Whatever is out of the
//! ordinary in any way is not judged here: its bytes go to a session as they came, whose rules then hold.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Method;
use tokio::io::ReadBuf;

use pingora_core::protocols::Shutdown as _;

use crate::base::token::is_named;
use crate::engine::buffers;
use crate::engine::io::Io;
use crate::engine::phases::SMALL_BODY_BYTES;
use crate::runtime::head::{RawRequest, RequestHead};

/// Longest head, in bytes; a longer one is a session's business.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of a body that are read at once.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of an ordinary request.
const FIELDS_MAX: usize = 64;
/// How often a head that arrives in pieces is looked at; whoever sends it in more is a session's business.
const LOOKS_MAX: usize = 64;
/// A client that pauses this long within a head is left to a session.
const HEAD_PAUSE: Duration = Duration::from_secs(10);
/// Most bytes taken in while the client waits for its answer.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// A client that pauses this long within a request body is given up.
const BODY_PAUSE: Duration = Duration::from_secs(60);
/// A request body that nobody wanted is read away for at most this long before the connection is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A client connection between and during ordinary requests.
pub(crate) struct Http1 {
    io: Box<Io>,
    /// Read and not used yet.
    buffer: BytesMut,
    /// Bytes of the current request's body that nobody has read yet.
    body_left: usize,
    /// Bytes of it that were read.
    body_read: u64,
    kept: bool,
    /// When nothing was asked any more.
    silent_since: Instant,
}

/// What arrived.
pub(crate) enum Received {
    /// The client closed its connection between requests.
    End,
    /// An ordinary request; the length of its body.
    Request(RequestHead, usize),
    /// The first part of a head: see [`Http1::receive_rest`].
    Begun,
    /// Something for a session: see [`Http1::into_parts`].
    Extraordinary,
}

impl Http1 {
    pub(crate) fn new(mut io: Box<Io>) -> Self {
        io.head_arrived();
        Self {
            io,
            buffer: BytesMut::new(),
            body_left: 0,
            body_read: 0,
            kept: true,
            silent_since: Instant::now(),
        }
    }

    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    /// Bytes of the current request's body that were read.
    pub(crate) fn body_read(&self) -> u64 {
        self.body_read
    }

    /// May another request follow on this connection?
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    /// The request was answered at this time.
    pub(crate) fn answered(&mut self, at: Instant) {
        self.silent_since = at;
    }

    /// Since when the client has been waited for.
    pub(crate) fn silent_since(&self) -> Instant {
        self.silent_since
    }

    /// No further request is read.
    pub(crate) fn close(&mut self) {
        self.kept = false;
    }

    /// The stream, and everything read of the request that is not to be served here: `head`, if that was taken for one,
    /// and what is behind it.
    pub(crate) fn into_parts(self, head: &[u8]) -> (Box<Io>, BytesMut) {
        let ahead = match head.is_empty() {
            true => self.buffer,
            false => {
                let mut whole = BytesMut::with_capacity(head.len() + self.buffer.len());
                whole.extend_from_slice(head);
                whole.extend_from_slice(&self.buffer);
                whole
            }
        };
        (self.io, ahead)
    }

    /// Waits for a request. While the client is silent an idle connection costs a socket and little else.
    pub(crate) async fn receive(&mut self) -> io::Result<Received> {
        if self.buffer.is_empty() {
            buffers::keep_growing(std::mem::take(&mut self.buffer));
            self.io.readable().await?;
            self.buffer = buffers::take_growing();
            let reading = self.io.read_past(&mut self.buffer, HEAD_BYTES_MAX);
            if reading.await? == 0 {
                return Ok(Received::End);
            }
        }
        Ok(self.look())
    }

    /// Waits for what is missing of a head, no longer than the limit for heads allows in total.
    pub(crate) async fn receive_rest(&mut self) -> io::Result<Received> {
        self.io.head_arrives();
        let mut looks = 0;
        while self.buffer.len() < HEAD_BYTES_MAX && looks < LOOKS_MAX {
            let from = self.buffer.len();
            let reading = self.io.read_head(&mut self.buffer, HEAD_BYTES_MAX);
            // What is late, and what will never be whole, a session answers.
            let Ok(Some(1..)) = pingora_timeout::timeout(HEAD_PAUSE, reading)
                .await
                .unwrap_or(Ok(None))
            else {
                return Ok(Received::Extraordinary);
            };
            let new = self.buffer.get(from..).unwrap_or_default();
            if memchr::memchr(b'\n', new).is_none() {
                continue;
            }
            looks += 1;
            match self.look() {
                Received::Begun => {}
                received => {
                    if matches!(received, Received::Request(..)) {
                        self.io.head_arrived();
                    }
                    return Ok(received);
                }
            }
        }
        Ok(Received::Extraordinary)
    }

    /// What the buffer begins with.
    fn look(&mut self) -> Received {
        match self.parse() {
            Ok((request, body)) => {
                self.body_left = body;
                self.body_read = 0;
                Received::Request(request, body)
            }
            Err(Unfit::Part) => Received::Begun,
            Err(Unfit::Extraordinary) => Received::Extraordinary,
        }
    }

    /// The request at the start of the buffer, if it is whole and ordinary.
    fn parse(&mut self) -> Result<(RequestHead, usize), Unfit> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(&self.buffer, &mut fields);
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Err(Unfit::Part),
            Err(_) => return Err(Unfit::Extraordinary),
        };
        let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version)
        else {
            return Err(Unfit::Extraordinary);
        };
        let traits = Traits::of(request.headers).ok_or(Unfit::Extraordinary)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Unfit::Extraordinary)?;
        if !target.starts_with('/') || method == Method::CONNECT {
            return Err(Unfit::Extraordinary);
        }
        let mut raw = RawRequest::begin(&self.buffer, method, target);
        for field in &*request.headers {
            raw.note(&self.buffer, field.name.as_bytes(), field.value);
        }
        // A copy: while the request is served its head is held, and no buffer unless more has come.
        let head = self.buffer.get(..length).unwrap_or_default();
        raw.hold(Bytes::copy_from_slice(head));
        let head = RequestHead::read(raw).map_err(|_| Unfit::Extraordinary)?;
        // Kept from its beginning, if nothing else is in it.
        match length == self.buffer.len() {
            true => buffers::keep_growing(std::mem::take(&mut self.buffer)),
            false => self.buffer.advance(length),
        }
        self.kept = self.kept && !traits.close;
        Ok((head, traits.body))
    }

    /// What was read behind the request, for a tunnel; no buffer is kept.
    pub(crate) fn take_ahead(&mut self) -> Bytes {
        std::mem::take(&mut self.buffer).freeze()
    }

    /// The next piece of the request body; `None` at its end.
    pub(crate) async fn body_piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.body_left == 0 {
            return Ok(None);
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(self.body_left.min(BODY_BYTES_MAX));
            let reading = self.io.read_past(&mut self.buffer, usize::MAX);
            match pingora_timeout::timeout(BODY_PAUSE, reading).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            };
        }
        let length = self.body_left.min(self.buffer.len());
        self.body_left -= length;
        self.body_read += length as u64;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Resolves when the client has closed its connection. What it sends meanwhile is kept for the next request.
    pub(crate) async fn left(&mut self) {
        let Self { io, buffer, .. } = self;
        poll_fn(|cx| {
            loop {
                if buffer.len() >= AHEAD_BYTES_MAX {
                    // Enough: what is here is served before more is read.
                    return Poll::Pending;
                }
                // Asked first: it costs less than a read that finds nothing.
                match io.poll_readable(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
                let mut room = [MaybeUninit::uninit(); 1024];
                let mut room = ReadBuf::uninit(&mut room);
                match io.poll_read_shared(cx, &mut room) {
                    Poll::Ready(Ok(())) if room.filled().is_empty() => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => buffer.extend_from_slice(room.filled()),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    // TLS: what came was not data.
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    /// After an answer: is the connection ready for another request? A body that nobody wanted is read away first.
    pub(crate) async fn next(&mut self) -> bool {
        if self.kept && self.body_left > 0 {
            let draining = async { while let Ok(Some(_)) = self.body_piece().await {} };
            // What is left afterwards decides.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, draining).await;
        }
        self.kept && self.body_left == 0
    }
}

impl Http1 {
    /// Ends the connection in order.
    pub(crate) async fn end(mut self) {
        self.io.shutdown().await;
    }
}

/// Why the buffer begins with no ordinary request.
enum Unfit {
    /// So far it may become one.
    Part,
    Extraordinary,
}

/// What a head says of the connection and the body.
struct Traits {
    close: bool,
    body: usize,
}

impl Traits {
    /// None when anything is out of the ordinary.
    fn of(fields: &[httparse::Header<'_>]) -> Option<Self> {
        let mut traits = Self {
            close: false,
            body: 0,
        };
        let (mut hosts, mut lengths) = (0, 0);
        for field in fields {
            let is = |name: &[u8]| is_named(field.name.as_bytes(), name);
            // By length first: most fields are none of these.
            match field.name.len() {
                4 if is(b"host") => hosts += 1,
                6 if is(b"expect") => return None,
                7 if is(b"upgrade") && !is_named(field.value, b"websocket") => {
                    return None;
                }
                10 if is(b"connection") => {
                    for option in field.value.split(|byte| *byte == b',') {
                        traits.close |= is_named(option.trim_ascii(), b"close");
                    }
                }
                14 if is(b"content-length") => {
                    lengths += 1;
                    traits.body = short_length(field.value)?;
                }
                17 if is(b"transfer-encoding") => return None,
                _ => {}
            }
        }
        (hosts == 1 && lengths <= 1).then_some(traits)
    }
}

/// A Content-Length that is a plain number and short.
fn short_length(value: &[u8]) -> Option<usize> {
    if value.is_empty() || value.len() > 5 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number as u64 <= SMALL_BODY_BYTES).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What the fields say: nothing when extraordinary, else whether to close, and the body's length.
    fn traits(fields: &str) -> Option<(bool, usize)> {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let mut room = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut room);
        request.parse(head.as_bytes()).unwrap();
        Traits::of(request.headers).map(|traits| (traits.close, traits.body))
    }

    #[test]
    fn ordinary_requests_are_told_from_others() {
        let cases = [
            ("Host: a\r\n", Some((false, 0))),
            ("hOsT: a\r\nX-Y: z\r\n", Some((false, 0))),
            ("Host: a\r\nConnection: keep-alive\r\n", Some((false, 0))),
            ("Host: a\r\nConnection: x, Close\r\n", Some((true, 0))),
            ("Host: a\r\nContent-Length: 65536\r\n", Some((false, 65536))),
            ("Host: a\r\nContent-Length: 00007\r\n", Some((false, 7))),
            ("", None),
            ("Host: a\r\nHost: a\r\n", None),
            ("Host: a\r\nContent-Length: 65537\r\n", None),
            ("Host: a\r\nContent-Length: +7\r\n", None),
            ("Host: a\r\nContent-Length: 7, 7\r\n", None),
            ("Host: a\r\nContent-Length:\r\n", None),
            (
                "Host: a\r\nContent-Length: 7\r\nContent-Length: 7\r\n",
                None,
            ),
            ("Host: a\r\nTransfer-Encoding: chunked\r\n", None),
            ("Host: a\r\nExpect: 100-continue\r\n", None),
            ("Host: a\r\nUpgrade: websocket\r\n", Some((false, 0))),
            ("Host: a\r\nUpgrade: h2c\r\n", None),
        ];
        for (fields, expected) in cases {
            assert_eq!(traits(fields), expected, "{fields:?}");
        }
    }
}
