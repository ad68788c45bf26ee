//! What a traced execution did: steps run and skipped, conditions, variables read and written, time.
//!
//! A request is traced when it carries the header [`HEADER`] with the configured token. Requests that are not traced pay
//! for one look at a header. Finished traces are kept for the Admin API, the newest [`KEPT_MAX`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use crate::base::secret::Secret;
use crate::dialects::apigee::variables::Value;
use crate::runtime::live::Live;

/// Asks for a trace.
pub(crate) const HEADER: &str = "sallyport-trace";
/// Traces that are kept.
const KEPT_MAX: usize = 100;
/// Events of one trace; what comes after them is counted only.
const EVENTS_MAX: usize = 5_000;
/// Longest value that is shown, in characters.
const VALUE_CHARS_MAX: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum Event {
    Flow {
        name: String,
        at_us: u64,
    },
    Step {
        policy: String,
        at_us: u64,
        took_us: u64,
        outcome: String,
    },
    Skipped {
        policy: String,
        reason: &'static str,
    },
    Condition {
        text: String,
        holds: bool,
    },
    Read {
        variable: String,
        value: Option<String>,
    },
    Written {
        variable: String,
        value: String,
    },
    Fault {
        name: String,
        message: String,
    },
}

/// A trace that is being made.
pub(crate) struct Trace {
    started: Instant,
    events: Mutex<Vec<Event>>,
}

/// A trace that is done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finished {
    pub(crate) request_id: String,
    pub(crate) organization: String,
    pub(crate) environment: String,
    pub(crate) proxy: String,
    pub(crate) revision: u32,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) events: Vec<Event>,
}

/// Finished traces, kept by [`crate::runtime::live::Live`].
#[derive(Default)]
pub(crate) struct Traces {
    /// What the header must hold; none traces nothing.
    token: RwLock<Option<Secret>>,
    kept: Mutex<VecDeque<Arc<Finished>>>,
}

impl Traces {
    /// Those of this process.
    pub(crate) fn of(live: &Live) -> Arc<Self> {
        live.keep("flow traces", Self::default)
    }

    /// Sets what the header must hold; none switches traces off.
    pub(crate) fn allow(&self, token: Option<Secret>) {
        *self.token.write() = token;
    }

    /// Does a header hold the token? Takes as long for a nearly right one as for any other of its length.
    pub(crate) fn accepts(&self, given: &[u8]) -> bool {
        let token = self.token.read();
        let Some(wanted) = token.as_ref().map(|token| token.expose().as_bytes()) else {
            return false;
        };
        let differences = given
            .iter()
            .zip(wanted)
            .fold(0, |sum, (one, other)| sum | (one ^ other));
        !wanted.is_empty() && given.len() == wanted.len() && differences == 0
    }

    pub(crate) fn keep(&self, trace: Finished) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::new(trace));
    }

    /// The newest first.
    pub(crate) fn list(&self) -> Vec<Arc<Finished>> {
        self.kept.lock().iter().rev().cloned().collect()
    }
}

impl Trace {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            events: Mutex::default(),
        }
    }

    /// Microseconds since the request began.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn push(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() < EVENTS_MAX {
            events.push(event);
        }
    }

    pub(crate) fn read(&self, variable: &str, value: Option<&Value<'_>>) {
        self.push(Event::Read {
            variable: variable.to_owned(),
            value: value.map(|value| shown(variable, value)),
        });
    }

    pub(crate) fn written(&self, variable: &str, value: &Value<'_>) {
        self.push(Event::Written {
            variable: variable.to_owned(),
            value: shown(variable, value),
        });
    }

    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events.into_inner()
    }
}

/// A value as a reader may see it: secrets are masked, long ones cut.
fn shown(variable: &str, value: &Value<'_>) -> String {
    let secret = variable.starts_with("private.")
        || variable.ends_with(".header.authorization")
        || variable.ends_with(".header.Authorization")
        || variable.to_ascii_lowercase().contains("password")
        || variable.to_ascii_lowercase().contains("secret");
    if secret {
        return "*****".to_owned();
    }
    if let Value::Message(_) = value {
        return "[message]".to_owned();
    }
    let text = value.as_text();
    let mut shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
