//! Deployed bundles to plan: routes with one step each, whose configuration is the compiled program, and the forwards and
//! clusters of their targets. Pure.
//!
//! What is deployed to one environment is compiled together, because bundles there call each other and share target
//! servers, keystores, references and hooks: a change of anything in an environment compiles it anew, and the delta
//! holds what came out differently. Everything is judged here, all at once; [`check_bundle`] tells what is wrong with a
//! bundle alone, [`check_deployment`] with a bundle in its environment.

mod handling;
mod matcher;
mod proxy;
mod target;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::bundle::{self, Bundle};
use super::entities::{BundleKind, Environment, Kind};
use super::entity_set::{Change, DeployedBundle, EntitySet, Files};
use super::xml::Findings;
use crate::base::source_ref::SourceRef;
use crate::model::Diagnostic;
use crate::model::plan::{Plan, PlanDelta};

/// What compiling depends on besides the entities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Targets are verified only where a trust store says so, as Edge does. Default: always, against the system's trust.
    pub tls_edge_compatible: bool,
    /// No other dialect has routes: requests that no proxy wants are answered in this dialect's shape, whatever their
    /// host.
    pub is_alone: bool,
    /// The Node.js that runs the programs of bundles: a path, or a name that is looked for on `PATH`. Empty: `node`.
    pub node: String,
    /// Why programs of bundles cannot run here. None: they can.
    pub node_missing: Option<String>,
}

/// Ids are made of what they stand for, so that they stay the same from one compilation to the next.
const NAMESPACE: Uuid = Uuid::from_u128(0x51aa_7f0c_93ce_4a1e_b6a2_0d60_6b7e_2a11);

/// The id of a part of the plan.
fn id(parts: &[&str]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, parts.join("\0").as_bytes())
}

/// One environment while it is compiled.
struct Surroundings<'a> {
    set: &'a EntitySet,
    organization: &'a str,
    environment: &'a str,
    options: &'a Options,
    /// Scripts are compiled to see whether that can be done. Only before a deployment: it takes time.
    checks_scripts: bool,
    /// Shared flows deployed here, by name.
    shared_flows: BTreeMap<String, Shared>,
}

/// A deployed shared flow.
struct Shared {
    revision: u32,
    bundle: Bundle,
    files: Files,
}

/// Compiles what the changes between two sets touch. Applied to the plan of `before`, the delta gives that of `after`.
/// Where the options differ everything is touched.
pub fn compile(
    (before, old_options): (&EntitySet, &Options),
    (after, options): (&EntitySet, &Options),
    changes: &[Change],
) -> (PlanDelta, Vec<Diagnostic>) {
    let mut delta = PlanDelta::default();
    let mut findings = Vec::new();
    let mut touched = touched(before, after, changes);
    if old_options != options {
        for set in [before, after] {
            let all = set.all::<Environment>(&[]);
            touched.extend(all.map(|(key, _)| (key.part(0).to_owned(), key.last().to_owned())));
        }
    }
    for (organization, environment) in touched {
        let (old, _) = compile_environment(before, &organization, &environment, old_options);
        let (new, found) = compile_environment(after, &organization, &environment, options);
        delta.merge(difference(&old, &new));
        findings.extend(found);
    }
    (delta, findings)
}

/// Compiles a whole set.
pub fn compile_all(set: &EntitySet, options: &Options) -> (Plan, Vec<Diagnostic>) {
    let nothing = EntitySet::new();
    let changes = EntitySet::difference(&nothing, set);
    let (delta, findings) = compile((&nothing, options), (set, options), &changes);
    let mut plan = Plan::default();
    plan.apply(&delta);
    (plan, findings)
}

/// What is wrong with a bundle, wherever it may be deployed.
pub fn check_bundle(kind: BundleKind, files: &Files) -> Vec<Diagnostic> {
    let (_, findings) = parse(kind, files);
    findings.into_vec()
}

/// What is wrong with a revision in an environment, deployed or not, in the set as it is.
pub fn check_deployment(
    set: &EntitySet,
    deployed: &DeployedBundle,
    options: &Options,
) -> Vec<Diagnostic> {
    let mut surroundings =
        Surroundings::new(set, &deployed.organization, &deployed.environment, options);
    surroundings.checks_scripts = true;
    let files = surroundings.files(deployed);
    let (bundle, mut findings) = parse(deployed.kind, &files);
    match deployed.kind {
        BundleKind::Proxy => {
            let mut plan = Plan::default();
            proxy::compile(
                &surroundings,
                deployed,
                &bundle,
                &files,
                &mut plan,
                &mut findings,
            );
        }
        BundleKind::SharedFlow => {
            let shared = Shared {
                revision: deployed.revision,
                bundle,
                files,
            };
            surroundings
                .shared_flows
                .insert(deployed.name.clone(), shared);
            proxy::check_shared_flow(&surroundings, &deployed.name, &mut findings);
        }
    }
    findings.into_vec()
}

