//! Routes become [`RoutePlan`]s: what they match ([`route`](super::route)), run and lead to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::certificate::unreadable;
use super::changes::is_enabled;
use super::pipeline::{is_stream, key_of};
use super::route::compile_matchers;
use crate::dialects::kong::entities::{EntityKind, Route, RouterFlavor};
use crate::dialects::kong::entity_set::EntitySet;
use crate::model::Diagnostic;
use crate::model::plan::{PathJoining, Protocol, ProtocolSet, RoutePlan};

/// Edits of routes: `None` for those that are gone, refused, or whose service is switched off.
pub(super) type RouteEdits = BTreeMap<Uuid, Option<Arc<RoutePlan>>>;

/// The given routes, compiled from `set`.
pub(super) fn compile_routes(
    set: &EntitySet,
    touched: &BTreeSet<Uuid>,
    flavor: RouterFlavor,
) -> (RouteEdits, Vec<Diagnostic>) {
    let mut routes = Routes {
        set,
        flavor,
        enabled: HashMap::new(),
    };
    let mut findings = Vec::new();
    let edits = touched.iter().map(|id| {
        let compiled = routes.compile(*id).unwrap_or_else(|finding| {
            findings.push(finding);
            None
        });
        (*id, compiled.map(Arc::new))
    });
    (edits.collect(), findings)
}

struct Routes<'a> {
    set: &'a EntitySet,
    flavor: RouterFlavor,
    /// Many routes share a service, whose text is read once.
    enabled: HashMap<Uuid, bool>,
}

impl Routes<'_> {
    fn compile(&mut self, id: Uuid) -> Result<Option<RoutePlan>, Diagnostic> {
        let Some(row) = self.set.row(EntityKind::Route, id) else {
            return Ok(None);
        };
        let route: Route = row.parse().map_err(|error| unreadable(row, &error))?;
        let service = route.service.map(|service| service.id);
        if let Some(service) = service
            && !self.is_enabled(service)
        {
            return Ok(None);
        }
        let matchers = compile_matchers(&route, self.flavor)?;
        let protocols: Vec<Protocol> = route.protocols.iter().map(|p| p.plan()).collect();
        Ok(Some(RoutePlan {
            id,
            name: route.name.map(Arc::from),
            matchers,
            protocols: ProtocolSet::of(&protocols),
            https_redirect_status: route.https_redirect_status_code,
            strip_path: route.strip_path,
            path_joining: match route.path_handling.as_deref() {
                Some("v1") => PathJoining::Concatenate,
                _ => PathJoining::Slash,
            },
            preserve_host: route.preserve_host,
            request_buffering: route.request_buffering,
            response_buffering: route.response_buffering,
            forward: service,
            pipeline: key_of(self.set, id, service, is_stream(&route.protocols)),
            description: row.json.clone(),
        }))
    }

    fn is_enabled(&mut self, service: Uuid) -> bool {
        let read = || {
            let row = self.set.row(EntityKind::Service, service);
            row.is_some_and(|row| is_enabled(row))
        };
        *self.enabled.entry(service).or_insert_with(read)
    }
}
