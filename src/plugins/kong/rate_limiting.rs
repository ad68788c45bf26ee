//! `rate-limiting`: so many requests per second, minute, hour, day, month or year.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use smallvec::SmallVec;
use uuid::Uuid;

use super::ip_restriction::{check_status, status};
use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::schema::{FieldErrors, any, at_least_one_of, conditional, custom};
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::windows::{FixedWindows, PERIODS, Period, Window};
use crate::runtime::clock;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;
use crate::runtime::titled::TitledName;
use crate::runtime::told::{FieldValue, ResponseField};

config_record! {
    /// Limits how often a caller may ask, in fixed windows of UTC. Counters are kept by each node for itself.
    pub struct Config {
        /// Requests per second.
        second: Option<f64> = number().greater_than(0),
        /// Requests per minute.
        minute: Option<f64> = number().greater_than(0),
        /// Requests per hour.
        hour: Option<f64> = number().greater_than(0),
        /// Requests per day.
        day: Option<f64> = number().greater_than(0),
        /// Requests per month.
        month: Option<f64> = number().greater_than(0),
        /// Requests per year.
        year: Option<f64> = number().greater_than(0),
        /// What one limit applies to. Where it is unknown, the client's address.
        limit_by: Option<LimitBy> = string()
            .one_of(&["consumer", "credential", "ip", "service", "header", "path"])
            .default("consumer"),
        /// The header whose values are told apart when `limit_by` is `header`.
        header_name: Option<String> = header_name(),
        /// The path that is limited when `limit_by` is `path`.
        path: Option<String> = path(),
        /// Where counters are kept. This version keeps them in the node: `local`.
        policy: Option<String> = string()
            .one_of(&["local", "cluster", "redis"])
            .validated_by(check_policy)
            .default("local"),
        /// Let requests pass when the counters cannot be reached. Local counters always can.
        fault_tolerant: bool = boolean().required().default(true),
        /// The shared store of policy `redis`, which this version does not support.
        redis: Option<Redis> = Redis::schema_kind(),
        /// Do not tell the client its limits.
        hide_client_headers: bool = boolean().required().default(false),
        /// Status of the refusal.
        error_code: Option<f64> = number().greater_than(0).validated_by(check_status).default(429),
        /// Text of the refusal.
        error_message: Option<String> = string().default("API rate limit exceeded"),
        /// Seconds between writes of counters to a shared store; -1 writes each. Local counters are never written.
        sync_rate: f64 = number().required().default(-1),
    }
}

config_record! {
    /// A Redis server.
    pub struct Redis {
        /// Its host.
        host: Option<String> = host(),
        /// Its port.
        port: Option<u16> = port().default(6379),
        /// Milliseconds to wait for it.
        timeout: Option<u32> = timeout().default(2000),
        /// User name.
        username: Option<String> = string().referenceable(),
        /// Password.
        password: Option<String> = string().referenceable().encrypted(),
        /// Number of the database.
        database: Option<i64> = integer().default(0),
        /// Talk TLS?
        ssl: Option<bool> = boolean().default(false),
        /// Verify its certificate?
        ssl_verify: Option<bool> = boolean().default(false),
        /// Server name for TLS.
        server_name: Option<String> = sni(),
    }
}

/// What one limit applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    Header,
    Path,
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    let mut config = Config::schema();
    for name in [
        "host",
        "port",
        "password",
        "username",
        "ssl",
        "ssl_verify",
        "server_name",
        "timeout",
        "database",
    ] {
        if let Some((alias, path)) = redis_alias(name) {
            config = config.alias(alias, path);
        }
    }
    PluginEntry {
        info: PluginInfo::new("rate-limiting", 910, config)
            .with_messages()
            .check(at_least_one_of(&WINDOW_FIELDS))
            .check(custom(&WINDOW_FIELDS, check_order))
            .check(conditional(
                "config.limit_by",
                any().eq("header"),
                "config.header_name",
                any().required(),
            ))
            .check(conditional(
                "config.limit_by",
                any().eq("path"),
                "config.path",
                any().required(),
            )),
        link,
    }
}

