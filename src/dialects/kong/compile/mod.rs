//! Entities to plan: what the Kong dialect means, written in the plan's words. Pure.
//!
//! One function serves the first compile and every later one: [`compile`] takes the entities before and after some
//! changes, and compiles the parts of the plan that these touch from the entities after. The first compile is the one
//! from no entities at all. Each kind of part has a file of its own, which knows what touches it:
//!
//! | a change of | touches |
//! |---|---|
//! | route | itself, its pipeline |
//! | service | its forward and the cluster of its plain host; its routes when it was switched on or off |
//! | upstream | its cluster; when it came, went or was renamed also the forwards whose host is its name |
//! | target | the cluster of its upstream |
//! | plugin | the pipelines in its scope; the routes whose pipeline became another one |
//! | consumer, acl, group, member | the principals concerned |
//! | credential | itself |
//! | certificate, sni | the certificate; the forwards and clusters that show it to upstreams |
//! | ca_certificate | itself; the forwards that trust it |
//!
//! What cannot be expressed is reported and left out; everything else serves.

pub mod certificate;
mod changes;
pub mod cluster;
pub mod forward;
mod health;
pub mod pipeline;
pub mod principal;
pub mod route;
mod route_plan;
pub mod serving;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use super::entities::RouterFlavor;
use super::entity_set::{Change, EntitySet};
use crate::model::Diagnostic;
use crate::model::catalog::Catalog;
use crate::model::plan::{Plan, PlanDelta};

/// What compiling depends on besides the entities.
#[derive(Debug, Clone)]
pub struct Options {
    /// How routes are read. Kong: `router_flavor`.
    pub flavor: RouterFlavor,
    /// Do names of the mesh lead there? They are for name servers otherwise. Sallyport: `consul_service` is set.
    pub mesh: bool,
}

/// Compiles what the changes between two sets touch. Applied to the plan of `before`, the delta gives that of `after`.
///
/// `changes` holds every difference between the two sets; it may name rows that are the same in both.
pub fn compile(
    before: &EntitySet,
    after: &EntitySet,
    changes: &[Change],
    catalog: &Catalog,
    options: &Options,
) -> (PlanDelta, Vec<Diagnostic>) {
    let touched = changes::touched_routes(before, after, changes);
    let (routes, of_routes) = route_plan::compile_routes(after, &touched, options.flavor);
    let (forwards, mut clusters, of_forwards) =
        forward::compile_forwards(after, changes, options.mesh);
    // Those of upstreams and those of plain hosts have different ids.
    let (of_upstreams, of_clusters) = cluster::compile_clusters(after, changes, options.mesh);
    clusters.extend(of_upstreams);
    let (certificates, of_certificates) = certificate::compile_certificates(after, changes);
    let (authorities, of_authorities) = certificate::compile_authorities(changes);
    let (pipelines, of_pipelines) = pipeline::compile_pipelines(before, after, changes, catalog);
    let (principals, of_principals) = principal::compile_principals(after, changes);
    let (credentials, of_credentials) = principal::compile_credentials(changes);
    let delta = PlanDelta {
        routes,
        forwards,
        clusters,
        pipelines,
        principals,
        credentials,
        certificates,
        authorities,
    };
    let findings = [
        of_routes,
        of_forwards,
        of_clusters,
        of_certificates,
        of_authorities,
        of_pipelines,
        of_principals,
        of_credentials,
    ];
    (delta, findings.concat())
}

/// Compiles a whole set.
pub fn compile_all(
    entities: &EntitySet,
    catalog: &Catalog,
    options: &Options,
) -> (Plan, Vec<Diagnostic>) {
    let nothing = EntitySet::new();
    let changes = EntitySet::difference(&nothing, entities);
    let (delta, findings) = compile(&nothing, entities, &changes, catalog, options);
    let mut plan = Plan::default();
    plan.apply(&delta);
    (plan, findings)
}
