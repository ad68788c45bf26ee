//! Issuing access tokens and refresh tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::answer::{self, Described, Field};
use super::refusal::Refusal;
use super::store::{ACCESS_LENGTH, REFRESH_LENGTH, generate};
use super::{OAuth, life};
use crate::dialects::apigee::keys::KeyFacts;
use crate::dialects::apigee::oauth::{
    Grant, Issued, TOKEN_BYTES_MAX, TokenKind, TokenStatus, digest, end_of, is_over,
};
use crate::dialects::apigee::policies::oauth_v2::GrantType;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::scope::Scope;
use crate::runtime::records::{Edit, now_ms};

/// The refresh token that a new access token comes with.
pub(super) enum Refresh<'a> {
    No,
    New,
    /// One that was used and stays.
    Same(&'a str, Box<Issued>),
}

/// Tokens that were made, and the edits that keep them.
pub(super) struct Made {
    pub(super) access: (String, Issued),
    pub(super) refresh: Option<(String, Issued)>,
    pub(super) edits: Vec<Edit>,
}

impl OAuth {
    /// `GenerateAccessToken`.
    pub(super) async fn generate(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let word = self.required(scope, &self.variables.grant_type, "grant_type")?;
        let grant_type = GrantType::from_word(&word)
            .filter(|grant_type| self.config.grant_types.contains(grant_type))
            // It has an operation of its own.
            .filter(|grant_type| *grant_type != GrantType::Implicit);
        let Some(grant_type) = grant_type else {
            return Err(Refusal::unsupported_grant(&shortened(&word)));
        };
        match grant_type {
            GrantType::RefreshToken => return self.refresh(scope).await,
            GrantType::AuthorizationCode => return self.exchange_code(scope).await,
            _ => {}
        }
        let facts = self.client(scope, true)?;
        if grant_type == GrantType::Password {
            // Whether they are right is for other policies to say.
            self.required(scope, &self.variables.user_name, "username")?;
            self.required(scope, &self.variables.password, "password")?;
        }
        let grant = self.grant(scope, &facts, grant_type)?;
        let refresh = match grant_type {
            GrantType::ClientCredentials => Refresh::No,
            _ => Refresh::New,
        };
        let made = self.make(scope, grant, refresh)?;
        self.issue(scope, &facts, made, Vec::new()).await
    }

