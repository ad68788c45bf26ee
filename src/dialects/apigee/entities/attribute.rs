//! Names and values that administrators hang on products, developers, apps and keys.

use serde::{Deserialize, Serialize};

use crate::dialects::apigee::error::ApiError;

/// Most attributes of one entity. Apigee allows 18; its own tools set a few more.
const ATTRIBUTES_MAX: usize = 100;

/// A name with a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    pub name: String,
    pub value: String,
}

impl Attribute {
    /// Adds one to a list, in place of the one with its name.
    ///
    /// # Errors
    ///
    /// When the list is full.
    pub fn set(list: &mut Vec<Self>, attribute: Self) -> Result<(), ApiError> {
        if let Some(known) = list.iter_mut().find(|known| known.name == attribute.name) {
            *known = attribute;
        } else if list.len() >= ATTRIBUTES_MAX {
            return Err(ApiError::field(
                "attributes",
                format!("more than {ATTRIBUTES_MAX} attributes"),
            ));
        } else {
            list.push(attribute);
        }
        Ok(())
    }

    /// The value of a name.
    pub fn find<'a>(list: &'a [Self], name: &str) -> Option<&'a str> {
        list.iter()
            .find(|attribute| attribute.name == name)
            .map(|attribute| attribute.value.as_str())
    }
}
