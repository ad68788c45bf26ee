//! Apps of developers.

use http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::products::Page;
use super::reply::Reply;
use super::{app_keys, attributes};
use crate::dialects::apigee::entities::app::AppBody;
use crate::dialects::apigee::entities::{App, AppKey, Developer, Kind, Stamp};
use crate::dialects::apigee::entity_set::{Change, EntitySet};
use crate::dialects::apigee::error::ApiError;

/// The app of a developer.
pub(super) fn find(
    set: &EntitySet,
    organization: &str,
    developer: &str,
    name: &str,
) -> Result<App, ApiError> {
    set.find(&[organization, developer, name])
        .ok_or_else(|| missing(name, organization))
}

fn missing(name: &str, organization: &str) -> ApiError {
    ApiError::missing(
        "developer.service.AppDoesNotExist",
        format!("App named {name} does not exist in organization {organization}"),
    )
}

/// The answer that shows an app with its keys.
pub(super) fn show(set: &EntitySet, organization: &str, app: &App) -> Value {
    let credentials: Vec<Value> = app
        .keys
        .iter()
        .filter_map(|key| set.find::<AppKey>(&[organization, key]))
        .map(|key| key.to_json())
        .collect();
    json!({
        "accessType": "read",
        "appFamily": "default",
        "appId": app.app_id,
        "attributes": app.attributes,
        "callbackUrl": app.callback_url,
        "createdAt": app.stamp.created_at,
        "createdBy": app.stamp.created_by,
        "credentials": credentials,
        "developerId": app.developer_id,
        "lastModifiedAt": app.stamp.last_modified_at,
        "lastModifiedBy": app.stamp.last_modified_by,
        "name": app.name,
        "scopes": app.scopes,
        "status": app.status,
    })
}

/// Takes an app out with its keys.
pub(super) fn remove(set: &mut EntitySet, organization: &str, app: &App) -> Vec<Change> {
    let mut changes: Vec<Change> = app
        .keys
        .iter()
        .filter_map(|key| set.remove(Kind::AppKey, &[organization, key]))
        .collect();
    changes.extend(set.remove(Kind::App, &[organization, &app.developer_id, &app.name]));
    changes
}

/// Answers calls below `/developers/D/apps`.
pub(super) async fn answer(
    call: &Call,
    developer: &Developer,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let organization = call.organization.as_str();
    let id = developer.developer_id.as_str();
    let set = call.set();
    let [name, below @ ..] = rest else {
        return match call.method {
            Method::GET => {
                let apps = set.all::<App>(&[organization, id]);
                if call.switch("expand") {
                    let shown: Vec<Value> = apps
                        .map(|(_, app)| show(&set, organization, &app))
                        .collect();
                    return Ok(Reply::ok("Apps", json!({"app": shown})));
                }
                let names: Vec<String> = apps.map(|(_, app)| app.name).collect();
                Ok(Reply::ok("List", json!(names)))
            }
            Method::POST => create(call, developer).await,
            _ => Err(call.unknown()),
        };
    };
    let app = find(&set, organization, id, name)?;
    match (&call.method, below) {
        (&Method::GET, []) => Ok(Reply::ok("App", show(&set, organization, &app))),
        (&Method::POST, []) if call.parameter("action").is_some() => {
            let status = app_keys::status_of_action(call)?;
            let revision = change(call, &app, None, move |app| {
                app.status = status.to_owned();
                Ok(())
            })
            .await?
            .1;
            Ok(Reply::nothing().at(revision))
        }
        (&Method::PUT | &Method::POST, []) => update(call, &app).await,
        (&Method::DELETE, []) => {
            let shown = show(&set, organization, &app);
            let organization = call.organization.clone();
            let written = call.write(move |set, _| {
                // As it is now, with the keys that it has now.
                let app = find(set, &organization, &app.developer_id, &app.name)?;
                Ok(((), remove(set, &organization, &app)))
            });
            let revision = written.await?.1;
            Ok(Reply::ok("App", shown).at(revision))
        }
        (_, ["attributes", rest @ ..]) => {
            attributes::answer::<App>(
                call,
                &[organization, id, name],
                rest,
                |app| &mut app.attributes,
                |app| Some(&mut app.stamp),
            )
            .await
        }
        (_, ["keys", rest @ ..]) => app_keys::answer(call, &app, rest).await,
        _ => Err(call.unknown()),
    }
}

