//! Which plugins run where: plugin entities become [`PipelinePlan`]s, shared by all routes that run the same ones.
//!
//! Of each plugin one instance runs, the most specific one (see [`rank`]). What a consumer or a group of consumers decides
//! is left open: a step lists the instances that may turn out to be the one. Routes for streams and routes for requests
//! have pipelines of their own, of the instances whose protocols are of that kind. Start with [`key_of`] for the pipeline of
//! a route, and with [`compile_pipelines`] for the pipelines that a set of changes touches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::dialects::kong::entities::{EntityKind, Plugin, Protocol, Reference};
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};
use crate::model::catalog::Catalog;
use crate::model::plan::{
    Candidate, InstancePlan, PipelineKey, PipelinePlan, ProtocolSet, Scope, StepPlan,
};
use crate::model::{Diagnostic, SourceRef};

/// Edits of pipelines: `None` for those that nothing uses any more.
pub type PipelineEdits = BTreeMap<PipelineKey, Option<Arc<PipelinePlan>>>;

/// The pipeline that a route runs: it names the service and the route only when they have plugins of their own.
pub fn key_of(set: &EntitySet, route: Uuid, service: Option<Uuid>, stream: bool) -> PipelineKey {
    PipelineKey {
        forward: service.filter(|service| has_own(set, "service", *service)),
        route: Some(route).filter(|route| has_own(set, "route", *route)),
        stream,
    }
}

fn has_own(set: &EntitySet, field: &str, parent: Uuid) -> bool {
    set.children(EntityKind::Plugin, field, parent)
        .next()
        .is_some()
}

/// Routes whose [`key_of`] the changes may have altered, beside those that changed themselves.
///
/// That is so when the first plugin came to a route or a service, or the last one went.
pub fn routes_with_other_pipeline(
    before: &EntitySet,
    after: &EntitySet,
    changes: &[Change],
) -> BTreeSet<Uuid> {
    let mut routes = BTreeSet::new();
    for links in plugin_links(changes) {
        let other = |field: &str, id: Uuid| has_own(before, field, id) != has_own(after, field, id);
        if let Some(route) = links.route
            && other("route", route)
        {
            routes.insert(route);
        }
        if let Some(service) = links.service
            && other("service", service)
        {
            let children = after.children(EntityKind::Route, "service", service);
            routes.extend(children.map(|row| row.id));
        }
    }
    routes
}

/// The pipelines that the changes touch, compiled from `after`.
///
/// A plugin without route and service touches every pipeline; one with a route or a service touches theirs. The work
/// follows the number of plugins that are touched, not the number of routes.
pub fn compile_pipelines(
    before: &EntitySet,
    after: &EntitySet,
    changes: &[Change],
    catalog: &Catalog,
) -> (PipelineEdits, Vec<Diagnostic>) {
    let mut keys = Keys::default();
    for links in plugin_links(changes) {
        keys.touch(before, links);
        keys.touch(after, links);
    }
    for change in changes {
        if change.kind == EntityKind::Route {
            keys.touch_route(before, change.id);
            keys.touch_route(after, change.id);
        }
    }
    if before.is_empty() {
        keys.touch_both(PipelineKey::default());
    }
    let mut edits = PipelineEdits::new();
    if keys.touched.is_empty() {
        return (edits, Vec::new());
    }
    let mut compiler = Compiler::new(after, catalog);
    for key in keys.touched {
        let plan = is_used(after, key).then(|| compiler.pipeline(key));
        // Few routes are for streams: what would be empty is left out.
        let plan = plan.filter(|plan| !key.stream || !plan.steps.is_empty());
        edits.insert(key, plan.map(Arc::new));
    }
    (edits, compiler.findings)
}

/// What a plugin is attached to, as far as keys are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
struct Links {
    #[serde(deserialize_with = "link")]
    route: Option<Uuid>,
    #[serde(deserialize_with = "link")]
    service: Option<Uuid>,
}

fn link<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let reference: Option<Reference> = serde::Deserialize::deserialize(deserializer)?;
    Ok(reference.map(|reference| reference.id))
}

fn plugin_links(changes: &[Change]) -> BTreeSet<Links> {
    changes
        .iter()
        .filter(|change| change.kind == EntityKind::Plugin)
        .flat_map(|change| change.before.iter().chain(&change.after))
        .filter_map(|row| row.parse().ok())
        .collect()
}

#[derive(Default)]
struct Keys {
    touched: BTreeSet<PipelineKey>,
    all_of_before: bool,
    all_of_after: bool,
}

impl Keys {
    fn touch(&mut self, set: &EntitySet, links: Links) {
        if let Some(route) = links.route {
            self.touch_route(set, route);
        }
        // Also with a route: the plugin gives all routes of the service a pipeline that names it.
        if let Some(service) = links.service {
            self.touch_service(set, service);
        }
        if links.route.is_none() && links.service.is_none() {
            self.touch_all(set);
        }
    }

