//! Tokens of administrators: for clients that trade a password for a Bearer token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, Request, Response, StatusCode};
use parking_lot::Mutex;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::answer::Answer;
use super::super::call::read_payload;
use super::super::form::parse_form;
use super::super::state::Admin;

/// How long an access token is good.
const LIFE: Duration = Duration::from_secs(1_799);
/// How long a refresh token is good.
const REFRESH_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Most tokens at once; then the oldest go.
const TOKENS_MAX: usize = 10_000;
/// Length of a token.
const TOKEN_LENGTH: usize = 43;

/// The tokens that were issued, as digests.
#[derive(Default)]
pub struct Tokens {
    issued: Mutex<AHashMap<[u8; 32], Issued>>,
}

struct Issued {
    user: String,
    ends: Instant,
    refreshes: bool,
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Tokens {
    /// Whether a Bearer token may administer.
    pub fn admit(&self, token: &str) -> bool {
        let issued = self.issued.lock();
        let found = issued.get(&digest(token));
        found.is_some_and(|token| !token.refreshes && Instant::now() < token.ends)
    }

    fn issue(&self, user: &str, refreshes: bool) -> String {
        let token: String = rand::rng()
            .sample_iter(Alphanumeric)
            .take(TOKEN_LENGTH)
            .map(char::from)
            .collect();
        let now = Instant::now();
        let mut issued = self.issued.lock();
        if issued.len() >= TOKENS_MAX {
            issued.retain(|_, token| now < token.ends);
        }
        if issued.len() >= TOKENS_MAX
            && let Some(oldest) = issued
                .iter()
                .min_by_key(|(_, token)| token.ends)
                .map(|(digest, _)| *digest)
        {
            issued.remove(&oldest);
        }
        let life = if refreshes { REFRESH_LIFE } else { LIFE };
        let entry = Issued {
            user: user.to_owned(),
            ends: now + life,
            refreshes,
        };
        issued.insert(digest(&token), entry);
        token
    }

    /// Takes a refresh token back; returns whose it was.
    fn take_refresh(&self, token: &str) -> Option<String> {
        let mut issued = self.issued.lock();
        let known = issued.get(&digest(token))?;
        if !known.refreshes || known.ends <= Instant::now() {
            return None;
        }
        issued.remove(&digest(token)).map(|token| token.user)
    }
}

/// `POST /oauth/token`: a form with `grant_type=password`, `username` and `password`, or with `grant_type=refresh_token`.
pub(super) async fn issue(
    State(admin): State<Arc<Admin>>,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let answer = read_and_issue(&admin, &parts.headers, body).await;
    answer
        .unwrap_or_else(|refused| refused)
        .into_response(false)
}

async fn read_and_issue(admin: &Admin, headers: &HeaderMap, body: Body) -> Result<Answer, Answer> {
    let payload = read_payload(headers, body).await?;
    let form = parse_form(&payload.bytes)
        .map_err(|error| refused("invalid_request", &error.to_string()))?;
    let field = |name: &str| {
        form.get(name)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
    };
    let user = match field("grant_type") {
        "password" => {
            let (user, password) = (field("username"), field("password"));
            let users = admin.users.load_full();
            let admitted = match users {
                Some(users) => users.admit(user, password).await,
                None => true,
            };
            if !admitted {
                return Err(Answer::json(
                    StatusCode::UNAUTHORIZED,
                    &json!({"error": "unauthorized", "error_description": "Bad credentials"}),
                ));
            }
            user.to_owned()
        }
        "refresh_token" => admin
            .tokens
            .take_refresh(field("refresh_token"))
            .ok_or_else(|| refused("invalid_grant", "the refresh token is not known"))?,
        other => {
            return Err(refused(
                "unsupported_grant_type",
                &format!("'{other}' is not supported, allowed are password and refresh_token"),
            ));
        }
    };
    Ok(Answer::ok(&json!({
        "access_token": admin.tokens.issue(&user, false),
        "token_type": "bearer",
        "refresh_token": admin.tokens.issue(&user, true),
        "expires_in": LIFE.as_secs(),
        "scope": "scim.me openid password.write approvals.me oauth.approvals",
        "jti": uuid::Uuid::new_v4(),
    })))
}

fn refused(error: &str, description: &str) -> Answer {
    Answer::json(
        StatusCode::BAD_REQUEST,
        &json!({"error": error, "error_description": description}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_admit_and_refresh_once() {
        let tokens = Tokens::default();
        let access = tokens.issue("ann", false);
        let refresh = tokens.issue("ann", true);
        assert!(tokens.admit(&access));
        assert!(!tokens.admit(&refresh));
        assert!(!tokens.admit("guess"));
        assert_eq!(tokens.take_refresh(&access), None);
        assert_eq!(tokens.take_refresh(&refresh).as_deref(), Some("ann"));
        assert_eq!(tokens.take_refresh(&refresh), None);
    }
}
