//! The plugin that runs compiled flows: the one step in the pipeline of every route that leads to a bundle.
//!
//! ```text
//! access ────────▶ Transaction::begin ──▶ forward chosen, or the answer
//! message or ────▶ Transaction::respond ▶ the answer over the target's response
//! response_head
//! fault ─────────▶ Transaction::fail ───▶ the answer
//! log ───────────▶ Transaction::after, in the background
//! ```
//!
//! Owns the seam between the engine's phases and a [`transaction::Transaction`]. A program that looks at nothing has no
//! transaction at all: its requests get a new target and no more. Start at [`entry`] and [`transaction`].

pub(crate) mod call;
mod catalogue;
mod clients;
mod coding;
pub(crate) mod context;
mod dynamic;
mod entrance;
pub(crate) mod execute;
pub(crate) mod fault;
pub(crate) mod frame;
pub(crate) mod program;
mod registry;
pub(crate) mod scope;
mod script;
pub(crate) mod target;
pub(crate) mod trace;
pub(crate) mod transaction;
pub(crate) mod wire;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::dialects::apigee::bundle::Retain;
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::program as plan;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::schema::Record;
use crate::plugins::apigee::flow::clients::Clients;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::program::{HttpWay, Program, RouteTo, Url, Way};
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};
use crate::plugins::apigee::flow::target::Composed;
use crate::plugins::apigee::flow::trace::{Finished, Trace};
use crate::plugins::apigee::flow::transaction::{Outcome, Transaction};
use crate::runtime::certificate_requests::CertificateRequest;
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::{Exchange, RequestBody, ResponseHolding};
use crate::runtime::fault::{Fault, LocalResponse};
use crate::runtime::head::ResponseHead;

/// Flows that run after their answer was sent, at once; further ones are left out and told.
const AFTER_MAX: usize = 1_024;
static AFTER: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(AFTER_MAX));
static TRACE: HeaderName = HeaderName::from_static(trace::HEADER);

/// The line in the table of plugins that no user configures.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new(plan::PLUGIN, 0, Record::new(Vec::new())),
        link,
    }
}

fn link(plan: &Arc<InstancePlan>, context: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let program: plan::Program =
        serde::Deserialize::deserialize(&plan.config).map_err(|error| error.to_string())?;
    Ok(match program {
        plan::Program::Nothing { virtual_host } => Arc::new(Nothing { virtual_host }),
        plan::Program::Proxy(plan_of_proxy) => {
            let program = Program::link(plan.id, *plan_of_proxy, context)?;
            match program.is_transparent {
                true => Arc::new(Transparent { program }),
                false => Arc::new(Flows { program }),
            }
        }
    })
}

/// Answers requests of a virtual host that no proxy wants.
struct Nothing {
    virtual_host: String,
}

impl Plugin for Nothing {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let path = String::from_utf8_lossy(exchange.raw_path());
        let text = format!(
            "Unable to identify proxy for host: {} and url: {path}",
            self.virtual_host
        );
        let code = "messaging.adaptors.http.flow.ApplicationNotFound";
        let json = HeaderValue::from_static("application/json");
        let answer = LocalResponse::new(http::StatusCode::NOT_FOUND)
            .header(CONTENT_TYPE, json)
            .body(fault::json(&text, code, None));
        Flow::Respond(Box::new(answer))
    }
}

/// A program that looks at nothing.
struct Transparent {
    program: Arc<Program>,
}

impl Transparent {
    fn way(&self) -> Option<&HttpWay> {
        match &self.program.routes.first()?.to {
            RouteTo::Url(way) => Some(way),
            RouteTo::Target(index) => match &self.program.targets.get(*index)?.way {
                Way::Http(way) => Some(way),
                Way::Local(_) | Way::Script(_) => None,
            },
            RouteTo::Nowhere => None,
        }
    }

    /// The request's new target: base, suffix, and both queries.
    fn compose(&self, exchange: &Exchange, way: &HttpWay) -> Option<Composed> {
        let forward = exchange.snapshot.forwards.get(&way.plan.forward)?;
        let path = wire::path(exchange);
        let (_, suffix) = entrance::split(&self.program.plan.base_path, &path);
        let own = exchange.query().map(String::from_utf8_lossy);
        let (base, query) = match &way.url {
            Some(Url::Fixed(url)) => (url.path.as_str(), url.query.clone()),
            _ => (
                way.path
                    .as_ref()
                    .and_then(|path| path.fixed())
                    .unwrap_or_default(),
                None,
            ),
        };
        let mut target = target::join(base, &suffix);
        if let Some(query) = target::joined_query(query, own.as_deref(), &Retain::default())
            && !query.is_empty()
        {
            target.push('?');
            target.push_str(&query);
        }
        Some(Composed {
            forward: Arc::clone(forward),
            target,
            host: None,
        })
    }
}

