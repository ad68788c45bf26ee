//! What follows a switch of protocols whose bytes nobody reads: both ways, until one side is done or both are silent.
//!
//! An idle tunnel holds no buffer: bytes are read into one that each thread has for all its tunnels, and only what the
//! other side does not take at once is kept. Pingora's own tunnel can take a request's queued end for the tunnel's when
//! the upstream answers at once, and close it; this one knows nothing of requests.

mod client;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

pub(crate) use client::ClientStream;

/// Most that is read at once, in bytes.
const SCRATCH_BYTES: usize = 64 * 1024;
/// After this many pieces in one direction other tasks get their turn.
const PIECES_PER_TURN: usize = 16;

/// How many bytes went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) to_upstream: u64,
    pub(crate) to_client: u64,
}

/// When a tunnel ends though both sides would go on.
pub(crate) struct Limits {
    /// Silence of both sides; `None` is never.
    pub(crate) idle: Option<Duration>,
    /// Turns true when the process ends.
    pub(crate) parting: watch::Receiver<bool>,
}

/// Carries bytes until both sides have ended, one of them fails, or a limit is reached. `ahead` is what the client sent
/// behind its request, `early` what the upstream sent behind its head.
pub(crate) async fn run<C, U>(
    mut client: C,
    mut upstream: U,
    ahead: Bytes,
    early: Bytes,
    mut limits: Limits,
) -> (Carried, io::Result<()>)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let clock = Clock::new();
    let mut up = Direction::beginning_with(ahead);
    let mut down = Direction::beginning_with(early);
    let carrying = poll_fn(|cx| {
        let up = up.poll(cx, &mut client, &mut upstream, &clock)?;
        let down = down.poll(cx, &mut upstream, &mut client, &clock)?;
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    });
    let ended = tokio::select! {
        ended = carrying => ended,
        () = clock.silence(limits.idle) => Err(io::ErrorKind::TimedOut.into()),
        _ = limits.parting.wait_for(|parting| *parting) => Err(io::ErrorKind::Interrupted.into()),
    };
    let carried = Carried {
        to_upstream: up.carried,
        to_client: down.carried,
    };
    (carried, ended)
}

/// One direction of a tunnel.
struct Direction {
    /// Read, and not taken by the other side yet. Empty while the tunnel is idle.
    pending: Bytes,
    stage: Stage,
    carried: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Written, but perhaps not on its way.
    Flushing,
    /// The sender has ended; the receiver is to learn it.
    Ending,
    Ended,
}

impl Direction {
    fn beginning_with(pending: Bytes) -> Self {
        Self {
            pending,
            stage: Stage::Open,
            carried: 0,
        }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        clock: &Clock,
    ) -> io::Result<Poll<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..PIECES_PER_TURN {
            match self.step(cx, from, to, clock) {
                Poll::Ready(Ok(())) if self.stage == Stage::Ended => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn step<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        clock: &Clock,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(written);
            self.carried += written as u64;
            self.stage = Stage::Flushing;
            clock.moved();
        }
        // Whatever it was a slice of is let go.
        self.pending = Bytes::new();
        match self.stage {
            Stage::Ended => return Poll::Ready(Ok(())),
            Stage::Ending => {
                // A side that is gone already need not be told.
                let _ = ready!(Pin::new(to).poll_shutdown(cx));
                self.stage = Stage::Ended;
                return Poll::Ready(Ok(()));
            }
            Stage::Open | Stage::Flushing => {}
        }
        let (carried, pending) = (&mut self.carried, &mut self.pending);
        let read = poll_read_scratch(cx, from, |cx, bytes| {
            // Mostly the other side takes everything at once, and nothing has to be kept.
            let written = match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            *carried += written as u64;
            *pending = Bytes::copy_from_slice(bytes.get(written..).unwrap_or_default());
            Ok(())
        });
        match read {
            Poll::Ready(Ok(0)) => {
                self.stage = Stage::Ending;
                clock.moved();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(_)) => {
                self.stage = Stage::Flushing;
                clock.moved();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if self.stage == Stage::Flushing {
                    ready!(Pin::new(to).poll_flush(cx))?;
                    self.stage = Stage::Open;
                }
                Poll::Pending
            }
        }
    }
}

/// Reads into the thread's own buffer and shows what came; nothing is shown at the end. Gives how much came.
pub(crate) fn poll_read_scratch<R: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    from: &mut R,
    show: impl FnOnce(&mut Context<'_>, &[u8]) -> io::Result<()>,
) -> Poll<io::Result<usize>> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(SCRATCH_BYTES, 0);
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if !bytes.is_empty() {
            show(cx, bytes)?;
        }
        Poll::Ready(Ok(bytes.len()))
    })
}

/// When bytes last moved, in either direction.
pub(crate) struct Clock {
    start: Instant,
    last_move_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            last_move_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn moved(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_move_ms.store(now, Ordering::Relaxed);
    }

    /// Resolves when nothing has moved for so long; without a limit never.
    pub(crate) async fn silence(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        loop {
            let quiet = self.quiet();
            if quiet >= limit {
                return;
            }
            tokio::time::sleep(limit - quiet).await;
        }
    }

    fn quiet(&self) -> Duration {
        let last = Duration::from_millis(self.last_move_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn limits(idle: Option<Duration>) -> (watch::Sender<bool>, Limits) {
        let (sender, parting) = watch::channel(false);
        (sender, Limits { idle, parting })
    }

    #[tokio::test]
    async fn carries_what_was_sent_ahead_and_then_the_rest() {
        let (client, mut outside) = duplex(16);
        let (upstream, mut application) = duplex(16);
        let (_parting, limits) = limits(None);
        let ahead = Bytes::from_static(b"ahead ");
        let early = Bytes::from_static(b"early ");
        let tunnel = tokio::spawn(run(client, upstream, ahead, early, limits));
        let long = vec![b'x'; 300_000];
        let sent = long.clone();
        let sending = tokio::spawn(async move {
            outside.write_all(&sent).await.unwrap();
            outside.shutdown().await.unwrap();
            let mut answer = Vec::new();
            outside.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut arrived = Vec::new();
        application.read_to_end(&mut arrived).await.unwrap();
        assert!(arrived == [b"ahead ".as_slice(), &long].concat());
        // The other direction is still open: ends are passed on one by one.
        application.write_all(b"late").await.unwrap();
        drop(application);
        assert_eq!(sending.await.unwrap(), b"early late");
        let (carried, ended) = tunnel.await.unwrap();
        ended.unwrap();
        let expected = Carried {
            to_upstream: 300_006,
            to_client: 10,
        };
        assert_eq!(carried, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn ends_by_silence_or_by_parting() {
        let (client, _outside) = duplex(16);
        let (upstream, _application) = duplex(16);
        let (_parting, silent) = limits(Some(Duration::from_secs(3600)));
        let started = tokio::time::Instant::now();
        let waiting = run(client, upstream, Bytes::new(), Bytes::new(), silent);
        // The tunnel's own clock does not stop with tokio's, so only the kind of end is told here.
        let ended = tokio::time::timeout(Duration::from_secs(1), waiting).await;
        assert!(ended.is_err(), "{:?}", started.elapsed());

        let (client, _outside) = duplex(16);
        let (upstream, _application) = duplex(16);
        let (parting, limits) = limits(None);
        let tunnel = tokio::spawn(run(client, upstream, Bytes::new(), Bytes::new(), limits));
        parting.send(true).unwrap();
        let (_, ended) = tunnel.await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