    /// `RefreshAccessToken`.
    pub(super) async fn refresh(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let word = self.required(scope, &self.variables.grant_type, "grant_type")?;
        if word != GrantType::RefreshToken.word() {
            return Err(Refusal::unsupported_grant(&shortened(&word)));
        }
        let facts = self.client(scope, true)?;
        let token = self.required(scope, &self.variables.refresh_token, "refresh_token")?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::refresh_token());
        }
        let (organization, key) = (scope.place.organization.clone(), digest(&token));
        // Whoever uses the same token meanwhile finds it used.
        let _held = self.store.lock(&[&key]).await;
        let known = self.store.find(&organization, TokenKind::Refresh, &key);
        let known = known.ok_or_else(Refusal::refresh_token)?;
        let now = now_ms();
        let marked = self.store.is_marked(
            &organization,
            TokenKind::Refresh,
            &known.grant,
            known.issued_at,
        );
        if known.grant.client_id != facts.key.consumer_key
            || known.grant.app_id != facts.app.app_id
            || known.status != TokenStatus::Approved
            || marked
        {
            return Err(Refusal::refresh_token());
        }
        if is_over(known.expires_at, now) {
            return Err(Refusal::refresh_token_expired());
        }
        let mut grant = known.grant.clone();
        grant.refresh_count += 1;
        grant.attach(self.attributes(scope)?);
        if let Some(asked) = self.given(scope, &self.variables.scope) {
            // A refresh can only make it less.
            grant.scope = narrowed(&asked, grant.scope.split_whitespace())?;
        }
        let (refresh, edits) = match self.config.reuse_refresh_token {
            true => (Refresh::Same(&token, Box::new(known)), Vec::new()),
            false => {
                let gone = self.store.forget(&organization, TokenKind::Refresh, &key);
                (Refresh::New, vec![gone])
            }
        };
        let made = self.make(scope, grant, refresh)?;
        self.issue(scope, &facts, made, edits).await
    }

    /// What the client is granted now.
    pub(super) fn grant(
        &self,
        scope: &Scope,
        facts: &Arc<KeyFacts>,
        grant_type: GrantType,
    ) -> Result<Grant, Refusal> {
        let asked = self.given(scope, &self.variables.scope);
        let end_user = self.variables.app_end_user.as_ref();
        let mut grant = Grant {
            client_id: facts.key.consumer_key.clone(),
            app_id: facts.app.app_id.clone(),
            scope: granted_scope(facts, asked.as_deref())?,
            grant_type: grant_type.word().to_owned(),
            app_end_user: end_user.and_then(|name| self.given(scope, name)),
            attributes: Vec::new(),
            refresh_count: 0,
        };
        grant.attach(self.attributes(scope)?);
        Ok(grant)
    }

    /// Makes tokens for a grant.
    pub(super) fn make(
        &self,
        scope: &Scope,
        grant: Grant,
        refresh: Refresh<'_>,
    ) -> Result<Made, Refusal> {
        let (config, organization) = (&self.config, scope.place.organization.as_str());
        let now = now_ms();
        let access_life = life(
            scope,
            config.expires_in_reference.as_deref(),
            config.expires_in_ms,
        )?;
        let access_token = self.brought(
            scope,
            config.external.access_token.as_deref(),
            TokenKind::Access,
            ACCESS_LENGTH,
        )?;
        let refresh = match refresh {
            Refresh::No => None,
            Refresh::Same(token, mut known) => {
                known.grant.refresh_count = grant.refresh_count;
                known.grant.attributes.clone_from(&grant.attributes);
                Some((token.to_owned(), *known))
            }
            Refresh::New => {
                let life = life(
                    scope,
                    config.refresh_expires_in_reference.as_deref(),
                    config.refresh_expires_in_ms,
                )?;
                let token = self.brought(
                    scope,
                    config.external.refresh_token.as_deref(),
                    TokenKind::Refresh,
                    REFRESH_LENGTH,
                )?;
                let issued = Issued {
                    grant: grant.clone(),
                    status: TokenStatus::Approved,
                    issued_at: now,
                    expires_at: end_of(life, now),
                    partner: None,
                };
                Some((token, issued))
            }
        };
        let access_key = digest(&access_token);
        let partner = refresh
            .as_ref()
            .and_then(|(token, _)| self.store.partner(&access_key, token));
        let access = Issued {
            grant,
            status: TokenStatus::Approved,
            issued_at: now,
            expires_at: end_of(access_life, now),
            partner,
        };
        let mut edits = vec![self.store.keep(
            organization,
            TokenKind::Access,
            &access_key,
            &access,
            access.expires_at,
        )?];
        let refresh = match refresh {
            None => None,
            Some((token, mut issued)) => {
                let key = digest(&token);
                issued.partner = self.store.partner(&key, &access_token);
                edits.push(self.store.keep(
                    organization,
                    TokenKind::Refresh,
                    &key,
                    &issued,
                    issued.expires_at,
                )?);
                Some((token, issued))
            }
        };
        if config.external.authorization && !config.external.store {
            edits.clear();
        }
        Ok(Made {
            access: (access_token, access),
            refresh,
            edits,
        })
    }

    /// A token that somebody else made, or a new one.
    pub(super) fn brought(
        &self,
        scope: &Scope,
        variable: Option<&str>,
        kind: TokenKind,
        length: usize,
    ) -> Result<String, Refusal> {
        let Some(variable) = variable else {
            return Ok(generate(length));
        };
        let Some(token) = self.given(scope, &VariableName::new(variable)) else {
            let what = format!("Token variable {variable}");
            return Err(Refusal::unresolved(
                "steps.oauth.v2.FailedToResolveToken",
                &what,
            ));
        };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::invalid(format!(
                "The token has more than {TOKEN_BYTES_MAX} bytes"
            )));
        }
        let known = self
            .store
            .find_token(&scope.place.organization, kind, &token);
        match known {
            Some(_) => Err(Refusal::taken()),
            None => Ok(token),
        }
    }

    /// Keeps tokens and tells of them. `edits` come before their own.
    pub(super) async fn issue(
        &self,
        scope: &mut Scope,
        facts: &KeyFacts,
        made: Made,
        mut edits: Vec<Edit>,
    ) -> Result<(), Refusal> {
        edits.extend(made.edits);
        self.store.write(edits).await?;
        let (access, refresh) = (&made.access, made.refresh.as_ref());
        let described = Described {
            token: &access.0,
            issued: &access.1,
        };
        let refresh = refresh.map(|(token, issued)| Described { token, issued });
        let organization = scope.place.organization.clone();
        let rfc = self.config.follows_rfc;
        let fields = answer::of_tokens(
            &organization,
            facts,
            &described,
            refresh.as_ref(),
            None,
            rfc,
        );
        tell(&self.name, scope, facts, &fields, &access.1.grant);
        if let Some(format) = self.config.response {
            let shown = shown(fields, &access.1.grant);
            let response = answer::response(format, &shown, rfc);
            // The response's place always exists.
            let _ = scope.put_message("response", response);
        }
        Ok(())
    }
}

