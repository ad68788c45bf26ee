//! `/cache`: Kong's cache of database rows. Every node here holds all entities in memory, so nothing is ever cached
//! apart from them: no key is found, and forgetting is done as soon as it is asked for.

use http::Method;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;
use super::table::{Endpoint, Handler};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/cache").on(
            Method::DELETE,
            "Forget everything cached",
            Handler::Plain(forget),
        ),
        Endpoint::at("/cache/{key}")
            .shows("Show a cached value; there are none", miss)
            .on(
                Method::DELETE,
                "Forget a cached value",
                Handler::Plain(forget),
            ),
    ]
}

fn miss(_: &Admin, _: &Call) -> Outcome {
    Err(Answer::not_found())
}

fn forget(_: &Admin, _: &Call) -> Outcome {
    Ok(Answer::no_content())
}
