//! How many tries beyond the first a forward may make: a share of its requests, and a few besides.
//!
//! Retries hide the failure of one endpoint; when all are failing they multiply the load on those that struggle. So they
//! are counted, with the requests, over the last [`WINDOW_SECONDS`]. When more than half of what is allowed has been
//! used, addresses whose last try failed are asked last ([`RetryBudget::suspects`]): a dead endpoint then costs a retry
//! now and then, instead of one for each of its turns.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

/// Seconds over which requests and retries are counted.
pub const WINDOW_SECONDS: u64 = 10;
/// Retries in a window that are allowed whatever the number of requests, so that single failures are hidden.
pub const RETRIES_ALWAYS: u64 = 100;
/// The share that stands for "no limit", in per cent.
pub const UNLIMITED_PERCENT: u8 = 100;
/// How long an address whose last try failed is suspect; then one request tries it.
const SUSPECT_FOR: Duration = Duration::from_secs(1);
/// Most suspects remembered; the oldest gives way.
const SUSPECTS_MAX: usize = 64;

/// Requests and retries of one forward. Costs a few words until the first request.
#[derive(Default)]
pub struct RetryBudget(OnceLock<Box<Window>>);

/// Addresses that are better asked last.
pub type Suspects = SmallVec<[SocketAddr; 4]>;

struct Window {
    start: Instant,
    requests: Counts,
    retries: Counts,
    /// The second of the window's time until which retries run short, plus one.
    short_until: AtomicU64,
    any_suspect: AtomicBool,
    suspects: Mutex<Vec<(SocketAddr, Instant)>>,
}

/// A count for each of the last seconds: `second << 32 | count`.
#[derive(Default)]
struct Counts([AtomicU64; WINDOW_SECONDS as usize]);

impl Counts {
    /// Racing threads lose a count at the turn of a second, which is of no account.
    fn add(&self, second: u64) {
        let Some(slot) = self.slot(second) else {
            return;
        };
        let held = slot.load(Relaxed);
        if held >> 32 == second {
            slot.fetch_add(1, Relaxed);
        } else {
            slot.store(second << 32 | 1, Relaxed);
        }
    }

    fn sum(&self, second: u64) -> u64 {
        let oldest = second.saturating_sub(WINDOW_SECONDS - 1);
        let held = self.0.iter().map(|slot| slot.load(Relaxed));
        held.filter(|held| (oldest..=second).contains(&(held >> 32)))
            .map(|held| held & u64::from(u32::MAX))
            .sum()
    }

    fn slot(&self, second: u64) -> Option<&AtomicU64> {
        let index = second % WINDOW_SECONDS;
        self.0.get(usize::try_from(index).unwrap_or(0))
    }
}

impl RetryBudget {
    /// Counts a request. Gives the addresses that it had better not try first: none, unless retries run short.
    pub fn request(&self, now: Instant) -> Suspects {
        let window = self.window(now);
        let second = window.second(now);
        window.requests.add(second);
        if window.short_until.load(Relaxed) > second {
            window.suspects(now)
        } else {
            Suspects::new()
        }
    }

    /// May one more retry be made? Counts it if so. `percent` of the requests may be retries.
    pub fn allows(&self, percent: u8, now: Instant) -> bool {
        let window = self.window(now);
        let second = window.second(now);
        let requests = window.requests.sum(second);
        let retries = window.retries.sum(second);
        let allowed = requests * u64::from(percent) / 100 + RETRIES_ALWAYS;
        let unlimited = percent >= UNLIMITED_PERCENT;
        if retries >= allowed && !unlimited {
            return false;
        }
        window.retries.add(second);
        if retries * 2 >= allowed && !unlimited {
            window.short_until.store(second + WINDOW_SECONDS, Relaxed);
        }
        true
    }

    /// A try of this address failed.
    pub fn failed(&self, address: SocketAddr, now: Instant) {
        let window = self.window(now);
        let mut suspects = window.suspects.lock();
        suspects.retain(|(suspect, _)| *suspect != address);
        if suspects.len() >= SUSPECTS_MAX {
            suspects.remove(0);
        }
        suspects.push((address, now));
        window.any_suspect.store(true, Relaxed);
    }

    /// A try of this address went well.
    pub fn succeeded(&self, address: SocketAddr) {
        let Some(window) = self.0.get() else { return };
        if window.any_suspect.load(Relaxed) {
            let mut suspects = window.suspects.lock();
            suspects.retain(|(suspect, _)| *suspect != address);
            window.any_suspect.store(!suspects.is_empty(), Relaxed);
        }
    }

    fn window(&self, now: Instant) -> &Window {
        self.0.get_or_init(|| {
            Box::new(Window {
                start: now,
                requests: Counts::default(),
                retries: Counts::default(),
                short_until: AtomicU64::new(0),
                any_suspect: AtomicBool::new(false),
                suspects: Mutex::default(),
            })
        })
    }
}

impl Window {
    /// Counted from 1, so that an untouched count belongs to no second of the window.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() + WINDOW_SECONDS
    }

    /// Those whose time is over are left out once: this request finds out about them.
    fn suspects(&self, now: Instant) -> Suspects {
        let mut suspects = self.suspects.lock();
        let mut avoid = Suspects::new();
        for (address, since) in suspects.iter_mut() {
            if now.saturating_duration_since(*since) < SUSPECT_FOR {
                avoid.push(*address);
            } else {
                *since = now;
            }
        }
        avoid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERCENT: u8 = 20;

    fn retries(budget: &RetryBudget, wanted: u32, percent: u8, now: Instant) -> u32 {
        (0..wanted)
            .map(|_| u32::from(budget.allows(percent, now)))
            .sum()
    }

    #[test]
    fn allows_a_share_of_the_last_requests_and_a_few() {
        let budget = RetryBudget::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(retries(&budget, 500, PERCENT, start), 100);
        for second in 0..5 {
            for _ in 0..200 {
                budget.request(at(second));
            }
        }
        // A fifth of a thousand, and the few that were used above.
        assert_eq!(retries(&budget, 500, PERCENT, at(5)), 200);
        // Requests of ten seconds ago no longer count, nor do the retries of then.
        assert_eq!(retries(&budget, 500, PERCENT, at(30)), 100);
        assert_eq!(retries(&budget, 500, 0, at(60)), 100);
        assert_eq!(retries(&budget, 500, UNLIMITED_PERCENT, at(90)), 500);
    }

    #[test]
    fn suspects_are_avoided_only_while_retries_run_short() {
        let budget = RetryBudget::default();
        let start = Instant::now();
        let sick: SocketAddr = ([192, 0, 2, 1], 80).into();
        budget.failed(sick, start);
        assert!(budget.request(start).is_empty());
        retries(&budget, 60, PERCENT, start);
        assert_eq!(budget.request(start).to_vec(), [sick]);
        // After a while one request tries it, the next ones do not.
        let later = start + SUSPECT_FOR;
        assert!(budget.request(later).is_empty());
        assert_eq!(budget.request(later).to_vec(), [sick]);
        budget.succeeded(sick);
        assert!(budget.request(later).is_empty());
        budget.failed(sick, later);
        let much_later = start + Duration::from_secs(2 * WINDOW_SECONDS);
        assert!(budget.request(much_later).is_empty());
    }
}
