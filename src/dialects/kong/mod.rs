//! The Kong dialect: entities, their schemas and checks, declarative documents, compilation.

pub mod error;
