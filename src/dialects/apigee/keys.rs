//! Keys of apps to credentials of the plan: what a request's key is looked up in, without leaving memory.
//!
//! A key becomes a credential whose kind names the organisation, and a principal whose description holds everything that
//! policies tell of it: app, developer, products in the key's order. A change of any of them makes a new principal.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entities::{ApiProduct, App, AppKey, Developer, Kind};
use super::entity_set::{Change, EntitySet, Key};
use crate::base::secret::Secret;
use crate::model::plan::{CredentialPlan, PlanDelta, PrincipalPlan};

/// The kind of credentials of an organisation.
pub fn credential_kind(organization: &str) -> String {
    format!("app-key/{organization}")
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyFacts {
    pub key: AppKey,
    pub app: App,
    pub developer: Developer,
    /// The products of the key that exist, in its order.
    pub products: Vec<ApiProduct>,
}

/// Compiles the keys that changes touch, from the entities after them.
pub fn compile(before: &EntitySet, after: &EntitySet, changes: &[Change]) -> PlanDelta {
    let mut delta = PlanDelta::default();
    for key in touched(before, after, changes) {
        let id = principal_id(&key);
        let facts = facts(after, &key);
        delta.principals.insert(
            id,
            facts.as_ref().map(|facts| {
                Arc::new(PrincipalPlan {
                    id,
                    username: None,
                    custom_id: None,
                    groups: Vec::new(),
                    acl_groups: Vec::new(),
                    description: serde_json::to_string(facts).unwrap_or_default().into(),
                })
            }),
        );
        delta.credentials.insert(
            key.id(Kind::AppKey),
            facts.map(|facts| {
                Arc::new(CredentialPlan {
                    id: key.id(Kind::AppKey),
                    kind: credential_kind(key.part(0)).into(),
                    key: Secret::new(facts.key.consumer_key),
                    principal: id,
                    secret: Some(Secret::new(facts.key.consumer_secret)),
                    // A key that has ended is told apart from one that never was.
                    expires_at: None,
                })
            }),
        );
    }
    delta
}

fn principal_id(key: &Key) -> Uuid {
    key.id(Kind::App)
}

fn facts(set: &EntitySet, key: &Key) -> Option<KeyFacts> {
    let organization = key.part(0);
    let app_key: AppKey = set.find(&[organization, key.part(1)])?;
    let app = set.find(&[organization, &app_key.developer_id, &app_key.app])?;
    let developer = set.find(&[organization, &app_key.developer_id])?;
    let products = app_key
        .api_products
        .iter()
        .filter_map(|approval| set.find(&[organization, &approval.apiproduct]))
        .collect();
    Some(KeyFacts {
        key: app_key,
        app,
        developer,
        products,
    })
}

/// The keys whose facts may have become others.
fn touched(before: &EntitySet, after: &EntitySet, changes: &[Change]) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let mut products: BTreeSet<(&str, &str)> = BTreeSet::new();
    for change in changes {
        let organization = change.key.part(0);
        match change.kind {
            Kind::AppKey => {
                keys.insert(change.key.clone());
            }
            Kind::App | Kind::Developer => {
                // An app's key begins with that of its developer.
                let parts: Vec<&str> = change.key.parts().collect();
                for set in [before, after] {
                    let apps = set.all::<App>(&parts);
                    keys.extend(apps.flat_map(|(_, app)| {
                        let keys = app.keys.into_iter();
                        keys.map(|key| Key::of(&[organization, &key]))
                            .collect::<Vec<_>>()
                    }));
                }
            }
            Kind::ApiProduct => {
                products.insert((organization, change.key.part(1)));
            }
            _ => {}
        }
    }
    for (organization, _) in &products {
        for (key, app_key) in after.all::<AppKey>(&[organization]) {
            let names = app_key
                .api_products
                .iter()
                .map(|approval| approval.apiproduct.as_str());
            if names
                .into_iter()
                .any(|name| products.contains(&(organization, name)))
            {
                keys.insert(key.clone());
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::dialects::apigee::entities::{Fields, ProductApproval, Stamp};

    fn product() -> ApiProduct {
        let body = serde_json::json!({"name": "P", "apiResources": ["/**"]});
        let fields = Fields::new(body.as_object().cloned().unwrap());
        ApiProduct::read(fields, Stamp::default()).unwrap()
    }

    fn set() -> EntitySet {
        let mut set = EntitySet::new();
        let developer = Developer {
            developer_id: "d".to_owned(),
            email: "a@b".to_owned(),
            first_name: String::new(),
            last_name: String::new(),
            user_name: String::new(),
            status: "active".to_owned(),
            attributes: Vec::new(),
            stamp: Stamp::default(),
        };
        let app = App {
            app_id: "id".to_owned(),
            name: "app".to_owned(),
            developer_id: "d".to_owned(),
            callback_url: String::new(),
            status: "approved".to_owned(),
            scopes: Vec::new(),
            attributes: Vec::new(),
            keys: vec!["k".to_owned()],
            stamp: Stamp::default(),
        };
        let key = AppKey {
            consumer_key: "k".to_owned(),
            consumer_secret: "s".to_owned(),
            developer_id: "d".to_owned(),
            app: "app".to_owned(),
            status: "approved".to_owned(),
            api_products: vec![ProductApproval {
                apiproduct: "P".to_owned(),
                status: "approved".to_owned(),
            }],
            scopes: Vec::new(),
            attributes: Vec::new(),
            issued_at: 0,
            expires_at: -1,
        };
        set.put(&["o", "P"], &product());
        set.put(&["o", "d"], &developer);
        set.put(&["o", "d", "app"], &app);
        set.put(&["o", "k"], &key);
        set
    }

    #[test]
    fn keys_follow_what_they_stand_for() {
        let nothing = EntitySet::new();
        let before = set();
        let changes = EntitySet::difference(&nothing, &before);
        let delta = compile(&nothing, &before, &changes);
        let credential = delta.credentials.values().next().unwrap().clone().unwrap();
        assert_eq!(&*credential.kind, "app-key/o");
        assert_eq!(credential.key.expose(), "k");
        let principal = delta.principals[&credential.principal].clone().unwrap();
        let facts: KeyFacts = serde_json::from_str(&principal.description).unwrap();
        assert_eq!(facts.products[0].name, "P");
        let mut after = before.clone();
        let mut changed = product();
        changed.quota = Some("5".to_owned());
        let change = after.put(&["o", "P"], &changed);
        let delta = compile(&before, &after, &[change]);
        assert_eq!(delta.credentials.len(), 1);
        let mut gone = after.clone();
        let change = gone.remove(Kind::AppKey, &["o", "k"]).unwrap();
        let delta = compile(&after, &gone, &[change]);
        assert_eq!(delta.credentials.values().next().unwrap(), &None);
        let mut inactive = after.clone();
        let mut developer: Developer = after.find(&["o", "d"]).unwrap();
        developer.status = "inactive".to_owned();
        let change = inactive.put(&["o", "d"], &developer);
        assert_eq!(compile(&after, &inactive, &[change]).principals.len(), 1);
    }
}
