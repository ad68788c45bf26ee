//! `StatisticsCollector`: values of requests as metrics.
//!
//! Numbers are summed up and counted; texts are counted by value, as long as they are few: what comes after the first
//! [`VALUES_MAX`] of a statistic counts as one value more. Counts live as long as some proxy has the policy.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::statistics_collector::{Config, Statistic};
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::runtime::live::Live;
use crate::runtime::node::NodePart;

/// Values of one statistic that are told apart.
const VALUES_MAX: usize = 100;
/// Longest value; the rest of longer ones is cut off.
const VALUE_BYTES_MAX: usize = 100;
/// Statistics on the metrics page, all values counted; further ones are left out.
const SERIES_MAX: usize = 10_000;
/// The value that stands for those which are not told apart.
const OTHERS: &str = "(others)";

const VALUES: &str = "sallyport_statistic_values_total";
const SUM: &str = "sallyport_statistic_sum";
const COUNT: &str = "sallyport_statistic_count";

/// All policies' counts, a part of the metrics page.
#[derive(Default)]
pub(super) struct Statistics {
    is_part: AtomicBool,
    policies: Mutex<BTreeMap<Owner, Weak<Counts>>>,
}

/// Whose counts they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    organization: String,
    environment: String,
    proxy: String,
    policy: String,
}

/// The counts of one policy, by statistic.
#[derive(Default)]
struct Counts {
    statistics: Mutex<BTreeMap<String, Count>>,
}

#[derive(Default)]
struct Count {
    sum: f64,
    count: u64,
    values: BTreeMap<Box<str>, u64>,
    others: u64,
}

struct StatisticsCollector {
    statistics: Vec<(VariableName, Statistic)>,
    counts: Arc<Counts>,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let named = |statistic: Statistic| (VariableName::new(&statistic.reference), statistic);
    let place = link.place;
    let owner = Owner {
        organization: place.organization.clone(),
        environment: place.environment.clone(),
        proxy: place.proxy.clone(),
        policy: match &place.shared_flow {
            Some(flow) => format!("{flow}/{}", link.name),
            None => link.name.to_owned(),
        },
    };
    Ok(Box::new(StatisticsCollector {
        statistics: config.statistics.into_iter().map(named).collect(),
        counts: Statistics::of(link.context.live).counts(owner),
    }))
}

impl Statistics {
    fn of(live: &Live) -> Arc<Self> {
        let statistics = live.keep("statistics of flows", Self::default);
        if !statistics.is_part.swap(true, Ordering::AcqRel) {
            let part: Arc<dyn NodePart> = statistics.clone();
            live.node().add(part);
        }
        statistics
    }

    fn counts(&self, owner: Owner) -> Arc<Counts> {
        let mut policies = self.policies.lock();
        if let Some(counts) = policies.get(&owner).and_then(Weak::upgrade) {
            return counts;
        }
        policies.retain(|_, counts| counts.strong_count() > 0);
        let counts = Arc::new(Counts::default());
        policies.insert(owner, Arc::downgrade(&counts));
        counts
    }

    fn each(&self, mut see: impl FnMut(&Owner, &BTreeMap<String, Count>)) {
        let policies = self.policies.lock().clone();
        for (owner, counts) in policies {
            if let Some(counts) = counts.upgrade() {
                see(&owner, &counts.statistics.lock());
            }
        }
    }
}

impl Counts {
    fn note(&self, statistic: &Statistic, value: Option<&str>) {
        let value = value.or(statistic.default.as_deref());
        let Some(value) = value else { return };
        let mut statistics = self.statistics.lock();
        if !statistics.contains_key(&statistic.name) {
            statistics.insert(statistic.name.clone(), Count::default());
        }
        let Some(count) = statistics.get_mut(&statistic.name) else {
            return;
        };
        if statistic.is_number {
            let default = || statistic.default.as_deref()?.parse::<f64>().ok();
            let number = value.trim().parse::<f64>().ok().filter(|it| it.is_finite());
            if let Some(number) = number.or_else(default) {
                count.sum += number;
                count.count += 1;
            }
            return;
        }
        let end = value.floor_char_boundary(VALUE_BYTES_MAX);
        let value = value.get(..end).unwrap_or(value);
        if let Some(count) = count.values.get_mut(value) {
            *count += 1;
        } else if count.values.len() < VALUES_MAX {
            count.values.insert(value.into(), 1);
        } else {
            count.others += 1;
        }
    }
}

