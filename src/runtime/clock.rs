//! The time of day of a moment of the monotonic clock, without asking the operating system each time.
//!
//! Requests carry the monotonic time of their start. The distance between that clock and the time of day changes only
//! when somebody sets the latter, so it is measured anew once a second at most.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a measured distance is used.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The monotonic moment from which others are counted.
static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Microseconds from 1970 to [`BASE`].
static BASE_UNIX_US: AtomicU64 = AtomicU64::new(0);
/// Microseconds from [`BASE`] to the last measurement, plus one; zero before the first.
static MEASURED_US: AtomicU64 = AtomicU64::new(0);

/// Microseconds since 1970 at `moment`.
pub fn unix_microseconds(moment: Instant) -> u64 {
    let since_base = microseconds(moment.saturating_duration_since(*BASE));
    let measured = MEASURED_US.load(Relaxed);
    let every = microseconds(MEASURE_EVERY);
    if measured == 0 || since_base.abs_diff(measured) > every {
        measure();
    }
    BASE_UNIX_US.load(Relaxed).saturating_add(since_base)
}

/// Milliseconds since 1970 at `moment`.
pub fn unix_milliseconds(moment: Instant) -> u64 {
    unix_microseconds(moment) / 1_000
}

/// Seconds since 1970 at `moment`.
pub fn unix_seconds(moment: Instant) -> i64 {
    i64::try_from(unix_microseconds(moment) / 1_000_000).unwrap_or(i64::MAX)
}

/// Racing threads measure the same distance; whichever writes last is right.
fn measure() {
    let now = microseconds(BASE.elapsed());
    let unix = microseconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    );
    BASE_UNIX_US.store(unix.saturating_sub(now), Relaxed);
    MEASURED_US.store(now + 1, Relaxed);
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_system() {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seen = unix_microseconds(Instant::now());
        assert!(seen.abs_diff(microseconds(unix)) < 1_000_000);
        let later = Instant::now() + Duration::from_secs(10);
        assert!(unix_microseconds(later) >= seen + 9_000_000);
    }
}
