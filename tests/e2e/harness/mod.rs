//! What the tests stand on: a real gateway process, scripted and real counterparts, exact bytes.
//!
//! Start at [`Gateway`] and [`Origin`]. Nothing here sleeps for luck: [`eventually`] polls until a deadline.

mod admin;
mod bundles;
mod certificates;
mod client;
pub(crate) mod consul;
mod daemons;
mod gateway;
mod names;
mod origin;
mod programs;
mod traffic;

use std::time::{Duration, Instant};

pub(crate) use admin::Admin;
pub(crate) use bundles::{Organization, zip_files};
pub(crate) use certificates::{Authority, Pair};
pub(crate) use client::{Client, Request, Response, tls_stream};
pub(crate) use daemons::Daemon;
pub(crate) use gateway::{Gateway, GatewayBuilder};
pub(crate) use names::NameServer;
pub(crate) use origin::{Origin, Reply, acceptor};
pub(crate) use programs::{NginxOrigin, Program, curl, python_client};
pub(crate) use traffic::Traffic;

/// How long a test waits for something that should happen at once, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Polls until `probe` gives something.
///
/// # Panics
/// After [`DEADLINE`], naming what was waited for.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < until, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Which of the two drivers a gateway must use: a route never behaves differently by driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Exchange,
    Duplex,
}

impl Driver {
    /// The value of the gateway's test-only switch.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Duplex => "duplex",
        }
    }
}

/// Runs the same test through both drivers, and says which one failed.
pub(crate) fn for_both_drivers(test: impl Fn(Driver)) {
    for driver in [Driver::Exchange, Driver::Duplex] {
        let shown = ShowOnPanic(driver);
        test(driver);
        drop(shown);
    }
}

struct ShowOnPanic(Driver);

impl Drop for ShowOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with the {} driver", self.0.name());
        }
    }
}

/// A declarative configuration with one service of this URL and these routes.
pub(crate) fn one_service(url: &str, routes: &serde_json::Value) -> String {
    serde_json::json!({
        "_format_version": "3.0",
        "services": [{"name": "origin", "url": url, "routes": routes}],
    })
    .to_string()
}

/// A declarative configuration with one service, a route for everything, and these plugins on the service.
pub(crate) fn with_plugins(url: &str, plugins: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "_format_version": "3.0",
        "services": [{
            "name": "origin",
            "url": url,
            "routes": [{"name": "all", "paths": ["/"]}],
            "plugins": plugins,
        }],
    })
}
