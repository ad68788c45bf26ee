//! The rules of a route that the schema alone cannot say.

use serde_json::{Map, Value};

use super::super::RouterFlavor;
use crate::expr::{Expression, Scope, pattern};
use crate::model::schema::{
    Check, FieldErrors, check_no_empty_segment, check_percent_encoding, custom, parse_address,
};

/// The protocols of a route as words; empty when the field is malformed.
pub(super) fn protocols_of(route: &Map<String, Value>) -> Vec<&str> {
    match route.get("protocols") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_given(route: &Map<String, Value>, field: &str) -> bool {
    match route.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

/// `snis` make sense only where TLS is spoken.
pub(super) fn check_snis() -> Check {
    custom(&["protocols", "snis"], |route| {
        let tls = protocols_of(route).iter().any(|protocol| {
            matches!(
                *protocol,
                "grpcs" | "https" | "tls" | "tls_passthrough" | "wss"
            )
        });
        if tls || !is_given(route, "snis") {
            return Ok(());
        }
        let mut errors = FieldErrors::one("snis", "length must be 0");
        errors.add_whole(
            "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
        );
        Err(errors)
    })
}

/// Rules that depend on the protocols and on the flavour of the router.
pub(super) fn verify(route: &Map<String, Value>, flavor: RouterFlavor) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let protocols = protocols_of(route);
    let speaks = |names: &[&str]| protocols.iter().any(|protocol| names.contains(protocol));
    let expressions = flavor == RouterFlavor::Expressions;
    let mut refuse = |fields: &[&str], group: &str| {
        for field in fields {
            if route.get(*field).is_some_and(|value| !value.is_null()) {
                errors.add(
                    field,
                    format!("cannot set '{field}' when 'protocols' is {group}"),
                );
            }
        }
    };
    let addresses: &[&str] = &["sources", "destinations"];
    if speaks(&["http", "https"]) {
        // A router expression can read addresses of HTTP connections too.
        if !expressions {
            refuse(addresses, "'http' or 'https'");
        }
    } else if speaks(&["grpc", "grpcs"]) {
        refuse(&["methods"], "'grpc' or 'grpcs'");
        if !expressions {
            refuse(addresses, "'grpc' or 'grpcs'");
        }
        if route.get("strip_path") == Some(&Value::Bool(true)) {
            refuse(&["strip_path"], "'grpc' or 'grpcs'");
        }
    } else if speaks(&["ws", "wss"]) {
        // A handshake is always a GET.
        refuse(&["methods"], "'ws' or 'wss'");
        if !expressions {
            refuse(addresses, "'ws' or 'wss'");
        }
    } else if speaks(&["tcp", "tls", "udp", "tls_passthrough"]) {
        refuse(
            &["methods", "hosts", "paths", "headers"],
            "'tcp', 'tls', 'tls_passthrough' or 'udp'",
        );
    }
    verify_header_patterns(route, &mut errors);
    if flavor == RouterFlavor::Traditional {
        refuse_sni_wildcards(route, &mut errors);
    }
    if expressions {
        verify_expression(route, &mut errors);
        if is_given(route, "expression") {
            return errors;
        }
    }
    verify_something_matches(route, &protocols, &mut errors);
    errors
}

/// Values behind `~*` are regular expressions; they must compile as the router will compile them.
fn verify_header_patterns(route: &Map<String, Value>, errors: &mut FieldErrors) {
    let Some(Value::Object(headers)) = route.get("headers") else {
        return;
    };
    let mut found = Map::new();
    for (name, values) in headers {
        let Some(values) = values.as_array() else {
            continue;
        };
        let complaints = complaints(values, |value| {
            let regex = value.strip_prefix("~*")?;
            let error = pattern::compile(&regex.to_lowercase()).err()?;
            Some(format!("invalid regex: '{regex}' ({error})"))
        });
        if let Some(complaints) = complaints {
            found.insert(name.clone(), complaints);
        }
    }
    if !found.is_empty() {
        errors.add_tree("headers", Value::Object(found));
    }
}

/// The original router compares server names whole.
fn refuse_sni_wildcards(route: &Map<String, Value>, errors: &mut FieldErrors) {
    let Some(Value::Array(snis)) = route.get("snis") else {
        return;
    };
    let complaints = complaints(snis, |sni| {
        sni.contains('*').then(|| format!("invalid value: {sni}"))
    });
    if let Some(complaints) = complaints {
        errors.add_tree("snis", complaints);
    }
}

/// What is wrong with the texts of a list, each in its place; `None` when nothing is.
fn complaints(list: &[Value], wrong: impl Fn(&str) -> Option<String>) -> Option<Value> {
    let mut complaints = Vec::new();
    for (index, value) in list.iter().enumerate() {
        if let Some(complaint) = value.as_str().and_then(&wrong) {
            complaints.resize(index, Value::Null);
            complaints.push(Value::String(complaint));
        }
    }
    (!complaints.is_empty()).then_some(Value::Array(complaints))
}

/// An expression stands alone: what it says and what classic fields say would be two truths.
fn verify_expression(route: &Map<String, Value>, errors: &mut FieldErrors) {
    const CLASSIC: &[&str] = &[
        "methods",
        "hosts",
        "paths",
        "headers",
        "snis",
        "sources",
        "destinations",
    ];
    if !is_given(route, "expression") {
        return;
    }
    let also: Vec<&str> = CLASSIC
        .iter()
        .copied()
        .filter(|field| is_given(route, field))
        .collect();
    let stream = protocols_of(route)
        .iter()
        .any(|protocol| matches!(*protocol, "tcp" | "tls" | "udp" | "tls_passthrough"));
    let scope = if stream { Scope::Stream } else { Scope::Http };
    if let Some(text) = route.get("expression").and_then(Value::as_str)
        && let Err(error) = Expression::parse(text, scope)
    {
        errors.add_whole(format!("Router Expression failed validation: {error}"));
    }
    for field in &also {
        errors.add_whole(format!(
            "only one or none of these fields must be set: '{field}', 'expression'"
        ));
    }
}

/// A route without anything to match would take every request.
fn verify_something_matches(
    route: &Map<String, Value>,
    protocols: &[&str],
    errors: &mut FieldErrors,
) {
    let speaks = |name: &str| protocols.contains(&name);
    let (fields, when): (&[&str], &str) = if speaks("https") {
        (&["methods", "hosts", "headers", "paths", "snis"], "'https'")
    } else if speaks("http") {
        (&["methods", "hosts", "headers", "paths"], "'http'")
    } else if speaks("grpcs") {
        (&["hosts", "headers", "paths", "snis"], "'grpcs'")
    } else if speaks("grpc") {
        (&["hosts", "headers", "paths"], "'grpc'")
    } else if speaks("wss") {
        (&["hosts", "headers", "paths", "snis"], "'wss'")
    } else if speaks("ws") {
        (&["hosts", "headers", "paths"], "'ws'")
    } else if speaks("tcp") || speaks("tls") || speaks("udp") {
        (
            &["sources", "destinations", "snis"],
            "'tcp', 'tls' or 'udp'",
        )
    } else if speaks("tls_passthrough") {
        if !is_given(route, "snis") {
            errors.add_whole("must set snis when 'protocols' is 'tls_passthrough'");
        }
        return;
    } else {
        return;
    };
    if !fields.iter().any(|field| is_given(route, field)) {
        let names: Vec<String> = fields.iter().map(|field| format!("'{field}'")).collect();
        errors.add_whole(format!(
            "must set one of {} when 'protocols' is {when}",
            names.join(", ")
        ));
    }
}

/// A host, perhaps with one wildcard label and a port.
pub(super) fn check_host(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    match text.matches('*').count() {
        0 => {}
        1 if text.starts_with("*.") || text.ends_with(".*") => {}
        1 => {
            return Err("invalid wildcard: must be placed at leftmost or rightmost label".into());
        }
        _ => return Err("invalid wildcard: must have at most one wildcard".into()),
    }
    match parse_address(&text.replace('*', "abc")) {
        Some(_) => Ok(()),
        None => Err(format!("invalid hostname: {text}")),
    }
}

/// The server name of a handshake, perhaps with a wildcard at either end.
pub(super) fn check_sni(value: &Value) -> Result<(), String> {
    super::super::sni::check_wildcard_host(value)
}

/// A prefix in normal form, or a regular expression behind `~`.
pub(super) fn check_paths(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let regex = text.strip_prefix('~');
    if !regex.unwrap_or(text).starts_with('/') {
        return Err("should start with: / (fixed path) or ~/ (regex path)".into());
    }
    check_no_empty_segment(value)?;
    match regex {
        None => {
            check_percent_encoding(text)?;
            let normal = crate::base::path::normal_form(text.as_bytes());
            if normal.as_ref() != text.as_bytes() {
                return Err(format!(
                    "non-normalized path, consider use '{}' instead",
                    String::from_utf8_lossy(&normal)
                ));
            }
            Ok(())
        }
        // Compiled as the router will, so that its limits hold too.
        Some(regex) => pattern::compile(regex)
            .map(|_| ())
            .map_err(|error| format!("invalid regex: '{regex}' (PCRE returned: {error})")),
    }
}

/// The Host header has an attribute of its own.
pub(super) fn check_header_key(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(name) if name.eq_ignore_ascii_case("host") => Err(
            "cannot contain 'host' header, which must be specified in the 'hosts' attribute".into(),
        ),
        _ => Ok(()),
    }
}
