//! `GenerateJWT`, `VerifyJWT`, `DecodeJWT` and the same three for JWS: signed tokens with claims, and with anything.
//!
//! Signatures are `base::jose`'s. Start at [`Token`].

mod check;
mod generate;
mod keys;
#[cfg(test)]
mod tests;
mod variables;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use super::{Policy, PolicyLink};
use crate::base::jose::{KeyError, SigningKey, VerifyingKey};
use crate::dialects::apigee::policies::jwt::{Action, Claim, ClaimType, Config, Key, Kind};
use crate::dialects::apigee::policies::texts::RefOrText;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use crate::plugins::shared::remote_keys::RemoteKeys;
use keys::Last;

/// One of the six policies; see the module.
struct Token {
    name: String,
    config: Config,
    remote: Option<Arc<RemoteKeys>>,
    signing: Last<Arc<SigningKey>>,
    verifying: Last<VerifyingKey>,
    sets: Last<Arc<crate::base::jose::KeySet>>,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let remote = match &config.key {
        Some(Key::KeySetUrl(_)) => Some(RemoteKeys::of(link.context)?),
        _ => None,
    };
    Ok(Box::new(Token::build(link.name, config, remote)))
}

impl Token {
    fn build(name: &str, config: Config, remote: Option<Arc<RemoteKeys>>) -> Self {
        Self {
            name: name.to_owned(),
            config,
            remote,
            signing: Last::default(),
            verifying: Last::default(),
            sets: Last::default(),
        }
    }

    /// `jwt` or `jws`.
    fn word(&self) -> &'static str {
        match self.config.kind {
            Kind::Jwt => "jwt",
            Kind::Jws => "jws",
        }
    }

    fn fault(&self, name: &str, message: impl Into<String>) -> PolicyFault {
        let status = match self.config.action {
            Action::Generate => 500,
            Action::Verify | Action::Decode => 401,
        };
        let message = format!("{}: policy({})", message.into(), self.name);
        PolicyFault::new(status, format!("steps.{}.{name}", self.word()), message)
    }

    fn key_fault(&self, error: &KeyError) -> PolicyFault {
        let name = match error {
            KeyError::TooShort(..) => "InsufficientKeyLength",
            KeyError::WrongKind(_) => "WrongKeyType",
            KeyError::WrongCurve(_) => "InvalidCurve",
            KeyError::WrongPassphrase => "InvalidPasswordKey",
            KeyError::Unreadable(_) => match &self.config.key {
                Some(Key::Private { .. }) => "InvalidPrivateKey",
                Some(Key::Secret { .. }) => "InvalidSecretKey",
                Some(Key::Public(_)) => "InvalidPublicKey",
                _ => "KeyParsingFailed",
            },
        };
        self.fault(name, error.to_string())
    }

    /// A variable's text, when it is set and not blank.
    fn text(&self, scope: &Scope, name: &str) -> Option<String> {
        let text = scope.text(&VariableName::new(name))?;
        (!text.trim().is_empty()).then(|| text.into_owned())
    }

    fn unresolved(&self, name: &str) -> PolicyFault {
        self.fault(
            "FailedToResolveVariable",
            format!("Failed to resolve variable {name}"),
        )
    }

    /// What an element says; none when it is not written, or unset and that is to be passed over.
    fn said(&self, scope: &Scope, part: &RefOrText) -> Result<Option<String>, PolicyFault> {
        let reference = part.reference.as_deref();
        let found = reference.and_then(|name| self.text(scope, name));
        match (found.or_else(|| part.text.clone()), reference) {
            (Some(text), _) => Ok(Some(text)),
            (None, Some(name)) if !self.config.ignores_unresolved => Err(self.unresolved(name)),
            (None, _) => Ok(None),
        }
    }

    /// Claims or headers that a policy adds or expects.
    fn members(
        &self,
        scope: &Scope,
        list: &[Claim],
        variable: Option<&str>,
    ) -> Result<Map<String, Json>, PolicyFault> {
        let mut members = Map::new();
        if let Some(name) = variable {
            match self.text(scope, name) {
                Some(text) => match serde_json::from_str(&text) {
                    Ok(Json::Object(all)) => members = all,
                    _ => {
                        let message = format!("variable {name} holds no JSON object");
                        return Err(self.fault("InvalidJsonFormat", message));
                    }
                },
                None if self.config.ignores_unresolved => {}
                None => return Err(self.unresolved(name)),
            }
        }
        for claim in list {
            if let Some(text) = self.said(scope, &claim.value)? {
                let value = value_of(claim, &text).ok_or_else(|| {
                    let message = format!("the value of {} is not of its type", claim.name);
                    self.fault("InvalidClaim", message)
                })?;
                members.insert(claim.name.clone(), value);
            }
        }
        Ok(members)
    }

    /// What is written before the variables of the policy.
    fn prefix(&self) -> String {
        format!("{}.{}.", self.word(), self.name)
    }
}

/// A claim's value of its type; none when the text is not of that type.
fn value_of(claim: &Claim, text: &str) -> Option<Json> {
    let one = |text: &str| -> Option<Json> {
        match claim.kind {
            ClaimType::Text => Some(text.into()),
            ClaimType::Number => {
                let number: serde_json::Number = text.trim().parse().ok()?;
                Some(number.into())
            }
            ClaimType::Boolean => match text.trim() {
                word if word.eq_ignore_ascii_case("true") => Some(true.into()),
                word if word.eq_ignore_ascii_case("false") => Some(false.into()),
                _ => None,
            },
            ClaimType::Map => {
                let value: Json = serde_json::from_str(text).ok()?;
                (value.is_object() || value.is_array()).then_some(value)
            }
        }
    };
    match (claim.is_list, claim.kind) {
        (false, _) => one(text),
        (true, ClaimType::Map) => one(text).filter(Json::is_array),
        (true, _) => {
            let members: Option<Vec<Json>> = text
                .trim()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .split(',')
                .map(|member| one(member.trim()))
                .collect();
            members.map(Json::Array)
        }
    }
}

#[async_trait]
impl Policy for Token {
    fn waits(&self) -> bool {
        self.remote.is_some()
    }

    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        match self.config.action {
            Action::Generate => self.generate(flow.scope),
            Action::Verify => self.verify(flow.scope),
            Action::Decode => self.decode(flow.scope),
        }
    }

    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.verify_remotely(flow.scope).await
    }
}
