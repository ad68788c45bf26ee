//! Making tokens.

use serde_json::{Map, Value as Json, json};

use super::Token;
use crate::base::jose::{TOKEN_BYTES_MAX, encode_part, signing_input};
use crate::dialects::apigee::policies::jwt::{Kind, parse_duration_ms};
use crate::dialects::apigee::policies::quota::parse_moment;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use crate::runtime::records::now_ms;

/// Claims that have an element of their own; a variable with further ones does not replace them.
const REGISTERED: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

impl Token {
    pub(super) fn generate(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let config = &self.config;
        let Some(algorithm) = config.algorithms.first().copied() else {
            return Err(self.fault("GenerationFailed", "there is no algorithm"));
        };
        let mut header = Map::new();
        if config.kind == Kind::Jwt {
            header.insert("typ".to_owned(), "JWT".into());
        }
        header.insert("alg".to_owned(), algorithm.name().into());
        if let Some(id) = self.said(scope, &config.key_id)? {
            header.insert("kid".to_owned(), id.into());
        }
        let further = self.members(scope, &config.headers, config.headers_variable.as_deref())?;
        for (name, value) in further {
            if !matches!(name.as_str(), "alg" | "kid" | "crit" | "b64") {
                header.insert(name, value);
            }
        }
        if let Some(names) = self.said(scope, &config.critical_headers)? {
            header.insert("crit".to_owned(), json!(list_of(&names)));
        }
        let payload = match config.kind {
            Kind::Jwt => Json::Object(self.claims(scope)?).to_string(),
            Kind::Jws => self.said(scope, &config.payload)?.unwrap_or_default(),
        };
        if payload.len() > TOKEN_BYTES_MAX / 2 {
            let message = format!("the payload has more than {} bytes", TOKEN_BYTES_MAX / 2);
            return Err(self.fault("GenerationFailed", message));
        }
        let input = signing_input(&header, payload.as_bytes());
        let key = self.signing_key(scope, algorithm)?;
        let Some(signature) = key.sign(input.as_bytes()) else {
            return Err(self.fault("SigningFailed", "the key did not sign"));
        };
        let signature = encode_part(&signature);
        let token = match (config.detaches, input.split_once('.')) {
            (true, Some((header, _))) => format!("{header}..{signature}"),
            _ => format!("{input}.{signature}"),
        };
        let output = match &config.output {
            Some(output) => output.clone(),
            None => format!("{}generated_{}", self.prefix(), self.word()),
        };
        scope
            .set(&VariableName::new(&output), Value::from(token))
            .map_err(|error| PolicyFault::of_write(&format!("steps.{}", self.word()), &error))?;
        Ok(Next::Continue)
    }

    fn claims(&self, scope: &Scope) -> Result<Map<String, Json>, PolicyFault> {
        let config = &self.config;
        let mut claims = Map::new();
        let mut put = |name: &str, value: Json| claims.insert(name.to_owned(), value);
        for (name, part) in [("sub", &config.subject), ("iss", &config.issuer)] {
            if let Some(text) = self.said(scope, part)? {
                put(name, text.into());
            }
        }
        if let Some(text) = self.said(scope, &config.audience)? {
            let mut list = list_of(&text);
            match (list.len(), list.pop()) {
                (1, Some(one)) => put("aud", one.into()),
                _ => put("aud", json!(list_of(&text))),
            };
        }
        let now = now_ms();
        if let Some(text) = self.said(scope, &config.expires_in)? {
            let life = parse_duration_ms(&text).filter(|life| *life > 0);
            let life = life.ok_or_else(|| {
                let message = format!("'{text}' is no duration for ExpiresIn");
                self.fault("GenerationFailed", message)
            })?;
            put("exp", (now.saturating_add(life) / 1000).into());
        }
        if let Some(text) = self.said(scope, &config.not_before)? {
            let moment = moment_of(&text, now).ok_or_else(|| {
                let message = format!("'{text}' is neither a duration nor a moment for NotBefore");
                self.fault("GenerationFailed", message)
            })?;
            put("nbf", (moment / 1000).into());
        }
        put("iat", (now / 1000).into());
        let id = match config.makes_id {
            true => Some(uuid::Uuid::new_v4().to_string()),
            false => self.said(scope, &config.id)?,
        };
        if let Some(id) = id {
            put("jti", id.into());
        }
        let further = self.members(scope, &config.claims, config.claims_variable.as_deref())?;
        for (name, value) in further {
            if !REGISTERED.contains(&name.as_str()) {
                put(&name, value);
            }
        }
        Ok(claims)
    }
}

/// The members of a list between commas.
pub(super) fn list_of(text: &str) -> Vec<String> {
    let members = text.split(',').map(str::trim);
    members
        .filter(|member| !member.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Milliseconds since 1970 of a duration from now, an ISO 8601 moment or an HTTP date.
fn moment_of(text: &str, now_ms: i64) -> Option<i64> {
    let text = text.trim();
    if let Some(later) = parse_duration_ms(text) {
        return now_ms.checked_add(later);
    }
    if let Ok(date) = httpdate::parse_http_date(text) {
        let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        return i64::try_from(since.as_millis()).ok();
    }
    let (moment, offset_minutes) = match text.strip_suffix('Z') {
        Some(moment) => (moment, 0),
        None => split_offset(text).unwrap_or((text, 0)),
    };
    // Fractions of a second say nothing here.
    let moment = moment.split('.').next()?.replace('T', " ");
    let seconds = parse_moment(&moment)?;
    seconds
        .checked_sub(i64::from(offset_minutes) * 60)?
        .checked_mul(1000)
}

/// `2020-01-01T00:00:00` and 90 of `2020-01-01T00:00:00+01:30`.
fn split_offset(text: &str) -> Option<(&str, i32)> {
    let at = text.rfind(['+', '-']).filter(|at| *at > 10)?;
    let (moment, offset) = text.split_at_checked(at)?;
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits: String = offset.chars().filter(char::is_ascii_digit).collect();
    let number: i32 = (digits.len() == 4).then(|| digits.parse().ok()).flatten()?;
    Some((moment, sign * (number / 100 * 60 + number % 100)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        for (text, moment) in [
            ("1m", Some(60_005)),
            ("1970-01-01T00:01:00Z", Some(60_000)),
            ("1970-01-01T00:01:00.250Z", Some(60_000)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1970-01-01T00:00:00-0130", Some(5_400_000)),
            ("1970-01-01 00:00:01", Some(1_000)),
            ("Thu, 01 Jan 1970 00:00:02 GMT", Some(2_000)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(moment_of(text, 5), moment, "{text}");
        }
        assert_eq!(list_of(" a, b,,"), ["a", "b"]);
    }
}
