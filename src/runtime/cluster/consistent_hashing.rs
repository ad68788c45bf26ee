//! Consistent hashing: the same input leads to the same address on every node, and few inputs move when an address
//! comes or goes.
//!
//! A ring of 2³² places. An address of average weight holds `max(1000, slots) / 16` of them, others in proportion, at
//! the hashes of `IP::PORT N`. A value is hashed the same way and belongs to the holder of its place or of the nearest
//! one below. A ring of only `slots` places is what others use; there addresses hinder one another, and when one leaves
//! the rest move up: with 20 of them a quarter more inputs move than must. Here an address holds the same places whoever
//! else is there, so only the inputs of the one that leaves move, and with 625 places (the default) its share is within a
//! sixth of the fair one. Layout and hash decide where every input goes: do not change them.

use std::net::SocketAddr;

use crate::base::xxhash::xxhash32;
use crate::runtime::cluster::table::Address;

/// Fewest slots that count.
const SLOTS_MIN: u32 = 1_000;
/// Slots for each place that an address of average weight holds.
const SLOTS_PER_PLACE: f64 = 16.0;
/// Most places held on one ring; with more addresses than this allows each holds fewer, down to one.
const HELD_MAX: f64 = 1_048_576.0;

/// An address as the ring sees it. Members come sorted by endpoint name and address.
pub(super) struct Member {
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
}

pub(super) struct Ring {
    /// Places with the index of their member, ascending.
    held: Box<[(u32, u32)]>,
}

impl Ring {
    pub(super) fn new(slots: u32, members: &[Member]) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let count = members.len() as f64;
        let average = (f64::from(slots.max(SLOTS_MIN)) / SLOTS_PER_PLACE).min(HELD_MAX / count);
        let mut held = Vec::new();
        for (index, member) in (0..).zip(members) {
            let share = f64::from(member.weight) / total as f64 * count;
            let places = ((share * average).round() as u32).max(1);
            let name = match member.address {
                SocketAddr::V4(address) => format!("{}::{}", address.ip(), address.port()),
                SocketAddr::V6(address) => format!("[{}]::{}", address.ip(), address.port()),
            };
            held.extend((1..=places).map(|number| {
                let place = xxhash32(format!("{name} {number}").as_bytes());
                (place, index)
            }));
        }
        held.sort_unstable();
        Self {
            held: held.into_boxed_slice(),
        }
    }

    /// The address that holds the key's place, or the next available one below.
    pub(super) fn pick<'a>(
        &self,
        addresses: &'a [Address],
        key: Option<u64>,
    ) -> Option<&'a Address> {
        // Without a key the empty value counts.
        let place = key.map_or_else(|| xxhash32(b""), |key| key as u32);
        let mut holders = self.downwards(place);
        let first = addresses.get(holders.next()? as usize)?;
        if first.vitals.is_available() {
            return Some(first);
        }
        // A walk past every place of the ring would find nothing either.
        if !addresses.iter().any(|it| it.vitals.is_available()) {
            return None;
        }
        holders
            .filter_map(|holder| addresses.get(holder as usize))
            .find(|address| address.vitals.is_available())
    }

    /// The holders of the place and of all below it, round the ring.
    fn downwards(&self, place: u32) -> impl Iterator<Item = u32> {
        let above = self.held.partition_point(|(held, _)| *held <= place);
        let (below, above) = self.held.split_at_checked(above).unwrap_or_default();
        let round = below.iter().rev().chain(above.iter().rev());
        round.map(|(_, holder)| *holder)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SLOTS: u32 = 10_000;
    const KEYS: u32 = 20_000;

    fn ring(slots: u32, weights: &[(u8, u32)]) -> Ring {
        let members: Vec<Member> = weights
            .iter()
            .map(|(last, weight)| Member {
                address: ([192, 0, 2, *last], 8000).into(),
                weight: *weight,
            })
            .collect();
        Ring::new(slots, &members)
    }

    /// The member (last byte of its address) for each of many keys.
    fn owners(slots: u32, weights: &[(u8, u32)]) -> Vec<u8> {
        let ring = ring(slots, weights);
        (0..KEYS)
            .map(|key| xxhash32(format!("user-{key}").as_bytes()))
            .map(|place| weights[ring.downwards(place).next().unwrap() as usize].0)
            .collect()
    }

    #[test]
    fn moves_few_keys_when_any_one_leaves() {
        for count in [2u8, 3, 5, 10, 20, 50] {
            let all: Vec<(u8, u32)> = (1..=count).map(|last| (last, 100)).collect();
            let before = owners(SLOTS, &all);
            for leaving in 1..=count {
                let rest: Vec<(u8, u32)> = all
                    .iter()
                    .copied()
                    .filter(|(last, _)| *last != leaving)
                    .collect();
                let after = owners(SLOTS, &rest);
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b);
                // Nobody else's.
                assert!(moved.clone().all(|(owner, _)| *owner == leaving));
                let share = moved.count() as f64 / f64::from(KEYS);
                let allowed = 1.2 / f64::from(count);
                assert!(
                    share <= allowed,
                    "{leaving} of {count}: {share} > {allowed}"
                );
            }
        }
    }

    #[test]
    fn follows_weights() {
        for (slots, tolerance) in [(SLOTS, 0.03), (65_536, 0.015), (10, 0.1)] {
            let owners = owners(slots, &[(1, 300), (2, 100)]);
            let heavy = owners.iter().filter(|owner| **owner == 1).count() as f64;
            let share = heavy / f64::from(KEYS);
            assert!((share - 0.75).abs() < tolerance, "{slots}: {share}");
        }
    }

    #[test]
    fn is_the_same_in_every_version() {
        let ring = ring(SLOTS, &[(1, 100), (2, 100), (3, 100)]);
        let digest = ring.held.iter().fold(0u32, |digest, (place, holder)| {
            xxhash32(&(digest ^ *place ^ *holder).to_le_bytes())
        });
        assert_eq!((ring.held.len(), digest), (1_875, DIGEST));
    }

    /// Of the ring above; a change moves every user of every hash balancer to another upstream.
    const DIGEST: u32 = 529_144_513;

    #[test]
    fn has_room_for_many() {
        let members: Vec<Member> = (0..65_536u32)
            .map(|n| Member {
                address: ([10, 0, (n >> 8) as u8, n as u8], 80).into(),
                weight: 1,
            })
            .collect();
        let ring = Ring::new(65_536, &members);
        assert!(ring.held.len() <= HELD_MAX as usize);
        assert_eq!(Ring::new(10, &[]).downwards(5).next(), None);
    }
}
