//! Bundles as ZIP archives: safe reading, and writing what was read.
//!
//! An archive is untrusted: entries, sizes and the ratio between both are bounded, no path leaves the bundle's folder,
//! and sizes are counted while unpacking, because archives lie about them. Refuses to know what the files mean.

use std::io::{Cursor, Write};
use std::sync::Arc;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::entities::BundleKind;
use super::entity_set::Files;
use super::error::ApiError;
use crate::base::bounded::read_at_most;

/// Most entries of an archive, folders included.
pub const ENTRIES_MAX: usize = 5_000;
/// Most bytes of all files unpacked.
pub const UNPACKED_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of one file unpacked.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// Most bytes unpacked for each byte packed, beyond the first [`RATIO_FREE_BYTES`]. Text packs some 20 times.
pub const RATIO_MAX: u64 = 200;
/// Bytes that may be unpacked whatever the ratio.
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// Longest path of an entry, in bytes.
const PATH_BYTES_MAX: usize = 512;

/// The message for archives without a bundle; clients know it by heart.
const EMPTY: &str = "Bundle is invalid. Empty bundle.";

/// Unpacks a bundle: its files by path below the top folder. Files that no bundle is made of (hidden ones, those of
/// editors and of other systems) are left out.
///
/// # Errors
///
/// 400 for anything that is no sound bundle of this kind.
pub fn unpack(kind: BundleKind, bytes: &[u8]) -> Result<Files, ApiError> {
    let invalid = |what: String| {
        ApiError::new(
            400,
            "messaging.config.beans.InvalidBundle",
            format!("Bundle is invalid. {what}"),
        )
    };
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|error| invalid(format!("It is no ZIP archive: {error}")))?;
    if archive.len() > ENTRIES_MAX {
        return Err(invalid(format!("More than {ENTRIES_MAX} entries.")));
    }
    let packed = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let allowed = UNPACKED_BYTES_MAX.min(RATIO_FREE_BYTES.max(packed.saturating_mul(RATIO_MAX)));
    let mut left = allowed;
    let mut files = Files::new();
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| invalid(format!("Entry {} cannot be read: {error}.", index + 1)))?;
        let name = match entry.name() {
            Ok(name) => name.into_owned(),
            Err(error) => return Err(invalid(format!("Entry {}: {error}.", index + 1))),
        };
        if entry.is_symlink() {
            return Err(invalid(format!("'{name}' is a link.")));
        }
        let Some(path) = path_in_bundle(kind, &name).map_err(invalid)? else {
            continue;
        };
        if entry.is_dir() || path.is_empty() || path.ends_with('/') {
            continue;
        }
        let content = read_at_most(&mut entry, FILE_BYTES_MAX.min(left))
            .map_err(|error| invalid(format!("'{name}' cannot be unpacked: {error}.")))?
            .ok_or_else(|| {
                invalid(if left >= FILE_BYTES_MAX {
                    format!("'{name}' is larger than {FILE_BYTES_MAX} bytes.")
                } else {
                    format!("It unpacks to more than {allowed} bytes.")
                })
            })?;
        left -= content.len() as u64;
        let path: Arc<str> = path.into();
        if files.insert(Arc::clone(&path), content.into()).is_some() {
            return Err(invalid(format!("'{path}' is there twice.")));
        }
    }
    if files.is_empty() {
        return Err(ApiError::new(
            400,
            "messaging.config.beans.InvalidBundle",
            EMPTY,
        ));
    }
    Ok(files)
}

/// The path below the bundle's folder; none for what does not belong to a bundle.
fn path_in_bundle(kind: BundleKind, name: &str) -> Result<Option<String>, String> {
    if name.len() > PATH_BYTES_MAX {
        return Err(format!("A path is longer than {PATH_BYTES_MAX} bytes."));
    }
    // Some programs write the separators of their own system.
    let name = name.replace('\\', "/");
    let bad = |part: &str| part == ".." || part == ".";
    if name.starts_with('/')
        || name.contains(':')
        || name.chars().any(char::is_control)
        || name.split('/').any(bad)
    {
        return Err(format!("'{name}' leads out of the bundle."));
    }
    let Some((top, path)) = name.split_once('/') else {
        // A file beside the folder.
        return Ok(None);
    };
    if is_litter(&name) {
        return Ok(None);
    }
    if top != kind.folder() {
        return Ok(None);
    }
    check_path(path)?;
    Ok(Some(path.to_owned()))
}

