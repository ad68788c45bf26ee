//! `GetOAuthV2Info`, `SetOAuthV2Info`, `DeleteOAuthV2Info` and `RevokeOAuthV2`.

use std::sync::Arc;

use async_trait::async_trait;

use super::answer::{self, Described, Field};
use super::attributes_of;
use super::issue::tell;
use super::refusal::Refusal;
use super::store::TokenStore;
use crate::dialects::apigee::keys::KeyFacts;
use crate::dialects::apigee::oauth::{
    Issued, NEVER, TOKEN_BYTES_MAX, TokenKind, TokenStatus, digest, is_over, mark_key, seconds_left,
};
use crate::dialects::apigee::policies::oauth_info::{Action, Config};
use crate::dialects::apigee::policies::texts::RefOrText;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use crate::plugins::apigee::policies::keys::KeyTable;
use crate::plugins::apigee::policies::{Policy, PolicyLink};
use crate::runtime::records::now_ms;

pub(super) struct Info {
    pub(super) name: String,
    pub(super) config: Config,
    pub(super) keys: Arc<KeyTable>,
    pub(super) store: TokenStore,
}

pub(in crate::plugins::apigee::policies) fn link(
    link: &PolicyLink<'_>,
) -> Result<Box<dyn Policy>, String> {
    let live = link.context.live;
    Ok(Box::new(Info {
        name: link.name.to_owned(),
        config: link.config()?,
        keys: KeyTable::of(live),
        store: TokenStore::of(live),
    }))
}

/// What a reference says, if it is written at all.
fn said(scope: &Scope, part: &RefOrText, code: &'static str) -> Result<Option<String>, Refusal> {
    if part.is_empty() {
        return Ok(None);
    }
    let name = part.reference.as_deref().map(VariableName::new);
    let referred = name.as_ref().and_then(|name| scope.text(name));
    let text = referred.map(|text| text.into_owned());
    let text = text.or_else(|| part.text.clone()).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
        let name = part.reference.as_deref().unwrap_or_default();
        return Err(Refusal::unresolved(code, &format!("variable {name}")));
    }
    Ok(Some(text.to_owned()))
}

fn unknown_token() -> Refusal {
    Refusal::access(
        "keymanagement.service.invalid_access_token",
        "Invalid Access Token",
    )
}

impl Info {
    pub(super) async fn run(&self, scope: &mut Scope) -> Result<(), Refusal> {
        match self.config.action {
            Action::Show => self.show(scope),
            Action::Change => self.change(scope).await,
            Action::Delete => self.delete(scope).await,
            Action::Revoke => self.revoke(scope).await,
        }
    }

    /// The key of a grant; the app may be gone.
    fn facts(&self, scope: &Scope, client_id: &str) -> Option<Arc<KeyFacts>> {
        let organization = &scope.place.organization;
        self.keys
            .find(&scope.inbound.snapshot, organization, client_id)
    }

    fn show(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let config = &self.config;
        let token = "steps.oauth.v2.FailedToResolveAccessToken";
        if let Some(token) = said(scope, &config.access_token, token)? {
            self.show_access(scope, &token)?;
        }
        let token = "steps.oauth.v2.FailedToResolveRefreshToken";
        if let Some(token) = said(scope, &config.refresh_token, token)? {
            self.show_refresh(scope, &token)?;
        }
        let code = "steps.oauth.v2.FailedToResolveAuthorizationCode";
        if let Some(code) = said(scope, &config.code, code)? {
            self.show_code(scope, &code)?;
        }
        let client = "steps.oauth.v2.FailedToResolveClientId";
        if let Some(client) = said(scope, &config.client_id, client)? {
            self.show_client(scope, &client)?;
        }
        Ok(())
    }

    fn show_access(&self, scope: &mut Scope, token: &str) -> Result<(), Refusal> {
        let (organization, key) = (scope.place.organization.clone(), digest(token));
        let found = self.store.find(&organization, TokenKind::Access, &key);
        let issued = found.ok_or_else(unknown_token)?;
        let now = now_ms();
        if !self.config.ignores_status {
            if is_over(issued.expires_at, now) {
                return Err(Refusal::access(
                    "keymanagement.service.access_token_expired",
                    "Access Token expired",
                ));
            }
            let (grant, at) = (&issued.grant, issued.issued_at);
            let marked = self
                .store
                .is_marked(&organization, TokenKind::Access, grant, at);
            if issued.status != TokenStatus::Approved || marked {
                return Err(Refusal::access(
                    "keymanagement.service.access_token_not_approved",
                    "Access Token not approved",
                ));
            }
        }
        let facts = self
            .facts(scope, &issued.grant.client_id)
            .ok_or_else(unknown_token)?;
        let partner = issued.partner.as_ref().and_then(|partner| {
            let found = self
                .store
                .find(&organization, TokenKind::Refresh, &partner.digest)?;
            Some((self.store.open_partner(&key, partner)?, found))
        });
        let refresh = partner
            .as_ref()
            .map(|(token, issued)| Described { token, issued });
        let access = Described {
            token,
            issued: &issued,
        };
        let fields = answer::of_tokens(
            &organization,
            &facts,
            &access,
            refresh.as_ref(),
            Some(now),
            false,
        );
        tell(&self.name, scope, &facts, &fields, &issued.grant);
        for attribute in &issued.grant.attributes {
            let name = format!(
                "oauthv2accesstoken.{}.accesstoken.{}",
                self.name, attribute.name
            );
            scope.set_own(&name, attribute.value.clone());
        }
        Ok(())
    }

