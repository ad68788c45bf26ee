//! The Kong dialect: entities, their schemas and checks, declarative documents, compilation.

pub mod compile;
pub mod declarative;
pub mod entities;
pub mod entity_set;
pub mod error;
