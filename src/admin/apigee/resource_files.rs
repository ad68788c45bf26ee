//! Resource files of environments and of the organisation.

use http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::reply::Reply;
use crate::dialects::apigee::archive::check_path;
use crate::dialects::apigee::entities::resource_file::TYPES;
use crate::dialects::apigee::entities::revision::Content;
use crate::dialects::apigee::entities::{Kind, ResourceFile, Stamp};
use crate::dialects::apigee::error::ApiError;

/// Refuses a type of resources that does not exist.
pub(super) fn check_type(kind: &str) -> Result<(), ApiError> {
    if TYPES.contains(&kind) {
        return Ok(());
    }
    Err(ApiError::field(
        "type",
        format!("'{kind}' is not known, allowed are {}", TYPES.join(", ")),
    ))
}

fn place(environment: &str) -> String {
    match environment {
        "" => "in the organization".to_owned(),
        name => format!("in environment {name}"),
    }
}

/// Answers calls below `resourcefiles`; the environment is empty for the organisation's.
pub(super) async fn answer(
    call: &Call,
    environment: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let organization = call.organization.as_str();
    match (&call.method, rest) {
        (&Method::GET, []) => list(call, &[organization, environment]),
        (&Method::GET, [kind]) => {
            check_type(kind)?;
            list(call, &[organization, environment, kind])
        }
        (&Method::POST, []) => {
            let (Some(kind), Some(name)) = (call.parameter("type"), call.parameter("name")) else {
                return Err(ApiError::bad_request(
                    "the parameters type and name are needed",
                ));
            };
            write(call, environment, kind, name, false).await
        }
        (&Method::PUT | &Method::POST, [kind, name @ ..]) if !name.is_empty() => {
            write(call, environment, kind, &name.join("/"), true).await
        }
        (&Method::GET, [kind, name @ ..]) => {
            let file = find(call, environment, kind, &name.join("/"))?;
            let bytes = file.content.bytes().into_owned();
            Ok(Reply::bytes("application/octet-stream", bytes, None))
        }
        (&Method::DELETE, [kind, name @ ..]) if !name.is_empty() => {
            let name = name.join("/");
            find(call, environment, kind, &name)?;
            let shown = json!({"name": name, "type": kind});
            let key = [organization, environment, kind, &name].map(str::to_owned);
            let written = call.write(move |set, _| {
                let removed = set.remove(Kind::ResourceFile, &key.each_ref().map(String::as_str));
                Ok(((), removed.into_iter().collect()))
            });
            let revision = written.await?.1;
            Ok(Reply::ok("ResourceFile", shown).at(revision))
        }
        _ => Err(call.unknown()),
    }
}

fn list(call: &Call, below: &[&str]) -> Result<Reply, ApiError> {
    let set = call.set();
    let files: Vec<Value> = set
        .list(Kind::ResourceFile, below)
        .map(|row| json!({"name": row.name(), "type": row.key.part(2)}))
        .collect();
    Ok(Reply::ok("ResourceFiles", json!({"resourceFile": files})))
}

fn find(call: &Call, environment: &str, kind: &str, name: &str) -> Result<ResourceFile, ApiError> {
    let key = [call.organization.as_str(), environment, kind, name];
    let found = call.set().find(&key);
    found.ok_or_else(|| Kind::ResourceFile.missing(name, place(environment)))
}

async fn write(
    call: &Call,
    environment: &str,
    kind: &str,
    name: &str,
    replaces: bool,
) -> Result<Reply, ApiError> {
    check_type(kind)?;
    check_path(name).map_err(ApiError::bad_request)?;
    if name.is_empty() {
        return Err(ApiError::field("name", "must not be empty"));
    }
    let known = find(call, environment, kind, name);
    if replaces {
        known?;
    } else if known.is_ok() {
        return Err(Kind::ResourceFile.exists(name, place(environment)));
    }
    let bytes = call.file().await?;
    let key = [call.organization.as_str(), environment, kind, name].map(str::to_owned);
    let user = call.user.clone();
    let written = call.write(move |set, moment| {
        let file = ResourceFile {
            content: Content::of(&bytes),
            stamp: Stamp::new(moment.unix_ms(), &user),
        };
        Ok((
            (),
            vec![set.put(&key.each_ref().map(String::as_str), &file)],
        ))
    });
    let revision = written.await?.1;
    let shown = json!({"name": name, "type": kind});
    let status = if replaces { 200 } else { 201 };
    Ok(Reply::new(status, "ResourceFile", shown).at(revision))
}
