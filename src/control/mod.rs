//! The entity store, and the builder that turns committed changes into published snapshots.