    fn touch_route(&mut self, set: &EntitySet, route: Uuid) {
        let Some(row) = set.row(EntityKind::Route, route) else {
            return;
        };
        let Some(key) = key_of_row(set, row) else {
            return;
        };
        if key.route.is_some() {
            self.touched.insert(key);
        }
    }

    /// The pipelines of requests and of streams.
    fn touch_both(&mut self, key: PipelineKey) {
        self.touched.insert(key);
        self.touched.insert(key.of_streams());
    }

    fn touch_service(&mut self, set: &EntitySet, service: Uuid) {
        if has_own(set, "service", service) {
            self.touch_both(PipelineKey {
                forward: Some(service),
                ..PipelineKey::default()
            });
        }
        for route in set.children(EntityKind::Route, "service", service) {
            self.touch_route(set, route.id);
        }
    }

    /// Every key there is. Found from the plugins, because most routes have none of their own.
    fn touch_all(&mut self, set: &EntitySet) {
        // Once for each of the two sets, however many plugins changed.
        let done = match self.all_of_before {
            false => &mut self.all_of_before,
            true => &mut self.all_of_after,
        };
        if std::mem::replace(done, true) {
            return;
        }
        self.touch_both(PipelineKey::default());
        let mut services = BTreeSet::new();
        for row in set.rows(EntityKind::Plugin) {
            if may_be_unattached(row) {
                continue;
            }
            let Ok(links) = row.parse::<Links>() else {
                continue;
            };
            if let Some(route) = links.route {
                self.touch_route(set, route);
            }
            if let Some(service) = links.service
                && services.insert(service)
            {
                self.touch_both(PipelineKey {
                    forward: Some(service),
                    ..PipelineKey::default()
                });
            }
        }
    }
}

/// The key of a route's row; none if it cannot be read.
fn key_of_row(set: &EntitySet, row: &Row) -> Option<PipelineKey> {
    #[derive(serde::Deserialize)]
    struct Linked {
        #[serde(default, deserialize_with = "link")]
        service: Option<Uuid>,
        #[serde(default)]
        protocols: Vec<Protocol>,
    }
    let route: Linked = row.parse().ok()?;
    let stream = is_stream(&route.protocols);
    Some(key_of(set, row.id, route.service, stream))
}

/// Whether a route with these protocols is for streams; no route has protocols of both kinds.
pub fn is_stream(protocols: &[Protocol]) -> bool {
    protocols.iter().any(|protocol| !protocol.is_http_family())
}

/// Whether the row's text may be that of a plugin without route and service: reading every plugin's text is dear, and
/// most of many plugins are attached to a route.
fn may_be_unattached(row: &Row) -> bool {
    let text = row.json.as_bytes();
    memchr::memmem::find(text, b"\"route\":null").is_some()
        && memchr::memmem::find(text, b"\"service\":null").is_some()
}

/// Whether a route may run this pipeline.
fn is_used(set: &EntitySet, key: PipelineKey) -> bool {
    match (key.forward, key.route) {
        (None, None) => true,
        (Some(service), None) => has_own(set, "service", service),
        (_, Some(route)) => set
            .row(EntityKind::Route, route)
            .is_some_and(|row| key_of_row(set, row) == Some(key)),
    }
}

/// One plugin entity that can run.
struct Enabled {
    rank: u8,
    for_requests: bool,
    for_streams: bool,
    instance: Arc<InstancePlan>,
}

struct Compiler<'a> {
    set: &'a EntitySet,
    catalog: &'a Catalog,
    unattached: Vec<Enabled>,
    findings: Vec<Diagnostic>,
}

impl<'a> Compiler<'a> {
    fn new(set: &'a EntitySet, catalog: &'a Catalog) -> Self {
        let mut compiler = Self {
            set,
            catalog,
            unattached: Vec::new(),
            findings: Vec::new(),
        };
        for row in set.rows(EntityKind::Plugin) {
            if may_be_unattached(row)
                && let Some(enabled) = compiler.enabled(row)
                && enabled.instance.scope.route.is_none()
                && enabled.instance.scope.forward.is_none()
            {
                compiler.unattached.push(enabled);
            }
        }
        compiler
    }

    /// The instance of a row; `None` when it cannot or shall not run.
    fn enabled(&mut self, row: &Row) -> Option<Enabled> {
        let plugin: Plugin = match row.parse() {
            Ok(plugin) => plugin,
            Err(error) => {
                self.complain(row.id, format!("cannot be read: {error}"));
                return None;
            }
        };
        if !plugin.enabled {
            return None;
        }
        if self.catalog.plugin(&plugin.name).is_none() {
            self.complain(
                row.id,
                format!("plugin '{}' is not part of this build", plugin.name),
            );
            return None;
        }
        let protocols = ProtocolSet::of(
            &plugin
                .protocols
                .iter()
                .map(|p| p.plan())
                .collect::<Vec<_>>(),
        );
        let id = |reference: Option<Reference>| reference.map(|reference| reference.id);
        let scope = Scope {
            route: id(plugin.route),
            forward: id(plugin.service),
            principal: id(plugin.consumer),
            group: id(plugin.consumer_group),
        };
        let Some(rank) = rank(&scope) else {
            self.complain(
                row.id,
                "cannot be tied to a consumer and to a consumer group at once".to_owned(),
            );
            return None;
        };
        Some(Enabled {
            rank,
            for_requests: plugin.protocols.iter().any(|p| p.is_http_family()),
            for_streams: is_stream(&plugin.protocols),
            instance: Arc::new(InstancePlan {
                id: row.id,
                plugin: plugin.name.into(),
                config: Value::Object(plugin.config),
                scope,
                protocols,
            }),
        })
    }

