//! One proxy's execution: where it stands, and what its sides have in common.

use std::sync::Arc;

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::execute::{self, Then};
use crate::plugins::apigee::flow::program::{Flows, HttpWay, Program, RouteTo, Way};
use crate::plugins::apigee::flow::scope::{ERROR, POST_FLOW, PRE_FLOW, RESPONSE, Scope, Side};
use crate::plugins::apigee::flow::script::ScriptCall;
use crate::plugins::apigee::flow::target::Composed;
use crate::runtime::exchange::{Exchange, Try};

mod error_side;
mod request_side;
mod response_side;

/// One proxy's execution.
pub(crate) struct Frame {
    pub(crate) program: Arc<Program>,
    pub(crate) scope: Scope,
    /// Where a route rule led.
    route: Option<RouteChoice>,
    /// The policy that answered: the response's side begins behind its attachment there.
    resume: Option<Arc<str>>,
    /// The target's `Host` as the request had it before the target request flow.
    inbound_host: Option<http::HeaderValue>,
}

/// What a route rule led to: indexes into the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteChoice {
    Target(usize),
    Url(usize),
}

/// What comes after the request's side of one frame.
pub(super) enum Step {
    Http(Box<Composed>),
    Local(Box<Frame>),
    Script(Box<ScriptCall>),
    /// The response's side begins with the message `response`, without a target.
    Null,
    /// The message `response` is the answer.
    Answer,
}

/// Where a fault happened: it decides whose rules are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    Proxy,
    Target,
}

impl Frame {
    pub(super) fn new(program: Arc<Program>, scope: Scope) -> Self {
        Self {
            program,
            scope,
            route: None,
            resume: None,
            inbound_host: None,
        }
    }

    /// The message that is the answer, in its present state.
    pub(crate) fn answer(&mut self) -> Option<&mut Message> {
        let handle = match self.scope.side {
            Side::Error => ERROR,
            Side::Request | Side::Response => RESPONSE,
        };
        let fields = std::mem::take(&mut self.scope.answer_fields);
        let answer = self.scope.message_mut(handle)?;
        for (name, value) in fields {
            answer.headers.insert(name, value);
        }
        Some(answer)
    }

    /// What the engine knows of the target that was asked, and whether it has `answered`.
    pub(crate) fn note_tries(&mut self, exchange: &Exchange, answered: bool) {
        let Some(facts) = self.scope.target.as_deref_mut() else {
            return;
        };
        let Some((last, before)) = exchange.tries.split_last() else {
            return;
        };
        facts.address = Some(last.address.ip());
        let Some(RouteChoice::Target(index)) = self.route else {
            return;
        };
        let Some(Way::Http(way)) = self.program.targets.get(index).map(|target| &target.way) else {
            return;
        };
        let Some(forward) = exchange
            .chosen_forward
            .as_ref()
            .filter(|_| !way.plan.servers.is_empty())
        else {
            return;
        };
        let named = |tried: &Try| {
            let endpoint = forward.cluster.endpoint_at(tried.address)?;
            way.plan.servers.get(&endpoint.id)
        };
        if let Some(server) = named(last) {
            facts.server = Some(server.name.as_str().into());
            facts.is_fallback = server.is_fallback;
        }
        let given_up = before.iter().chain((!answered).then_some(last));
        let failed = given_up.filter_map(|tried| Some(named(tried)?.name.clone()));
        facts.failed_servers = failed.collect();
    }

    /// The way to the target that was chosen.
    pub(crate) fn http_way(&self) -> Option<&HttpWay> {
        match self.route? {
            RouteChoice::Target(index) => match &self.program.targets.get(index)?.way {
                Way::Http(way) => Some(way),
                Way::Script(way) => Some(&way.http),
                Way::Local(_) => None,
            },
            RouteChoice::Url(index) => match &self.program.routes.get(index)?.to {
                RouteTo::Url(way) => Some(way),
                _ => None,
            },
        }
    }

    /// Where a fault of what this frame waits for happens.
    pub(super) fn location(&self) -> Location {
        match self.route {
            Some(_) => Location::Target,
            None => Location::Proxy,
        }
    }

    /// Pre flow, the first conditional flow that fits, post flow, on the scope's side.
    async fn sides(&mut self, program: &Arc<Program>, flows: &Flows) -> Result<Then, PolicyFault> {
        let (scope, resume) = (&mut self.scope, &mut self.resume);
        let pre = &*PRE_FLOW;
        let then = execute::flow(program, scope, pre, &flows.pre, resume).await?;
        if then != Then::Continue {
            return Ok(then);
        }
        if !flows.conditional.is_empty() {
            let then = execute::first_of(program, scope, &flows.conditional, resume).await?;
            if then != Then::Continue {
                return Ok(then);
            }
        }
        execute::flow(program, scope, &POST_FLOW, &flows.post, resume).await
    }
}
