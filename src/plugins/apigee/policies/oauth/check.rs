//! `VerifyAccessToken`: whether a call may pass with the token that it brings.

use std::sync::Arc;

use super::OAuth;
use super::answer::{self, Described};
use super::issue::tell;
use super::refusal::Refusal;
use crate::dialects::apigee::keys::KeyFacts;
use crate::dialects::apigee::oauth::{
    Issued, TOKEN_BYTES_MAX, TokenKind, TokenStatus, digest, is_over,
};
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};
use crate::plugins::apigee::policies::key_variables;
use crate::plugins::apigee::policies::keys::product_for;
use crate::plugins::apigee::policies::verify_api_key::check_status;
use crate::runtime::records::now_ms;

/// What stands for "no prefix".
const NO_PREFIX: &str = "-";
const PREFIX: &str = "Bearer";

impl OAuth {
    /// Checks the token of a call and tells what it stands for.
    pub(super) fn verify(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let token = self.presented(scope)?;
        let place = Arc::clone(&scope.place);
        let key = digest(&token);
        let issued = self
            .store
            .find(&place.organization, TokenKind::Access, &key)
            .ok_or_else(unknown)?;
        let now = now_ms();
        let facts = self.standing(scope, &issued, now)?;
        let product = product_for(
            &facts,
            &place.environment,
            &place.proxy,
            &scope.entry.suffix,
        );
        let product = product.ok_or_else(|| {
            Refusal::access(
                "keymanagement.service.InvalidAPICallAsNoApiProductMatchFound",
                "Invalid API call as no apiproduct match found",
            )
        })?;
        if !issued.grant.covers(&self.config.scopes) {
            return Err(Refusal::insufficient_scope(&self.config.scopes));
        }
        let described = Described {
            token: &token,
            issued: &issued,
        };
        let fields = answer::of_tokens(
            &place.organization,
            &facts,
            &described,
            None,
            Some(now),
            self.config.follows_rfc,
        );
        tell(&self.name, scope, &facts, &fields, &issued.grant);
        for (name, field) in &fields {
            let is_global = matches!(
                name.as_str(),
                "organization_name"
                    | "client_id"
                    | "token_type"
                    | "access_token"
                    | "issued_at"
                    | "expires_in"
                    | "status"
                    | "scope"
                    | "api_product_list"
            );
            if is_global {
                scope.set_own(name, field.text());
            }
        }
        scope.set_own("grant_type", issued.grant.grant_type.clone());
        let prefix = format!("oauthv2accesstoken.{}.", self.name);
        for (name, value) in key_variables::of_key(&facts, Some(product)) {
            let is_told = ["app.", "developer.", "apiproduct."]
                .iter()
                .any(|of| name.starts_with(of));
            if is_told {
                scope.set_own(&format!("{prefix}{name}"), value.clone());
                scope.set_own(&name, value);
            }
        }
        for attribute in &issued.grant.attributes {
            let value = attribute.value.clone();
            scope.set_own(
                &format!("{prefix}accesstoken.{}", attribute.name),
                value.clone(),
            );
            scope.set_own(&format!("accesstoken.{}", attribute.name), value);
        }
        if let Some(user) = &issued.grant.app_end_user {
            scope.set_own("app_enduser", user.clone());
        }
        Ok(())
    }

    /// The token that came with the call.
    fn presented(&self, scope: &Scope) -> Result<String, Refusal> {
        let written = self.config.prefix.as_deref();
        let token = match (&self.variables.access_token, written) {
            (Some(name), written) => {
                let Some(text) = self.given(scope, name) else {
                    return Err(Refusal {
                        status: 500,
                        ..Refusal::access(
                            "steps.oauth.v2.FailedToResolveAccessToken",
                            "Failed to resolve Access Token",
                        )
                    });
                };
                // A variable holds the token alone, or all of a header.
                match without_prefix(&text, written.unwrap_or(PREFIX)) {
                    Some(token) => Some(token.to_owned()),
                    None if written.is_none() => Some(text),
                    None => None,
                }
            }
            (None, written) => {
                let headers = scope.message(REQUEST).map(|request| &request.headers);
                let value = headers.and_then(|all| all.get(http::header::AUTHORIZATION));
                let text = value.and_then(|value| value.to_str().ok());
                text.and_then(|text| without_prefix(text, written.unwrap_or(PREFIX)))
                    .map(str::to_owned)
            }
        };
        token
            .filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX)
            .ok_or_else(Refusal::no_access_token)
    }

    /// Whether a token is honoured at a moment, and the key that it was issued to.
    fn standing(
        &self,
        scope: &Scope,
        issued: &Issued,
        now_ms: i64,
    ) -> Result<Arc<KeyFacts>, Refusal> {
        let organization = &scope.place.organization;
        if is_over(issued.expires_at, now_ms) {
            return Err(Refusal::access(
                "keymanagement.service.access_token_expired",
                "Access Token expired",
            ));
        }
        let grant = &issued.grant;
        let marked = self
            .store
            .is_marked(organization, TokenKind::Access, grant, issued.issued_at);
        if issued.status != TokenStatus::Approved || marked {
            return Err(Refusal::access(
                "keymanagement.service.access_token_not_approved",
                "Access Token not approved",
            ));
        }
        // A key that somebody else got since is not the one that was granted something.
        let snapshot = &scope.inbound.snapshot;
        let facts = self
            .keys
            .find(snapshot, organization, &grant.client_id)
            .filter(|facts| facts.app.app_id == grant.app_id)
            .ok_or_else(unknown)?;
        check_status(&facts, now_ms).map_err(|fault| {
            let code = match fault.code.as_ref() {
                "keymanagement.service.DeveloperStatusNotActive" => {
                    "keymanagement.service.DeveloperStatusNotActive"
                }
                "oauth.v2.ApiKeyNotApproved" => "oauth.v2.ApiKeyNotApproved",
                _ => "keymanagement.service.invalid_client-app_not_approved",
            };
            Refusal::access(code, &fault.message)
        })?;
        Ok(facts)
    }
}

fn unknown() -> Refusal {
    Refusal::access(
        "keymanagement.service.invalid_access_token",
        "Invalid Access Token",
    )
}

/// What follows a prefix and blanks. The prefix's case does not count, as in any Authorization header.
fn without_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let text = text.trim();
    if prefix == NO_PREFIX {
        return Some(text);
    }
    let (word, rest) = text.split_once(' ')?;
    word.eq_ignore_ascii_case(prefix).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_taken_off() {
        for (text, prefix, token) in [
            ("Bearer abc", "Bearer", Some("abc")),
            ("bearer  abc ", "Bearer", Some("abc")),
            ("abc", "Bearer", None),
            ("Bearer", "Bearer", None),
            ("Basic abc", "Bearer", None),
            ("abc", "-", Some("abc")),
            ("Key abc", "Key", Some("abc")),
        ] {
            assert_eq!(without_prefix(text, prefix), token, "{text}");
        }
    }
}
