//! Why a token is not given or not taken, and how the client learns of it.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};

use super::answer;
use crate::dialects::apigee::message::{Message, fields};
use crate::dialects::apigee::policies::oauth_v2::{ErrorResponse, Format};
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::fault;
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};

/// A refusal: as a fault, and as what RFC 6749 makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The whole code of the fault.
    pub(super) code: &'static str,
    pub(super) message: String,
    /// The status of the fault.
    pub(super) status: u16,
    /// The word of an answer: `invalid_request`.
    pub(super) error: &'static str,
    /// The text of an answer.
    pub(super) description: String,
    /// The status of an answer.
    pub(super) answer_status: u16,
}

impl Refusal {
    fn new(
        (status, code, message): (u16, &'static str, String),
        (answer_status, error, description): (u16, &'static str, String),
    ) -> Self {
        Self {
            code,
            message,
            status,
            error,
            description,
            answer_status,
        }
    }

    /// A parameter is missing.
    pub(super) fn missing(parameter: &str) -> Self {
        let text = format!("Required param : {parameter}");
        Self::new(
            (500, "steps.oauth.v2.invalid_request", text.clone()),
            (400, "invalid_request", text),
        )
    }

    /// A parameter is of no use.
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::new(
            (500, "steps.oauth.v2.invalid_request", text.clone()),
            (400, "invalid_request", text),
        )
    }

    /// A variable of the policy is not set.
    pub(super) fn unresolved(code: &'static str, what: &str) -> Self {
        let text = format!("Failed to resolve {what}");
        Self::new((500, code, text.clone()), (400, "invalid_request", text))
    }

    /// Nobody has this client id.
    pub(super) fn unknown_client() -> Self {
        Self::new(
            (
                500,
                "oauth.v2.InvalidClientIdentifier",
                // The placeholder is what Edge prints.
                "Invalid client identifier {0}".to_owned(),
            ),
            (401, "invalid_client", "ClientId is Invalid".to_owned()),
        )
    }

    /// The secret is not the client's.
    pub(super) fn wrong_secret() -> Self {
        Self {
            description: "Client credentials are invalid".to_owned(),
            ..Self::unknown_client()
        }
    }

    /// The key, app or developer is not in order.
    pub(super) fn bad_client(fault: PolicyFault, code: &'static str) -> Self {
        Self::new(
            (fault.status, code, fault.message.clone()),
            (401, "invalid_client", fault.message),
        )
    }

    /// The grant type is not one of those that the policy supports.
    pub(super) fn unsupported_grant(word: &str) -> Self {
        let text = format!("Unsupported grant type : {word}");
        Self::new(
            (500, "steps.oauth.v2.UnSupportedGrantType", text.clone()),
            (400, "invalid_request", text),
        )
    }

    /// None of the scopes that are asked for may be given.
    pub(super) fn scope() -> Self {
        let text = "The requested scope is invalid".to_owned();
        Self::new(
            (400, "steps.oauth.v2.InvalidScope", text.clone()),
            (400, "invalid_scope", text),
        )
    }

    /// A code that is unknown, used, ended or somebody else's.
    pub(super) fn code() -> Self {
        let text = "Invalid Authorization Code".to_owned();
        Self::new(
            (
                500,
                "keymanagement.service.invalid_request-authorization_code_invalid",
                text.clone(),
            ),
            (400, "invalid_request", text),
        )
    }

    /// A refresh token that is unknown, used, revoked or somebody else's.
    pub(super) fn refresh_token() -> Self {
        let text = "Invalid Refresh Token".to_owned();
        Self::new(
            (
                500,
                "keymanagement.service.invalid_refresh_token",
                text.clone(),
            ),
            (400, "invalid_request", text),
        )
    }

    /// A refresh token whose time is over.
    pub(super) fn refresh_token_expired() -> Self {
        let text = "Refresh Token expired".to_owned();
        Self::new(
            (
                500,
                "keymanagement.service.refresh_token_expired",
                text.clone(),
            ),
            (400, "invalid_request", text),
        )
    }

    /// The same token exists already.
    pub(super) fn taken() -> Self {
        Self::invalid("The token exists already")
    }

    /// Somebody else has refused the client.
    pub(super) fn external() -> Self {
        let text = "External authorization failed".to_owned();
        Self::new(
            (
                401,
                "steps.oauth.v2.ExternalAuthorizationFailed",
                text.clone(),
            ),
            (401, "access_denied", text),
        )
    }

    /// No token came.
    pub(super) fn no_access_token() -> Self {
        Self::access("oauth.v2.InvalidAccessToken", "Invalid access token")
    }

    /// A token is not taken; `code` says why.
    pub(super) fn access(code: &'static str, text: &str) -> Self {
        Self::new(
            (401, code, text.to_owned()),
            (401, "invalid_token", text.to_owned()),
        )
    }

    /// The token holds none of the scopes.
    pub(super) fn insufficient_scope(words: &[String]) -> Self {
        let text = format!("Required scope(s): {}", words.join(" "));
        Self::new(
            (403, "steps.oauth.v2.InsufficientScope", text.clone()),
            (403, "insufficient_scope", text),
        )
    }

    /// The store does not keep or find it.
    pub(super) fn store(reason: &str) -> Self {
        Self::new(
            (
                500,
                "keymanagement.service.TokenStoreFailed",
                format!("Tokens cannot be kept: {reason}"),
            ),
            (
                500,
                "server_error",
                "Tokens cannot be kept at the moment".to_owned(),
            ),
        )
    }

    /// The fault of a policy that is called `name`. With an answer the client gets that in place of the fault's body.
    pub(super) fn into_fault(
        self,
        scope: &mut Scope,
        name: &str,
        answer: Option<&ErrorResponse>,
        challenges: bool,
    ) -> PolicyFault {
        let status = match answer {
            Some(_) => self.answer_status,
            None => self.status,
        };
        let mut fault = PolicyFault::new(status, self.code, self.message.clone());
        scope.set_own(
            &format!("oauthV2.{name}.fault.name"),
            fault.name.to_string(),
        );
        scope.set_own(&format!("oauthV2.{name}.fault.cause"), self.message.clone());
        let realm = answer.and_then(|answer| answer.realm.as_deref());
        let challenge = (challenges && matches!(status, 401 | 403) || realm.is_some())
            .then(|| self.challenge(realm))
            .flatten();
        let mut response = match answer {
            Some(answer) => self.answer(answer.format, status),
            None => fault::default_response(&fault, scope.message(REQUEST)),
        };
        let has_challenge = challenge.is_some();
        if let Some(challenge) = challenge {
            response.headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if answer.is_some() || has_challenge {
            fault.response = Some(Box::new(response));
        }
        fault
    }

    fn answer(&self, format: Format, status: u16) -> Message {
        let mut response = Message::response();
        response.status = status;
        let pairs = [
            ("ErrorCode", answer::Field::Text(self.error.to_owned())),
            ("Error", answer::Field::Text(self.description.clone())),
        ];
        let (media, body) = answer::body(format, &pairs);
        response
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response.content = Bytes::from(body);
        response
    }

    /// RFC 6750, section 3. Edge writes `null` where it knows no realm.
    fn challenge(&self, realm: Option<&str>) -> Option<HeaderValue> {
        let quoted = |text: &str| text.replace(['"', '\\'], "");
        let text = format!(
            "Bearer realm=\"{}\",error=\"{}\",error_description=\"{}: {}\"",
            quoted(realm.unwrap_or("null")),
            self.error,
            self.code,
            quoted(&self.message),
        );
        fields::value_of(&text)
    }
}
