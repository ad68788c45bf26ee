//! What follows a switch of protocols: bytes both ways, until one side is done or both are silent.
//!
//! Pingora's own tunnel can take a request's queued end for the tunnel's when the upstream answers at once, and close it;
//! this one knows nothing of requests.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::exchange::codec::UpstreamStream;
use crate::engine::io::Io;

/// How many bytes went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) to_upstream: u64,
    pub(crate) to_client: u64,
}

/// Carries bytes until both sides have ended, one of them fails, or nothing has moved for `idle`. `early` is what the
/// upstream sent behind its head.
pub(crate) async fn run(
    client: &Io,
    mut upstream: UpstreamStream,
    mut early: Bytes,
    idle: Duration,
) -> io::Result<Carried> {
    let early_length = early.len() as u64;
    client.write_all_shared(&mut early).await?;
    let clock = Clock {
        start: Instant::now(),
        last_move_ms: AtomicU64::new(0),
    };
    let mut client = Client {
        io: client,
        clock: &clock,
    };
    let silent = async {
        loop {
            let quiet = clock.quiet();
            if quiet >= idle {
                return;
            }
            tokio::time::sleep(idle - quiet).await;
        }
    };
    tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {
            let (to_upstream, to_client) = carried?;
            Ok(Carried { to_upstream, to_client: to_client + early_length })
        }
        () = silent => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// When bytes last moved, in either direction: everything passes the client's side.
struct Clock {
    start: Instant,
    last_move_ms: AtomicU64,
}

impl Clock {
    fn moved(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_move_ms.store(now, Ordering::Relaxed);
    }

    fn quiet(&self) -> Duration {
        let last = Duration::from_millis(self.last_move_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

/// The client's stream, read and written past the session that owns it.
struct Client<'a> {
    io: &'a Io,
    clock: &'a Clock,
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.io.poll_read_shared(cx, buf);
        if read.is_ready() {
            self.clock.moved();
        }
        read
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.io.poll_write_shared(cx, data);
        if written.is_ready() {
            self.clock.moved();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_flush_shared(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_shutdown_shared(cx)
    }
}
