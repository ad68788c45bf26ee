//! Latency: of two addresses taken at random the one that answers faster for its weight.
//!
//! Compared is the average time to answer, times the exchanges in progress and the one to be placed: an address that
//! has stopped answering looks worse with each exchange it holds, before the first of them times out. Two at random
//! instead of the best of all keeps everybody from running to the same address.

use std::net::SocketAddr;
use std::time::Instant;

use crate::runtime::cluster::table::Address;

/// Draws in search of two addresses that may be picked, before all are looked at.
const DRAWS_MAX: usize = 8;
/// Added to each average, in seconds, so that exchanges in progress count between addresses never measured.
const SECONDS_MIN: f64 = 1e-6;

/// The better of two that are available and not yet tried; when all were tried, of two that are available.
pub(super) fn pick<'a>(addresses: &'a [Address], tried: &[SocketAddr]) -> Option<&'a Address> {
    if let [only] = addresses {
        return only.vitals.is_available().then_some(only);
    }
    let is_fresh =
        |address: &&Address| address.vitals.is_available() && !tried.contains(&address.socket);
    let drawn = two(addresses, is_fresh).or_else(|| two(addresses, |it| it.vitals.is_available()));
    match drawn? {
        (one, None) => Some(one),
        (one, Some(other)) => {
            let now = Instant::now();
            Some(match score(other, now) < score(one, now) {
                true => other,
                false => one,
            })
        }
    }
}

/// Two different ones at random that satisfy the condition, or the only one.
fn two<'a>(
    addresses: &'a [Address],
    condition: impl Fn(&&'a Address) -> bool,
) -> Option<(&'a Address, Option<&'a Address>)> {
    let mut found: Option<&Address> = None;
    for _ in 0..DRAWS_MAX {
        let Some(drawn) = addresses.get(rand::random_range(0..addresses.len().max(1))) else {
            break;
        };
        if !condition(&drawn) {
            continue;
        }
        match found {
            Some(first) if !std::ptr::eq(first, drawn) => return Some((first, Some(drawn))),
            _ => found = Some(drawn),
        }
    }
    // Few qualify: from the one found, or any, to the next that does.
    let mut rest = addresses.iter().filter(condition);
    match found {
        Some(first) => Some((first, rest.find(|other| !std::ptr::eq(first, *other)))),
        None => rest.next().map(|first| (first, rest.next())),
    }
}

fn score(address: &Address, now: Instant) -> f64 {
    let seconds = address.vitals.latency().seconds(now) + SECONDS_MIN;
    seconds * (f64::from(address.vitals.in_flight()) + 1.0) / f64::from(address.weight.max(1))
}
