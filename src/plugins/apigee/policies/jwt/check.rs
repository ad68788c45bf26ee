//! Verifying tokens, and taking them apart without.

use serde_json::{Map, Value as Json};

use super::Token;
use super::generate::list_of;
use super::keys::Found;
use super::variables::{millis, seconds_of};
use crate::base::jose::{Algorithm, Compact, TOKEN_BYTES_MAX, VerifyingKey, encode_part};
use crate::dialects::apigee::policies::jwt::Kind;
use crate::plugins::apigee::flow::context::{Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use crate::runtime::records::now_ms;

/// Where a token is when nobody says.
const DEFAULT_SOURCE: &str = "request.header.authorization";

impl Token {
    /// The token of the request.
    fn token(&self, scope: &Scope) -> Result<String, PolicyFault> {
        let source = self.config.source.as_deref().unwrap_or(DEFAULT_SOURCE);
        let text = self.text(scope, source);
        let text = text.ok_or_else(|| self.unresolved(source))?;
        let text = text.trim();
        let bare = match text.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
            _ => text,
        };
        Ok(bare.to_owned())
    }

    /// `DecodeJWT`, `DecodeJWS`.
    pub(super) fn decode(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let token = self.token(scope)?;
        let broken = || self.fault("FailedToDecode", "Failed to decode the token");
        let compact = Compact::parse(&token).ok_or_else(broken)?;
        let is_object = || serde_json::from_slice::<Map<String, Json>>(&compact.payload).is_ok();
        if self.config.kind == Kind::Jwt && !is_object() {
            return Err(broken());
        }
        self.tell(scope, &compact.header, &compact.payload, now_ms());
        Ok(Next::Continue)
    }

    /// `VerifyJWT`, `VerifyJWS` with a key that is at hand.
    pub(super) fn verify(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        scope.set_own(&format!("{}valid", self.prefix()), false);
        let token = self.token(scope)?;
        let (compact, algorithm) = self.parse(&token)?;
        match self.verifying_key(scope, algorithm, compact.header_text("kid"))? {
            Found::Key(key) => self.judge(scope, &compact, &key),
            Found::Remote { .. } => Err(self.fault("KeyParsingFailed", "there is no key")),
        }
    }

    /// The same with a key that somebody serves.
    pub(super) async fn verify_remotely(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        scope.set_own(&format!("{}valid", self.prefix()), false);
        let token = self.token(scope)?;
        let (compact, algorithm) = self.parse(&token)?;
        let key = match self.verifying_key(scope, algorithm, compact.header_text("kid"))? {
            Found::Key(key) => key,
            Found::Remote { url, id } => self.remote_key(&url, &id, algorithm).await?,
        };
        self.judge(scope, &compact, &key)
    }

    fn parse<'a>(&self, token: &'a str) -> Result<(Compact<'a>, Algorithm), PolicyFault> {
        let compact = Compact::parse(token);
        let compact = compact.ok_or_else(|| self.fault("InvalidToken", "Invalid token"))?;
        let Some(name) = compact.header_text("alg") else {
            let message = "the header of the token names no algorithm";
            return Err(self.fault("NoAlgorithmFoundInHeader", message));
        };
        let allowed = self.config.algorithms.iter().copied();
        let found = allowed.clone().find(|one| one.name() == name);
        let Some(algorithm) = found else {
            let several = allowed.count() > 1;
            let fault = match several {
                true => "AlgorithmInTokenNotPresentInConfiguration",
                false => "AlgorithmMismatch",
            };
            let message = "the algorithm of the token is not the policy's";
            return Err(self.fault(fault, message));
        };
        Ok((compact, algorithm))
    }

    /// Everything that is to be checked once the key is known.
    fn judge(
        &self,
        scope: &mut Scope,
        compact: &Compact<'_>,
        key: &VerifyingKey,
    ) -> Result<Next, PolicyFault> {
        self.check_critical(scope, &compact.header)?;
        let (signed, payload) = self.signed(scope, compact)?;
        if !key.verifies(signed.as_bytes(), &compact.signature) {
            return Err(self.fault("InvalidToken", "Invalid token: the signature is wrong"));
        }
        let now = now_ms();
        // From here on its maker is known.
        self.tell(scope, &compact.header, &payload, now);
        let headers = self.members(
            scope,
            &self.config.headers,
            self.config.headers_variable.as_deref(),
        )?;
        for (name, expected) in &headers {
            if compact.header.get(name) != Some(expected) {
                let message = format!("header {name} is not what it should be");
                return Err(self.fault("InvalidClaim", message));
            }
        }
        if self.config.kind == Kind::Jwt {
            let claims: Map<String, Json> = serde_json::from_slice(&payload)
                .map_err(|_| self.fault("InvalidToken", "Invalid token: it holds no claims"))?;
            self.check_times(&claims, now)?;
            self.check_claims(scope, &claims)?;
        }
        scope.set_own(&format!("{}valid", self.prefix()), true);
        Ok(Next::Continue)
    }

    /// What was signed, and the payload, wherever that travelled.
    fn signed(
        &self,
        scope: &Scope,
        compact: &Compact<'_>,
    ) -> Result<(String, Vec<u8>), PolicyFault> {
        let Some(variable) = &self.config.detached else {
            return Ok((compact.signed.to_owned(), compact.payload.clone()));
        };
        if !compact.encoded_payload.is_empty() {
            let message = "the token brings its payload, which was to travel apart";
            return Err(self.fault("InvalidToken", message));
        }
        let payload = self.text(scope, variable);
        let payload = payload.ok_or_else(|| self.unresolved(variable))?;
        if payload.len() > TOKEN_BYTES_MAX {
            let message = format!("the payload has more than {TOKEN_BYTES_MAX} bytes");
            return Err(self.fault("InvalidToken", message));
        }
        let header = compact.signed.trim_end_matches('.');
        let signed = format!("{header}.{}", encode_part(payload.as_bytes()));
        Ok((signed, payload.into_bytes()))
    }

    /// Headers that the maker insists on have to be known (RFC 7515, 4.1.11).
    fn check_critical(&self, scope: &Scope, header: &Map<String, Json>) -> Result<(), PolicyFault> {
        let Some(critical) = header.get("crit") else {
            return Ok(());
        };
        if self.config.ignores_critical_headers {
            return Ok(());
        }
        let known = self.said(scope, &self.config.known_headers)?;
        let known = list_of(&known.unwrap_or_default());
        let names = critical.as_array().filter(|names| !names.is_empty());
        let handled = names.is_some_and(|names| {
            names.iter().all(|name| {
                let name = name.as_str().unwrap_or_default();
                header.contains_key(name) && known.iter().any(|known| known == name)
            })
        });
        match handled {
            true => Ok(()),
            false => Err(self.fault(
                "UnhandledCriticalHeader",
                "the token insists on a header that the policy does not know",
            )),
        }
    }

    fn check_times(&self, claims: &Map<String, Json>, now_ms: i64) -> Result<(), PolicyFault> {
        let moment = |name: &str| -> Result<Option<i64>, PolicyFault> {
            let Some(value) = claims.get(name) else {
                return Ok(None);
            };
            let seconds = seconds_of(value);
            let seconds = seconds.ok_or_else(|| {
                self.fault("InvalidToken", format!("claim {name} is not a number"))
            })?;
            Ok(Some(millis(seconds)))
        };
        let allowance = self.config.allowance_ms;
        if let Some(end) = moment("exp")?
            && now_ms.saturating_sub(allowance) >= end
        {
            return Err(self.fault("TokenExpired", "the token has expired"));
        }
        let begin = moment("nbf")?;
        let issued = moment("iat")?.filter(|_| !self.config.ignores_issued_at);
        for begin in [begin, issued].into_iter().flatten() {
            if now_ms.saturating_add(allowance) < begin {
                return Err(self.fault("TokenNotYetValid", "the token is not yet valid"));
            }
        }
        Ok(())
    }

    fn check_claims(&self, scope: &Scope, claims: &Map<String, Json>) -> Result<(), PolicyFault> {
        let config = &self.config;
        let text = |name: &str| claims.get(name).and_then(Json::as_str);
        for (name, part, fault) in [
            ("sub", &config.subject, "JwtSubjectMismatch"),
            ("iss", &config.issuer, "JwtIssuerMismatch"),
            ("jti", &config.id, "InvalidClaim"),
        ] {
            if let Some(expected) = self.said(scope, part)?
                && text(name) != Some(expected.trim())
            {
                let message = format!("claim {name} is not what it should be");
                return Err(self.fault(fault, message));
            }
        }
        if let Some(expected) = self.said(scope, &config.audience)? {
            let expected = list_of(&expected);
            let is_expected = |one: &Json| {
                let one = one.as_str();
                expected.iter().any(|name| Some(name.as_str()) == one)
            };
            let fits = match claims.get("aud") {
                Some(Json::Array(list)) => list.iter().any(is_expected),
                Some(one) => is_expected(one),
                None => false,
            };
            if !fits {
                let message = "the token is not for this audience";
                return Err(self.fault("JwtAudienceMismatch", message));
            }
        }
        let expected = self.members(scope, &config.claims, config.claims_variable.as_deref())?;
        for (name, expected) in &expected {
            if claims.get(name) != Some(expected) {
                let message = format!("claim {name} is not what it should be");
                return Err(self.fault("InvalidClaim", message));
            }
        }
        Ok(())
    }
}
