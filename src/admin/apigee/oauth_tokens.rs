//! Tokens of apps, for who operates them: looking one up, forgetting it, and revoking all of an app or end user.

use http::Method;
use serde_json::json;

use super::call::Call;
use super::reply::Reply;
use crate::dialects::apigee::entities::Kind;
use crate::dialects::apigee::error::ApiError;
use crate::dialects::apigee::oauth::{
    Issued, Mark, TokenKind, TokenStatus, digest, is_over, mark_key, seconds_left,
};
use crate::runtime::records::{Record, now_ms};

/// Answers calls below `/oauth2`.
pub(super) async fn answer(call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (&call.method, rest) {
        (_, ["accesstokens", token]) => one(call, TokenKind::Access, token).await,
        (_, ["refreshtokens", token]) => one(call, TokenKind::Refresh, token).await,
        (&Method::POST, ["revoke"]) => revoke(call).await,
        _ => Err(call.unknown()),
    }
}

async fn one(call: &Call, kind: TokenKind, token: &str) -> Result<Reply, ApiError> {
    let (table, key) = (kind.table(&call.organization), digest(token));
    let records = &call.admin.keeping.records;
    let found = records.find(&table, &key);
    let found: Option<Issued> = found.and_then(|found| serde_json::from_str(&found.text).ok());
    // The token is a secret: it is not said again.
    let issued = found.ok_or_else(|| {
        ApiError::missing(
            "keymanagement.service.invalid_access_token",
            format!(
                "the token is not known in organization {}",
                call.organization
            ),
        )
    })?;
    let shown = show(call, kind, &issued);
    match call.method {
        Method::GET => Ok(Reply::ok("Token", shown)),
        Method::DELETE => {
            records.remove(&table, &key).await?;
            Ok(Reply::ok("Token", shown))
        }
        _ => Err(call.unknown()),
    }
}

fn show(call: &Call, kind: TokenKind, issued: &Issued) -> serde_json::Value {
    let (grant, now) = (&issued.grant, now_ms());
    let status = match is_over(issued.expires_at, now) {
        true => "expired",
        false => status_word(call, kind, issued),
    };
    let attributes = grant.attributes.iter();
    let attributes: Vec<_> = attributes
        .map(|one| json!({"name": one.name, "value": one.value}))
        .collect();
    json!({
        "client_id": grant.client_id,
        "application_name": grant.app_id,
        "organization_name": call.organization,
        "scope": grant.scope,
        "grant_type": grant.grant_type,
        "app_enduser": grant.app_end_user,
        "status": status,
        "issued_at": issued.issued_at.to_string(),
        "expires_in": seconds_left(issued.expires_at, now).to_string(),
        "refresh_count": grant.refresh_count.to_string(),
        "attributes": attributes,
    })
}

fn status_word(call: &Call, kind: TokenKind, issued: &Issued) -> &'static str {
    let table = TokenKind::Mark.table(&call.organization);
    let records = &call.admin.keeping.records;
    let marked = crate::dialects::apigee::oauth::mark_keys(&issued.grant).any(|key| {
        let mark = records.find(&table, &key);
        let mark: Option<Mark> = mark.and_then(|mark| serde_json::from_str(&mark.text).ok());
        mark.is_some_and(|mark| mark.covers(kind, issued.issued_at))
    });
    match marked {
        true => TokenStatus::Revoked.word(),
        false => issued.status.word(),
    }
}

/// `?app=ID`, `?enduser=NAME` or both; `cascade=false` leaves refresh tokens alone.
async fn revoke(call: &Call) -> Result<Reply, ApiError> {
    let given = |name: &str| call.parameter(name).filter(|text| !text.is_empty());
    let (app, user) = (given("app"), given("enduser"));
    let Some(key) = mark_key(app, user) else {
        return Err(ApiError::field("app", "or enduser must be given"));
    };
    if let Some(app) = app
        && call
            .set()
            .by_alias(Kind::App, &call.organization, app)
            .is_none()
    {
        return Err(Kind::App.missing(app, format!("in organization {}", call.organization)));
    }
    let cascade = given("cascade").is_none_or(|word| !word.eq_ignore_ascii_case("false"));
    let table = TokenKind::Mark.table(&call.organization);
    let records = &call.admin.keeping.records;
    let known = records.find(&table, &key);
    let known: Option<Mark> = known.and_then(|mark| serde_json::from_str(&mark.text).ok());
    let mark = known
        .unwrap_or_default()
        .raised(now_ms().saturating_add(1), cascade);
    let record = Record {
        text: serde_json::to_string(&mark).unwrap_or_default().into(),
        expires_at_ms: None,
    };
    records.put(&table, &key, record).await?;
    Ok(Reply::nothing())
}
