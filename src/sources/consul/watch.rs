//! Watches: what the agent says about one thing, kept for as long as somebody wants to know.
//!
//! ```text
//! ask ─▶ held by the agent ─▶ answer ─▶ decode ─▶ different? ─▶ tell everybody
//!  ▲           │                                      │
//!  └── wait ◀──┴── error: keep what was known ◀───────┘ (an idle loop slows down)
//! ```
//!
//! Owns the rules of blocking queries: when an index counts, when to start again, how fast to repeat. There is one watch
//! for each question however many ask it; it ends when nobody holds it. Start at [`Watches::watch`].

use std::any::{Any, TypeId};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::client::{ANSWER_TIMEOUT, AgentAnswer, AgentClient, AgentError, Question, encode};
use crate::dialects::consul::duration::show_duration;

/// Lines with this target are of the level notice: whoever was told of trouble is told of its end.
const NOTICE: &str = "sallyport::notice";
/// Questions held at the same time. The agent takes 200 connections from one address; what is left is for others.
pub const HELD_MAX: usize = 128;
/// How long the agent may hold a question. Short enough to notice one that hangs.
const WAIT: Duration = Duration::from_secs(60);
/// Beyond what the agent's own jitter (a sixteenth) explains.
const WAIT_MARGIN: Duration = Duration::from_secs(5);
/// How often watches look that found no place among those that are held, or cannot be held.
const POLL_EVERY: Duration = Duration::from_secs(10);
/// First pause after an error; doubled with each further one, of which a random part is waited.
const BACK_OFF: Duration = Duration::from_millis(250);
/// Longest pause after an error: an agent that is back is used again soon.
const BACK_OFF_MAX: Duration = Duration::from_secs(8);
/// Answers without news in a row that cost no pause.
const IDLE_ANSWERS_FREE: u32 = 3;
/// First pause of a loop that turns without news; doubled with each further one.
const IDLE_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause: news must not wait longer.
const IDLE_PAUSE_MAX: Duration = Duration::from_millis(500);
/// An answer that took longer was held: the loop does not turn idly.
const HELD_AT_LEAST: Duration = Duration::from_secs(1);

/// How the agent tells that something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// By a number that grows.
    Index,
    /// By a hash of the content.
    Hash,
    /// Not at all: asked again and again.
    Poll(Duration),
}

/// Turns an answer into what is watched.
pub type Decode<T> = fn(&AgentAnswer) -> Result<T, String>;

/// What is known.
#[derive(Debug)]
pub struct Known<T> {
    /// The newest good answer; none before the first.
    pub value: Option<Arc<T>>,
    /// Grows with each different value.
    pub version: u64,
    /// Were things left out of it for want of rights?
    pub filtered: bool,
    /// Why the newest question had no good answer, and since when.
    pub trouble: Option<Trouble>,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            version: self.version,
            filtered: self.filtered,
            trouble: self.trouble.clone(),
        }
    }
}

/// Why nothing new is known.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub error: Arc<AgentError>,
    pub since: Instant,
}

/// A watch that somebody holds. It ends when the last holder lets go.
pub struct Watch<T> {
    known: watch::Sender<Known<T>>,
    question: String,
    task: Mutex<Option<AbortHandle>>,
}

impl<T> Watch<T> {
    /// What is known now.
    pub fn known(&self) -> Known<T> {
        self.known.borrow().clone()
    }

    /// Tells of every change, of trouble too.
    pub fn changes(&self) -> watch::Receiver<Known<T>> {
        self.known.subscribe()
    }

