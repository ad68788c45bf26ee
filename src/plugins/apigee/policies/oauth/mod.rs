//! `OAuthV2` and its kin: tokens of apps.
//!
//! One file for each side of it: who asks (`client`), what is issued (`issue`, `code`), what is taken (`check`), what
//! becomes of tokens afterwards (`status`, `info`), how a client is told (`answer`, `refusal`), and where tokens are
//! (`store`). Start at [`OAuth`].

mod answer;
mod check;
mod client;
mod code;
pub(super) mod info;
mod issue;
mod refusal;
mod status;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use super::keys::KeyTable;
use super::{Policy, PolicyLink};
use crate::dialects::apigee::oauth::{NEVER, TokenAttribute};
use crate::dialects::apigee::policies::oauth_v2::{Attribute, Config, Locations, Operation};
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use refusal::Refusal;
use store::TokenStore;

/// Longest value of a token's attribute, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 16 * 1024;

/// The policy; see the module.
struct OAuth {
    name: String,
    config: Config,
    variables: LocationVariables,
    keys: Arc<KeyTable>,
    store: TokenStore,
}

/// The locations, taken apart once.
struct LocationVariables {
    client_id: VariableName,
    grant_type: VariableName,
    code: VariableName,
    redirect_uri: VariableName,
    refresh_token: VariableName,
    response_type: VariableName,
    scope: VariableName,
    state: VariableName,
    user_name: VariableName,
    password: VariableName,
    app_end_user: Option<VariableName>,
    access_token: Option<VariableName>,
}

impl LocationVariables {
    fn of(locations: &Locations, access_token: Option<&str>) -> Self {
        let name = |text: &String| VariableName::new(text);
        Self {
            client_id: name(&locations.client_id),
            grant_type: name(&locations.grant_type),
            code: name(&locations.code),
            redirect_uri: name(&locations.redirect_uri),
            refresh_token: name(&locations.refresh_token),
            response_type: name(&locations.response_type),
            scope: name(&locations.scope),
            state: name(&locations.state),
            user_name: name(&locations.user_name),
            password: name(&locations.password),
            app_end_user: locations.app_end_user.as_ref().map(name),
            access_token: access_token.map(VariableName::new),
        }
    }
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let live = link.context.live;
    Ok(Box::new(OAuth::build(
        link.name,
        link.config()?,
        KeyTable::of(live),
        TokenStore::of(live),
    )))
}

impl OAuth {
    fn build(name: &str, config: Config, keys: Arc<KeyTable>, store: TokenStore) -> Self {
        Self {
            name: name.to_owned(),
            variables: LocationVariables::of(&config.locations, config.access_token.as_deref()),
            config,
            keys,
            store,
        }
    }

    /// What a client sent under one of the locations; blank is nothing.
    fn given(&self, scope: &Scope, name: &VariableName) -> Option<String> {
        let text = scope.text(name)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// As [`OAuth::given`]; what is missing is named as clients know it.
    fn required(
        &self,
        scope: &Scope,
        name: &VariableName,
        parameter: &str,
    ) -> Result<String, Refusal> {
        self.given(scope, name)
            .ok_or_else(|| Refusal::missing(parameter))
    }

    /// The policy's attributes as they stand now.
    fn attributes(&self, scope: &Scope) -> Result<Vec<TokenAttribute>, Refusal> {
        attributes_of(&self.config.attributes, scope)
    }

    async fn run(&self, scope: &mut Scope) -> Result<(), Refusal> {
        match self.config.operation {
            Operation::VerifyAccessToken => self.verify(scope),
            Operation::GenerateAccessToken => self.generate(scope).await,
            Operation::RefreshAccessToken => self.refresh(scope).await,
            Operation::GenerateAuthorizationCode => self.generate_code(scope).await,
            Operation::GenerateAccessTokenImplicitGrant => self.generate_implicit(scope).await,
            Operation::ValidateToken | Operation::InvalidateToken => self.change(scope).await,
        }
    }

    /// How the policy ends.
    fn end(&self, scope: &mut Scope, outcome: Result<(), Refusal>) -> Result<Next, PolicyFault> {
        let refusal = match outcome {
            Ok(()) => {
                scope.set_own(&format!("oauthV2.{}.failed", self.name), false);
                return Ok(Next::Continue);
            }
            Err(refusal) => refusal,
        };
        let config = &self.config;
        // Whoever answers clients with tokens answers them with refusals as well.
        let made = config.response.filter(|_| config.error_response.is_none());
        let made = made.map(
            |format| crate::dialects::apigee::policies::oauth_v2::ErrorResponse {
                format,
                realm: None,
            },
        );
        let answer = config.error_response.as_ref().or(made.as_ref());
        let challenges = config.operation == Operation::VerifyAccessToken;
        Err(refusal.into_fault(scope, &self.name, answer, challenges))
    }
}

/// Attributes with the values that their variables have now; those without any value are left out.
fn attributes_of(list: &[Attribute], scope: &Scope) -> Result<Vec<TokenAttribute>, Refusal> {
    let mut attributes = Vec::with_capacity(list.len());
    for attribute in list {
        let reference = attribute.value.reference.as_deref();
        let referred = reference.and_then(|name| {
            let name = VariableName::new(name);
            scope.text(&name).map(|text| text.into_owned())
        });
        let Some(value) = referred.or_else(|| attribute.value.text.clone()) else {
            continue;
        };
        if value.len() > ATTRIBUTE_BYTES_MAX {
            return Err(Refusal::invalid(format!(
                "attribute {} has more than {ATTRIBUTE_BYTES_MAX} bytes",
                attribute.name
            )));
        }
        attributes.push(TokenAttribute {
            name: attribute.name.clone(),
            value,
            display: attribute.display,
        });
    }
    Ok(attributes)
}

/// Milliseconds that something lives: what a variable says, else what is written.
fn life(scope: &Scope, reference: Option<&str>, written: i64) -> Result<i64, Refusal> {
    let Some(name) = reference else {
        return Ok(written);
    };
    let text = scope.text(&VariableName::new(name));
    let Some(text) = text
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty())
    else {
        return Ok(written);
    };
    let number: Option<i64> = text.parse().ok();
    number
        .filter(|number| *number > 0 || *number == NEVER)
        .ok_or_else(|| {
            Refusal::invalid(format!(
                "variable {name} holds no number of milliseconds from 1, or -1 for never"
            ))
        })
}

#[async_trait]
impl Policy for OAuth {
    fn waits(&self) -> bool {
        self.config.operation != Operation::VerifyAccessToken
    }

    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let outcome = self.verify(flow.scope);
        self.end(flow.scope, outcome)
    }

    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let outcome = self.run(flow.scope).await;
        self.end(flow.scope, outcome)
    }
}
