//! The web page: one self-contained document that shows this node through the Admin API, read-only.
//!
//! The page's own listener also answers `GET` requests of the Admin API below `/api`, so the page talks to nobody else
//! and its Content-Security-Policy can say so. Writes are not offered there.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Html;
use axum::routing::get;
use base64::Engine;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response};
use sha2::{Digest, Sha256};

use super::dispatch::{self, Front};
use super::guard::Guard;
use super::special;
use super::state::Admin;
use super::status_listener::ready_endpoint;

const DOCUMENT: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The router of the page's listener. `guard` decides who may look, as on the Admin listener.
pub fn router(admin: Arc<Admin>, guard: Guard) -> Router {
    let table = special::table(admin.entities)
        .only_reading()
        .with(ready_endpoint());
    let page = get(|| async { page() });
    let api = Front {
        table,
        admin,
        guard,
    };
    dispatch::router_below(api, "/api", Router::new().route("/", page))
}

/// The page with the headers that keep it alone.
fn page() -> Response<Body> {
    let document = DOCUMENT
        .replace("/*style*/", STYLE)
        .replace("/*script*/", SCRIPT);
    let mut response = axum::response::IntoResponse::into_response(Html(document));
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source_hash(STYLE),
        source_hash(SCRIPT),
    );
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(CONTENT_SECURITY_POLICY, &policy);
    put(X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(X_FRAME_OPTIONS, "DENY");
    put(REFERRER_POLICY, "no-referrer");
    put(CACHE_CONTROL, "no-store");
    response
}

/// How a policy names an inline text: by its hash.
fn source_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    format!(
        "sha256-{}",
        base64::engine::general_purpose::STANDARD.encode(digest)
    )
}
