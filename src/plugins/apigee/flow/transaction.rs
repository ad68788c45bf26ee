//! One exchange through its flows: the request's side, the target, the response's side, and the way of faults.
//!
//! ```text
//! frame 0:  hook ▶ proxy request ▶ route ▶ hook ▶ target request ─▶ HTTP target: leaves the transaction
//!              │                             │                   └▶ another proxy: frame 1 begins with this request
//!              ▼ fault                       ▼ null route
//!        error flow ────────▶ answer ◀── hook ◀ proxy response ◀ hook ◀ target response ◀── response of target or frame 1
//! ```
//!
//! A proxy that calls another one inside the process is a frame below it, with variables of its own; only messages cross.
//! Whoever owns a transaction brings the response of a target, or the engine's fault, and takes the answer.

use std::sync::Arc;
use std::time::Instant;

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::execute;
use crate::plugins::apigee::flow::frame::{Frame, Location, Step};
use crate::plugins::apigee::flow::program::Program;
use crate::plugins::apigee::flow::scope::{Scope, Side};
use crate::plugins::apigee::flow::target::Composed;
use crate::runtime::head::ResponseHead;

/// See the module.
pub(crate) struct Transaction {
    /// The first is the proxy that the client called.
    frames: Vec<Frame>,
    /// Callees that have answered, for what runs after the answer was sent.
    ended: Vec<Frame>,
}

/// What comes after the request's side.
pub(crate) enum Outcome {
    /// The request goes to this target.
    Forward(Box<Composed>),
    /// The answer is here.
    Answer,
}

impl Transaction {
    pub(crate) fn new(program: Arc<Program>, scope: Scope) -> Self {
        Self {
            frames: vec![Frame::new(program, scope)],
            ended: Vec::new(),
        }
    }

    /// The frame that waits for its target, or has just answered.
    pub(crate) fn top(&mut self) -> Option<&mut Frame> {
        self.frames.last_mut()
    }

    /// The frame of the proxy that the client called.
    pub(crate) fn outer(&mut self) -> Option<&mut Frame> {
        self.frames.first_mut()
    }

    /// Runs the request's side, and whatever follows while no target outside the process is asked.
    pub(crate) async fn begin(&mut self) -> Outcome {
        loop {
            let Some(frame) = self.frames.last_mut() else {
                return Outcome::Answer;
            };
            let answered = match frame.request_side().await {
                Ok(Step::Http(composed)) => return Outcome::Forward(composed),
                Ok(Step::Local(callee)) => {
                    self.frames.push(*callee);
                    continue;
                }
                Ok(Step::Script(call)) => match call.send().await {
                    Ok(response) => {
                        frame.response_side(response).await;
                        Ok(())
                    }
                    Err(fault) => Err((fault, Location::Target)),
                },
                Ok(Step::Answer) => Ok(()),
                Ok(Step::Null) => {
                    frame.scope.side = Side::Response;
                    frame.without_target().await
                }
                Err(failure) => Err(failure),
            };
            if let Err((fault, location)) = answered {
                frame.error_side(fault, location, None).await;
            }
            self.unwind().await;
            return Outcome::Answer;
        }
    }

    /// Does the target's response go to the client as it came, because nothing looks at it any more?
    pub(crate) fn passes_on(&self, head: &ResponseHead) -> bool {
        match (self.frames.as_slice(), self.ended.as_slice()) {
            ([frame], []) => frame.passes_on(head),
            _ => false,
        }
    }

    /// The target has answered: runs the response's side.
    pub(crate) async fn respond(&mut self, response: Message) {
        if let Some(frame) = self.frames.last_mut() {
            frame.response_side(response).await;
        }
        self.unwind().await;
    }

    /// The target could not be asked, or its answer not be read.
    pub(crate) async fn fail(&mut self, fault: PolicyFault) {
        if let Some(frame) = self.frames.last_mut() {
            let location = frame.location();
            frame.error_side(fault, location, None).await;
        }
        self.unwind().await;
    }

    /// The message that goes to the client.
    pub(crate) fn answer(&mut self) -> Option<&mut Message> {
        self.frames.first_mut().and_then(Frame::answer)
    }

    /// Runs what runs after the answer was sent.
    pub(crate) async fn after(mut self) {
        let now = Instant::now();
        for mut frame in self.ended.drain(..).chain(self.frames.drain(..)) {
            frame.scope.times.client_sent_end = Some(now);
            let program = Arc::clone(&frame.program);
            if program.flows.post_client.is_empty() {
                continue;
            }
            execute::enter(&mut frame.scope, &Arc::from("PostClientFlow"), None);
            let steps = &program.flows.post_client;
            if let Err(fault) = execute::steps(&program, &mut frame.scope, steps, &mut None).await {
                tracing::warn!(proxy = program.place.proxy, fault = %fault.code, "PostClientFlow failed: {}", fault.message);
            }
        }
    }

    /// Is there anything to run after the answer was sent?
    pub(crate) fn has_after(&self) -> bool {
        let frames = self.frames.iter().chain(&self.ended);
        frames
            .into_iter()
            .any(|frame| !frame.program.flows.post_client.is_empty())
    }

    /// Hands the answer of each callee to its caller.
    async fn unwind(&mut self) {
        while self.frames.len() > 1 {
            let Some(mut callee) = self.frames.pop() else {
                return;
            };
            let response = callee.answer().cloned().unwrap_or_else(Message::response);
            self.ended.push(callee);
            if let Some(caller) = self.frames.last_mut() {
                caller.response_side(response).await;
            }
        }
    }
}
