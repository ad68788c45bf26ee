//! The way in: from a request's path to base path and suffix, and to another proxy by its path.

use std::sync::Arc;

use http::header::HOST;

use crate::dialects::apigee::message::Message;
use crate::model::route::Protocol;
use crate::plugins::apigee::flow::program::Program;
use crate::plugins::apigee::flow::scope::{Entry, Scope};
use crate::runtime::router::MatchInput;

/// Splits a path behind as many segments as the base path has. Paths that are written strangely (`//a`) are split where
/// the base path ends as counted in segments that are not empty.
pub(crate) fn split(base_path: &str, path: &str) -> (String, String) {
    let wanted = base_path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .count();
    let mut seen = 0;
    let mut end = 0;
    let bytes = path.as_bytes();
    while seen < wanted {
        while bytes.get(end) == Some(&b'/') {
            end += 1;
        }
        let rest = path.get(end..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        end += rest.find('/').unwrap_or(rest.len());
        seen += 1;
    }
    let (base, suffix) = path.split_at_checked(end).unwrap_or((path, ""));
    let base = if base.is_empty() { "/" } else { base };
    (base.to_owned(), suffix.to_owned())
}

/// The entry of a request into a program.
pub(crate) fn entry(program: &Program, route: Option<uuid::Uuid>, path: &str) -> Entry {
    let (base_path, suffix) = split(&program.plan.base_path, path);
    let entrance = program.entrance(route);
    Entry {
        endpoint: Arc::clone(&program.endpoint),
        base_path,
        suffix: if suffix == "/" && program.plan.base_path == "/" {
            String::from("/")
        } else {
            suffix
        },
        configured_base_path: Arc::clone(&program.configured_base_path),
        virtual_host: entrance.map_or_else(|| Arc::from("default"), |it| Arc::clone(&it.name)),
        virtual_host_aliases: entrance.map_or_else(|| Arc::from([]), |it| Arc::clone(&it.aliases)),
        virtual_host_tls: entrance.is_some_and(|it| it.tls),
    }
}

/// The program of the same environment that a request of this path reaches.
pub(crate) fn find(
    caller: &Program,
    scope: &Scope,
    request: &Message,
) -> Option<(Arc<Program>, Entry)> {
    let snapshot = &scope.inbound.snapshot;
    let connection = &scope.inbound.connection;
    let host = request
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let input = MatchInput {
        method: &request.verb,
        host: host.unwrap_or(&scope.inbound.host),
        path: request.path.as_bytes(),
        query: request.query.as_deref().unwrap_or_default().as_bytes(),
        headers: (&request.headers).into(),
        header_count_max: snapshot.serving.plan.request_headers_max,
        query_count_max: snapshot.serving.plan.query_arguments_max,
        sni: connection.server_name(),
        protocol: match connection.is_tls() {
            true => Protocol::Https,
            false => Protocol::Http,
        },
        source: Some(connection.peer),
        destination: Some(connection.local),
        listening_port: connection.port,
        entrance: None,
    };
    let found = snapshot.router.find(&input)?;
    let route = snapshot.routes.at(found.slot)?;
    let step = route.pipeline.steps.first()?;
    let instance = &step.base.as_ref()?.instance;
    let program = caller.registry.by_id(instance.plan.id)?;
    let same = program.place.organization == caller.place.organization
        && program.place.environment == caller.place.environment;
    let entry = entry(&program, Some(route.plan.id), &request.path);
    same.then_some((program, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_paths_behind_the_base() {
        let cases = [
            ("/weather", "/weather", "/weather", ""),
            ("/weather", "/weather/", "/weather", "/"),
            ("/weather", "/weather/a%2Fb/c", "/weather", "/a%2Fb/c"),
            ("/team/*/m", "/team/blue/m/x", "/team/blue/m", "/x"),
            ("/", "/", "/", "/"),
            ("/", "/a/b", "/", "/a/b"),
            ("/a", "//a/b", "//a", "/b"),
        ];
        for (base, path, matched, suffix) in cases {
            assert_eq!(
                split(base, path),
                (matched.to_owned(), suffix.to_owned()),
                "{base} {path}"
            );
        }
    }
}
