//! Commands that judge or move configuration: `check`, `plan`, `config db_import` and `config db_export`.
//!
//! They need no running instance. The embedded store has one owner, though: when an instance runs, `db_import` hands the
//! file to it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::bundles;
use super::configuration;
use super::failure::{Answered, Refused, warn};
use super::files;
use super::instance::{self, Ask};
use crate::base::diagnostic::{Diagnostic, has_errors};
use crate::base::source_ref::SourceRef;
use crate::cli::Configured;
use crate::control::store::embedded::{EmbeddedStore, Ownership};
use crate::control::store::{Store, StoreError};
use crate::control::{ControlPlane, Everything};
use crate::dialects::apigee::compile::{Options as BundleOptions, compile as compile_bundles};
use crate::dialects::apigee::entity_set::EntitySet as ApigeeSet;
use crate::dialects::kong::compile::{Options, compile_all};
use crate::dialects::kong::declarative::{self, Document, Syntax, export_yaml, parse_text};
use crate::dialects::kong::entities::{EntityKind, RouterFlavor, WriteContext};
use crate::dialects::kong::entity_set::EntitySet;
use crate::dialects::kong::error::ApiError;
use crate::model::catalog::Catalog;
use crate::plugins;
use crate::settings::Settings;
use crate::settings::general::{Database, PluginSelection};

/// How long a running instance may take over an import.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);

/// What reading a declarative document depends on.
pub(crate) struct Reading {
    pub(crate) flavor: RouterFlavor,
    /// Is the gateway a service of the mesh, so that names of the mesh lead there?
    mesh: bool,
    pub(crate) catalog: Arc<Catalog>,
    /// How bundles are compiled.
    pub(crate) bundles: BundleOptions,
}

impl Reading {
    /// As these settings say. Errors name plugins that are asked for and that nobody has.
    pub(crate) fn of(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            mesh: settings.consul.consul_service.is_some(),
            flavor: RouterFlavor::from_name(settings.general.router_flavor.word())
                .unwrap_or_default(),
            catalog: Arc::new(catalog(settings)?),
            bundles: BundleOptions {
                tls_edge_compatible: settings.apigee.apigee_tls_edge_compatible,
                is_alone: false,
                node: settings.node().to_owned(),
                node_missing: None,
            },
        })
    }

    /// Hands `operation` what a write may know.
    pub(crate) fn write<T>(
        &self,
        now: SystemTime,
        operation: impl FnOnce(&mut WriteContext<'_>) -> T,
    ) -> T {
        let mut new_id = uuid::Uuid::new_v4;
        operation(&mut WriteContext {
            now_millis: unix_millis(now),
            flavor: self.flavor,
            catalog: &self.catalog,
            new_id: &mut new_id,
            already_transformed: false,
        })
    }

    /// What compiling depends on.
    pub(crate) fn options(&self) -> Options {
        Options {
            flavor: self.flavor,
            mesh: self.mesh,
        }
    }

    /// Makes the entities that a document describes, and the document's hash.
    pub(crate) fn load(
        &self,
        name: &str,
        text: &str,
        progress: declarative::Progress<'_>,
    ) -> Result<declarative::Loaded, Refused> {
        let document = read_document(name, text)?;
        self.write(SystemTime::now(), |context| {
            declarative::load(document, context, progress)
        })
        .map_err(|wrong| refused(name, text, &wrong))
    }
}

/// The plugins that may be used.
fn catalog(settings: &Settings) -> anyhow::Result<Catalog> {
    let selection = &settings.general.plugins;
    let all = plugins::table();
    let unknown: Vec<Diagnostic> = selection
        .names()
        .iter()
        .filter(|name| all.iter().all(|entry| entry.info.name != name.as_str()))
        .map(|name| {
            let names: Vec<_> = all.iter().map(|entry| entry.info.name).collect();
            Diagnostic::error(
                "unknown-plugin",
                settings.origin("plugins"),
                format!("'{name}' is no plugin of this program"),
            )
            .with_hint(format!("there are {}", names.join(", ")))
        })
        .collect();
    if !unknown.is_empty() {
        return Err(Refused(unknown).into());
    }
    Ok(match selection {
        PluginSelection::Bundled => plugins::catalog(),
        PluginSelection::Only(_) => Catalog::new(
            all.into_iter()
                .map(|entry| entry.info)
                .filter(|info| selection.includes(info.name)),
        ),
    })
}

