//! XML as bundles and messages use it: a small tree with places, a parser that refuses what is dangerous, a reader of
//! configuration that reports everything at once.
//!
//! Owns the tree ([`Document`], [`Element`]), its limits ([`Limits`]) and the reading of configuration from it
//! ([`Fields`], [`Findings`]). Document types, entities other than the five predefined ones and everything external are
//! refused: nothing is ever expanded or fetched. Refuses to know what elements mean. Start at [`Document::parse`].

mod document;
mod fields;
mod parse;
mod text;
mod write;

pub use document::{Attribute, Document, Element, Kind, Name, Node};
pub use fields::{Fields, Findings, Written, boolean_of};
pub use parse::{Limits, XmlError, XmlErrorKind};
pub use text::{decode, is_name, is_name_character, is_name_start, is_xml_character};
pub use write::{escape_attribute, escape_text, write_node};

#[cfg(test)]
mod tests;
