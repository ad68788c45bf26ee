//! The access log: one line for each request, written by a thread of its own.
//!
//! Requests never wait for a disk: lines go through a bounded queue, and lines that find it full are counted and lost.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use crate::model::serving::AccessLogFormat;
use crate::runtime::exchange::Exchange;
use crate::runtime::session::Session;

/// Lines that wait for the writer.
const QUEUE_LINES_MAX: usize = 65_536;
/// Lines are on disk at most this long after their request.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// The writing end, shared by all workers.
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    lost: AtomicU64,
    reopen: Arc<AtomicBool>,
}

impl AccessLog {
    /// Opens the target and starts the writer. The thread ends when the log is dropped and all lines are written.
    pub fn open(target: AccessLogTarget) -> io::Result<(Self, std::thread::JoinHandle<()>)> {
        let sink = open_sink(&target)?;
        let (lines, queue) = sync_channel(QUEUE_LINES_MAX);
        let reopen = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&reopen);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&queue, sink, &target, &asked))?;
        let log = Self {
            lines,
            lost: AtomicU64::new(0),
            reopen,
        };
        Ok((log, writer))
    }

    /// Opens the file anew before the next line: log rotation.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Lines lost so far because the writer could not keep up.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Queues the line of an exchange that has ended.
    pub(crate) fn write(&self, exchange: &Exchange) {
        let mut line = Vec::with_capacity(256);
        match exchange.snapshot.serving.plan.access_log {
            AccessLogFormat::Combined => put_combined(exchange, &mut line),
            AccessLogFormat::Entry => exchange.snapshot.renderer.log_entry(exchange, &mut line),
        }
        self.queue(line);
    }

    /// Queues the line of a stream that has ended.
    pub(crate) fn write_session(&self, session: &Session) {
        let mut line = Vec::with_capacity(256);
        match session.serving.plan.access_log {
            AccessLogFormat::Combined => put_basic(session, &mut line),
            AccessLogFormat::Entry => session.renderer.session_entry(session, &mut line),
        }
        self.queue(line);
    }

    fn queue(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn open_sink(target: &AccessLogTarget) -> io::Result<BufWriter<Box<dyn Write + Send>>> {
    let sink: Box<dyn Write + Send> = match target {
        AccessLogTarget::Stdout => Box::new(io::stdout()),
        AccessLogTarget::Stderr => Box::new(io::stderr()),
        AccessLogTarget::File(path) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file: File = OpenOptions::new().create(true).append(true).open(path)?;
            Box::new(file)
        }
    };
    Ok(BufWriter::with_capacity(64 * 1024, sink))
}

fn write_lines(
    queue: &Receiver<Vec<u8>>,
    mut sink: BufWriter<Box<dyn Write + Send>>,
    target: &AccessLogTarget,
    reopen: &AtomicBool,
) {
    let mut failing = false;
    loop {
        if reopen.swap(false, Ordering::Relaxed) {
            let _ = sink.flush();
            match open_sink(target) {
                Ok(opened) => sink = opened,
                Err(error) => tracing::error!(%error, "cannot reopen the access log"),
            }
        }
        let result = match queue.recv_timeout(FLUSH_AFTER) {
            Ok(line) => sink.write_all(&line),
            Err(RecvTimeoutError::Timeout) => sink.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = sink.flush();
                return;
            }
        };
        // Said once when it begins to fail, not once a line.
        match result {
            Err(error) if !failing => {
                tracing::error!(%error, "cannot write the access log");
                failing = true;
            }
            Err(_) => {}
            Ok(()) => failing = false,
        }
    }
}

/// nginx's combined form, with the request id at the end.
fn put_combined(exchange: &Exchange, line: &mut Vec<u8>) {
    let request = &exchange.request;
    let version = match request.version() {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    };
    let user = exchange
        .identity
        .principal
        .as_ref()
        .and_then(|principal| principal.plan.username.as_deref())
        .unwrap_or("-");
    // Writing to a vector cannot fail.
    let _ = write!(line, "{} - ", exchange.client_address);
    put_escaped(line, user.as_bytes());
    let now = httpdate::HttpDate::from(SystemTime::now());
    let _ = write!(line, " [{now}] \"{} ", request.method());
    put_escaped(line, exchange.target());
    let _ = write!(
        line,
        " {version}\" {} {} \"",
        exchange.status, exchange.response_bytes
    );
    let field = |name| request.fields().get(name).unwrap_or(b"-");
    put_escaped(line, field(&http::header::REFERER));
    line.extend_from_slice(b"\" \"");
    put_escaped(line, field(&http::header::USER_AGENT));
    let _ = write!(line, "\" request_id: \"{}\"", exchange.request_id);
}

/// nginx's `basic` form for streams: address, time, protocol, status, bytes sent and received, seconds.
fn put_basic(session: &Session, line: &mut Vec<u8>) {
    let now = httpdate::HttpDate::from(SystemTime::now());
    let ended = session.ended.unwrap_or(session.started);
    let lasted = ended.saturating_duration_since(session.started);
    // Writing to a vector cannot fail.
    let _ = write!(
        line,
        "{} [{now}] TCP {} {} {} {}.{:03}",
        session.client_address,
        session.status.as_u16(),
        session.sent,
        session.received,
        lasted.as_secs(),
        lasted.subsec_millis(),
    );
}

/// Bytes that could break a line or a quote are written as `\xHH`, as nginx does.
fn put_escaped(line: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            _ => line.push(*byte),
        }
    }
}