/// Milliseconds since 1970.
pub(crate) fn unix_millis(now: SystemTime) -> i64 {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn read_document(name: &str, text: &str) -> Result<Document, Refused> {
    let syntax = Syntax::of_file_name(name).unwrap_or_else(|| Syntax::of_text(text));
    if let Err(wrong) = parse_text(text, syntax) {
        let mut at = SourceRef::document(name);
        if let Some(line) = wrong.line {
            at = at.at_line(line);
        }
        return Err(Refused(vec![Diagnostic::error(
            "syntax",
            at,
            wrong.message,
        )]));
    }
    Document::parse(text, syntax).map_err(|wrong| refused(name, text, &wrong))
}

fn refused(name: &str, text: &str, wrong: &declarative::DocumentError) -> Refused {
    let lines = declarative::Lines::of(text);
    let findings = wrong.findings().into_iter();
    Refused(
        findings
            .map(|finding| {
                let mut at = SourceRef::document(name);
                if let Some(line) = lines.find(&finding.path) {
                    at = at.at_line(line);
                }
                Diagnostic::error("declarative", at, finding.text)
            })
            .collect(),
    )
}

/// Reads a file that holds a declarative document.
pub(crate) fn read_file(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    if bundles::is_bundle(file) {
        bail!("{name}: is a bundle, allowed here are Kong's declarative files");
    }
    let bytes = std::fs::read(file).with_context(|| format!("{name}: cannot be read"))?;
    String::from_utf8(bytes)
        .ok()
        .with_context(|| format!("{name}: is not UTF-8 text"))
}

/// The declarative document that the settings name, with the name to tell it by.
pub(crate) fn configured_document(settings: &Settings) -> anyhow::Result<Option<(String, String)>> {
    if let Some(text) = &settings.general.declarative_config_string {
        return Ok(Some(("declarative_config_string".to_owned(), text.clone())));
    }
    match &settings.general.declarative_config {
        Some(file) => Ok(Some((file.display().to_string(), read_file(file)?))),
        None => Ok(None),
    }
}

/// `sallyport check`: tells everything that is wrong.
pub(crate) fn check(configured: &Configured, documents: &[PathBuf]) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    let reading = Reading::of(&settings)?;
    let mut wrong = Vec::new();
    let mut judge = |name: &str, text: anyhow::Result<String>| match text {
        Ok(text) => match reading.load(name, &text, &mut |_, _| {}) {
            Ok(loaded) => {
                let (_, findings) =
                    compile_all(&loaded.entities, &reading.catalog, &reading.options());
                wrong.extend(findings);
            }
            Err(Refused(findings)) => wrong.extend(findings),
        },
        Err(error) => wrong.push(Diagnostic::error(
            "unreadable",
            SourceRef::default(),
            format!("{error:#}"),
        )),
    };
    if settings.general.database == Database::Off && documents.is_empty() {
        match configured_document(&settings) {
            Ok(Some((name, text))) => judge(&name, Ok(text)),
            Ok(None) => {}
            Err(error) => judge("declarative_config", Err(error)),
        }
    }
    let (zips, texts): (Vec<PathBuf>, Vec<PathBuf>) = documents
        .iter()
        .cloned()
        .partition(|path| bundles::is_bundle(path));
    for document in &texts {
        judge(&document.display().to_string(), read_file(document));
    }
    let zips = bundles_of(&settings, documents, zips);
    match bundles::deployed(&settings, &zips, &reading.bundles) {
        Ok((_, findings)) => wrong.extend(findings),
        Err(Refused(findings)) => wrong.extend(findings),
    }
    if let Err(Refused(findings)) = files::read(&settings, files::Missing::Leave) {
        wrong.extend(findings);
    }
    if has_errors(&wrong) {
        return Err(Refused(wrong).into());
    }
    warn(&wrong);
    Ok(())
}

/// The bundles of the command line; without any documents there, those of the settings.
fn bundles_of(settings: &Settings, documents: &[PathBuf], zips: Vec<PathBuf>) -> Vec<PathBuf> {
    match documents.is_empty() && settings.general.database == Database::Off {
        true => settings.apigee.apigee_bundles.0.clone(),
        false => zips,
    }
}

/// `sallyport plan`: what is compiled from the documents, or from what the instance would serve.
pub(crate) fn plan(configured: &Configured, documents: &[PathBuf]) -> anyhow::Result<String> {
    let settings = configuration::load(configured)?;
    let reading = Reading::of(&settings)?;
    let (zips, texts): (Vec<PathBuf>, Vec<PathBuf>) = documents
        .iter()
        .cloned()
        .partition(|path| bundles::is_bundle(path));
    let zips = bundles_of(&settings, documents, zips);
    let mut apigee = bundles::deployed(&settings, &zips, &reading.bundles)?.0;
    let entities = if !documents.is_empty() {
        let mut entities = EntitySet::new();
        for document in &texts {
            let name = document.display().to_string();
            let text = read_file(document)?;
            let read = read_document(&name, &text)?;
            reading
                .write(SystemTime::now(), |context| {
                    declarative::import(&mut entities, read, context, &mut |_, _| {})
                })
                .map_err(|wrong| refused(&name, &text, &wrong))?;
        }
        entities
    } else if settings.general.database == Database::Off {
        match configured_document(&settings)? {
            Some((name, text)) => reading.load(&name, &text, &mut |_, _| {})?.entities,
            None => EntitySet::new(),
        }
    } else {
        let (stored, _) = stored(&settings)?;
        apigee = (*stored.apigee).clone();
        EntitySet::clone(&stored.kong)
    };
    let (mut plan, mut findings) = compile_all(&entities, &reading.catalog, &reading.options());
    let options = BundleOptions {
        is_alone: entities.rows(EntityKind::Route).next().is_none(),
        ..reading.bundles.clone()
    };
    let (delta, found) = compile_bundles(
        (&ApigeeSet::new(), &options),
        (&apigee, &options),
        &ApigeeSet::difference(&ApigeeSet::new(), &apigee),
    );
    plan.apply(&delta);
    findings.extend(found);
    warn(&findings);
    plan.conceal(&reading.catalog);
    serde_json::to_string_pretty(&plan).context("the plan cannot be written as JSON")
}

