//! What scripts call: the transaction's variables, digests, dates, other servers.
//!
//! The transaction is lent to the thread for one run, because functions of an engine cannot borrow it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use md5::{Digest, Md5};
use rquickjs::{Array, Ctx, Exception, Function, IntoJs, Null, Object, Value as Js};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::callouts::{Answer, Callouts, Exchanges, Outcome};
use crate::dialects::apigee::date;
use crate::dialects::apigee::message::WriteError;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::scope::{Scope, Side};

/// Longest text of an object that outlives a run, in bytes.
const OBJECT_BYTES_MAX: usize = 1024 * 1024;
/// Variable that holds what the transaction's scripts have asked other servers.
const EXCHANGES: &str = "javascript.exchanges";

/// An object that a script has put into a variable, as JSON.
struct Kept(String);

struct Run {
    scope: Scope,
    deadline: Instant,
    callouts: Arc<Callouts>,
}

thread_local! {
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

/// Lends the transaction to what `operation` runs on this thread.
pub(super) fn lend<T>(
    scope: Scope,
    deadline: Instant,
    callouts: &Arc<Callouts>,
    operation: impl FnOnce() -> T,
) -> (Scope, T) {
    let hollow = scope.hollow();
    RUN.set(Some(Run {
        scope,
        deadline,
        callouts: Arc::clone(callouts),
    }));
    let outcome = operation();
    // Nobody else takes it: scripts do not run within scripts.
    let scope = RUN.take().map_or(hollow, |run| run.scope);
    (scope, outcome)
}

/// Lets a host function use the transaction; an exception when none is lent.
fn with_run<T>(ctx: &Ctx<'_>, operation: impl FnOnce(&mut Run) -> T) -> rquickjs::Result<T> {
    RUN.with_borrow_mut(|run| match run {
        Some(run) => Ok(operation(run)),
        None => Err(Exception::throw_internal(
            ctx,
            "no transaction is being served",
        )),
    })
}

/// The object whose members the prelude calls.
pub(super) fn object<'js>(ctx: &Ctx<'js>) -> rquickjs::Result<Object<'js>> {
    let host = Object::new(ctx.clone())?;
    host.set("get", Function::new(ctx.clone(), get)?)?;
    host.set("list", Function::new(ctx.clone(), list)?)?;
    host.set("set", Function::new(ctx.clone(), set)?)?;
    host.set("keep", Function::new(ctx.clone(), keep)?)?;
    host.set("remove", Function::new(ctx.clone(), remove)?)?;
    host.set("flow", Function::new(ctx.clone(), flow)?)?;
    host.set("print", Function::new(ctx.clone(), print)?)?;
    host.set("digest", Function::new(ctx.clone(), digest)?)?;
    host.set("date", Function::new(ctx.clone(), date_text)?)?;
    host.set("base64", Function::new(ctx.clone(), base64)?)?;
    host.set("from_base64", Function::new(ctx.clone(), from_base64)?)?;
    host.set("send", Function::new(ctx.clone(), send)?)?;
    host.set("wait", Function::new(ctx.clone(), wait)?)?;
    host.set("outcome", Function::new(ctx.clone(), outcome)?)?;
    Ok(host)
}

/// What a variable holds, as a script sees it.
enum Seen {
    Nothing,
    Text(String),
    Boolean(bool),
    Number(f64),
    Message,
    Kept(String),
}

fn get<'js>(ctx: Ctx<'js>, name: String) -> rquickjs::Result<Js<'js>> {
    let seen = with_run(&ctx, |run| match run.scope.value(&name) {
        None => Seen::Nothing,
        Some(Value::Boolean(value)) => Seen::Boolean(value),
        Some(Value::Message(_)) => Seen::Message,
        Some(Value::Object(object)) => match object.downcast_ref::<Kept>() {
            Some(Kept(json)) => Seen::Kept(json.clone()),
            None => Seen::Text("[object Object]".to_owned()),
        },
        Some(value @ (Value::Integer(_) | Value::Long(_) | Value::Float(_) | Value::Double(_))) => {
            value.as_number().map_or(Seen::Nothing, Seen::Number)
        }
        Some(value) => Seen::Text(value.into_text().into_owned()),
    })?;
    match seen {
        Seen::Nothing => Null.into_js(&ctx),
        Seen::Text(text) => text.into_js(&ctx),
        Seen::Boolean(value) => value.into_js(&ctx),
        Seen::Number(number) => number.into_js(&ctx),
        Seen::Message => {
            let object = Object::new(ctx.clone())?;
            object.set("message", true)?;
            object.into_js(&ctx)
        }
        Seen::Kept(json) => {
            let object = Object::new(ctx.clone())?;
            object.set("json", json)?;
            object.into_js(&ctx)
        }
    }
}