    /// Waits for the first good answer.
    pub async fn value(&self) -> Option<Arc<T>> {
        let mut changes = self.changes();
        let known = changes.wait_for(|known| known.value.is_some()).await;
        known.ok().and_then(|known| known.value.clone())
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

type Key = (TypeId, String);

/// A question whose newest answer was no good, or not the whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub question: String,
    /// A word of [`AgentError::label`], or `filtered`.
    pub kind: &'static str,
    pub what: String,
    /// How long it has been so; none where that is not known.
    pub since: Option<Duration>,
}

/// A watch of whatever it watches.
trait AnyWatch: Any + Send + Sync {
    fn complaint(&self) -> Option<Complaint>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Send + Sync + 'static> AnyWatch for Watch<T> {
    fn complaint(&self) -> Option<Complaint> {
        let known = self.known.borrow();
        if let Some(trouble) = &known.trouble {
            return Some(Complaint {
                question: self.question.clone(),
                kind: trouble.error.label(),
                what: trouble.error.to_string(),
                since: Some(trouble.since.elapsed()),
            });
        }
        known.filtered.then(|| Complaint {
            question: self.question.clone(),
            kind: FILTERED,
            what: "the token may not see everything".to_owned(),
            since: None,
        })
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// The kind of a complaint about an answer that lacks what the token may not see.
const FILTERED: &str = "filtered";

/// All watches of one agent.
pub struct Watches {
    client: Arc<AgentClient>,
    running: Mutex<AHashMap<Key, Weak<dyn AnyWatch>>>,
    held: Arc<Semaphore>,
}

impl Watches {
    pub fn new(client: Arc<AgentClient>) -> Arc<Self> {
        Arc::new(Self {
            client,
            running: Mutex::default(),
            held: Arc::new(Semaphore::new(HELD_MAX)),
        })
    }

    /// Whom the watches ask.
    pub fn client(&self) -> &Arc<AgentClient> {
        &self.client
    }

    /// Number of watches that somebody holds.
    pub fn count(&self) -> usize {
        let running = self.running.lock();
        running
            .values()
            .filter(|watch| watch.strong_count() > 0)
            .count()
    }

    /// What is wrong now, in the order of the questions.
    pub fn complaints(&self) -> Vec<Complaint> {
        let watches: Vec<Arc<dyn AnyWatch>> = {
            let running = self.running.lock();
            running.values().filter_map(Weak::upgrade).collect()
        };
        let mut all: Vec<Complaint> = watches
            .iter()
            .filter_map(|watch| watch.complaint())
            .collect();
        all.sort_by(|one, other| one.question.cmp(&other.question));
        all
    }

    /// Places among the held questions that are free.
    pub fn places(&self) -> usize {
        self.held.available_permits()
    }

    /// The watch of `target` (path and query), a new one if nobody watches it yet. Must be called within a runtime.
    ///
    /// `secret` keeps values out of comparisons: they count as different whenever `T` says so.
    pub fn watch<T>(&self, target: &str, style: Style, decode: Decode<T>) -> Arc<Watch<T>>
    where
        T: PartialEq + Send + Sync + 'static,
    {
        let key = (TypeId::of::<T>(), format!("{style:?} {target}"));
        let mut running = self.running.lock();
        let known = running.get(&key).and_then(Weak::upgrade);
        if let Some(watch) = known.and_then(|watch| watch.into_any().downcast::<Watch<T>>().ok()) {
            return watch;
        }
        running.retain(|_, watch| watch.strong_count() > 0);
        let (known, _) = watch::channel(Known {
            value: None,
            version: 0,
            filtered: false,
            trouble: None,
        });
        let watch = Arc::new(Watch {
            known,
            question: target.to_owned(),
            task: Mutex::new(None),
        });
        let running_loop = Loop {
            client: Arc::clone(&self.client),
            held: Arc::clone(&self.held),
            target: target.to_owned(),
            style,
            decode,
            watch: Arc::downgrade(&watch),
        };
        let task = tokio::spawn(running_loop.run());
        *watch.task.lock() = Some(task.abort_handle());
        let shared: Arc<dyn AnyWatch> = watch.clone();
        running.insert(key, Arc::downgrade(&shared));
        watch
    }
}

/// Where a watch stands in the agent's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Cursor {
    /// At the beginning: the next answer comes at once.
    #[default]
    Start,
    Index(u64),
    Hash(String),
}

impl Cursor {
    /// What to add to the question.
    fn parameter(&self) -> Option<String> {
        match self {
            Self::Start => None,
            Self::Index(index) => Some(format!("index={index}")),
            Self::Hash(hash) => Some(format!("hash={}", encode(hash))),
        }
    }

