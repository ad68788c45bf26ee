//! The plan and everything it is made of: plain data between dialects and runtime.

pub mod catalog;
pub mod diagnostic;
pub mod plan;
pub mod route;
pub mod schema;
pub mod serving;
pub mod source_ref;

pub use diagnostic::{Diagnostic, Severity};
pub use source_ref::SourceRef;