/// A label's value in Prometheus' text format.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

impl NodePart for Statistics {
    fn name(&self) -> &'static str {
        "statistics"
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn metrics(&self, page: &mut String) {
        let (mut values, mut sums, mut counts) = (String::new(), String::new(), String::new());
        let mut series = 0;
        self.each(|owner, statistics| {
            for (name, count) in statistics {
                let labels = format!(
                    "organization=\"{}\",environment=\"{}\",proxy=\"{}\",policy=\"{}\",statistic=\"{}\"",
                    escaped(&owner.organization),
                    escaped(&owner.environment),
                    escaped(&owner.proxy),
                    escaped(&owner.policy),
                    escaped(name)
                );
                if count.count > 0 && series < SERIES_MAX {
                    series += 1;
                    let _ = writeln!(sums, "{SUM}{{{labels}}} {}", count.sum);
                    let _ = writeln!(counts, "{COUNT}{{{labels}}} {}", count.count);
                }
                let others = (count.others > 0).then_some((OTHERS, count.others));
                let known = count.values.iter().map(|(value, count)| (&**value, *count));
                for (value, count) in known.chain(others) {
                    if series < SERIES_MAX {
                        series += 1;
                        let value = escaped(value);
                        let _ = writeln!(values, "{VALUES}{{{labels},value=\"{value}\"}} {count}");
                    }
                }
            }
        });
        for (name, help, lines) in [
            (VALUES, "Requests by the value of a statistic", values),
            (SUM, "The sum of the values of a statistic", sums),
            (COUNT, "Requests with a value of a statistic", counts),
        ] {
            if !lines.is_empty() {
                let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} counter\n{lines}");
            }
        }
    }

    fn status(&self) -> Json {
        let mut policies = 0_usize;
        self.each(|_, _| policies += 1);
        json!({ "policies": policies })
    }
}

impl Policy for StatisticsCollector {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        for (name, statistic) in &self.statistics {
            let value = flow.scope.text(name);
            self.counts.note(statistic, value.as_deref());
        }
        Ok(Next::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistic(name: &str, is_number: bool, default: Option<&str>) -> Statistic {
        Statistic {
            name: name.to_owned(),
            reference: "x".to_owned(),
            is_number,
            default: default.map(str::to_owned),
        }
    }

    #[test]
    fn numbers_are_summed_and_texts_counted() {
        let statistics = Statistics::default();
        let owner = Owner {
            organization: "o".to_owned(),
            environment: "e".to_owned(),
            proxy: "p".to_owned(),
            policy: "s".to_owned(),
        };
        let counts = statistics.counts(owner.clone());
        let price = statistic("price", true, Some("0"));
        for value in [Some("1.5"), Some("2"), None, Some("x"), Some("inf")] {
            counts.note(&price, value);
        }
        let product = statistic("product", false, None);
        counts.note(&product, Some("a \"b\""));
        counts.note(&product, None);
        for number in 0..VALUES_MAX + 5 {
            counts.note(&product, Some(&format!("v{number}")));
        }
        let mut page = String::new();
        statistics.metrics(&mut page);
        let labels = "organization=\"o\",environment=\"e\",proxy=\"p\",policy=\"s\"";
        for line in [
            format!("{SUM}{{{labels},statistic=\"price\"}} 3.5"),
            format!("{COUNT}{{{labels},statistic=\"price\"}} 5"),
            format!("{VALUES}{{{labels},statistic=\"product\",value=\"a \\\"b\\\"\"}} 1"),
            format!("{VALUES}{{{labels},statistic=\"product\",value=\"{OTHERS}\"}} 6"),
        ] {
            assert!(page.lines().any(|other| other == line), "{line} in {page}");
        }
        // The next revision goes on counting; what nobody has any more is forgotten.
        assert!(Arc::ptr_eq(&counts, &statistics.counts(owner.clone())));
        drop(counts);
        assert!(statistics.counts(owner).statistics.lock().is_empty());
    }
}
