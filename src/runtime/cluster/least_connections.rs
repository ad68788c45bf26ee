//! Least connections: the address with the fewest exchanges in progress for its weight.
//!
//! Compared is `(in progress + 1) / weight`, counting the exchange to be placed. Among equals the turn decides, so that
//! an idle cluster is used evenly.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::cluster::table::Address;

/// Addresses compared for one pick; of more, those that follow the one whose turn it is.
const COMPARED_MAX: usize = 64;

/// The least busy address that is available and not yet tried; when all were tried, the least busy available one.
pub(super) fn pick<'a>(
    addresses: &'a [Address],
    turn: &AtomicU64,
    tried: &[SocketAddr],
) -> Option<&'a Address> {
    let length = u64::try_from(addresses.len()).unwrap_or(u64::MAX).max(1);
    let first = usize::try_from(turn.fetch_add(1, Ordering::Relaxed) % length).unwrap_or(0);
    let (before, from) = addresses.split_at_checked(first)?;
    let available = || {
        let in_turn = from.iter().chain(before);
        in_turn.filter(|address| address.vitals.is_available())
    };
    let fresh = available().filter(|address| !tried.contains(&address.socket));
    least_busy(fresh).or_else(|| least_busy(available()))
}

/// The first of the least busy.
fn least_busy<'a>(addresses: impl Iterator<Item = &'a Address>) -> Option<&'a Address> {
    addresses
        .take(COMPARED_MAX)
        .map(|address| (u64::from(address.vitals.in_flight()) + 1, address))
        .reduce(|best, other| {
            // other.0 / other.weight < best.0 / best.weight, without a fraction.
            match other.0 * u64::from(best.1.weight) < best.0 * u64::from(other.1.weight) {
                true => other,
                false => best,
            }
        })
        .map(|(_, address)| address)
}