const WINDOW_FIELDS: [&str; PERIODS] = [
    "config.second",
    "config.minute",
    "config.hour",
    "config.day",
    "config.month",
    "config.year",
];

/// The former, flat names of the Redis fields.
fn redis_alias(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    Some(match name {
        "host" => ("redis_host", &["redis", "host"]),
        "port" => ("redis_port", &["redis", "port"]),
        "password" => ("redis_password", &["redis", "password"]),
        "username" => ("redis_username", &["redis", "username"]),
        "ssl" => ("redis_ssl", &["redis", "ssl"]),
        "ssl_verify" => ("redis_ssl_verify", &["redis", "ssl_verify"]),
        "server_name" => ("redis_server_name", &["redis", "server_name"]),
        "timeout" => ("redis_timeout", &["redis", "timeout"]),
        "database" => ("redis_database", &["redis", "database"]),
        _ => return None,
    })
}

fn check_policy(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(policy) if policy != "local" => Err(format!(
            "'{policy}' is not supported by this version: use 'local'"
        )),
        _ => Ok(()),
    }
}

/// A longer window cannot have a lower limit than a shorter one.
fn check_order(instance: &Map<String, Value>) -> Result<(), FieldErrors> {
    let mut shorter: Option<(&str, f64)> = None;
    for path in WINDOW_FIELDS {
        let name = path.trim_start_matches("config.");
        let limit = instance
            .get("config")
            .and_then(|config| config.get(name))
            .and_then(Value::as_f64);
        let Some(limit) = limit else {
            continue;
        };
        if let Some((shorter, lower)) = shorter
            && limit < lower
        {
            return Err(FieldErrors::whole(format!(
                "The limit for {name}({limit:.1}) cannot be lower than the limit for {shorter}({lower:.1})"
            )));
        }
        shorter = Some((name, limit));
    }
    Ok(())
}

static LIMIT: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("RateLimit-Limit"));
static REMAINING: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("RateLimit-Remaining"));
static RESET: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("RateLimit-Reset"));

/// What is allowed in a window, and what is left of it.
fn window_headers(period: Period) -> &'static [TitledName; 2] {
    macro_rules! headers {
        ($window:literal) => {{
            static NAMES: LazyLock<[TitledName; 2]> = LazyLock::new(|| {
                [
                    TitledName::fixed(concat!("X-RateLimit-Limit-", $window)),
                    TitledName::fixed(concat!("X-RateLimit-Remaining-", $window)),
                ]
            });
            &NAMES
        }};
    }
    match period {
        Period::Second => headers!("Second"),
        Period::Minute => headers!("Minute"),
        Period::Hour => headers!("Hour"),
        Period::Day => headers!("Day"),
        Period::Month => headers!("Month"),
        Period::Year => headers!("Year"),
    }
}

fn link(plan: &Arc<InstancePlan>, context: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let limits = [
        config.second,
        config.minute,
        config.hour,
        config.day,
        config.month,
        config.year,
    ];
    let limits: SmallVec<[Limit; 2]> = Period::ALL
        .into_iter()
        .zip(limits)
        .filter_map(|(period, limit)| limit.map(|limit| Limit::new(period, limit)))
        .collect();
    if limits.is_empty() {
        return Err("config: at least one of 'second' to 'year' must be set".to_owned());
    }
    let header = match &config.header_name {
        Some(name) => Some(
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("config.header_name: '{name}' is not a header name"))?,
        ),
        None => None,
    };
    Ok(Arc::new(RateLimiting {
        scope: (plan.scope.route, plan.scope.forward),
        counters: context.live.keep("rate-limiting", FixedWindows::default),
        limits,
        limit_by: config.limit_by.unwrap_or(LimitBy::Consumer),
        header,
        path: config.path,
        hide_headers: config.hide_client_headers,
        error_status: config
            .error_code
            .map_or(Ok(StatusCode::TOO_MANY_REQUESTS), status)
            .map_err(|error| format!("config.error_code: {error}"))?,
        error_message: config
            .error_message
            .unwrap_or_else(|| "API rate limit exceeded".to_owned()),
    }))
}

