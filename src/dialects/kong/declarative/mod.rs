//! Declarative documents: a whole configuration as one YAML or JSON text. Kong: declarative configuration.
//!
//! ```text
//! text --parse_text--> tree --flatten--> entities with ids --load/import--> entity set
//! ```
//!
//! Owns the document's form: nesting, links by name, older formats, derived ids, and the two shapes in which everything
//! wrong with a document is told at once. Refuses to know what an entity may hold: each goes through the same door as an
//! Admin API write. Start at [`Document::parse`], then [`load`] or [`import`]; [`export`] is the way back.

mod document;
mod export;
mod findings;
mod flatten;
mod ids;
mod lines;
mod load;
mod migrate;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use document::{
    DEPTH_MAX, Syntax, SyntaxError, TEXT_BYTES_MAX, parse_text, text_hash, tree_hash,
};
pub use export::{export, export_yaml, loaded_entities};
pub use findings::{DocumentError, Finding, Findings};
pub use lines::Lines;
pub use load::{Imported, Loaded, import, load};

/// How far a load or import is: entities done, and entities in the document.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize);

/// A declarative document as a tree, with its hash.
#[derive(Debug, Clone)]
pub struct Document {
    /// The root mapping, as written.
    pub root: Map<String, Value>,
    /// 32 hex digits by which clients tell whether a document is loaded already.
    pub hash: String,
}

impl Document {
    /// Reads a document's text.
    ///
    /// # Errors
    ///
    /// Code 14 with the place in `fields.error`; for an empty or otherwise shapeless document see
    /// [`DocumentError::Missing`].
    pub fn parse(text: &str, syntax: Syntax) -> Result<Self, DocumentError> {
        let tree = parse_text(text, syntax).map_err(|error| DocumentError::unparsed(&error))?;
        match tree {
            Value::Object(root) => Ok(Self {
                root,
                hash: text_hash(text),
            }),
            _ => Err(DocumentError::Missing),
        }
    }

    /// Takes a document that arrived as a JSON tree.
    pub fn from_tree(root: Map<String, Value>) -> Self {
        let tree = Value::Object(root);
        let hash = tree_hash(&tree);
        match tree {
            Value::Object(root) => Self { root, hash },
            _ => Self {
                root: Map::new(),
                hash,
            },
        }
    }
}
