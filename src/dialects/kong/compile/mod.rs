//! Entities to plan: what the Kong dialect means, written in the plan's words. Pure.

pub mod pipeline;
pub mod principal;
pub mod route;
pub mod serving;
