//! Reading a plugin's typed configuration out of its plan.

use serde::Deserialize;
use serde_json::Value;

use crate::model::plan::InstancePlan;

/// The configuration of an instance. Its values were filled and checked by the schema before, so that an error here
/// means the plan did not come from the compiler.
pub(crate) fn read<C: for<'a> Deserialize<'a>>(plan: &InstancePlan) -> Result<C, String> {
    C::deserialize(&plan.config).map_err(|error| format!("config: {error}"))
}

/// Why a proxy for a plugin's own requests is refused.
pub(crate) const PROXY_UNSUPPORTED: &str =
    "a proxy is not supported for these requests, leave it empty";

/// A rule for fields that would name a proxy for a plugin's own requests: there is none, so they must stay empty.
pub(crate) fn no_proxy(value: &Value) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        _ => Err(PROXY_UNSUPPORTED.to_owned()),
    }
}
