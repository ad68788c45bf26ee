//! The entity store, and the builder that turns committed changes into published snapshots.
//!
//! A write takes this way:
//!
//! ```text
//! write --queue--> writer thread: check on a draft, group commit, publish entities, answer
//!                        |
//!                        +--changes--> builder thread: compile, link, publish snapshot
//! ```
//!
//! Owns the order of these steps and their limits. Refuses to know what an entity means: [`Entities`] is what it asks
//! of a dialect. Start at [`plane::ControlPlane`], then [`builder::Builder`].

pub mod builder;
pub mod entities;
pub mod everything;
mod jobs;
mod kong;
pub mod plane;
pub mod records;
pub mod store;
#[cfg(test)]
mod toy;

pub use builder::Builder;
pub use entities::{Change, Entities};
pub use everything::Everything;
pub use plane::{ControlPlane, Moment, Publication};
