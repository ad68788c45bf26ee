//! `/filter-chains` and what hangs on it: there is no Wasm runtime, so these say so.

use http::Method;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;
use super::table::{Endpoint, Handler};

pub(super) fn endpoints() -> Vec<Endpoint> {
    let collections = [
        "/filter-chains",
        "/routes/{routes}/filter-chains",
        "/services/{services}/filter-chains",
    ];
    let items = [
        "/filter-chains/{filter_chains}",
        "/routes/{routes}/filter-chains/{filter_chains}",
        "/services/{services}/filter-chains/{filter_chains}",
        "/filter-chains/{filter_chains}/route",
        "/filter-chains/{filter_chains}/service",
    ];
    let shown = [
        "/routes/{routes}/filters/all",
        "/routes/{routes}/filters/enabled",
        "/routes/{routes}/filters/disabled",
    ];
    let all = [
        (&collections[..], &[Method::GET, Method::POST][..]),
        (
            &items[..],
            &[Method::GET, Method::PUT, Method::PATCH, Method::DELETE][..],
        ),
        (&shown[..], &[Method::GET][..]),
    ];
    let mut endpoints = Vec::new();
    for (paths, methods) in all {
        for path in paths {
            let mut endpoint = Endpoint::at(path);
            for method in methods {
                endpoint = endpoint.on(
                    method.clone(),
                    "Refused: Wasm is not enabled",
                    Handler::Plain(refuse),
                );
            }
            endpoints.push(endpoint);
        }
    }
    endpoints
}

fn refuse(_: &Admin, _: &Call) -> Outcome {
    Err(Answer::bad_request(
        "this endpoint is only available when wasm is enabled",
    ))
}
