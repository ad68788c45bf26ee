//! Entities to plan: what the Kong dialect means, written in the plan's words. Pure.

pub mod certificate;
pub mod cluster;
pub mod forward;
pub mod pipeline;
pub mod principal;
pub mod route;
pub mod serving;

#[cfg(test)]
mod testing;