    fn show_refresh(&self, scope: &mut Scope, token: &str) -> Result<(), Refusal> {
        let (organization, key) = (scope.place.organization.clone(), digest(token));
        let found = self.store.find(&organization, TokenKind::Refresh, &key);
        let issued = found.ok_or_else(Refusal::refresh_token)?;
        let now = now_ms();
        let access = issued
            .partner
            .as_ref()
            .and_then(|partner| self.store.open_partner(&key, partner));
        let facts = self.facts(scope, &issued.grant.client_id);
        let grant = &issued.grant;
        let mut all = vec![
            ("refresh_token", token.to_owned()),
            ("access_token", access.unwrap_or_default()),
            ("client_id", grant.client_id.clone()),
            ("scope", grant.scope.clone()),
            ("grant_type", grant.grant_type.clone()),
            ("organization_name", organization),
            ("refresh_count", grant.refresh_count.to_string()),
            ("refresh_token_status", issued.status.word().to_owned()),
            ("refresh_token_issued_at", issued.issued_at.to_string()),
            (
                "refresh_token_expires_in",
                seconds_left(issued.expires_at, now).to_string(),
            ),
        ];
        if let Some(facts) = facts {
            let products = Field::List(answer::products(&facts)).text();
            all.push(("api_product_list", products));
            all.push(("developer.email", facts.developer.email.clone()));
            all.push(("developer.id", facts.developer.developer_id.clone()));
            all.push(("developer.app.name", facts.app.name.clone()));
            all.push(("developer.app.id", facts.app.app_id.clone()));
        }
        self.set_all(scope, "oauthv2refreshtoken", all);
        for attribute in &issued.grant.attributes {
            let name = format!(
                "oauthv2refreshtoken.{}.accesstoken.{}",
                self.name, attribute.name
            );
            scope.set_own(&name, attribute.value.clone());
        }
        Ok(())
    }

    fn show_code(&self, scope: &mut Scope, code: &str) -> Result<(), Refusal> {
        let organization = scope.place.organization.clone();
        let found = self.store.find_code(&organization, &digest(code));
        let now = now_ms();
        let known = found.filter(|known| !is_over(known.expires_at, now));
        let known = known.ok_or_else(Refusal::code)?;
        let mut all = vec![
            ("code", code.to_owned()),
            ("client_id", known.grant.client_id),
            ("organization_id", organization),
            ("issued_at", known.issued_at.to_string()),
            (
                "expires_in",
                seconds_left(known.expires_at, now).to_string(),
            ),
            ("redirect_uri", known.redirect_uri.unwrap_or_default()),
            ("status", TokenStatus::Approved.word().to_owned()),
            ("scope", known.grant.scope),
        ];
        all.extend(known.state.map(|state| ("state", state)));
        self.set_all(scope, "oauthv2authcode", all);
        for attribute in known.grant.attributes {
            let name = format!("oauthv2authcode.{}.{}", self.name, attribute.name);
            scope.set_own(&name, attribute.value);
        }
        Ok(())
    }

    fn show_client(&self, scope: &mut Scope, client_id: &str) -> Result<(), Refusal> {
        let facts = self.facts(scope, client_id);
        let facts = facts.ok_or_else(Refusal::unknown_client)?;
        let (app, developer) = (&facts.app, &facts.developer);
        let all = vec![
            ("client_id", facts.key.consumer_key.clone()),
            ("client_secret", facts.key.consumer_secret.clone()),
            ("redirection_uris", app.callback_url.clone()),
            ("developer.email", developer.email.clone()),
            ("developer.app.name", app.name.clone()),
            ("developer.app.id", app.app_id.clone()),
            ("developer.id", developer.developer_id.clone()),
        ];
        self.set_all(scope, "oauthv2client", all);
        for attribute in &app.attributes {
            let name = format!("oauthv2client.{}.{}", self.name, attribute.name);
            scope.set_own(&name, attribute.value.clone());
        }
        Ok(())
    }