#[async_trait]
impl Plugin for Transparent {
    fn phases(&self) -> Phases {
        Phases::ACCESS
            .with(Phases::RESPONSE_HEAD)
            .with(Phases::FAULT)
    }

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let composed = self.way().and_then(|way| self.compose(exchange, way));
        let Some(composed) = composed else {
            let failed =
                fault::unavailable("the target cannot be used, see the log of its deployment");
            let answer = fault::default_response(&failed, Some(&wire::request(exchange)));
            return Flow::Respond(Box::new(wire::local(&answer)));
        };
        for (name, value) in wire::forwarded(exchange, false) {
            exchange.tell_upstream(name, Some(value));
        }
        wire::forward(exchange, None, &composed);
        if let Some(way) = self.way() {
            exchange.edits_mut().idle = idle(way);
        }
        Flow::Continue
    }

    async fn response_head(&self, exchange: &mut Exchange, head: &mut ResponseHead) -> Flow {
        match self.way().and_then(|way| refused_response(way, head)) {
            None => Flow::Continue,
            Some(failed) => {
                let answer = fault::default_response(&failed, Some(&wire::request(exchange)));
                Flow::Respond(Box::new(wire::local(&answer)))
            }
        }
    }

    async fn fault(&self, exchange: &mut Exchange, fault: &Fault) -> Option<LocalResponse> {
        let answer =
            fault::default_response(&fault::of_engine(fault), Some(&wire::request(exchange)));
        Some(wire::local(&answer))
    }
}

/// How long a target's connections are kept, where its properties say so.
fn idle(way: &HttpWay) -> Option<Duration> {
    let limit = way.plan.properties.keepalive_timeout_ms?;
    Some(Duration::from_millis(u64::from(limit)))
}

/// A 405 must say what is allowed, unless the target's properties let it pass.
fn refused_response(way: &HttpWay, head: &ResponseHead) -> Option<PolicyFault> {
    let bare = head.status() == http::StatusCode::METHOD_NOT_ALLOWED
        && !way.plan.properties.ignore_allow_header_for_405
        && !head.fields().contains(&ALLOW);
    bare.then(|| {
        PolicyFault::new(
            502,
            "protocol.http.Response405WithoutAllowHeader",
            "Received 405 Response without Allow Header",
        )
    })
}

/// A program with flows.
struct Flows {
    program: Arc<Program>,
}

/// The transaction between phases.
struct State(Mutex<Option<Box<Transaction>>>);

impl Flows {
    /// The certificate that the virtual host demands; none where it demands nothing.
    ///
    /// # Errors
    /// The answer for clients that are not let in.
    fn client_certificate(
        &self,
        exchange: &Exchange,
    ) -> Result<Option<Arc<ClientCertificate>>, Box<LocalResponse>> {
        let route = exchange.route.as_ref().map(|route| route.plan.id);
        let entrance = self.program.entrance(route);
        match entrance.and_then(|entrance| entrance.clients.as_ref()) {
            None => Ok(None),
            Some(clients) => clients.judge(exchange).map(Some),
        }
    }

    fn begin(
        &self,
        exchange: &mut Exchange,
        certificate: Option<Arc<ClientCertificate>>,
    ) -> Transaction {
        let program = &self.program;
        let mut request = wire::request(exchange);
        let own_address = program.plan.properties.forwards_own_address;
        for (name, value) in wire::forwarded(exchange, own_address) {
            request.headers.insert(name.name.clone(), value);
        }
        let route = exchange.route.as_ref().map(|route| route.plan.id);
        let entry = entrance::entry(program, route, &request.path);
        let inbound = wire::inbound(exchange, certificate);
        let mut scope = Scope::new(Arc::clone(&program.place), inbound, entry, request);
        if let Some(token) = exchange.request.fields().get(&TRACE)
            && program.traces.accepts(token)
        {
            scope.trace = Some(Box::new(Trace::new(exchange.started)));
            if let Some(request) = scope.message_mut(REQUEST) {
                request.headers.remove(&TRACE);
            }
        }
        Transaction::new(Arc::clone(program), scope)
    }

    fn refusal(&self, exchange: &Exchange) -> Option<PolicyFault> {
        let properties = &self.program.plan.properties;
        let method = exchange.request.method().as_str();
        if properties
            .refused_methods
            .iter()
            .any(|refused| refused == method)
        {
            return Some(PolicyFault::new(
                405,
                "protocol.http.MethodNotAllowed",
                format!("Method {method} is not allowed"),
            ));
        }
        let refused = match exchange.request.version() {
            http::Version::HTTP_10 => properties.refuses_http10,
            http::Version::HTTP_11 => properties.refuses_http11,
            _ => false,
        };
        refused.then(|| {
            PolicyFault::new(
                505,
                "protocol.http.UnsupportedVersion",
                "This version of HTTP is not allowed",
            )
        })
    }

