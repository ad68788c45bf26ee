//! `AssertCondition`: keeps the outcome of a condition in a variable.

use serde::{Deserialize, Serialize};

use super::{Parsed, PolicyReader};
use crate::dialects::apigee::condition::Condition;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub condition: String,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let condition = reader
        .fields
        .required_text("Condition", reader.findings)?
        .into_owned();
    if let Err(error) = Condition::parse(&condition) {
        let message = format!("the condition cannot be read: {error}");
        reader.error("condition", message);
        return None;
    }
    reader.parsed(&Config { condition })
}
