//! `GET /status`: counters of this node, and the newest revision that serves. On Admin and status listeners.

use http::StatusCode;
use serde_json::{Map, Number, Value, json};

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;
use super::table::Endpoint;

/// Greatest number of decimals that a client may ask for.
const SCALE_MAX: usize = 17;

/// `/status/dns`, whose numbers belong to a resolver that this program does not have.
pub(super) fn dns_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/status/dns").shows("Refused: there is no such resolver", |_, _| {
            Err(Answer::message(
                StatusCode::NOT_IMPLEMENTED,
                "not implemented with the legacy DNS client",
            ))
        }),
    ]
}

/// `/metrics`, in the text format of Prometheus.
pub(super) fn metrics_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/metrics").shows("Show metrics for Prometheus", |admin, _| {
            Ok(Answer::text(
                StatusCode::OK,
                "text/plain; charset=UTF-8",
                admin.node.metrics(),
            ))
        }),
    ]
}

/// Answers with counters, memory and revision.
pub(super) fn show(admin: &Admin, call: &Call) -> Outcome {
    let unit = call
        .argument("unit")
        .map_or(Ok(Unit::Mebibytes), Unit::parse)?;
    let scale = parse_scale(call.argument("scale"))?;
    let identity = admin.node.identity();
    let traffic = admin.node.traffic();
    let mut status = Map::new();
    if admin.is_db_less() {
        let hash = admin.loaded.hash();
        status.insert("configuration_hash".to_owned(), hash.into());
    } else {
        // The store is part of this process: whoever reads this reaches it.
        status.insert("database".to_owned(), json!({ "reachable": true }));
    }
    status.insert(
        "memory".to_owned(),
        json!({
            "workers_lua_vms": [{
                "pid": identity.pid,
                "http_allocated_gc": unit.show(resident_bytes(), scale),
            }],
            "lua_shared_dicts": {},
        }),
    );
    status.insert(
        "server".to_owned(),
        json!({
            "connections_accepted": traffic.connections_accepted,
            "connections_active": traffic.connections_active,
            "connections_handled": traffic.connections_handled,
            "connections_reading": traffic.connections_reading,
            "connections_waiting": traffic.connections_waiting,
            "connections_writing": traffic.connections_writing,
            "total_requests": traffic.total_requests,
        }),
    );
    status.insert(
        "configuration".to_owned(),
        json!({ "revision": admin.node.serving_revision() }),
    );
    for (name, part) in admin.node.parts() {
        status.insert(name.to_owned(), part);
    }
    Ok(Answer::ok(&Value::Object(status)))
}

/// The unit of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Kibibytes,
    Mebibytes,
    Gibibytes,
}

impl Unit {
    fn parse(text: &str) -> Result<Self, Answer> {
        match text {
            "b" | "B" => Ok(Self::Bytes),
            "k" | "K" => Ok(Self::Kibibytes),
            "m" | "M" => Ok(Self::Mebibytes),
            "g" | "G" => Ok(Self::Gibibytes),
            _ => Err(Answer::bad_request(&format!(
                "invalid unit '{text}' (expected 'k/K', 'm/M', 'g/G' or 'b/B')"
            ))),
        }
    }

    /// A number of bytes in this unit: a number for bytes, else a text such as `5.00 MiB`.
    fn show(self, bytes: u64, scale: usize) -> Value {
        let (divisor, name) = match self {
            Self::Bytes => return Value::Number(Number::from(bytes)),
            Self::Kibibytes => (1u64 << 10, "KiB"),
            Self::Mebibytes => (1 << 20, "MiB"),
            Self::Gibibytes => (1 << 30, "GiB"),
        };
        let amount = bytes as f64 / divisor as f64;
        Value::String(format!("{amount:.scale$} {name}"))
    }
}

fn parse_scale(text: Option<&str>) -> Result<usize, Answer> {
    match text {
        None => Ok(2),
        Some(text) => text
            .parse()
            .ok()
            .filter(|scale| *scale <= SCALE_MAX)
            .ok_or_else(|| {
                Answer::bad_request(&format!(
                    "invalid scale '{text}' (expected an integer between 0 and {SCALE_MAX})"
                ))
            }),
    }
}

/// The memory that this process holds; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else {
        return 0;
    };
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .map_or(0, |kibibytes| kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;

    #[test]
    fn sizes_come_in_the_unit_asked_for() {
        for (unit, scale, shown) in [
            ("m", 2, json!("5.00 MiB")),
            ("k", 0, json!("5120 KiB")),
            ("G", 3, json!("0.005 GiB")),
            ("b", 2, json!(5 << 20)),
        ] {
            assert_eq!(Unit::parse(unit).unwrap().show(5 << 20, scale), shown);
        }
        assert_eq!(Unit::parse("x").unwrap_err().status, 400);
        assert_eq!(parse_scale(Some("-1")).unwrap_err().status, 400);
        assert_eq!(parse_scale(Some("99")).unwrap_err().status, 400);
    }
}
