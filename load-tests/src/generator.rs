//! The load generators `wrk` and `h2load`: how they are called and how their reports are read.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{self, LOAD_CORE};

/// What a generator saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Requests that were answered, well or badly.
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    /// Median response time, microseconds; absent if the generator does not tell.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Answers that were not 2xx, and requests that were not answered.
    pub(crate) failed: u64,
}

/// One call of `wrk`.
pub(crate) struct Wrk<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
}

impl Wrk<'_> {
    /// Runs `wrk` with one thread on the generator's core.
    ///
    /// # Errors
    /// When `wrk` is missing, fails or says something unreadable.
    pub(crate) fn run(&self) -> Result<Report> {
        let wrk = process::find_program("wrk", "wrk")?;
        let scheme = if self.tls { "https" } else { "http" };
        let mut command = process::pinned(LOAD_CORE, &wrk);
        command
            .args(["--threads", "1", "--latency"])
            .arg("--connections")
            .arg(self.connections.to_string())
            .arg("--duration")
            .arg(format!("{}s", self.seconds))
            .arg("--header")
            .arg(format!("Host: {}", self.host));
        for (name, value) in self.headers {
            command.arg("--header").arg(format!("{name}: {value}"));
        }
        command.arg(format!("{scheme}://{}{}", self.address, self.path));
        let output = output_of(command, "wrk")?;
        parse_wrk(&output).with_context(|| format!("cannot read the report of wrk:\n{output}"))
    }
}

/// Connections of [`h2load`], and streams on each.
const H2_CONNECTIONS: u32 = 16;
const H2_STREAMS: u32 = 16;

/// Runs `h2load` over TLS; its request log in `folder` gives the percentiles.
///
/// # Errors
/// As [`Wrk::run`].
pub(crate) fn h2load(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    seconds: u64,
    folder: &Path,
) -> Result<Report> {
    let h2load = process::find_program("h2load", "nghttp2-client")?;
    // Two may be loaded at once.
    let log = folder.join(format!("h2load-{}.log", address.port()));
    let _ = fs::remove_file(&log);
    let mut command = process::pinned(LOAD_CORE, &h2load);
    command
        .args(["--threads", "1"])
        .arg("--clients")
        .arg(H2_CONNECTIONS.to_string())
        .arg("--max-concurrent-streams")
        .arg(H2_STREAMS.to_string())
        .arg("--duration")
        .arg(seconds.to_string())
        .arg(format!("--log-file={}", log.display()));
    for (name, value) in headers {
        command.arg("--header").arg(format!("{name}: {value}"));
    }
    command.arg(format!("https://{address}{path}"));
    let output = output_of(command, "h2load")?;
    let mut report = parse_h2load(&output)
        .with_context(|| format!("cannot read the report of h2load:\n{output}"))?;
    let log = fs::read_to_string(&log).context("cannot read the log of h2load")?;
    // Columns: start (µs since the epoch), status, response time (µs).
    let mut times: Vec<f64> = log
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter_map(|field| field.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    report.p50_us = percentile(&times, 0.50);
    report.p99_us = percentile(&times, 0.99);
    Ok(report)
}

/// What a generator prints.
///
/// # Errors
/// When it cannot be run or fails.
pub(crate) fn output_of(mut command: Command, name: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {text}{error}", output.status);
    }
    Ok(text)
}

/// The value below which this share of the others lies.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied()
}

fn parse_wrk(output: &str) -> Result<Report> {
    let mut report = Report::default();
    let mut requests = None;
    for line in output.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", time] => report.p50_us = Some(microseconds(time)?),
            ["99%", time] => report.p99_us = Some(microseconds(time)?),
            [count, "requests", "in", ..] => requests = Some(count.parse()?),
            ["Requests/sec:", rate] => report.requests_per_second = rate.parse()?,
            ["Non-2xx", "or", "3xx", "responses:", count] => {
                report.failed += count.parse::<u64>()?;
            }
            ["Socket", "errors:", rest @ ..] => {
                for word in rest {
                    report.failed += word.trim_end_matches(',').parse::<u64>().unwrap_or(0);
                }
            }
            _ => {}
        }
    }
    report.requests = requests.context("no request count")?;
    Ok(report)
}

fn parse_h2load(output: &str) -> Result<Report> {
    let mut report = Report::default();
    let mut found = false;
    for line in output.lines() {
        if let Some(rest) = line.strip_prefix("requests: ") {
            found = true;
            report.failed = count_before(rest, "failed") + count_before(rest, "timeout");
        } else if let Some(rest) = line.strip_prefix("status codes: ") {
            let good = count_before(rest, "2xx");
            let bad: u64 = ["3xx", "4xx", "5xx"]
                .iter()
                .map(|class| count_before(rest, class))
                .sum();
            report.requests = good + bad;
            report.failed += bad;
        } else if let Some(rest) = line.strip_prefix("finished in ") {
            report.requests_per_second = rest
                .split(", ")
                .find_map(|part| part.strip_suffix(" req/s"))
                .context("no rate")?
                .parse()?;
        }
    }
    if !found {
        bail!("no request count");
    }
    Ok(report)
}

/// The number before `word` in a list such as `12 total, 3 failed`.
fn count_before(list: &str, word: &str) -> u64 {
    list.split(", ")
        .filter_map(|item| item.split_once(' '))
        .find(|(_, name)| *name == word)
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or(0)
}

/// `wrk`'s times: `812.00us`, `1.25ms`, `2.00s`, `1.10m`.
fn microseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("not a time: {text:?}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn wrk_reports_are_read() {
        let report = parse_wrk(
            "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 2 connections\n  Latency Distribution\n     50%  812.00us\n     99%    1.25ms\n  \
             5120 requests in 1.10s, 1.04MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 7\n\
             Requests/sec:   4654.28\nTransfer/sec:      0.95MB\n",
        )
        .unwrap();
        let expected = Report {
            requests: 5120,
            requests_per_second: 4654.28,
            p50_us: Some(812.0),
            p99_us: Some(1250.0),
            failed: 11,
        };
        assert_eq!(report, expected);
        assert!(parse_wrk("unable to connect").is_err());
    }

    #[test]
    fn h2load_reports_are_read() {
        let report = parse_h2load(
            "finished in 1.00s, 34567.00 req/s, 5.12MB/s\n\
             requests: 34700 total, 34800 started, 34567 done, 34560 succeeded, 7 failed, 0 errored, 2 timeout\n\
             status codes: 34560 2xx, 0 3xx, 3 4xx, 4 5xx\n",
        )
        .unwrap();
        assert_eq!(report.requests, 34567);
        assert_eq!(report.failed, 16);
        assert!((report.requests_per_second - 34567.0).abs() < 0.1);
    }
}
