//! One exchange through its flows: the request's side, the target, the response's side, and the way of faults.
//!
//! ```text
//! frame 0:  hook ▶ proxy request ▶ route ▶ hook ▶ target request ─▶ HTTP target: leaves the transaction
//!              │                             │                   └▶ another proxy: frame 1 begins with this request
//!              ▼ fault                       ▼ null route
//!        error flow ────────▶ answer ◀── hook ◀ proxy response ◀ hook ◀ target response ◀── response of target or frame 1
//! ```
//!
//! A proxy that calls another one inside the process is a frame below it, with variables of its own; only messages cross.
//! Whoever owns a transaction brings the response of a target, or the engine's fault, and takes the answer.

use std::sync::Arc;
use std::time::Instant;

use crate::dialects::apigee::bundle::is_success;
use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::execute::{self, DEPTH_MAX, Then};
use crate::plugins::apigee::flow::program::{
    FaultRule, Flows, HttpWay, LocalWay, Program, RouteTo, Target, Way,
};
use crate::plugins::apigee::flow::scope::{
    ERROR, Entry, POST_FLOW, PRE_FLOW, REQUEST, RESPONSE, Scope, Side,
};
use crate::plugins::apigee::flow::script::ScriptCall;
use crate::plugins::apigee::flow::target::{self, Composed};
use crate::plugins::apigee::flow::{coding, entrance, fault};
use crate::runtime::exchange::{Exchange, Try};

/// See the module.
pub(crate) struct Transaction {
    /// The first is the proxy that the client called.
    frames: Vec<Frame>,
    /// Callees that have answered, for what runs after the answer was sent.
    ended: Vec<Frame>,
}

/// One proxy's execution.
pub(crate) struct Frame {
    pub(crate) program: Arc<Program>,
    pub(crate) scope: Scope,
    route: Option<RouteChoice>,
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

/// What comes after the request's side.
pub(crate) enum Outcome {
    /// The request goes to this target.
    Forward(Box<Composed>),
    /// The answer is here.
    Answer,
}

/// What comes after the request's side of one frame.
enum Step {
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
enum Location {
    Proxy,
    Target,
}

impl Transaction {
    pub(crate) fn new(program: Arc<Program>, scope: Scope) -> Self {
        Self {
            frames: vec![Frame::new(program, scope)],
            ended: Vec::new(),
        }
    }

    /// The frame that waits for its target, or has just answered.
    pub(crate) fn top(&mut self) -> Option<&mut Frame> {
        self.frames.last_mut()
    }

    /// The frame of the proxy that the client called.
    pub(crate) fn outer(&mut self) -> Option<&mut Frame> {
        self.frames.first_mut()
    }

    /// Runs the request's side, and whatever follows while no target outside the process is asked.
    pub(crate) async fn begin(&mut self) -> Outcome {
        loop {
            let Some(frame) = self.frames.last_mut() else {
                return Outcome::Answer;
            };
            let answered = match frame.request_side().await {
                Ok(Step::Http(composed)) => return Outcome::Forward(composed),
                Ok(Step::Local(callee)) => {
                    self.frames.push(*callee);
                    continue;
                }
                Ok(Step::Script(call)) => match call.send().await {
                    Ok(response) => {
                        frame.response_side(response).await;
                        Ok(())
                    }
                    Err(fault) => Err((fault, Location::Target)),
                },
                Ok(Step::Answer) => Ok(()),
                Ok(Step::Null) => {
                    frame.scope.side = Side::Response;
                    frame.without_target().await
                }
                Err(failure) => Err(failure),
            };
            if let Err((fault, location)) = answered {
                frame.error_side(fault, location, None).await;
            }
            self.unwind().await;
            return Outcome::Answer;
        }
    }

    /// The target has answered: runs the response's side.
    pub(crate) async fn respond(&mut self, response: Message) {
        if let Some(frame) = self.frames.last_mut() {
            frame.response_side(response).await;
        }
        self.unwind().await;
    }

    /// The target could not be asked, or its answer not be read.
    pub(crate) async fn fail(&mut self, fault: PolicyFault) {
        if let Some(frame) = self.frames.last_mut() {
            let location = match frame.route {
                Some(_) => Location::Target,
                None => Location::Proxy,
            };
            frame.error_side(fault, location, None).await;
        }
        self.unwind().await;
    }

    /// The message that goes to the client.
    pub(crate) fn answer(&mut self) -> Option<&mut Message> {
        self.frames.first_mut().and_then(Frame::answer)
    }

