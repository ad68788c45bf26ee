//! From an HTTP request to the endpoint that answers it, and the headers that every answer has.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, SERVER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::answer::{Answer, Outcome};
use super::body::Payload;
use super::call::{Call, query, read_payload, segments};
use super::crud;
use super::guard::{Guard, sharing_headers};
use super::state::{Admin, VERSION};
use super::table::{Endpoint, Found, Handler, Table};

const LATENCY: HeaderName = HeaderName::from_static("x-kong-admin-latency");
const REVISION: HeaderName = HeaderName::from_static("x-sallyport-revision");

/// A listener's face: which endpoints it has and whom it lets in.
pub struct Front {
    pub admin: Arc<Admin>,
    pub table: Table,
    pub guard: Guard,
}

/// The router of a listener. More routes may be merged into it; they are guarded too, because the guard surrounds all.
pub fn router(front: Front, further: Router) -> Router {
    let front = Arc::new(front);
    let endpoints = Router::new().fallback(answer).with_state(front.clone());
    further
        .fallback_service(endpoints)
        .layer(from_fn_with_state(front, surround))
}

/// The same, but the endpoints stand below a prefix, beside the further routes.
pub fn router_below(front: Front, prefix: &str, further: Router) -> Router {
    let front = Arc::new(front);
    let endpoints = Router::new().fallback(answer).with_state(front.clone());
    further
        .nest_service(prefix, endpoints)
        .layer(from_fn_with_state(front, surround))
}

/// Guards, then adds the headers that every answer has.
async fn surround(
    State(front): State<Arc<Front>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let sharing = sharing_headers(&parts);
    let (mut response, admitted) = match front.guard.admit(&parts).await {
        Ok(()) => (next.run(Request::from_parts(parts, body)).await, true),
        Err(answer) => (answer.into_response(parts.method == Method::HEAD), false),
    };
    let shared = admitted || response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    if shared {
        headers.extend(sharing);
    }
    if let Ok(server) = HeaderValue::from_str(&format!("sallyport/{VERSION}")) {
        headers.insert(SERVER, server);
    }
    let latency = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(LATENCY, HeaderValue::from(latency));
    response
}

/// Answers whatever no other route took.
async fn answer(State(front): State<Arc<Front>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let writes = matches!(
        parts.method,
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    );
    let answer = find_and_run(&front, parts, body)
        .await
        .unwrap_or_else(|refused| refused);
    let revision = answer.revision;
    let mut response = answer.into_response(head);
    if writes {
        let revision = revision.unwrap_or_else(|| front.admin.control.committed().revision);
        response
            .headers_mut()
            .insert(REVISION, HeaderValue::from(revision));
    }
    response
}

async fn find_and_run(front: &Front, parts: Parts, body: Body) -> Outcome {
    let segments = segments(parts.uri.path()).ok_or_else(Answer::not_found)?;
    let method = if parts.method == Method::HEAD {
        Method::GET
    } else {
        parts.method.clone()
    };
    let (answerer, keys) = match front.table.find(&method, &segments) {
        Found::Nothing => return Err(Answer::not_found()),
        Found::OtherMethods(endpoint) if method == Method::OPTIONS => {
            return Ok(options(endpoint, &parts));
        }
        Found::OtherMethods(endpoint) => {
            return Err(Answer::method_not_allowed().with_header(ALLOW, &endpoint.allowed()));
        }
        Found::Answerer(answerer, keys) => (answerer, keys),
    };
    let payload = match method {
        Method::POST | Method::PUT | Method::PATCH => read_payload(&parts.headers, body).await?,
        // Bodies of other methods mean nothing; the server reads past them.
        _ => Payload::default(),
    };
    let call = Call {
        method,
        keys,
        query: query(&parts)?,
        headers: parts.headers,
        payload,
    };
    match answerer.handler {
        Handler::Plain(handle) => handle(&front.admin, &call),
        Handler::Waiting(handle) => handle(front.admin.clone(), call).await,
        Handler::Generic(operation) => crud::run(&front.admin, operation, &call).await,
    }
}

/// Tells what a path allows, to people and to browsers.
fn options(endpoint: &Endpoint, parts: &Parts) -> Answer {
    use http::header::{ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS};
    let allowed = endpoint.allowed();
    let wanted = parts
        .headers
        .get(ACCESS_CONTROL_REQUEST_HEADERS)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("Content-Type");
    Answer::no_content()
        .with_header(ALLOW, &allowed)
        .with_header(ACCESS_CONTROL_ALLOW_METHODS, &allowed)
        .with_header(ACCESS_CONTROL_ALLOW_HEADERS, wanted)
}
