//! What the four cache policies share at work: the table that they use, keys, and when entries end.
//!
//! Entries are in this node's memory alone. Limits of a named cache count for its table; the cache that is always there
//! has none of its own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::PolicyLink;
use crate::dialects::apigee::entities::cache::{self, entries_table, parse_date, parse_time};
use crate::dialects::apigee::policies::caching as plan;
use crate::dialects::apigee::policies::invalidate_cache::Context;
use crate::dialects::apigee::policies::texts::RefOrText;
use crate::dialects::apigee::program::CacheTerms;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::context::FlowContext;
use crate::plugins::apigee::flow::scope::Scope;
use crate::runtime::entry_cache::{EntryCache, Table, TableLimits};

/// Longest key; entries with longer ones are never kept. As at Apigee.
const KEY_BYTES_MAX: usize = 2 << 10;
/// Largest value, unless the cache says otherwise. As at Apigee.
const VALUE_BYTES_MAX: usize = 512 << 10;
/// How long entries of the cache that is always there live when the policy does not say.
const LIFE_DEFAULT: Duration = Duration::from_secs(86_400);
/// Variables tell this name for the cache that is always there.
const SHARED: &str = "default";
/// Between the parts of a key.
const SEPARATOR: &str = "__";

const DAY_MS: i64 = 86_400_000;

/// A text, or a variable with what stands for it while it is unset.
pub(super) struct Text {
    variable: Option<VariableName>,
    text: Box<str>,
}

impl Text {
    pub(super) fn link(plan: &RefOrText) -> Self {
        Self {
            variable: plan.reference.as_deref().map(VariableName::new),
            text: plan.text.as_deref().unwrap_or_default().into(),
        }
    }

    fn push(&self, scope: &Scope, out: &mut String) {
        match self.variable.as_ref().and_then(|name| scope.text(name)) {
            Some(text) => out.push_str(&text),
            None => out.push_str(&self.text),
        }
    }

    fn text(&self, scope: &Scope) -> String {
        let mut text = String::new();
        self.push(scope, &mut text);
        text
    }
}

/// The cache that a policy uses.
pub(super) struct Cache {
    pub(super) name: Box<str>,
    entries: Arc<EntryCache>,
    pub(super) table: Arc<Table>,
    limits: TableLimits,
    /// When its entries end unless the policy says so.
    own: Option<cache::Expiry>,
    scope: plan::Scope,
    prefix: Option<Text>,
    fragments: Vec<Text>,
}

impl Cache {
    pub(super) fn link(link: &PolicyLink<'_>, place: &plan::Place) -> Self {
        let terms = place.cache.as_ref().and(link.cache);
        let name = place.cache.as_deref().unwrap_or_default();
        let table = entries_table(&link.place.organization, &link.place.environment, name);
        Self::of(link.context.live.entries(), &table, place, terms)
    }

    pub(super) fn of(
        entries: &Arc<EntryCache>,
        table: &str,
        place: &plan::Place,
        terms: Option<&CacheTerms>,
    ) -> Self {
        let bytes = |limit: Option<u64>| limit.map(|it| usize::try_from(it).unwrap_or(usize::MAX));
        Self {
            name: place.cache.as_deref().unwrap_or(SHARED).into(),
            entries: Arc::clone(entries),
            table: entries.table(table),
            limits: TableLimits {
                entries_max: bytes(terms.and_then(|terms| terms.entries_max)),
                bytes_max: bytes(terms.and_then(|terms| terms.bytes_max)),
                value_bytes_max: bytes(terms.and_then(|terms| terms.value_bytes_max))
                    .unwrap_or(VALUE_BYTES_MAX),
            },
            own: terms.map(|terms| terms.expiry.clone()),
            scope: place.scope,
            prefix: place.prefix.as_ref().map(Text::link),
            fragments: place.fragments.iter().map(Text::link).collect(),
        }
    }

    /// The key of the moment.
    pub(super) fn key(&self, flow: &FlowContext<'_>) -> String {
        self.key_of(flow.scope, Names::of(flow.scope))
    }

    /// The key of the moment, as seen from where `context` says.
    pub(super) fn key_in(&self, flow: &FlowContext<'_>, context: &Context) -> String {
        let mut names = Names::of(flow.scope);
        let other;
        if let Some(proxy) = &context.proxy {
            names.proxy = proxy;
            if *proxy != flow.place.proxy {
                let endpoint = context.proxy_endpoint.as_deref().unwrap_or("default");
                other = flow.program.registry.named(flow.program, proxy, endpoint);
                names.revision = other.map_or(0, |program| program.place.revision);
            }
        }
        if let Some(endpoint) = &context.proxy_endpoint {
            (names.endpoint, names.exclusive) = (endpoint, endpoint);
        }
        if let Some(target) = &context.target_endpoint {
            (names.target, names.exclusive) = (target, target);
        }
        self.key_of(flow.scope, names)
    }

