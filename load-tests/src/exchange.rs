//! One connection, one exchange after the other, each timed: what `wrk` would tell of it is something else, because it adds
//! the requests that it could have made while one of them took long.
//!
//! Runs as a process of its own on the generator's core. Start at [`exchange`].

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::generator::{Report, output_of, percentile};
use crate::process::{self, LOAD_CORE};

/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// What to ask for, and whom.
#[derive(Args)]
pub(crate) struct ExchangeArguments {
    #[arg(long)]
    pub(crate) address: SocketAddr,
    #[arg(long)]
    pub(crate) host: String,
    #[arg(long)]
    pub(crate) path: String,
    /// A new connection for each exchange.
    #[arg(long)]
    pub(crate) close: bool,
    #[arg(long)]
    pub(crate) seconds: u64,
}

/// Has a process do it, and reads what it says.
///
/// # Errors
/// When it fails.
pub(crate) fn exchange(arguments: &ExchangeArguments) -> Result<Report> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut command = process::pinned(LOAD_CORE, &own);
    command
        .arg("exchange")
        .arg(format!("--address={}", arguments.address))
        .arg(format!("--host={}", arguments.host))
        .arg(format!("--path={}", arguments.path))
        .arg(format!("--seconds={}", arguments.seconds))
        .args(arguments.close.then_some("--close"));
    let said: Value = serde_json::from_str(&output_of(command, "load-tests exchange")?)?;
    if let Some(error) = said["error"].as_str() {
        eprintln!("    {}: {error}", arguments.address);
    }
    let requests = said["requests"].as_u64().context("no number of requests")?;
    Ok(Report {
        requests,
        requests_per_second: requests as f64 / arguments.seconds as f64,
        p50_us: said["p50_us"].as_f64(),
        p99_us: said["p99_us"].as_f64(),
        failed: said["failed"].as_u64().context("no number of failures")?,
    })
}

/// The process itself.
pub(crate) fn run(arguments: &ExchangeArguments) -> Result<()> {
    let end = match arguments.close {
        true => "Connection: close\r\n\r\n",
        false => "\r\n",
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n{end}",
        arguments.path, arguments.host
    );
    let mut buffer = vec![0; PIECE];
    let mut connection = None;
    let mut times = Vec::new();
    let mut failed = 0_u64;
    let mut first_error = None;
    let duration = Duration::from_secs(arguments.seconds);
    let start = Instant::now();
    while start.elapsed() < duration {
        let began = Instant::now();
        match one(&mut connection, arguments.address, &request, &mut buffer) {
            Ok(()) => times.push(began.elapsed().as_secs_f64() * 1e6),
            Err(error) => {
                connection = None;
                failed += 1;
                first_error.get_or_insert(format!(
                    "after {} exchanges and {:.3} s: {error:#}",
                    times.len(),
                    start.elapsed().as_secs_f64()
                ));
            }
        }
        if arguments.close {
            connection = None;
        }
    }
    times.sort_by(f64::total_cmp);
    let said = json!({
        "requests": times.len(),
        "failed": failed,
        "error": first_error,
        "p50_us": percentile(&times, 0.50),
        "p99_us": percentile(&times, 0.99),
    });
    println!("{said}");
    Ok(())
}

/// One exchange; the answer must be 200 and tell its length.
fn one(
    connection: &mut Option<TcpStream>,
    address: SocketAddr,
    request: &str,
    buffer: &mut [u8],
) -> Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            connection.insert(stream)
        }
    };
    stream.write_all(request.as_bytes()).context("writing")?;
    let mut head = Vec::new();
    let (mut left, closes, mut more) = loop {
        let length = stream.read(buffer).context("reading")?;
        ensure!(length > 0, "closed without an answer");
        head.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(head.get(..end).unwrap_or_default());
            let (length, closes) = announced(&text)?;
            break (length, closes, head.len() - end - 4);
        }
    };
    loop {
        ensure!(more <= left, "more than was announced");
        left -= more;
        if left == 0 {
            break;
        }
        more = stream.read(buffer).context("reading")?;
        ensure!(more > 0, "{left} bytes are missing");
    }
    if closes {
        *connection = None;
    }
    Ok(())
}

/// The length of the body that this head announces, and whether it is the last one of its connection.
fn announced(head: &str) -> Result<(usize, bool)> {
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim())
    };
    let length = field("content-length").context("an answer without a length")?;
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok((length.parse()?, closes))
}

#[cfg(test)]
mod tests {
    use super::announced;

    #[test]
    fn heads_are_read() {
        for (head, expected) in [
            (
                "HTTP/1.1 200 OK\r\nA: 1\r\ncontent-Length: 12",
                Some((12, false)),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close",
                Some((0, true)),
            ),
            ("HTTP/1.1 200 OK\r\nA: 1", None),
            ("HTTP/1.1 503 No\r\nContent-Length: 1", None),
        ] {
            assert_eq!(announced(head).ok(), expected, "{head}");
        }
    }
}