/// `/apps`: all apps of the organisation, by id.
pub(super) fn of_organization(call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    if call.method != Method::GET {
        return Err(call.unknown());
    }
    let organization = call.organization.as_str();
    let set = call.set();
    match rest {
        [] => {
            let mut apps: Vec<App> = set
                .all::<App>(&[organization])
                .map(|(_, app)| app)
                .filter(|app| {
                    call.parameter("status")
                        .is_none_or(|status| app.status == status)
                })
                .collect();
            if call.parameter("query") == Some("count") {
                return Ok(Reply::ok("Count", json!({"count": apps.len()})));
            }
            apps.sort_by(|one, other| one.app_id.cmp(&other.app_id));
            let page = Page::of(call)?;
            let cut = page.cut(apps.into_iter(), |app| &app.app_id);
            if call.switch("expand") {
                let shown: Vec<Value> = cut.map(|app| show(&set, organization, &app)).collect();
                return Ok(Reply::ok("Apps", json!({"app": shown})));
            }
            let ids: Vec<String> = cut.map(|app| app.app_id).collect();
            Ok(Reply::ok("List", json!(ids)))
        }
        [id] => {
            let row = set.by_alias(Kind::App, organization, id);
            let app = row.and_then(|row| row.parse::<App>());
            let app = app.ok_or_else(|| missing(id, organization))?;
            Ok(Reply::ok("App", show(&set, organization, &app)))
        }
        _ => Err(call.unknown()),
    }
}

async fn create(call: &Call, developer: &Developer) -> Result<Reply, ApiError> {
    let body = AppBody::read(call.fields()?)?;
    let Some(name) = body.name.clone() else {
        return Err(ApiError::field("name", "is missing, it must not be empty"));
    };
    let (organization, user) = (call.organization.clone(), call.user.clone());
    let developer = developer.developer_id.clone();
    let app_id = uuid::Uuid::new_v4().to_string();
    let (key, secret) = app_keys::generate();
    let written = call.write(move |set, moment| {
        if set.has(Kind::App, &[&organization, &developer, &name]) {
            return Err(ApiError::exists(
                "developer.service.AppAlreadyExists",
                format!("App named {name} already exists for this developer"),
            ));
        }
        let mut app = App {
            app_id: app_id.clone(),
            name: name.clone(),
            developer_id: developer.clone(),
            callback_url: body.callback_url.clone().unwrap_or_default(),
            status: "approved".to_owned(),
            scopes: body.scopes.clone().unwrap_or_default(),
            attributes: body.attributes.clone().unwrap_or_default(),
            keys: Vec::new(),
            stamp: Stamp::new(moment.unix_ms(), &user),
        };
        let new = app_keys::New {
            key: &key,
            secret: &secret,
            products: &body.api_products,
            expires_in_ms: body.key_expires_in_ms,
        };
        let changes = app_keys::add(set, &organization, &mut app, &new, moment.unix_ms())?;
        Ok((show(set, &organization, &app), changes))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::created("App", shown).at(revision))
}

/// Changes an app's own fields; products or a life in the body add a key, as Apigee does.
async fn update(call: &Call, app: &App) -> Result<Reply, ApiError> {
    let body = AppBody::read(call.fields()?)?;
    if let Some(name) = &body.name
        && *name != app.name
    {
        return Err(ApiError::field("name", "cannot be changed"));
    }
    let adds_key = call.method == Method::POST
        && (!body.api_products.is_empty() || body.key_expires_in_ms.is_some());
    let key = adds_key.then(|| (body.api_products.clone(), body.key_expires_in_ms));
    let (shown, revision) = change(call, app, key, move |app| {
        if let Some(url) = &body.callback_url {
            app.callback_url.clone_from(url);
        }
        if let Some(scopes) = &body.scopes {
            app.scopes.clone_from(scopes);
        }
        if let Some(attributes) = &body.attributes {
            app.attributes.clone_from(attributes);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok("App", shown).at(revision))
}

/// Writes what `edit` makes of an app, perhaps with a new key, and shows it.
async fn change(
    call: &Call,
    app: &App,
    new_key: Option<(Vec<String>, Option<i64>)>,
    edit: impl Fn(&mut App) -> Result<(), ApiError> + Send + 'static,
) -> Result<(Value, u64), ApiError> {
    let (organization, user) = (call.organization.clone(), call.user.clone());
    let (developer, name) = (app.developer_id.clone(), app.name.clone());
    let (key, secret) = app_keys::generate();
    let written = call.write(move |set, moment| {
        let mut app = find(set, &organization, &developer, &name)?;
        edit(&mut app)?;
        app.stamp = app.stamp.touched(moment.unix_ms(), &user);
        let changes = match &new_key {
            Some((products, expires_in_ms)) => {
                let new = app_keys::New {
                    key: &key,
                    secret: &secret,
                    products,
                    expires_in_ms: *expires_in_ms,
                };
                app_keys::add(set, &organization, &mut app, &new, moment.unix_ms())?
            }
            None => vec![set.put(&[&organization, &developer, &name], &app)],
        };
        Ok((show(set, &organization, &app), changes))
    });
    written.await
}
