//! The client's side of a tunnel: its connection, or one stream of its HTTP/2 connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::SendStream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::HttpSession;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::client::Client;
use crate::engine::io::Io;

/// Most that is put into one HTTP/2 frame, in bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// What a tunnel reads from and writes to.
pub(crate) enum ClientStream<'a> {
    /// The connection, past the session that owns it.
    Connection(&'a Io),
    /// An HTTP/2 stream (RFC 8441).
    Http2 {
        session: &'a mut HttpSession,
        sending: SendStream<Bytes>,
        /// Received and not read yet.
        unread: Bytes,
    },
}

impl<'a> ClientStream<'a> {
    /// The client's side, with what it sent behind its request. Its answer has been written.
    pub(crate) fn of(client: &'a mut Client<'_>) -> Option<(Self, Bytes)> {
        Some(match client {
            Client::Http1(http1) => {
                let ahead = http1.take_ahead();
                (Self::Connection(http1.io()), ahead)
            }
            Client::Session(ServerSession::H2(session)) => {
                let sending = session.take_response_body_writer()?;
                let stream = Self::Http2 {
                    session,
                    sending,
                    unread: Bytes::new(),
                };
                (stream, Bytes::new())
            }
            Client::Session(session) => (Self::Connection(Io::under(session)?), Bytes::new()),
        })
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}

impl AsyncRead for ClientStream<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(io) => io.poll_read_shared(cx, buf),
            Self::Http2 {
                session, unread, ..
            } => {
                while unread.is_empty() {
                    match ready!(session.poll_read_body_bytes(cx)) {
                        Some(piece) => *unread = piece.map_err(broken)?,
                        None => return Poll::Ready(Ok(())),
                    }
                }
                let length = unread.len().min(buf.remaining());
                buf.put_slice(unread.get(..length).unwrap_or_default());
                unread.advance(length);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for ClientStream<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(io) => io.poll_write_shared(cx, data),
            Self::Http2 { sending, .. } => {
                let wished = data.len().min(FRAME_BYTES_MAX);
                sending.reserve_capacity(wished);
                while sending.capacity() == 0 {
                    match ready!(sending.poll_capacity(cx)) {
                        Some(granted) => granted.map_err(broken)?,
                        None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    };
                }
                let length = wished.min(sending.capacity());
                let piece = Bytes::copy_from_slice(data.get(..length).unwrap_or_default());
                sending.send_data(piece, false).map_err(broken)?;
                Poll::Ready(Ok(length))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(io) => io.poll_flush_shared(cx),
            // The connection's own task writes.
            Self::Http2 { .. } => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(io) => io.poll_shutdown_shared(cx),
            Self::Http2 { sending, .. } => {
                Poll::Ready(sending.send_data(Bytes::new(), true).map_err(broken))
            }
        }
    }
}
