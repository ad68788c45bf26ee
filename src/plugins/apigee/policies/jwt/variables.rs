//! What variables tell of a token.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Token;
use crate::dialects::apigee::date;
use crate::dialects::apigee::policies::jwt::Kind;
use crate::dialects::apigee::variables::Value;
use crate::plugins::apigee::flow::scope::Scope;

/// Most claims, and headers, that get variables.
const MEMBERS_MAX: usize = 500;
/// How moments are shown.
const MOMENT: &str = "yyyy-MM-dd'T'HH:mm:ss.SSSZ";

impl Token {
    /// Tells of a token's header and payload.
    pub(super) fn tell(
        &self,
        scope: &mut Scope,
        header: &Map<String, Json>,
        payload: &[u8],
        now_ms: i64,
    ) {
        let prefix = self.prefix();
        for (name, value) in header.iter().take(MEMBERS_MAX) {
            let known = match name.as_str() {
                "alg" => "algorithm",
                "typ" => "type",
                other => other,
            };
            scope.set_own(&format!("{prefix}header.{known}"), variable(value));
            scope.set_own(&format!("{prefix}decoded.header.{name}"), variable(value));
        }
        let header = Json::Object(header.clone()).to_string();
        scope.set_own(&format!("{prefix}header-json"), header);
        match self.config.kind {
            Kind::Jws => {
                let text = String::from_utf8_lossy(payload).into_owned();
                scope.set_own(&format!("{prefix}payload"), text);
            }
            Kind::Jwt => {
                if let Ok(Json::Object(claims)) = serde_json::from_slice(payload) {
                    tell_claims(&prefix, scope, &claims, now_ms);
                }
            }
        }
    }
}

fn tell_claims(prefix: &str, scope: &mut Scope, claims: &Map<String, Json>, now_ms: i64) {
    for (name, value) in claims.iter().take(MEMBERS_MAX) {
        scope.set_own(&format!("{prefix}decoded.claim.{name}"), variable(value));
        let moment = seconds_of(value).map(|seconds| Value::Long(millis(seconds)));
        let (known, value) = match (name.as_str(), moment) {
            ("sub", _) => ("subject", variable(value)),
            ("iss", _) => ("issuer", variable(value)),
            ("aud", _) => ("audience", variable(value)),
            ("exp", Some(moment)) => ("expiry", moment),
            ("iat", Some(moment)) => ("issuedat", moment),
            ("nbf", Some(moment)) => ("notbefore", moment),
            (other, _) => (other, variable(value)),
        };
        scope.set_own(&format!("{prefix}claim.{known}"), value);
    }
    let names: Vec<&str> = claims.keys().map(String::as_str).collect();
    scope.set_own(&format!("{prefix}payload-claim-names"), names.join(","));
    let text = Json::Object(claims.clone()).to_string();
    scope.set_own(&format!("{prefix}payload-json"), text);
    let Some(end) = claims.get("exp").and_then(seconds_of).map(millis) else {
        scope.set_own(&format!("{prefix}is_expired"), false);
        return;
    };
    let left = end.saturating_sub(now_ms);
    scope.set_own(&format!("{prefix}is_expired"), left <= 0);
    scope.set_own(&format!("{prefix}seconds_remaining"), left / 1000);
    scope.set_own(&format!("{prefix}time_remaining_formatted"), span(left));
    if let Some(text) = date::format(MOMENT, end) {
        scope.set_own(&format!("{prefix}expiry_formatted"), text);
    }
}

/// Seconds since 1970 as a claim holds them; a fraction counts for nothing.
pub(super) fn seconds_of(value: &Json) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.is_finite())?;
        #[allow(clippy::cast_possible_truncation, reason = "it is cut to the range")]
        Some(number as i64)
    })
}

pub(super) fn millis(seconds: i64) -> i64 {
    // Beyond the range of dates nothing changes any more.
    const SECONDS_MAX: i64 = 253_402_300_799;
    seconds.clamp(-SECONDS_MAX, SECONDS_MAX) * 1000
}

/// `01:02:03.004`, with a sign when it is over.
fn span(left_ms: i64) -> String {
    let sign = if left_ms < 0 { "-" } else { "" };
    let left = left_ms.unsigned_abs();
    let (hours, rest) = (left / 3_600_000, left % 3_600_000);
    let (minutes, rest) = (rest / 60_000, rest % 60_000);
    format!(
        "{sign}{hours:02}:{minutes:02}:{:02}.{:03}",
        rest / 1000,
        rest % 1000
    )
}

/// A JSON value as a variable: texts as they are, lists of scalars as lists, everything else as JSON.
fn variable(value: &Json) -> Value<'static> {
    match value {
        Json::String(text) => Value::from(text.clone()),
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Long(number),
            (None, Some(number)) => Value::Double(number),
            (None, None) => Value::from(number.to_string()),
        },
        Json::Array(list) if list.iter().all(|one| !one.is_object() && !one.is_array()) => {
            let members = list.iter().map(|one| -> Arc<str> {
                match one {
                    Json::String(text) => text.as_str().into(),
                    other => other.to_string().into(),
                }
            });
            Value::Collection(members.collect())
        }
        other => Value::from(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_with_their_sign() {
        assert_eq!(span(3_723_004), "01:02:03.004");
        assert_eq!(span(-1_000), "-00:00:01.000");
        assert_eq!(span(360_000_000), "100:00:00.000");
    }

    #[test]
    fn moments_stay_in_their_range() {
        assert_eq!(seconds_of(&serde_json::json!(1.9)), Some(1));
        assert_eq!(seconds_of(&serde_json::json!("1")), None);
        assert!(millis(i64::MAX) > 0 && millis(i64::MIN) < 0);
    }
}
