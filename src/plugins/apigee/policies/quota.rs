//! `Quota`: counts calls in windows, and refuses what is too much.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::spike_arrest::weight;
use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::quota::{Allowance, Config, Manner, Unit};
use crate::dialects::apigee::policies::texts::RefOrText;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use crate::plugins::shared::windows::Period;
use crate::runtime::records::now_ms;

/// Counters of one policy; those whose window is over go first.
const COUNTERS_MAX: usize = 200_000;
/// Parts of a rolling window: a call counts for at most a part of the window too long.
const PARTS: i64 = 60;
/// The counter of everybody, when no identifier is named.
const EVERYBODY: &str = "_default";

#[derive(Default)]
struct Counters(Mutex<AHashMap<Box<str>, Counter>>);

#[derive(Default)]
struct Counter {
    /// Moments are in milliseconds since 1970.
    ends: i64,
    used: u64,
    exceeded: u64,
    /// Of a rolling window: the beginning of each part, and what was counted in it.
    parts: VecDeque<(i64, u64)>,
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    admitted: bool,
    used: u64,
    exceeded: u64,
    /// Zero for rolling windows.
    ends: i64,
}

/// A window's rule at the moment of a call.
struct Rule {
    manner: Manner,
    unit: Unit,
    interval: i64,
    limit: u64,
}

impl Rule {
    fn length_ms(&self) -> i64 {
        self.unit
            .seconds()
            .saturating_mul(self.interval)
            .saturating_mul(1000)
    }

    /// When the window that holds `now` ends.
    fn end(&self, now: i64) -> i64 {
        let seconds = u64::try_from(now / 1000).unwrap_or(0);
        let length = self.length_ms();
        match self.manner {
            Manner::Clock => {
                let aligned = |start: u64| i64::try_from(start).unwrap_or(0) * 1000 + length;
                match self.unit {
                    Unit::Second => aligned(Period::Second.start(seconds)),
                    Unit::Minute => aligned(Period::Minute.start(seconds)),
                    Unit::Hour => aligned(Period::Hour.start(seconds)),
                    Unit::Day => aligned(Period::Day.start(seconds)),
                    Unit::Week => {
                        // 1970 began on a Thursday; weeks begin on Sunday.
                        const WEEK: u64 = 7 * 86_400;
                        let since_sunday = (seconds + 4 * 86_400) % WEEK;
                        aligned(seconds - since_sunday.min(seconds))
                    }
                    Unit::Month => {
                        // Months have different lengths: from the middle of one into the next.
                        let mut start = Period::Month.start(seconds);
                        for _ in 0..self.interval.clamp(1, 1200) {
                            start = Period::Month.start(start + 32 * 86_400);
                        }
                        i64::try_from(start).unwrap_or(i64::MAX / 1000) * 1000
                    }
                }
            }
            Manner::Calendar(start) => {
                let since = now - start.saturating_mul(1000);
                now - since.rem_euclid(length.max(1)) + length
            }
            Manner::Flexible | Manner::Rolling => now.saturating_add(length),
        }
    }
}

impl Counters {
    fn count(&self, key: &str, rule: &Rule, weight: u64, now: i64) -> Verdict {
        let mut counters = self.0.lock();
        if counters.len() >= COUNTERS_MAX && !counters.contains_key(key) {
            counters.retain(|_, counter| now < counter.ends);
            // A flood of new callers must not reset those who are near their limit.
            let mut least = 1;
            while counters.len() >= COUNTERS_MAX / 2 && least < u64::MAX / 4 {
                counters.retain(|_, counter| counter.used > least);
                least *= 4;
            }
        }
        let counter = counters.entry(key.into()).or_default();
        if rule.manner == Manner::Rolling {
            let from = now - rule.length_ms();
            while counter
                .parts
                .front()
                .is_some_and(|(begin, _)| *begin <= from)
            {
                counter.parts.pop_front();
            }
            counter.used = counter.parts.iter().map(|(_, count)| count).sum();
            counter.ends = rule.end(now);
        } else if now >= counter.ends {
            *counter = Counter {
                ends: rule.end(now),
                ..Counter::default()
            };
        }
        let admitted = counter.used.saturating_add(weight) <= rule.limit;
        if admitted {
            counter.used += weight;
            if rule.manner == Manner::Rolling && weight > 0 {
                let part = (rule.length_ms() / PARTS).max(1);
                let begin = now - now.rem_euclid(part);
                match counter.parts.back_mut() {
                    Some((last, count)) if *last == begin => *count += weight,
                    _ => counter.parts.push_back((begin, weight)),
                }
            }
        } else {
            counter.exceeded = counter.exceeded.saturating_add(weight);
        }
        Verdict {
            admitted,
            used: counter.used,
            exceeded: counter.exceeded,
            ends: match rule.manner {
                Manner::Rolling => 0,
                _ => counter.ends,
            },
        }
    }
}

