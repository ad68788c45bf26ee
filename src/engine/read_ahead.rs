//! A socket that is read in large pieces by somebody who asks for small ones.
//!
//! The TLS library asks for the five bytes of a record's head, then for the record, then once more in vain: three calls
//! of the system for one record. Here the first call brings everything that has come, and whoever asks next is served
//! from memory. A buffer is held only while it holds bytes. Writing is passed on as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora_core::tls::tokio_ssl::SslStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffers::Buffer;

/// A TLS connection of the engine, with clients, peers and upstreams.
pub(crate) type TlsStream = SslStream<ReadAhead<TcpStream>>;

/// Whoever has room for so much reads for himself: nothing would be saved but a copy made.
const DIRECT_BYTES_MIN: usize = 16 * 1024;

/// See the module. Nothing may be read from `inner` behind its back.
pub(crate) struct ReadAhead<S> {
    inner: S,
    /// Present while it holds bytes.
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            buffer: None,
            start: 0,
            end: 0,
        }
    }

    /// The socket itself, for everything but reading.
    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Has everything been handed out that was read?
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }
}

impl ReadAhead<TcpStream> {
    /// Is there something to read, or the end, as far as the socket knows?
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_empty() {
            true => self.inner.poll_read_ready(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_none() {
            if space.remaining() >= DIRECT_BYTES_MIN {
                return Pin::new(&mut this.inner).poll_read(cx, space);
            }
            // Given back at once if nothing has come.
            let mut buffer = Buffer::take();
            let mut ahead = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut ahead))?;
            (this.start, this.end) = (0, ahead.filled().len());
            if this.end == 0 {
                return Poll::Ready(Ok(()));
            }
            this.buffer = Some(buffer);
        }
        let waiting = this.buffer.as_deref();
        let waiting = waiting.and_then(|bytes| bytes.get(this.start..this.end));
        let wanted = waiting.unwrap_or_default();
        let wanted = wanted.get(..space.remaining()).unwrap_or(wanted);
        space.put_slice(wanted);
        this.start += wanted.len();
        if this.start >= this.end {
            this.buffer = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Counts how often it is read.
    struct Counted<S>(S, usize);

    impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            space: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1 += 1;
            Pin::new(&mut self.0).poll_read(cx, space)
        }
    }

    #[tokio::test]
    async fn small_pieces_cost_one_read() {
        let (mut far, near) = duplex(100_000);
        let sent: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut stream = ReadAhead::new(Counted(near, 0));
        let mut got = Vec::new();
        let mut piece = [0; 7];
        while got.len() < 35_000 {
            stream.read_exact(&mut piece).await.unwrap();
            got.extend_from_slice(&piece);
        }
        assert_eq!(stream.inner.1, 1);
        // The rest, the end, and the end again.
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        assert_eq!(stream.read(&mut piece).await.unwrap(), 0);
        assert!(stream.buffer.is_none());
    }

    #[tokio::test]
    async fn large_pieces_go_past() {
        let (mut far, near) = duplex(100_000);
        far.write_all(&[7; 30_000]).await.unwrap();
        let mut stream = ReadAhead::new(Counted(near, 0));
        let mut piece = vec![0; DIRECT_BYTES_MIN];
        stream.read_exact(&mut piece).await.unwrap();
        assert!(stream.buffer.is_none());
        // Nothing to read: nothing is held, and what comes later is read.
        let mut rest = vec![0; 30_000 - DIRECT_BYTES_MIN];
        stream.read_exact(&mut rest).await.unwrap();
        let mut late = [0; 4];
        let waiting = tokio::time::timeout(
            std::time::Duration::from_millis(20),
            stream.read_exact(&mut late),
        );
        assert!(waiting.await.is_err());
        assert!(stream.buffer.is_none());
        far.write_all(b"late").await.unwrap();
        stream.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"late");
    }
}
