//! The background task: asks for every name in use, and again when its answer expires.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::runtime::resolver::lookup::{Lookup, Outcome};
use crate::runtime::resolver::system_files::SystemFiles;
use crate::runtime::resolver::{Answer, Name, RecordKind, ResolverOptions};

/// Names that are asked for at the same time.
const LOOKUPS_MAX: usize = 64;
/// How long the resolution of one name may take, all questions together.
const RESOLUTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Shortest time between two resolutions of a name, whatever its records say: time to live 0 means "ask each time",
/// which is not done for requests.
pub(super) const REFRESH_MIN: Duration = Duration::from_secs(1);
/// Longest time between two resolutions of a name.
const REFRESH_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often the files that say how names are resolved are looked at.
const FILES_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Waiting names before forgotten ones are swept out for the first time.
const SWEEP_AT: usize = 1024;

/// How long answers count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    valid: Option<Duration>,
    stale: Duration,
    not_found: Duration,
    error: Duration,
}

impl From<&ResolverOptions> for Times {
    fn from(options: &ResolverOptions) -> Self {
        Self {
            valid: options.valid,
            stale: options.stale,
            not_found: options.not_found,
            error: options.error,
        }
    }
}

/// A name with the time at which it is to be asked for. The greatest is the one due first.
struct Job {
    due: Instant,
    name: Weak<Name>,
    /// The kind of records that answered last.
    last: Option<RecordKind>,
    /// Until when the present answer may be used while name servers fail.
    usable_until: Option<Instant>,
    /// Did the last resolution fail?
    failing: bool,
}

/// Runs until the resolver is dropped.
pub(super) async fn run(
    lookup: Lookup,
    mut files: SystemFiles,
    mut arrivals: UnboundedReceiver<Weak<Name>>,
) {
    let times = Times::from(&files.options);
    let mut lookup = Arc::new(lookup);
    let mut looks = tokio::time::interval(FILES_LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut waiting: BinaryHeap<Job> = BinaryHeap::new();
    let mut running: JoinSet<Job> = JoinSet::new();
    let mut sweep_at = SWEEP_AT;
    // New names go first: requests may be waiting for them, while many old ones are tried again in vain.
    let at_once = Instant::now();
    loop {
        let now = Instant::now();
        while running.len() < LOOKUPS_MAX && waiting.peek().is_some_and(|job| job.due <= now) {
            if let Some(job) = waiting.pop()
                && job.name.strong_count() > 0
            {
                running.spawn(job.run(Arc::clone(&lookup), times));
            }
        }
        if waiting.len() >= sweep_at {
            waiting.retain(|job| job.name.strong_count() > 0);
            sweep_at = SWEEP_AT.max(waiting.len() * 2);
        }
        let next = waiting.peek().map(|job| job.due);
        let may_start = running.len() < LOOKUPS_MAX;
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(name) => waiting.push(Job::new(at_once, name)),
                None => return,
            },
            Some(done) = running.join_next(), if !running.is_empty() => {
                if let Ok(job) = done {
                    waiting.push(job);
                }
            }
            () = sleep_until(next.unwrap_or(now)), if may_start && next.is_some() => {}
            _ = looks.tick() => if let Some(changed) = files.changed() {
                lookup = Arc::new(changed);
                // Every name may mean something else now.
                let jobs = std::mem::take(&mut waiting).into_iter();
                waiting = jobs.map(|job| Job { due: now, ..job }).collect();
            }
        }
    }
}

impl Job {
    fn new(due: Instant, name: Weak<Name>) -> Self {
        Self {
            due,
            name,
            last: None,
            usable_until: None,
            failing: false,
        }
    }