/// Whether a file is left behind by an editor or system.
pub fn is_litter(path: &str) -> bool {
    path.split('/')
        .any(|part| (part.starts_with('.') && !part.is_empty()) || part == "__MACOSX")
        || path.ends_with('~')
}

/// Checks a path below the bundle's folder.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub fn check_path(path: &str) -> Result<(), String> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let empty = !trimmed.is_empty() && trimmed.split('/').any(str::is_empty);
    let leaves = trimmed.split('/').any(|part| part == ".." || part == ".");
    if empty || leaves || trimmed.len() > PATH_BYTES_MAX || trimmed.chars().any(char::is_control) {
        return Err(format!("'{path}' is no path of a file in a bundle."));
    }
    Ok(())
}

/// Packs the files of a revision.
///
/// # Errors
///
/// A failure: the files came through [`unpack`] and fit.
pub fn pack(kind: BundleKind, files: &Files) -> Result<Vec<u8>, ApiError> {
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::failure(format!("a bundle cannot be packed: {error}"))
    };
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (path, content) in files {
        writer
            .start_file(format!("{}/{path}", kind.folder()), options)
            .map_err(|error| failed(&error))?;
        writer.write_all(content).map_err(|error| failed(&error))?;
    }
    let packed = writer.finish().map_err(|error| failed(&error))?;
    Ok(packed.into_inner())
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

    fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn refusal(entries: &[(&str, &[u8])]) -> String {
        unpack(BundleKind::Proxy, &zip(entries))
            .unwrap_err()
            .message
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let entries: [(&str, &[u8]); 6] = [
            ("apiproxy/p.xml", b"<APIProxy name='p'/>"),
            ("apiproxy/resources/jsc/lib/a.js", b"x"),
            ("apiproxy/resources/java/b.jar", b"\xff\x00"),
            ("apiproxy/.DS_Store", b"litter"),
            ("__MACOSX/apiproxy/p.xml", b"litter"),
            ("README.md", b"beside"),
        ];
        let files = unpack(BundleKind::Proxy, &zip(&entries)).unwrap();
        let paths: Vec<&str> = files.keys().map(|path| &**path).collect();
        assert_eq!(
            paths,
            ["p.xml", "resources/java/b.jar", "resources/jsc/lib/a.js"]
        );
        let again = pack(BundleKind::Proxy, &files).unwrap();
        assert_eq!(unpack(BundleKind::Proxy, &again).unwrap(), files);
        let flow = unpack(BundleKind::SharedFlow, &again).unwrap_err();
        assert_eq!(flow.message, EMPTY);
    }

    #[test]
    fn hostile_archives_are_refused() {
        assert_eq!(refusal(&[("proxies/default.xml", b"<a/>")]), EMPTY);
        assert_eq!(refusal(&[]), EMPTY);
        for name in [
            "apiproxy/../../etc/passwd",
            "../apiproxy/x",
            "/apiproxy/x",
            "apiproxy\\..\\x",
            "c:/apiproxy/x",
        ] {
            let told = refusal(&[(name, b"x")]);
            assert!(told.contains("leads out of the bundle"), "{name}: {told}");
        }
        let bomb = vec![0_u8; 8 << 20];
        let told = refusal(&[("apiproxy/a", &bomb)]);
        assert!(told.contains("unpacks to more than"), "{told}");
        let not = unpack(BundleKind::Proxy, b"PK nothing").unwrap_err();
        assert_eq!(not.status, 400);
        assert!(not.message.contains("no ZIP archive"), "{not}");
    }

    #[test]
    fn torn_archives_are_refused_without_a_panic() {
        let whole = zip(&[("apiproxy/p.xml", b"<APIProxy name='p'/>")]);
        for length in 0..whole.len() {
            let _ = unpack(BundleKind::Proxy, &whole[..length]);
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _ = unpack(BundleKind::Proxy, &broken);
        }
    }
}