/// `sallyport config db_import`: a declarative file into the store.
pub(crate) fn import(configured: &Configured, file: &Path) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    if settings.general.database == Database::Off {
        bail!(
            "database: 'off' has no store to import into, set 'declarative_config' or use 'POST /config'"
        );
    }
    let bar = Bar::new();
    let shown = bar.clone();
    let progress: Progress = Arc::new(move |done, total| shown.show(done, total));
    let told = match EmbeddedStore::open(&settings.general.prefix, Ownership::Own) {
        Ok(store) => {
            let control = ControlPlane::start(Arc::new(store), Box::new(|_| {}))?;
            let reading = Arc::new(Reading::of(&settings)?);
            import_into(
                &control,
                &reading,
                &file.display().to_string(),
                &read_file(file)?,
                &progress,
            )?
        }
        Err(StoreError::InUse { .. }) => {
            let question = Ask::Import {
                name: file.display().to_string(),
                file: std::path::absolute(file).with_context(|| file.display().to_string())?,
            };
            let answer = instance::ask_watching(
                &settings.general.prefix,
                &question,
                IMPORT_TIMEOUT,
                &*progress,
            )?;
            if !answer.done {
                bar.clear();
                return Err(Answered(answer.message).into());
            }
            answer.message
        }
        Err(error) => return Err(error.into()),
    };
    bar.clear();
    tell(&told)
}

/// Hears how far an import is: entities done, entities in the document.
pub(crate) type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Writes a document into the store, and says what was done. Blocks.
pub(crate) fn import_into(
    control: &ControlPlane<Everything>,
    reading: &Arc<Reading>,
    name: &str,
    text: &str,
    progress: &Progress,
) -> anyhow::Result<String> {
    let document = read_document(name, text)?;
    // The store's refusals have one error; what is wrong with a document has many.
    let wrong = Arc::new(parking_lot::Mutex::new(None));
    let (found, progress, reading) = (
        Arc::clone(&wrong),
        Arc::clone(progress),
        Arc::clone(reading),
    );
    let written = control.write_kong_blocking(move |entities, write| {
        let mut show = |done, total| progress(done, total);
        let imported = reading.write(write.now, |context| {
            declarative::import(entities, document.clone(), context, &mut show)
        });
        match imported {
            Ok(imported) => Ok((imported.count, imported.changes)),
            Err(error) => {
                *found.lock() = Some(error);
                Err(ApiError::declarative_config(serde_json::Map::new()))
            }
        }
    });
    if let Some(error) = wrong.lock().take() {
        return Err(refused(name, text, &error).into());
    }
    let (count, revision) = written.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    Ok(format!(
        "{name}: {count} entities imported, revision {revision}"
    ))
}

/// `sallyport config db_export`: what the store holds, into a new declarative file.
pub(crate) fn export(configured: &Configured, file: &Path) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    if settings.general.database == Database::Off {
        bail!("database: 'off' has no store to export, use 'GET /config'");
    }
    let (entities, revision) = stored(&settings)?;
    let text = export_yaml(&entities.kong, unix_millis(SystemTime::now()))
        .map_err(|reason| anyhow::anyhow!("{}: {reason}", file.display()))?;
    // It holds keys and passwords.
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let mut out = options.open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{}: exists already, name another file", file.display())
        }
        _ => anyhow::Error::from(error).context(format!("{}: cannot be written", file.display())),
    })?;
    out.write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .with_context(|| format!("{}: cannot be written", file.display()))?;
    tell(&format!(
        "{}: {} entities exported, revision {revision}",
        file.display(),
        entities.kong.len()
    ))
}

/// What the embedded store holds, with its revision. A running instance goes on writing meanwhile.
fn stored(settings: &Settings) -> anyhow::Result<(Everything, u64)> {
    use crate::control::Entities;
    let store = EmbeddedStore::open(&settings.general.prefix, Ownership::Follow)?;
    let contents = store.load()?;
    let entities = Everything::restore(&contents.rows)
        .map_err(|reason| anyhow::anyhow!("{}: {reason}", store.name()))?;
    Ok((entities, contents.revision))
}

/// A progress bar on standard error, when that is a terminal.
#[derive(Clone)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::no_length();
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {pos} of {len} entities, {eta} left")
        {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    fn show(&self, done: usize, total: usize) {
        if let Some(bar) = &self.0 {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Says on standard output what was done; a reader that is gone is no failure.
fn tell(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
