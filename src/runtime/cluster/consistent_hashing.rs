//! Consistent hashing: the same input leads to the same address on every node, and few inputs move when an address
//! comes or goes.
//!
//! A ring of `max(1000, slots)` places. Each address holds about `160 × endpoints × weight / total weight` of them, at
//! the hashes of `IP::PORT N`; when a place is taken the address gets one more try. A value is hashed the same way and
//! belongs to the holder of its place or of the nearest one below. Layout and hash follow a
//! published gateway to the last rounding, so that a fleet of both agrees: do not change either.

use std::net::SocketAddr;

use crate::base::xxhash::xxhash32;
use crate::runtime::cluster::table::Address;

/// Fewest places of a ring.
const PLACES_MIN: u32 = 1_000;
/// Places that an address of average weight holds.
const PLACES_PER_ENDPOINT: f64 = 160.0;

/// An address as the ring sees it. Members come sorted by endpoint name and address.
pub(super) struct Member {
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
}

pub(super) struct Ring {
    /// For each place the index of the member that answers for it; empty without members.
    holders: Box<[u32]>,
}

impl Ring {
    pub(super) fn new(slots: u32, endpoints: usize, members: Vec<Member>) -> Self {
        let places = slots.max(PLACES_MIN);
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let mut holders: Vec<Option<u32>> = vec![None; places as usize];
        let mut free = places;
        for (index, member) in (0..).zip(&members) {
            // In this order of operations, because another one rounds differently.
            let share = f64::from(member.weight) / total as f64;
            let mut wanted = ((share * endpoints as f64 * PLACES_PER_ENDPOINT) as u32).max(1);
            let mut point = 1;
            while free > 0 && point <= wanted && point <= places {
                let text = format!("{}::{} {point}", Shown(member), member.address.port());
                match holders.get_mut(place(xxhash32(text.as_bytes()), places)) {
                    Some(holder @ None) => {
                        *holder = Some(index);
                        free -= 1;
                    }
                    _ => wanted += 1,
                }
                point += 1;
            }
        }
        Self {
            holders: fill(&holders),
        }
    }

    /// The address that holds the key's place, or the next available one below.
    pub(super) fn pick<'a>(
        &self,
        addresses: &'a [Address],
        key: Option<u64>,
    ) -> Option<&'a Address> {
        let places = u32::try_from(self.holders.len()).ok()?;
        if places == 0 {
            return None;
        }
        // Without a key the empty value counts.
        let hash = key.map_or_else(|| xxhash32(b""), |key| key as u32);
        let start = place(hash, places);
        let below = self.holders.get(..=start)?.iter().rev();
        let above = self.holders.get(start + 1..)?.iter().rev();
        below
            .chain(above)
            .filter_map(|holder| addresses.get(*holder as usize))
            .find(|address| address.availability.is_available())
    }
}

/// Places count from 0; counting from 1, as others do, leads to the same holders.
fn place(hash: u32, places: u32) -> usize {
    (hash % places) as usize
}

/// Gives each place without holder to the nearest one below, round the ring; empty if there is no holder at all.
fn fill(holders: &[Option<u32>]) -> Box<[u32]> {
    let Some(mut nearest) = holders.iter().rev().find_map(|holder| *holder) else {
        return Box::default();
    };
    holders
        .iter()
        .map(|holder| {
            nearest = holder.unwrap_or(nearest);
            nearest
        })
        .collect()
}

/// The member's IP address, version 6 in brackets.
struct Shown<'a>(&'a Member);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.address {
            SocketAddr::V4(address) => write!(f, "{}", address.ip()),
            SocketAddr::V6(address) => write!(f, "[{}]", address.ip()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: u32 = 10_000;

    fn ring(slots: u32, weights: &[(u8, u32)]) -> Ring {
        let members = weights.iter().map(|(last, weight)| Member {
            address: ([192, 0, 2, *last], 8000).into(),
            weight: *weight,
        });
        Ring::new(slots, weights.len(), members.collect())
    }

    /// The member (last byte of its address) for each of many keys.
    fn owners(slots: u32, weights: &[(u8, u32)]) -> Vec<u8> {
        let ring = ring(slots, weights);
        (0..20_000u32)
            .map(|key| place(xxhash32(format!("user-{key}").as_bytes()), slots))
            .map(|place| weights[ring.holders[place] as usize].0)
            .collect()
    }

    #[test]
    fn moves_few_keys_when_one_leaves() {
        // The more addresses share the places, the more of them stand where another one hindered them, and move up
        // when that one leaves: larger fleets want more slots.
        for (count, slots) in [(3u8, SLOTS), (5, SLOTS), (10, SLOTS), (20, 65_536)] {
            let all: Vec<(u8, u32)> = (1..=count).map(|last| (last, 100)).collect();
            let before = owners(slots, &all);
            for leaving in [1, count / 2, count] {
                let rest: Vec<(u8, u32)> = all
                    .iter()
                    .copied()
                    .filter(|(last, _)| *last != leaving)
                    .collect();
                let after = owners(slots, &rest);
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
                let allowed = 1.2 / f64::from(count);
                let share = moved as f64 / before.len() as f64;
                assert!(
                    share <= allowed,
                    "{leaving} of {count}: {share} > {allowed}"
                );
            }
        }
    }

    #[test]
    fn follows_weights() {
        let owners = owners(SLOTS, &[(1, 300), (2, 100)]);
        let heavy = owners.iter().filter(|owner| **owner == 1).count() as f64;
        let share = heavy / owners.len() as f64;
        assert!((0.68..0.82).contains(&share), "{share}");
    }

    #[test]
    fn is_the_same_in_every_version() {
        let ring = ring(SLOTS, &[(1, 100), (2, 100), (3, 100)]);
        let digest = ring.holders.iter().fold(0u32, |digest, holder| {
            xxhash32(&(digest ^ *holder).to_le_bytes())
        });
        let held = ring.holders.len();
        assert_eq!((held, digest), (10_000, DIGEST));
    }

    /// Of the ring above; a change moves every user of every hash balancer to another upstream.
    const DIGEST: u32 = 3_693_803_867;

    #[test]
    fn holds_more_addresses_than_places() {
        let members = (0..2_000u32).map(|n| Member {
            address: ([10, 0, (n >> 8) as u8, n as u8], 80).into(),
            weight: 1,
        });
        let ring = Ring::new(10, 2_000, members.collect());
        assert_eq!(ring.holders.len(), 1_000);
    }
}