/// A variable, or a text when it says nothing.
struct Source {
    reference: Option<VariableName>,
    text: Option<String>,
}

impl Source {
    fn of(config: &RefOrText) -> Self {
        Self {
            reference: config.reference.as_deref().map(VariableName::new),
            text: config.text.clone(),
        }
    }

    fn text(&self, scope: &Scope) -> Option<String> {
        let referred = self.reference.as_ref().and_then(|name| scope.text(name));
        referred
            .map(|text| text.into_owned())
            .or_else(|| self.text.clone())
    }

    fn name(&self) -> &str {
        self.reference.as_ref().map_or("", VariableName::as_str)
    }
}

/// How many calls in which time, where no product says so.
struct Own {
    allowance: Allowance,
    count: Option<VariableName>,
    class: Option<VariableName>,
    interval: Source,
    unit: Source,
}

/// Where it tells what became of a call, in the order of [`Names::ALL`].
struct Names([VariableName; 9]);

impl Names {
    const ALL: [&str; 9] = [
        "allowed.count",
        "used.count",
        "available.count",
        "exceed.count",
        "total.exceed.count",
        "expiry.time",
        "identifier",
        "class",
        "failed",
    ];

    fn of(policy: &str) -> Self {
        Self(Self::ALL.map(|name| VariableName::new(&format!("ratelimit.{policy}.{name}"))))
    }

    /// Sets them; those without a value stay as they are.
    fn tell(&self, scope: &mut Scope, values: [Option<Value<'static>>; 9]) {
        for (name, value) in self.0.iter().zip(values) {
            if let Some(value) = value {
                // Only the number of variables can refuse it.
                let _ = scope.set(name, value);
            }
        }
    }
}

struct Quota {
    names: Names,
    manner: Manner,
    own: Option<Own>,
    identifier: Option<VariableName>,
    weight: Option<VariableName>,
    /// Limit, interval and unit of the product that a step found.
    product: Option<[Vec<VariableName>; 3]>,
    counters: Arc<Counters>,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let place = link.place;
    // The same for all revisions: a deploy gives nobody new calls.
    let key = format!(
        "quota/{}/{}/{}/{}/{}",
        place.organization,
        place.environment,
        place.proxy,
        place.shared_flow.as_deref().unwrap_or_default(),
        link.name
    );
    let counters = link.context.live.keep(key, Counters::default);
    Ok(Box::new(Quota::build(link.name, config, counters)))
}

impl Quota {
    fn build(name: &str, config: Config, counters: Arc<Counters>) -> Self {
        let product = config.product_step.as_ref().map(|step| {
            ["limit", "interval", "timeunit"].map(|part| {
                let names = ["verifyapikey", "oauthv2accesstoken"].map(|prefix| {
                    VariableName::new(&format!(
                        "{prefix}.{step}.apiproduct.developer.quota.{part}"
                    ))
                });
                names.into_iter().collect()
            })
        });
        let variable = |text: &Option<String>| text.as_deref().map(VariableName::new);
        let own = config.allowance.map(|allowance| Own {
            count: variable(&allowance.count_reference),
            class: allowance
                .class
                .as_ref()
                .map(|(name, _)| VariableName::new(name)),
            interval: Source::of(&allowance.interval),
            unit: Source::of(&allowance.unit),
            allowance,
        });
        Self {
            names: Names::of(name),
            manner: config.manner,
            own,
            identifier: variable(&config.identifier),
            weight: variable(&config.weight),
            product,
            counters,
        }
    }