    /// A POST or PUT must tell the length of its body, unless the target's properties let it pass.
    fn lacks_length(&self, exchange: &Exchange, transaction: &mut Transaction) -> bool {
        if exchange.request_body != RequestBody::Absent
            || exchange.request.fields().contains(&CONTENT_LENGTH)
        {
            return false;
        }
        let Some(frame) = transaction.top() else {
            return false;
        };
        let allowed = frame.http_way().map(|way| {
            let properties = &way.plan.properties;
            (
                properties.allow_post_without_length,
                properties.allow_put_without_length,
            )
        });
        let (post, put) = allowed.unwrap_or_default();
        frame.scope.message(REQUEST).is_some_and(|request| {
            request.content.is_empty()
                && match request.verb.as_ref() {
                    "POST" => !post,
                    "PUT" => !put,
                    _ => false,
                }
        })
    }

    /// Puts the answer into the coding that the proxy's properties ask for.
    async fn recode(&self, transaction: &mut Transaction) {
        let Some(wanted) = self.program.plan.properties.compression else {
            return;
        };
        let most = self.program.plan.handling.response_bytes_max;
        let recoded = transaction
            .answer()
            .map(|answer| coding::recode(answer, wanted, most));
        if let Some(Err(failed)) = recoded {
            transaction.fail(failed).await;
        }
    }

    /// The answer of a transaction that has one, as the gateway's own response.
    async fn local(&self, exchange: &mut Exchange, mut transaction: Transaction) -> LocalResponse {
        self.recode(&mut transaction).await;
        if let Some(frame) = transaction.outer() {
            frame.scope.times.client_sent_start = Some(Instant::now());
        }
        let answer = match transaction.answer() {
            Some(answer) => {
                wire::drop_hop_by_hop(&mut answer.headers);
                wire::local(answer)
            }
            None => wire::local(&Message::response()),
        };
        self.finish(exchange, transaction, answer.status.as_u16());
        answer
    }

    /// Keeps the trace, and the transaction for what runs after the answer was sent.
    fn finish(&self, exchange: &mut Exchange, mut transaction: Transaction, status: u16) {
        if let Some(frame) = transaction.outer()
            && let Some(trace) = frame.scope.trace.take()
        {
            let place = &self.program.place;
            self.program.traces.keep(Finished {
                request_id: exchange.request_id.to_string(),
                organization: place.organization.clone(),
                environment: place.environment.clone(),
                proxy: place.proxy.clone(),
                revision: place.revision,
                method: exchange.request.method().to_string(),
                path: String::from_utf8_lossy(exchange.raw_path()).into_owned(),
                status,
                events: trace.into_events(),
            });
        }
        if transaction.has_after() {
            put(exchange, transaction);
        }
    }

    /// Runs the response's side and writes the answer over the target's response.
    async fn respond(
        &self,
        exchange: &mut Exchange,
        head: &mut ResponseHead,
        body: Option<&mut Bytes>,
    ) -> Flow {
        let Some(mut transaction) = take(exchange) else {
            return Flow::Continue;
        };
        if body.is_none() && transaction.passes_on(head) {
            return Flow::Continue;
        }
        let content = body.as_deref().cloned().unwrap_or_default();
        let mut refused = None;
        if let Some(frame) = transaction.top() {
            frame.note_tries(exchange, true);
            let way = frame.http_way();
            refused = way.and_then(|way| refused_response(way, head));
        }
        match refused {
            Some(failed) => transaction.fail(failed).await,
            None => {
                let mut response = wire::response(head, content);
                if let Some(way) = transaction.top().and_then(|frame| frame.http_way()) {
                    let retain = &way.plan.properties.response_headers;
                    target::retain_headers(
                        &mut response,
                        retain,
                        &["content-type", "content-length", "content-encoding"],
                    );
                }
                transaction.respond(response).await;
            }
        }
        if body.is_some() {
            self.recode(&mut transaction).await;
        }
        let Some(answer) = transaction.answer() else {
            return Flow::Continue;
        };
        wire::drop_hop_by_hop(&mut answer.headers);
        match body {
            Some(body) => {
                wire::overwrite(answer, head);
                *body = answer.content.clone();
            }
            // The target's body streams past: an answer with a body of its own stands instead of the whole response.
            None if !answer.content.is_empty() => {
                return Flow::Respond(Box::new(self.local(exchange, *transaction).await));
            }
            None => wire::overwrite(answer, head),
        }
        if let Some(frame) = transaction.outer() {
            frame.scope.times.client_sent_start = Some(Instant::now());
        }
        self.finish(exchange, *transaction, head.status().as_u16());
        Flow::Continue
    }
}

