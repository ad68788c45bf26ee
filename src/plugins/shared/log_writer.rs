//! Appending lines to files, off the request path: one bounded queue, one thread.
//!
//! A request never waits: when the queue is full the oldest lines are dropped and counted. What is queued when the last
//! user goes is still written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use ahash::AHashMap;
use parking_lot::{Condvar, Mutex};

use super::log_rotation::{self, Rotation};
use super::lost_lines;

/// Lines that wait at most.
const LINES_MAX: usize = 10_000;
/// Bytes that wait at most.
const BYTES_MAX: usize = 16 << 20;
/// Files kept open at most; beyond that all are closed and opened again when needed.
const OPEN_FILES_MAX: usize = 64;
/// Bytes of one write at most.
const WRITE_BYTES_MAX: usize = 256 << 10;
/// How long the last user waits until what is queued is written. A disk that hangs must not hold up anybody for longer.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The queue and its thread.
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Dropped since the last report.
    dropped: u64,
    closed: bool,
    /// The thread has written everything and gone.
    written: bool,
}

/// One line for one file.
struct Line {
    path: Arc<Path>,
    /// Open the file anew for this line, so that a renamed file is let go.
    reopen: bool,
    /// When the file is put aside for a new one.
    rotation: Option<Arc<Rotation>>,
    /// With its line end.
    text: Vec<u8>,
}

impl LogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system refuses a thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || own.write_until_closed())?;
        Ok(Self { shared })
    }

    /// Hands over a line with its line end.
    pub(crate) fn append(&self, path: &Arc<Path>, reopen: bool, text: Vec<u8>) {
        self.push(Line {
            path: path.clone(),
            reopen,
            rotation: None,
            text,
        });
    }

    /// Hands over a line with its line end for a file that is put aside as the rotation says. Folders are made.
    pub(crate) fn append_rotating(
        &self,
        path: &Arc<Path>,
        rotation: &Arc<Rotation>,
        text: Vec<u8>,
    ) {
        self.push(Line {
            path: path.clone(),
            reopen: false,
            rotation: Some(rotation.clone()),
            text,
        });
    }

    fn push(&self, line: Line) {
        self.shared.queue.lock().push(line);
        self.shared.arrived.notify_one();
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        self.shared.arrived.notify_one();
        let written = |queue: &mut Queue| !queue.written;
        self.shared
            .ended
            .wait_while_for(&mut queue, written, FLUSH_MAX);
    }
}

impl Queue {
    fn push(&mut self, line: Line) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            match self.lines.pop_front() {
                Some(oldest) => {
                    self.bytes -= oldest.text.len();
                    self.dropped += 1;
                }
                None => break,
            }
        }
    }
}

impl Shared {
    fn write_until_closed(&self) {
        let mut files = Files::default();
        loop {
            let (lines, dropped, closed) = {
                let mut queue = self.queue.lock();
                while queue.lines.is_empty() && queue.dropped == 0 && !queue.closed {
                    self.arrived.wait(&mut queue);
                }
                queue.bytes = 0;
                (
                    std::mem::take(&mut queue.lines),
                    std::mem::take(&mut queue.dropped),
                    queue.closed,
                )
            };
            if dropped > 0 {
                lost_lines::FILE.fetch_add(dropped, Ordering::Relaxed);
                tracing::warn!(dropped, "log lines come faster than they can be written");
            }
            if lines.is_empty() && closed {
                self.queue.lock().written = true;
                self.ended.notify_all();
                return;
            }
            files.write(lines);
        }
    }
}

#[derive(Default)]
struct Files {
    open: AHashMap<Arc<Path>, OpenFile>,
    /// Files that could not be written to, so that this is told once and not for every line.
    failing: AHashMap<Arc<Path>, u64>,
}

/// A file and what decides when it is put aside.
struct OpenFile {
    file: File,
    bytes: u64,
    since: SystemTime,
}