    /// The rule for this call; none when neither a product nor the policy says how many.
    fn rule(&self, scope: &Scope, class: Option<&str>) -> Result<Option<Rule>, PolicyFault> {
        if let Some(rule) = self.product_rule(scope) {
            return Ok(Some(rule));
        }
        let Some(own) = &self.own else {
            return Ok(None);
        };
        let of_class = own.allowance.class.as_ref().and_then(|(_, limits)| {
            let found = limits.iter().find(|(name, _)| Some(name.as_str()) == class);
            found.map(|(_, limit)| *limit)
        });
        let referred = own.count.as_ref().and_then(|name| scope.text(name));
        let limit = of_class
            .or_else(|| referred.and_then(|text| text.trim().parse().ok()))
            .unwrap_or(own.allowance.count);
        let unresolved = |code: &'static str, what: &str, name: &str| {
            PolicyFault::new(
                500,
                code,
                format!("Failed to resolve quota {what} reference {name}"),
            )
        };
        let interval = own
            .interval
            .text(scope)
            .and_then(|text| interval_of(&text))
            .ok_or_else(|| {
                unresolved(
                    "policies.ratelimit.FailedToResolveQuotaIntervalReference",
                    "interval",
                    own.interval.name(),
                )
            })?;
        let unit = own
            .unit
            .text(scope)
            .and_then(|text| Unit::from_word(&text))
            .ok_or_else(|| {
                unresolved(
                    "policies.ratelimit.FailedToResolveQuotaIntervalTimeUnitReference",
                    "time unit",
                    own.unit.name(),
                )
            })?;
        Ok(Some(Rule {
            manner: self.manner,
            unit,
            interval,
            limit,
        }))
    }

    /// What the product says that a step has found, where it says all of it.
    fn product_rule(&self, scope: &Scope) -> Option<Rule> {
        let parts = self.product.as_ref()?.each_ref().map(|names| {
            let mut found = names.iter().filter_map(|name| scope.text(name));
            found.next().map(|text| text.into_owned())
        });
        let [Some(limit), Some(interval), Some(unit)] = parts else {
            return None;
        };
        Some(Rule {
            manner: self.manner,
            unit: Unit::from_word(&unit)?,
            interval: interval_of(&interval)?,
            limit: limit.trim().parse().ok()?,
        })
    }

    fn run(&self, scope: &mut Scope, now: i64) -> Result<Next, PolicyFault> {
        let class = self.own.as_ref().and_then(|own| own.class.as_ref());
        let class = class.and_then(|name| scope.text(name));
        let class = class.map(|text| text.into_owned());
        let Some(rule) = self.rule(scope, class.as_deref())? else {
            let mut values = [const { None }; 9];
            values[8] = Some(false.into());
            self.names.tell(scope, values);
            return Ok(Next::Continue);
        };
        let weight = u64::from(weight(scope, self.weight.as_ref())?);
        let identifier = self.identifier.as_ref().and_then(|name| scope.text(name));
        let identifier = identifier.map_or_else(|| EVERYBODY.to_owned(), |text| text.into_owned());
        let key = match &class {
            Some(class) => format!("{identifier}\u{1f}{class}"),
            None => identifier.clone(),
        };
        let verdict = self.counters.count(&key, &rule, weight, now);
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let available = rule.limit.saturating_sub(verdict.used);
        let count = |count: u64| Some(Value::Long(number(count)));
        let values = [
            count(rule.limit),
            count(verdict.used),
            count(available),
            count(u64::from(!verdict.admitted)),
            count(verdict.exceeded),
            Some(Value::Long(verdict.ends)),
            Some(identifier.clone().into()),
            class.map(Value::from),
            Some((!verdict.admitted).into()),
        ];
        self.names.tell(scope, values);
        if verdict.admitted {
            return Ok(Next::Continue);
        }
        Err(PolicyFault::new(
            429,
            "policies.ratelimit.QuotaViolation",
            format!("Rate limit quota violation. Quota limit  exceeded. Identifier : {identifier}"),
        ))
    }
}

/// A number of units; at least one.
fn interval_of(text: &str) -> Option<i64> {
    let interval = text.trim().parse::<u32>().ok()?;
    (interval > 0).then_some(i64::from(interval))
}

impl Policy for Quota {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.run(flow.scope, now_ms())
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
    use super::super::test_support::{config, scope, text};
    use super::*;

    /// 2024-02-29T12:34:56Z, a Thursday.
    const NOW: i64 = 1_709_210_096_000;

    fn policy(kind: &str, body: &str) -> Quota {
        let xml = format!("<Quota name='q' {kind}>{body}</Quota>");
        Quota::build("q", config(&xml), Arc::default())
    }

    #[test]
    fn windows_end_as_their_type_says() {
        let rule = |manner, unit| Rule {
            manner,
            unit,
            interval: 1,
            limit: 1,
        };
        for (manner, unit, end) in [
            (Manner::Clock, Unit::Minute, 1_709_210_100_000),
            (Manner::Clock, Unit::Hour, 1_709_211_600_000),
            (Manner::Clock, Unit::Day, 1_709_251_200_000),
            (Manner::Clock, Unit::Week, 1_709_424_000_000),
            (Manner::Clock, Unit::Month, 1_709_251_200_000),
            (
                Manner::Calendar(1_709_210_090),
                Unit::Minute,
                1_709_210_150_000,
            ),
            (Manner::Flexible, Unit::Hour, NOW + 3_600_000),
        ] {
            assert_eq!(rule(manner, unit).end(NOW), end, "{manner:?} {unit:?}");
        }
    }

