//! The stream type under every client connection.
//!
//! Pingora's sessions read and write through it. It keeps no buffers, so that an idle connection costs a socket and
//! little else. It can be written to through a shared reference, which is how the exchange driver sends head and body
//! in one system call, past the session. It replaces the answers that the session itself makes to unreadable requests
//! by the gateway's own. It counts the bytes handed out, which tells whether a pipelined request is waiting.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::ALPN;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::engine::pace::{Limits, Pace, Sending};
use crate::engine::read_ahead::TlsStream;
use crate::runtime::connection::Connection;

/// Stands for a number of bytes that nobody counts: the framing of chunked bodies is Pingora's.
const UNKNOWN: u64 = u64::MAX;

/// What an HTTP/2 client sends before anything else (RFC 9113, 3.4), in bytes.
const HTTP2_PREFACE_BYTES: u64 = 24;

/// Renders the answer to a request that could not be read.
pub(crate) type Refuse = Arc<dyn Fn(&Connection, u16) -> Bytes + Send + Sync>;

/// A client connection as Pingora's sessions see it.
pub(crate) struct Io {
    pub(crate) connection: Arc<Connection>,
    channel: Mutex<Channel>,
    alpn: Option<ALPN>,
    /// Carries the connection's facts to HTTP/2 streams, which do not see this type.
    proxy_digest: Option<Arc<ProxyDigest>>,
    id: UniqueIDType,
    refuse: Refuse,
    refusal: Option<Bytes>,
    head_read: AtomicBool,
    /// Bytes handed out.
    delivered: AtomicU64,
    /// Bytes of requests whose head was read; [`UNKNOWN`] for good after a chunked one.
    consumed: AtomicU64,
    /// Bytes that the session wrote since the request's head was read.
    written: AtomicU64,
    /// The first byte of the current head was handed out at this count.
    head_from: u64,
    /// The current request's body has ended, as whoever knows its framing says.
    body_ended: AtomicBool,
    pace: Pace,
    /// The request line that is arriving; Pingora repairs bad ones silently, the gateway refuses them.
    line: RequestLine,
}

/// How many spaces a request line has shown so far. More than two are a space within the target.
#[derive(Debug, Clone, Copy, Default)]
struct RequestLine {
    spaces: usize,
    ended: bool,
}

impl RequestLine {
    const SPACES_MAX: usize = 2;

    fn watch(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        let line = match memchr::memchr(b'\n', bytes) {
            Some(end) => {
                self.ended = true;
                bytes.get(..end).unwrap_or_default()
            }
            None => bytes,
        };
        self.spaces += memchr::memchr_iter(b' ', line).count();
    }
}

/// What lies underneath.
pub(crate) enum Channel {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Io {
    pub(crate) fn new(
        connection: Arc<Connection>,
        channel: Channel,
        alpn: Option<ALPN>,
        proxy_digest: Option<Arc<ProxyDigest>>,
        refuse: Refuse,
        limits: Limits,
    ) -> Self {
        let id = channel.id();
        let mut pace = Pace::new(limits);
        if alpn == Some(ALPN::H2) {
            // Its preface is due at once.
            pace.arrived(Sending::Head, 0);
        }
        Self {
            connection,
            channel: Mutex::new(channel),
            alpn,
            proxy_digest,
            id,
            refuse,
            refusal: None,
            head_read: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            written: AtomicU64::new(0),
            head_from: 0,
            body_ended: AtomicBool::new(false),
            pace,
            line: RequestLine::default(),
        }
    }

    /// The stream under a session; none under HTTP/2, whose streams do not show it.
    pub(crate) fn under(session: &ServerSession) -> Option<&Self> {
        session.stream()?.as_any().downcast_ref()
    }

    /// Waits until the client has sent something (or left). No buffer is held meanwhile.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        let channel = self.channel.get_mut();
        poll_fn(|cx| channel.poll_readable(cx)).await
    }

