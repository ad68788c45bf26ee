//! Flow hooks: shared flows that run for every proxy of an environment.

use serde::{Deserialize, Serialize};

use super::{Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// Where a shared flow can be hooked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookPoint {
    PreProxy,
    PreTarget,
    PostTarget,
    PostProxy,
}

impl HookPoint {
    /// Every point, in the order of the pipeline.
    pub const ALL: [Self; 4] = [
        Self::PreProxy,
        Self::PreTarget,
        Self::PostTarget,
        Self::PostProxy,
    ];

    /// The name in paths and answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::PreProxy => "PreProxyFlowHook",
            Self::PreTarget => "PreTargetFlowHook",
            Self::PostTarget => "PostTargetFlowHook",
            Self::PostProxy => "PostProxyFlowHook",
        }
    }

    /// The point of a name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.word() == word)
    }
}

/// A shared flow at a hook point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowHook {
    /// A fault in the shared flow does not end the exchange.
    pub continue_on_error: bool,
    #[serde(default)]
    pub description: String,
    /// The shared flow's name.
    pub shared_flow: String,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for FlowHook {
    const KIND: Kind = Kind::FlowHook;
}

impl FlowHook {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        let hook = Self {
            continue_on_error: fields.switch("continueOnError")?.unwrap_or(true),
            description: fields.text("description")?.unwrap_or_default(),
            shared_flow: fields.needed("sharedFlow")?,
            stamp,
        };
        fields.ignore(&["name", "flowHookPoint"]);
        fields.finish()?;
        Ok(hook)
    }
}
