//! The built-in variables: computed when somebody reads them, out of what the scope knows.
//!
//! A variable exists from its time on; before that, and where nothing is known, it is unset. Those that only tell
//! something cannot be written.

use std::borrow::Cow;
use std::time::Instant;

use uuid::Uuid;

use crate::dialects::apigee::date::{self, Civil};
use crate::dialects::apigee::message::WriteError;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::dialects::apigee::xml::boolean_of;
use crate::plugins::apigee::flow::clients;
use crate::plugins::apigee::flow::scope::{ERROR, FaultFacts, Scope, Side, TargetFacts};
use crate::runtime::clock;

/// The longest name that is built in; longer ones are not looked for.
const NAME_BYTES_MAX: usize = 64;

/// Groups in which every name is either built in or unset, and cannot be written.
const READ_ONLY_GROUPS: &[&str] = &[
    "system.",
    "client.received.",
    "client.sent.",
    "apiproxy.",
    "organization.",
    "environment.",
    "virtualhost.",
    "route.",
    "tls.",
];

/// The value of a built-in variable.
pub(super) fn read<'a>(scope: &'a Scope, name: &str) -> Option<Value<'a>> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let (group, rest) = name.split_once('.').unwrap_or((name, ""));
    match group {
        "proxy" => proxy(scope, rest),
        "apiproxy" => match rest {
            "name" => Some(scope.place.proxy.as_str().into()),
            "revision" => Some(scope.place.revision.to_string().into()),
            "basepath" => Some((&*scope.entry.configured_base_path).into()),
            _ => None,
        },
        "organization" if rest == "name" => Some(scope.place.organization.as_str().into()),
        "environment" if rest == "name" => Some(scope.place.environment.as_str().into()),
        "messageid" => Some(scope.inbound.request_id.as_str().into()),
        "current" => match rest {
            "flow.name" => Some((&*scope.flow_name).into()),
            "flow.description" => Some(scope.flow_description.as_deref()?.into()),
            _ => None,
        },
        "client" => client(scope, rest),
        "tls" => tls(scope, rest),
        "route" => match rest {
            "name" => Some((&*scope.route.as_ref()?.0).into()),
            "target" => Some(scope.route.as_ref()?.1.as_deref()?.into()),
            _ => None,
        },
        "target" => target(scope, rest),
        "loadbalancing" => balancing(scope.target.as_deref()?, rest),
        "virtualhost" => match rest {
            "name" => Some((&*scope.entry.virtual_host).into()),
            "ssl.enabled" => Some(scope.entry.virtual_host_tls.into()),
            "aliases.values" => Some(Value::Collection(
                scope
                    .entry
                    .virtual_host_aliases
                    .iter()
                    .map(|alias| alias.as_str().into())
                    .collect(),
            )),
            _ => None,
        },
        "system" => system(scope, rest),
        "router" if rest == "uuid" => Some(node_id(scope)),
        "is" if rest == "error" => Some((scope.side == Side::Error).into()),
        "error" => error(scope, scope.fault.as_deref()?, rest),
        "fault" => fault(scope.fault.as_deref()?, rest),
        "request" => request(scope, rest),
        _ => None,
    }
}

/// Writes a built-in variable; `None` when the name is not one.
pub(super) fn write(
    scope: &mut Scope,
    name: &VariableName,
    value: &Value<'_>,
) -> Option<Result<(), WriteError>> {
    let text = name.as_str();
    match text {
        "target.copy.pathsuffix" => {
            scope.copies_path_suffix = as_flag(value);
            return Some(Ok(()));
        }
        "target.copy.queryparams" => {
            scope.copies_query_parameters = as_flag(value);
            return Some(Ok(()));
        }
        // Before the target request flow there is no target yet: what is written then has no effect on it.
        "target.url" | "target.evaluated.url" => {
            if let Some(target) = scope.target.as_deref_mut()
                && target.sent.is_none()
            {
                target.url = Some(value.as_text().into_owned());
                target.url_written = true;
            }
            return Some(Ok(()));
        }
        "target.expectedcn" => {
            if let Some(target) = scope.target.as_deref_mut() {
                target.expected_name = Some(value.as_text().into_owned());
            }
            return Some(Ok(()));
        }
        _ => {}
    }
    let read_only = READ_ONLY_GROUPS.iter().any(|group| text.starts_with(group))
        || matches!(
            text,
            "proxy.name"
                | "proxy.basepath"
                | "proxy.pathsuffix"
                | "proxy.url"
                | "proxy.client.ip"
                | "client.ip"
                | "client.port"
                | "client.host"
                | "client.scheme"
                | "target.host"
                | "target.ip"
                | "target.port"
                | "target.name"
                | "target.basepath"
                | "target.scheme"
                | "messageid"
                | "is.error"
        );
    read_only.then(|| Err(WriteError::ReadOnly(text.into())))
}

