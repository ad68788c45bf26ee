//! What a router does to header fields of requests and answers, as steps of the route's pipeline.
//!
//! The work is done by the plugins that do it for Kong's routes. Start at [`pipeline`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::chain::{HeaderEdits, RouteDestination};
use crate::model::plan::{
    Candidate, InstancePlan, PipelinePlan, Protocol, ProtocolSet, Scope, StepPlan,
};

/// More edits on one route than this are refused.
const EDITS_MAX: usize = 256;

/// The steps of a route; none when there is nothing to do. The error names the edit that cannot be done.
pub fn pipeline(
    route: Uuid,
    destination: &RouteDestination,
) -> Result<Option<PipelinePlan>, String> {
    let mut steps = Vec::new();
    if let Some(edits) = some(&destination.request_headers) {
        let nothing = json!({"headers": [], "querystring": [], "body": []});
        let mut replace = part(&nothing, values(edits, &["set"])?);
        if let Some(replace) = replace.as_object_mut() {
            replace.insert("uri".to_owned(), Value::Null);
        }
        let config = json!({
            "http_method": null,
            "remove": part(&nothing, names(edits)?),
            "rename": nothing,
            "replace": replace,
            "add": part(&nothing, values(edits, &["set"])?),
            "append": part(&nothing, values(edits, &["add"])?),
        });
        steps.push(step(route, "request-transformer", config));
    }
    if let Some(edits) = some(&destination.response_headers) {
        let names_only = json!({"headers": [], "json": []});
        let pairs = json!({"headers": [], "json": [], "json_types": []});
        let config = json!({
            "remove": part(&names_only, names(edits)?),
            "rename": names_only,
            "replace": part(&pairs, values(edits, &["set"])?),
            "add": part(&pairs, values(edits, &["set"])?),
            "append": part(&pairs, values(edits, &["add"])?),
        });
        steps.push(step(route, "response-transformer", config));
    }
    Ok((!steps.is_empty()).then_some(PipelinePlan { steps }))
}

fn some(edits: &Option<HeaderEdits>) -> Option<&HeaderEdits> {
    let any = |it: &&HeaderEdits| !(it.add.is_empty() && it.set.is_empty() && it.remove.is_empty());
    edits.as_ref().filter(any)
}

/// A part of the configuration with these header fields and nothing else.
fn part(empty: &Value, headers: Vec<String>) -> Value {
    let mut part = empty.clone();
    if let Some(fields) = part.as_object_mut() {
        fields.insert("headers".to_owned(), json!(headers));
    }
    part
}

fn names(edits: &HeaderEdits) -> Result<Vec<String>, String> {
    let names = edits.remove.iter().map(|name| checked(name));
    limited(names.collect::<Result<Vec<_>, _>>()?)
}

fn values(edits: &HeaderEdits, which: &[&str]) -> Result<Vec<String>, String> {
    let chosen = |wanted: &str, map| which.contains(&wanted).then_some(map);
    let maps: [Option<&BTreeMap<String, String>>; 2] =
        [chosen("add", &edits.add), chosen("set", &edits.set)];
    let mut pairs = Vec::new();
    for (name, value) in maps.into_iter().flatten().flatten() {
        // Values are texts here, and templates there.
        if value.contains("$(") || value.is_empty() || value.contains(['\r', '\n', '\0']) {
            return Err(format!(
                "header '{}' cannot be given the value '{}'",
                name.escape_debug(),
                value.escape_debug()
            ));
        }
        pairs.push(format!("{}:{value}", checked(name)?));
    }
    limited(pairs)
}

fn checked(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !name.is_empty() && name.bytes().all(plain) {
        true => Ok(name.to_owned()),
        false => Err(format!("'{}' is not a header name", name.escape_debug())),
    }
}

fn limited(edits: Vec<String>) -> Result<Vec<String>, String> {
    match edits.len() > EDITS_MAX {
        true => Err(format!("more than {EDITS_MAX} edits of headers")),
        false => Ok(edits),
    }
}

fn step(route: Uuid, plugin: &str, config: Value) -> StepPlan {
    let instance = InstancePlan {
        // Another configuration is another instance.
        id: Uuid::new_v5(&route, format!("{plugin} {config}").as_bytes()),
        plugin: plugin.into(),
        config,
        scope: Scope {
            route: Some(route),
            ..Scope::default()
        },
        protocols: ProtocolSet::of(&[Protocol::Http, Protocol::Https]),
    };
    StepPlan {
        plugin: plugin.into(),
        base: Some(Candidate {
            rank: 0,
            instance: Arc::new(instance),
        }),
        by_principal: BTreeMap::new(),
        by_group: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> Result<Option<PipelinePlan>, String> {
        pipeline(Uuid::nil(), &serde_json::from_str(text).unwrap())
    }

    #[test]
    fn edits_become_steps() {
        let made = read(
            r#"{"RequestHeaders":{"Add":{"x-a":"1"},"Set":{"x-s":"2"},"Remove":["x-r"]},
                "ResponseHeaders":{"Remove":["server"]}}"#,
        );
        let steps = made.unwrap().unwrap().steps;
        let config = &steps[0].base.as_ref().unwrap().instance.config;
        assert_eq!(config["append"]["headers"], json!(["x-a:1"]));
        assert_eq!(config["replace"]["headers"], json!(["x-s:2"]));
        assert_eq!(config["add"]["headers"], json!(["x-s:2"]));
        assert_eq!(config["remove"]["headers"], json!(["x-r"]));
        let config = &steps[1].base.as_ref().unwrap().instance.config;
        assert_eq!(config["remove"]["headers"], json!(["server"]));
        assert_eq!(read(r#"{"RequestHeaders":{}}"#), Ok(None));
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        for text in [
            r#"{"RequestHeaders":{"Add":{"a":"$(headers.b)"}}}"#,
            r#"{"RequestHeaders":{"Add":{"a b":"1"}}}"#,
            r#"{"RequestHeaders":{"Remove":["a:b"]}}"#,
            r#"{"ResponseHeaders":{"Set":{"a":"1\r\nb: 2"}}}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
