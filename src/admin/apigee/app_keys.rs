//! Keys of apps, and the products that they open.

use http::Method;
use rand::Rng;
use rand::distr::Alphanumeric;

use super::call::Call;
use super::reply::Reply;
use super::{apps, attributes};
use crate::dialects::apigee::entities::{ApiProduct, App, AppKey, Kind, ProductApproval};
use crate::dialects::apigee::entity_set::{Change, EntitySet};
use crate::dialects::apigee::error::ApiError;

/// Length of a generated consumer key.
const KEY_LENGTH: usize = 32;
/// Length of a generated consumer secret.
const SECRET_LENGTH: usize = 16;
/// Longest key or secret that a client may bring.
const BROUGHT_BYTES_MAX: usize = 2_048;
/// Most keys of an app.
const KEYS_MAX: usize = 1_000;

/// A new consumer key and secret.
pub(super) fn generate() -> (String, String) {
    // Seeded by the system, as keys must be.
    let random = |length: usize| -> String {
        rand::rng()
            .sample_iter(Alphanumeric)
            .take(length)
            .map(char::from)
            .collect()
    };
    (random(KEY_LENGTH), random(SECRET_LENGTH))
}

/// What `?action=` makes of a key, product of a key, or app.
pub(super) fn status_of_action(call: &Call) -> Result<&'static str, ApiError> {
    match call.parameter("action") {
        Some("approve") => Ok("approved"),
        Some("revoke") => Ok("revoked"),
        _ => Err(ApiError::field(
            "action",
            "is not known, allowed are approve and revoke",
        )),
    }
}

/// A key to be added.
pub(super) struct New<'a> {
    pub(super) key: &'a str,
    pub(super) secret: &'a str,
    pub(super) products: &'a [String],
    pub(super) expires_in_ms: Option<i64>,
}

/// Adds a key to an app and writes both.
pub(super) fn add(
    set: &mut EntitySet,
    organization: &str,
    app: &mut App,
    new: &New<'_>,
    now_ms: i64,
) -> Result<Vec<Change>, ApiError> {
    if app.keys.len() >= KEYS_MAX {
        return Err(ApiError::bad_request(format!(
            "App {} has {KEYS_MAX} keys already",
            app.name
        )));
    }
    if set.has(Kind::AppKey, &[organization, new.key]) {
        return Err(ApiError::exists(
            "keymanagement.service.app_already_exists",
            format!("consumer key {} already exists", new.key),
        ));
    }
    let mut key = AppKey {
        consumer_key: new.key.to_owned(),
        consumer_secret: new.secret.to_owned(),
        developer_id: app.developer_id.clone(),
        app: app.name.clone(),
        status: "approved".to_owned(),
        api_products: Vec::new(),
        scopes: Vec::new(),
        attributes: Vec::new(),
        issued_at: now_ms,
        expires_at: new
            .expires_in_ms
            .map_or(-1, |life| now_ms.saturating_add(life)),
    };
    for product in new.products {
        associate(set, organization, &mut key, product)?;
    }
    app.keys.push(key.consumer_key.clone());
    Ok(vec![
        set.put(&[organization, &key.consumer_key], &key),
        set.put(&[organization, &app.developer_id, &app.name], app),
    ])
}

/// Opens a product to a key, at once or when somebody approves.
fn associate(
    set: &EntitySet,
    organization: &str,
    key: &mut AppKey,
    name: &str,
) -> Result<(), ApiError> {
    let Some(product) = set.find::<ApiProduct>(&[organization, name]) else {
        return Err(ApiError::new(
            400,
            "keymanagement.service.InvalidProduct",
            format!("ApiProduct {name} does not exist in organization {organization}"),
        ));
    };
    if key
        .api_products
        .iter()
        .any(|approval| approval.apiproduct == name)
    {
        return Ok(());
    }
    key.api_products.push(ProductApproval {
        apiproduct: name.to_owned(),
        status: if product.is_approved_at_once() {
            "approved"
        } else {
            "pending"
        }
        .to_owned(),
    });
    Ok(())
}

/// Answers calls below `/developers/D/apps/A/keys`.
pub(super) async fn answer(call: &Call, app: &App, rest: &[&str]) -> Result<Reply, ApiError> {
    let organization = call.organization.as_str();
    match (&call.method, rest) {
        (&Method::GET, []) => Ok(Reply::ok("Keys", serde_json::json!(app.keys))),
        (&Method::POST, [] | ["create"]) => create(call, app).await,
        (_, []) => Err(call.unknown()),
        (_, [key, below @ ..]) => {
            let known = find(&call.set(), organization, app, key)?;
            match (&call.method, below) {
                (&Method::GET, []) => Ok(Reply::ok("Credential", known.to_json())),
                (&Method::POST, []) if call.parameter("action").is_some() => {
                    let status = status_of_action(call)?;
                    let changed = change(call, app, key, move |_, _, key| {
                        key.status = status.to_owned();
                        Ok(())
                    });
                    Ok(Reply::nothing().at(changed.await?.1))
                }
                (&Method::POST | &Method::PUT, []) => update(call, app, key).await,
                (&Method::DELETE, []) => delete(call, app, &known).await,
                (_, ["attributes", rest @ ..]) => {
                    attributes::answer::<AppKey>(
                        call,
                        &[organization, key],
                        rest,
                        |key| &mut key.attributes,
                        |_| None,
                    )
                    .await
                }
                (&Method::POST, ["apiproducts", product]) => {
                    let status = status_of_action(call)?;
                    let product = (*product).to_owned();
                    let changed = change(call, app, key, move |_, _, key| {
                        let approvals = &mut key.api_products;
                        let approval = approvals
                            .iter_mut()
                            .find(|approval| approval.apiproduct == product);
                        let approval = approval.ok_or_else(|| not_associated(&product))?;
                        approval.status = status.to_owned();
                        Ok(())
                    });
                    Ok(Reply::nothing().at(changed.await?.1))
                }
                (&Method::DELETE, ["apiproducts", product]) => {
                    let product = (*product).to_owned();
                    let changed = change(call, app, key, move |_, _, key| {
                        let before = key.api_products.len();
                        key.api_products
                            .retain(|approval| approval.apiproduct != product);
                        if key.api_products.len() == before {
                            return Err(not_associated(&product));
                        }
                        Ok(())
                    });
                    let (key, revision) = changed.await?;
                    Ok(Reply::ok("Credential", key.to_json()).at(revision))
                }
                _ => Err(call.unknown()),
            }
        }
    }
}

