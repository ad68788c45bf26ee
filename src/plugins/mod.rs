//! The plugins, one file each, and the one table that lists them.
//!
//! A plugin is a file in the folder of the dialect whose configuration it reads, and a line in [`table`]. Mechanisms that
//! several plugins use (counters, bodies, templates) are in `shared`; they know no configuration schema.

pub(crate) mod apigee;
#[cfg(test)]
mod documentation;
pub mod kong;
mod shared;
pub use shared::lost_lines::LostLines;
#[cfg(test)]
pub(crate) mod test_support;

use crate::model::catalog::Catalog;
use crate::runtime::contract::PluginEntry;

/// Every plugin of this build, by priority, the first to run first.
pub fn table() -> Vec<PluginEntry> {
    vec![
        kong::correlation_id::entry(),
        kong::cors::entry(),
        kong::mtls_auth::entry(),
        kong::key_auth::entry(),
        kong::basic_auth::entry(),
        kong::header_cert_auth::entry(),
        kong::websocket_validator::entry(),
        kong::websocket_size_limit::entry(),
        kong::grpc_gateway::entry(),
        kong::ip_restriction::entry(),
        kong::acl::entry(),
        kong::rate_limiting::entry(),
        kong::request_transformer::entry(),
        kong::response_transformer::entry(),
        kong::prometheus::entry(),
        kong::file_log::entry(),
        kong::tcp_log::entry(),
        kong::grpc_web::entry(),
        kong::request_termination::entry(),
    ]
}

/// Plugins that no user configures: compilers of other dialects put them into pipelines. Never selected away.
pub fn built_in() -> Vec<PluginEntry> {
    vec![apigee::flow::entry()]
}

/// What the dialects may know of the table.
pub fn catalog() -> Catalog {
    Catalog::new(table().into_iter().map(|entry| entry.info))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    #[test]
    fn runs_in_the_order_of_the_table() {
        let priorities: Vec<i32> = table().iter().map(|entry| entry.info.priority).collect();
        let mut sorted = priorities.clone();
        sorted.sort_by(|a, b| b.cmp(a));
        assert_eq!(priorities, sorted);
        assert_eq!(catalog().iter().count(), priorities.len());
    }
}
