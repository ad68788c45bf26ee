//! The way of faults.

use std::sync::Arc;

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::frame::{Frame, Location, RouteChoice};
use crate::plugins::apigee::flow::program::{FaultRule, Program};
use crate::plugins::apigee::flow::scope::{ERROR, REQUEST, Side};
use crate::plugins::apigee::flow::{execute, fault};

impl Frame {
    /// The first rule that fits, then the default rule; what they leave in `error` is the answer.
    pub(in crate::plugins::apigee::flow) async fn error_side(
        &mut self,
        fault: PolicyFault,
        location: Location,
        answer: Option<Message>,
    ) {
        let program = Arc::clone(&self.program);
        let from_target = answer.is_some();
        let category = match (from_target, fault.code.starts_with("messaging.")) {
            (true, _) | (_, true) => "Messaging",
            _ => "Step",
        };
        let mut facts = execute::facts_of(&fault, category, self.scope.side);
        if location == Location::Target {
            facts.state = match self.scope.side {
                Side::Request => "TARGET_REQ_FLOW",
                _ => "TARGET_RESP_FLOW",
            };
        }
        self.scope.fault = Some(Box::new(facts));
        let built = fault.response.as_deref().cloned().or(answer);
        let error =
            built.unwrap_or_else(|| fault::default_response(&fault, self.scope.message(REQUEST)));
        self.scope.replace(ERROR, error);
        self.scope.side = Side::Error;
        self.resume = None;
        let flows = match (location, self.route) {
            (Location::Target, Some(RouteChoice::Target(index))) => program
                .targets
                .get(index)
                .map(|target| &target.flows)
                .filter(|flows| flows.has_fault_rules())
                .unwrap_or(&program.flows),
            _ => &program.flows,
        };
        let mut executed = false;
        for rule in &flows.fault_rules {
            match self.fault_rule(&program, rule).await {
                Ok(true) => {
                    executed = true;
                    break;
                }
                Ok(false) => {}
                Err(ended) => return self.end_error(ended),
            }
        }
        if let Some((rule, always)) = &flows.default_fault_rule
            && (!executed || *always)
            && let Err(ended) = self.fault_rule(&program, rule).await
        {
            self.end_error(ended);
        }
    }

    /// Runs a rule if it fits, and tells whether it did.
    async fn fault_rule(
        &mut self,
        program: &Arc<Program>,
        rule: &FaultRule,
    ) -> Result<bool, PolicyFault> {
        if !execute::holds(&self.scope, rule.condition.as_ref())? {
            return Ok(false);
        }
        execute::enter(&mut self.scope, &rule.name, None);
        execute::steps(program, &mut self.scope, &rule.steps, &mut None).await?;
        Ok(true)
    }

    /// A fault inside the error flow ends it: a raised one with its own response, any other with what is there.
    fn end_error(&mut self, fault: PolicyFault) {
        match fault.response {
            Some(response) => self.scope.replace(ERROR, *response),
            None => tracing::info!(
                proxy = self.program.place.proxy, fault = %fault.code,
                "a policy failed inside the error flow: {}", fault.message
            ),
        }
    }
}
