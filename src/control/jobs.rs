//! A write on its way through the queue, whatever it answers with.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use super::entities::Entities;
use super::plane::Moment;

/// A write that the writer thread runs, perhaps several times, and then answers once.
pub(super) trait Job<S: Entities>: Send {
    /// Works on `draft`, which the caller throws away when the answer is `None` (refused). Each run starts anew.
    fn run(&mut self, draft: &mut S, moment: &Moment) -> Option<Vec<S::Change>>;

    /// Answers with the result of the last run; `committed` is the revision that contains it.
    fn answer(self: Box<Self>, committed: u64);

    /// Answers that nothing was changed.
    fn fail(self: Box<Self>, reason: &str);
}

/// The answer to a write: its result and the revision that contains it.
pub(super) type Answer<T, S> = Result<(T, u64), <S as Entities>::Error>;

pub(super) struct Write<S: Entities, T, F> {
    operation: F,
    result: Option<Result<T, S::Error>>,
    answer: oneshot::Sender<Answer<T, S>>,
}

impl<S, T, F> Write<S, T, F>
where
    S: Entities,
    T: Send + 'static,
    F: FnMut(&mut S, &Moment) -> Result<(T, Vec<S::Change>), S::Error> + Send + 'static,
{
    /// The job to queue, and where its answer arrives.
    pub(super) fn queued(operation: F) -> (Box<dyn Job<S>>, oneshot::Receiver<Answer<T, S>>) {
        let (answer, receiver) = oneshot::channel();
        let job = Self {
            operation,
            result: None,
            answer,
        };
        (Box::new(job), receiver)
    }
}

impl<S, T, F> Job<S> for Write<S, T, F>
where
    S: Entities,
    T: Send,
    F: FnMut(&mut S, &Moment) -> Result<(T, Vec<S::Change>), S::Error> + Send,
{
    fn run(&mut self, draft: &mut S, moment: &Moment) -> Option<Vec<S::Change>> {
        // A bug in one operation must not take down the thread that serves all writes. The draft is thrown away.
        let run = AssertUnwindSafe(|| (self.operation)(draft, moment));
        match catch_unwind(run) {
            Ok(Ok((value, changes))) => {
                self.result = Some(Ok(value));
                Some(changes)
            }
            Ok(Err(refusal)) => {
                self.result = Some(Err(refusal));
                None
            }
            Err(_) => {
                let reason = "a write panicked, nothing was changed".to_owned();
                self.result = Some(Err(S::failure(reason)));
                None
            }
        }
    }

    fn answer(self: Box<Self>, committed: u64) {
        let result = match self.result {
            Some(Ok(value)) => Ok((value, committed)),
            Some(Err(refusal)) => Err(refusal),
            None => Err(S::failure("a write was never run".to_owned())),
        };
        // Whoever asked may have gone away; the change stands.
        let _ = self.answer.send(result);
    }

    fn fail(self: Box<Self>, reason: &str) {
        let _ = self.answer.send(Err(S::failure(reason.to_owned())));
    }
}