    /// Is there something to read, as far as the socket knows?
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.lock().poll_readable(cx)
    }

    /// Reads where no session takes part, `bytes_max` at most; such bytes are not counted as handed out.
    pub(crate) async fn read_past(
        &mut self,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<usize> {
        let mut buffer = buffer.limit(bytes_max);
        match self.channel.get_mut() {
            Channel::Plain(stream) => stream.read_buf(&mut buffer).await,
            Channel::Tls(stream) => stream.read_buf(&mut buffer).await,
        }
    }

    /// A head has begun to arrive, past any session: its time counts.
    pub(crate) fn head_arrives(&mut self) {
        self.pace.arrived(Sending::Head, 0);
    }

    /// It is whole, or none has begun.
    pub(crate) fn head_arrived(&mut self) {
        self.pace.arrived(Sending::Nothing, 0);
    }

    /// Reads more of a head that has begun, until `buffer` holds `length_max` bytes at most. `None` when it takes too
    /// long in total.
    pub(crate) async fn read_head(
        &mut self,
        buffer: &mut BytesMut,
        length_max: usize,
    ) -> io::Result<Option<usize>> {
        let (channel, pace) = (self.channel.get_mut(), &mut self.pace);
        poll_fn(|cx| {
            let mut room = [std::mem::MaybeUninit::uninit(); 1024];
            let wanted = length_max.saturating_sub(buffer.len()).min(room.len());
            let mut room = ReadBuf::uninit(room.get_mut(..wanted).unwrap_or_default());
            match Pin::new(&mut *channel).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) => {
                    buffer.extend_from_slice(room.filled());
                    Poll::Ready(Ok(Some(room.filled().len())))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => pace.poll_late(cx, Sending::Head).map(|()| Ok(None)),
            }
        })
        .await
    }

    /// `bytes`, read past any session, are now given to one to begin with.
    pub(crate) fn hand_to_session(&mut self, bytes: &[u8]) {
        *self.delivered.get_mut() += bytes.len() as u64;
        self.pace.arrived(Sending::Head, bytes.len());
        self.line = RequestLine::default();
        self.line.watch(bytes);
    }

    /// A new request begins: what is written before its head was read is a refusal by the session. `begun` when some of
    /// its head was read past the session: it has no more time for that.
    pub(crate) fn expect_request(&mut self, begun: bool) {
        *self.head_read.get_mut() = false;
        self.head_from = *self.delivered.get_mut();
        if !begun {
            self.pace.arrived(Sending::Nothing, 0);
        }
        // Of a request that was read ahead the line has passed already.
        self.line = RequestLine {
            spaces: 0,
            ended: self.may_have_read_ahead(),
        };
    }

    /// Was there a space within the request target?
    pub(crate) fn is_line_broken(&self) -> bool {
        self.line.spaces > RequestLine::SPACES_MAX
    }

    /// The head was read and is `head` bytes long; a body of `body` bytes follows, `None` when chunked.
    pub(crate) fn request_began(&self, head: u64, body: Option<u64>) {
        self.head_read.store(true, Ordering::Relaxed);
        self.body_ended.store(false, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        let before = self.consumed.load(Ordering::Relaxed);
        let length = body.map_or(UNKNOWN, |body| head.saturating_add(body));
        self.consumed
            .store(before.saturating_add(length), Ordering::Relaxed);
    }

    /// The body of the current request is here whole.
    pub(crate) fn body_ended(&self) {
        self.body_ended.store(true, Ordering::Relaxed);
    }

    /// What the client is sending at present.
    fn sending(&mut self) -> Sending {
        let delivered = *self.delivered.get_mut();
        if self.alpn == Some(ALPN::H2) {
            // Only its preface has a time of its own; frames are Pingora's.
            return match delivered < HTTP2_PREFACE_BYTES {
                true => Sending::Head,
                false => Sending::Nothing,
            };
        }
        if !*self.head_read.get_mut() {
            return match delivered > self.head_from {
                true => Sending::Head,
                false => Sending::Nothing,
            };
        }
        match delivered < *self.consumed.get_mut() && !*self.body_ended.get_mut() {
            true => Sending::Body,
            false => Sending::Nothing,
        }
    }

    /// Bytes that the session wrote in answer to the current request, heads included.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Could bytes of a further request have been handed out already?
    pub(crate) fn may_have_read_ahead(&self) -> bool {
        let consumed = self.consumed.load(Ordering::Relaxed);
        consumed == UNKNOWN || self.delivered.load(Ordering::Relaxed) > consumed
    }

    /// Has the kernel find out when the client's host is gone without a word.
    pub(crate) fn keep_alive(&self) {
        match &*self.channel.lock() {
            Channel::Plain(stream) => keep_alive(stream),
            Channel::Tls(stream) => keep_alive(stream.get_ref().get_ref()),
        }
    }

    /// Writes everything, past the session that owns this stream. Only between phases of the same task: the session
    /// itself must not be writing.
    pub(crate) async fn write_all_shared(&self, data: &mut impl Buf) -> io::Result<()> {
        while data.has_remaining() {
            let written = poll_fn(|cx| {
                let mut channel = self.channel.lock();
                Pin::new(&mut *channel).poll_write(cx, data.chunk())
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            data.advance(written);
        }
        Ok(())
    }

    /// Reads past the session. Only while the session is not reading, and after [`Io::may_have_read_ahead`] was false.
    pub(crate) fn poll_read_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.channel.lock()).poll_read(cx, buf)
    }

    /// Writes past the session.
    pub(crate) fn poll_write_shared(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.channel.lock()).poll_write(cx, data)
    }

    /// Flushes past the session.
    pub(crate) fn poll_flush_shared(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.channel.lock()).poll_flush(cx)
    }

    /// Ends the sending side past the session.
    pub(crate) fn poll_shutdown_shared(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.channel.lock()).poll_shutdown(cx)
    }

    /// Writes the gateway's own answer instead of the session's.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<usize>> {
        let refusal = self.refusal.get_or_insert_with(|| {
            let status = theirs
                .get(9..12)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(400);
            (self.refuse)(&self.connection, status)
        });
        while refusal.has_remaining() {
            match Pin::new(self.channel.get_mut()).poll_write(cx, refusal) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => refusal.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // The session believes that its own answer was sent.
        Poll::Ready(Ok(theirs.len()))
    }
}

