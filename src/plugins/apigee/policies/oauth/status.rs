//! `InvalidateToken` and `ValidateToken`: revoking tokens and approving them again.

use super::OAuth;
use super::refusal::Refusal;
use crate::dialects::apigee::oauth::{TokenKind, TokenStatus, digest};
use crate::dialects::apigee::policies::oauth_v2::{Operation, TokenReference};
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::scope::Scope;

impl OAuth {
    /// Changes the tokens that the policy names, and with them those that were issued together with them.
    pub(super) async fn change(&self, scope: &mut Scope) -> Result<(), Refusal> {
        let status = match self.config.operation {
            Operation::ValidateToken => TokenStatus::Approved,
            _ => TokenStatus::Revoked,
        };
        for token in &self.config.tokens {
            self.change_one(scope, token, status).await?;
        }
        Ok(())
    }

    async fn change_one(
        &self,
        scope: &Scope,
        reference: &TokenReference,
        status: TokenStatus,
    ) -> Result<(), Refusal> {
        let organization = scope.place.organization.as_str();
        let name = VariableName::new(&reference.variable);
        let Some(token) = self.given(scope, &name) else {
            let what = format!("Token variable {}", reference.variable);
            return Err(Refusal::unresolved(
                "steps.oauth.v2.FailedToResolveToken",
                &what,
            ));
        };
        let (kind, other) = match reference.kind {
            TokenKind::Refresh => (TokenKind::Refresh, TokenKind::Access),
            _ => (TokenKind::Access, TokenKind::Refresh),
        };
        let key = digest(&token);
        let unknown = || match kind {
            TokenKind::Refresh => Refusal::refresh_token(),
            _ => Refusal::access(
                "keymanagement.service.invalid_access_token",
                "Invalid Access Token",
            ),
        };
        let known = self.store.find(organization, kind, &key);
        let known = known.ok_or_else(unknown)?;
        let partner = known.partner.filter(|_| reference.cascade);
        let partner = partner.map(|partner| partner.digest);
        let mut keys = vec![key.as_str()];
        keys.extend(partner.as_deref());
        let _held = self.store.lock(&keys).await;
        let mut edits = Vec::new();
        for (kind, key) in [(kind, Some(key.as_str())), (other, partner.as_deref())] {
            let Some(key) = key else { continue };
            // Looked at again, now that nobody else changes it.
            if let Some(mut issued) = self.store.find(organization, kind, key) {
                issued.status = status;
                let end = issued.expires_at;
                edits.push(self.store.keep(organization, kind, key, &issued, end)?);
            }
        }
        self.store.write(edits).await
    }
}
