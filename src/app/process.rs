//! What the operating system knows of this process: its limits, its pid file, its service manager.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Makes the folder of an instance, closed to others: it holds keys and credentials.
pub(crate) fn make_prefix(prefix: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if !prefix.is_dir() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(prefix)
            .with_context(|| {
                format!(
                    "{}: the folder of the instance cannot be made",
                    prefix.display()
                )
            })?;
    }
    Ok(())
}

/// Keeps a second instance out of a prefix. Released when dropped, or by the kernel when the process ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a prefix.
    ///
    /// With `wait` another holder is waited for: the predecessor of an upgrade ends on its own.
    pub(crate) fn take(prefix: &Path, wait: bool) -> anyhow::Result<Self> {
        let path = prefix.join("instance.lock");
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("{}: cannot be opened", path.display()))?;
        if wait {
            file.lock()
                .with_context(|| format!("{}: cannot be locked", path.display()))?;
        } else {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => bail!(
                    "{}: another instance runs with this prefix, stop it or choose another with '--prefix'",
                    prefix.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error)
                        .with_context(|| format!("{}: cannot be locked", path.display()));
                }
            }
        }
        Ok(Self { _file: file })
    }
}

/// The file that names the process of an instance, for service managers and people.
pub(crate) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the pid of this process.
    pub(crate) fn write(prefix: &Path) -> anyhow::Result<Self> {
        let path = prefix.join("sallyport.pid");
        let written = prefix.join(format!("sallyport.pid.{}", std::process::id()));
        // Renamed into place: whoever reads it finds a whole number.
        let write = || {
            let mut file = File::create(&written)?;
            writeln!(file, "{}", std::process::id())?;
            std::fs::rename(&written, &path)
        };
        write().with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A successor has written its own by now.
        let ours = std::fs::read_to_string(&self.path)
            .is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Raises the limit on open files to what the system allows, and returns it. Each connection is an open file.
#[allow(
    unsafe_code,
    reason = "the standard library has no call for resource limits"
)]
pub(crate) fn raise_open_files() -> std::io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls take a pointer to a live, initialised `rlimit` and do not keep it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Tells systemd, when it asked to be told.
pub(crate) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_instance_to_a_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), false).unwrap();
        let refused = Lock::take(folder.path(), false).err().unwrap().to_string();
        assert!(
            refused.contains("another instance runs with this prefix"),
            "{refused}"
        );
        drop(first);
        Lock::take(folder.path(), false).unwrap();
    }

    #[test]
    fn a_successor_s_pid_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sallyport.pid");
        let file = PidFile::write(folder.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap().trim(),
            std::process::id().to_string()
        );
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
        drop(PidFile::write(folder.path()).unwrap());
        assert!(!path.exists());
    }
}
