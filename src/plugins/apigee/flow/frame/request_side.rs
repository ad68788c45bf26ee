//! The request's side: proxy endpoint, route rule, target endpoint, and what goes to the target.

use std::sync::Arc;
use std::time::Instant;

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::execute::{self, DEPTH_MAX, Then};
use crate::plugins::apigee::flow::frame::{Frame, Location, RouteChoice, Step};
use crate::plugins::apigee::flow::program::{HttpWay, LocalWay, Program, RouteTo, Target, Way};
use crate::plugins::apigee::flow::scope::{Entry, REQUEST, RESPONSE, Scope, Side, TargetFacts};
use crate::plugins::apigee::flow::{coding, entrance, fault, target};

impl Frame {
    /// Runs up to where the target, or another frame, is asked, or the answer is here.
    pub(in crate::plugins::apigee::flow) async fn request_side(
        &mut self,
    ) -> Result<Step, (PolicyFault, Location)> {
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
            Way::Local(_) => TargetFacts {
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
