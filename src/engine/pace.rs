//! How slowly a client may send a request over HTTP/1: its head within a limit in total, its body at a least rate.
//!
//! Time counts only while the gateway waits for the client; a client that is held back by a slow upstream is not slow.
//! A request that arrives in one piece costs two comparisons.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// A body may arrive more slowly than at the least rate for so long in all.
const BODY_GRACE: Duration = Duration::from_secs(10);
/// The most that one wait counts. When the gateway itself did not look for long, that was not the client's doing.
const WAIT_COUNTS_MAX: Duration = Duration::from_secs(5);

/// The limits of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// For a whole head, from its first byte; none is no limit.
    pub(crate) head: Option<Duration>,
    /// Bytes of a body in each second; 0 is no limit.
    pub(crate) body_rate: u64,
}

/// What the client is sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Nothing that anybody waits for.
    Nothing,
    Head,
    Body,
}

/// The watch over one connection.
pub(crate) struct Pace {
    limits: Limits,
    sending: Sending,
    /// Rings when it is late; made when the gateway has to wait.
    alarm: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    /// Waited for the current body in all, and what came of it.
    waited: Duration,
    body_bytes: u64,
}

impl Pace {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            sending: Sending::Nothing,
            alarm: None,
            waiting_since: None,
            waited: Duration::ZERO,
            body_bytes: 0,
        }
    }

    /// So many bytes came while the client was sending this.
    pub(crate) fn arrived(&mut self, sending: Sending, bytes: usize) {
        if self.sending != sending {
            self.sending = sending;
            self.alarm = None;
            self.waiting_since = None;
            (self.waited, self.body_bytes) = (Duration::ZERO, 0);
        }
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed().min(WAIT_COUNTS_MAX);
            if sending == Sending::Body {
                self.alarm = None;
            }
        }
        self.body_bytes = self.body_bytes.saturating_add(bytes as u64);
    }

    /// Nothing is there. Ready when the client is too slow to be waited for any longer.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>, sending: Sending) -> Poll<()> {
        if sending == Sending::Nothing || self.sending != sending {
            // Of a body the first byte counts, not the wait for it: the client may have been told to wait.
            return Poll::Pending;
        }
        let left = match sending {
            Sending::Nothing => None,
            Sending::Head => self.limits.head,
            Sending::Body => self.body_allowance(),
        };
        let Some(left) = left else {
            return Poll::Pending;
        };
        self.waiting_since.get_or_insert_with(Instant::now);
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        alarm.as_mut().poll(cx)
    }

    /// How much longer the body may be waited for.
    fn body_allowance(&self) -> Option<Duration> {
        let seconds = self.body_bytes.checked_div(self.limits.body_rate)?;
        let allowed = BODY_GRACE.saturating_add(Duration::from_secs(seconds));
        Some(allowed.saturating_sub(self.waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Limits {
            head: Some(Duration::from_millis(50)),
            body_rate: 100,
        })
    }

    async fn late(pace: &mut Pace, sending: Sending) {
        std::future::poll_fn(|cx| pace.poll_late(cx, sending)).await;
    }

    #[tokio::test]
    async fn a_head_is_late_however_often_bytes_come() {
        let mut pace = pace();
        let since = Instant::now();
        pace.arrived(Sending::Head, 1);
        let soon = Duration::from_millis(10);
        while tokio::time::timeout(soon, late(&mut pace, Sending::Head))
            .await
            .is_err()
        {
            pace.arrived(Sending::Head, 1);
            assert!(since.elapsed() < Duration::from_secs(10));
        }
        assert!(since.elapsed() >= Duration::from_millis(50));
        // The next request has its own time, and a silent client none.
        pace.arrived(Sending::Nothing, 0);
        let patient = Duration::from_millis(100);
        let waiting = tokio::time::timeout(patient, late(&mut pace, Sending::Head));
        assert!(waiting.await.is_err());
    }

    #[test]
    fn a_body_may_be_as_slow_as_the_rate_and_the_grace_allow() {
        let mut pace = pace();
        pace.arrived(Sending::Body, 1000);
        assert_eq!(
            pace.body_allowance(),
            Some(BODY_GRACE + Duration::from_secs(10))
        );
        pace.waited = Duration::from_secs(15);
        assert_eq!(pace.body_allowance(), Some(Duration::from_secs(5)));
        pace.waited = Duration::from_secs(30);
        assert_eq!(pace.body_allowance(), Some(Duration::ZERO));
        pace.limits.body_rate = 0;
        assert_eq!(pace.body_allowance(), None);
    }
}
