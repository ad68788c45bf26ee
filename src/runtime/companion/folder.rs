//! A companion's folder: its files and its socket, removed when it is dropped.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

/// Longest path of a socket that systems take, in bytes.
const SOCKET_PATH_MAX: usize = 103;

/// See the module.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a folder that nobody else may look into, below the system's folder for temporary files.
    pub(super) fn make(files: &[(String, Bytes)]) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("sallyport-{}", Uuid::new_v4().simple()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self { path };
        if folder.socket().as_os_str().len() > SOCKET_PATH_MAX {
            let message = format!(
                "{} is too long for a socket, TMPDIR must name a shorter path",
                folder.socket().display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        for (name, bytes) in files {
            folder.write(name, bytes)?;
        }
        Ok(folder)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let inside = Path::new(name);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !inside.components().all(plain) {
            let message = format!("'{name}' leads out of the program's folder");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let path = self.path.join(inside);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(bytes)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn socket(&self) -> Arc<Path> {
        self.path.join(".socket").into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a program's folder cannot be removed");
        }
    }
}