    /// Asks for the name, publishes the answer, and says when to ask again.
    async fn run(mut self, lookup: Arc<Lookup>, times: Times) -> Self {
        // Not held while waiting for name servers: nobody needs the answer once all users are gone.
        let Some(text) = self.name.upgrade().map(|name| Arc::clone(&name.text)) else {
            return self;
        };
        let last = self.last;
        // In a task of its own: should it panic, this name is tried again like after any failure.
        let asked =
            tokio::spawn(
                async move { timeout(RESOLUTION_TIME_MAX, lookup.resolve(&text, last)).await },
            );
        let outcome = match asked.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Failed("the name servers take too long".into()),
            Err(_) => Outcome::Failed("the resolver failed".into()),
        };
        if let Some(name) = self.name.upgrade() {
            self.take(&name, outcome, times, Instant::now());
        }
        self
    }

    fn take(&mut self, name: &Name, outcome: Outcome, times: Times, now: Instant) {
        let was_failing = self.failing;
        self.failing = matches!(outcome, Outcome::Failed(_));
        let again_after = match outcome {
            Outcome::Found {
                records,
                time_to_live,
                kind,
            } => {
                name.publish(Answer::Addresses(records));
                let valid = times.valid.unwrap_or(time_to_live);
                let valid = valid.clamp(REFRESH_MIN, REFRESH_MAX);
                self.last = Some(kind);
                self.usable_until = now.checked_add(valid.saturating_add(times.stale));
                valid
            }
            Outcome::NotFound => {
                name.publish(Answer::NotFound);
                self.usable_until = None;
                times.not_found
            }
            Outcome::Failed(cause) => {
                // Told once, however often it is tried again.
                if !was_failing {
                    tracing::warn!(name = %name.text, %cause, "cannot resolve");
                }
                if self.usable_until.is_none_or(|until| until <= now) {
                    name.publish(Answer::Failed(cause));
                    self.usable_until = None;
                }
                times.error
            }
        };
        self.due = now + again_after.clamp(REFRESH_MIN, REFRESH_MAX);
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Job {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::resolver::AddressRecord;

    fn found(last_byte: u8, seconds: u64) -> Outcome {
        Outcome::Found {
            records: Box::new([AddressRecord {
                address: [192, 0, 2, last_byte].into(),
                service: None,
            }]),
            time_to_live: Duration::from_secs(seconds),
            kind: RecordKind::V4,
        }
    }

    #[test]
    fn asks_again_in_time_and_serves_stale_answers() {
        let name = Arc::new(Name::new("a.test".into(), Answer::Pending));
        let times = Times::from(&ResolverOptions::default());
        let start = Instant::now();
        let mut job = Job::new(start, Arc::downgrade(&name));
        let failed = || Outcome::Failed("no answer".into());
        let with = |byte| Answer::literal([192, 0, 2, byte].into());
        // Seconds since the start, outcome, answer afterwards, seconds until asked again.
        let cases = [
            (0, found(1, 60), with(1), 60),
            (60, failed(), with(1), 1),
            (3659, failed(), with(1), 1),
            (3660, failed(), Answer::Failed("no answer".into()), 1),
            (3661, found(2, 0), with(2), 1),
            (3662, found(3, 10_000_000), with(3), 24 * 3600),
            (90_062, Outcome::NotFound, Answer::NotFound, 30),
            (90_092, failed(), Answer::Failed("no answer".into()), 1),
        ];
        for (at, outcome, answer, again) in cases {
            let now = start + Duration::from_secs(at);
            job.take(&name, outcome, times, now);
            assert_eq!(*name.answer(), answer, "at {at}");
            assert_eq!(job.due - now, Duration::from_secs(again), "at {at}");
        }
    }

    #[test]
    fn earliest_is_first() {
        let now = Instant::now();
        let job = |seconds| Job::new(now + Duration::from_secs(seconds), Weak::new());
        let mut heap = BinaryHeap::from([job(3), job(1), job(2)]);
        let order: Vec<u64> = std::iter::from_fn(|| heap.pop())
            .map(|job| (job.due - now).as_secs())
            .collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
