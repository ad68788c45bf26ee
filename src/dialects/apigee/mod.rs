//! The Apigee dialect: its documents, its language, its entities and their compilation.

pub mod archive;
pub mod beans;
pub mod bundle;
pub mod compile;
pub mod condition;
pub mod convert;
pub mod date;
pub mod describe;
pub mod entities;
pub mod entity_set;
pub mod error;
pub mod java_regex;
pub mod json_path;
pub mod keys;
pub mod lifecycle;
pub mod message;
pub mod policies;
pub mod program;
pub mod script;
pub mod template;
pub mod text_pattern;
pub mod threats;
pub mod url;
pub mod variables;
pub mod xml;
pub mod xpath;