    /// Runs what runs after the answer was sent.
    pub(crate) async fn after(mut self) {
        let now = Instant::now();
        for mut frame in self.ended.drain(..).chain(self.frames.drain(..)) {
            frame.scope.times.client_sent_end = Some(now);
            let program = Arc::clone(&frame.program);
            if program.flows.post_client.is_empty() {
                continue;
            }
            execute::enter(&mut frame.scope, &Arc::from("PostClientFlow"), None);
            let steps = &program.flows.post_client;
            if let Err(fault) = execute::steps(&program, &mut frame.scope, steps, &mut None).await {
                tracing::warn!(proxy = program.place.proxy, fault = %fault.code, "PostClientFlow failed: {}", fault.message);
            }
        }
    }

    /// Is there anything to run after the answer was sent?
    pub(crate) fn has_after(&self) -> bool {
        let frames = self.frames.iter().chain(&self.ended);
        frames
            .into_iter()
            .any(|frame| !frame.program.flows.post_client.is_empty())
    }

    /// Hands the answer of each callee to its caller.
    async fn unwind(&mut self) {
        while self.frames.len() > 1 {
            let Some(mut callee) = self.frames.pop() else {
                return;
            };
            let response = callee.answer().cloned().unwrap_or_else(Message::response);
            self.ended.push(callee);
            if let Some(caller) = self.frames.last_mut() {
                caller.response_side(response).await;
            }
        }
    }
}

impl Frame {
    fn new(program: Arc<Program>, scope: Scope) -> Self {
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

    async fn request_side(&mut self) -> Result<Step, (PolicyFault, Location)> {
        let proxy = |fault| (fault, Location::Proxy);
        let program = Arc::clone(&self.program);
        match self.proxy_request(&program).await.map_err(proxy)? {
            Then::Continue => {}
            other => return Ok(self.turn_round(other)),
        }
        let choice = self.choose(&program).map_err(proxy)?;
        let Some(choice) = choice else {
            if self.scope.message(RESPONSE).is_none() {
                self.scope.replace(RESPONSE, Message::response());
            }
            return Ok(Step::Null);
        };
        let failed = |fault| (fault, Location::Target);
        execute::check_time(&program, &self.scope).map_err(failed)?;
        match choice {
            RouteChoice::Url(index) => {
                let Some(RouteTo::Url(way)) = program.routes.get(index).map(|it| &it.to) else {
                    return Err(proxy(fault::unrouted()));
                };
                self.scope.target = Some(Box::new(target::facts(&self.scope, "", way)));
                self.note_host();
                self.compose(&program, way).map_err(failed)
            }
            RouteChoice::Target(index) => {
                let Some(chosen) = program.targets.get(index) else {
                    return Err(proxy(fault::unrouted()));
                };
                self.enter_target(&program, chosen).await.map_err(failed)
            }
        }
    }

    async fn enter_target(
        &mut self,
        program: &Arc<Program>,
        chosen: &Target,
    ) -> Result<Step, PolicyFault> {
        let facts = match &chosen.way {
            Way::Http(way) => target::facts(&self.scope, &chosen.name, way),
            Way::Script(way) => target::facts(&self.scope, &chosen.name, &way.http),
            Way::Local(_) => crate::plugins::apigee::flow::scope::TargetFacts {
                name: chosen.name.as_ref().into(),
                ..Default::default()
            },
        };
        self.scope.target = Some(Box::new(facts));
        self.note_host();
        let hook = program.hooks.pre_target.as_ref();
        let then = execute::hook(program, &mut self.scope, hook).await?;
        if then != Then::Continue {
            return Ok(self.turn_round(then));
        }
        self.scope.at_target = true;
        let then = self.sides(program, &chosen.flows).await;
        self.scope.at_target = false;
        let then = then?;
        if then != Then::Continue {
            return Ok(self.turn_round(then));
        }
        match &chosen.way {
            Way::Http(way) => self.compose(program, way),
            Way::Local(way) => self.call(way),
            Way::Script(way) => {
                if let Some(request) = self.scope.message_mut(REQUEST) {
                    target::apply_properties(request, &way.http);
                }
                let left = target::time_left(program, &self.scope);
                Ok(Step::Script(Box::new(way.call(&mut self.scope, left))))
            }
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

    async fn proxy_request(&mut self, program: &Arc<Program>) -> Result<Then, PolicyFault> {
        let hook = program.hooks.pre_proxy.as_ref();
        let then = execute::hook(program, &mut self.scope, hook).await?;
        if then != Then::Continue {
            return Ok(then);
        }
        self.sides(program, &program.flows).await
    }

    /// A policy has answered on the request's side.
    fn turn_round(&mut self, then: Then) -> Step {
        if self.scope.message(RESPONSE).is_none() {
            self.scope.replace(RESPONSE, Message::response());
        }
        match then {
            Then::AnswerFrom(policy) => {
                self.resume = Some(policy);
                Step::Null
            }
            Then::Continue | Then::Answer => {
                self.scope.side = Side::Response;
                Step::Answer
            }
        }
    }

    fn choose(&mut self, program: &Program) -> Result<Option<RouteChoice>, PolicyFault> {
        if program.routes.is_empty() {
            return Ok(None);
        }
        for (index, route) in program.routes.iter().enumerate() {
            if !execute::holds(&self.scope, route.condition.as_ref())? {
                continue;
            }
            let (choice, target) = match &route.to {
                RouteTo::Nowhere => (None, None),
                RouteTo::Url(_) => (Some(RouteChoice::Url(index)), None),
                RouteTo::Target(at) => {
                    let name = program
                        .targets
                        .get(*at)
                        .map(|target| Arc::clone(&target.name));
                    (Some(RouteChoice::Target(*at)), name)
                }
            };
            self.scope.route = Some((Arc::clone(&route.name), target));
            self.route = choice;
            return Ok(choice);
        }
        Err(fault::unrouted())
    }

    fn note_host(&mut self) {
        let request = self.scope.message(REQUEST);
        self.inbound_host = request.and_then(|it| it.headers.get(http::header::HOST).cloned());
    }

    fn compose(&mut self, program: &Arc<Program>, way: &HttpWay) -> Result<Step, PolicyFault> {
        let mut composed = target::compose(program, &mut self.scope, way)?;
        composed.forward = target::adjusted(program, &self.scope, way, composed.forward)?;
        if let Some(request) = self.scope.message_mut(REQUEST) {
            target::apply_properties(request, way);
            let properties = &way.plan.properties;
            if let Some(wanted) = properties.compression {
                coding::recode(request, wanted, properties.request_payload_bytes_max)?;
            }
            let host = request.headers.get(http::header::HOST);
            composed.host = host
                .filter(|host| self.inbound_host.as_ref() != Some(host))
                .cloned();
        }
        if let Some(facts) = self.scope.target.as_deref_mut() {
            facts.sent = Some(composed.target.clone());
            facts.scheme = if composed.forward.tls.is_some() {
                "https"
            } else {
                "http"
            };
            facts.host = composed.forward.plan.host.to_string();
            facts.port = composed.forward.plan.port;
        }
        self.scope.times.target_sent_start = Some(Instant::now());
        Ok(Step::Http(Box::new(composed)))
    }

    /// Begins another proxy with this request.
    fn call(&mut self, way: &LocalWay) -> Result<Step, PolicyFault> {
        if self.scope.depth >= DEPTH_MAX {
            return Err(fault::too_deep(DEPTH_MAX));
        }
        let mut request = self
            .scope
            .message(REQUEST)
            .cloned()
            .unwrap_or_else(Message::request);
        if !self.scope.copies_query_parameters {
            request.query = None;
        }
        let suffix = match self.scope.copies_path_suffix {
            true => self.scope.entry.suffix.clone(),
            false => String::new(),
        };
        let (program, entry) = match way {
            LocalWay::Proxy { proxy, endpoint } => {
                let (proxy, endpoint) = (self.scope.fill(proxy), self.scope.fill(endpoint));
                let found =
                    self.program
                        .registry
                        .named(&self.program, proxy.trim(), endpoint.trim());
                let program = found.ok_or_else(|| fault::no_local_target(&proxy))?;
                let base_path = program.plan.base_path.clone();
                request.path = target::join(&base_path, &suffix);
                let entry = entry(&program, base_path, suffix);
                (program, entry)
            }
            LocalWay::Path(path) => {
                request.path = target::join(&self.scope.fill(path), &suffix);
                let found = entrance::find(&self.program, &self.scope, &request);
                found.ok_or_else(|| fault::no_local_target(&request.path))?
            }
        };
        if let Some(facts) = self.scope.target.as_deref_mut() {
            facts.sent = Some(request.uri().into_owned());
        }
        self.scope.times.target_sent_start = Some(Instant::now());
        let place = Arc::clone(&program.place);
        let mut scope = Scope::new(place, Arc::clone(&self.scope.inbound), entry, request);
        scope.depth = self.scope.depth + 1;
        Ok(Step::Local(Box::new(Self::new(program, scope))))
    }

    /// The target has answered.
    async fn response_side(&mut self, response: Message) {
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
    async fn without_target(&mut self) -> Result<(), (PolicyFault, Location)> {
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

    /// The way of faults: the first rule that fits, then the default rule; what they leave in `error` is the answer.
    async fn error_side(
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

/// The entry of a proxy that is called by its name.
fn entry(program: &Program, base_path: String, suffix: String) -> Entry {
    let entrance = program.entrance(None);
    Entry {
        endpoint: Arc::clone(&program.endpoint),
        base_path,
        suffix,
        configured_base_path: Arc::clone(&program.configured_base_path),
        virtual_host: entrance.map_or_else(|| Arc::from("default"), |it| Arc::clone(&it.name)),
        virtual_host_aliases: entrance.map_or_else(|| Arc::from([]), |it| Arc::clone(&it.aliases)),
        virtual_host_tls: entrance.is_some_and(|it| it.tls),
    }
}
