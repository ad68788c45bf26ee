//! Names that are known without asking: the system's hosts file, and `localhost`.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use arc_swap::ArcSwap;

use crate::runtime::resolver::{AddressRecord, Answer};

/// Longest hosts file that is read, in bytes; the rest is ignored.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Lower-case names with their addresses, in the order of the file, as of the last look at it.
pub(super) struct Hosts {
    path: PathBuf,
    names: ArcSwap<Names>,
}

type Names = AHashMap<String, Vec<IpAddr>>;

impl Hosts {
    /// Reads the file. One that cannot be read knows no names and is told of in the log.
    pub(super) fn read(path: &Path) -> Self {
        let hosts = Self {
            path: path.to_owned(),
            names: ArcSwap::default(),
        };
        hosts.read_again();
        hosts
    }

    /// Takes what the file holds now.
    pub(super) fn read_again(&self) {
        let path = &self.path;
        let mut text = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
        if let Err(error) = read {
            tracing::warn!(path = %path.display(), %error, "cannot read the hosts file");
        }
        let names = parse(&String::from_utf8_lossy(&text));
        self.names.store(Arc::new(names));
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The addresses of a lower-case name: those of version 4 if it has any, because an upstream that listens on one
    /// address of the machine usually means that one.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let names = self.names.load();
        let all = names.get(name)?;
        let v4: Vec<IpAddr> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
        Some(if v4.is_empty() { all.clone() } else { v4 })
    }

    pub(super) fn answer(&self, name: &str) -> Option<Answer> {
        let mut addresses = self.addresses(name)?;
        addresses.sort_unstable();
        let records = addresses.into_iter().map(|address| AddressRecord {
            address,
            service: None,
        });
        Some(Answer::Addresses(records.collect()))
    }
}

/// Lines of `ADDRESS NAME...`; `#` begins a comment. Lines that are nothing of the kind are skipped, as everywhere.
fn parse(text: &str) -> Names {
    let mut names = Names::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        for name in words {
            let name = name.strip_suffix('.').unwrap_or(name);
            let addresses = names.entry(name.to_ascii_lowercase()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    // Works without any file, and is never asked of a name server (RFC 6761 §6.3).
    names
        .entry("localhost".to_owned())
        .or_insert_with(|| vec![Ipv4Addr::LOCALHOST.into()]);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_hosts_files_hold() {
        let text = "# comment\n127.0.0.1 Localhost here # there\n::1 localhost six\n\nnonsense line\n192.0.2.1\there here.";
        let hosts = Hosts {
            path: PathBuf::new(),
            names: ArcSwap::from_pointee(parse(text)),
        };
        let cases: [(&str, Option<&[&str]>); 5] = [
            ("localhost", Some(&["127.0.0.1"])),
            ("here", Some(&["127.0.0.1", "192.0.2.1"])),
            ("six", Some(&["::1"])),
            ("there", None),
            ("line", None),
        ];
        for (name, expected) in cases {
            let found = hosts
                .addresses(name)
                .map(|addresses| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>());
            let expected =
                expected.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(found, expected, "{name}");
        }
        assert!(parse("").contains_key("localhost"));
    }
}
