//! Bundles that lie in the file system: as folders or zips, named by the settings or on the command line.
//!
//! Owns reading them and putting them into an entity set as if they had been imported and deployed. What is wrong with
//! one is told with file and line; everything at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::documents::unix_millis;
use super::failure::Refused;
use crate::base::diagnostic::{Diagnostic, has_errors};
use crate::base::source_ref::SourceRef;
use crate::control::ControlPlane;
use crate::control::everything::Everything;
use crate::dialects::apigee::archive;
use crate::dialects::apigee::bundle::is_proxy_name;
use crate::dialects::apigee::compile::{self, Options};
use crate::dialects::apigee::entities::{BundleKind, Stamp};
use crate::dialects::apigee::entity_set::{EntitySet, Files};
use crate::dialects::apigee::lifecycle::{self, BundleName, Order};
use crate::dialects::apigee::xml::{Document, Limits};
use crate::runtime::companion;
use crate::settings::Settings;
use crate::settings::apigee::ApigeeSettings;

/// Most files of a folder.
const FILES_MAX: usize = archive::ENTRIES_MAX;
/// Most bytes of all files of a folder.
const BYTES_MAX: u64 = archive::UNPACKED_BYTES_MAX;
/// How deep folders may be nested.
const DEPTH_MAX: usize = 16;

/// Who is named as the maker of what the settings demand.
const MAKER: &str = "sallyport";

/// A bundle as it was found.
pub(crate) struct Found {
    pub(crate) kind: BundleKind,
    pub(crate) name: String,
    pub(crate) files: Files,
}

/// Is this a bundle, and not a declarative file?
pub(crate) fn is_bundle(path: &Path) -> bool {
    path.is_dir() || path.extension().is_some_and(|extension| extension == "zip")
}

/// Reads a folder or a zip. The folder may be the bundle's own (`apiproxy`) or the one that holds it.
pub(crate) fn read(path: &Path) -> Result<Found, Diagnostic> {
    let at = SourceRef::document(path.display().to_string());
    let refused = |reason: String| Diagnostic::error("bundle", at.clone(), reason);
    let kinds = [BundleKind::Proxy, BundleKind::SharedFlow];
    let (kind, files) = if path.is_dir() {
        let root = kinds.into_iter().find_map(|kind| {
            let inside = path.join(kind.folder());
            if inside.is_dir() {
                return Some((kind, inside));
            }
            let is_itself = path.file_name().is_some_and(|name| name == kind.folder());
            is_itself.then(|| (kind, path.to_owned()))
        });
        let Some((kind, root)) = root else {
            return Err(refused(
                "is no bundle, it holds neither 'apiproxy' nor 'sharedflowbundle'".to_owned(),
            ));
        };
        let mut walk = Walk::default();
        walk.folder(&root, "", 0).map_err(&refused)?;
        (kind, walk.files)
    } else {
        let bytes =
            std::fs::read(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
        let unpacked = archive::unpack(BundleKind::Proxy, &bytes)
            .map(|files| (BundleKind::Proxy, files))
            .or_else(|error| {
                let shared = archive::unpack(BundleKind::SharedFlow, &bytes);
                shared
                    .map(|files| (BundleKind::SharedFlow, files))
                    .map_err(|_| error)
            });
        unpacked.map_err(|error| refused(error.to_string()))?
    };
    let name = name(path, &files);
    match is_proxy_name(&name) {
        true => Ok(Found { kind, name, files }),
        false => Err(refused(format!(
            "has the name '{name}', allowed are letters, digits, '_' and '-'"
        ))),
    }
}

/// What the base configuration says, else what the folder or file is called.
fn name(path: &Path, files: &Files) -> String {
    let base = files
        .iter()
        .find(|(path, _)| !path.contains('/') && path.ends_with(".xml"));
    let written = base.and_then(|(file, bytes)| {
        let document = Document::parse_bytes(&**file, bytes, Limits::CONFIGURATION).ok()?;
        document
            .root()
            .attribute("name")
            .map(|name| name.trim().to_owned())
    });
    written.filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let own = path.file_stem().unwrap_or_default();
        let inside = [BundleKind::Proxy, BundleKind::SharedFlow]
            .iter()
            .any(|kind| own == kind.folder());
        let holder = path.parent().and_then(Path::file_name);
        let name = if inside { holder.unwrap_or(own) } else { own };
        name.to_string_lossy().into_owned()
    })
}

#[derive(Default)]
struct Walk {
    files: Files,
    bytes: u64,
}