    #[test]
    fn calls_count_until_the_window_ends() {
        let policy = policy(
            "type='flexi'",
            "<Allow count='2'/><Interval>1</Interval><TimeUnit>minute</TimeUnit><Identifier ref='who'/>",
        );
        let mut scope = scope();
        assert!(policy.run(&mut scope, NOW).is_ok());
        assert!(policy.run(&mut scope, NOW + 1).is_ok());
        assert_eq!(
            text(&scope, "ratelimit.q.available.count").as_deref(),
            Some("0")
        );
        let fault = policy.run(&mut scope, NOW + 59_999).expect_err("a fault");
        assert_eq!(fault.status, 429);
        assert_eq!(
            fault.message,
            "Rate limit quota violation. Quota limit  exceeded. Identifier : _default"
        );
        scope.set_own("who", "ann".to_owned());
        assert!(policy.run(&mut scope, NOW).is_ok());
        scope.set_own("who", "_default".to_owned());
        assert!(policy.run(&mut scope, NOW + 60_000).is_ok());
    }

    #[test]
    fn rolling_windows_slide_and_refused_calls_do_not_count() {
        let policy = policy(
            "type='rollingwindow'",
            "<Allow count='2'/><Interval>1</Interval><TimeUnit>minute</TimeUnit>",
        );
        let mut scope = scope();
        assert!(policy.run(&mut scope, NOW).is_ok());
        assert!(policy.run(&mut scope, NOW + 30_000).is_ok());
        assert!(policy.run(&mut scope, NOW + 50_000).is_err());
        assert!(policy.run(&mut scope, NOW + 61_000).is_ok());
        assert!(policy.run(&mut scope, NOW + 62_000).is_err());
    }

    #[test]
    fn limits_come_from_variables_classes_and_products() {
        let policy = policy(
            "",
            "<Allow count='9' countRef='c'><Class ref='tier'><Allow class='gold' count='3'/></Class></Allow>\
             <Interval ref='i'>1</Interval><TimeUnit>hour</TimeUnit><UseQuotaConfigInAPIProduct stepName='k'/>",
        );
        let mut scope = scope();
        let mut limit = |name: &str, value: &str| {
            scope.set_own(name, value.to_owned());
            policy.run(&mut scope, NOW).unwrap();
            text(&scope, "ratelimit.q.allowed.count").unwrap()
        };
        assert_eq!(limit("unrelated", "1"), "9");
        assert_eq!(limit("c", "7"), "7");
        assert_eq!(limit("tier", "gold"), "3");
        // A product counts when it says all three.
        let of_product = |part: &str| format!("verifyapikey.k.apiproduct.developer.quota.{part}");
        assert_eq!(limit(&of_product("limit"), "5"), "3");
        assert_eq!(limit(&of_product("interval"), "1"), "3");
        assert_eq!(limit(&of_product("timeunit"), "day"), "5");
    }

    #[test]
    fn a_product_without_a_quota_has_the_default_or_no_limit() {
        let quota = |inside: &str| {
            policy(
                "",
                &format!(
                    "<UseQuotaConfigInAPIProduct stepName='k'>{inside}</UseQuotaConfigInAPIProduct>"
                ),
            )
        };
        let default = quota(
            "<DefaultConfig><Allow count='1'/><Interval>1</Interval><TimeUnit>hour</TimeUnit></DefaultConfig>",
        );
        assert!(default.run(&mut scope(), NOW).is_ok());
        assert!(default.run(&mut scope(), NOW).is_err());
        let bare = quota("");
        for _ in 0..3 {
            assert!(bare.run(&mut scope(), NOW).is_ok());
        }
        let mut of_product = scope();
        for (part, value) in [("limit", "2"), ("interval", "1"), ("timeunit", "minute")] {
            let name = format!("verifyapikey.k.apiproduct.developer.quota.{part}");
            of_product.set_own(&name, value.to_owned());
        }
        assert!(bare.run(&mut of_product, NOW).is_ok());
        assert!(bare.run(&mut of_product, NOW).is_ok());
        assert!(bare.run(&mut of_product, NOW).is_err());
    }
}
