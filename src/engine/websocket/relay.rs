//! A tunnel whose messages plugins see: frames are taken apart on one side and made anew for the other.
//!
//! ```text
//! client ──▶ decoder ──▶ plugins ──▶ frames out ──▶ upstream
//! client ◀── frames out ◀── plugins ◀── decoder ◀── upstream
//! ```
//!
//! A message is read from one side only when the other has taken the one before: a slow reader slows its writer down, and
//! no more than one message of each direction is held. While both are silent nothing is held.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::engine::phases;
use crate::engine::tunnel::{Carried, Clock, Limits, poll_read_scratch};
use crate::engine::websocket::frame::{Compression, Decoder, Framed, Sender, Wire, encode};
use crate::runtime::exchange::Exchange;
use crate::runtime::message::{
    CloseNotice, Ending, Message, MessageKind, MessageVerdict, TunnelEnd, code,
};

/// How long the second close may come after the first one.
const SECOND_CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long the two sides have to take what the gateway says last, and to leave.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
/// After this many steps other tasks get their turn.
const STEPS_PER_TURN: usize = 64;

/// Carries messages until both sides have closed, or the gateway ends the tunnel. `ahead` is what the client sent behind
/// its request, `early` what the upstream sent behind its head.
pub(crate) async fn run<C, U>(
    client: C,
    upstream: U,
    (ahead, early): (Bytes, Bytes),
    exchange: &mut Exchange,
    compression: Compression,
    mut limits: Limits,
) -> (Carried, TunnelEnd)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let sizes = exchange.message_limits;
    let clock = Clock::new();
    let mut relay = Relay {
        client: Side::new(client, Sender::Client, compression, sizes.client, &ahead),
        upstream: Side::new(
            upstream,
            Sender::Upstream,
            compression,
            sizes.upstream,
            &early,
        ),
        closing: None,
        messages: (0, 0),
    };
    // Whatever they were slices of is let go.
    drop((ahead, early));
    let ended = tokio::select! {
        ended = poll_fn(|cx| relay.poll(cx, exchange, &clock)) => ended,
        () = clock.silence(limits.idle) => both(code::GOING_AWAY, "idle for too long"),
        _ = limits.parting.wait_for(|parting| *parting) => both(code::GOING_AWAY, "the gateway stops"),
    };
    let end = TunnelEnd {
        client_code: relay.client.closed,
        upstream_code: relay.upstream.closed,
        gateway_code: ended
            .client
            .as_ref()
            .filter(|_| !relay.client.told)
            .map(|notice| notice.code),
        client_messages: relay.messages.0,
        upstream_messages: relay.messages.1,
    };
    let carried = Carried {
        to_upstream: relay.client.received,
        to_client: relay.upstream.received,
    };
    tokio::join!(
        relay.client.farewell(ended.client),
        relay.upstream.farewell(ended.upstream),
    );
    (carried, end)
}

/// The tunnel is over, and this is still to be said.
#[derive(Default)]
struct Ended {
    client: Option<CloseNotice>,
    upstream: Option<CloseNotice>,
}

impl Ended {
    fn by(ending: Ending, sender: Sender) -> Self {
        let (client, upstream) = match sender {
            Sender::Client => (ending.sender, ending.peer),
            Sender::Upstream => (ending.peer, ending.sender),
        };
        Self {
            client: Some(client),
            upstream: Some(upstream),
        }
    }

    fn telling(side: Sender, notice: CloseNotice) -> Self {
        match side {
            Sender::Client => Self {
                client: Some(notice),
                upstream: None,
            },
            Sender::Upstream => Self {
                client: None,
                upstream: Some(notice),
            },
        }
    }
}

/// The same is said to both sides.
fn both(code: u16, reason: &'static str) -> Ended {
    Ended {
        client: Some(CloseNotice::new(code, reason)),
        upstream: Some(CloseNotice::new(code, reason)),
    }
}

