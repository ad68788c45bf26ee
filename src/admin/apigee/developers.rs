//! Developers.

use http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::products::Page;
use super::reply::Reply;
use super::{apps, attributes};
use crate::dialects::apigee::entities::{App, Developer, Kind, Stamp};
use crate::dialects::apigee::entity_set::EntitySet;
use crate::dialects::apigee::error::ApiError;

/// The developer of an e-mail address or id.
pub(super) fn find(set: &EntitySet, organization: &str, name: &str) -> Result<Developer, ApiError> {
    let by_email = set.by_alias(Kind::Developer, organization, &name.to_lowercase());
    let row = by_email.or_else(|| set.row(Kind::Developer, &[organization, name]));
    row.and_then(|row| row.parse()).ok_or_else(|| {
        ApiError::missing(
            "developer.service.DeveloperIdDoesNotExist",
            format!("DeveloperId {name} does not exist in organization {organization}"),
        )
    })
}

fn show(set: &EntitySet, organization: &str, developer: &Developer) -> Value {
    let apps: Vec<&str> = set
        .list(Kind::App, &[organization, &developer.developer_id])
        .map(|row| row.name())
        .collect();
    let mut shown = serde_json::to_value(developer).unwrap_or_default();
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("apps".to_owned(), json!(apps));
        fields.insert("companies".to_owned(), json!([]));
        fields.insert("organizationName".to_owned(), organization.into());
    }
    shown
}

/// Answers calls below `/developers`.
pub(super) async fn answer(call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    let organization = call.organization.as_str();
    let [name, below @ ..] = rest else {
        return match call.method {
            Method::GET => list(call),
            Method::POST => create(call).await,
            _ => Err(call.unknown()),
        };
    };
    let set = call.set();
    let developer = find(&set, organization, name)?;
    match (&call.method, below) {
        (&Method::GET, []) => Ok(Reply::ok("Developer", show(&set, organization, &developer))),
        (&Method::POST, []) if call.parameter("action").is_some() => {
            let status = match call.parameter("action") {
                Some("active") => "active",
                Some("inactive") => "inactive",
                _ => {
                    return Err(ApiError::field(
                        "action",
                        "is not known, allowed are active and inactive",
                    ));
                }
            };
            let revision = change(call, &developer.developer_id, move |known| {
                Ok(Developer {
                    status: status.to_owned(),
                    ..known.clone()
                })
            })
            .await?;
            Ok(Reply::nothing().at(revision.1))
        }
        (&Method::PUT | &Method::POST, []) => {
            let fields = call.fields()?;
            let given = Developer::read(fields, Some(&developer), String::new(), Stamp::default())?;
            let (shown, revision) = change(call, &developer.developer_id, move |known| {
                Ok(Developer {
                    stamp: known.stamp.clone(),
                    status: known.status.clone(),
                    ..given.clone()
                })
            })
            .await?;
            Ok(Reply::ok("Developer", shown).at(revision))
        }
        (&Method::DELETE, []) => delete(call, &developer).await,
        (_, ["attributes", rest @ ..]) => {
            attributes::answer::<Developer>(
                call,
                &[organization, &developer.developer_id],
                rest,
                |developer| &mut developer.attributes,
                |developer| Some(&mut developer.stamp),
            )
            .await
        }
        (_, ["apps", rest @ ..]) => apps::answer(call, &developer, rest).await,
        _ => Err(call.unknown()),
    }
}

fn list(call: &Call) -> Result<Reply, ApiError> {
    let set = call.set();
    let organization = call.organization.as_str();
    let mut developers: Vec<Developer> = set
        .all::<Developer>(&[organization])
        .map(|(_, developer)| developer)
        .collect();
    developers.sort_by(|one, other| one.email.cmp(&other.email));
    let page = Page::of(call)?;
    let cut = page.cut(developers.into_iter(), |developer| &developer.email);
    if call.switch("expand") {
        let shown: Vec<Value> = cut
            .map(|developer| show(&set, organization, &developer))
            .collect();
        return Ok(Reply::ok("Developers", json!({"developer": shown})));
    }
    let emails: Vec<String> = cut.map(|developer| developer.email).collect();
    Ok(Reply::ok("List", json!(emails)))
}

/// Refuses an e-mail address that is another developer's.
fn check_email(set: &EntitySet, organization: &str, developer: &Developer) -> Result<(), ApiError> {
    let holder = set.by_alias(
        Kind::Developer,
        organization,
        &developer.email.to_lowercase(),
    );
    match holder {
        Some(row) if row.name() != developer.developer_id => Err(ApiError::exists(
            "developer.service.DeveloperAlreadyExists",
            format!(
                "Developer with e-mail {} already exists in organization {organization}",
                developer.email
            ),
        )),
        _ => Ok(()),
    }
}

async fn create(call: &Call) -> Result<Reply, ApiError> {
    let id = uuid::Uuid::new_v4().to_string();
    let developer = Developer::read(call.fields()?, None, id, Stamp::default())?;
    let (organization, user) = (call.organization.clone(), call.user.clone());
    let written = call.write(move |set, moment| {
        check_email(set, &organization, &developer)?;
        let mut developer = developer.clone();
        developer.stamp = Stamp::new(moment.unix_ms(), &user);
        let change = set.put(&[&organization, &developer.developer_id], &developer);
        Ok((show(set, &organization, &developer), vec![change]))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::created("Developer", shown).at(revision))
}

/// Writes what `edit` makes of a developer, and shows it.
async fn change(
    call: &Call,
    id: &str,
    edit: impl Fn(&Developer) -> Result<Developer, ApiError> + Send + 'static,
) -> Result<(Value, u64), ApiError> {
    let (organization, id, user) = (call.organization.clone(), id.to_owned(), call.user.clone());
    let written = call.write(move |set, moment| {
        let known = find(set, &organization, &id)?;
        let mut developer = edit(&known)?;
        check_email(set, &organization, &developer)?;
        developer.stamp = known.stamp.touched(moment.unix_ms(), &user);
        let change = set.put(&[&organization, &id], &developer);
        Ok((show(set, &organization, &developer), vec![change]))
    });
    written.await
}

/// Deletes a developer with all apps and keys.
async fn delete(call: &Call, developer: &Developer) -> Result<Reply, ApiError> {
    let shown = show(&call.set(), &call.organization, developer);
    let (organization, id) = (call.organization.clone(), developer.developer_id.clone());
    let written = call.write(move |set, _| {
        let apps: Vec<App> = set
            .all::<App>(&[&organization, &id])
            .map(|(_, app)| app)
            .collect();
        let mut changes = Vec::new();
        for app in apps {
            changes.extend(apps::remove(set, &organization, &app));
        }
        changes.extend(set.remove(Kind::Developer, &[&organization, &id]));
        Ok(((), changes))
    });
    let revision = written.await?.1;
    Ok(Reply::ok("Developer", shown).at(revision))
}