struct RateLimiting {
    /// Instances of one scope share their counters; the global ones share theirs over everything.
    scope: (Option<Uuid>, Option<Uuid>),
    counters: Arc<FixedWindows>,
    /// The shortest window first.
    limits: SmallVec<[Limit; 2]>,
    limit_by: LimitBy,
    header: Option<HeaderName>,
    path: Option<String>,
    hide_headers: bool,
    error_status: StatusCode,
    error_message: String,
}

struct Limit {
    period: Period,
    limit: f64,
    shown: FieldValue,
}

impl Limit {
    fn new(period: Period, limit: f64) -> Self {
        Self {
            period,
            limit,
            shown: amount(limit),
        }
    }
}

/// Whose requests are counted together. The kind is part of it: a header's value never equals another one's address.
#[derive(Hash)]
enum Caller<'a> {
    Id(Uuid),
    Address(IpAddr),
    Header(&'a [u8]),
    Path,
}

/// The window with the least left: what the unnumbered headers tell.
struct Tightest {
    limit: FieldValue,
    remaining: f64,
    remaining_shown: FieldValue,
    reset: u64,
}

impl Plugin for RateLimiting {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn needs(&self) -> Needs {
        match self.limit_by {
            LimitBy::Header => Needs::HEAD,
            _ => Needs::NOTHING,
        }
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let now = u64::try_from(clock::unix_seconds(exchange.started)).unwrap_or(0);
        self.limit(exchange, now)
    }
}

impl RateLimiting {
    fn limit(&self, exchange: &mut Exchange, now: u64) -> Flow {
        let key = self.counters.key(&(self.scope, self.caller(exchange)));
        let windows: SmallVec<[Window; PERIODS]> = self
            .limits
            .iter()
            .map(|limit| Window {
                period: limit.period,
                start: limit.period.start(now),
                limit: limit.limit,
            })
            .collect();
        let usage = self.counters.count(key, &windows, now);
        let used = |period: Period| f64::from(usage.get(period as usize).copied().unwrap_or(0));
        let exhausted = self
            .limits
            .iter()
            .rev()
            .find(|limit| used(limit.period) >= limit.limit)
            .map(|limit| limit.period);
        if self.hide_headers {
            return match exhausted {
                Some(_) => Flow::fault(self.refusal()),
                None => Flow::Continue,
            };
        }
        exchange.response_fields.reserve(2 * windows.len() + 3);
        let mut tightest: Option<Tightest> = None;
        for (limit, window) in self.limits.iter().zip(&windows) {
            let mut remaining = limit.limit - used(limit.period);
            if exhausted.is_none_or(|period| period == limit.period) {
                remaining -= 1.0;
            }
            let remaining = remaining.max(0.0);
            let shown = amount(remaining);
            let fields = &mut exchange.response_fields;
            let [allowed, left] = window_headers(limit.period);
            fields.push(ResponseField::instead(allowed, limit.shown.clone()));
            fields.push(ResponseField::instead(left, shown.clone()));
            // Windows come shortest first: of equals the longest stays.
            if tightest
                .as_ref()
                .is_none_or(|tightest| remaining <= tightest.remaining)
            {
                let passed = now.saturating_sub(window.start);
                tightest = Some(Tightest {
                    limit: limit.shown.clone(),
                    remaining,
                    remaining_shown: shown,
                    reset: limit.period.seconds().saturating_sub(passed).max(1),
                });
            }
        }
        let Some(tightest) = tightest else {
            return Flow::Continue;
        };
        let fields = &mut exchange.response_fields;
        fields.push(ResponseField::instead(&LIMIT, tightest.limit));
        fields.push(ResponseField::instead(&REMAINING, tightest.remaining_shown));
        fields.push(ResponseField::instead(&RESET, tightest.reset));
        match exhausted {
            Some(_) => Flow::fault(self.refusal().header(RETRY_AFTER, tightest.reset.into())),
            None => Flow::Continue,
        }
    }

