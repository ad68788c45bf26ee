//! Bytes both ways between two connections, until both have ended, one fails, or nothing moves for too long.
//!
//! Knows nothing of routes, services or protocols: any two [`Side`]s will do. Each direction reads only when the other
//! side has taken what was read before, which is all the back-pressure there is. The end of one direction is passed on
//! and the other goes on. A buffer is held only while it holds bytes; the clock is read once for each time bytes moved.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::buffers::Buffer;

/// One end of a stream.
pub(crate) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Is it a socket and nothing more? Closing it then tells the other end as much as ending it properly, and a read that
    /// leaves room has taken everything that has come. Neither is so of TLS, which gives a record at a time.
    fn is_bare(&self) -> bool {
        false
    }
}

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While everything that was read has been written.
    pub(crate) idle: Duration,
    /// While bytes wait for a side to take them.
    pub(crate) stuck: Duration,
}

/// How many bytes went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) to_upstream: u64,
    pub(crate) to_client: u64,
}

/// Why a stream was not carried to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the client's side failed")]
    Client(#[source] io::Error),
    #[error("the upstream's side failed")]
    Upstream(#[source] io::Error),
    #[error("nothing moved for {0:?}")]
    Silent(Duration),
    #[error("nobody took what was sent for {0:?}")]
    Stuck(Duration),
}

/// Carries bytes both ways. `carried` is up to date whenever this waits, also when it is given up.
pub(crate) async fn run<C: Side, U: Side>(
    client: &mut C,
    upstream: &mut U,
    patience: Patience,
    carried: &mut Carried,
) -> Result<(), Broken> {
    let mut up = Direction::default();
    let mut down = Direction::default();
    let mut last_move = Instant::now();
    let alarm = tokio::time::sleep(patience.idle.min(patience.stuck));
    tokio::pin!(alarm);
    let mut heard = false;
    poll_fn(|cx| {
        let mut moved = 0;
        let upwards = up
            .pump(cx, client, upstream, down.done, &mut moved)
            .map_err(|failed| failed.blame(Broken::Client, Broken::Upstream))?;
        carried.to_upstream += moved;
        let mut moved_down = 0;
        let downwards = down
            .pump(cx, upstream, client, up.done, &mut moved_down)
            .map_err(|failed| failed.blame(Broken::Upstream, Broken::Client))?;
        carried.to_client += moved_down;
        if upwards.is_ready() && downwards.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let stuck = up.is_stuck() || down.is_stuck();
        let limit = if stuck { patience.stuck } else { patience.idle };
        if moved + moved_down > 0 {
            last_move = Instant::now();
        }
        let due = tokio::time::Instant::from_std(last_move + limit);
        if alarm.deadline() > due {
            // What was idle is stuck now, which is borne for a shorter time.
            alarm.as_mut().reset(due);
            heard = false;
        }
        // Polled to be heard, and then not before it rings.
        while !heard || alarm.is_elapsed() {
            heard = alarm.as_mut().poll(cx).is_pending();
            if heard {
                break;
            }
            // Looked at rarely: the alarm is not moved when bytes are, only when it rings.
            if last_move.elapsed() >= limit {
                return Poll::Ready(Err(match stuck {
                    true => Broken::Stuck(limit),
                    false => Broken::Silent(limit),
                }));
            }
            alarm.as_mut().reset((last_move + limit).into());
        }
        Poll::Pending
    })
    .await
}

/// One direction at work.
#[derive(Default)]
struct Direction {
    /// Present while it holds bytes.
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// The source has ended.
    ended: bool,
    /// The source has failed behind the bytes that are held.
    failed: Option<io::Error>,
    /// Something was written that was not flushed.
    unflushed: bool,
    /// The end has been passed on.
    done: bool,
}

/// Which end of a direction failed.
enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

impl Failed {
    fn blame(self, reading: fn(io::Error) -> Broken, writing: fn(io::Error) -> Broken) -> Broken {
        match self {
            Self::Reading(error) => reading(error),
            Self::Writing(error) => writing(error),
        }
    }
}

impl Direction {
    /// Do bytes wait for the sink?
    fn is_stuck(&self) -> bool {
        self.start < self.end
    }

    /// Moves what can be moved. Ready when the source's end has been passed on. `last`: the other direction is done.
    fn pump<A: Side, B: Side>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut A,
        to: &mut B,
        last: bool,
        moved: &mut u64,
    ) -> Result<Poll<()>, Failed> {
        if self.done {
            return Ok(Poll::Ready(()));
        }
        loop {
            if self.start == self.end && !self.ended && !self.fill(cx, from)? {
                // The source is silent: what a side may have kept back for more leaves now.
                if self.unflushed {
                    self.flush(cx, to)?;
                }
                return Ok(Poll::Pending);
            }
            while self.start < self.end {
                let waiting = self
                    .buffer
                    .as_deref()
                    .and_then(|b| b.get(self.start..self.end));
                let written = Pin::new(&mut *to).poll_write(cx, waiting.unwrap_or_default());
                match written.map_err(Failed::Writing)? {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(0) => {
                        return Err(Failed::Writing(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(count) => {
                        self.start += count;
                        *moved += count as u64;
                        self.unflushed = true;
                    }
                }
            }
            (self.start, self.end) = (0, 0);
            if self.ended {
                self.buffer = None;
                if last && to.is_bare() {
                    self.done = true;
                    return Ok(Poll::Ready(()));
                }
                let shut = Pin::new(&mut *to).poll_shutdown(cx);
                return match shut {
                    Poll::Pending => Ok(Poll::Pending),
                    // Whoever has gone needs no end.
                    Poll::Ready(_) => {
                        self.done = true;
                        Ok(Poll::Ready(()))
                    }
                };
            }
        }
    }

    /// Reads what is there, as far as it fits. False when there is nothing, and then no buffer is held.
    fn fill<A: Side>(&mut self, cx: &mut Context<'_>, from: &mut A) -> Result<bool, Failed> {
        if let Some(error) = self.failed.take() {
            return Err(Failed::Reading(error));
        }
        let mut buffer = self.buffer.take().unwrap_or_else(Buffer::take);
        let mut space = ReadBuf::new(&mut buffer);
        // Where a read gives a part of what has come, several parts fit into one write.
        while space.remaining() > 0 {
            let before = space.filled().len();
            match Pin::new(&mut *from).poll_read(cx, &mut space) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) if before == 0 => return Err(Failed::Reading(error)),
                Poll::Ready(Err(error)) => {
                    // What came before it is still delivered.
                    self.failed = Some(error);
                    break;
                }
                Poll::Ready(Ok(())) if space.filled().len() == before => {
                    self.ended = true;
                    break;
                }
                Poll::Ready(Ok(())) if from.is_bare() => break,
                Poll::Ready(Ok(())) => {}
            }
        }
        self.end = space.filled().len();
        if self.end == 0 && !self.ended {
            return Ok(false);
        }
        self.buffer = Some(buffer);
        Ok(true)
    }

    fn flush<B: Side>(&mut self, cx: &mut Context<'_>, to: &mut B) -> Result<(), Failed> {
        let flushed = Pin::new(to).poll_flush(cx).map_err(Failed::Writing)?;
        self.unflushed = flushed.is_pending();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    impl Side for DuplexStream {}

    const PATIENT: Patience = Patience {
        idle: Duration::from_secs(20),
        stuck: Duration::from_secs(20),
    };

    type Carrying = tokio::task::JoinHandle<(Result<(), Broken>, Carried)>;

    /// A client and an upstream as their programs see them, with streams of this capacity.
    fn joined(capacity: usize, patience: Patience) -> (DuplexStream, DuplexStream, Carrying) {
        let (client, mut ours) = duplex(capacity);
        let (mut theirs, upstream) = duplex(capacity);
        let carrying = tokio::spawn(async move {
            let mut carried = Carried::default();
            let ended = run(&mut ours, &mut theirs, patience, &mut carried).await;
            (ended, carried)
        });
        (client, upstream, carrying)
    }

    #[tokio::test]
    async fn carries_both_ways_and_keeps_half_open() {
        let (mut client, mut upstream, carrying) = joined(1000, PATIENT);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let talk = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        });
        let mut heard = Vec::new();
        upstream.read_to_end(&mut heard).await.unwrap();
        assert!(heard == expected);
        // The client has ended long ago and still hears the answer.
        upstream.write_all(b"after the end").await.unwrap();
        drop(upstream);
        assert_eq!(talk.await.unwrap(), "after the end");
        let (ended, carried) = carrying.await.unwrap();
        ended.unwrap();
        assert_eq!((carried.to_upstream, carried.to_client), (300_000, 13));
    }

    #[tokio::test]
    async fn ends_silence_and_tells_it_from_a_jam() {
        let patience = Patience {
            idle: Duration::from_secs(3),
            stuck: Duration::from_millis(100),
        };
        let (_client, _upstream, carrying) = joined(10, patience);
        let (ended, _) = carrying.await.unwrap();
        assert!(matches!(ended, Err(Broken::Silent(_))), "{ended:?}");

        let (mut client, _upstream, carrying) = joined(10, patience);
        // More than the upstream's side holds, and nobody reads there.
        client.write_all(&[0; 20]).await.unwrap();
        let (ended, carried) = carrying.await.unwrap();
        assert!(matches!(ended, Err(Broken::Stuck(_))), "{ended:?}");
        assert_eq!(carried.to_upstream, 10);
    }

    #[tokio::test]
    async fn stops_reading_when_nobody_takes() {
        let (mut client, _upstream, _carrying) = joined(64, PATIENT);
        let endless = async {
            let mut sent = 0_usize;
            loop {
                client.write_all(&[0; 64]).await.unwrap();
                sent += 64;
                assert!(sent < 1 << 20, "nothing holds the client back");
            }
        };
        let held_back = tokio::time::timeout(Duration::from_millis(200), endless).await;
        assert!(held_back.is_err());
    }

    #[tokio::test]
    async fn ends_with_a_side_that_fails() {
        let (mut client, upstream, carrying) = joined(64, PATIENT);
        drop(upstream);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        let _ = client.write_all(&[0; 64]).await;
        drop(client);
        let (ended, _) = carrying.await.unwrap();
        assert!(matches!(ended, Err(Broken::Upstream(_))), "{ended:?}");
    }
}
