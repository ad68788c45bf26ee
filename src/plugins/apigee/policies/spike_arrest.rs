//! `SpikeArrest`: one call per interval, the rest refused at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::spike_arrest::{Config, interval_micros};
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;

/// Identifiers that are kept; those whose interval is over go first.
const IDENTIFIERS_MAX: usize = 100_000;

/// When the next call of an identifier may come.
#[derive(Default)]
struct Turns(Mutex<AHashMap<Box<str>, Instant>>);

impl Turns {
    /// Takes a turn, unless the one before is not over.
    fn take(&self, identifier: &str, interval: Duration, weight: u32, now: Instant) -> bool {
        let mut turns = self.0.lock();
        let next = now + interval.saturating_mul(weight);
        match turns.get_mut(identifier) {
            Some(free) if now < *free => false,
            Some(free) => {
                *free = next;
                true
            }
            None => {
                if turns.len() >= IDENTIFIERS_MAX {
                    turns.retain(|_, free| now < *free);
                }
                if turns.len() >= IDENTIFIERS_MAX {
                    // All wait: one more that is let through costs less than memory without end.
                    return true;
                }
                turns.insert(identifier.into(), next);
                true
            }
        }
    }
}

struct SpikeArrest {
    variable: VariableName,
    rate_reference: Option<VariableName>,
    /// Where the reference is unset.
    rate: Option<Rate>,
    identifier: Option<VariableName>,
    weight: Option<VariableName>,
    turns: Arc<Turns>,
}

/// So many calls in a time, as written, and the time between two of them.
#[derive(Clone)]
struct Rate {
    text: Arc<str>,
    interval: Duration,
}

impl Rate {
    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            interval: Duration::from_micros(interval_micros(text)?),
            text: text.trim().into(),
        })
    }
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let place = link.place;
    // The same for all revisions: a deploy must not open the gates.
    let key = format!(
        "spike-arrest/{}/{}/{}/{}/{}",
        place.organization,
        place.environment,
        place.proxy,
        place.shared_flow.as_deref().unwrap_or_default(),
        link.name
    );
    let turns = link.context.live.keep(key, Turns::default);
    Ok(Box::new(SpikeArrest::build(link.name, &config, turns)))
}

impl SpikeArrest {
    fn build(name: &str, config: &Config, turns: Arc<Turns>) -> Self {
        Self {
            variable: VariableName::new(&format!("ratelimit.{name}.failed")),
            rate_reference: config.rate.reference.as_deref().map(VariableName::new),
            rate: config.rate.text.as_deref().and_then(Rate::parse),
            identifier: config.identifier.as_deref().map(VariableName::new),
            weight: config.weight.as_deref().map(VariableName::new),
            turns,
        }
    }

    fn run(&self, scope: &mut Scope, now: Instant) -> Result<Next, PolicyFault> {
        let referred = self
            .rate_reference
            .as_ref()
            .and_then(|name| scope.text(name));
        let rate = match referred {
            Some(text) => Rate::parse(&text),
            None => self.rate.clone(),
        };
        let Some(rate) = rate else {
            let name = self
                .rate_reference
                .as_ref()
                .map_or("", VariableName::as_str);
            return Err(PolicyFault::new(
                500,
                "policies.ratelimit.FailedToResolveSpikeArrestRate",
                format!("Failed to resolve Spike Arrest Rate reference {name}"),
            ));
        };
        let weight = weight(scope, self.weight.as_ref())?;
        let identifier = self.identifier.as_ref().and_then(|name| scope.text(name));
        let identifier = identifier.unwrap_or_default();
        let free = weight == 0 || self.turns.take(&identifier, rate.interval, weight, now);
        drop(identifier);
        // Fails only when there are too many variables.
        let _ = scope.set(&self.variable, (!free).into());
        if free {
            return Ok(Next::Continue);
        }
        Err(PolicyFault::new(
            429,
            "policies.ratelimit.SpikeArrestViolation",
            format!("Spike arrest violation. Allowed rate : {}", rate.text),
        ))
    }
}

/// How many calls this one counts for: a variable that is unset counts one.
pub(super) fn weight(scope: &Scope, name: Option<&VariableName>) -> Result<u32, PolicyFault> {
    let Some(text) = name.and_then(|name| scope.text(name)) else {
        return Ok(1);
    };
    text.trim().parse().map_err(|_| {
        PolicyFault::new(
            500,
            "policies.ratelimit.InvalidMessageWeight",
            format!("Invalid message weight value {text}"),
        )
    })
}

impl Policy for SpikeArrest {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.run(flow.scope, Instant::now())
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

    fn policy(body: &str) -> SpikeArrest {
        let config: Config = config(&format!("<SpikeArrest name='s'>{body}</SpikeArrest>"));
        SpikeArrest::build("s", &config, Arc::default())
    }

    #[test]
    fn one_call_per_interval() {
        let policy = policy("<Rate>10ps</Rate>");
        let (mut scope, start) = (scope(), Instant::now());
        let mut at = |millis| policy.run(&mut scope, start + Duration::from_millis(millis));
        assert!(at(0).is_ok());
        let fault = at(50).expect_err("a fault");
        assert_eq!(fault.status, 429);
        assert_eq!(fault.message, "Spike arrest violation. Allowed rate : 10ps");
        assert!(at(100).is_ok());
        assert!(at(199).is_err());
        assert_eq!(text(&scope, "ratelimit.s.failed").as_deref(), Some("true"));
    }

    #[test]
    fn identifiers_and_weights_count() {
        let policy = policy(
            "<Rate ref='unset'>1ps</Rate><Identifier ref='who'/><MessageWeight ref='weight'/>",
        );
        let (mut scope, start) = (scope(), Instant::now());
        scope.set_own("who", "ann".to_owned());
        assert!(policy.run(&mut scope, start).is_ok());
        assert!(policy.run(&mut scope, start).is_err());
        scope.set_own("who", "bob".to_owned());
        scope.set_own("weight", "3".to_owned());
        assert!(policy.run(&mut scope, start).is_ok());
        assert!(
            policy
                .run(&mut scope, start + Duration::from_secs(2))
                .is_err()
        );
        assert!(
            policy
                .run(&mut scope, start + Duration::from_secs(3))
                .is_ok()
        );
        scope.set_own("weight", "many".to_owned());
        let fault = policy.run(&mut scope, start).expect_err("a fault");
        assert_eq!(fault.code, "policies.ratelimit.InvalidMessageWeight");
    }
}