    fn refusal(&self) -> Fault {
        Fault::refuse(self.error_status, self.error_message.clone())
    }

    fn caller<'a>(&self, exchange: &'a Exchange) -> Caller<'a> {
        let identity = &exchange.identity;
        let credential = || identity.credential.as_ref().map(|known| known.plan.id);
        let known = match self.limit_by {
            LimitBy::Consumer => identity
                .principal
                .as_ref()
                .map(|principal| principal.plan.id)
                .or_else(credential)
                .map(Caller::Id),
            LimitBy::Credential => credential().map(Caller::Id),
            LimitBy::Ip => None,
            LimitBy::Service => exchange
                .route
                .as_ref()
                .and_then(|route| route.forward.as_ref())
                .map(|forward| Caller::Id(forward.plan.id)),
            LimitBy::Header => self
                .header
                .as_ref()
                .and_then(|name| exchange.request.headers.get(name))
                .map(|value| Caller::Header(value.as_bytes())),
            LimitBy::Path => self
                .path
                .as_ref()
                .filter(|path| path.as_bytes() == exchange.path())
                .map(|_| Caller::Path),
        };
        known.unwrap_or(Caller::Address(exchange.client_address))
    }
}

/// A limit or what is left of it; seldom anything but a whole number.
fn amount(value: f64) -> FieldValue {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let whole = value as u64;
    if whole as f64 == value && value <= EXACT_MAX {
        return FieldValue::Number(whole);
    }
    let text = HeaderValue::try_from(value.to_string());
    text.map_or(FieldValue::Number(0), FieldValue::Text)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World, refusal};

    /// 2023-11-15, noon.
    const NOON: u64 = 1_700_049_600;

    fn plugin(world: &World, config: Value) -> Arc<dyn Plugin> {
        world.link(entry(), config)
    }

    fn limiting(world: &World, config: Value) -> RateLimiting {
        let plan = world.instance(&entry(), config);
        let config: Config = read(&plan).unwrap();
        RateLimiting {
            scope: (None, None),
            counters: Arc::default(),
            limits: [config.second, config.minute, config.hour]
                .into_iter()
                .zip(Period::ALL)
                .filter_map(|(limit, period)| Some(Limit::new(period, limit?)))
                .collect(),
            limit_by: config.limit_by.unwrap(),
            header: config.header_name.map(|name| name.parse().unwrap()),
            path: config.path,
            hide_headers: config.hide_client_headers,
            error_status: status(config.error_code.unwrap()).unwrap(),
            error_message: config.error_message.unwrap(),
        }
    }

    fn headers(exchange: &Exchange) -> Vec<String> {
        exchange
            .response_fields
            .iter()
            .map(|field| {
                let value = HeaderValue::from(field.value.clone());
                format!("{}: {}", field.name.name, value.to_str().unwrap())
            })
            .collect()
    }

    #[test]
    fn tells_what_is_left_and_refuses() {
        let world = World::new();
        let plugin = limiting(&world, json!({"minute": 2, "hour": 5}));
        let ask = |now| {
            let mut exchange = world.exchange(Message::get("/"));
            let flow = plugin.limit(&mut exchange, now);
            (flow, headers(&exchange))
        };
        let (flow, seen) = ask(NOON + 1);
        assert_eq!(refusal(&flow), None);
        assert_eq!(
            seen,
            [
                "x-ratelimit-limit-minute: 2",
                "x-ratelimit-remaining-minute: 1",
                "x-ratelimit-limit-hour: 5",
                "x-ratelimit-remaining-hour: 4",
                "ratelimit-limit: 2",
                "ratelimit-remaining: 1",
                "ratelimit-reset: 59",
            ]
        );
        ask(NOON + 1);
        let (flow, seen) = ask(NOON + 2);
        assert_eq!(
            refusal(&flow),
            Some((429, "API rate limit exceeded".to_owned()))
        );
        let Flow::Fault(fault) = &flow else {
            panic!("expected a fault")
        };
        assert_eq!(
            fault.headers[0],
            (RETRY_AFTER, HeaderValue::from_static("58"))
        );
        // Only the exhausted window is shown as used once more.
        assert_eq!(seen[3], "x-ratelimit-remaining-hour: 3");
        assert_eq!(refusal(&ask(NOON + 60).0), None);
    }

    #[test]
    fn of_equal_windows_the_longest_is_told() {
        let world = World::new();
        let plugin = limiting(&world, json!({"minute": 5, "hour": 5}));
        let mut exchange = world.exchange(Message::get("/"));
        plugin.limit(&mut exchange, NOON);
        assert_eq!(headers(&exchange)[6], "ratelimit-reset: 3600");
    }

    #[test]
    fn tells_callers_apart() {
        let world = World::new().principal("alice", &[]).principal("bob", &[]);
        let request = |address: &str, header: &str, path: &str| {
            let mut exchange = world.exchange(Message::get(path).header("x-tenant", header));
            exchange.client_address = address.parse().unwrap();
            exchange
        };
        for (config, passes) in [
            (json!({"minute": 1}), [true, true, false, false]),
            (
                json!({"minute": 1, "limit_by": "ip"}),
                [true, false, false, true],
            ),
            (
                json!({"minute": 1, "limit_by": "header", "header_name": "X-Tenant"}),
                [true, true, false, true],
            ),
            (
                json!({"minute": 1, "limit_by": "path", "path": "/a"}),
                [true, false, true, false],
            ),
        ] {
            let case = config.to_string();
            let plugin = limiting(&world, config);
            let mut exchanges = [
                request("10.0.0.1", "t1", "/a"),
                request("10.0.0.1", "t2", "/a"),
                request("10.0.0.1", "t1", "/b"),
                request("10.0.0.2", "10.0.0.1", "/a"),
            ];
            for (exchange, name) in exchanges.iter_mut().zip(["alice", "bob", "alice", "bob"]) {
                world.authenticate(exchange, name);
            }
            let seen = exchanges
                .each_mut()
                .map(|exchange| refusal(&plugin.limit(exchange, NOON)).is_none());
            assert_eq!(seen, passes, "{case}");
        }
    }

    #[test]
    fn hides_headers_and_changes_the_refusal() {
        let world = World::new();
        let plugin = plugin(
            &world,
            json!({"year": 1, "hide_client_headers": true, "error_code": 420, "error_message": "calm"}),
        );
        let mut first = world.exchange(Message::get("/"));
        plugin.access(&mut first);
        assert!(first.response_fields.is_empty());
        let flow = plugin.access(&mut world.exchange(Message::get("/")));
        assert_eq!(refusal(&flow), Some((420, "calm".to_owned())));
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        let world = World::new();
        for (config, errors) in [
            (
                json!({}),
                json!({"@entity": ["at least one of these fields must be non-empty: 'config.second', 'config.minute', 'config.hour', 'config.day', 'config.month', 'config.year'"]}),
            ),
            (
                json!({"second": 5, "minute": 3}),
                json!({"@entity": ["The limit for minute(3.0) cannot be lower than the limit for second(5.0)"]}),
            ),
            (
                json!({"second": 1, "policy": "redis"}),
                json!({"config": {"policy": "'redis' is not supported by this version: use 'local'"}}),
            ),
            (
                json!({"second": 1, "limit_by": "header"}),
                json!({
                    "config": {"header_name": "required field missing"},
                    "@entity": ["failed conditional validation given value of field 'config.limit_by'"]
                }),
            ),
        ] {
            assert_eq!(world.refused(entry(), config.clone()), errors, "{config}");
        }
    }
}
