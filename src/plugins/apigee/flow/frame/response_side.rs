//! The response's side: target endpoint, then proxy endpoint.

use std::sync::Arc;
use std::time::Instant;

use crate::dialects::apigee::bundle::is_success;
use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::execute::{self, Then};
use crate::plugins::apigee::flow::fault;
use crate::plugins::apigee::flow::frame::{Frame, Location, RouteChoice};
use crate::plugins::apigee::flow::program::{Flows, Program, Target};
use crate::plugins::apigee::flow::scope::{RESPONSE, Side};
use crate::plugins::apigee::flow::wire;
use crate::runtime::head::ResponseHead;

impl Frame {
    /// Does nothing of proxy and target look at this response?
    pub(in crate::plugins::apigee::flow) fn passes_on(&self, head: &ResponseHead) -> bool {
        let flows = match self.route {
            Some(RouteChoice::Target(index)) => {
                self.program.targets.get(index).map(|target| &target.flows)
            }
            _ => None,
        };
        let (Some(way), scope) = (self.http_way(), &self.scope) else {
            return false;
        };
        let properties = &way.plan.properties;
        let status = head.status().as_u16();
        // Other statuses may be faults, or become other ones.
        (200..400).contains(&status)
            && is_success(&properties.success_codes, status)
            && self.program.passes_responses_on()
            && flows.is_none_or(Flows::pass_responses_on)
            && properties.response_headers.keeps_all()
            && self.resume.is_none()
            && scope.trace.is_none()
            && scope.answer_fields.is_empty()
            && !wire::has_hop_by_hop(head)
    }

    /// The target has answered.
    pub(in crate::plugins::apigee::flow) async fn response_side(&mut self, response: Message) {
        let now = Instant::now();
        self.scope.times.target_received_start = Some(now);
        self.scope.times.target_received_end = Some(now);
        let status = response.status;
        let codes = self
            .http_way()
            .map(|way| way.plan.properties.success_codes.as_slice());
        if !is_success(codes.unwrap_or_default(), status) {
            let fault = fault::error_response(status);
            return self
                .error_side(fault, Location::Target, Some(response))
                .await;
        }
        self.scope.replace(RESPONSE, response);
        self.scope.side = Side::Response;
        self.scope.at_target = true;
        let turned = self.target_response().await;
        self.scope.at_target = false;
        let outcome = match turned {
            Ok(Then::Continue) => {
                let outcome = self.proxy_response().await;
                outcome.map_err(|fault| (fault, Location::Proxy))
            }
            Ok(_) => Ok(()),
            Err(fault) => Err((fault, Location::Target)),
        };
        if let Err((fault, location)) = outcome {
            self.error_side(fault, location, None).await;
        }
    }

    /// The response's side of an exchange that asked no target. Where a policy has answered it begins behind the policy's
    /// attachment there, in whichever endpoint that is; without one all of the proxy endpoint's side runs.
    pub(in crate::plugins::apigee::flow) async fn without_target(
        &mut self,
    ) -> Result<(), (PolicyFault, Location)> {
        let program = Arc::clone(&self.program);
        if let Some(policy) = self.resume.clone()
            && !program.flows.responds_with(&policy)
        {
            let holds = |index: &usize| {
                let target = program.targets.get(*index);
                target.is_some_and(|target| target.flows.responds_with(&policy))
            };
            let chosen = match self.route {
                Some(RouteChoice::Target(index)) => Some(index).filter(holds),
                _ => (0..program.targets.len()).find(holds),
            };
            let turned = match chosen.and_then(|index| program.targets.get(index)) {
                Some(target) => {
                    self.scope.at_target = true;
                    let turned = self.target_flows(&program, target).await;
                    self.scope.at_target = false;
                    turned
                }
                None => Ok(Then::Continue),
            };
            self.resume = None;
            match turned {
                Ok(Then::Continue) => {}
                Ok(_) => return Ok(()),
                Err(fault) => return Err((fault, Location::Target)),
            }
        }
        let outcome = self.proxy_response().await;
        outcome.map_err(|fault| (fault, Location::Proxy))
    }

    async fn target_response(&mut self) -> Result<Then, PolicyFault> {
        let program = Arc::clone(&self.program);
        let Some(RouteChoice::Target(index)) = self.route else {
            return Ok(Then::Continue);
        };
        match program.targets.get(index) {
            Some(chosen) => self.target_flows(&program, chosen).await,
            None => Ok(Then::Continue),
        }
    }

    /// The response's side of a target endpoint.
    async fn target_flows(
        &mut self,
        program: &Arc<Program>,
        chosen: &Target,
    ) -> Result<Then, PolicyFault> {
        let then = self.sides(program, &chosen.flows).await?;
        if then != Then::Continue {
            return Ok(then);
        }
        execute::hook(program, &mut self.scope, program.hooks.post_target.as_ref()).await
    }

    async fn proxy_response(&mut self) -> Result<(), PolicyFault> {
        let program = Arc::clone(&self.program);
        let then = self.sides(&program, &program.flows).await?;
        // A flow whose condition does not hold any more may have the attachment: nothing runs then, and that is no error.
        self.resume = None;
        if then == Then::Continue {
            execute::hook(&program, &mut self.scope, program.hooks.post_proxy.as_ref()).await?;
        }
        Ok(())
    }
}