/// Sets the variables of an issued token for the policy called `name`.
pub(super) fn tell(
    name: &str,
    scope: &mut Scope,
    facts: &KeyFacts,
    fields: &[(String, Field)],
    grant: &Grant,
) {
    let prefix = format!("oauthv2accesstoken.{name}.");
    for (name, field) in fields {
        scope.set_own(&format!("{prefix}{name}"), field.text());
    }
    for attribute in &grant.attributes {
        let name = format!("{prefix}{}", attribute.name);
        scope.set_own(&name, attribute.value.clone());
    }
    for (name, value) in [
        ("developer.app", &facts.app.name),
        ("developer.app.name", &facts.app.name),
        ("developer.id", &facts.developer.developer_id),
        ("grant_type", &grant.grant_type),
    ] {
        scope.set_own(&format!("{prefix}{name}"), value.clone());
    }
    if let Some(user) = &grant.app_end_user {
        scope.set_own(&format!("{prefix}app_enduser"), user.clone());
    }
}

/// The fields of an answer: those of the token, and its attributes that are to be shown.
pub(super) fn shown(mut fields: Vec<(String, Field)>, grant: &Grant) -> Vec<(String, Field)> {
    for attribute in grant.attributes.iter().filter(|one| one.display) {
        // An attribute stands in the place of no field of the token.
        if !fields.iter().any(|(name, _)| *name == attribute.name) {
            fields.push((attribute.name.clone(), Field::Text(attribute.value.clone())));
        }
    }
    fields
}

/// The scopes that a key may ask for: those of its approved products, and of itself where it names any.
fn allowed_scopes(facts: &KeyFacts) -> Vec<&str> {
    let approved = answer::products(facts);
    let products = facts
        .products
        .iter()
        .filter(|product| approved.contains(&product.name));
    let mut seen = BTreeSet::new();
    products
        .flat_map(|product| product.scopes.iter().map(String::as_str))
        .filter(|scope| facts.key.scopes.is_empty() || facts.key.scopes.iter().any(|s| s == scope))
        .filter(|scope| seen.insert(*scope))
        .collect()
}

/// The scope of a new token: all that is allowed, or what was asked for of it.
fn granted_scope(facts: &KeyFacts, asked: Option<&str>) -> Result<String, Refusal> {
    let allowed = allowed_scopes(facts);
    match asked {
        None => Ok(allowed.join(" ")),
        Some(asked) => narrowed(asked, allowed.into_iter()),
    }
}

/// The words that are asked for and allowed; refused when there is none.
fn narrowed<'a>(asked: &str, allowed: impl Iterator<Item = &'a str>) -> Result<String, Refusal> {
    let allowed: BTreeSet<&str> = allowed.collect();
    let mut seen = BTreeSet::new();
    let granted: Vec<&str> = asked
        .split_whitespace()
        .filter(|word| allowed.contains(word) && seen.insert(*word))
        .collect();
    match granted.is_empty() {
        true => Err(Refusal::scope()),
        false => Ok(granted.join(" ")),
    }
}

/// A word of a client, as long as a message may show.
fn shortened(word: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    word.chars()
        .filter(|c| !c.is_control())
        .take(CHARACTERS_MAX)
        .collect()
}
