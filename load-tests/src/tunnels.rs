//! Idle WebSocket tunnels: an origin that accepts them, and clients that open them and then say nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::origin::SMALL_BYTES;

/// How long one handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a handshake at most, either way.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most tunnels of a measurement.
pub(crate) const TUNNELS_MAX: usize = 10_000;
/// Descriptors that a proxy may need for something else.
const OTHER_DESCRIPTORS: u64 = 1_000;
/// After so many connections the origin lets go of those that were closed.
const SWEPT_AFTER: usize = 25;
/// The example of RFC 6455, 1.3, and what has to answer it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// As many tunnels as fit: each takes two descriptors in a proxy, and two in this program.
pub(crate) fn most(descriptors: u64) -> usize {
    let fitting = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
    usize::try_from(fitting).map_or(TUNNELS_MAX, |fitting| fitting.min(TUNNELS_MAX))
}

/// An origin that agrees to every WebSocket handshake and keeps the connection; anything else gets the small body.
///
/// It lives as long as the program.
///
/// # Errors
/// When it cannot listen.
pub(crate) fn start_origin() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let (mut open, mut accepted) = (Vec::new(), 0_usize);
        for stream in listener.incoming().flatten() {
            // A handshake that fails shows on the other side, where it is counted.
            if let Ok(Some(stream)) = answer(stream) {
                open.push(stream);
            }
            accepted += 1;
            // Those of the last contestant are over, and hold descriptors.
            if accepted % SWEPT_AFTER == 0 {
                open.retain(is_open);
            }
        }
    });
    Ok(address)
}

/// The connection, if it has become a tunnel.
fn answer(mut stream: TcpStream) -> std::io::Result<Option<TcpStream>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let head = read_head(&mut stream)?.to_ascii_lowercase();
    if head.contains("upgrade: websocket") {
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        )?;
        return Ok(Some(stream));
    }
    let body = "s".repeat(SMALL_BYTES);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {SMALL_BYTES}\r\n\r\n{body}"
    )?;
    Ok(None)
}

fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let _ = stream.set_nonblocking(true);
    let closed = matches!(stream.peek(&mut byte), Ok(0));
    let _ = stream.set_nonblocking(false);
    !closed
}

/// Opens `count` tunnels; they are open as long as the answer lives.
///
/// # Errors
/// When a connection or its handshake fails.
pub(crate) fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|number| open_one(address).with_context(|| format!("tunnel {number}")))
        .collect()
}

fn open_one(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )?;
    let head = read_head(&mut stream)?;
    if !head.starts_with("HTTP/1.1 101") {
        bail!("the handshake was refused: {head}");
    }
    Ok(stream)
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        if count == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_fit_into_the_descriptors() {
        assert_eq!(
            [most(100), most(20_000), most(65_536)],
            [0, 9_500, TUNNELS_MAX]
        );
    }

    #[test]
    fn the_origin_agrees_to_handshakes_and_answers_the_rest() -> Result<()> {
        let address = start_origin()?;
        assert!(open(address, 3)?.iter().all(is_open));
        crate::net::check_answer(address, "localhost", "/small", &[], SMALL_BYTES)
    }
}