impl Walk {
    fn folder(&mut self, folder: &Path, below: &str, depth: usize) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        if depth > DEPTH_MAX {
            return Err(format!("folders are nested more than {DEPTH_MAX} deep"));
        }
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = format!("{below}{}", entry.file_name().to_string_lossy());
            if archive::is_litter(&path) {
                continue;
            }
            // Links are followed: whoever may write into the folder may write what they lead to.
            if entry.path().is_dir() {
                self.folder(&entry.path(), &format!("{path}/"), depth + 1)?;
                continue;
            }
            let content = std::fs::read(entry.path()).map_err(failed)?;
            self.bytes += content.len() as u64;
            if self.files.len() >= FILES_MAX || self.bytes > BYTES_MAX {
                return Err(format!(
                    "holds more than {FILES_MAX} files or {BYTES_MAX} bytes"
                ));
            }
            self.files.insert(path.into(), content.into());
        }
        Ok(())
    }
}

/// Makes what the settings say exists from the start.
fn found(set: &mut EntitySet, settings: &ApigeeSettings, stamp: &Stamp) {
    let organization = &settings.apigee_organization.0;
    lifecycle::found(set, organization, &settings.apigee_environments.0, stamp);
}

/// An entity set with these bundles deployed to every environment of the settings, shared flows first.
pub(crate) fn deployed(
    settings: &Settings,
    paths: &[PathBuf],
    options: &Options,
) -> Result<(EntitySet, Vec<Diagnostic>), Refused> {
    let options = &Options {
        node_missing: settings.node_missing(companion::is_there),
        ..options.clone()
    };
    let mut wrong = Vec::new();
    let mut bundles = Vec::new();
    for path in paths {
        match read(path) {
            Ok(found) => bundles.push((path, found)),
            Err(error) => wrong.push(error),
        }
    }
    bundles.sort_by_key(|(_, found)| found.kind == BundleKind::Proxy);
    let stamp = Stamp::new(unix_millis(SystemTime::now()), MAKER);
    let mut set = EntitySet::new();
    let settings = &settings.apigee;
    found(&mut set, settings, &stamp);
    for (path, bundle) in &bundles {
        wrong.extend(deploy(&mut set, settings, path, bundle, &stamp));
    }
    // Judged together, because bundles call each other.
    for environment in &settings.apigee_environments.0 {
        for kind in [BundleKind::SharedFlow, BundleKind::Proxy] {
            let place = [
                settings.apigee_organization.0.as_str(),
                environment,
                kind.word(),
            ];
            for one in set.deployed(&place) {
                let path = bundles
                    .iter()
                    .find(|(_, found)| found.name == one.name && found.kind == kind);
                let folder = path
                    .map(|(path, _)| path.display().to_string())
                    .unwrap_or_default();
                let findings = compile::check_deployment(&set, &one, options);
                wrong.extend(findings.into_iter().map(|finding| below(&folder, finding)));
            }
        }
    }
    // Findings of a bundle are the same in every environment.
    let mut unique = Vec::new();
    for finding in wrong {
        if !unique.contains(&finding) {
            unique.push(finding);
        }
    }
    match has_errors(&unique) {
        true => Err(Refused(unique)),
        false => Ok((set, unique)),
    }
}

/// The same finding with the bundle's path before the file's.
fn below(folder: &str, mut finding: Diagnostic) -> Diagnostic {
    let file = &finding.at.document;
    finding.at.document = match file.is_empty() {
        true => folder.into(),
        false => format!("{}/{file}", folder.trim_end_matches('/')).into(),
    };
    finding
}

fn deploy(
    set: &mut EntitySet,
    settings: &ApigeeSettings,
    path: &Path,
    bundle: &Found,
    stamp: &Stamp,
) -> Vec<Diagnostic> {
    let name = BundleName {
        organization: settings.apigee_organization.0.clone(),
        kind: bundle.kind,
        name: bundle.name.clone(),
    };
    let mut wrong = Vec::new();
    let refused = |error: &dyn std::fmt::Display| {
        let at = SourceRef::document(path.display().to_string());
        Diagnostic::error("bundle", at, error.to_string())
    };
    let revision = match lifecycle::import(set, &name, &bundle.files, stamp) {
        Ok((revision, _)) => revision,
        Err(error) => return vec![refused(&error)],
    };
    for environment in &settings.apigee_environments.0 {
        let order = Order {
            environment: environment.clone(),
            revision,
            replaces: true,
            delay_seconds: 0,
            base_path: "/".to_owned(),
        };
        if let Err(error) = lifecycle::deploy(set, &name, &order, stamp) {
            wrong.push(refused(&error));
        }
    }
    wrong
}

/// Replaces all entities of this dialect by those of the bundles that the settings name.
pub(crate) fn load(
    control: &ControlPlane<Everything>,
    settings: &Settings,
    options: &Options,
) -> anyhow::Result<()> {
    let (bundles, findings) = deployed(settings, &settings.apigee.apigee_bundles.0, options)?;
    for finding in &findings {
        tracing::warn!(code = finding.code, "{finding}");
    }
    let bundles = Arc::new(bundles);
    let written = control.write_apigee_blocking(move |set, _| {
        let changes = EntitySet::difference(set, &bundles);
        *set = (*bundles).clone();
        Ok(((), changes))
    });
    written
        .map(|_| ())
        .map_err(|error| anyhow::anyhow!("apigee_bundles: {error}"))
}