/// Silence after which the kernel asks whether the other host is still there, and how often it asks again. A tunnel may
/// be silent for hours, and nobody else would ask.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Sets keep-alive probes.
pub(crate) fn keep_alive(socket: &TcpStream) {
    let probes = socket2::TcpKeepalive::new()
        .with_time(KEEP_ALIVE_AFTER)
        .with_interval(KEEP_ALIVE_EVERY);
    if let Err(error) = socket2::SockRef::from(socket).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "no keep-alive probes");
    }
}

impl Channel {
    fn id(&self) -> UniqueIDType {
        use std::os::fd::AsRawFd;
        match self {
            Self::Plain(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().get_ref().as_raw_fd(),
        }
    }

    /// Is there something to read, as far as the socket knows?
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) if stream.ssl().pending() > 0 => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.get_ref().poll_read_ready(cx),
        }
    }
}

impl AsyncRead for Channel {
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

impl AsyncWrite for Channel {
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

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(this.channel.get_mut()).poll_read(cx, buf);
        if read.is_pending() {
            let sending = this.sending();
            std::task::ready!(this.pace.poll_late(cx, sending));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        std::task::ready!(read)?;
        let new = buf.filled().get(before..).unwrap_or_default();
        // Asked before and after: the last piece of a body is of the body.
        let was_sending = this.sending();
        *this.delivered.get_mut() += new.len() as u64;
        let sending = match was_sending {
            Sending::Nothing => this.sending(),
            sending => sending,
        };
        this.pace.arrived(sending, new.len());
        this.line.watch(new);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // HTTP/2 has no such answers: its streams are refused by frames.
        if !*this.head_read.get_mut() && this.alpn != Some(ALPN::H2) {
            return this.poll_refuse(cx, data);
        }
        let written = std::task::ready!(Pin::new(this.channel.get_mut()).poll_write(cx, data))?;
        *this.written.get_mut() += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().channel.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().channel.get_mut()).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Io {
    async fn shutdown(&mut self) {
        let channel = self.channel.get_mut();
        // The client may already be gone: nothing can be done about it.
        let _ = poll_fn(|cx| Pin::new(&mut *channel).poll_shutdown(cx)).await;
    }
}

impl UniqueID for Io {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for Io {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.alpn.clone()
    }
}

impl Peek for Io {}

impl GetTimingDigest for Io {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Io {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.proxy_digest.clone()
    }
}

impl GetSocketDigest for Io {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("peer", &self.connection.peer)
            .field("local", &self.connection.local)
            .finish_non_exhaustive()
    }
}
