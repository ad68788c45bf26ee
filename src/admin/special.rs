//! The table of a whole Admin listener: what every entity has, then what is special.

use super::crud;
use super::table::{Endpoint, Table};
use super::{
    cache, certificates, clustering, config, consumer_groups, consumers, debug, endpoints,
    filter_chains, openapi, plugins_enabled, root, schemas, status, tags, timers, traces,
    upstreams,
};
use crate::dialects::kong::entities::EntityTable;

/// Every endpoint of the Admin listener. What comes later replaces the same method of the same path.
pub fn table(entities: &EntityTable) -> Table {
    let mut all = crud::endpoints(entities);
    all.extend([
        Endpoint::at("/").shows("Describe this node", root::show),
        Endpoint::at("/endpoints").shows("List all paths", endpoints::list),
        Endpoint::at("/openapi.json").shows("Describe this API as OpenAPI 3.1", openapi::show),
        Endpoint::at("/plugins/enabled")
            .shows("List the plugins that may be used", plugins_enabled::show),
        Endpoint::at("/status").shows(
            "Show counters, memory and the serving revision",
            status::show,
        ),
        Endpoint::at("/traces").shows("Show what traced requests did", traces::show),
        Endpoint::at("/timers").shows("Count waiting tasks", timers::show),
    ]);
    for further in [
        cache::endpoints(),
        certificates::endpoints(),
        clustering::endpoints(),
        config::endpoints(),
        consumer_groups::endpoints(),
        consumers::endpoints(),
        debug::endpoints(),
        filter_chains::endpoints(),
        schemas::endpoints(),
        status::dns_endpoints(),
        status::metrics_endpoints(),
        tags::endpoints(),
        upstreams::endpoints(),
    ] {
        all.extend(further);
    }
    Table::new(all)
}
