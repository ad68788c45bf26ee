//! The Apigee dialect: its documents, its language, its entities and their compilation.

pub mod xml;
