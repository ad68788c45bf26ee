//! Log files that are put aside: when, under which name, and how many are kept.
//!
//! A file that is put aside gets a number behind its name, one more than the highest there is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Files of one folder that are looked at.
const LISTED_MAX: usize = 100_000;

/// When a file is put aside.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    /// Before it would grow longer, in bytes. None: whatever its length.
    pub(crate) bytes_max: Option<u64>,
    /// When it is so old. None: however old.
    pub(crate) age_max: Option<Duration>,
    /// Files that are kept besides the one that is written; 0: all.
    pub(crate) retained: usize,
    /// The first time that it is opened.
    pub(crate) at_start: bool,
    /// It has been opened.
    pub(crate) begun: AtomicBool,
}

impl Rotation {
    /// Is it time, before so many further bytes are written? Empty files stay.
    pub(crate) fn is_due(
        &self,
        bytes: u64,
        since: SystemTime,
        further: usize,
        now: SystemTime,
    ) -> bool {
        let long = |most: u64| bytes.saturating_add(further as u64) > most;
        let old = |most: Duration| now.duration_since(since).is_ok_and(|age| age >= most);
        bytes > 0 && (self.bytes_max.is_some_and(long) || self.age_max.is_some_and(old))
    }
}

/// Makes the file's folder, and puts aside what an earlier process left if that is wanted.
pub(crate) fn prepare(path: &Path, rotation: &Rotation) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let first = !rotation.begun.swap(true, Ordering::Relaxed);
    let left = || std::fs::metadata(path).is_ok_and(|about| about.len() > 0);
    if first && rotation.at_start && left() {
        put_aside(path, rotation.retained)?;
    }
    Ok(())
}

/// Renames the file, and removes the oldest of those that were.
pub(crate) fn put_aside(path: &Path, retained: usize) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|it| it.to_str()))
    else {
        return Ok(());
    };
    let mut numbers: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(LISTED_MAX) {
        let other = entry?.file_name();
        let number = other.to_str().and_then(|other| other.strip_prefix(name));
        let number = number.and_then(|rest| rest.strip_prefix('.')?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let numbered = |number: u64| -> PathBuf { folder.join(format!("{name}.{number}")) };
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    std::fs::rename(path, numbered(next))?;
    numbers.push(next);
    if retained > 0 {
        let surplus = numbers.len().saturating_sub(retained);
        for number in numbers.into_iter().take(surplus) {
            std::fs::remove_file(numbered(number))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use std::sync::Arc;

    use super::super::log_writer::LogWriter;
    use super::*;

    #[test]
    fn length_and_age_decide() {
        let now = SystemTime::now();
        let before = now - Duration::from_secs(60);
        for (bytes_max, age_max, bytes, expected) in [
            (None, None, 1_000, false),
            (Some(100), None, 90, true),
            (Some(100), None, 50, false),
            (None, Some(60), 1, true),
            (None, Some(61), 1, false),
            (Some(1), Some(1), 0, false),
        ] {
            let rotation = Rotation {
                bytes_max,
                age_max: age_max.map(Duration::from_secs),
                ..Rotation::default()
            };
            assert_eq!(rotation.is_due(bytes, before, 20, now), expected);
        }
    }

    #[test]
    fn files_are_put_aside_and_the_oldest_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("new/folder/a.log").into();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "left\n").unwrap();
        let rotation = Arc::new(Rotation {
            bytes_max: Some(4),
            retained: 2,
            at_start: true,
            ..Rotation::default()
        });
        for text in ["1\n", "2\n", "3\n", "4\n", "5\n"] {
            // A writer of its own for each: lines that wait together are written together.
            let writer = LogWriter::start().unwrap();
            writer.append_rotating(&path, &rotation, text.into());
        }
        let read = |name: &str| std::fs::read_to_string(path.with_file_name(name)).ok();
        assert_eq!(read("a.log").as_deref(), Some("5\n"));
        assert_eq!(read("a.log.1"), None, "two are kept");
        assert_eq!(read("a.log.2").as_deref(), Some("1\n2\n"));
        assert_eq!(read("a.log.3").as_deref(), Some("3\n4\n"));
    }
}
