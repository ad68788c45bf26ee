//! API products.

use http::Method;
use serde_json::{Value, json};

use super::attributes;
use super::call::Call;
use super::collection::{self, Collection, as_stored};
use super::reply::Reply;
use crate::dialects::apigee::entities::{ApiProduct, AppKey, BundleKind, Kind};
use crate::dialects::apigee::entity_set::EntitySet;
use crate::dialects::apigee::error::ApiError;

static PRODUCTS: Collection<ApiProduct> = Collection {
    root: "ApiProduct",
    read: ApiProduct::read,
    name: |product| &product.name,
    stamp: |product| &mut product.stamp,
    show: as_stored,
    check,
    check_delete,
};

/// Answers calls below `/apiproducts`.
pub(super) async fn answer(call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    let organization = call.organization.as_str();
    match (&call.method, rest) {
        (&Method::GET, []) => list(call),
        (_, [product, "attributes", rest @ ..]) => {
            attributes::answer::<ApiProduct>(
                call,
                &[organization, product],
                rest,
                |product| &mut product.attributes,
                |product| Some(&mut product.stamp),
            )
            .await
        }
        _ => collection::answer(call, &PRODUCTS, &[organization], rest).await,
    }
}

fn list(call: &Call) -> Result<Reply, ApiError> {
    let set = call.set();
    let below = [call.organization.as_str()];
    let page = Page::of(call)?;
    if call.switch("expand") {
        let products: Vec<Value> = page
            .cut(set.all::<ApiProduct>(&below), |(key, _)| key.last())
            .map(|(_, product)| json!(product))
            .collect();
        return Ok(Reply::ok("ApiProducts", json!({"apiProduct": products})));
    }
    let rows = page.cut(set.list(Kind::ApiProduct, &below), |row| row.name());
    let names: Vec<&str> = rows.map(|row| row.name()).collect();
    Ok(Reply::ok("List", json!(names)))
}

fn check(set: &EntitySet, key: &[&str], product: &ApiProduct) -> Result<(), ApiError> {
    let [organization, ..] = key else {
        return Ok(());
    };
    for environment in &product.environments {
        if !set.has(Kind::Environment, &[organization, environment]) {
            return Err(ApiError::field(
                "environments",
                format!("environment {environment} does not exist"),
            ));
        }
    }
    for proxy in &product.proxies {
        if !set.has(
            Kind::Bundle,
            &[organization, BundleKind::Proxy.word(), proxy],
        ) {
            return Err(ApiError::field(
                "proxies",
                format!("APIProxy {proxy} does not exist"),
            ));
        }
    }
    Ok(())
}

fn check_delete(set: &EntitySet, key: &[&str], product: &ApiProduct) -> Result<(), ApiError> {
    let [organization, ..] = key else {
        return Ok(());
    };
    let user = set.all::<AppKey>(&[organization]).find(|(_, app_key)| {
        app_key
            .api_products
            .iter()
            .any(|approval| approval.apiproduct == product.name)
    });
    match user {
        Some((_, app_key)) => Err(ApiError::in_use(format!(
            "ApiProduct {} is associated with a key of app {}",
            product.name, app_key.app
        ))),
        None => Ok(()),
    }
}

/// Which part of a list is wanted: `startKey` and `count`.
pub(super) struct Page {
    start: String,
    count: usize,
}

impl Page {
    /// What the parameters say.
    pub(super) fn of(call: &Call) -> Result<Self, ApiError> {
        let count = match call.parameter("count") {
            None => usize::MAX,
            Some(text) => text
                .parse()
                .map_err(|_| ApiError::field("count", "is not a whole number"))?,
        };
        Ok(Self {
            start: call.parameter("startKey").unwrap_or_default().to_owned(),
            count,
        })
    }

    /// That part of items that come in the order of their names. The list begins with the start key itself.
    pub(super) fn cut<I, T>(&self, items: I, name: impl Fn(&T) -> &str) -> impl Iterator<Item = T>
    where
        I: Iterator<Item = T>,
    {
        let start = self.start.clone();
        items
            .skip_while(move |item| name(item) < start.as_str())
            .take(self.count)
    }
}