    /// After a good answer with this index.
    fn after_index(&self, index: Option<u64>) -> Self {
        match (self, index) {
            // Zero would be answered at once, for ever.
            (_, None | Some(0)) => Self::Index(1),
            // The agent's history was replaced: what is higher than its index would be held for nothing.
            (Self::Index(last), Some(index)) if index < *last => Self::Start,
            (_, Some(index)) => Self::Index(index),
        }
    }
}

/// How long to pause between questions.
#[derive(Debug, Default)]
struct Pace {
    failures: u32,
    idle: u32,
}

impl Pace {
    /// After an error. `share` is a random number from 0 to 1.
    fn after_error(&mut self, share: f64) -> Duration {
        let doubled = BACK_OFF.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        // Never less than a tenth: errors that come at once must not become a busy loop.
        doubled.min(BACK_OFF_MAX).mul_f64(share.clamp(0.1, 1.0))
    }

    /// After a good answer.
    fn after_answer(&mut self, news: bool, took: Duration) -> Duration {
        self.failures = 0;
        if news || took >= HELD_AT_LEAST {
            self.idle = 0;
            return Duration::ZERO;
        }
        self.idle = self.idle.saturating_add(1);
        match self.idle.checked_sub(IDLE_ANSWERS_FREE) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => IDLE_PAUSE
                .saturating_mul(1 << beyond.min(16))
                .min(IDLE_PAUSE_MAX),
        }
    }
}

/// The task behind a watch.
struct Loop<T> {
    client: Arc<AgentClient>,
    held: Arc<Semaphore>,
    target: String,
    style: Style,
    decode: Decode<T>,
    watch: Weak<Watch<T>>,
}

impl<T: PartialEq + Send + Sync + 'static> Loop<T> {
    async fn run(self) {
        let mut cursor = Cursor::Start;
        let mut pace = Pace::default();
        let mut place = None;
        loop {
            if place.is_none() && !matches!(self.style, Style::Poll(_)) {
                place = Arc::clone(&self.held).try_acquire_owned().ok();
            }
            let began = Instant::now();
            let holds = place.is_some() && cursor != Cursor::Start;
            let answer = self.client.ask(&self.question(&cursor, holds)).await;
            let Some(watch) = self.watch.upgrade() else {
                return;
            };
            let pause = match answer.and_then(|answer| self.read(answer)) {
                Ok((answer, value)) => {
                    cursor = match self.style {
                        Style::Index => cursor.after_index(answer.index()),
                        Style::Hash => match answer.hash() {
                            Some(hash) => Cursor::Hash(hash.to_owned()),
                            None => Cursor::Start,
                        },
                        Style::Poll(_) => Cursor::Start,
                    };
                    let news = self.publish(&watch, value, &answer);
                    let pause = pace.after_answer(news, began.elapsed());
                    match self.style {
                        Style::Poll(every) => jittered(every),
                        // Not held: looked at now and then.
                        Style::Index | Style::Hash if place.is_none() => jittered(POLL_EVERY),
                        // Nothing to be held by.
                        Style::Hash if cursor == Cursor::Start => jittered(POLL_EVERY),
                        Style::Index | Style::Hash => pause,
                    }
                }
                Err(error) => {
                    cursor = Cursor::Start;
                    self.trouble(&watch, error);
                    pace.after_error(rand::rng().random())
                }
            };
            // Nobody is kept waiting for the next answer by this task's own hold.
            drop(watch);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn question(&self, cursor: &Cursor, holds: bool) -> Question {
        let mut question = Question::get(self.target.clone());
        if !holds {
            return question;
        }
        if let Some(parameter) = cursor.parameter() {
            // Watches that began together do not stay together.
            let wait = WAIT.mul_f64(rand::rng().random_range(0.8..=1.0));
            let separator = if question.target.contains('?') {
                '&'
            } else {
                '?'
            };
            let wait_text = show_duration(wait);
            question.target = format!("{}{separator}{parameter}&wait={wait_text}", self.target);
            question.timeout = wait.mul_f64(17.0 / 16.0) + WAIT_MARGIN + ANSWER_TIMEOUT;
            question.held = true;
        }
        question
    }

    fn read(&self, answer: AgentAnswer) -> Result<(AgentAnswer, T), AgentError> {
        let value = (self.decode)(&answer).map_err(AgentError::Unreadable)?;
        Ok((answer, value))
    }

    /// Tells everybody, if there is something to tell. True when the value is a different one.
    ///
    /// Where something was known, nothing at all for want of rights is no news about the world: what is known stays.
    fn publish(&self, watch: &Watch<T>, value: T, answer: &AgentAnswer) -> bool {
        let filtered = answer.is_filtered();
        let blinded = filtered && answer.is_empty();
        let mut news = false;
        watch.known.send_if_modified(|known| {
            let recovered = known.trouble.take().is_some();
            if recovered {
                tracing::info!(target: NOTICE, question = %self.target, "the agent answers again");
            }
            if filtered && !known.filtered {
                let stays = match blinded && known.value.is_some() {
                    true => "nothing of it; what is known stays",
                    false => "all of it",
                };
                tracing::error!(question = %self.target, "the token may not see {stays}");
            }
            let told = recovered || known.filtered != filtered;
            known.filtered = filtered;
            news = known.value.as_deref() != Some(&value) && !(blinded && known.value.is_some());
            if news {
                known.value = Some(Arc::new(value));
                known.version += 1;
            }
            told || news
        });
        news
    }

    fn trouble(&self, watch: &Watch<T>, error: AgentError) {
        watch.known.send_modify(|known| {
            let old = known.trouble.as_ref();
            let since = old.map_or_else(Instant::now, |trouble| trouble.since);
            // Told once for each kind, not once for each try.
            if old.is_none_or(|old| old.error.label() != error.label()) {
                match error {
                    AgentError::Unreachable(_) | AgentError::Failing { .. } => {
                        tracing::warn!(question = %self.target, "{error}; what is known stays");
                    }
                    _ => tracing::error!(question = %self.target, "{error}; what is known stays"),
                }
            }
            known.trouble = Some(Trouble {
                error: Arc::new(error),
                since,
            });
        });
    }
}

/// Somewhat more or less.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::rng().random_range(0.8..=1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_counts_while_it_grows() {
        for (cursor, answered, next) in [
            (Cursor::Start, Some(7), Cursor::Index(7)),
            (Cursor::Index(7), Some(9), Cursor::Index(9)),
            (Cursor::Index(7), Some(7), Cursor::Index(7)),
            (Cursor::Index(7), Some(3), Cursor::Start),
            (Cursor::Index(7), Some(0), Cursor::Index(1)),
            (Cursor::Index(7), None, Cursor::Index(1)),
            (Cursor::Start, Some(0), Cursor::Index(1)),
        ] {
            assert_eq!(
                cursor.after_index(answered),
                next,
                "{cursor:?} {answered:?}"
            );
        }
        assert_eq!(
            Cursor::Hash("a b".to_owned()).parameter().as_deref(),
            Some("hash=a%20b")
        );
    }

