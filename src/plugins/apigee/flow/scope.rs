//! The variables and messages of one proxy's execution.
//!
//! Owns the values: messages in a list with numbers, custom variables in a map, and what the built-in variables are
//! computed from when somebody reads them ([`crate::plugins::apigee::flow::catalogue`]). Refuses to know which step runs
//! when. A chained proxy has a scope of its own.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use ahash::AHashMap;

use crate::dialects::apigee::message::{Message, Property, WriteError};
use crate::dialects::apigee::template::{Template, Unresolved};
use crate::dialects::apigee::variables::{MessageHandle, Value, VariableName, Variables, text_of};
use crate::plugins::apigee::flow::catalogue;
use crate::plugins::apigee::flow::trace::Trace;
use crate::plugins::apigee::policies::Place;
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::connection::Connection;
use crate::runtime::exchange::RequestId;
use crate::runtime::snapshot::Snapshot;

/// The message `request`.
pub(crate) const REQUEST: MessageHandle = MessageHandle(0);
/// The message `response`.
pub(crate) const RESPONSE: MessageHandle = MessageHandle(1);
/// The message `error`.
pub(crate) const ERROR: MessageHandle = MessageHandle(2);

/// Most custom variables of one execution.
const VARIABLES_MAX: usize = 10_000;
/// Most layers of one execution; then their variables are copied.
const LAYERS_MAX: usize = 16;
/// Most messages of one execution.
const MESSAGES_MAX: usize = 1_000;

/// Which flow runs: it decides what `message` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
    Error,
}

/// What is known of the request as it came in; shared with chained executions.
pub(crate) struct Inbound {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) connection: Arc<Connection>,
    /// What the virtual host demanded and accepted.
    pub(crate) client_certificate: Option<Arc<ClientCertificate>>,
    pub(crate) client_address: IpAddr,
    pub(crate) secure: bool,
    pub(crate) request_id: RequestId,
    pub(crate) started: Instant,
    pub(crate) host: Box<str>,
}

/// The endpoint that was called, with the path's parts.
pub(crate) struct Entry {
    /// The proxy endpoint's name.
    pub(crate) endpoint: Arc<str>,
    /// The base path with asterisks replaced by what they stand for.
    pub(crate) base_path: String,
    /// The rest of the path: empty, or from its first slash.
    pub(crate) suffix: String,
    /// The base path as the bundle has it.
    pub(crate) configured_base_path: Arc<str>,
    pub(crate) virtual_host: Arc<str>,
    pub(crate) virtual_host_aliases: Arc<[String]>,
    pub(crate) virtual_host_tls: bool,
}

/// Where the request is going, from the target request flow on.
#[derive(Debug, Clone, Default)]
pub(crate) struct TargetFacts {
    pub(crate) name: Box<str>,
    /// `target.url`: the base URL, until a policy writes another one.
    pub(crate) url: Option<String>,
    /// A policy has written `target.url`.
    pub(crate) url_written: bool,
    pub(crate) scheme: &'static str,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) base_path: String,
    /// The name that its certificate must have, where it is not the host's (`target.expectedcn`).
    pub(crate) expected_name: Option<String>,
    /// Path and query as sent, once the request was sent.
    pub(crate) sent: Option<String>,
    /// Address of the server that answered.
    pub(crate) address: Option<IpAddr>,
    pub(crate) server: Option<Box<str>>,
    pub(crate) failed_servers: Vec<String>,
    pub(crate) is_fallback: bool,
}

/// The fault that put the execution in its error state.
#[derive(Debug, Clone)]
pub(crate) struct FaultFacts {
    pub(crate) name: Cow<'static, str>,
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) reason: Option<String>,
    /// `Step`, `Messaging`, `Transport`…
    pub(crate) category: &'static str,
    /// Where it happened: `error.state`.
    pub(crate) state: &'static str,
}

/// Points in time, as far as reached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) target_sent_start: Option<Instant>,
    pub(crate) target_sent_end: Option<Instant>,
    pub(crate) target_received_start: Option<Instant>,
    pub(crate) target_received_end: Option<Instant>,
    pub(crate) client_sent_start: Option<Instant>,
    pub(crate) client_sent_end: Option<Instant>,
}