/// Environments that changes may touch, in both sets.
fn touched(
    before: &EntitySet,
    after: &EntitySet,
    changes: &[Change],
) -> BTreeSet<(String, String)> {
    let mut touched = BTreeSet::new();
    for change in changes {
        let organization = change.key.part(0);
        let environment = match change.kind {
            Kind::Environment
            | Kind::VirtualHost
            | Kind::TargetServer
            | Kind::Keystore
            | Kind::KeystoreAlias
            | Kind::Reference
            | Kind::Cache
            | Kind::FlowHook
            | Kind::Deployment => change.key.part(1),
            Kind::ResourceFile => change.key.part(1),
            Kind::Organization | Kind::Revision | Kind::RevisionFile => "",
            // Keys, products, values: read when a request asks for them.
            _ => continue,
        };
        if !environment.is_empty() {
            touched.insert((organization.to_owned(), environment.to_owned()));
            continue;
        }
        for set in [before, after] {
            for (key, _) in set.all::<Environment>(&[organization]) {
                touched.insert((organization.to_owned(), key.last().to_owned()));
            }
        }
    }
    touched
}

fn compile_environment(
    set: &EntitySet,
    organization: &str,
    environment: &str,
    options: &Options,
) -> (Plan, Vec<Diagnostic>) {
    let surroundings = Surroundings::new(set, organization, environment, options);
    let mut plan = Plan::default();
    let mut findings = Findings::new();
    let deployed = set.deployed(&[organization, environment, BundleKind::Proxy.word()]);
    for deployed in &deployed {
        let files = surroundings.files(deployed);
        let (bundle, mut found) = parse(deployed.kind, &files);
        if !found.has_errors() {
            let mut own = Plan::default();
            proxy::compile(
                &surroundings,
                deployed,
                &bundle,
                &files,
                &mut own,
                &mut found,
            );
            if !found.has_errors() {
                plan.routes.extend(own.routes);
                plan.forwards.extend(own.forwards);
                plan.clusters.extend(own.clusters);
                plan.pipelines.extend(own.pipelines);
                plan.authorities.extend(own.authorities);
            }
        }
        let who = format!("{} revision {}", deployed.name, deployed.revision);
        findings.extend(found.into_vec().into_iter().map(|mut finding| {
            finding.at = SourceRef {
                document: format!("{who}: {}", finding.at.document).into(),
                ..finding.at
            };
            finding
        }));
    }
    matcher::fall_back(&surroundings, !deployed.is_empty(), &mut plan);
    matcher::certificates(&surroundings, &mut plan, &mut findings);
    (plan, findings.into_vec())
}

fn parse(kind: BundleKind, files: &Files) -> (Bundle, Findings) {
    match kind {
        BundleKind::Proxy => bundle::parse_proxy(files),
        BundleKind::SharedFlow => bundle::parse_shared_flow(files),
    }
}

impl<'a> Surroundings<'a> {
    fn new(
        set: &'a EntitySet,
        organization: &'a str,
        environment: &'a str,
        options: &'a Options,
    ) -> Self {
        let mut this = Self {
            set,
            organization,
            environment,
            options,
            checks_scripts: false,
            shared_flows: BTreeMap::new(),
        };
        let kind = BundleKind::SharedFlow;
        for deployed in set.deployed(&[organization, environment, kind.word()]) {
            let files = this.files(&deployed);
            let (bundle, findings) = parse(kind, &files);
            // What was deployed was checked; what cannot be read any more is as if it were not there.
            if !findings.has_errors() {
                let shared = Shared {
                    revision: deployed.revision,
                    bundle,
                    files,
                };
                this.shared_flows.insert(deployed.name, shared);
            }
        }
        this
    }

    fn files(&self, deployed: &DeployedBundle) -> Files {
        self.set.files(
            &deployed.organization,
            deployed.kind,
            &deployed.name,
            deployed.revision,
        )
    }

    /// The key of an entity of this environment.
    fn key<'k>(&'k self, name: &'k str) -> [&'k str; 3] {
        [self.organization, self.environment, name]
    }

    /// A resource that a bundle names: its own, else the environment's, else the organisation's.
    fn resource(&self, files: &Files, kind: &str, name: &str) -> Option<Arc<[u8]>> {
        let own = bundle::resource(files, kind, name).cloned();
        own.or_else(|| {
            self.set
                .shared_resource(self.organization, self.environment, kind, name)
        })
    }
}

/// What leads from one plan to another.
fn difference(old: &Plan, new: &Plan) -> PlanDelta {
    fn of<K: Ord + Clone, V: PartialEq>(
        old: &BTreeMap<K, Arc<V>>,
        new: &BTreeMap<K, Arc<V>>,
    ) -> BTreeMap<K, Option<Arc<V>>> {
        let gone = old.keys().filter(|key| !new.contains_key(key));
        let changed = new
            .iter()
            .filter(|(key, part)| old.get(key).is_none_or(|other| other != *part));
        let gone = gone.map(|key| (key.clone(), None));
        let changed = changed.map(|(key, part)| (key.clone(), Some(Arc::clone(part))));
        gone.chain(changed).collect()
    }
    PlanDelta {
        routes: of(&old.routes, &new.routes),
        forwards: of(&old.forwards, &new.forwards),
        clusters: of(&old.clusters, &new.clusters),
        pipelines: of(&old.pipelines, &new.pipelines),
        certificates: of(&old.certificates, &new.certificates),
        authorities: of(&old.authorities, &new.authorities),
        ..PlanDelta::default()
    }
}