struct Relay<C, U> {
    client: Side<C>,
    upstream: Side<U>,
    /// Runs from the first close on.
    closing: Option<Pin<Box<Sleep>>>,
    /// Data messages from the client, and from the upstream.
    messages: (u64, u64),
}

/// One side of the tunnel.
struct Side<S> {
    stream: S,
    who: Sender,
    decoder: Decoder,
    /// Frames on their way to this side.
    out: BytesMut,
    unflushed: bool,
    /// The code with which this side closed; 1005 when it gave none.
    closed: Option<u16>,
    /// This side was told that the tunnel closes.
    told: bool,
    /// Nothing more is sent to this side.
    shut: bool,
    received: u64,
}

/// What an attempt at one direction came to.
enum Step {
    Moved,
    Waits,
    Ended(Ended),
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        clock: &Clock,
    ) -> Poll<Ended> {
        for _ in 0..STEPS_PER_TURN {
            let up = step(
                cx,
                &mut self.client,
                &mut self.upstream,
                &mut self.messages.0,
                exchange,
            );
            let down = step(
                cx,
                &mut self.upstream,
                &mut self.client,
                &mut self.messages.1,
                exchange,
            );
            let waits = matches!((&up, &down), (Step::Waits, Step::Waits));
            for step in [up, down] {
                if let Step::Ended(ended) = step {
                    return Poll::Ready(ended);
                }
            }
            let closed = (self.client.closed.is_some(), self.upstream.closed.is_some());
            if closed == (true, true) && self.client.out.is_empty() && self.upstream.out.is_empty()
            {
                return Poll::Ready(Ended::default());
            }
            if closed != (false, false) {
                let closing = self
                    .closing
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(SECOND_CLOSE_WITHIN)));
                if closing.as_mut().poll(cx).is_ready() {
                    // Whoever was told already is not told again.
                    return Poll::Ready(both(code::NORMAL, ""));
                }
            }
            if waits {
                return Poll::Pending;
            }
            clock.moved();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Moves what can be moved from one side to the other.
fn step<F, T>(
    cx: &mut Context<'_>,
    from: &mut Side<F>,
    to: &mut Side<T>,
    messages: &mut u64,
    exchange: &mut Exchange,
) -> Step
where
    F: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    match to.poll_send(cx) {
        Poll::Ready(Ok(false)) => {}
        Poll::Ready(Ok(true)) => return Step::Moved,
        Poll::Ready(Err(_)) => return Step::Ended(gone(from, to)),
        Poll::Pending => return Step::Waits,
    }
    if from.closed.is_some() {
        // Nothing counts behind a close.
        return Step::Waits;
    }
    match from.decoder.next() {
        Ok(Some(framed)) => return pass(framed, from, to, messages, exchange),
        Ok(None) => {}
        Err(violation) => {
            tracing::debug!(
                request_id = %exchange.request_id, sender = ?from.who, "{}", violation.reason
            );
            return Step::Ended(Ended::by(violation.into(), from.who));
        }
    }
    let (decoder, received) = (&mut from.decoder, &mut from.received);
    let read = poll_read_scratch(cx, &mut from.stream, |_, bytes| {
        *received += bytes.len() as u64;
        decoder.push(bytes);
        Ok(())
    });
    match read {
        Poll::Pending => Step::Waits,
        Poll::Ready(Ok(1..)) => Step::Moved,
        Poll::Ready(Ok(0) | Err(_)) => Step::Ended(gone(to, from)),
    }
}

/// `lost` is gone without a close: what is told to the other side.
fn gone<S, L>(other: &Side<S>, lost: &Side<L>) -> Ended {
    let notice = match (other.closed, lost.who) {
        // It said goodbye itself, and gets it back.
        (Some(code), _) if code != NO_CODE => CloseNotice::new(code, ""),
        (Some(_), _) => CloseNotice::new(code::NORMAL, ""),
        (None, Sender::Client) => CloseNotice::new(code::GOING_AWAY, ""),
        (None, Sender::Upstream) => {
            CloseNotice::new(code::INTERNAL_ERROR, "the upstream closed its connection")
        }
    };
    Ended::telling(other.who, notice)
}

