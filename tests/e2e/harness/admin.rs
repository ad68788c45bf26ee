//! A client of the Admin API that waits until what it wrote serves.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Request, Response, eventually};

/// The Admin API of one gateway.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    status: Option<SocketAddr>,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr, status: Option<SocketAddr>) -> Self {
        Self { address, status }
    }

    /// A request to be completed by the test.
    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.address, method, path)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path).send()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: Value) -> Response {
        self.write(self.request("POST", path).json(&body))
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: Value) -> Response {
        self.write(self.request("PUT", path).json(&body))
    }

    #[track_caller]
    pub(crate) fn patch(&self, path: &str, body: Value) -> Response {
        self.write(self.request("PATCH", path).json(&body))
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Response {
        self.write(self.request("DELETE", path))
    }

    /// POSTs a form.
    #[track_caller]
    pub(crate) fn post_form(&self, path: &str, pairs: &str) -> Response {
        self.write(self.request("POST", path).form(pairs))
    }

    /// Creates an entity and gives it.
    #[track_caller]
    pub(crate) fn create(&self, path: &str, body: Value) -> Value {
        self.post(path, body).expect_status(201).json()
    }

    /// Sends a write; a good one has been waited for until it serves.
    #[track_caller]
    pub(crate) fn write(&self, request: Request) -> Response {
        let response = request.send();
        if (200..300).contains(&response.status) {
            self.await_revision(&response);
        }
        response
    }

    /// Waits until what a write has answered serves.
    #[track_caller]
    pub(crate) fn await_revision(&self, response: &Response) {
        let Some(status) = self.status else { return };
        let revision: u64 = response
            .header("X-Sallyport-Revision")
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("a write without a revision: {:?}", response.headers));
        eventually("the revision serves", || {
            let page = Request::new(status, "GET", "/status").send().json();
            let serving = page["configuration"]["revision"].as_u64()?;
            (serving >= revision).then_some(())
        });
    }
}
