//! Counting in fixed windows: so many of something per second, minute, hour, day, month or year of UTC.
//!
//! Counters lie in shards, each behind its own lock, so that threads seldom meet. All windows of one counter are checked
//! and counted at once. Memory is bounded: counters whose windows are over are swept out as new ones come, and a full
//! shard forgets those that counted least.

use std::hash::Hash;

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

/// Shards; a power of two well above the number of threads.
const SHARDS: usize = 64;
/// Counters of one store, at about 100 bytes each.
const COUNTERS_MAX: usize = 1 << 20;
/// Counters a shard may hold before its first sweep.
const FIRST_SWEEP: usize = 1024;

/// The kinds of window, the shortest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

/// How many kinds there are.
pub(crate) const PERIODS: usize = 6;

impl Period {
    pub(crate) const ALL: [Self; PERIODS] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Month,
        Self::Year,
    ];

    /// Length in seconds; a month counts as 30 days and a year as 365, as Kong counts them.
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month => 2_592_000,
            Self::Year => 31_536_000,
        }
    }

    /// The start of the window that holds `now`; both in seconds since 1970.
    pub(crate) fn start(self, now: u64) -> u64 {
        match self {
            Self::Second | Self::Minute | Self::Hour | Self::Day => now - now % self.seconds(),
            Self::Month => (days_before_month(now).0) * 86_400,
            Self::Year => (days_before_month(now).1) * 86_400,
        }
    }
}

/// Days from 1970 to the first day of the month, and of the year, of this moment. The civil calendar in whole numbers:
/// years are counted from March, so that the leap day comes last.
fn days_before_month(now: u64) -> (u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    let days = now / 86_400;
    let since_zero = days + DAYS_TO_1970;
    let era = since_zero / 146_097;
    let day_of_era = since_zero % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5;
    let from_january = month_from_march >= 10;
    let year = era * 400 + year_of_era + u64::from(from_january);
    let is_leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let day_of_year_from_january = match from_january {
        true => day_of_year - 306,
        false => day_of_year + 59 + u64::from(is_leap),
    };
    (days - day_of_month, days - day_of_year_from_january)
}

/// One window of a counter at this moment, with what may be counted in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    pub(crate) period: Period,
    pub(crate) start: u64,
    pub(crate) limit: f64,
}

/// What was counted before, by period.
pub(crate) type Usage = [u32; PERIODS];

/// A store of counters.
pub(crate) struct FixedWindows {
    shards: Box<[Mutex<Shard>]>,
    /// Two hashes make a key: 128 bits, so that two counters never share one by chance, seeded so that nobody can
    /// make them.
    hashers: [RandomState; 2],
    shard_counters_max: usize,
}

struct Shard {
    counters: AHashMap<u128, Counter>,
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Counter {
    starts: [u32; PERIODS],
    counts: Usage,
    /// When its last window is over, in seconds since 1970.
    over: u32,
}

impl Default for FixedWindows {
    fn default() -> Self {
        Self::with_limit(COUNTERS_MAX)
    }
}

impl FixedWindows {
    fn with_limit(counters_max: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                counters: AHashMap::new(),
                sweep_at: FIRST_SWEEP,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hashers: [RandomState::new(), RandomState::new()],
            shard_counters_max: counters_max.div_ceil(SHARDS),
        }
    }

    /// The key of the counter for these facts.
    pub(crate) fn key(&self, facts: &impl Hash) -> u128 {
        let [high, low] = &self.hashers;
        u128::from(high.hash_one(facts)) << 64 | u128::from(low.hash_one(facts))
    }

    /// What was counted in these windows; counts one more in all of them, unless one has reached its limit.
    pub(crate) fn count(&self, key: u128, windows: &[Window], now: u64) -> Usage {
        let index = usize::try_from(key >> 121).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(index) else {
            return Usage::default();
        };
        let mut shard = shard.lock();
        if shard.counters.len() >= shard.sweep_at && !shard.counters.contains_key(&key) {
            shard.sweep(now, self.shard_counters_max);
        }
        let counter = shard.counters.entry(key).or_insert(Counter {
            starts: [0; PERIODS],
            counts: [0; PERIODS],
            over: 0,
        });
        counter.count(windows)
    }
}

