//! Idle keep-alive connections: opens them, makes one request on each, and leaves them open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use boring::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a response head and small body at most.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// Connections that are open as long as this lives.
pub(crate) struct IdleConnections {
    _plain: Vec<TcpStream>,
    _tls: Vec<SslStream<TcpStream>>,
}

/// Opens `count` connections, each with one answered request.
///
/// # Errors
/// When a connection or its request fails.
pub(crate) fn open(address: SocketAddr, tls: bool, count: usize) -> Result<IdleConnections> {
    let mut connections = IdleConnections {
        _plain: Vec::new(),
        _tls: Vec::new(),
    };
    let connector = if tls { Some(connector()?) } else { None };
    for number in 0..count {
        let mut stream = TcpStream::connect_timeout(&address, REQUEST_TIMEOUT)
            .with_context(|| format!("cannot open connection {number}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        match &connector {
            None => {
                request(&mut stream)?;
                connections._plain.push(stream);
            }
            Some(connector) => {
                let mut stream = connector
                    .connect("localhost", stream)
                    .map_err(|error| anyhow::anyhow!("handshake {number} failed: {error}"))?;
                request(&mut stream)?;
                connections._tls.push(stream);
            }
        }
    }
    Ok(connections)
}

fn connector() -> Result<SslConnector> {
    let mut builder = SslConnector::builder(SslMethod::tls())?;
    // The certificate is self-signed and new in each run.
    builder.set_verify(SslVerifyMode::NONE);
    Ok(builder.build())
}

fn request(stream: &mut (impl Read + Write)) -> Result<()> {
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            bail!("the connection was closed instead of kept");
        }
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if answer.len() > RESPONSE_BYTES_MAX {
            bail!("the answer is too long");
        }
        if is_complete(&answer) {
            break;
        }
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// Whether the head and as many body bytes as `Content-Length` says are there.
fn is_complete(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    answer.len() >= end + 4 + length
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let cases: [(&[u8], bool); 4] = [
            (b"HTTP/1.1 200 OK\r\nContent-Le", false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", true),
            (b"HTTP/1.1 204 No Content\r\n\r\n", true),
        ];
        for (answer, expected) in cases {
            assert_eq!(is_complete(answer), expected);
        }
    }
}