impl Files {
    fn write(&mut self, lines: VecDeque<Line>) {
        let mut lines = lines.into_iter().peekable();
        while let Some(line) = lines.next() {
            let mut text = line.text;
            let mut count = 1;
            // What follows for the same file goes into the same write.
            while text.len() < WRITE_BYTES_MAX
                && let Some(next) =
                    lines.next_if(|next| next.path == line.path && next.reopen == line.reopen)
            {
                text.extend_from_slice(&next.text);
                count += 1;
            }
            match self.append(&line.path, line.reopen, line.rotation.as_deref(), &text) {
                Ok(()) => {
                    if let Some(lost) = self.failing.remove(&line.path) {
                        let path = line.path.display();
                        tracing::warn!(%path, lost, "log file can be written to again");
                    }
                }
                Err(error) => {
                    self.open.remove(&line.path);
                    let lost = self.failing.entry(line.path.clone()).or_insert(0);
                    if *lost == 0 {
                        let path = line.path.display();
                        tracing::error!(%path, %error, "cannot write to log file, lines are lost");
                    }
                    *lost += count;
                    lost_lines::FILE.fetch_add(count, Ordering::Relaxed);
                }
            }
        }
    }

    fn append(
        &mut self,
        path: &Arc<Path>,
        reopen: bool,
        rotation: Option<&Rotation>,
        text: &[u8],
    ) -> std::io::Result<()> {
        if reopen {
            self.open.remove(path);
        }
        if self.open.len() >= OPEN_FILES_MAX {
            self.open.clear();
        }
        if self.failing.len() >= OPEN_FILES_MAX {
            self.failing.clear();
        }
        let mut known = match self.open.remove(path) {
            Some(known) => known,
            None => {
                if let Some(rotation) = rotation {
                    log_rotation::prepare(path, rotation)?;
                }
                OpenFile::open(path)?
            }
        };
        if let Some(rotation) = rotation
            && rotation.is_due(known.bytes, known.since, text.len(), SystemTime::now())
        {
            log_rotation::put_aside(path, rotation.retained)?;
            known = OpenFile::open(path)?;
        }
        known.file.write_all(text)?;
        known.bytes += text.len() as u64;
        self.open.insert(path.clone(), known);
        Ok(())
    }
}

impl OpenFile {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = open(path)?;
        let about = file.metadata()?;
        Ok(Self {
            bytes: about.len(),
            since: match about.len() {
                0 => SystemTime::now(),
                _ => about.created().or_else(|_| about.modified())?,
            },
            file,
        })
    }
}

/// Opens for appending, made with mode 0644 when there is none.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o644);
    }
    options.open(path)
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

    fn line(path: &Arc<Path>, text: &str) -> Line {
        Line {
            path: path.clone(),
            reopen: false,
            rotation: None,
            text: text.into(),
        }
    }

    #[test]
    fn writes_everything_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("a.log").into();
        let writer = LogWriter::start().unwrap();
        for number in 0..100 {
            writer.append(&path, false, format!("{number}\n").into_bytes());
        }
        drop(writer);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert!(text.ends_with("98\n99\n"));
    }

    #[test]
    fn reopens_and_survives_files_it_cannot_open() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("a.log").into();
        let moved = folder.path().join("b.log");
        let missing: Arc<Path> = folder.path().join("no/such/folder").into();
        let mut files = Files::default();
        files.write([line(&missing, "lost\n"), line(&path, "1\n")].into());
        std::fs::rename(&path, &moved).unwrap();
        files.write([line(&path, "2\n")].into());
        let mut third = line(&path, "3\n");
        third.reopen = true;
        files.write([third].into());
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "1\n2\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
        assert_eq!(files.failing.get(&missing), Some(&1));
    }

    #[test]
    fn drops_the_oldest() {
        let path: Arc<Path> = Path::new("x").into();
        let mut queue = Queue::default();
        for number in 0..LINES_MAX + 5 {
            queue.push(line(&path, &number.to_string()));
        }
        assert_eq!((queue.lines.len(), queue.dropped), (LINES_MAX, 5));
        assert_eq!(queue.lines.front().unwrap().text, b"5");
        queue.push(line(&path, &"x".repeat(BYTES_MAX)));
        assert_eq!(queue.lines.len(), 1);
    }
}
