//! The program: reads the world outside (files, environment, signals), builds the parts below and ties them together.
//!
//! Owns start, stop, reload and upgrade of an instance, and the commands that work without one. The only place where
//! errors are `anyhow`'s. Refuses to decide anything about requests. Start at [`start::run`].

mod administration;
pub(crate) mod bundles;
mod configuration;
pub(crate) mod deploy;
pub(crate) mod documents;
pub(crate) mod failure;
mod files;
mod gateway;
mod hand_over;
pub(crate) mod instance;
mod listeners;
mod logging;
pub(crate) mod mesh;
mod node;
mod process;
pub(crate) mod start;
mod threads;

use crate::admin::state::{KONG_VERSION, VERSION};

/// What `sallyport version` prints.
pub(crate) fn versions(all: bool) -> String {
    if all {
        format!("sallyport {VERSION}\nkong: {KONG_VERSION}\npingora: 0.9.1\n")
    } else {
        format!("sallyport {VERSION}\n")
    }
}
