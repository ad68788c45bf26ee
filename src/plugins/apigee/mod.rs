//! Running bundles: the plugin that executes compiled flows, and the policies that their steps run.
//!
//! The engine sees one plugin, [`flow`]: a route's pipeline has it as its only step, and its configuration is the compiled
//! program. Start there; [`policies`] is the table of what a step may run.

pub(crate) mod flow;
pub(crate) mod policies;
