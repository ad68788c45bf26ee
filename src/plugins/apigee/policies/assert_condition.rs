//! `AssertCondition`: keeps the outcome of a condition in a variable.

use super::{Policy, PolicyLink};
use crate::dialects::apigee::condition::Condition;
use crate::dialects::apigee::policies::assert_condition::Config;
use crate::dialects::apigee::variables::Value;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::execute;

struct AssertCondition {
    condition: Condition,
    outcome: String,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let condition = Condition::parse(&config.condition).map_err(|error| error.to_string())?;
    Ok(Box::new(AssertCondition {
        condition,
        outcome: format!("assertcondition.{}.truthValue", link.name),
    }))
}

impl Policy for AssertCondition {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let holds = execute::holds(flow, Some(&self.condition))?;
        flow.set_own(&self.outcome, Value::Boolean(holds));
        Ok(Next::Continue)
    }
}
