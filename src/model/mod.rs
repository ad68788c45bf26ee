//! The plan and everything it is made of: plain data between dialects and runtime.

pub mod balance;
pub mod catalog;
pub mod plan;
pub mod route;
pub mod schema;
pub mod serving;

// Part of the model in meaning; on the ground floor because settings report with it too.
pub use crate::base::diagnostic::{self, Diagnostic, Severity};
pub use crate::base::source_ref::{self, SourceRef};
