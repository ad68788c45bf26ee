//! What outcomes make of an address: the counters of failures and successes, and the rules by which they decide.
//!
//! Probes and traffic share the counters of an address, each with thresholds of its own. An outcome whose threshold is
//! 0 is not counted and forgets nothing. Refuses to know where outcomes come from, and what time it is.

use crate::model::plan::{StatusPlan, Thresholds};

/// How a try, or a probe, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered with this status.
    Answered(u16),
    /// A connection was made; nothing is known of answers.
    Connected,
    /// No connection, or one that broke before an answer, or an answer that is none.
    Broken,
    /// Connecting, sending or waiting for the answer took too long.
    TimedOut,
}

/// What an outcome says of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Success,
    ConnectionFailure,
    Timeout,
    BadStatus,
}

/// An upstream that says so itself has run into a time-out, as the gateway would have.
const GATEWAY_TIMEOUT: u16 = 504;

/// Outcomes counted since the last one of the other side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    successes: u16,
    connection_failures: u16,
    timeouts: u16,
    bad_statuses: u16,
    failures: u16,
}

impl Counters {
    pub(super) fn are_clear(self) -> bool {
        self == Self::default()
    }

    /// Counts a sign. `Some` is the new state of the address if the sign changes it.
    pub(super) fn count(&mut self, healthy: bool, sign: Sign, limits: &Thresholds) -> Option<bool> {
        if !is_counted(sign, limits) {
            return None;
        }
        if sign == Sign::Success {
            if healthy && self.are_clear() {
                return None;
            }
            *self = Self {
                successes: self.successes.saturating_add(1),
                ..Self::default()
            };
            if self.successes < limits.successes {
                return None;
            }
            if healthy {
                // Whatever was counted against it is forgotten; nothing is left to count for it.
                *self = Self::default();
                return None;
            }
            *self = Self::default();
            return Some(true);
        }
        self.successes = 0;
        let (count, limit) = match sign {
            Sign::Timeout => (&mut self.timeouts, limits.timeouts),
            Sign::BadStatus => (&mut self.bad_statuses, limits.bad_statuses),
            Sign::ConnectionFailure | Sign::Success => {
                (&mut self.connection_failures, limits.connection_failures)
            }
        };
        *count = count.saturating_add(1);
        let reached = limit > 0 && *count >= limit;
        self.failures = self.failures.saturating_add(1);
        let reached_together = limits.failures > 0 && self.failures >= limits.failures;
        (healthy && (reached || reached_together)).then_some(false)
    }
}

/// Do the thresholds ask for such signs?
pub(super) fn is_counted(sign: Sign, limits: &Thresholds) -> bool {
    match sign {
        Sign::Success => limits.successes > 0,
        Sign::ConnectionFailure => limits.connection_failures > 0 || limits.failures > 0,
        Sign::Timeout => limits.timeouts > 0 || limits.failures > 0,
        Sign::BadStatus => limits.bad_statuses > 0 || limits.failures > 0,
    }
}

/// Numbers of statuses; higher ones say nothing.
const STATUSES: usize = 1024;

/// Sets of statuses, for a look at each answer.
#[derive(Debug, Clone)]
pub(super) struct Statuses {
    good: [u64; STATUSES / 64],
    bad: [u64; STATUSES / 64],
}

impl Statuses {
    pub(super) fn of(plan: &StatusPlan) -> Self {
        let bad = bits(&plan.bad);
        let good = match plan.others_are_good {
            true => bad.map(|word| !word),
            false => bits(&plan.good),
        };
        Self { good, bad }
    }

    /// What an outcome says, if anything. A status that is in both sets is good.
    pub(super) fn sign(&self, outcome: Outcome) -> Option<Sign> {
        match outcome {
            Outcome::Connected => Some(Sign::Success),
            Outcome::Broken => Some(Sign::ConnectionFailure),
            Outcome::TimedOut => Some(Sign::Timeout),
            Outcome::Answered(status) if contains(&self.good, status) => Some(Sign::Success),
            Outcome::Answered(status) if contains(&self.bad, status) => Some(Sign::BadStatus),
            Outcome::Answered(_) => None,
        }
    }