fn put(exchange: &mut Exchange, transaction: impl Into<Box<Transaction>>) {
    exchange.stash(State(Mutex::new(Some(transaction.into()))));
}

fn take(exchange: &mut Exchange) -> Option<Box<Transaction>> {
    exchange.stashed_mut::<State>()?.0.get_mut().take()
}

#[async_trait]
impl Plugin for Flows {
    fn phases(&self) -> Phases {
        let mut phases = Phases::ACCESS_ASYNC.with(Phases::FAULT);
        phases = match self.program.plan.handling.holds_response {
            true => phases.with(Phases::MESSAGE),
            false => phases.with(Phases::RESPONSE_HEAD),
        };
        if !self.program.flows.post_client.is_empty() {
            phases = phases.with(Phases::LOG);
        }
        phases
    }

    fn needs(&self) -> Needs {
        Needs {
            request_body: self.program.plan.handling.holds_request,
            ..Needs::HEAD
        }
    }

    fn certificate_request(&self) -> Option<CertificateRequest> {
        let entrances = self.program.entrances.values();
        Clients::request(entrances.filter_map(|entrance| entrance.clients.as_ref()))
    }

    fn request_body_bytes_max(&self) -> Option<u64> {
        Some(self.program.plan.handling.request_bytes_max)
    }

    async fn access_async(&self, exchange: &mut Exchange) -> Flow {
        let certificate = match self.client_certificate(exchange) {
            Ok(certificate) => certificate,
            Err(refused) => return Flow::Respond(refused),
        };
        let mut transaction = self.begin(exchange, certificate);
        let outcome = match self.refusal(exchange) {
            Some(refused) => {
                transaction.fail(refused).await;
                Outcome::Answer
            }
            None => transaction.begin().await,
        };
        match outcome {
            Outcome::Answer => Flow::Respond(Box::new(self.local(exchange, transaction).await)),
            Outcome::Forward(_) if self.lacks_length(exchange, &mut transaction) => {
                transaction.fail(fault::length_required()).await;
                Flow::Respond(Box::new(self.local(exchange, transaction).await))
            }
            Outcome::Forward(composed) => {
                let limit = self.program.plan.handling.response_bytes_max;
                exchange.response_holding =
                    ResponseHolding::UpTo(usize::try_from(limit).unwrap_or(usize::MAX));
                if let Some(frame) = transaction.top() {
                    wire::forward(exchange, frame.scope.message(REQUEST), &composed);
                    exchange.edits_mut().idle = frame.http_way().and_then(idle);
                }
                put(exchange, transaction);
                Flow::Continue
            }
        }
    }

    async fn message(
        &self,
        exchange: &mut Exchange,
        head: &mut ResponseHead,
        body: &mut Bytes,
    ) -> Flow {
        self.respond(exchange, head, Some(body)).await
    }

    async fn response_head(&self, exchange: &mut Exchange, head: &mut ResponseHead) -> Flow {
        self.respond(exchange, head, None).await
    }

    async fn fault(&self, exchange: &mut Exchange, fault: &Fault) -> Option<LocalResponse> {
        // Without one the request's own body is what failed, before the first step.
        let mut transaction = match take(exchange) {
            Some(transaction) => *transaction,
            None => {
                if matches!(exchange.request_body, RequestBody::Held(_)) {
                    return None;
                }
                // Whoever has not shown what is demanded learns no more than that.
                match self.client_certificate(exchange) {
                    Ok(certificate) => self.begin(exchange, certificate),
                    Err(refused) => return Some(*refused),
                }
            }
        };
        if let Some(frame) = transaction.top() {
            frame.note_tries(exchange, false);
        }
        transaction.fail(fault::of_engine(fault)).await;
        Some(self.local(exchange, transaction).await)
    }

    fn log(&self, exchange: &Exchange) {
        let Some(state) = exchange.stashed::<State>() else {
            return;
        };
        let Some(transaction) = state.0.lock().take() else {
            return;
        };
        match AFTER.try_acquire() {
            Ok(permit) => {
                tokio::spawn(async move {
                    transaction.after().await;
                    drop(permit);
                });
            }
            Err(_) => tracing::warn!(
                proxy = self.program.place.proxy,
                "PostClientFlow left out: {AFTER_MAX} of them run already"
            ),
        }
    }
}