fn not_associated(product: &str) -> ApiError {
    ApiError::missing(
        "keymanagement.service.apiproduct_doesnot_exist",
        format!("ApiProduct {product} is not associated with the key"),
    )
}

fn find(set: &EntitySet, organization: &str, app: &App, key: &str) -> Result<AppKey, ApiError> {
    set.find::<AppKey>(&[organization, key])
        .filter(|known| known.app == app.name && known.developer_id == app.developer_id)
        .ok_or_else(|| {
            ApiError::missing(
                "keymanagement.service.InvalidClientIdForGivenApp",
                format!("the key is not one of app {}", app.name),
            )
        })
}

async fn create(call: &Call, app: &App) -> Result<Reply, ApiError> {
    let mut fields = call.fields()?;
    let (generated_key, generated_secret) = generate();
    let key = fields.text("consumerKey")?.unwrap_or(generated_key);
    let secret = fields.text("consumerSecret")?.unwrap_or(generated_secret);
    let products = fields.texts("apiProducts")?;
    let expires_in_ms = fields.number("keyExpiresIn")?.filter(|ms| *ms > 0);
    let lasting = fields.number("expiresInSeconds")?.filter(|s| *s > 0);
    let expires_in_ms = expires_in_ms.or(lasting.map(|seconds| seconds.saturating_mul(1000)));
    fields.finish()?;
    for (name, text) in [("consumerKey", &key), ("consumerSecret", &secret)] {
        let sound = (1..=BROUGHT_BYTES_MAX).contains(&text.len())
            && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if !sound {
            return Err(ApiError::field(
                name,
                format!("must have 1 to {BROUGHT_BYTES_MAX} bytes without blanks"),
            ));
        }
    }
    let organization = call.organization.clone();
    let (developer, name) = (app.developer_id.clone(), app.name.clone());
    let made = key.clone();
    let written = call.write(move |set, moment| {
        let mut app = apps::find(set, &organization, &developer, &name)?;
        let new = New {
            key: &key,
            secret: &secret,
            products: &products,
            expires_in_ms,
        };
        let changes = add(set, &organization, &mut app, &new, moment.unix_ms())?;
        Ok((find(set, &organization, &app, &made)?, changes))
    });
    let (key, revision) = written.await?;
    Ok(Reply::created("Credential", key.to_json()).at(revision))
}

/// Associates products, and sets attributes and scopes.
async fn update(call: &Call, app: &App, key: &str) -> Result<Reply, ApiError> {
    let mut fields = call.fields()?;
    let products = fields.texts("apiProducts")?;
    let attributes = fields.attributes()?;
    let scopes = fields.has("scopes").then(|| fields.texts("scopes"));
    let scopes = scopes.transpose()?;
    fields.ignore(&[
        "consumerKey",
        "consumerSecret",
        "expiresAt",
        "issuedAt",
        "status",
    ]);
    fields.finish()?;
    let changed = change(call, app, key, move |set, organization, key| {
        for product in &products {
            associate(set, organization, key, product)?;
        }
        if let Some(attributes) = &attributes {
            key.attributes.clone_from(attributes);
        }
        if let Some(scopes) = &scopes {
            key.scopes.clone_from(scopes);
        }
        Ok(())
    });
    let (key, revision) = changed.await?;
    Ok(Reply::ok("Credential", key.to_json()).at(revision))
}

/// Writes what `edit` makes of a key.
async fn change(
    call: &Call,
    app: &App,
    key: &str,
    edit: impl Fn(&EntitySet, &str, &mut AppKey) -> Result<(), ApiError> + Send + 'static,
) -> Result<(AppKey, u64), ApiError> {
    let organization = call.organization.clone();
    let (app, key) = (app.clone(), key.to_owned());
    let written = call.write(move |set, _| {
        let mut known = find(set, &organization, &app, &key)?;
        edit(set, &organization, &mut known)?;
        let change = set.put(&[&organization, &key], &known);
        Ok((known, vec![change]))
    });
    written.await
}

async fn delete(call: &Call, app: &App, key: &AppKey) -> Result<Reply, ApiError> {
    let organization = call.organization.clone();
    let (developer, name) = (app.developer_id.clone(), app.name.clone());
    let consumer_key = key.consumer_key.clone();
    let written = call.write(move |set, _| {
        let mut app = apps::find(set, &organization, &developer, &name)?;
        app.keys.retain(|known| *known != consumer_key);
        let removed = set.remove(Kind::AppKey, &[&organization, &consumer_key]);
        let mut changes: Vec<Change> = removed.into_iter().collect();
        changes.push(set.put(&[&organization, &developer, &name], &app));
        Ok(((), changes))
    });
    let revision = written.await?.1;
    Ok(Reply::ok("Credential", key.to_json()).at(revision))
}