    #[test]
    fn errors_slow_a_watch_down_but_not_for_long() {
        let mut pace = Pace::default();
        assert_eq!(pace.after_error(1.0), BACK_OFF);
        assert_eq!(pace.after_error(1.0), BACK_OFF * 2);
        for _ in 0..100 {
            assert!(pace.after_error(1.0) <= BACK_OFF_MAX);
        }
        assert!(pace.after_error(0.0) >= BACK_OFF_MAX / 20);
        pace.after_answer(true, Duration::ZERO);
        assert_eq!(pace.after_error(1.0), BACK_OFF);
    }

    #[test]
    fn a_loop_without_news_slows_down() {
        let mut pace = Pace::default();
        let mut total = Duration::ZERO;
        for _ in 0..20 {
            total += pace.after_answer(false, Duration::ZERO);
        }
        assert!(total > Duration::from_secs(4));
        assert_eq!(pace.after_answer(false, Duration::ZERO), IDLE_PAUSE_MAX);
        // News, and answers that were held, cost nothing.
        assert_eq!(pace.after_answer(true, Duration::ZERO), Duration::ZERO);
        for _ in 0..50 {
            let held = Duration::from_secs(2);
            assert_eq!(pace.after_answer(false, held), Duration::ZERO);
        }
    }
}
