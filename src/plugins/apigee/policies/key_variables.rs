//! What variables tell of a key's app, developer and product, whoever looked the key up.

use crate::dialects::apigee::entities::{ApiProduct, Attribute, Stamp};
use crate::dialects::apigee::keys::KeyFacts;

/// Variables that are also set without a policy's prefix.
pub(super) const GLOBAL: [&str; 6] = [
    "client_id",
    "developer.email",
    "developer.id",
    "developer.app.name",
    "developer.app.id",
    "apiproduct.name",
];

/// What is told of a key, by name.
pub(super) fn of_key(facts: &KeyFacts, product: Option<&ApiProduct>) -> Vec<(String, String)> {
    let (app, developer, key) = (&facts.app, &facts.developer, &facts.key);
    let mut all: Vec<(String, String)> = Vec::with_capacity(48);
    let mut set = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    set("client_id", &key.consumer_key);
    set("client_secret", &key.consumer_secret);
    set("redirection_uris", &app.callback_url);
    set("developer.app.id", &app.app_id);
    set("developer.app.name", &app.name);
    set("developer.id", &developer.developer_id);
    set("failed", "false");
    set("app.name", &app.name);
    set("app.id", &app.app_id);
    set("app.accessType", "read");
    set("app.callbackUrl", &app.callback_url);
    set("app.status", &app.status);
    set("app.appFamily", "default");
    set("app.appParentStatus", &developer.status);
    set("app.appType", "Developer");
    set("app.appParentId", &developer.developer_id);
    let names: Vec<&str> = key
        .api_products
        .iter()
        .map(|approval| approval.apiproduct.as_str())
        .collect();
    set("app.apiproducts", &names.join(","));
    set("developer.userName", &developer.user_name);
    set("developer.firstName", &developer.first_name);
    set("developer.lastName", &developer.last_name);
    set("developer.email", &developer.email);
    set("developer.status", &developer.status);
    set("developer.apps", &app.name);
    if let Some(product) = product {
        set("apiproduct.name", &product.name);
        for (part, value) in [
            ("limit", &product.quota),
            ("interval", &product.quota_interval),
            ("timeunit", &product.quota_time_unit),
        ] {
            if let Some(value) = value {
                set(&format!("apiproduct.developer.quota.{part}"), value);
            }
        }
    }
    for (of, stamp) in [("app", &app.stamp), ("developer", &developer.stamp)] {
        stamp_of(of, stamp, &mut set);
    }
    for (of, attributes) in [
        ("app.", app.attributes.as_slice()),
        ("developer.", &developer.attributes),
        (
            "apiproduct.",
            product.map_or(&[], |product| product.attributes.as_slice()),
        ),
        ("", &app.attributes),
    ] {
        for Attribute { name, value } in attributes {
            // Their own variables come first.
            set(&format!("{of}{name}"), value);
        }
    }
    if let Some(name) = Attribute::find(&app.attributes, "DisplayName") {
        set("app.DisplayName", name);
    }
    let mut seen = ahash::AHashSet::new();
    all.retain(|(name, _)| seen.insert(name.clone()));
    all
}

fn stamp_of(of: &str, stamp: &Stamp, set: &mut impl FnMut(&str, &str)) {
    set(&format!("{of}.created_at"), &stamp.created_at.to_string());
    set(&format!("{of}.created_by"), &stamp.created_by);
    set(
        &format!("{of}.last_modified_at"),
        &stamp.last_modified_at.to_string(),
    );
    set(&format!("{of}.last_modified_by"), &stamp.last_modified_by);
}
