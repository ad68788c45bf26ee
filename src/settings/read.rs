//! Brings the file, the environment and the defaults together, key by key.
//!
//! The order of force: `SALLYPORT_*`, then `KONG_*` (only with `SALLYPORT_KONG_ENV=on`), then the file, then the default.

use std::collections::BTreeMap;

use super::document::Entry;
use super::foreign::{self, Verdict};
use super::key::Key;
use super::suggest::nearest;
use super::value::{Raw, Value};
use super::{Settings, all_keys};
use crate::base::{diagnostic::Diagnostic, source_ref::SourceRef};

/// Our own environment variables begin with this.
pub const ENVIRONMENT_PREFIX: &str = "SALLYPORT_";
/// Kong's environment variables begin with this.
pub const KONG_ENVIRONMENT_PREFIX: &str = "KONG_";
/// The variable that lets Kong's variables count.
pub const KONG_ENVIRONMENT_SWITCH: &str = "SALLYPORT_KONG_ENV";

/// Hands each key its value and keeps what is wrong.
pub(super) struct Reader {
    values: BTreeMap<&'static str, (Raw, SourceRef)>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Reader {
    /// Sorts what was written by key.
    ///
    /// `environment` holds every variable of the process; those with other prefixes are skipped.
    pub(super) fn new(
        entries: Vec<Entry>,
        environment: &[(String, String)],
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let mut reader = Self {
            values: BTreeMap::new(),
            diagnostics,
        };
        let mut seen: BTreeMap<&'static str, SourceRef> = BTreeMap::new();
        for entry in entries {
            let Some(key) = reader.known(&entry.key, &entry.value, &entry.at) else {
                continue;
            };
            if let Some(first) = seen.insert(key.name, entry.at.clone()) {
                reader.diagnostics.push(
                    Diagnostic::error(
                        "repeated-key",
                        entry.at,
                        format!("says the same as '{}'", first.subject),
                    )
                    .with_hint("keep one of the two names"),
                );
                continue;
            }
            reader.values.insert(key.name, (entry.value, entry.at));
        }
        let (kong, own): (Vec<_>, Vec<_>) = environment
            .iter()
            .filter(|(name, _)| {
                name.starts_with(ENVIRONMENT_PREFIX) || name.starts_with(KONG_ENVIRONMENT_PREFIX)
            })
            .partition(|(name, _)| name.starts_with(KONG_ENVIRONMENT_PREFIX));
        if reader.kong_environment_counts(&own) {
            for (name, value) in kong {
                reader.environment(name, KONG_ENVIRONMENT_PREFIX, value);
            }
        }
        for (name, value) in own {
            if name != KONG_ENVIRONMENT_SWITCH {
                reader.environment(name, ENVIRONMENT_PREFIX, value);
            }
        }
        reader
    }

    fn kong_environment_counts(&mut self, own: &[&(String, String)]) -> bool {
        let Some((name, value)) = own.iter().find(|(name, _)| name == KONG_ENVIRONMENT_SWITCH)
        else {
            return false;
        };
        match Option::<bool>::parse(&Raw::Text(value.clone())) {
            Ok(switch) => switch.unwrap_or(false),
            Err(what) => {
                let at = SourceRef::document(format!("environment variable {name}"));
                self.diagnostics.push(invalid(at, &what, &bool::allowed()));
                false
            }
        }
    }

    fn environment(&mut self, name: &str, prefix: &str, value: &str) {
        // An empty variable is what a container file writes for "not set".
        if value.is_empty() {
            return;
        }
        let key = name
            .strip_prefix(prefix)
            .unwrap_or_default()
            .to_ascii_lowercase();
        let at = SourceRef::document(format!("environment variable {name}")).about(key.as_str());
        let raw = Raw::Text(value.to_owned());
        if prefix == KONG_ENVIRONMENT_PREFIX && !is_known(&key) {
            self.diagnostics.push(
                Diagnostic::warning("unknown-key", at, "is no setting of this gateway")
                    .with_hint("it is not read"),
            );
            return;
        }
        if let Some(key) = self.known(&key, &raw, &at) {
            self.values.insert(key.name, (raw, at));
        }
    }

    /// The key of that name, after telling what is wrong with names that are not ours.
    fn known(&mut self, name: &str, value: &Raw, at: &SourceRef) -> Option<&'static Key> {
        if let Some(key) = all_keys().find(|key| key.is_called(name)) {
            return Some(key);
        }
        match foreign::judge(name, value) {
            Some(Verdict::Harmless) => {}
            Some(Verdict::Refused(why)) => {
                self.diagnostics.push(
                    Diagnostic::error(
                        "unsupported-key",
                        at.clone(),
                        "is not supported by this version",
                    )
                    .with_hint(why),
                );
            }
            None => {
                let names =
                    all_keys().flat_map(|key| std::iter::once(&key.name).chain(key.aliases));
                let names = names.copied().chain(foreign::names());
                let finding =
                    Diagnostic::error("unknown-key", at.clone(), format!("unknown key '{name}'"));
                self.diagnostics.push(match nearest(name, names) {
                    Some(near) => finding.with_hint(format!("did you mean '{near}'?")),
                    None => finding.with_hint("'sallyport man' lists the known ones"),
                });
            }
        }
        None
    }

    /// The typed value of a key, or nothing after a diagnostic.
    pub(super) fn value<T: Value>(&mut self, name: &'static str) -> Option<T> {
        let key = all_keys().find(|key| key.name == name);
        let default = || {
            (
                Raw::Text(key.map_or("", |key| key.default).to_owned()),
                SourceRef::document("default").about(name),
            )
        };
        let (raw, at) = self.values.get(name).cloned().unwrap_or_else(default);
        match T::parse(&raw) {
            Ok(value) => Some(value),
            Err(what) => {
                self.diagnostics.push(invalid(at, &what, &T::allowed()));
                None
            }
        }
    }

    /// Where the keys that somebody set were set.
    pub(super) fn origins(&self) -> BTreeMap<&'static str, SourceRef> {
        self.values
            .iter()
            .map(|(name, (_, at))| (*name, at.clone()))
            .collect()
    }
}

fn is_known(name: &str) -> bool {
    all_keys().any(|key| key.is_called(name)) || foreign::names().any(|known| known == name)
}

fn invalid(at: SourceRef, what: &str, allowed: &str) -> Diagnostic {
    Diagnostic::error("invalid-value", at, what).with_hint(format!("allowed: {allowed}"))
}

impl Settings {
    /// Where a key was set; its name alone when it has its default.
    pub fn origin(&self, key: &'static str) -> SourceRef {
        self.origins
            .get(key)
            .cloned()
            .unwrap_or_else(|| SourceRef::subject(key))
    }

    /// Whether somebody set the key.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }
}
