//! Loopback sockets: free ports, waiting for a listener, one checked request.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Running;

/// How long a program may take until it listens: 10,000 routes in a debug build included.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one checked request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer of a checked request.
const RESPONSE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A loopback address that was free a moment ago.
///
/// nginx and HAProxy cannot say which port they got for port 0; the gap between this probe and
/// their bind is harmless on a machine that is busy measuring.
///
/// # Errors
/// When the system has no free port.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    listener.local_addr().context("cannot read a local address")
}

/// Several such addresses, all different.
///
/// # Errors
/// As [`free_address`].
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    // Held together, so that they differ.
    let mut listeners = Vec::with_capacity(N);
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for address in &mut addresses {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
        *address = listener
            .local_addr()
            .context("cannot read a local address")?;
        listeners.push(listener);
    }
    Ok(addresses)
}

/// Waits until a small request is answered, or the child has ended.
///
/// # Errors
/// When the child ends or the deadline passes; then it says what came last.
pub(crate) fn await_answer(address: SocketAddr, child: &mut Running) -> Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let body = crate::origin::SMALL_BYTES;
        let Err(error) = check_answer(address, "localhost", "/small", &[], body) else {
            return Ok(());
        };
        child.check_alive()?;
        if Instant::now() > deadline {
            return Err(error.context(format!("no answer after {START_DEADLINE:?}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until something accepts at `address`, or the child has ended.
///
/// # Errors
/// When the child ends or the deadline passes.
pub(crate) fn await_listener(address: SocketAddr, child: &mut Running) -> Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        child.check_alive()?;
        if Instant::now() > deadline {
            bail!("nothing listens on {address} after {START_DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends JSON with POST; the answer must say that it succeeded.
///
/// # Errors
/// When it says otherwise.
pub(crate) fn post(address: SocketAddr, path: &str, json: &str) -> Result<()> {
    let mut stream =
        TcpStream::connect_timeout(&address, REQUEST_TIMEOUT).context("cannot connect")?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{json}",
        json.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    if !answer.starts_with("HTTP/1.1 2") {
        bail!("POST {path}: {answer}");
    }
    Ok(())
}

/// Sends one plain request with `Connection: close` and checks status and body length.
///
/// # Errors
/// When the answer is not 200 or its body has another length.
pub(crate) fn check_answer(
    address: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(String, String)],
    body_bytes: usize,
) -> Result<()> {
    let mut stream =
        TcpStream::connect_timeout(&address, REQUEST_TIMEOUT).context("cannot connect")?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut answer)?;
    let head_end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer has no end of headers")?;
    let head = String::from_utf8_lossy(answer.get(..head_end).unwrap_or_default());
    let status_line = head.lines().next().unwrap_or_default();
    if !status_line.starts_with("HTTP/1.1 200") {
        bail!("{path} on host {host} was answered with {status_line:?}");
    }
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let length = answer.len() - head_end - 4;
    if !chunked && length != body_bytes {
        bail!("{path} has a body of {length} bytes, expected {body_bytes}");
    }
    Ok(())
}
