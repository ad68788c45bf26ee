//! The PROXY header, versions 1 and 2: what a balancer in front says about the client, and what upstreams are told
//! (HAProxy's "The PROXY protocol", 2020).
//!
//! Owns the format and its limits. Whether a peer may be believed is decided by whoever accepts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::engine::buffers::Buffer;
use crate::engine::peek::{Unseen, look};
use crate::model::plan::ProxyHeaderVersion;

/// A header must be complete this long after the connection was accepted.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest header that is read, extensions included, in bytes.
const HEADER_BYTES_MAX: usize = 4096;

/// Longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// The addresses of the connection that a balancer accepted; none when it speaks for itself, for example in a health
/// check, or when the addresses are not IP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proxied {
    pub(crate) client: Option<SocketAddr>,
}

/// Why a connection that must begin with a header is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("PROXY header: {0}")]
    Malformed(&'static str),
    #[error("PROXY header: {0}")]
    Unseen(#[from] Unseen),
    #[error("PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Takes the header off the connection.
pub(crate) async fn receive(stream: &mut TcpStream) -> Result<Proxied, Refused> {
    let judge = |bytes: &[u8]| parse(bytes).transpose();
    let (proxied, mut length) = look(stream, HEADER_BYTES_MAX, HEADER_TIMEOUT, judge)
        .await?
        .map_err(Refused::Malformed)?;
    // All of it has been seen, so none of this waits.
    while length > 0 {
        let mut seen = Buffer::take();
        let part = length.min(seen.len());
        let part = seen.get_mut(..part).unwrap_or_default();
        length -= stream.read_exact(part).await?;
    }
    Ok(proxied)
}

/// Reads a header from the beginning of a connection, with its length. `Ok(None)`: so far it is one, but not complete.
fn parse(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, &'static str> {
    let begins = |start: &[u8]| {
        let common = start.len().min(bytes.len());
        start.get(..common) == bytes.get(..common)
    };
    if begins(SIGNATURE) {
        parse_version_2(bytes)
    } else if begins(LINE_START) {
        parse_version_1(bytes)
    } else {
        Err("the connection does not begin with one")
    }
}

fn parse_version_1(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, &'static str> {
    let line = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', line) else {
        return match line.len() {
            LINE_BYTES_MAX => Err("the line is longer than 107 bytes"),
            _ => Ok(None),
        };
    };
    const BAD: &str = "the line is not as version 1 demands";
    let text = line.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let text = std::str::from_utf8(text.ok_or(BAD)?).map_err(|_| BAD)?;
    let mut words = text.split(' ').skip(1);
    let client = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || -> Option<IpAddr> {
                let address: IpAddr = words.next()?.parse().ok()?;
                (address.is_ipv4() == (family == "TCP4")).then_some(address)
            };
            let (source, _destination) = (address().ok_or(BAD)?, address().ok_or(BAD)?);
            let mut port = || -> Option<u16> {
                let digits = words.next()?;
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                plain.then(|| digits.parse().ok()).flatten()
            };
            let (source_port, _destination_port) = (port().ok_or(BAD)?, port().ok_or(BAD)?);
            if words.next().is_some() {
                return Err(BAD);
            }
            Some(SocketAddr::new(source, source_port))
        }
        _ => return Err(BAD),
    };
    Ok(Some((Proxied { client }, end + 1)))
}

fn parse_version_2(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, &'static str> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_BYTES) else {
        return Ok(None);
    };
    let [.., version_command, family, high, low] = fixed else {
        return Ok(None);
    };
    if version_command >> 4 != 2 {
        return Err("unknown version");
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err("longer than 4096 bytes");
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let client = match (version_command & 15, family >> 4, family & 15) {
        // The balancer's own connection: addresses are to be ignored, whatever they are.
        (0, _, _) => None,
        (1, 0..=3, 0..=2) => client_of(*family, body)?,
        (1, _, _) => return Err("unknown address family"),
        _ => return Err("unknown command"),
    };
    Ok(Some((Proxied { client }, FIXED_BYTES + length)))
}

