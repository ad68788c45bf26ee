//! `VerifyAPIKey`: looks a key up and tells what it stands for.

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::RwLock;

use super::keys::{KeyTable, product_for};
use super::{Policy, PolicyLink, key_variables};
use crate::dialects::apigee::entities::ApiProduct;
use crate::dialects::apigee::keys::KeyFacts;
use crate::dialects::apigee::policies::verify_api_key::Config;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::{Layer, Scope};
use crate::runtime::records::now_ms;

struct VerifyApiKey {
    prefix: String,
    reference: Option<VariableName>,
    literal: Option<String>,
    keys: Arc<KeyTable>,
    /// By consumer key.
    made: RwLock<AHashMap<Box<str>, Made>>,
}

/// Variables of a key, and what they were made from.
struct Made {
    facts: Arc<KeyFacts>,
    product: Box<str>,
    layer: Arc<Layer>,
}

/// Keys whose variables are kept made; then all are forgotten and made again as they are needed.
const MADE_MAX: usize = 10_000;

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    Ok(Box::new(VerifyApiKey {
        prefix: format!("verifyapikey.{}.", link.name),
        reference: config.key.reference.as_deref().map(VariableName::new),
        literal: config.key.text,
        keys: KeyTable::of(link.context.live),
        made: RwLock::default(),
    }))
}

fn refused(code: &'static str, message: impl Into<String>) -> PolicyFault {
    PolicyFault::new(401, code, message)
}

/// Whether a key, its app and its developer are in order at a moment.
pub(super) fn check_status(facts: &KeyFacts, now_ms: i64) -> Result<(), PolicyFault> {
    if !facts.key.is_good(now_ms) {
        return Err(refused(
            "oauth.v2.ApiKeyNotApproved",
            "API Key not approved",
        ));
    }
    if facts.app.status != "approved" {
        return Err(refused(
            "keymanagement.service.invalid_client-app_not_approved",
            "Invalid client: app not approved",
        ));
    }
    if !facts.developer.is_active() {
        return Err(refused(
            "keymanagement.service.DeveloperStatusNotActive",
            "Developer Status is not Active",
        ));
    }
    Ok(())
}

impl VerifyApiKey {
    /// What is told of a key, made once for all of its calls.
    fn layer(
        &self,
        key: &str,
        facts: &Arc<KeyFacts>,
        product: &ApiProduct,
        organization: &str,
    ) -> Arc<Layer> {
        if let Some(made) = self.made.read().get(key)
            && Arc::ptr_eq(&made.facts, facts)
            && *made.product == *product.name
        {
            return Arc::clone(&made.layer);
        }
        let mut layer = Layer::default();
        for (name, value) in key_variables::of_key(facts, Some(product)) {
            if key_variables::GLOBAL.contains(&name.as_str()) {
                layer.insert(name.as_str().into(), value.clone().into());
            }
            layer.insert(format!("{}{name}", self.prefix).into(), value.into());
        }
        layer.insert("organization_name".into(), organization.to_owned().into());
        let layer = Arc::new(layer);
        let made = Made {
            facts: Arc::clone(facts),
            product: product.name.as_str().into(),
            layer: Arc::clone(&layer),
        };
        let mut all = self.made.write();
        if all.len() >= MADE_MAX {
            all.clear();
        }
        all.insert(key.into(), made);
        layer
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let given = self.reference.as_ref().and_then(|name| scope.text(name));
        let key = given.map(|text| text.into_owned()).or(self.literal.clone());
        let Some(key) = key.filter(|key| !key.trim().is_empty()) else {
            let name = self.reference.as_ref().map_or("", VariableName::as_str);
            return Err(refused(
                "steps.oauth.v2.FailedToResolveAPIKey",
                format!("Failed to resolve API Key variable {name}"),
            ));
        };
        let place = Arc::clone(&scope.place);
        let snapshot = &scope.inbound.snapshot;
        let facts = self
            .keys
            .find(snapshot, &place.organization, key.trim())
            .ok_or_else(|| refused("oauth.v2.InvalidApiKey", "Invalid ApiKey"))?;
        check_status(&facts, now_ms())?;
        if facts.key.api_products.is_empty() {
            return Err(refused(
                "keymanagement.service.consumer_key_missing_api_product_mapping",
                "Consumer key is not associated with an API product",
            ));
        }
        let (environment, proxy) = (&place.environment, &place.proxy);
        let Some(product) = product_for(&facts, environment, proxy, &scope.entry.suffix) else {
            return Err(refused(
                "oauth.v2.InvalidApiKeyForGivenResource",
                "Invalid ApiKey for given resource",
            ));
        };
        let layer = self.layer(key.trim(), &facts, product, &place.organization);
        scope.lay(layer);
        Ok(Next::Continue)
    }
}

impl Policy for VerifyApiKey {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.run(flow.scope)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::super::test_support::scope;
    use super::*;

    #[test]
    fn unset_and_unknown_keys_are_refused() {
        let policy = |reference: &str| VerifyApiKey {
            prefix: "verifyapikey.v.".to_owned(),
            reference: Some(VariableName::new(reference)),
            literal: None,
            keys: Arc::default(),
            made: RwLock::default(),
        };
        let fault = policy("request.queryparam.apikey")
            .run(&mut scope())
            .expect_err("a fault");
        assert_eq!(fault.status, 401);
        assert_eq!(fault.code, "steps.oauth.v2.FailedToResolveAPIKey");
        assert_eq!(
            fault.message,
            "Failed to resolve API Key variable request.queryparam.apikey"
        );
        let fault = policy("request.queryparam.w")
            .run(&mut scope())
            .expect_err("a fault");
        assert_eq!(fault.code, "oauth.v2.InvalidApiKey");
    }
}