fn as_flag(value: &Value<'_>) -> bool {
    match value {
        Value::Boolean(flag) => *flag,
        other => boolean_of(&other.as_text()).unwrap_or(true),
    }
}

fn proxy<'a>(scope: &'a Scope, rest: &str) -> Option<Value<'a>> {
    match rest {
        "name" => Some((&*scope.entry.endpoint).into()),
        "basepath" => Some(scope.entry.base_path.as_str().into()),
        "pathsuffix" => Some(scope.entry.suffix.as_str().into()),
        "url" => Some(inbound_url(scope).into()),
        "client.ip" => Some(scope.inbound.client_address.to_string().into()),
        "flow.name" => Some((&*scope.flow_name).into()),
        _ => None,
    }
}

fn client<'a>(scope: &'a Scope, rest: &str) -> Option<Value<'a>> {
    let inbound = &scope.inbound;
    match rest {
        "ip" | "host" => Some((&*inbound.connection.peer_text).into()),
        "port" => Some(i32::from(inbound.connection.peer.port()).into()),
        "scheme" => Some(
            if inbound.connection.is_tls() {
                "https"
            } else {
                "http"
            }
            .into(),
        ),
        "ssl.enabled" => Some(inbound.connection.is_tls().into()),
        "received.start.timestamp" | "received.end.timestamp" => Some(timestamp(inbound.started)),
        "received.start.time" | "received.end.time" => Some(time(inbound.started)),
        "sent.start.timestamp" => scope.times.client_sent_start.map(timestamp),
        "sent.start.time" => scope.times.client_sent_start.map(time),
        "sent.end.timestamp" => scope.times.client_sent_end.map(timestamp),
        "sent.end.time" => scope.times.client_sent_end.map(time),
        other => clients::client_variable(inbound.client_certificate.as_ref()?, other),
    }
}

fn tls<'a>(scope: &'a Scope, rest: &str) -> Option<Value<'a>> {
    let facts = scope.inbound.connection.tls.get()?;
    match rest {
        "protocol" => Some(facts.version.into()),
        "cipher" => Some(facts.cipher.into()),
        "server.name" => Some(facts.server_name.as_deref()?.into()),
        other => {
            let shown = scope.inbound.client_certificate.as_ref()?;
            clients::tls_variable(shown, other.strip_prefix("client.")?)
        }
    }
}

fn target<'a>(scope: &'a Scope, rest: &str) -> Option<Value<'a>> {
    // The flags exist from the start, the rest from the target request flow on.
    match rest {
        "copy.pathsuffix" => return Some(scope.copies_path_suffix.into()),
        "copy.queryparams" => return Some(scope.copies_query_parameters.into()),
        _ => {}
    }
    let target = scope.target.as_deref()?;
    let moment = |moment: Option<Instant>, rest: &str| match rest.ends_with("timestamp") {
        true => moment.map(timestamp),
        false => moment.map(time),
    };
    match rest {
        "name" => Some((&*target.name).into()),
        "url" | "evaluated.url" => Some(target.url.as_deref()?.into()),
        "host" => Some(target.host.as_str().into()),
        "port" => Some(i32::from(target.port).into()),
        "scheme" => Some(target.scheme.into()),
        "ssl.enabled" => Some((target.scheme == "https").into()),
        "basepath" => Some(target.base_path.as_str().into()),
        "ip" => Some(target.address?.to_string().into()),
        "expectedcn" => Some(target.expected_name.as_deref()?.into()),
        "sent.start.timestamp" | "sent.start.time" => moment(scope.times.target_sent_start, rest),
        "sent.end.timestamp" | "sent.end.time" => moment(scope.times.target_sent_end, rest),
        "received.start.timestamp" | "received.start.time" => {
            moment(scope.times.target_received_start, rest)
        }
        "received.end.timestamp" | "received.end.time" => {
            moment(scope.times.target_received_end, rest)
        }
        _ => None,
    }
}