    fn set_all(&self, scope: &mut Scope, prefix: &str, all: Vec<(&str, String)>) {
        for (name, value) in all {
            scope.set_own(&format!("{prefix}.{}.{name}", self.name), value);
        }
    }

    /// Changes the attributes of an access token, and tells of it.
    async fn change(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let code = "steps.oauth.v2.FailedToResolveAccessToken";
        let token = said(scope, &self.config.access_token, code)?.unwrap_or_default();
        let (organization, key) = (scope.place.organization.clone(), digest(&token));
        let attributes = attributes_of(&self.config.attributes, scope)?;
        let _held = self.store.lock(&[&key]).await;
        let found = self.store.find(&organization, TokenKind::Access, &key);
        let mut issued: Issued = found.ok_or_else(unknown_token)?;
        let now = now_ms();
        if is_over(issued.expires_at, now) {
            return Err(Refusal::access(
                "keymanagement.service.access_token_expired",
                "Access Token expired",
            ));
        }
        issued.grant.attach(attributes);
        let end = issued.expires_at;
        let edit = self
            .store
            .keep(&organization, TokenKind::Access, &key, &issued, end)?;
        self.store.write(vec![edit]).await?;
        let facts = self.facts(scope, &issued.grant.client_id);
        if let Some(facts) = facts {
            let described = Described {
                token: &token,
                issued: &issued,
            };
            let fields =
                answer::of_tokens(&organization, &facts, &described, None, Some(now), false);
            tell(&self.name, scope, &facts, &fields, &issued.grant);
        }
        Ok(())
    }

    async fn delete(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let config = &self.config;
        let organization = scope.place.organization.clone();
        let token = "steps.oauth.v2.FailedToResolveAccessToken";
        let code = "steps.oauth.v2.FailedToResolveAuthorizationCode";
        let token = said(scope, &config.access_token, token)?.map(|text| digest(&text));
        let code = said(scope, &config.code, code)?.map(|text| digest(&text));
        let keys = [token.as_deref(), code.as_deref()];
        let keys: Vec<&str> = keys.into_iter().flatten().collect();
        let _held = self.store.lock(&keys).await;
        let mut edits = Vec::new();
        if let Some(key) = &token {
            let found = self.store.find(&organization, TokenKind::Access, key);
            found.ok_or_else(unknown_token)?;
            edits.push(self.store.forget(&organization, TokenKind::Access, key));
        }
        if let Some(key) = &code {
            let found = self.store.find_code(&organization, key);
            found.ok_or_else(Refusal::code)?;
            edits.push(self.store.forget(&organization, TokenKind::Code, key));
        }
        self.store.write(edits).await
    }

    /// Marks everything of an app or end user that was issued so far as revoked.
    async fn revoke(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let config = &self.config;
        let app = said(scope, &config.app_id, "steps.oauth.v2.FailedToResolveAppId")?;
        let user = "steps.oauth.v2.FailedToResolveEndUserId";
        let user = said(scope, &config.end_user, user)?;
        let code = "steps.oauth.v2.FailedToResolveRevokeBeforeTimestamp";
        let now = now_ms();
        let before = match said(scope, &config.before, code)? {
            None => now.saturating_add(1),
            Some(text) => {
                let moment: Option<i64> = text.parse().ok();
                let moment = moment.filter(|moment| (0..=now).contains(moment));
                moment.ok_or_else(|| {
                    Refusal::invalid("RevokeBeforeTimestamp is no moment in the past, in milliseconds since 1970")
                })?
            }
        };
        let Some(key) = mark_key(app.as_deref(), user.as_deref()) else {
            return Err(Refusal::invalid("neither an app nor an end user is named"));
        };
        let organization = scope.place.organization.clone();
        let _held = self.store.lock(&[&key]).await;
        let mark = self.store.find_mark(&organization, &key);
        let mark = mark.raised(before, config.cascade);
        let edit = self
            .store
            .keep(&organization, TokenKind::Mark, &key, &mark, NEVER)?;
        self.store.write(vec![edit]).await
    }

    fn end(&self, scope: &mut Scope, outcome: Result<(), Refusal>) -> Result<Next, PolicyFault> {
        match outcome {
            Ok(()) => {
                scope.set_own(&format!("oauthV2.{}.failed", self.name), false);
                Ok(Next::Continue)
            }
            Err(refusal) => Err(refusal.into_fault(scope, &self.name, None, false)),
        }
    }
}

#[async_trait]
impl Policy for Info {
    fn waits(&self) -> bool {
        self.config.action != Action::Show
    }

    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let outcome = self.show(flow.scope);
        self.end(flow.scope, outcome)
    }

    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let outcome = self.run(flow.scope).await;
        self.end(flow.scope, outcome)
    }
}
