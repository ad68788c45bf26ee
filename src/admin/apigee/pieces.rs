//! Piecewise editing of a revision: policies, endpoints, shared flows and resources, one file each.
//!
//! Pieces come side by side and may name others that are still to come, so each is judged alone; the whole is judged
//! when it is deployed.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::bundles::invalid;
use super::call::Call;
use super::reply::Reply;
use super::resource_files::check_type;
use crate::dialects::apigee::archive::check_path;
use crate::dialects::apigee::describe::{self, Piece};
use crate::dialects::apigee::entities::Stamp;
use crate::dialects::apigee::entity_set::Files;
use crate::dialects::apigee::error::ApiError;
use crate::dialects::apigee::lifecycle::{self, BundleName};

/// Answers calls below a revision.
pub(super) async fn answer(
    call: &Call,
    bundle: &BundleName,
    revision: u32,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    match rest {
        ["resources" | "resourcefiles", rest @ ..] => resources(call, bundle, revision, rest).await,
        [word, rest @ ..] => {
            let piece = Piece::from_word(word).filter(|piece| piece.belongs_to(bundle.kind));
            let piece = piece.ok_or_else(|| call.unknown())?;
            xml_piece(call, bundle, revision, piece, rest).await
        }
        [] => Err(call.unknown()),
    }
}

fn files_of(call: &Call, bundle: &BundleName, revision: u32) -> Files {
    call.set()
        .files(&bundle.organization, bundle.kind, &bundle.name, revision)
}

async fn xml_piece(
    call: &Call,
    bundle: &BundleName,
    revision: u32,
    piece: Piece,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let files = files_of(call, bundle, revision);
    let root = piece.root().unwrap_or("Policy");
    match (&call.method, rest) {
        (&Method::GET, []) => {
            let pieces = describe::pieces(&files, piece);
            let names: Vec<String> = pieces.into_iter().map(|(name, _)| name).collect();
            Ok(Reply::ok("List", json!(names)))
        }
        (&Method::POST, []) => put_xml(call, bundle, revision, piece, None).await,
        (_, [name]) => {
            let Some(path) = describe::path_of(&files, piece, name) else {
                return Err(missing(root, name, bundle, revision));
            };
            let content = files.get(&path).cloned().unwrap_or_default();
            match call.method {
                Method::GET => {
                    // Whoever asks for XML wants the file.
                    if call.wants_xml() {
                        let bytes = content.to_vec();
                        return Ok(Reply::bytes("application/xml", bytes, None));
                    }
                    let shown = describe::show_piece(piece, &path, &content);
                    Ok(Reply::ok(
                        root,
                        shown.unwrap_or_else(|| json!({"name": name})),
                    ))
                }
                Method::PUT | Method::POST => {
                    put_xml(call, bundle, revision, piece, Some((name, path))).await
                }
                Method::DELETE => {
                    let shown = describe::show_piece(piece, &path, &content);
                    let at = write(call, bundle, revision, path, None).await?;
                    let shown = shown.unwrap_or_else(|| json!({"name": name}));
                    Ok(Reply::ok(root, shown).at(at))
                }
                _ => Err(call.unknown()),
            }
        }
        _ => Err(call.unknown()),
    }
}

fn missing(what: &str, name: &str, bundle: &BundleName, revision: u32) -> ApiError {
    ApiError::missing(
        "messaging.config.beans.ResourceDoesNotExist",
        format!(
            "{what} named {name} does not exist in revision {revision} of {} {}",
            bundle.kind.title(),
            bundle.name
        ),
    )
}