/// The members of a list; none when the variable is unset.
fn list(ctx: Ctx<'_>, name: String) -> rquickjs::Result<Vec<String>> {
    with_run(&ctx, |run| match run.scope.value(&name) {
        Some(Value::Collection(list)) => list.iter().map(|member| member.to_string()).collect(),
        _ => Vec::new(),
    })
}

fn set<'js>(ctx: Ctx<'js>, name: String, value: Js<'js>) -> rquickjs::Result<()> {
    let value = if let Some(value) = value.as_bool() {
        Value::Boolean(value)
    } else if let Some(value) = value.as_int() {
        Value::Integer(value)
    } else if let Some(value) = value.as_float() {
        number(value)
    } else {
        let text: rquickjs::Coerced<String> = value.get()?;
        Value::from(text.0)
    };
    let written = with_run(&ctx, |run| run.scope.set(&VariableName::new(&name), value))?;
    written.map_err(|error| refused(&ctx, &error))
}

/// Whole numbers are whole numbers also as text.
fn number(value: f64) -> Value<'static> {
    let whole = value as i64;
    match whole as f64 == value && whole.unsigned_abs() < (1 << 53) {
        true => Value::Long(whole),
        false => Value::Double(value),
    }
}

fn keep(ctx: Ctx<'_>, name: String, json: rquickjs::Coerced<String>) -> rquickjs::Result<()> {
    if json.0.len() > OBJECT_BYTES_MAX {
        let text = format!("the object in {name} exceeds {OBJECT_BYTES_MAX} bytes as JSON");
        return Err(Exception::throw_range(&ctx, &text));
    }
    let kept = Value::Object(Arc::new(Kept(json.0)));
    let written = with_run(&ctx, |run| run.scope.set(&VariableName::new(&name), kept))?;
    written.map_err(|error| refused(&ctx, &error))
}

fn remove(ctx: Ctx<'_>, name: String) -> rquickjs::Result<()> {
    let removed = with_run(&ctx, |run| run.scope.remove(&VariableName::new(&name)))?;
    removed.map(drop).map_err(|error| refused(&ctx, &error))
}

fn refused(ctx: &Ctx<'_>, error: &WriteError) -> rquickjs::Error {
    Exception::throw_type(ctx, &error.to_string())
}