/// Variables that many executions share, because they are always the same together: what a key stands for.
pub(crate) type Layer = AHashMap<Box<str>, Value<'static>>;

/// Names of the flows that every endpoint has.
pub(crate) static PRE_FLOW: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("PreFlow"));
pub(crate) static POST_FLOW: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("PostFlow"));

/// See the module.
pub(crate) struct Scope {
    pub(crate) place: Arc<Place>,
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) entry: Entry,
    pub(crate) side: Side,
    /// A flow of the target endpoint runs.
    pub(crate) at_target: bool,
    /// The flow that runs, with its description.
    pub(crate) flow_name: Arc<str>,
    pub(crate) flow_description: Option<Arc<str>>,
    pub(crate) route: Option<(Arc<str>, Option<Arc<str>>)>,
    pub(crate) target: Option<Box<TargetFacts>>,
    pub(crate) fault: Option<Box<FaultFacts>>,
    pub(crate) times: Times,
    pub(crate) copies_path_suffix: bool,
    pub(crate) copies_query_parameters: bool,
    /// How deep chained proxies and shared flows are nested.
    pub(crate) depth: u32,
    pub(crate) trace: Option<Box<Trace>>,
    /// Header fields that the answer gets whoever makes it, instead of its own.
    pub(crate) answer_fields: Vec<(http::HeaderName, http::HeaderValue)>,
    messages: Vec<Option<Message>>,
    custom: AHashMap<Box<str>, Value<'static>>,
    /// Below the custom variables; a later one covers earlier ones.
    layers: Vec<Arc<Layer>>,
}

impl Scope {
    /// A scope at the beginning of its request flow.
    pub(crate) fn new(
        place: Arc<Place>,
        inbound: Arc<Inbound>,
        entry: Entry,
        request: Message,
    ) -> Self {
        Self {
            place,
            inbound,
            entry,
            side: Side::Request,
            at_target: false,
            flow_name: Arc::clone(&PRE_FLOW),
            flow_description: None,
            route: None,
            target: None,
            fault: None,
            times: Times::default(),
            copies_path_suffix: true,
            copies_query_parameters: true,
            depth: 0,
            trace: None,
            answer_fields: Vec::new(),
            messages: vec![Some(request), None, None],
            custom: AHashMap::new(),
            layers: Vec::new(),
        }
    }

    /// An empty scope of the same execution, to stand in while this one is lent.
    pub(crate) fn hollow(&self) -> Self {
        let entry = Entry {
            endpoint: Arc::clone(&self.entry.endpoint),
            base_path: String::new(),
            suffix: String::new(),
            configured_base_path: Arc::clone(&self.entry.configured_base_path),
            virtual_host: Arc::clone(&self.entry.virtual_host),
            virtual_host_aliases: Arc::clone(&self.entry.virtual_host_aliases),
            virtual_host_tls: self.entry.virtual_host_tls,
        };
        let (place, inbound) = (Arc::clone(&self.place), Arc::clone(&self.inbound));
        Self {
            side: self.side,
            depth: self.depth,
            ..Self::new(place, inbound, entry, Message::request())
        }
    }

