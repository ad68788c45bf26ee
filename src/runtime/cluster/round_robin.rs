//! Weighted round-robin: over a period each address gets exactly its share, well mixed.
//!
//! The weights, divided by their greatest common divisor, cover a circle of `total` places. Turn `n` takes place
//! `n × step mod total`; because `step` and `total` have no common divisor, `total` turns in a row visit every place
//! once. With `step` near the golden section of the circle neighbouring turns fall far apart. Compared with a wheel
//! written out, it needs no memory for large weights; compared with smooth weighted round-robin, no lock.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::cluster::table::Address;

/// Turns taken to get past unavailable and tried addresses before all are looked at in a row. More turns keep the
/// shares of the remaining ones exact.
const TURNS_MAX: usize = 16;

const GOLDEN_SECTION: f64 = 0.618_033_988_749_894_9;

pub(super) struct Wheel {
    /// For each address the place after its last one; empty when all weights are equal.
    ends: Box<[u64]>,
    /// Number of places; at most 65,536 × 65,535, so that the product of two places fits.
    total: u64,
    step: u64,
}

impl Wheel {
    /// A wheel for these weights, each at most 65,535.
    pub(super) fn new(weights: &[u32]) -> Self {
        let divisor = weights
            .iter()
            .fold(0, |divisor, weight| {
                common_divisor(divisor, u64::from(*weight))
            })
            .max(1);
        let ends: Box<[u64]> = weights
            .iter()
            .scan(0, |end, weight| {
                *end += u64::from(*weight) / divisor;
                Some(*end)
            })
            .collect();
        let total = ends.last().copied().unwrap_or(0);
        let equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        Self {
            ends: if equal { Box::default() } else { ends },
            total,
            step: step(total),
        }
    }

    /// Index of the address whose turn it is.
    fn at(&self, turn: u64) -> usize {
        if self.total <= 1 {
            return 0;
        }
        let place = turn % self.total * self.step % self.total;
        if self.ends.is_empty() {
            place as usize
        } else {
            self.ends.partition_point(|end| *end <= place)
        }
    }

    /// The next address that is available and not yet tried; when all were tried, one that is available.
    pub(super) fn pick<'a>(
        &self,
        addresses: &'a [Address],
        turn: &AtomicU64,
        tried: &[SocketAddr],
    ) -> Option<&'a Address> {
        if let [only] = addresses {
            return only.vitals.is_available().then_some(only);
        }
        let first = self.at(turn.fetch_add(1, Ordering::Relaxed));
        let address = addresses.get(first)?;
        if address.vitals.is_available() && !tried.contains(&address.socket) {
            return Some(address);
        }
        self.pick_another(addresses, first, turn, tried)
    }

    #[cold]
    fn pick_another<'a>(
        &self,
        addresses: &'a [Address],
        first: usize,
        turn: &AtomicU64,
        tried: &[SocketAddr],
    ) -> Option<&'a Address> {
        let is_fresh =
            |address: &&Address| address.vitals.is_available() && !tried.contains(&address.socket);
        let by_turns = (0..TURNS_MAX)
            .filter_map(|_| addresses.get(self.at(turn.fetch_add(1, Ordering::Relaxed))))
            .find(is_fresh);
        // From the one whose turn it was, round to itself.
        let in_a_row = || addresses.iter().cycle().skip(first).take(addresses.len());
        by_turns
            .or_else(|| in_a_row().find(is_fresh))
            .or_else(|| in_a_row().find(|address| address.vitals.is_available()))
    }
}

/// The number nearest to the golden section of `total` that has no divisor in common with it.
fn step(total: u64) -> u64 {
    let wanted = ((total as f64) * GOLDEN_SECTION) as u64;
    // Ends soon: 1 and every prime that does not divide `total` qualify.
    (0..=total)
        .flat_map(|distance| [wanted.checked_sub(distance), Some(wanted + distance)])
        .flatten()
        .find(|step| *step > 0 && common_divisor(*step, total) == 1)
        .unwrap_or(1)
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32], from: u64, turns: u64) -> Vec<u64> {
        let wheel = Wheel::new(weights);
        let mut shares = vec![0; weights.len()];
        for turn in from..from + turns {
            shares[wheel.at(turn)] += 1;
        }
        shares
    }

    #[test]
    fn is_exact_over_a_period() {
        let cases: [(&[u32], &[u64]); 7] = [
            (&[1], &[1]),
            (&[100, 100], &[1, 1]),
            (&[3, 1], &[3, 1]),
            (&[100, 50, 25], &[4, 2, 1]),
            (&[7, 7, 7, 7, 7], &[1, 1, 1, 1, 1]),
            (&[65_535, 1], &[65_535, 1]),
            (&[10, 0, 20], &[1, 0, 2]),
        ];
        for (weights, expected) in cases {
            let period = expected.iter().sum();
            for from in [0, 1, 977, u64::from(u32::MAX)] {
                assert_eq!(shares(weights, from, period), expected, "{weights:?}");
            }
        }
    }

    #[test]
    fn mixes_well() {
        // In every tenth of a period the heavy address has nearly its share.
        let heavy = shares(&[900, 100], 5, 1)[0] + shares(&[900, 100], 6, 9)[0];
        assert_eq!(heavy, 9);
        let wheel = Wheel::new(&[1, 1]);
        assert_ne!(wheel.at(0), wheel.at(1));
    }
}
