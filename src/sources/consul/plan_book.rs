//! What the listeners of this instance have added to the plan, so that it can be changed and taken away.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::sidecar::PlanSink;
use crate::dialects::consul::parts::Parts;

/// The parts in the plan, by the name of their listener.
pub struct PlanBook {
    sink: PlanSink,
    entered: Mutex<BTreeMap<String, Parts>>,
}

impl PlanBook {
    pub fn new(sink: PlanSink) -> Self {
        Self {
            sink,
            entered: Mutex::default(),
        }
    }

    /// Replaces what a listener has added so far.
    pub fn enter(&self, entrance: &str, parts: Parts) {
        // Held while the plan changes: two changes of one listener must not overtake each other.
        let mut entered = self.entered.lock();
        let nothing = Parts::default();
        let old = entered.get(entrance).unwrap_or(&nothing);
        let delta = parts.delta_from(old);
        if !delta.is_empty() {
            (self.sink)(&delta);
        }
        if parts == nothing {
            entered.remove(entrance);
        } else {
            entered.insert(entrance.to_owned(), parts);
        }
    }
}