    fn key_of(&self, scope: &Scope, names: Names<'_>) -> String {
        let mut key = String::with_capacity(64);
        match &self.prefix {
            Some(prefix) => prefix.push(scope, &mut key),
            None => names.push(self.scope, &mut key),
        }
        for fragment in &self.fragments {
            key.push_str(SEPARATOR);
            fragment.push(scope, &mut key);
        }
        key
    }

    /// Keeps a value for so long. False when it is not kept.
    pub(super) fn keep(&self, key: &str, value: Bytes, life: Life) -> bool {
        let now = Instant::now();
        let ends = match life {
            Life::Over => return false,
            Life::Endless => None,
            Life::For(duration) => now.checked_add(duration),
        };
        if key.len() > KEY_BYTES_MAX {
            tracing::debug!(
                cache = %self.name,
                "an entry is not kept, its key is longer than {KEY_BYTES_MAX} bytes"
            );
            return false;
        }
        let kept = self
            .entries
            .put(&self.table, key, value, ends, &self.limits, now);
        if !kept {
            tracing::debug!(cache = %self.name, key, "an entry is not kept, it is too large");
        }
        kept
    }

    /// How long an entry lives that is made now.
    pub(super) fn life(&self, expiry: &Expiry, scope: &Scope) -> Life {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        expiry.life(scope, now_ms).unwrap_or(match &self.own {
            None => Life::For(LIFE_DEFAULT),
            Some(cache::Expiry::Seconds(seconds)) => Life::of_seconds(i64::from(*seconds)),
            Some(cache::Expiry::TimeOfDay(seconds)) => Life::until_time(*seconds, now_ms),
            Some(cache::Expiry::Date(date)) => {
                let date = parse_date(date);
                date.map_or(Life::For(LIFE_DEFAULT), |date| Life::until(date, now_ms))
            }
        })
    }
}

/// What scopes put before keys.
struct Names<'a> {
    organization: &'a str,
    environment: &'a str,
    proxy: &'a str,
    revision: u32,
    endpoint: &'a str,
    target: &'a str,
    /// That of the two whose flow runs.
    exclusive: &'a str,
}

impl<'a> Names<'a> {
    fn of(scope: &'a Scope) -> Self {
        let endpoint: &str = &scope.entry.endpoint;
        let target = scope.target.as_deref().map_or("", |target| &target.name);
        Self {
            organization: &scope.place.organization,
            environment: &scope.place.environment,
            proxy: &scope.place.proxy,
            revision: scope.place.revision,
            endpoint,
            target,
            exclusive: if scope.at_target { target } else { endpoint },
        }
    }

    fn push(&self, scope: plan::Scope, out: &mut String) {
        let last = match scope {
            plan::Scope::Global | plan::Scope::Application => None,
            plan::Scope::Proxy => Some(self.endpoint),
            plan::Scope::Target => Some(self.target),
            plan::Scope::Exclusive => Some(self.exclusive),
        };
        out.push_str(self.organization);
        let mut part = |text: &str| {
            out.push_str(SEPARATOR);
            out.push_str(text);
        };
        part(self.environment);
        if scope != plan::Scope::Global {
            part(self.proxy);
            part(&self.revision.to_string());
        }
        if let Some(last) = last {
            part(last);
        }
    }
}

/// How long an entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    For(Duration),
    /// Until there is no room.
    Endless,
    /// It is over before it begins.
    Over,
}

impl Life {
    fn of_seconds(seconds: i64) -> Self {
        match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Self::For(Duration::from_secs(seconds)),
            _ => Self::Endless,
        }
    }

    fn until(end_ms: i64, now_ms: i64) -> Self {
        match u64::try_from(end_ms.saturating_sub(now_ms)) {
            Ok(left) if left > 0 => Self::For(Duration::from_millis(left)),
            _ => Self::Over,
        }
    }

    /// Until this many seconds after midnight UTC are next reached.
    fn until_time(seconds: u32, now_ms: i64) -> Self {
        let today = now_ms.div_euclid(DAY_MS) * DAY_MS + i64::from(seconds) * 1_000;
        let next = if today > now_ms {
            today
        } else {
            today + DAY_MS
        };
        Self::until(next, now_ms)
    }

    /// The shorter one.
    pub(super) fn at_most(self, most: Duration) -> Self {
        match self {
            Self::For(own) => Self::For(own.min(most)),
            Self::Endless => Self::For(most),
            Self::Over => Self::Over,
        }
    }
}

/// `<ExpirySettings>` linked.
pub(super) struct Expiry {
    seconds: Option<Text>,
    time_of_day: Option<Text>,
    date: Option<Text>,
}

impl Expiry {
    pub(super) fn link(plan: &plan::Expiry) -> Self {
        let link = |text: &Option<RefOrText>| text.as_ref().map(Text::link);
        Self {
            seconds: link(&plan.seconds),
            time_of_day: link(&plan.time_of_day),
            date: link(&plan.date),
        }
    }