/// The client's address at the beginning of what follows the fixed part. Extensions behind the addresses are skipped.
fn client_of(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    const SHORT: &str = "the addresses are cut short";
    let port = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?))
    };
    let (address, port) = match family {
        0x11 => {
            body.get(..12).ok_or(SHORT)?;
            let bytes: [u8; 4] = body.get(..4).and_then(|b| b.try_into().ok()).ok_or(SHORT)?;
            (IpAddr::from(Ipv4Addr::from(bytes)), port(8))
        }
        0x21 => {
            body.get(..36).ok_or(SHORT)?;
            let bytes: [u8; 16] = body
                .get(..16)
                .and_then(|b| b.try_into().ok())
                .ok_or(SHORT)?;
            (IpAddr::from(Ipv6Addr::from(bytes)), port(32))
        }
        // Sockets of the file system, datagrams, and what the balancer itself does not know.
        _ => return Ok(None),
    };
    Ok(Some(SocketAddr::new(address, port.ok_or(SHORT)?)))
}

/// The header that tells an upstream who the client is and where it connected to.
pub(crate) fn render(
    version: ProxyHeaderVersion,
    client: SocketAddr,
    local: SocketAddr,
) -> Vec<u8> {
    let (source, destination) = (canonical(client), canonical(local));
    match version {
        ProxyHeaderVersion::V1 => render_version_1(source, destination),
        ProxyHeaderVersion::V2 => render_version_2(source, destination),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn render_version_1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (family, from, to) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ("TCP4", IpAddr::V4(from), IpAddr::V4(to)),
        (from, to) => ("TCP6", IpAddr::V6(mapped(from)), IpAddr::V6(mapped(to))),
    };
    let (source, destination) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
}

fn render_version_2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(0x21);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[0x11, 0, 12]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        (from, to) => {
            header.extend_from_slice(&[0x21, 0, 36]);
            header.extend_from_slice(&mapped(from).octets());
            header.extend_from_slice(&mapped(to).octets());
        }
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

/// One family must do for both addresses.
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
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

    use super::*;

    fn client(bytes: &[u8]) -> Option<SocketAddr> {
        let (proxied, length) = parse(bytes).unwrap().expect("complete");
        assert!(bytes[length..].is_empty() || bytes[length..] == *b"GET");
        // Nothing shorter is one, and nothing shorter is refused.
        for short in 1..length {
            assert_eq!(parse(&bytes[..short]), Ok(None), "{short}");
        }
        proxied.client
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn reads_version_1() {
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET",
                Some("192.0.2.1:56324"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
                Some("[2001:db8::1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(client(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn reads_version_2_and_skips_extensions() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
        let mut with_extensions = four.to_vec();
        with_extensions.extend([0x20, 0, 5, 1, 0, 0, 0, 0]);
        let mut six = [0; 36];
        six[15] = 1;
        six[33] = 9;
        let v4 = Some("192.0.2.1:56324".parse().unwrap());
        for (command, family, body, expected) in [
            (0x21, 0x11, four.to_vec(), v4),
            (0x21, 0x11, with_extensions, v4),
            (0x21, 0x21, six.to_vec(), Some("[::1]:9".parse().unwrap())),
            (0x20, 0x11, four.to_vec(), None),
            (0x20, 0x00, vec![], None),
            (0x21, 0x00, vec![1, 2, 3], None),
            (0x21, 0x31, vec![0; 216], None),
        ] {
            let bytes = version_2(command, family, &body);
            assert_eq!(client(&bytes), expected, "{command:x} {family:x}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(120));
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 9\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 70000\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            long.into_bytes(),
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x41, &[0; 12]),
            version_2(0x21, 0x11, &[0; 11]),
            version_2(0x21, 0x21, &[0; 35]),
            version_2(0x21, 0x11, &[0; HEADER_BYTES_MAX]),
        ] {
            assert!(
                parse(&bytes).is_err(),
                "{:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }

    #[test]
    fn what_is_rendered_can_be_read() {
        for (from, to) in [
            ("192.0.2.1:5", "192.0.2.2:6"),
            ("[2001:db8::1]:5", "[2001:db8::2]:6"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for version in [ProxyHeaderVersion::V1, ProxyHeaderVersion::V2] {
                assert_eq!(client(&render(version, from, to)), Some(from));
            }
        }
        let mixed = render(
            ProxyHeaderVersion::V1,
            "[::ffff:192.0.2.1]:5".parse().unwrap(),
            "[2001:db8::2]:6".parse().unwrap(),
        );
        assert_eq!(mixed, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 5 6\r\n");
    }
}
