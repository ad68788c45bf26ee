//! Resource files of environments and organisations, which bundles name when they have no such file themselves.

use serde::{Deserialize, Serialize};

use super::revision::Content;
use super::{Entity, Kind, Stamp};

/// The types of resources.
pub const TYPES: [&str; 11] = [
    "jsc",
    "java",
    "py",
    "xsl",
    "xsd",
    "wsdl",
    "node",
    "hosted",
    "oas",
    "graphql",
    "properties",
];

/// A resource file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceFile {
    pub content: Content,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for ResourceFile {
    const KIND: Kind = Kind::ResourceFile;
}
