//! The Apigee dialect: its documents, its language, its entities and their compilation.

pub mod bundle;
pub mod entities;
pub mod entity_set;
pub mod error;
pub mod policies;
pub mod xml;
