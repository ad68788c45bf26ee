//! Who asks: the client id and secret of a request, and the key that they belong to.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::OAuth;
use super::refusal::Refusal;
use crate::dialects::apigee::keys::KeyFacts;
use crate::dialects::apigee::message::parameters::Parameters;
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};
use crate::plugins::apigee::policies::verify_api_key::check_status;
use crate::runtime::records::now_ms;

/// The variable that says what somebody else made of the client.
const EXTERNAL_STATUS: &str = "oauth_external_authorization_status";

/// A client id and, where one came, the secret.
struct Credentials {
    id: String,
    secret: Option<String>,
}

impl OAuth {
    /// The key of the client; with `proves` it has to know its secret, unless somebody else has checked it.
    pub(super) fn client(&self, scope: &Scope, proves: bool) -> Result<Arc<KeyFacts>, Refusal> {
        let external = self.config.external.authorization;
        if external {
            let status = scope.value(EXTERNAL_STATUS);
            let allowed = status.is_some_and(|status| status.as_text().trim() == "true");
            if !allowed {
                return Err(Refusal::external());
            }
        }
        let credentials = self.credentials(scope)?;
        let facts = self.key(scope, &credentials.id)?;
        if proves && !external {
            let secret = credentials.secret.unwrap_or_default();
            if !is_same(&secret, &facts.key.consumer_secret) {
                return Err(Refusal::wrong_secret());
            }
        }
        Ok(facts)
    }

    /// The key under a client id, which must be in order.
    fn key(&self, scope: &Scope, client_id: &str) -> Result<Arc<KeyFacts>, Refusal> {
        let (snapshot, place) = (&scope.inbound.snapshot, &scope.place);
        let facts = self.keys.find(snapshot, &place.organization, client_id);
        let facts = facts.ok_or_else(Refusal::unknown_client)?;
        check_status(&facts, now_ms()).map_err(|fault| {
            let code = match fault.code.as_ref() {
                "oauth.v2.ApiKeyNotApproved" => "oauth.v2.ApiKeyNotApproved",
                "keymanagement.service.DeveloperStatusNotActive" => {
                    "keymanagement.service.DeveloperStatusNotActive"
                }
                _ => "keymanagement.service.invalid_client-app_not_approved",
            };
            Refusal::bad_client(fault, code)
        })?;
        Ok(facts)
    }

    fn credentials(&self, scope: &Scope) -> Result<Credentials, Refusal> {
        if let Some(basic) = basic(scope) {
            return Ok(basic);
        }
        let id = scope.text(&self.variables.client_id);
        let id = id.map(|id| id.trim().to_owned());
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Err(Refusal {
                code: "steps.oauth.v2.FailedToResolveClientId",
                ..Refusal::missing("client_id")
            });
        };
        let request = scope.message(REQUEST);
        let form = request.and_then(|request| request.form());
        let mut secret = form.and_then(|form| Parameters(form).values("client_secret").next());
        if secret.is_none() && self.config.locations.client_id.contains("queryparam") {
            let query = request.and_then(|request| request.query.as_deref());
            secret = query.and_then(|query| Parameters(query).values("client_secret").next());
        }
        let secret = secret.map(|secret| secret.into_owned());
        Ok(Credentials { id, secret })
    }
}

/// The pair of an Authorization header of the scheme Basic.
fn basic(scope: &Scope) -> Option<Credentials> {
    let headers = &scope.message(REQUEST)?.headers;
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    (!id.is_empty()).then(|| Credentials {
        id: id.to_owned(),
        secret: Some(secret.to_owned()),
    })
}

/// Compares secrets by their digests, so that time tells nothing of where they differ.
fn is_same(given: &str, known: &str) -> bool {
    !known.is_empty() && Sha256::digest(given.as_bytes()) == Sha256::digest(known.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_whole() {
        assert!(is_same("abc", "abc"));
        for (given, known) in [("ab", "abc"), ("", "abc"), ("", ""), ("abcd", "abc")] {
            assert!(!is_same(given, known), "{given}/{known}");
        }
    }
}
