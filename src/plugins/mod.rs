//! The plugins, one file each, and the one table that lists them.

pub mod kong;
