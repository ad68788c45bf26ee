//! HTTP/1.x towards the upstream: response heads and bodies off a connection.
//!
//! Strict where leniency leads to request smuggling (RFC 9112, 6.3): a length that is not one number, an unknown last
//! transfer coding (both in `terms.rs`), or broken chunk framing ends the exchange and the connection.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::engine::buffers::{self, ROOM_BYTES};
use crate::engine::exchange::terms::Terms;
use crate::engine::read_ahead::TlsStream;
use crate::engine::wait::Alarm;
use crate::runtime::fault::FaultKind;
use crate::runtime::head::{RawResponse, ResponseHead};

/// Longest response head, in bytes.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Most header fields in a response.
const FIELDS_MAX: usize = 256;
/// Buffer while a longer body flows.
const BODY_BUFFER_BYTES: usize = 64 * 1024;
/// Longest line of chunk framing or trailer section.
const CHUNK_LINE_BYTES_MAX: usize = 16 * 1024;
/// Interim responses before a final one.
pub(crate) const INTERIM_MAX: usize = 16;

/// The transport to an upstream.
pub(crate) enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl UpstreamStream {
    /// Is there something to read, as far as the socket knows?
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) if stream.ssl().pending() > 0 => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.get_ref().poll_read_ready(cx),
        }
    }

    /// Has the kernel find out when the upstream's host is gone without a word.
    pub(crate) fn keep_alive(&self) {
        match self {
            Self::Plain(stream) => crate::engine::io::keep_alive(stream),
            Self::Tls(stream) => crate::engine::io::keep_alive(stream.get_ref().get_ref()),
        }
    }
}

/// A connection to an upstream with what was read ahead.
pub(crate) struct UpstreamConnection {
    stream: UpstreamStream,
    buffer: BytesMut,
    framing: Framing,
    /// Rings when an answer is late.
    pub(crate) alarm: Alarm,
    /// Requests sent so far.
    pub(crate) requests: u32,
    /// May the connection carry another request once this response is complete?
    keep_alive: bool,
}

/// Why a response could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("connection failed")]
    Io(#[from] io::Error),
    #[error("connection closed before a response")]
    ClosedBeforeResponse,
    #[error("connection closed within the response")]
    ClosedWithinResponse,
    #[error("response head is malformed: {0}")]
    Head(String),
    #[error(
        "response head is longer than {HEAD_BYTES_MAX} bytes or has more than {FIELDS_MAX} fields"
    )]
    HeadTooLong,
    #[error("response framing is ambiguous or malformed: {0}")]
    Framing(&'static str),
}

impl CodecError {
    /// What it means for the exchange.
    pub(crate) fn fault_kind(&self) -> FaultKind {
        match self {
            Self::Io(_) | Self::ClosedBeforeResponse | Self::ClosedWithinResponse => {
                FaultKind::UpstreamClosed
            }
            Self::Head(_) | Self::HeadTooLong | Self::Framing(_) => FaultKind::UpstreamMalformed,
        }
    }
}

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Done,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    /// The line end after a chunk's data.
    ChunkEnd,
    Trailers,
    UntilClose,
}

