//! How long an address takes to answer: an average that forgets, and believes bad news at once.
//!
//! An exponentially weighted moving average over [`DECAY`]. A sample above it replaces it (peak-sensitive): a target that
//! turns slow is noticed with the first slow answer, one that recovers is believed gradually.

use std::time::{Duration, Instant};

/// After this long a sample's weight has fallen to 1/e.
const DECAY: Duration = Duration::from_secs(10);

/// An average in seconds, as of a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Average {
    seconds: f64,
    at: Option<Instant>,
}

impl Average {
    /// An average that begins at a value.
    pub(super) fn starting(seconds: f64, now: Instant) -> Self {
        Self {
            seconds,
            at: Some(now),
        }
    }

    /// Was anything observed, or given at the start?
    pub(super) fn is_known(&self) -> bool {
        self.at.is_some()
    }

    /// The value now, in seconds. Without samples it falls towards 0, so that an address which was slow is tried again.
    pub(super) fn seconds(&self, now: Instant) -> f64 {
        self.seconds * self.weight(now)
    }

    pub(super) fn observe(&mut self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f64();
        let weight = self.weight(now);
        let average = self.seconds * weight + sample * (1.0 - weight);
        *self = Self::starting(average.max(sample).min(f64::MAX), now);
    }

    /// What is left of the past.
    fn weight(&self, now: Instant) -> f64 {
        match self.at {
            Some(at) => {
                let age = now.saturating_duration_since(at);
                (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
            }
            None => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut average = Average::default();
        assert!(!average.is_known());
        average.observe(Duration::from_millis(10), start);
        assert!((average.seconds(start) - 0.010).abs() < 1e-9);
        average.observe(Duration::from_secs(2), after(1));
        assert!((average.seconds(after(1)) - 2.0).abs() < 1e-9);
        average.observe(Duration::from_millis(10), after(2));
        let soon = average.seconds(after(2));
        assert!((1.7..1.9).contains(&soon), "{soon}");
        for second in 3..60 {
            average.observe(Duration::from_millis(10), after(second));
        }
        let later = average.seconds(after(60));
        assert!(later < 0.03, "{later}");
        assert!(average.seconds(after(600)) < 1e-9);
    }
}