/// Writes a piece, new or in place of the one of its name.
async fn put_xml(
    call: &Call,
    bundle: &BundleName,
    revision: u32,
    piece: Piece,
    known: Option<(&str, Arc<str>)>,
) -> Result<Reply, ApiError> {
    let bytes = call.raw(true)?;
    let file = match (call.parameter("name"), &known) {
        (_, Some((_, path))) => path.to_string(),
        (Some(name), None) => format!("{}/{name}.xml", piece.folder()),
        (None, None) => format!("{}/new.xml", piece.folder()),
    };
    let name =
        lifecycle::judge_piece(piece, &file, &bytes).map_err(|wrong| invalid(vec![wrong]))?;
    if let Some((known, _)) = &known
        && *known != name
    {
        return Err(ApiError::field(
            "name",
            format!("is '{name}', but the address says '{known}'"),
        ));
    }
    let replaces = known.is_some();
    let path = match known {
        Some((_, path)) => path,
        None => {
            let files = files_of(call, bundle, revision);
            describe::path_of(&files, piece, &name)
                .unwrap_or_else(|| format!("{}/{name}.xml", piece.folder()).into())
        }
    };
    let shown = describe::show_piece(piece, &path, &bytes);
    let shown = shown.unwrap_or_else(|| json!({"name": name}));
    let at = write(call, bundle, revision, path, Some(bytes)).await?;
    let status = if replaces { 200 } else { 201 };
    Ok(Reply::new(status, piece.root().unwrap_or("Policy"), shown).at(at))
}

async fn write(
    call: &Call,
    bundle: &BundleName,
    revision: u32,
    path: Arc<str>,
    content: Option<bytes::Bytes>,
) -> Result<u64, ApiError> {
    let (bundle, user) = (bundle.clone(), call.user.clone());
    let written = call.write(move |set, moment| {
        let stamp = Stamp::new(moment.unix_ms(), &user);
        let content = content.as_deref();
        let changes = lifecycle::edit_file(set, &bundle, revision, &path, content, &stamp)?;
        Ok(((), changes))
    });
    Ok(written.await?.1)
}

async fn resources(
    call: &Call,
    bundle: &BundleName,
    revision: u32,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let files = files_of(call, bundle, revision);
    let show = |kind: &str, name: &str| json!({"name": name, "type": kind});
    let list = |of: Option<&str>| -> Vec<Value> {
        let all = describe::resources(&files);
        let all = all
            .iter()
            .filter(|(kind, _)| of.is_none_or(|of| kind.as_str() == of));
        all.map(|(kind, name)| show(kind, name)).collect()
    };
    match (&call.method, rest) {
        (&Method::GET, []) => Ok(Reply::ok(
            "ResourceFiles",
            json!({"resourceFile": list(None)}),
        )),
        (&Method::GET, [kind]) => Ok(Reply::ok(
            "ResourceFiles",
            json!({"resourceFile": list(Some(kind))}),
        )),
        (&Method::POST, []) => {
            let (Some(kind), Some(name)) = (call.parameter("type"), call.parameter("name")) else {
                return Err(ApiError::bad_request(
                    "the parameters type and name are needed",
                ));
            };
            let path = resource_path(kind, name)?;
            let bytes = call.file().await?;
            let at = write(call, bundle, revision, path, Some(bytes)).await?;
            Ok(Reply::created("ResourceFile", show(kind, name)).at(at))
        }
        (method, [kind, name @ ..]) if !name.is_empty() => {
            let name = name.join("/");
            let path = resource_path(kind, &name)?;
            let Some(content) = files.get(&path) else {
                return Err(missing("Resource", &name, bundle, revision));
            };
            match *method {
                Method::GET => Ok(Reply::bytes(
                    "application/octet-stream",
                    content.to_vec(),
                    None,
                )),
                Method::PUT | Method::POST => {
                    let bytes = call.file().await?;
                    let at = write(call, bundle, revision, path, Some(bytes)).await?;
                    Ok(Reply::ok("ResourceFile", show(kind, &name)).at(at))
                }
                Method::DELETE => {
                    let at = write(call, bundle, revision, path, None).await?;
                    Ok(Reply::ok("ResourceFile", show(kind, &name)).at(at))
                }
                _ => Err(call.unknown()),
            }
        }
        _ => Err(call.unknown()),
    }
}

/// The path of a resource in its bundle.
fn resource_path(kind: &str, name: &str) -> Result<Arc<str>, ApiError> {
    check_type(kind)?;
    if name.is_empty() {
        return Err(ApiError::field("name", "must not be empty"));
    }
    let path = format!("resources/{kind}/{name}");
    check_path(&path).map_err(ApiError::bad_request)?;
    Ok(path.into())
}
