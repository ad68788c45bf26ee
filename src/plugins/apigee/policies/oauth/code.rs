//! Authorisation codes, and tokens that are given in their place at once (implicit grant).

use std::sync::Arc;

use http::HeaderValue;
use http::header::LOCATION;

use super::answer::encoded;
use super::issue::Refresh;
use super::refusal::Refusal;
use super::store::REFRESH_LENGTH;
use super::{OAuth, life};
use crate::dialects::apigee::keys::KeyFacts;
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::oauth::{
    AuthorizationCode, NEVER, TOKEN_BYTES_MAX, TokenKind, digest, end_of, is_over,
};
use crate::dialects::apigee::policies::oauth_v2::GrantType;
use crate::plugins::apigee::flow::scope::Scope;
use crate::runtime::records::now_ms;

/// Longest `state` and redirection address of a client, in bytes.
const PARAMETER_BYTES_MAX: usize = 4 * 1024;

impl OAuth {
    /// `GenerateAuthorizationCode`.
    pub(super) async fn generate_code(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let facts = self.asks_for(scope, "code", GrantType::AuthorizationCode)?;
        let (asked, target) = self.redirection(scope, &facts)?;
        let state = self.state(scope)?;
        let grant = self.grant(scope, &facts, GrantType::AuthorizationCode)?;
        let config = &self.config;
        let life = life(
            scope,
            config.expires_in_reference.as_deref(),
            config.expires_in_ms,
        )?;
        if life == NEVER {
            return Err(Refusal::invalid("a code cannot live for ever"));
        }
        let now = now_ms();
        let token = self.brought(
            scope,
            config.external.code.as_deref(),
            TokenKind::Code,
            REFRESH_LENGTH,
        )?;
        let code = AuthorizationCode {
            grant,
            issued_at: now,
            expires_at: end_of(life, now),
            redirect_uri: asked,
            state: state.clone(),
        };
        let organization = scope.place.organization.clone();
        let key = digest(&token);
        let end = code.expires_at;
        if !config.external.authorization || config.external.store {
            let edit = self
                .store
                .keep(&organization, TokenKind::Code, &key, &code, end)?;
            self.store.write(vec![edit]).await?;
        }
        let prefix = format!("oauthv2authcode.{}.", self.name);
        for (name, value) in [
            ("code", token.as_str()),
            ("scope", &code.grant.scope),
            ("redirect_uri", &target),
            ("client_id", &code.grant.client_id),
        ] {
            scope.set_own(&format!("{prefix}{name}"), value.to_owned());
        }
        if let Some(state) = &state {
            scope.set_own(&format!("{prefix}state"), state.clone());
        }
        for attribute in &code.grant.attributes {
            let name = format!("{prefix}{}", attribute.name);
            scope.set_own(&name, attribute.value.clone());
        }
        if config.response.is_some() {
            let mut parameters = vec![("code", token)];
            parameters.push(("scope", code.grant.scope));
            parameters.extend(state.map(|state| ("state", state)));
            redirect(scope, &target, '?', &parameters)?;
        }
        Ok(())
    }

    /// `GenerateAccessTokenImplicitGrant`.
    pub(super) async fn generate_implicit(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let facts = self.asks_for(scope, "token", GrantType::Implicit)?;
        let (_, target) = self.redirection(scope, &facts)?;
        let state = self.state(scope)?;
        let grant = self.grant(scope, &facts, GrantType::Implicit)?;
        let made = self.make(scope, grant, Refresh::No)?;
        let (token, issued) = (made.access.0.clone(), made.access.1.clone());
        self.issue(scope, &facts, made, Vec::new()).await?;
        if self.config.response.is_some() {
            let mut parameters = vec![("access_token", token)];
            let kind = match self.config.follows_rfc {
                true => "Bearer",
                false => "BearerToken",
            };
            parameters.push(("token_type", kind.to_owned()));
            if issued.expires_at != NEVER {
                let seconds =
                    (issued.expires_at.saturating_sub(issued.issued_at) / 1000 - 1).max(0);
                parameters.push(("expires_in", seconds.to_string()));
            }
            parameters.push(("scope", issued.grant.scope));
            parameters.extend(state.map(|state| ("state", state)));
            redirect(scope, &target, '#', &parameters)?;
        }
        Ok(())
    }