    /// The same for proxied traffic, where the upstream may be a gateway itself.
    pub(super) fn sign_of_traffic(&self, outcome: Outcome) -> Option<Sign> {
        match outcome {
            Outcome::Answered(GATEWAY_TIMEOUT) => Some(Sign::Timeout),
            _ => self.sign(outcome),
        }
    }
}

fn bits(statuses: &[u16]) -> [u64; STATUSES / 64] {
    let mut bits = [0; STATUSES / 64];
    for status in statuses {
        if let Some(word) = bits.get_mut(usize::from(*status) / 64) {
            *word |= 1 << (status % 64);
        }
    }
    bits
}

fn contains(bits: &[u64; STATUSES / 64], status: u16) -> bool {
    bits.get(usize::from(status) / 64)
        .is_some_and(|word| word & (1 << (status % 64)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Thresholds = Thresholds {
        successes: 2,
        connection_failures: 2,
        timeouts: 3,
        bad_statuses: 3,
        failures: 0,
    };

    /// Signs by letter: success, connection failure, time-out, bad status. Gives the state after each.
    fn states(limits: &Thresholds, signs: &str) -> String {
        let mut counters = Counters::default();
        let mut healthy = true;
        let mut states = String::new();
        for letter in signs.chars() {
            let sign = match letter {
                's' => Sign::Success,
                'c' => Sign::ConnectionFailure,
                't' => Sign::Timeout,
                _ => Sign::BadStatus,
            };
            if let Some(now) = counters.count(healthy, sign, limits) {
                assert_ne!(now, healthy, "told without a change");
                healthy = now;
            }
            states.push(if healthy { 'H' } else { 'u' });
        }
        states
    }

    #[test]
    fn counts_each_kind_by_itself() {
        let together = Thresholds {
            successes: 1,
            failures: 3,
            ..Thresholds::default()
        };
        let never_healed = Thresholds {
            successes: 0,
            ..LIMITS
        };
        let cases = [
            (LIMITS, "cc", "Hu"),
            (LIMITS, "tt", "HH"),
            (LIMITS, "ttt", "HHu"),
            (LIMITS, "bbtb", "HHHu"),
            (LIMITS, "cttbbc", "HHHHHu"),
            // A success forgets, at once.
            (LIMITS, "csc", "HHH"),
            (LIMITS, "cscc", "HHHu"),
            // Two in a row heal, not two with a failure between.
            (LIMITS, "ccss", "HuuH"),
            (LIMITS, "ccscss", "HuuuuH"),
            (LIMITS, "ccsscc", "HuuHHu"),
            // What is not counted does not forget either.
            (never_healed, "csc", "HHu"),
            (never_healed, "ccsss", "Huuuu"),
            // Any three in a row.
            (together, "ctb", "HHu"),
            (together, "ctsctb", "HHHHHu"),
            (together, "ctbs", "HHuH"),
            (Thresholds::default(), "cctts", "HHHHH"),
        ];
        for (limits, signs, expected) in cases {
            assert_eq!(states(&limits, signs), expected, "{signs} {limits:?}");
        }
    }

    #[test]
    fn statuses_say_good_bad_or_nothing() {
        let listed = Statuses::of(&StatusPlan {
            good: vec![200, 302, 999],
            bad: vec![500, 504, 60_000],
            others_are_good: false,
        });
        let others = Statuses::of(&StatusPlan {
            bad: vec![500],
            others_are_good: true,
            ..StatusPlan::default()
        });
        let cases = [
            (&listed, 200, Some(Sign::Success)),
            (&listed, 999, Some(Sign::Success)),
            (&listed, 500, Some(Sign::BadStatus)),
            (&listed, 504, Some(Sign::BadStatus)),
            (&listed, 404, None),
            (&listed, 60_000, None),
            (&others, 404, Some(Sign::Success)),
            (&others, 500, Some(Sign::BadStatus)),
        ];
        for (statuses, status, expected) in cases {
            let sign = statuses.sign(Outcome::Answered(status));
            assert_eq!(sign, expected, "{status}");
        }
        let relayed = listed.sign_of_traffic(Outcome::Answered(504));
        assert_eq!(relayed, Some(Sign::Timeout));
    }
}