    fn complain(&mut self, id: Uuid, message: String) {
        let at = SourceRef::subject(format!("plugin \"{id}\""));
        self.findings
            .push(Diagnostic::error("plugin-not-run", at, message));
    }

    fn pipeline(&mut self, key: PipelineKey) -> PipelinePlan {
        let set = self.set;
        let of_service = key
            .forward
            .into_iter()
            .flat_map(|service| set.children(EntityKind::Plugin, "service", service));
        let of_route = key
            .route
            .into_iter()
            .flat_map(|route| set.children(EntityKind::Plugin, "route", route));
        // A plugin with both links is a child of both.
        let rows: BTreeMap<Uuid, &Arc<Row>> = of_service
            .chain(of_route)
            .map(|row| (row.id, row))
            .collect();
        let attached: Vec<Enabled> = rows
            .into_values()
            .filter_map(|row| self.enabled(row))
            .filter(|enabled| {
                let scope = &enabled.instance.scope;
                scope.route.is_none_or(|route| key.route == Some(route))
                    && scope
                        .forward
                        .is_none_or(|service| key.forward == Some(service))
            })
            .collect();
        let mut steps: BTreeMap<Arc<str>, StepPlan> = BTreeMap::new();
        let all = self.unattached.iter().chain(&attached);
        for enabled in all.filter(|enabled| match key.stream {
            true => enabled.for_streams,
            false => enabled.for_requests,
        }) {
            let plugin = &enabled.instance.plugin;
            let step = steps.entry(plugin.clone()).or_insert_with(|| StepPlan {
                plugin: plugin.clone(),
                base: None,
                by_principal: BTreeMap::new(),
                by_group: BTreeMap::new(),
            });
            enabled.offer(step);
        }
        let mut steps: Vec<StepPlan> = steps.into_values().collect();
        let priority = |step: &StepPlan| {
            self.catalog
                .plugin(&step.plugin)
                .map_or(i32::MIN, |plugin| plugin.priority)
        };
        // Stable: plugins of one priority stay in the order of their names.
        steps.sort_by_key(|step| std::cmp::Reverse(priority(step)));
        PipelinePlan { steps }
    }
}

impl Enabled {
    /// Takes its place in the step, unless a more specific instance has it.
    fn offer(&self, step: &mut StepPlan) {
        let candidate = Candidate {
            rank: self.rank,
            instance: self.instance.clone(),
        };
        let scope = &self.instance.scope;
        let slot = match (scope.principal, scope.group) {
            (Some(principal), _) => step.by_principal.entry(principal),
            (None, Some(group)) => step.by_group.entry(group),
            (None, None) => {
                if step.base.as_ref().is_none_or(|base| self.rank < base.rank) {
                    step.base = Some(candidate);
                }
                return;
            }
        };
        slot.and_modify(|present| {
            if self.rank < present.rank {
                *present = candidate.clone();
            }
        })
        .or_insert(candidate);
    }
}

/// How specific a scope is, the lowest number first. Kong: the order of compound keys in the plugins iterator.
///
/// | rank | consumer | group | route | service |
/// |---|---|---|---|---|
/// | 1 | x | | x | x |
/// | 2 | | x | x | x |
/// | 3 | x | | x | |
/// | 4 | x | | | x |
/// | 5 | | x | x | |
/// | 6 | | x | | x |
/// | 7 | | | x | x |
/// | 8 | x | | | |
/// | 9 | | x | | |
/// | 10 | | | x | |
/// | 11 | | | | x |
/// | 12 | | | | |
pub fn rank(scope: &Scope) -> Option<u8> {
    let caller = match (scope.principal, scope.group) {
        (Some(_), Some(_)) => return None,
        (Some(_), None) => 'c',
        (None, Some(_)) => 'g',
        (None, None) => '-',
    };
    Some(
        match (caller, scope.route.is_some(), scope.forward.is_some()) {
            ('c', true, true) => 1,
            ('g', true, true) => 2,
            ('c', true, false) => 3,
            ('c', false, true) => 4,
            ('g', true, false) => 5,
            ('g', false, true) => 6,
            (_, true, true) => 7,
            ('c', false, false) => 8,
            ('g', false, false) => 9,
            (_, true, false) => 10,
            (_, false, true) => 11,
            (_, false, false) => 12,
        },
    )
}

#[cfg(test)]
mod tests;
