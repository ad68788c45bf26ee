//! `/clustering/…`: there is no control plane that feeds data planes, so these say so.

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;
use super::table::Endpoint;

pub(super) fn endpoints() -> Vec<Endpoint> {
    ["/clustering/data-planes", "/clustering/status"]
        .into_iter()
        .map(|path| Endpoint::at(path).shows("Refused: this node is no control plane", refuse))
        .collect()
}

fn refuse(_: &Admin, _: &Call) -> Outcome {
    Err(Answer::bad_request(
        "this endpoint is only available when Kong is configured to run as Control Plane for the cluster",
    ))
}
