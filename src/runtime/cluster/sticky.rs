//! Sticky sessions: the address that the client's cookie names; without one by turns.
//!
//! A cookie holds a digest of address and name, the same on every node, which tells a stranger nothing. It is followed
//! also to an address that is being drained, and left when that is unavailable, gone, or has failed the request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ahash::AHashMap;
use sha2::{Digest, Sha256};

use crate::runtime::cluster::round_robin::Wheel;
use crate::runtime::cluster::table::Address;

pub(super) struct Sticky {
    wheel: Wheel,
    /// Addresses with weight; those that are being drained follow.
    with_weight: usize,
    by_token: AHashMap<u64, u32>,
}

impl Sticky {
    /// `addresses`: those with weight first.
    pub(super) fn new(addresses: &[Address]) -> Self {
        let weights: Vec<u32> = addresses
            .iter()
            .map(|address| address.weight)
            .take_while(|weight| *weight > 0)
            .collect();
        Self {
            wheel: Wheel::new(&weights),
            with_weight: weights.len(),
            by_token: addresses
                .iter()
                .zip(0..)
                .map(|(address, index)| (address.token, index))
                .collect(),
        }
    }

    /// The address that the token names, if it may be picked.
    pub(super) fn follow<'a>(
        &self,
        addresses: &'a [Address],
        token: u64,
        tried: &[SocketAddr],
    ) -> Option<&'a Address> {
        let index = self.by_token.get(&token)?;
        let address = addresses.get(*index as usize)?;
        let may = address.vitals.is_available() && !tried.contains(&address.socket);
        may.then_some(address)
    }

    /// The next by turns.
    pub(super) fn pick<'a>(
        &self,
        addresses: &'a [Address],
        turn: &AtomicU64,
        tried: &[SocketAddr],
    ) -> Option<&'a Address> {
        self.wheel
            .pick(addresses.get(..self.with_weight)?, turn, tried)
    }
}

/// What names this address in cookies.
pub(super) fn token(address: SocketAddr, host: &Arc<str>) -> u64 {
    let digest = Sha256::digest(format!("{address} {host}"));
    let mut first = [0; 8];
    for (byte, of_digest) in first.iter_mut().zip(digest) {
        *byte = of_digest;
    }
    u64::from_be_bytes(first)
}
