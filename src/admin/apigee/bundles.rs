//! Proxies and shared flows: import, export, list, delete.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use super::call::Call;
use super::reply::Reply;
use super::{deployments, maps, pieces};
use crate::dialects::apigee::archive;
use crate::dialects::apigee::date;
use crate::dialects::apigee::describe::{self, Piece};
use crate::dialects::apigee::entities::{Bundle, BundleKind, Kind, MapScope, Revision, Stamp};
use crate::dialects::apigee::entity_set::{EntitySet, Files};
use crate::dialects::apigee::error::ApiError;
use crate::dialects::apigee::lifecycle::{self, BundleName};
use crate::runtime::records::now_ms;

/// Answers calls below `/apis` and `/sharedflows`.
pub(super) async fn answer(
    call: &Call,
    kind: BundleKind,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let [name, below @ ..] = rest else {
        return match call.method {
            Method::GET => {
                let set = call.set();
                let rows = set.list(Kind::Bundle, &[&call.organization, kind.word()]);
                let names: Vec<&str> = rows.map(|row| row.name()).collect();
                Ok(Reply::ok("List", json!(names)))
            }
            Method::POST => import(call, kind).await,
            _ => Err(call.unknown()),
        };
    };
    let bundle = BundleName {
        organization: call.organization.clone(),
        kind,
        name: (*name).to_owned(),
    };
    let set = call.set();
    if !set.has(Kind::Bundle, &[&call.organization, kind.word(), name]) {
        return Err(bundle.missing());
    }
    match (&call.method, below) {
        (&Method::GET, []) => Ok(Reply::ok(kind.title(), show(&set, &bundle))),
        (&Method::DELETE, []) => {
            let shown = show(&set, &bundle);
            let written = call.write(move |set, _| Ok(((), lifecycle::delete(set, &bundle)?)));
            let revision = written.await?.1;
            Ok(Reply::ok(kind.title(), shown).at(revision))
        }
        (_, ["keyvaluemaps", rest @ ..]) if kind == BundleKind::Proxy => {
            maps::answer(call, MapScope::Proxy(name), rest).await
        }
        (_, ["deployments"]) => deployments::of_bundle(call, &bundle).await,
        (_, ["maskconfigs" | "debugsessions" | "policies", ..]) => Err(call.unsupported()),
        (&Method::GET, ["revisions"]) => {
            let numbers = set.revisions(&bundle.organization, kind, name);
            let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
            Ok(Reply::ok("List", json!(numbers)))
        }
        (_, ["revisions", revision, rest @ ..]) => {
            let number = parse_revision(&bundle, revision)?;
            let known = lifecycle::find_revision(&set, &bundle, number)?;
            one(call, &set, bundle, number, known, rest).await
        }
        _ => Err(call.unknown()),
    }
}

/// A revision's number, or 404.
pub(super) fn parse_revision(bundle: &BundleName, revision: &str) -> Result<u32, ApiError> {
    revision
        .parse()
        .map_err(|_| bundle.revision_missing(revision))
}

async fn one(
    call: &Call,
    set: &EntitySet,
    bundle: BundleName,
    number: u32,
    known: Revision,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let kind = bundle.kind;
    match (&call.method, rest) {
        (&Method::GET, []) if call.parameter("format") == Some("bundle") => {
            let files = set.files(&bundle.organization, kind, &bundle.name, number);
            let name = bundle.name.clone();
            // Packing takes time that other calls should not wait for.
            let packed = tokio::task::spawn_blocking(move || archive::pack(kind, &files)).await;
            let packed = packed.map_err(|error| ApiError::failure(error.to_string()))??;
            let date = date::format("yyyy_MM_dd", now_ms()).unwrap_or_default();
            let file = format!("{name}_rev{number}_{date}.zip");
            Ok(Reply::bytes("application/octet-stream", packed, Some(file)))
        }
        (&Method::GET, []) => {
            let files = set.files(&bundle.organization, kind, &bundle.name, number);
            let shown = show_revision(&bundle, number, &known, &files);
            Ok(Reply::ok(kind.title(), shown))
        }
        (&Method::POST | &Method::PUT, []) => {
            let files = read_bundle(call, kind).await?;
            let user = call.user.clone();
            let written = call.write(move |set, moment| {
                let stamp = Stamp::new(moment.unix_ms(), &user);
                let changes = lifecycle::replace(set, &bundle, number, &files, &stamp)?;
                let known = lifecycle::find_revision(set, &bundle, number)?;
                Ok((show_revision(&bundle, number, &known, &files), changes))
            });
            let (shown, revision) = written.await?;
            Ok(Reply::ok(kind.title(), shown).at(revision))
        }
        (&Method::DELETE, []) => {
            let files = set.files(&bundle.organization, kind, &bundle.name, number);
            let shown = show_revision(&bundle, number, &known, &files);
            let written = call
                .write(move |set, _| Ok(((), lifecycle::delete_revision(set, &bundle, number)?)));
            let revision = written.await?.1;
            Ok(Reply::ok(kind.title(), shown).at(revision))
        }
        (_, ["deployments"]) => deployments::of_revision(call, &bundle, number).await,
        (_, ["npm", ..]) => Err(ApiError::bad_request(
            "npm is not run by the gateway: send node_modules with the resources",
        )),
        (_, rest) => pieces::answer(call, &bundle, number, rest).await,
    }
}