fn flow(ctx: Ctx<'_>) -> rquickjs::Result<&'static str> {
    with_run(&ctx, |run| match (run.scope.side, run.scope.at_target) {
        (Side::Request, false) => "PROXY_REQ_FLOW",
        (Side::Request, true) => "TARGET_REQ_FLOW",
        (Side::Response, true) => "TARGET_RESP_FLOW",
        (Side::Response, false) => "PROXY_RESP_FLOW",
        (Side::Error, _) => "ERROR_FLOW",
    })
}

fn print(ctx: Ctx<'_>, text: String) -> rquickjs::Result<()> {
    with_run(&ctx, |run| {
        if let Some(trace) = &run.scope.trace {
            trace.written("javascript.print", &Value::from(text.as_str()));
        }
        tracing::debug!(proxy = %run.scope.place.proxy, "script prints: {text}");
    })
}

fn digest(ctx: Ctx<'_>, name: String, text: String, base64: bool) -> rquickjs::Result<String> {
    let bytes = text.as_bytes();
    let digest = match name.to_ascii_uppercase().replace('-', "").as_str() {
        "MD5" => Md5::digest(bytes).to_vec(),
        "SHA" | "SHA1" => Sha1::digest(bytes).to_vec(),
        "SHA256" => Sha256::digest(bytes).to_vec(),
        "SHA384" => Sha384::digest(bytes).to_vec(),
        "SHA512" => Sha512::digest(bytes).to_vec(),
        _ => {
            let text =
                format!("'{name}' is no digest, allowed are MD5, SHA-1, SHA-256, SHA-384, SHA-512");
            return Err(Exception::throw_type(&ctx, &text));
        }
    };
    Ok(match base64 {
        true => STANDARD.encode(&digest),
        false => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

fn date_text(ctx: Ctx<'_>, pattern: String, zone: String, time: f64) -> rquickjs::Result<String> {
    let offset = offset_of(&zone).ok_or_else(|| {
        let text = format!("time zone '{zone}' is not known, allowed are UTC, GMT and GMT+HH:MM");
        Exception::throw_range(&ctx, &text)
    })?;
    let milliseconds = (time as i64).saturating_add(offset);
    date::format(&pattern, milliseconds)
        .ok_or_else(|| Exception::throw_range(&ctx, &format!("'{pattern}' is no date pattern")))
}

/// Milliseconds that a zone is ahead of UTC.
fn offset_of(zone: &str) -> Option<i64> {
    if matches!(zone, "UTC" | "GMT" | "Z") {
        return Some(0);
    }
    let rest = zone
        .strip_prefix("GMT")
        .or_else(|| zone.strip_prefix("UTC"))?;
    let sign = match rest.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let clock = rest.get(1..)?;
    let (hours, minutes) = match clock.split_once(':') {
        Some(parts) => parts,
        None if clock.len() == 4 => clock.split_at(2),
        None => (clock, "0"),
    };
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

fn base64(text: String) -> String {
    STANDARD.encode(text)
}

fn from_base64(ctx: Ctx<'_>, text: String) -> rquickjs::Result<String> {
    let decoded = STANDARD
        .decode(text.trim())
        .or_else(|_| URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')));
    match decoded {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(Exception::throw_type(&ctx, &format!("no base64: {error}"))),
    }
}

/// What the transaction's scripts have asked so far; made on first use.
fn exchanges(scope: &mut Scope) -> Arc<Exchanges> {
    if let Some(Value::Object(object)) = scope.value(EXCHANGES)
        && let Ok(exchanges) = object.downcast::<Exchanges>()
    {
        return exchanges;
    }
    let exchanges = Arc::new(Exchanges::default());
    let object: Arc<dyn std::any::Any + Send + Sync> = exchanges.clone();
    scope.set_own(EXCHANGES, Value::Object(object));
    exchanges
}

fn send(
    ctx: Ctx<'_>,
    url: String,
    method: String,
    headers: Vec<Vec<String>>,
    body: String,
) -> rquickjs::Result<usize> {
    let sent = with_run(&ctx, |run| {
        let exchanges = exchanges(&mut run.scope);
        run.callouts.send(&exchanges, &url, &method, &headers, body)
    })?;
    sent.map_err(|reason| Exception::throw_type(&ctx, &reason))
}

/// Waits for an answer, as long as is asked (negative: as long as the run may take).
fn wait(ctx: Ctx<'_>, number: usize, milliseconds: f64) -> rquickjs::Result<()> {
    let (exchanges, deadline) = with_run(&ctx, |run| (exchanges(&mut run.scope), run.deadline))?;
    let until = match milliseconds >= 0.0 {
        true => {
            let asked = Duration::from_millis(milliseconds.min(1e9) as u64);
            deadline.min(Instant::now() + asked)
        }
        false => deadline,
    };
    exchanges.wait(number, until);
    Ok(())
}

fn outcome<'js>(ctx: Ctx<'js>, number: usize) -> rquickjs::Result<Js<'js>> {
    let exchanges = with_run(&ctx, |run| exchanges(&mut run.scope))?;
    let Some(outcome) = exchanges.outcome(number) else {
        return Null.into_js(&ctx);
    };
    let object = Object::new(ctx.clone())?;
    match &*outcome {
        Outcome::Failed(reason) => object.set("error", reason.as_str())?,
        Outcome::Answered(Answer {
            status,
            reason,
            headers,
            content,
        }) => {
            object.set("status", *status)?;
            object.set("reason", *reason)?;
            object.set("content", content.as_str())?;
            let fields = Array::new(ctx.clone())?;
            for (index, (name, value)) in headers.iter().enumerate() {
                fields.set(index, vec![name.as_str(), value.as_str()])?;
            }
            object.set("headers", fields)?;
        }
    }
    object.into_js(&ctx)
}
