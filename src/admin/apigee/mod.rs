//! Apigee's management API on the Admin listener: `/v1/organizations/O`, `/v1/o/O` and `/oauth/token`.
//!
//! Owns how requests become operations on the Apigee entities and how results become answers in Apigee's shapes. Refuses
//! to know the rules between entities: those are in `dialects::apigee`. One file for each family of calls; start at
//! [`router`] and [`find`].

mod app_keys;
mod apps;
mod attributes;
mod bundles;
mod call;
mod collection;
mod deployments;
mod developers;
mod environments;
mod flow_hooks;
mod keystores;
mod maps;
mod oauth_tokens;
mod organization;
mod pieces;
mod products;
mod reply;
mod resource_files;
pub mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{Method, Request, Response};

use super::call::read_payload;
use super::state::Admin;
use crate::dialects::apigee::entities::{BundleKind, Kind};
use crate::dialects::apigee::error::ApiError;
use call::Call;
use reply::Reply;

/// The routes of the management API, to be merged into those of an Admin listener.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/oauth/token", axum::routing::post(tokens::issue))
        .route("/v1/organizations", axum::routing::any(answer))
        .route("/v1/organizations/{*rest}", axum::routing::any(answer))
        .route("/v1/o", axum::routing::any(answer))
        .route("/v1/o/{*rest}", axum::routing::any(answer))
        .with_state(admin)
}

async fn answer(State(admin): State<Arc<Admin>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (head, wants_xml) = (
        parts.method == Method::HEAD,
        reply::wants_xml(&parts.headers),
    );
    let reply = match read(admin, parts, body).await {
        Ok((call, path)) => find(&call, &path).await,
        Err(error) => Err(error),
    };
    reply
        .unwrap_or_else(|error| Reply::of_error(&error))
        .into_response(head, wants_xml)
}

/// Reads a request: who asks, for which organisation, and the path below it.
async fn read(
    admin: Arc<Admin>,
    parts: Parts,
    body: Body,
) -> Result<(Call, Vec<String>), ApiError> {
    let mut path = segments(parts.uri.path())?;
    // `v1` and `organizations` or `o`, as routed.
    path.drain(..path.len().min(2));
    let organization = if path.is_empty() {
        String::new()
    } else {
        path.remove(0)
    };
    let payload = match parts.method {
        Method::POST | Method::PUT | Method::PATCH => read_payload(&parts.headers, body)
            .await
            .map_err(|refused| call::refused_body(refused.status))?,
        // Bodies of other methods mean nothing; the server reads past them.
        _ => Default::default(),
    };
    let call = Call::new(admin, parts, organization, payload)?;
    call.found_organization().await?;
    Ok((call, path))
}

/// The segments of a path, percent-decoded. A trailing slash counts for nothing.
fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    path.trim_matches('/')
        .split('/')
        .map(|segment| {
            let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
            decoded
                .map(|text| text.into_owned())
                .map_err(|_| ApiError::bad_request("the path is not UTF-8"))
        })
        .collect()
}

/// Finds what answers a path below an organisation.
async fn find(call: &Call, path: &[String]) -> Result<Reply, ApiError> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if call.organization.is_empty() {
        return organization::list(call);
    }
    let set = call.set();
    if !set.has(Kind::Organization, &[&call.organization]) {
        return Err(Kind::Organization.missing(&call.organization, ""));
    }
    match path.as_slice() {
        [] => organization::show(call),
        ["environments" | "e", rest @ ..] => environments::answer(call, rest).await,
        ["apis", rest @ ..] => bundles::answer(call, BundleKind::Proxy, rest).await,
        ["sharedflows", rest @ ..] => bundles::answer(call, BundleKind::SharedFlow, rest).await,
        ["deployments"] => deployments::of_organization(call),
        ["keyvaluemaps", rest @ ..] => {
            maps::answer(
                call,
                crate::dialects::apigee::entities::MapScope::Organization,
                rest,
            )
            .await
        }
        ["resourcefiles", rest @ ..] => resource_files::answer(call, "", rest).await,
        ["apiproducts", rest @ ..] => products::answer(call, rest).await,
        ["developers", rest @ ..] => developers::answer(call, rest).await,
        ["apps", rest @ ..] => apps::of_organization(call, rest),
        ["oauth2", rest @ ..] => oauth_tokens::answer(call, rest).await,
        [
            "maskconfigs" | "stats" | "audits" | "userroles" | "specs" | "companies" | "users"
            | "reports" | "mint" | "appgroups",
            ..,
        ] => Err(call.unsupported()),
        _ => Err(call.unknown()),
    }
}
