//! Finds and reads the configuration of an instance.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::failure::{Refused, warn};
use crate::cli::Configured;
use crate::model::Diagnostic;
use crate::settings::{Document, Form, Settings};

/// Where a configuration is looked for when nobody names one, in this order.
const DEFAULT_FILES: [&str; 2] = ["./conf/sallyport.toml", "/etc/sallyport/sallyport.toml"];

/// Reads the configuration that the command line points at and tells its warnings.
pub(crate) fn load(configured: &Configured) -> anyhow::Result<Settings> {
    let (settings, warnings) = read(configured)?;
    warn(&warnings);
    Ok(settings)
}

/// The same, with keys that the command line sets.
pub(crate) fn load_with(
    configured: &Configured,
    overrides: &[(&'static str, String)],
) -> anyhow::Result<Settings> {
    let (settings, warnings) = read_with(configured, overrides)?;
    warn(&warnings);
    Ok(settings)
}

/// Reads the configuration that the command line points at.
pub(crate) fn read(configured: &Configured) -> anyhow::Result<(Settings, Vec<Diagnostic>)> {
    read_with(configured, &[])
}

fn read_with(
    configured: &Configured,
    overrides: &[(&'static str, String)],
) -> anyhow::Result<(Settings, Vec<Diagnostic>)> {
    let file = match &configured.file {
        Some(file) => Some(file.clone()),
        None => DEFAULT_FILES
            .iter()
            .map(PathBuf::from)
            .find(|file| file.is_file()),
    };
    let read = match &file {
        Some(file) => Some((file.display().to_string(), read_text(file)?)),
        None => None,
    };
    let mut environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        })
        .collect();
    // In the order of names, so that what is told does not depend on the shell.
    environment.sort();
    if let Some(prefix) = &configured.prefix {
        environment.retain(|(name, _)| name != "SALLYPORT_PREFIX");
        environment.push((
            "SALLYPORT_PREFIX".to_owned(),
            prefix.to_string_lossy().into_owned(),
        ));
    }
    for (key, value) in overrides {
        let name = format!("SALLYPORT_{}", key.to_uppercase());
        environment.retain(|(known, _)| *known != name);
        environment.push((name, value.clone()));
    }
    let document = read.as_ref().map(|(name, text)| Document {
        name,
        form: Form::of(name),
        text,
    });
    Settings::parse(document, &environment).map_err(|diagnostics| Refused(diagnostics).into())
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    let bytes =
        std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    String::from_utf8(bytes)
        .ok()
        .with_context(|| format!("{}: is not UTF-8 text", file.display()))
}