    /// The value of a variable, taken apart each time: policies keep [`VariableName`]s.
    pub(crate) fn value(&self, name: &str) -> Option<Value<'_>> {
        self.variable(&VariableName::new(name))
    }

    /// A variable's value, owned, so that the scope can be changed meanwhile.
    pub(crate) fn owned(&self, name: &VariableName) -> Option<Value<'static>> {
        self.variable(name).map(Value::into_owned)
    }

    /// A variable as text; a message reads as its body.
    pub(crate) fn text(&self, name: &VariableName) -> Option<Cow<'_, str>> {
        self.variable(name).map(|value| text_of(value, self))
    }

    /// A template filled; what is unset is empty.
    pub(crate) fn fill(&self, template: &Template) -> String {
        let text = template.render(self, Unresolved::Empty);
        text.map(Cow::into_owned).unwrap_or_default()
    }

    /// Writes a variable.
    ///
    /// # Errors
    /// When nobody may write it, or the value does not fit.
    pub(crate) fn set(&mut self, name: &VariableName, value: Value<'_>) -> Result<(), WriteError> {
        if let Some(trace) = &mut self.trace {
            trace.written(name.as_str(), &value);
        }
        if let Some((message, property)) = name.of_message()
            && let Some(handle) = self.writable_message(message)
        {
            let text = match &value {
                Value::Message(other) => {
                    let other = self.message(*other);
                    Cow::Owned(other.map(|it| it.text().into_owned()).unwrap_or_default())
                }
                other => Cow::Owned(other.as_text().into_owned()),
            };
            if let Some(Some(message)) = self.messages.get_mut(handle.0 as usize) {
                return message.write(property, &text);
            }
        }
        if let Some(written) = catalogue::write(self, name, &value) {
            return written;
        }
        let key = name.as_str();
        if self.custom.len() >= VARIABLES_MAX && !self.custom.contains_key(key) {
            return Err(WriteError::Unfit {
                property: key.into(),
                reason: "there are too many variables",
            });
        }
        self.custom.insert(key.into(), value.into_owned());
        Ok(())
    }

    /// Writes a variable of a policy's own: cannot fail but for the number of variables, which is then passed over.
    pub(crate) fn set_own(&mut self, name: &str, value: impl Into<Value<'static>>) {
        let _ = self.set(&VariableName::new(name), value.into());
    }

    /// Sets many variables at once, without a copy of them.
    pub(crate) fn lay(&mut self, layer: Arc<Layer>) {
        if let Some(trace) = &mut self.trace {
            for (name, value) in layer.iter() {
                trace.written(name, value);
            }
        }
        self.custom.retain(|name, _| !layer.contains_key(name));
        if self.layers.len() >= LAYERS_MAX {
            self.copy_layers();
        }
        self.layers.push(layer);
    }

    /// Makes the variables of layers custom ones.
    fn copy_layers(&mut self) {
        for layer in std::mem::take(&mut self.layers).into_iter().rev() {
            for (name, value) in layer.iter() {
                if self.custom.len() < VARIABLES_MAX && !self.custom.contains_key(name) {
                    self.custom.insert(name.clone(), value.clone());
                }
            }
        }
    }

    /// Removes a variable. Tells whether there was one.
    ///
    /// # Errors
    /// When it is of a kind that cannot be removed.
    pub(crate) fn remove(&mut self, name: &VariableName) -> Result<bool, WriteError> {
        if let Some((message, property)) = name.of_message()
            && let Some(handle) = self.handle(message)
            && let Some(Some(message)) = self.messages.get_mut(handle.0 as usize)
        {
            return message.remove(property);
        }
        if self
            .layers
            .iter()
            .any(|layer| layer.contains_key(name.as_str()))
        {
            self.copy_layers();
        }
        Ok(self.custom.remove(name.as_str()).is_some())
    }

    /// Which message is current.
    pub(crate) fn current(&self) -> MessageHandle {
        match self.side {
            Side::Request => REQUEST,
            Side::Response => RESPONSE,
            Side::Error => ERROR,
        }
    }

    /// The message of this name: `request`, `response`, `error`, `message`, or a variable that is one.
    pub(crate) fn handle(&self, name: &str) -> Option<MessageHandle> {
        let handle = match name {
            "request" => REQUEST,
            // In the error flow both names stand for what the client is going to get.
            "response" if self.side == Side::Error => ERROR,
            "response" => RESPONSE,
            "error" => ERROR,
            "message" => self.current(),
            _ => match self.custom.get(name)? {
                Value::Message(handle) => *handle,
                _ => return None,
            },
        };
        self.message(handle).map(|_| handle)
    }

    /// A message by its number.
    pub(crate) fn message(&self, handle: MessageHandle) -> Option<&Message> {
        self.messages.get(handle.0 as usize)?.as_ref()
    }

    /// A message by its number, to change it.
    pub(crate) fn message_mut(&mut self, handle: MessageHandle) -> Option<&mut Message> {
        self.messages.get_mut(handle.0 as usize)?.as_mut()
    }

    /// A message by its name.
    pub(crate) fn message_named(&self, name: &str) -> Option<&Message> {
        self.message(self.handle(name)?)
    }

    /// Puts a message under a name, in place of what has it.
    ///
    /// # Errors
    /// When there are too many messages.
    pub(crate) fn put_message(
        &mut self,
        name: &str,
        message: Message,
    ) -> Result<MessageHandle, WriteError> {
        let fixed = match name {
            "request" => Some(REQUEST),
            "response" if self.side == Side::Error => Some(ERROR),
            "response" => Some(RESPONSE),
            "error" => Some(ERROR),
            "message" => Some(self.current()),
            _ => None,
        };
        if let Some(handle) = fixed {
            self.replace(handle, message);
            return Ok(handle);
        }
        if self.messages.len() >= MESSAGES_MAX {
            return Err(WriteError::Unfit {
                property: name.into(),
                reason: "there are too many messages",
            });
        }
        let handle = MessageHandle(u32::try_from(self.messages.len()).unwrap_or(u32::MAX));
        self.messages.push(Some(message));
        self.custom.insert(name.into(), Value::Message(handle));
        Ok(handle)
    }

    /// Puts a message under its number.
    pub(crate) fn replace(&mut self, handle: MessageHandle, message: Message) {
        if let Some(slot) = self.messages.get_mut(handle.0 as usize) {
            *slot = Some(message);
        }
    }

    /// The message that a property is written to. Writing to a response that is not there yet makes one.
    fn writable_message(&mut self, name: &str) -> Option<MessageHandle> {
        let handle = match name {
            "response" if self.side != Side::Error => RESPONSE,
            "message" if self.side == Side::Response => RESPONSE,
            _ => return self.handle(name),
        };
        if self.message(handle).is_none() {
            self.replace(handle, Message::response());
        }
        Some(handle)
    }
}