/// `POST /apis?action=import` and `?action=validate`.
async fn import(call: &Call, kind: BundleKind) -> Result<Reply, ApiError> {
    let action = call.parameter("action").unwrap_or("import");
    if action != "import" && action != "validate" {
        return Err(ApiError::field(
            "action",
            format!("'{action}' is not known, allowed are import and validate"),
        ));
    }
    let name = call.parameter("name").map(str::to_owned);
    let files = read_bundle(call, kind).await?;
    let name = match name {
        Some(name) if !name.is_empty() => name,
        _ if action == "validate" => "bundle".to_owned(),
        _ => {
            return Err(ApiError::bad_request(
                "the parameter name is needed, it names the bundle",
            ));
        }
    };
    let bundle = BundleName {
        organization: call.organization.clone(),
        kind,
        name,
    };
    if action == "validate" {
        let shown = show_revision(&bundle, 0, &Revision::default(), &files);
        return Ok(Reply::ok(kind.title(), shown));
    }
    let user = call.user.clone();
    let written = call.write(move |set, moment| {
        let stamp = Stamp::new(moment.unix_ms(), &user);
        let (number, changes) = lifecycle::import(set, &bundle, &files, &stamp)?;
        let known = lifecycle::find_revision(set, &bundle, number)?;
        Ok((show_revision(&bundle, number, &known, &files), changes))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::created(kind.title(), shown).at(revision))
}

/// Unpacks the body and judges what is in it, on a thread of its own.
async fn read_bundle(call: &Call, kind: BundleKind) -> Result<Arc<Files>, ApiError> {
    let bytes = call.file().await?;
    // Without validation pieces may be missing still: tools send them one by one.
    let whole = call
        .parameter("validate")
        .is_none_or(|text| !text.eq_ignore_ascii_case("false"));
    let read = tokio::task::spawn_blocking(move || {
        let files = archive::unpack(kind, &bytes)?;
        let wrong = lifecycle::judge_bundle(kind, &files, whole);
        if wrong.is_empty() {
            Ok(Arc::new(files))
        } else {
            Err(invalid(wrong))
        }
    });
    read.await
        .map_err(|error| ApiError::failure(error.to_string()))?
}

/// 400 with everything that is wrong with a bundle.
pub(super) fn invalid(wrong: Vec<String>) -> ApiError {
    let message = format!("Bundle is invalid. {}", wrong.join("; "));
    ApiError::new(400, "messaging.config.beans.InvalidBundle", message).with_contexts(wrong)
}

/// The answer for a proxy or shared flow.
fn show(set: &EntitySet, bundle: &BundleName) -> Value {
    let key = [
        bundle.organization.as_str(),
        bundle.kind.word(),
        &bundle.name,
    ];
    let stamp = set.find::<Bundle>(&key).map(|known| known.stamp);
    let mut meta = serde_json::to_value(stamp).unwrap_or_default();
    if let Some(fields) = meta.as_object_mut() {
        let kind = match bundle.kind {
            BundleKind::Proxy => "Proxy",
            BundleKind::SharedFlow => "SharedFlow",
        };
        fields.insert("subType".to_owned(), kind.into());
    }
    let numbers = set.revisions(&bundle.organization, bundle.kind, &bundle.name);
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    json!({"metaData": meta, "name": bundle.name, "revision": numbers})
}

/// The answer for a revision.
fn show_revision(bundle: &BundleName, number: u32, known: &Revision, files: &Files) -> Value {
    let names = |piece: Piece| -> Vec<String> {
        let pieces = describe::pieces(files, piece);
        pieces.into_iter().map(|(name, _)| name).collect()
    };
    let (description, display_name) = describe::about(files);
    let base_paths: Vec<String> = describe::proxy_endpoints(files)
        .into_iter()
        .map(|endpoint| endpoint.base_path)
        .collect();
    let resources = describe::resources(files);
    let resource_files: Vec<Value> = resources
        .iter()
        .map(|(kind, name)| json!({"name": name, "type": kind}))
        .collect();
    let urls: Vec<String> = resources
        .iter()
        .map(|(kind, name)| format!("{kind}://{name}"))
        .collect();
    let (proxies, targets) = (names(Piece::Proxy), names(Piece::Target));
    json!({
        "basepaths": base_paths,
        "configurationVersion": {"majorVersion": 4, "minorVersion": 0},
        "contextInfo": format!(
            "Revision {number} of application {}, in organization {}",
            bundle.name, bundle.organization
        ),
        "createdAt": known.stamp.created_at,
        "createdBy": known.stamp.created_by,
        "description": description,
        "displayName": display_name,
        "entityMetaDataAsProperties": {"bundle_type": "zip"},
        "lastModifiedAt": known.stamp.last_modified_at,
        "lastModifiedBy": known.stamp.last_modified_by,
        "manifestVersion": manifest_version(files),
        "name": bundle.name,
        "policies": names(Piece::Policy),
        "proxies": proxies,
        "proxyEndpoints": proxies,
        "resourceFiles": {"resourceFile": resource_files},
        "resources": urls,
        "revision": number.to_string(),
        "sharedFlows": names(Piece::SharedFlow),
        "spec": "",
        "targetEndpoints": targets,
        "targetServers": describe::target_servers(files),
        "targets": targets,
        "teams": [],
        "type": "Application",
    })
}

/// Tells whether two revisions hold the same files.
fn manifest_version(files: &Files) -> String {
    let mut digest = Sha512::new();
    for (path, content) in files {
        digest.update(path.len().to_le_bytes());
        digest.update(path.as_bytes());
        digest.update(content.len().to_le_bytes());
        digest.update(content);
    }
    let mut text = String::from("SHA-512");
    for (index, byte) in digest.finalize().iter().enumerate() {
        text.push(if index == 0 { ':' } else { '\0' });
        text.push_str(&format!("{byte:02x}"));
    }
    text.replace('\0', "")
}
