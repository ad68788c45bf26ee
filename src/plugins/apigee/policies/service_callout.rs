//! `ServiceCallout`: asks another service in the middle of a flow, over HTTP or inside the process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::message_edits::{MessageEdits, Target};
use super::{Policy, PolicyLink};
use crate::dialects::apigee::bundle::is_success;
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::policies::service_callout::Config;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::call::{self, Call};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::program::{LocalWay, Way, link_way};
use crate::plugins::apigee::flow::target;
use crate::plugins::apigee::flow::transaction::Transaction;
use crate::runtime::client::Client;

const CODES: &str = "steps.servicecallout";
/// Calls that nobody waits for, at once in the whole process; further ones are left out and told.
const UNATTENDED_MAX: usize = 1_024;
static UNATTENDED: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(UNATTENDED_MAX);

struct ServiceCallout {
    name: Box<str>,
    config: Config,
    edits: MessageEdits,
    way: Way,
    client: Arc<Client>,
    /// Holds the name that the service's certificate must have, where it is not the host's.
    expected_name: VariableName,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let way = link.callout.ok_or("it leads nowhere")?;
    Ok(Box::new(ServiceCallout {
        name: link.name.into(),
        edits: MessageEdits::link(
            &config.edits,
            format!("ServiceCallout[{}]", link.name),
            CODES,
        )?,
        config,
        way: link_way(way, link.place, link.context)?,
        client: Arc::clone(link.context.client),
        expected_name: VariableName::new(&format!("servicecallout.{}.expectedcn", link.name)),
    }))
}

impl ServiceCallout {
    fn fault(&self, name: &str, message: String) -> PolicyFault {
        PolicyFault::new(500, format!("{CODES}.{name}"), message)
    }

    fn failed(&self, reason: &str) -> PolicyFault {
        let message = format!(
            "Execution of ServiceCallout {} failed. Reason: {reason}",
            self.name
        );
        self.fault("ExecutionFailed", message)
    }

    /// The message to send, edited.
    fn request(&self, flow: &mut FlowContext<'_>) -> Result<Message, PolicyFault> {
        let name = self.config.request.as_str();
        let mut request = match flow.message_named(name) {
            Some(message) if message.is_request() => message.clone(),
            Some(_) => {
                let message = format!(
                    "ServiceCallout[{}]: request variable {name} value is not of type Request Message",
                    self.name
                );
                return Err(self.fault("RequestVariableNotRequestMessageType", message));
            }
            None if self.config.is_named && flow.value(name).is_some() => {
                let message = format!(
                    "ServiceCallout[{}]: request variable {name} value is not of type Message",
                    self.name
                );
                return Err(self.fault("RequestVariableNotMessageType", message));
            }
            None => Message {
                path: String::new(),
                ..Message::request()
            },
        };
        self.edits.apply(flow, Some(Target::Own(&mut request)))?;
        if self.config.is_named && self.config.clear_payload && name != "request" {
            let mut emptied = request.clone();
            emptied.replace_content(bytes::Bytes::new());
            flow.put_message(name, emptied)
                .map_err(|error| PolicyFault::of_write(CODES, &error))?;
        }
        Ok(request)
    }

    async fn over_http(
        &self,
        flow: &mut FlowContext<'_>,
        request: Message,
    ) -> Result<(), PolicyFault> {
        let Way::Http(way) = &self.way else {
            return Err(self.failed("it leads nowhere"));
        };
        let (mut forward, base) = target::callout(flow.program, flow, way)?;
        if let Some(name) = flow.text(&self.expected_name) {
            forward = target::expecting(flow.program, forward, &name)?;
        }
        // What is called is the URL's own path; a path that was set on the message follows it.
        let own = match self.config.is_named && self.config.request == "request" {
            true => "",
            false => request.path.as_str(),
        };
        let own = if own == "/" { "" } else { own };
        let mut path = target::join(&base.path, own);
        let retain = &way.plan.properties.query_parameters;
        let query = target::joined_query(base.query.clone(), request.query.as_deref(), retain);
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            path.push('?');
            path.push_str(&query);
        }
        let scheme = if forward.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let host = &forward.plan.host;
        flow.set_own(
            &format!("servicecallout.{}.target.url", self.name),
            format!("{scheme}://{host}{path}"),
        );
        flow.set_own("servicecallout.requesturi", path.clone());
        let properties = &way.plan.properties;
        let timeout = self
            .config
            .timeout_ms
            .min(u64::from(properties.io_timeout_ms));
        let timeout = Duration::from_millis(timeout);
        let left = target::time_left(flow.program, flow);
        let call = Call {
            forward,
            target: path,
            connect: Duration::from_millis(u64::from(properties.connect_timeout_ms)),
            total: left.map_or(timeout, |left| left.min(timeout)),
            body_bytes_max: usize::try_from(properties.response_payload_bytes_max)
                .unwrap_or(usize::MAX),
        };
        let Some(response) = &self.config.response else {
            let client = Arc::clone(&self.client);
            match UNATTENDED.try_acquire() {
                Ok(permit) => {
                    tokio::spawn(async move {
                        if let Err(error) = call::send(&client, &call, &request).await {
                            tracing::info!("a callout that nobody waits for failed: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(_) => tracing::warn!("callout left out: {UNATTENDED_MAX} run already"),
            }
            return Ok(());
        };
        let answer = call::send(&self.client, &call, &request).await;
        let answer = answer.map_err(|error| match error.is_timeout() {
            true => self.failed(&format!("timeout occurred in {}", self.name)),
            false => {
                tracing::info!(policy = &*self.name, "{error}");
                self.failed(&error.to_string())
            }
        })?;
        let status = answer.status;
        flow.put_message(response, answer)
            .map_err(|error| PolicyFault::of_write(CODES, &error))?;
        match is_success(&properties.success_codes, status) {
            true => Ok(()),
            false => Err(self.failed(&format!("ResponseCode {status} is treated as error"))),
        }
    }

    async fn inside(
        &self,
        flow: &mut FlowContext<'_>,
        way: &LocalWay,
        request: Message,
    ) -> Result<(), PolicyFault> {
        let (program, scope) = call::local(flow.program, flow, way, request)?;
        let transaction = Transaction::new(program, scope);
        let limit = Duration::from_millis(self.config.timeout_ms);
        let running = Box::pin(call::run(&self.client, transaction));
        let answer = match tokio::time::timeout(limit, running).await {
            Ok(answer) => answer,
            Err(_) => return Err(self.failed(&format!("timeout occurred in {}", self.name))),
        };
        let status = answer.status;
        if let Some(name) = &self.config.response {
            flow.put_message(name, answer)
                .map_err(|error| PolicyFault::of_write(CODES, &error))?;
        }
        match is_success(&[], status) {
            true => Ok(()),
            false => Err(self.failed(&format!("ResponseCode {status} is treated as error"))),
        }
    }
}

#[async_trait]
impl Policy for ServiceCallout {
    fn waits(&self) -> bool {
        true
    }

    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let request = self.request(flow)?;
        match &self.way {
            Way::Http(_) => self.over_http(flow, request).await?,
            Way::Local(way) => self.inside(flow, way, request).await?,
            // The dialect has no callout of this kind.
            Way::Script(_) => return Err(self.failed("it leads nowhere")),
        }
        Ok(Next::Continue)
    }
}
