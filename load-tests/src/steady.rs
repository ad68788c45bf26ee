//! Requests at a fixed rate, whatever becomes of the earlier ones, and how many of them were lost.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Longest that a client waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// A load on one address. Times are those of the requests' due moments, so that waiting for a free client counts.
pub(crate) struct Steady {
    /// In tables.
    pub(crate) name: &'static str,
    to: SocketAddr,
    /// Requests in a second.
    rate: u64,
    /// Threads that send; more requests than this cannot wait at the same time.
    clients: usize,
    /// A new connection for each request; otherwise each client keeps one.
    fresh: bool,
    /// Answers that hold this text are marked.
    mark: Option<String>,
    start: Instant,
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    slowest_us: AtomicU64,
    /// What was wrong, and how often.
    lost: Mutex<BTreeMap<String, u64>>,
    /// When marked answers came, since the start.
    marked: Mutex<Vec<Duration>>,
}

impl Steady {
    /// `clients` send over connections that they keep.
    pub(crate) fn new(name: &'static str, to: SocketAddr, rate: u64, clients: usize) -> Self {
        Self {
            name,
            to,
            rate,
            clients,
            fresh: false,
            mark: None,
            start: Instant::now(),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
            lost: Mutex::default(),
            marked: Mutex::default(),
        }
    }

    /// A new connection for each request.
    pub(crate) fn afresh(self) -> Self {
        Self {
            fresh: true,
            ..self
        }
    }

    /// Marks answers that hold this text.
    pub(crate) fn marking(self, text: String) -> Self {
        Self {
            mark: Some(text),
            ..self
        }
    }

    /// The time since the load began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// When marked answers came.
    pub(crate) fn marked(&self) -> Vec<Duration> {
        self.marked
            .lock()
            .map(|marked| marked.clone())
            .unwrap_or_default()
    }

    /// Requests that were answered well.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// The slowest good answer.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_us.load(Ordering::SeqCst))
    }

    /// What was wrong with the others.
    pub(crate) fn lost(&self) -> BTreeMap<String, u64> {
        self.lost
            .lock()
            .map(|lost| lost.clone())
            .unwrap_or_default()
    }

    fn run(&self) {
        let mut connection = None;
        loop {
            let number = self.sent.fetch_add(1, Ordering::SeqCst);
            let due = Duration::from_micros(number * 1_000_000 / self.rate);
            loop {
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                let left = due.saturating_sub(self.start.elapsed());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(Duration::from_millis(100)));
            }
            if self.fresh {
                connection = None;
            }
            match ask(&mut connection, self.to) {
                Ok(answer) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    let took = self.start.elapsed().saturating_sub(due).as_micros();
                    let took = u64::try_from(took).unwrap_or(u64::MAX);
                    self.slowest_us.fetch_max(took, Ordering::SeqCst);
                    if self.mark.as_ref().is_some_and(|mark| answer.contains(mark))
                        && let Ok(mut marked) = self.marked.lock()
                    {
                        marked.push(self.start.elapsed());
                    }
                }
                Err(error) => {
                    connection = None;
                    if let Ok(mut lost) = self.lost.lock() {
                        *lost.entry(format!("{error:#}")).or_default() += 1;
                    }
                }
            }
        }
    }
}

/// Runs all loads while `conduct` does its work.
///
/// # Errors
/// Those of `conduct`.
pub(crate) fn during<T>(loads: &[Steady], conduct: impl FnOnce() -> Result<T>) -> Result<T> {
    std::thread::scope(|scope| {
        for load in loads {
            for _ in 0..load.clients {
                scope.spawn(|| load.run());
            }
        }
        let outcome = conduct();
        for load in loads {
            load.stop.store(true, Ordering::SeqCst);
        }
        outcome
    })
}

/// Sends one request and gives its answer, which must be 200.
///
/// # Errors
/// Says what came instead.
pub(crate) fn ask(connection: &mut Option<TcpStream>, to: SocketAddr) -> Result<String> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            connection.insert(stream)
        }
    };
    stream
        .write_all(b"GET /steady HTTP/1.1\r\nHost: load.test\r\n\r\n")
        .context("writing")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).context("reading")?;
        ensure!(length > 0, "closed without an answer");
        answer.extend_from_slice(piece.get(..length).unwrap_or_default());
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
        let wanted: usize = head
            .lines()
            .find_map(|line| {
                let line = line.to_ascii_lowercase();
                line.strip_prefix("content-length:")?.trim().parse().ok()
            })
            .context("an answer without a length")?;
        if body.len() >= wanted {
            return Ok(text.into_owned());
        }
    }
}