    /// The grant type `authorization_code`.
    pub(super) async fn exchange_code(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let facts = self.client(scope, true)?;
        let token = self.required(scope, &self.variables.code, "code")?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::code());
        }
        let organization = scope.place.organization.clone();
        let key = digest(&token);
        // Whoever brings the same code meanwhile finds it used.
        let _held = self.store.lock(&[&key]).await;
        let known = self.store.find_code(&organization, &key);
        let code = known.ok_or_else(Refusal::code)?;
        let marked = self.store.is_marked(
            &organization,
            TokenKind::Refresh,
            &code.grant,
            code.issued_at,
        );
        if is_over(code.expires_at, now_ms())
            || marked
            || code.grant.client_id != facts.key.consumer_key
            || code.grant.app_id != facts.app.app_id
        {
            return Err(Refusal::code());
        }
        let said = self.given(scope, &self.variables.redirect_uri);
        match (&code.redirect_uri, said) {
            (None, _) => {}
            (Some(_), None) => return Err(Refusal::missing("redirect_uri")),
            (Some(asked), Some(said)) if *asked == said => {}
            (Some(_), Some(_)) => return Err(Refusal::invalid("Invalid redirection uri")),
        }
        let mut grant = code.grant;
        grant.attach(self.attributes(scope)?);
        if let Some(end_user) = &self.variables.app_end_user
            && let Some(user) = self.given(scope, end_user)
        {
            grant.app_end_user = Some(user);
        }
        let made = self.make(scope, grant, Refresh::New)?;
        let used = self.store.forget(&organization, TokenKind::Code, &key);
        self.issue(scope, &facts, made, vec![used]).await
    }

    /// The client that asks for a code or token to be sent to its address.
    fn asks_for(
        &self,
        scope: &Scope,
        word: &str,
        grant_type: GrantType,
    ) -> Result<Arc<KeyFacts>, Refusal> {
        let said = self.required(scope, &self.variables.response_type, "response_type")?;
        if said != word {
            return Err(Refusal::invalid(format!(
                "Invalid response type, allowed is {word}"
            )));
        }
        if !self.config.grant_types.contains(&grant_type) {
            return Err(Refusal::unsupported_grant(grant_type.word()));
        }
        self.client(scope, false)
    }

    /// The address that the client names, and the one that it is sent to.
    fn redirection(
        &self,
        scope: &Scope,
        facts: &KeyFacts,
    ) -> Result<(Option<String>, String), Refusal> {
        let asked = self.given(scope, &self.variables.redirect_uri);
        let registered = facts.app.callback_url.trim();
        match asked {
            Some(asked) if registered.is_empty() || asked == registered => {
                if !is_address(&asked) {
                    return Err(Refusal::invalid("Invalid redirection uri"));
                }
                Ok((Some(asked.clone()), asked))
            }
            Some(_) => Err(Refusal::invalid("Invalid redirection uri")),
            None if registered.is_empty() => Err(Refusal::missing("redirect_uri")),
            None => Ok((None, registered.to_owned())),
        }
    }

    fn state(&self, scope: &Scope) -> Result<Option<String>, Refusal> {
        let state = self.given(scope, &self.variables.state);
        match state {
            Some(state) if state.len() > PARAMETER_BYTES_MAX => Err(Refusal::invalid(format!(
                "The state has more than {PARAMETER_BYTES_MAX} bytes"
            ))),
            state => Ok(state),
        }
    }
}

/// Whether a text is an absolute address without a fragment (RFC 6749, 3.1.2).
fn is_address(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut letters = scheme.chars();
    let sound = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let runs_code = ["javascript", "data", "vbscript"]
        .iter()
        .any(|word| scheme.eq_ignore_ascii_case(word));
    sound
        && !runs_code
        && !rest.is_empty()
        && text.len() <= PARAMETER_BYTES_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// Sends the client to its address with parameters behind `mark`.
fn redirect(
    scope: &mut Scope,
    target: &str,
    mark: char,
    parameters: &[(&str, String)],
) -> Result<(), Refusal> {
    let parameters: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    // An address may bring parameters of its own.
    let mark = match mark {
        '?' if target.contains('?') => '&',
        mark => mark,
    };
    let location = format!("{target}{mark}{}", parameters.join("&"));
    let location = HeaderValue::from_str(&location)
        .map_err(|_| Refusal::invalid("Invalid redirection uri"))?;
    let mut response = Message::response();
    response.status = 302;
    response.headers.insert(LOCATION, location);
    // The response's place always exists.
    let _ = scope.put_message("response", response);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_absolute_and_carry_no_code() {
        for (text, sound) in [
            ("https://app.test/cb", true),
            ("http://localhost:8080/cb?x=1", true),
            ("com.example.app:/oauth", true),
            ("/cb", false),
            ("//app.test/cb", false),
            ("javascript:alert(1)", false),
            ("JavaScript:alert(1)", false),
            ("https://app.test/#x", false),
            ("https://app.test/\r\nX: y", false),
            ("https:", false),
            ("", false),
        ] {
            assert_eq!(is_address(text), sound, "{text}");
        }
    }
}
