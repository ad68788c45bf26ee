//! Waits that nearly always end for another reason, made cheap for that.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is set once for many waits: one that ends in time leaves it as it is, and it rings for a later one.
#[derive(Default)]
pub(crate) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes as it stands: until it rings, that one need not ask again.
    wakes: Option<Waker>,
}

impl Alarm {
    /// Resolves when it is `due`.
    pub(crate) async fn rings(&mut self, due: Instant) {
        let Self { timer, wakes } = self;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        poll_fn(|cx| {
            loop {
                let is_known = wakes.as_ref().is_some_and(|it| it.will_wake(cx.waker()));
                if is_known && !timer.is_elapsed() {
                    return Poll::Pending;
                }
                // Without the budget of tasks, for which a timer may turn its asker away unheard.
                let mut asked = pin!(unconstrained(timer.as_mut()));
                if asked.as_mut().poll(cx).is_pending() {
                    *wakes = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                *wakes = None;
                if Instant::now() >= due {
                    return Poll::Ready(());
                }
                // It rang for an earlier wait.
                timer.as_mut().reset(due);
            }
        })
        .await;
    }
}

/// What the future comes to; `None` when that takes longer than `limit`. No timer is set for one that is ready at once.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        return Some(output);
    }
    pingora_timeout::timeout(limit, future).await.ok()
}

/// What the future comes to, which is asked the first time and then only when it may have become ready: its waker, which is
/// this task's, stays where it was left. For waits that last through many others.
pub(crate) async fn once<F: Future>(future: F, may_be_ready: impl Fn() -> bool) -> F::Output {
    let mut future = pin!(future);
    let mut is_asked = false;
    poll_fn(|cx| {
        if is_asked && !may_be_ready() {
            return Poll::Pending;
        }
        is_asked = true;
        future.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rings_when_it_is_due_whatever_it_was_set_for() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        // Two waits that end in time, the later one sooner due, and one that does not.
        for due in [20, 10, 30] {
            let waiting = tokio::time::timeout(Duration::from_secs(1), alarm.rings(after(due)));
            assert!(waiting.await.is_err());
        }
        alarm.rings(after(40)).await;
        assert_eq!(Instant::now(), after(40));
        alarm.rings(after(40)).await;
        alarm.rings(after(45)).await;
        assert_eq!(Instant::now(), after(45));
    }

    #[tokio::test(start_paused = true)]
    async fn rings_for_whoever_waits_last() {
        let mut alarm = Alarm::default();
        let due = Instant::now() + Duration::from_secs(30);
        for _ in 0..3 {
            let waiting = tokio::time::timeout(Duration::from_secs(1), alarm.rings(due));
            assert!(waiting.await.is_err());
            // Another task, and one whose budget is used up.
            let waiting = tokio::spawn(async move {
                while has_budget_remaining() {
                    consume_budget().await;
                }
                let waiting = tokio::time::timeout(Duration::from_secs(1), alarm.rings(due));
                assert!(waiting.await.is_err());
                alarm
            });
            alarm = waiting.await.unwrap();
        }
        // The same task again: who is known already is woken all the same.
        for _ in 0..2 {
            let waiting = tokio::time::timeout(Duration::from_secs(1), alarm.rings(due));
            assert!(waiting.await.is_err());
        }
        alarm.rings(due).await;
        assert_eq!(Instant::now(), due);
    }

    #[tokio::test]
    async fn is_asked_once_and_wakes_all_the_same() {
        let (throw, mut switch) = watch::channel(false);
        let changes = switch.clone();
        let polls = AtomicUsize::new(0);
        let mut waiting = pin!(switch.wait_for(|thrown| *thrown));
        let counted = poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            waiting.as_mut().poll(cx).map(drop)
        });
        let mut thrown = pin!(once(counted, || changes.has_changed().unwrap_or(true)));
        for _ in 0..3 {
            tokio::select! {
                biased;
                () = &mut thrown => assert!(*throw.borrow(), "nobody has thrown the switch"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        let throwing = async { throw.send(true) };
        let (sent, ()) = tokio::join!(throwing, thrown);
        assert!(sent.is_ok());
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn only_who_waits_is_timed() {
        assert_eq!(within(Duration::ZERO, async { 1 }).await, Some(1));
        let never = std::future::pending::<()>();
        assert_eq!(within(Duration::from_millis(1), never).await, None);
    }
}