impl Counter {
    fn count(&mut self, windows: &[Window]) -> Usage {
        let mut usage = Usage::default();
        let mut exhausted = false;
        for window in windows {
            let index = window.period as usize;
            let start = u32::try_from(window.start).unwrap_or(u32::MAX);
            let slots = (self.starts.get_mut(index), self.counts.get_mut(index));
            if let ((Some(known), Some(count)), Some(used)) = (slots, usage.get_mut(index)) {
                if *known != start {
                    *known = start;
                    *count = 0;
                }
                *used = *count;
                exhausted |= f64::from(*count) >= window.limit;
            }
            let over = window.start.saturating_add(window.period.seconds() * 2);
            self.over = self.over.max(u32::try_from(over).unwrap_or(u32::MAX));
        }
        if !exhausted {
            for window in windows {
                if let Some(count) = self.counts.get_mut(window.period as usize) {
                    *count = count.saturating_add(1);
                }
            }
        }
        usage
    }
}

impl Shard {
    /// Forgets what is over. When that leaves too many, forgets those that counted least: a flood of new callers must not
    /// reset the counters of those who are near their limits.
    fn sweep(&mut self, now: u64, counters_max: usize) {
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        self.counters.retain(|_, counter| counter.over > now);
        let most = |counter: &Counter| counter.counts.iter().copied().max().unwrap_or(0);
        let mut least = 1;
        while self.counters.len() > counters_max / 2 && least < u32::MAX / 4 {
            self.counters.retain(|_, counter| most(counter) > least);
            least *= 4;
        }
        self.sweep_at =
            (self.counters.len() * 2).clamp(FIRST_SWEEP.min(counters_max), counters_max);
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

    use super::*;

    #[test]
    fn windows_follow_the_calendar() {
        // 2024-02-29T12:34:56Z, a leap day; 2023-12-31T23:59:59Z; 2100-03-01T00:00:00Z, no leap year.
        for (now, day, month, year) in [
            (1_709_210_096, 1_709_164_800, 1_706_745_600, 1_704_067_200),
            (1_704_067_199, 1_703_980_800, 1_701_388_800, 1_672_531_200),
            (4_107_542_400, 4_107_542_400, 4_107_542_400, 4_102_444_800),
            (0, 0, 0, 0),
        ] {
            assert_eq!(Period::Day.start(now), day, "{now}");
            assert_eq!(Period::Month.start(now), month, "{now}");
            assert_eq!(Period::Year.start(now), year, "{now}");
        }
        assert_eq!(Period::Minute.start(119), 60);
    }

    fn window(period: Period, limit: f64, now: u64) -> Window {
        Window {
            period,
            start: period.start(now),
            limit,
        }
    }

    #[test]
    fn counts_until_the_first_limit_and_starts_anew() {
        let store = FixedWindows::default();
        let key = store.key(&"a");
        let at = |now: u64| {
            let windows = [
                window(Period::Second, 2.0, now),
                window(Period::Minute, 3.0, now),
            ];
            let usage = store.count(key, &windows, now);
            (usage[0], usage[1])
        };
        assert_eq!([at(60), at(60), at(60)], [(0, 0), (1, 1), (2, 2)]);
        // The refused request was not counted in the minute.
        assert_eq!([at(61), at(61)], [(0, 2), (1, 3)]);
        assert_eq!(at(120), (0, 0));
    }

    #[test]
    fn forgets_the_past_and_the_small_ones() {
        let store = FixedWindows::with_limit(SHARDS * FIRST_SWEEP);
        let heavy = store.key(&"heavy");
        let minute = |now| [window(Period::Minute, 100.0, now)];
        for _ in 0..10 {
            store.count(heavy, &minute(0), 0);
        }
        for caller in 0..(SHARDS * FIRST_SWEEP * 3) as u64 {
            store.count(store.key(&caller), &minute(0), 0);
        }
        let held: usize = store.shards.iter().map(|s| s.lock().counters.len()).sum();
        assert!(held <= SHARDS * FIRST_SWEEP, "{held}");
        assert_eq!(store.count(heavy, &minute(0), 0)[1], 10);
    }
}