impl Variables for Scope {
    fn variable(&self, name: &VariableName) -> Option<Value<'_>> {
        let value = self.read(name);
        if let Some(trace) = &self.trace {
            trace.read(name.as_str(), value.as_ref());
        }
        value
    }

    fn message_text(&self, message: MessageHandle) -> Option<Cow<'_, str>> {
        self.message(message).map(Message::text)
    }
}

impl Scope {
    fn read(&self, name: &VariableName) -> Option<Value<'_>> {
        if let Some((message, property)) = name.of_message()
            && let Some(handle) = self.handle(message)
        {
            if let Some(value) = self.sent_instead(handle, property) {
                return Some(value);
            }
            return self.message(handle)?.read(property);
        }
        if !self.custom.is_empty()
            && let Some(value) = self.custom.get(name.as_str())
        {
            return Some(value.borrowed());
        }
        for layer in self.layers.iter().rev() {
            if let Some(value) = layer.get(name.as_str()) {
                return Some(value.borrowed());
            }
        }
        if let Some(handle) = self.handle(name.as_str()) {
            return Some(Value::Message(handle));
        }
        catalogue::read(self, name.as_str())
    }

    /// `request.path` and `request.uri` tell what the target was sent, once it was.
    fn sent_instead(&self, handle: MessageHandle, property: &Property) -> Option<Value<'_>> {
        if handle != REQUEST {
            return None;
        }
        let sent = self.target.as_deref()?.sent.as_deref()?;
        match property {
            Property::Uri => Some(sent.into()),
            Property::Path => Some(sent.split('?').next().unwrap_or(sent).into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::plugins::apigee::policies::test_support::{scope, text};

    #[test]
    fn layers_are_covered_by_what_is_set_later() {
        let layer = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).to_owned().into()));
            Arc::new(pairs.collect::<Layer>())
        };
        let mut scope = scope();
        scope.set_own("a", "custom".to_owned());
        scope.lay(layer(&[("a", "1"), ("b", "1"), ("c", "1")]));
        assert_eq!(text(&scope, "a").as_deref(), Some("1"));
        scope.set_own("b", "custom".to_owned());
        assert_eq!(text(&scope, "b").as_deref(), Some("custom"));
        scope.lay(layer(&[("b", "2")]));
        assert_eq!(text(&scope, "b").as_deref(), Some("2"));
        assert!(scope.remove(&VariableName::new("b")).unwrap());
        let all = ["a", "b", "c"].map(|name| text(&scope, name));
        assert_eq!(all, [Some("1".to_owned()), None, Some("1".to_owned())]);
        for number in 0..2 * LAYERS_MAX {
            scope.lay(layer(&[("n", &number.to_string())]));
        }
        assert_eq!(text(&scope, "n"), Some((2 * LAYERS_MAX - 1).to_string()));
        assert_eq!(text(&scope, "c").as_deref(), Some("1"));
    }
}
