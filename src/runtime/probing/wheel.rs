//! A timer wheel: many appointments, each made and kept in constant time, with the precision of a [`TICK`].

use std::time::{Duration, Instant};

/// The wheel turns by one slot in this time.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// Slots of one turn (20 s); appointments further away are looked at once a turn.
const SLOTS: u64 = 1024;

pub(super) struct Wheel<T> {
    slots: Vec<Vec<(u64, T)>>,
    start: Instant,
    /// The first tick not yet handled.
    next: u64,
    length: usize,
}

impl<T> Wheel<T> {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            start,
            next: 0,
            length: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Makes an appointment: never early, late by a tick at most.
    pub(super) fn insert(&mut self, due: Instant, item: T) {
        let tick = self.tick_of(due + TICK).max(self.next);
        if let Some(slot) = self.slot(tick) {
            slot.push((tick, item));
            self.length += 1;
        }
    }

    /// Takes what is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<T> {
        let until = self.tick_of(now);
        let mut due = Vec::new();
        // After a long pause every slot is visited once.
        let visited = self.next..=until.min(self.next.saturating_add(SLOTS - 1));
        for tick in visited {
            if let Some(slot) = self.slot(tick) {
                due.extend(slot.extract_if(.., |(tick, _)| *tick <= until));
            }
        }
        self.next = self.next.max(until + 1);
        self.length -= due.len();
        due.into_iter().map(|(_, item)| item).collect()
    }

    fn tick_of(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.start).as_millis();
        u64::try_from(since / TICK.as_millis()).unwrap_or(u64::MAX - SLOTS)
    }

    fn slot(&mut self, tick: u64) -> Option<&mut Vec<(u64, T)>> {
        self.slots.get_mut(usize::try_from(tick % SLOTS).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_appointments_near_and_far() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut wheel = Wheel::new(start);
        for due in [0, 5, 19, 20, 1_000, 30_000, 90_000] {
            wheel.insert(at(due), due);
        }
        let mut kept: Vec<(u64, u64)> = Vec::new();
        for now in (0..100_000).step_by(10) {
            kept.extend(wheel.due(at(now)).into_iter().map(|due| (due, now)));
        }
        assert!(wheel.is_empty());
        assert_eq!(kept.len(), 7);
        for (due, now) in kept {
            assert!((due..=due + 40).contains(&now), "{due} at {now}");
        }
    }

    #[test]
    fn survives_a_pause() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for due in 0..100 {
            wheel.insert(start + Duration::from_secs(due), due);
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(wheel.due(later).len(), 60);
        wheel.insert(start, 1000);
        assert_eq!(wheel.due(later + TICK), [60, 1000]);
    }
}