/// Stands for a close without a code (RFC 6455, 7.4.1).
const NO_CODE: u16 = 1005;

/// Shows a message to the plugins, and sends on what they leave of it.
fn pass<F, T>(
    framed: Framed,
    from: &mut Side<F>,
    to: &mut Side<T>,
    messages: &mut u64,
    exchange: &mut Exchange,
) -> Step {
    let Framed { mut message, wire } = framed;
    let (kind, before) = (message.kind, message.data.clone());
    let verdict = match from.who {
        Sender::Client => phases::client_message(exchange, &mut message),
        Sender::Upstream => phases::upstream_message(exchange, &mut message),
    };
    // Its kind is what the other side was promised.
    message.kind = kind;
    match verdict {
        MessageVerdict::End(ending) => return Step::Ended(Ended::by(*ending, from.who)),
        // A close cannot be kept from the other side: the sender is already gone.
        MessageVerdict::Drop if kind != MessageKind::Close => return Step::Moved,
        MessageVerdict::Drop | MessageVerdict::Pass => {}
    }
    if kind == MessageKind::Close {
        from.closed = Some(message.code.unwrap_or(NO_CODE));
        if std::mem::replace(&mut to.told, true) {
            return Step::Moved;
        }
    } else if !kind.is_control() {
        *messages += 1;
    }
    let same = message.data.as_ptr() == before.as_ptr() && message.data.len() == before.len();
    let compressed = match wire {
        Wire::Plain => false,
        Wire::Compressed => true,
        Wire::Opened(raw) if same => {
            message.data = raw;
            true
        }
        Wire::Opened(_) => false,
    };
    to.queue(&message, compressed);
    Step::Moved
}

impl<S> Side<S> {
    fn new(stream: S, who: Sender, compression: Compression, limit: u32, first: &[u8]) -> Self {
        let mut decoder = Decoder::new(who, compression, limit);
        decoder.push(first);
        Self {
            stream,
            who,
            decoder,
            out: BytesMut::new(),
            unflushed: false,
            closed: None,
            told: false,
            shut: false,
            received: first.len() as u64,
        }
    }

    fn queue(&mut self, message: &Message, compressed: bool) {
        encode(
            message,
            compressed,
            self.who == Sender::Upstream,
            &mut self.out,
        );
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side<S> {
    /// Sends what is queued. True when something was sent, false when there was nothing.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        if self.out.is_empty() {
            if self.unflushed {
                // Pending: the stream wakes this task when it goes on; nothing else waits for it.
                self.unflushed = Pin::new(&mut self.stream).poll_flush(cx)?.is_pending();
            }
            return Poll::Ready(Ok(false));
        }
        match Pin::new(&mut self.stream).poll_write(cx, &self.out)? {
            Poll::Ready(0) => Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
            Poll::Ready(written) => {
                self.out.advance(written);
                if self.out.is_empty() {
                    self.out = BytesMut::new();
                }
                self.unflushed = true;
                Poll::Ready(Ok(true))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Says what is left to say, ends the sending direction, and reads on for a moment: a connection that is closed with
    /// unread bytes takes the last words with it.
    async fn farewell(&mut self, notice: Option<CloseNotice>) {
        if let Some(notice) = notice
            && !std::mem::replace(&mut self.told, true)
        {
            let message = Message {
                kind: MessageKind::Close,
                data: match notice.reason {
                    std::borrow::Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                    std::borrow::Cow::Owned(text) => text.into(),
                },
                code: Some(notice.code),
            };
            self.queue(&message, false);
        }
        let leaving = poll_fn(|cx| self.poll_leave(cx));
        // Whoever does not listen is left.
        let _ = tokio::time::timeout(FAREWELL_WITHIN, leaving).await;
    }

    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.out.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
        }
        loop {
            if ready!(poll_read_scratch(cx, &mut self.stream, |_, _| Ok(())))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
