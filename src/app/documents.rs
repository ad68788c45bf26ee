//! Commands that judge, print or move configuration without a running instance.

use std::path::PathBuf;

use super::configuration;
use crate::cli::Configured;

/// `sallyport check`: tells everything that is wrong.
pub(crate) fn check(configured: &Configured, _documents: &[PathBuf]) -> anyhow::Result<()> {
    configuration::load(configured)?;
    Ok(())
}