impl UpstreamConnection {
    pub(crate) fn new(stream: UpstreamStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            framing: Framing::Done,
            alarm: Alarm::default(),
            requests: 0,
            keep_alive: true,
        }
    }

    /// Sends bytes.
    pub(crate) async fn write_all(&mut self, data: &mut impl Buf) -> io::Result<()> {
        self.stream.write_all_buf(data).await?;
        match &mut self.stream {
            UpstreamStream::Plain(_) => Ok(()),
            UpstreamStream::Tls(stream) => stream.flush().await,
        }
    }

    /// Reads one response head, interim ones included, without the fields that end at this hop unless it switches
    /// protocols. Cancel-safe: bytes read stay in the buffer. `cased`: names keep the case in which they came, for HTTP/1
    /// clients.
    pub(crate) async fn read_head(
        &mut self,
        request_method: &Method,
        cased: bool,
    ) -> Result<ResponseHead, CodecError> {
        loop {
            if !self.buffer.is_empty()
                && let Some(head) = self.parse_head(request_method, cased)?
            {
                return Ok(head);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(CodecError::HeadTooLong);
            }
            if self.buffer.capacity() == 0 {
                // No buffer is held while the upstream thinks.
                poll_fn(|cx| self.stream.poll_readable(cx)).await?;
                self.buffer = buffers::take_growing();
            }
            if self.fill(ROOM_BYTES).await? == 0 {
                return Err(if self.buffer.is_empty() {
                    CodecError::ClosedBeforeResponse
                } else {
                    CodecError::ClosedWithinResponse
                });
            }
        }
    }

    /// The next piece of the body; `None` at its end. Cancel-safe.
    pub(crate) async fn read_piece(&mut self) -> Result<Option<Bytes>, CodecError> {
        loop {
            match self.decode()? {
                Decoded::Piece(piece) => return Ok(Some(piece)),
                Decoded::End => return Ok(None),
                Decoded::NeedsMore => {}
            }
            if self.fill(BODY_BUFFER_BYTES).await? == 0 {
                if self.framing == Framing::UntilClose {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                return Err(CodecError::ClosedWithinResponse);
            }
        }
    }

    /// What of the body is here already, without waiting.
    pub(crate) fn ready_piece(&mut self) -> Result<Option<Bytes>, CodecError> {
        match self.decode()? {
            Decoded::Piece(piece) => Ok(Some(piece)),
            Decoded::End | Decoded::NeedsMore => Ok(None),
        }
    }

    /// Has the whole response been read?
    pub(crate) fn is_complete(&self) -> bool {
        self.framing == Framing::Done
    }

    /// May the connection be kept for another request?
    pub(crate) fn is_reusable(&self) -> bool {
        self.keep_alive && self.is_complete() && self.buffer.is_empty()
    }

    /// The bare stream after a switch of protocols, with what was read behind the head.
    pub(crate) fn into_parts(self) -> (UpstreamStream, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    /// Gives up the buffer while the connection is idle.
    pub(crate) fn park(&mut self) {
        buffers::keep_growing(std::mem::take(&mut self.buffer));
    }

    /// Is the idle connection still open and silent? Asks the kernel only if it has reported an event.
    pub(crate) fn is_fresh(&self) -> bool {
        let socket = match &self.stream {
            UpstreamStream::Plain(stream) => stream,
            UpstreamStream::Tls(stream) if !stream.get_ref().is_empty() => return false,
            UpstreamStream::Tls(stream) => stream.get_ref().get_ref(),
        };
        let mut probe = [0];
        matches!(socket.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn fill(&mut self, size: usize) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < size / 2 {
            self.buffer.reserve(size);
        }
        self.stream.read_buf(&mut self.buffer).await
    }

    fn parse_head(
        &mut self,
        request_method: &Method,
        cased: bool,
    ) -> Result<Option<ResponseHead>, CodecError> {
        // Not initialised: clearing room for the most fields costs more than parsing the usual few.
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            &self.buffer,
            &mut fields,
        );
        let length = match parsed {
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(length)) => length,
            Err(httparse::Error::TooManyHeaders) => return Err(CodecError::HeadTooLong),
            Err(error) => return Err(CodecError::Head(error.to_string())),
        };
        let malformed = |what: &str| CodecError::Head(what.to_owned());
        let status = response.code.ok_or_else(|| malformed("no status"))?;
        let status = StatusCode::from_u16(status).map_err(|_| malformed("status out of range"))?;
        let version = match response.version {
            Some(0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        let line = (version, status);
        let mut head = RawResponse::begin(&self.buffer, line, response.reason, cased);
        let mut terms = Terms::default();
        for field in &*response.headers {
            let ends = terms.take(field.name.as_bytes(), field.value)?;
            // A switch of protocols is told by such fields.
            if !ends || status == StatusCode::SWITCHING_PROTOCOLS {
                let fields = head.fields_mut();
                fields.note(&self.buffer, field.name.as_bytes(), field.value);
            }
        }
        terms.check()?;
        // A copy: the buffer goes with the body, the head stays until it is logged.
        let bytes = self.buffer.get(..length).unwrap_or_default();
        head.fields_mut().hold(Bytes::copy_from_slice(bytes));
        self.buffer.advance(length);
        self.begin_body(&mut head, request_method, &terms)?;
        Ok(Some(ResponseHead::raw(head)))
    }

    /// RFC 9112, 6.3.
    fn begin_body(
        &mut self,
        head: &mut RawResponse,
        request_method: &Method,
        terms: &Terms,
    ) -> Result<(), CodecError> {
        let status = head.status();
        self.keep_alive = match head.version() {
            Version::HTTP_10 => terms.keep_alive,
            _ => !terms.close,
        };
        if status != StatusCode::SWITCHING_PROTOCOLS {
            for name in &terms.named {
                head.fields_mut().remove(name.as_str());
            }
        }
        if terms.chunked && terms.length.is_some() {
            // A sign of an attack: the length is not forwarded, the connection not reused.
            head.fields_mut().remove(CONTENT_LENGTH.as_str());
            self.keep_alive = false;
        }
        self.framing = if status.is_informational()
            || matches!(status.as_u16(), 204 | 304)
            || request_method == Method::HEAD
        {
            Framing::Done
        } else if terms.chunked {
            if head.version() == Version::HTTP_10 {
                return Err(CodecError::Framing("chunked coding in HTTP/1.0"));
            }
            Framing::ChunkSize
        } else {
            match terms.length {
                Some(0) => Framing::Done,
                Some(length) => Framing::Length(length),
                None => {
                    self.keep_alive = false;
                    Framing::UntilClose
                }
            }
        };
        Ok(())
    }

    fn decode(&mut self) -> Result<Decoded, CodecError> {
        loop {
            match self.framing {
                Framing::Done => return Ok(Decoded::End),
                _ if self.buffer.is_empty() => return Ok(Decoded::NeedsMore),
                Framing::UntilClose => return Ok(Decoded::Piece(self.buffer.split().freeze())),
                Framing::Length(left) => {
                    let piece = self.take(left);
                    let left = left - piece.len() as u64;
                    self.framing = match left {
                        0 => Framing::Done,
                        left => Framing::Length(left),
                    };
                    return Ok(Decoded::Piece(piece));
                }
                Framing::ChunkData(left) => {
                    let piece = self.take(left);
                    let left = left - piece.len() as u64;
                    self.framing = match left {
                        0 => Framing::ChunkEnd,
                        left => Framing::ChunkData(left),
                    };
                    return Ok(Decoded::Piece(piece));
                }
                Framing::ChunkSize => match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        self.buffer.advance(length);
                        self.framing = match size {
                            0 => Framing::Trailers,
                            size => Framing::ChunkData(size),
                        };
                    }
                    Ok(httparse::Status::Partial) => {
                        if self.buffer.len() > CHUNK_LINE_BYTES_MAX {
                            return Err(CodecError::Framing("chunk size line too long"));
                        }
                        return Ok(Decoded::NeedsMore);
                    }
                    Err(_) => return Err(CodecError::Framing("chunk size")),
                },
                Framing::ChunkEnd => match self.buffer.get(..2) {
                    Some(b"\r\n") => {
                        self.buffer.advance(2);
                        self.framing = Framing::ChunkSize;
                    }
                    Some(_) => return Err(CodecError::Framing("no line end after a chunk")),
                    None => return Ok(Decoded::NeedsMore),
                },
                // Trailer fields are read and dropped: this driver's clients did not ask for them.
                Framing::Trailers => match memchr::memmem::find(&self.buffer, b"\r\n") {
                    Some(0) => {
                        self.buffer.advance(2);
                        self.framing = Framing::Done;
                    }
                    Some(length) => self.buffer.advance(length + 2),
                    None if self.buffer.len() > CHUNK_LINE_BYTES_MAX => {
                        return Err(CodecError::Framing("trailer line too long"));
                    }
                    None => return Ok(Decoded::NeedsMore),
                },
            }
        }
    }

    fn take(&mut self, at_most: u64) -> Bytes {
        let here = self.buffer.len();
        let length = usize::try_from(at_most).map_or(here, |at_most| at_most.min(here));
        self.buffer.split_to(length).freeze()
    }
}

enum Decoded {
    Piece(Bytes),
    End,
    NeedsMore,
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
