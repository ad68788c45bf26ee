//! Reading a plugin's typed configuration out of its plan.

use serde::Deserialize;

use crate::model::plan::InstancePlan;

/// The configuration of an instance. Its values were filled and checked by the schema before, so that an error here
/// means the plan did not come from the compiler.
pub(crate) fn read<C: for<'a> Deserialize<'a>>(plan: &InstancePlan) -> Result<C, String> {
    C::deserialize(&plan.config).map_err(|error| format!("config: {error}"))
}
