//! One owner per prefix: an advisory lock on a file that the system releases when the owner dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;

/// Between two looks at a lock that its previous owner is about to release.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(super) struct PrefixLock {
    _file: File,
}

impl PrefixLock {
    /// Takes the lock at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] when another process holds it.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self::sign(file, path)?),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: path.display().to_string(),
                holder: holder(&mut file),
            }),
            Err(TryLockError::Error(source)) => Err(StoreError::File {
                path: path.display().to_string(),
                action: "lock it",
                source,
            }),
        }
    }

    /// Takes the lock as soon as its owner lets go, for at most `patience`. Blocks.
    pub(super) fn await_turn(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::take(path) {
                Err(StoreError::InUse { path, .. }) if Instant::now() >= deadline => {
                    return Err(StoreError::HandOverPending { path });
                }
                Err(StoreError::InUse { .. }) => std::thread::sleep(LOOK_EVERY),
                other => return other,
            }
        }
    }

    /// Leaves the owner's process id in the file, for the message to the next one.
    fn sign(mut file: File, path: &Path) -> Result<Self, StoreError> {
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|source| StoreError::File {
                path: path.display().to_string(),
                action: "write it",
                source,
            })?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|source| StoreError::File {
            path: PathBuf::from(path).display().to_string(),
            action: "open it",
            source,
        })
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => format!(" (pid {})", text.trim()),
        _ => String::new(),
    }
}
