//! Looking at the first bytes of a connection without taking them.
//!
//! What is looked at stays in the kernel, so whoever comes next (TLS, Pingora, the copying loop) reads the connection
//! from its first byte and needs no stream type that can go back.

use std::future::poll_fn;
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::engine::buffers::Buffer;

/// After this many looks without a result, [`SLOW_PAUSE`] comes before each: whoever sends single bytes makes every look
/// longer than the one before.
const QUICK_LOOKS: u32 = 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(20);

/// Why nothing was recognised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unseen {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// After so many bytes.
    #[error("the connection ended after {0} bytes")]
    Ended(usize),
    #[error("more than {0} bytes")]
    TooLong(usize),
    #[error("not complete within {0:?}")]
    Late(Duration),
}

/// Shows `judge` everything that has arrived, again each time there is more, until it gives something. It sees at most
/// `bytes_max` bytes, which is at most a [`Buffer`]'s length.
pub(crate) async fn look<T>(
    stream: &TcpStream,
    bytes_max: usize,
    limit: Duration,
    mut judge: impl FnMut(&[u8]) -> Option<T>,
) -> Result<T, Unseen> {
    let looking = async {
        let mut looks = Looks {
            stream,
            seen: 0,
            count: 0,
            second: None,
        };
        loop {
            let judged = looks.next(bytes_max, &mut judge).await?;
            if let Some(found) = judged {
                return Ok(found);
            }
            if looks.seen >= bytes_max {
                return Err(Unseen::TooLong(bytes_max));
            }
        }
    };
    match tokio::time::timeout(limit, looking).await {
        Ok(looked) => looked,
        Err(_) => Err(Unseen::Late(limit)),
    }
}

struct Looks<'a> {
    stream: &'a TcpStream,
    seen: usize,
    count: u32,
    /// A second handle, made when the first look was not enough: only through it can be told that there is nothing new.
    second: Option<StdStream>,
}

impl Looks<'_> {
    /// Waits for bytes that were not there before.
    async fn next<T>(
        &mut self,
        bytes_max: usize,
        judge: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Unseen> {
        self.count = self.count.saturating_add(1);
        if self.seen == 0 {
            return self.first(bytes_max, judge).await;
        }
        if self.count > QUICK_LOOKS {
            tokio::time::sleep(SLOW_PAUSE).await;
        }
        let second = match self.second.take() {
            Some(second) => second,
            None => StdStream::from(self.stream.as_fd().try_clone_to_owned()?),
        };
        loop {
            let ready = self.stream.ready(Interest::READABLE).await?;
            let seen = self.seen;
            let looked = self.stream.try_io(Interest::READABLE, || {
                let mut buffer = Buffer::take();
                let space = space(&mut buffer, bytes_max);
                let length = second.peek(space)?;
                if length <= seen {
                    // Said so that readiness is cleared: the kernel tells of the next byte, not of these again.
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok((length, judge(space.get(..length).unwrap_or_default())))
            });
            match looked {
                Ok((length, judged)) => {
                    self.seen = length;
                    self.second = Some(second);
                    return Ok(judged);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready.is_read_closed() {
                        return Err(Unseen::Ended(seen));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn first<T>(
        &mut self,
        bytes_max: usize,
        judge: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Unseen> {
        let (length, judged) = poll_fn(|cx| {
            let mut buffer = Buffer::take();
            let mut space = ReadBuf::new(space(&mut buffer, bytes_max));
            self.stream.poll_peek(cx, &mut space).map_ok(|length| {
                let judged = match length {
                    0 => None,
                    _ => judge(space.filled()),
                };
                (length, judged)
            })
        })
        .await?;
        if length == 0 {
            return Err(Unseen::Ended(0));
        }
        self.seen = length;
        Ok(judged)
    }
}

fn space(buffer: &mut Buffer, bytes_max: usize) -> &mut [u8] {
    let length = buffer.len().min(bytes_max);
    buffer.get_mut(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    fn ten(bytes: &[u8]) -> Option<Vec<u8>> {
        (bytes.len() >= 10).then(|| bytes.to_vec())
    }

    #[tokio::test]
    async fn sees_pieces_and_takes_nothing() {
        let (mut client, mut server) = pair().await;
        client.set_nodelay(true).unwrap();
        let sending = tokio::spawn(async move {
            for byte in 0..10 {
                client.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            client
        });
        let mut looks = 0;
        let seen = look(&server, 100, Duration::from_secs(20), |bytes| {
            looks += 1;
            ten(bytes)
        });
        assert_eq!(seen.await.unwrap(), (0..10).collect::<Vec<_>>());
        // Once for each new byte at most: it waits, it does not spin.
        assert!((1..=10).contains(&looks), "{looks}");
        let mut taken = [0; 10];
        server.read_exact(&mut taken).await.unwrap();
        assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        drop(sending.await.unwrap());
    }

    #[tokio::test]
    async fn gives_up() {
        let patient = Duration::from_secs(20);
        let soon = Duration::from_millis(50);
        let (mut client, server) = pair().await;
        client.write_all(b"12345").await.unwrap();
        let late = look(&server, 100, soon, ten).await;
        assert!(matches!(late, Err(Unseen::Late(_))));

        let (mut client, server) = pair().await;
        client.write_all(b"12345").await.unwrap();
        let long = look(&server, 5, patient, ten).await;
        assert!(matches!(long, Err(Unseen::TooLong(5))));
        client.shutdown().await.unwrap();
        let ended = look(&server, 100, patient, ten).await;
        assert!(matches!(ended, Err(Unseen::Ended(5))));

        let (client, server) = pair().await;
        drop(client);
        assert!(matches!(
            look(&server, 100, patient, ten).await,
            Err(Unseen::Ended(0))
        ));
    }
}
