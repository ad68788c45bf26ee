//! Configuration dialects: what users write, and how it compiles into the plan. Pure: no I/O, no clock.

pub mod apigee;
pub mod consul;
pub mod kong;