fn balancing<'a>(target: &'a TargetFacts, rest: &str) -> Option<Value<'a>> {
    match rest {
        "targetserver" => Some(target.server.as_deref()?.into()),
        "failedservers" => Some(target.failed_servers.join(",").into()),
        "isfallback" => Some(target.is_fallback.into()),
        _ => None,
    }
}

fn request<'a>(scope: &'a Scope, rest: &str) -> Option<Value<'a>> {
    match rest {
        "url" => {
            let target = scope.target.as_deref()?;
            let sent = target.sent.as_deref()?;
            Some(format!("{}://{}{sent}", target.scheme, target.host).into())
        }
        "transportid" => Some("http".into()),
        _ => None,
    }
}

fn error<'a>(scope: &'a Scope, fault: &'a FaultFacts, rest: &str) -> Option<Value<'a>> {
    match rest {
        "message" => Some(fault.message.as_str().into()),
        "state" => Some(fault.state.into()),
        "transport.message" => scope.message(ERROR).map(|_| Value::Message(ERROR)),
        _ => None,
    }
}

fn fault<'a>(fault: &'a FaultFacts, rest: &str) -> Option<Value<'a>> {
    match rest {
        "name" => Some(Value::Text(Cow::Borrowed(&fault.name))),
        "reason" => Some(fault.reason.as_deref().unwrap_or(&fault.message).into()),
        "category" => Some(fault.category.into()),
        "type" => Some(Value::Text(Cow::Borrowed(&fault.code))),
        "subcategory" => {
            // What stands between the first and the last part of the code.
            let code = fault.code.as_ref();
            let middle = code.split_once('.')?.1.rsplit_once('.')?.0;
            Some(middle.into())
        }
        _ => None,
    }
}

fn node_id(scope: &Scope) -> Value<'static> {
    // A name for this node that stays as long as its connections' numbers do.
    let local = scope.inbound.connection.local.to_string();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, local.as_bytes())
        .to_string()
        .into()
}

fn system<'a>(scope: &'a Scope, rest: &str) -> Option<Value<'a>> {
    let now = || milliseconds(Instant::now());
    if let Some(field) = rest.strip_prefix("time.")
        && field != "zone"
    {
        let time = Civil::of_millis(now());
        let value = match field {
            "year" => i32::try_from(time.year).unwrap_or(i32::MAX).into(),
            "month" => number(time.month),
            "day" => number(time.day),
            // Java counts from Sunday, which is 1.
            "dayofweek" => number(time.weekday + 1),
            "hour" => number(time.hour),
            "minute" => number(time.minute),
            "second" => number(time.second),
            "millisecond" => number(time.millisecond),
            _ => return None,
        };
        return Some(value);
    }
    match rest {
        "time" => Some(variable_date(now()).into()),
        "timestamp" => Some(Value::Long(now())),
        "uuid" => Some(node_id(scope)),
        "time.zone" => Some("UTC".into()),
        "region.name" | "pod.name" => Some("local".into()),
        "interface.eth0" => Some(scope.inbound.connection.local.ip().to_string().into()),
        _ => None,
    }
}

/// The fields of a date are small.
fn number(field: u32) -> Value<'static> {
    i32::try_from(field).unwrap_or(i32::MAX).into()
}

fn milliseconds(moment: Instant) -> i64 {
    i64::try_from(clock::unix_milliseconds(moment)).unwrap_or(i64::MAX)
}

fn timestamp(moment: Instant) -> Value<'static> {
    Value::Long(milliseconds(moment))
}

fn time(moment: Instant) -> Value<'static> {
    variable_date(milliseconds(moment)).into()
}

/// `Wed, 21 Aug 2013 19:16:47 UTC`
fn variable_date(milliseconds: i64) -> String {
    date::format(date::VARIABLE_FORMAT, milliseconds).unwrap_or_default()
}

/// The URL that the client asked for.
fn inbound_url(scope: &Scope) -> String {
    let scheme = if scope.inbound.secure {
        "https"
    } else {
        "http"
    };
    let host = &scope.inbound.host;
    let request = scope.message(crate::plugins::apigee::flow::scope::REQUEST);
    let query = request.and_then(|request| request.query.as_deref());
    let mut url = format!(
        "{scheme}://{host}{}{}",
        scope.entry.base_path, scope.entry.suffix
    );
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    url
}
