//! The files of a `ScriptTarget`'s program: what lies below `resources/node`, with packed modules unpacked.
//!
//! Owns the rule of which file is where. Archives are as untrusted as bundles are, and have the same limits. Refuses to
//! know how the program is run.

use std::collections::BTreeMap;
use std::io::Cursor;

use zip::ZipArchive;

use super::archive::{ENTRIES_MAX, RATIO_MAX, check_path, is_litter};
use super::bundle::Files;
use crate::base::bounded::read_at_most;

/// Most bytes of all files.
pub const BYTES_MAX: usize = 32 << 20;
/// Where a bundle has them.
const FOLDER: &str = "resources/node/";
/// Tools pack modules into archives whose names begin so.
const MODULES: &str = "node_modules";

/// The files by path below the program's folder. Errors say which file is wrong.
pub fn collect(files: &Files) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut collected = Collected::default();
    for (path, bytes) in files {
        let Some(name) = path.strip_prefix(FOLDER) else {
            continue;
        };
        let packed = name.strip_suffix(".zip");
        match packed.filter(|name| name.starts_with(MODULES) && !name.contains('/')) {
            Some(stem) => collected
                .unpack(stem, bytes)
                .map_err(|reason| format!("{path}: {reason}"))?,
            None => collected.add(name.to_owned(), bytes.to_vec())?,
        }
    }
    Ok(collected.files)
}

#[derive(Default)]
struct Collected {
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Collected {
    fn add(&mut self, name: String, bytes: Vec<u8>) -> Result<(), String> {
        check_path(&name)?;
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > BYTES_MAX {
            return Err(format!(
                "the program's files are larger than {BYTES_MAX} bytes"
            ));
        }
        if self.files.len() >= ENTRIES_MAX {
            return Err(format!("the program has more than {ENTRIES_MAX} files"));
        }
        match self.files.insert(name.clone(), bytes) {
            None => Ok(()),
            Some(_) => Err(format!("'{name}' is there twice")),
        }
    }

    /// `node_modules.zip` holds the folder `node_modules`; `node_modules_X.zip` holds what belongs into it.
    fn unpack(&mut self, stem: &str, bytes: &[u8]) -> Result<(), String> {
        let broken = |error: &dyn std::fmt::Display| format!("cannot be unpacked: {error}");
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(&error))?;
        if archive.len() > ENTRIES_MAX {
            return Err(format!("has more than {ENTRIES_MAX} entries"));
        }
        let packed = bytes.len() as u64;
        let mut left = (BYTES_MAX as u64).min(packed.saturating_mul(RATIO_MAX));
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|error| broken(&error))?;
            let name = entry.name().map_err(|error| broken(&error))?.into_owned();
            let leaves = name.split('/').any(|part| part == "..")
                || name.starts_with('/')
                || name.contains(['\\', ':']);
            if entry.is_symlink() || leaves {
                return Err(format!("'{name}' leads out of the program's folder"));
            }
            if entry.is_dir() || is_litter(&name) {
                continue;
            }
            let inside = name.starts_with("node_modules/") && stem == MODULES;
            let path = match inside {
                true => name,
                false => format!("{MODULES}/{name}"),
            };
            let content = read_at_most(&mut entry, left)
                .map_err(|error| broken(&error))?
                .ok_or("unpacks to more than is allowed")?;
            left -= content.len() as u64;
            self.add(path, content)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

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

    fn collected(entries: &[(&str, &[u8])]) -> Result<Vec<String>, String> {
        let files: Files = entries
            .iter()
            .map(|(path, bytes)| ((*path).into(), (*bytes).into()))
            .collect();
        collect(&files).map(|files| files.into_keys().collect())
    }

    #[test]
    fn modules_are_unpacked_beside_the_program() {
        let all = zip(&[
            ("node_modules/a/index.js", b"a"),
            ("node_modules/.bin/a", b""),
        ]);
        let one = zip(&[("b/index.js", b"b")]);
        let found = collected(&[
            ("proxies/default.xml", b""),
            ("resources/node/server.js", b"x"),
            ("resources/node/lib/x.js", b"x"),
            ("resources/node/node_modules.zip", &all),
            ("resources/node/node_modules_b.zip", &one),
        ]);
        assert_eq!(
            found.unwrap(),
            [
                "lib/x.js",
                "node_modules/a/index.js",
                "node_modules/b/index.js",
                "server.js"
            ]
        );
    }

    #[test]
    fn hostile_archives_are_refused() {
        for name in ["../x", "/x", "a/../../x", "c:/x"] {
            let archive = zip(&[(name, b"x")]);
            let refused = collected(&[("resources/node/node_modules.zip", &archive)]);
            assert!(refused.is_err(), "{name}");
        }
        let bomb = zip(&[("a", &vec![0; BYTES_MAX + 1])]);
        assert!(collected(&[("resources/node/node_modules.zip", &bomb)]).is_err());
        let torn = bomb.get(..bomb.len() / 2).unwrap();
        assert!(collected(&[("resources/node/node_modules.zip", torn)]).is_err());
        let twice = zip(&[("node_modules/x.js", b"")]);
        let both: [(&str, &[u8]); 2] = [
            ("resources/node/node_modules.zip", &twice),
            ("resources/node/node_modules/x.js", b""),
        ];
        assert!(collected(&both).is_err());
    }
}