    /// What the first form says whose text can be read.
    fn life(&self, scope: &Scope, now_ms: i64) -> Option<Life> {
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.text(scope));
        let seconds = text(&self.seconds).and_then(|text| text.trim().parse::<i64>().ok());
        let seconds = seconds.map(Life::of_seconds);
        let time = || {
            let seconds = text(&self.time_of_day).and_then(|text| parse_time(text.trim()));
            seconds.map(|seconds| Life::until_time(seconds, now_ms))
        };
        let date = || {
            let date = text(&self.date).and_then(|text| parse_date(text.trim()));
            date.map(|date| Life::until(date, now_ms))
        };
        seconds.or_else(time).or_else(date)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::super::test_support::scope;
    use super::*;

    fn text(text: &str) -> Option<RefOrText> {
        Some(RefOrText {
            reference: None,
            text: Some(text.to_owned()),
        })
    }

    #[test]
    fn scopes_begin_keys() {
        let entries = Arc::new(EntryCache::default());
        let scope = scope();
        for (given, expected) in [
            (plan::Scope::Global, "o__e__1__2"),
            (plan::Scope::Application, "o__e__p__1__1__2"),
            (plan::Scope::Proxy, "o__e__p__1__default__1__2"),
            (plan::Scope::Target, "o__e__p__1____1__2"),
            (plan::Scope::Exclusive, "o__e__p__1__default__1__2"),
        ] {
            let fragment = |name: &str| RefOrText {
                reference: Some(name.to_owned()),
                text: None,
            };
            let place = plan::Place {
                scope: given,
                fragments: vec![
                    fragment("request.queryparam.w.1"),
                    fragment("request.queryparam.w.2"),
                ],
                ..plan::Place::default()
            };
            let cache = Cache::of(&entries, "t", &place, None);
            assert_eq!(cache.key_of(&scope, Names::of(&scope)), expected);
        }
        let place = plan::Place {
            prefix: text("mine"),
            fragments: vec![text("a").unwrap(), RefOrText::default()],
            ..plan::Place::default()
        };
        let cache = Cache::of(&entries, "t", &place, None);
        assert_eq!(cache.key_of(&scope, Names::of(&scope)), "mine__a__");
    }

    #[test]
    fn the_most_exact_expiry_counts() {
        let scope = scope();
        // 01-02-2023 10:00:00 UTC.
        let now_ms = parse_date("01-02-2023").unwrap() + 10 * 3_600_000;
        let hours = |hours: u64| Some(Life::For(Duration::from_secs(hours * 3_600)));
        let variable = Some(RefOrText {
            reference: Some("request.queryparam.w".to_owned()),
            text: Some("60".to_owned()),
        });
        for (plan, expected) in [
            (plan::Expiry::default(), None),
            (
                plan::Expiry {
                    seconds: text("3600"),
                    time_of_day: text("12:00:00"),
                    date: None,
                },
                hours(1),
            ),
            (
                plan::Expiry {
                    seconds: variable,
                    ..plan::Expiry::default()
                },
                Some(Life::For(Duration::from_secs(1))),
            ),
            (
                plan::Expiry {
                    seconds: text("-1"),
                    ..plan::Expiry::default()
                },
                Some(Life::Endless),
            ),
            (
                plan::Expiry {
                    time_of_day: text("12:00:00"),
                    date: text("12-31-9999"),
                    ..plan::Expiry::default()
                },
                hours(2),
            ),
            (
                plan::Expiry {
                    time_of_day: text("10:00:00"),
                    ..plan::Expiry::default()
                },
                hours(24),
            ),
            (
                plan::Expiry {
                    date: text("01-03-2023"),
                    ..plan::Expiry::default()
                },
                hours(14),
            ),
            (
                plan::Expiry {
                    date: text("01-02-2023"),
                    ..plan::Expiry::default()
                },
                Some(Life::Over),
            ),
        ] {
            assert_eq!(
                Expiry::link(&plan).life(&scope, now_ms),
                expected,
                "{plan:?}"
            );
        }
        assert_eq!(
            Life::Endless.at_most(Duration::from_secs(1)),
            Life::For(Duration::from_secs(1))
        );
    }

    #[test]
    fn limits_of_a_named_cache_count() {
        let entries = Arc::new(EntryCache::default());
        let terms = CacheTerms {
            expiry: cache::Expiry::Seconds(7),
            value_bytes_max: Some(4),
            entries_max: None,
            bytes_max: None,
        };
        let place = plan::Place {
            cache: Some("c".to_owned()),
            ..plan::Place::default()
        };
        let cache = Cache::of(&entries, "t", &place, Some(&terms));
        let scope = scope();
        let expiry = Expiry::link(&plan::Expiry::default());
        let life = cache.life(&expiry, &scope);
        assert_eq!(life, Life::For(Duration::from_secs(7)));
        assert!(cache.keep("k", "1234".into(), life));
        assert!(!cache.keep("k", "12345".into(), life));
        assert!(!cache.keep(&"k".repeat(KEY_BYTES_MAX + 1), "1".into(), life));
        assert!(!cache.keep("k", "1".into(), Life::Over));
    }
}
