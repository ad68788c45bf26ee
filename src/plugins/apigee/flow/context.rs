//! What a policy may see and change, and how it ends.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::dialects::apigee::message::{Message, WriteError};
use crate::plugins::apigee::flow::program::{LinkedPolicy, Program};
use crate::plugins::apigee::flow::scope::Scope;

/// A policy's view of the transaction: its variables and messages (through [`Scope`]), and who it is.
pub(crate) struct FlowContext<'a> {
    pub(crate) scope: &'a mut Scope,
    /// The program that runs.
    pub(crate) program: &'a Arc<Program>,
    /// The policy that runs.
    pub(crate) policy: &'a LinkedPolicy,
}

impl FlowContext<'_> {
    /// The policy's name.
    pub(crate) fn name(&self) -> &str {
        &self.policy.name
    }
}

impl Deref for FlowContext<'_> {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        self.scope
    }
}

impl DerefMut for FlowContext<'_> {
    fn deref_mut(&mut self) -> &mut Scope {
        self.scope
    }
}

/// What happens after a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Continue,
    /// The message `response` goes to the client at once, no further step runs (a preflight's answer).
    Answer,
    /// No target is asked: the message `response` goes on with the steps of the response's side, after this policy's
    /// own attachment there (a cache hit).
    AnswerFromHere,
}

/// Why a policy failed.
#[derive(Debug, Clone)]
pub(crate) struct PolicyFault {
    /// `fault.name`, the last part of the code.
    pub(crate) name: Cow<'static, str>,
    /// The whole `errorcode`: `steps.oauth.v2.FailedToResolveAPIKey`.
    pub(crate) code: Cow<'static, str>,
    /// The `faultstring`.
    pub(crate) message: String,
    pub(crate) status: u16,
    /// `fault.reason`; none is the message.
    pub(crate) reason: Option<String>,
    /// The response that stands instead of the default one, with its own status (RaiseFault).
    pub(crate) response: Option<Box<Message>>,
    /// It ends the flow even where errors are to be passed over, and it ends an error flow at once (RaiseFault).
    pub(crate) is_raised: bool,
}

impl PolicyFault {
    /// A fault by its whole code, whose last part is the name.
    pub(crate) fn new(
        status: u16,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let code = code.into();
        let name = match &code {
            Cow::Borrowed(code) => Cow::Borrowed(code.rsplit('.').next().unwrap_or(code)),
            Cow::Owned(code) => Cow::Owned(code.rsplit('.').next().unwrap_or(code).to_owned()),
        };
        Self {
            name,
            code,
            message: message.into(),
            status,
            reason: None,
            response: None,
            is_raised: false,
        }
    }

    /// A variable could not be written; `prefix` is that of the policy's codes: `steps.assignmessage`.
    pub(crate) fn of_write(prefix: &str, error: &WriteError) -> Self {
        let name = match error {
            WriteError::ReadOnly(_) => "ImmutableVariable",
            WriteError::Unfit { .. } => "SetVariableFailed",
        };
        Self::new(500, format!("{prefix}.{name}"), error.to_string())
    }
}
