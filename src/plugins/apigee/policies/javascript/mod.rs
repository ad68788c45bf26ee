//! `Javascript`: runs a script over the transaction's variables and messages.
//!
//! ```text
//! policy ─▶ engine (one for each policy and thread: compiled once) ─▶ run (the transaction is lent to `host`) ─▶ script
//! ```
//!
//! A script is one function, so its variables begin anew with every execution; what it leaves among the globals is
//! removed. Time, memory and stack are limited. Scripts that may wait for other servers run on threads that may wait.

mod callouts;
mod engine;
mod host;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::callouts::Callouts;
use self::engine::{Failure, run};
use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::javascript::Config;
use crate::dialects::apigee::script::Script;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;

/// A script as every thread's engine needs it.
struct Program {
    script: Script,
    properties: serde_json::Value,
    time_limit: Duration,
    callouts: Arc<Callouts>,
}

struct JavaScript {
    program: Arc<Program>,
    /// It speaks of other servers: it must not run where others wait for the thread.
    may_wait: bool,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let files = config.script_files(link.name, link.resources)?;
    let may_wait = files.iter().any(|(_, text)| {
        ["httpClient", "waitForComplete"]
            .iter()
            .any(|word| text.contains(word))
    });
    let script = Script::assemble(files);
    script
        .check()
        .map_err(|problem| format!("ScriptCompilationFailed: {problem}"))?;
    let properties = serde_json::to_value(&config.properties).map_err(|error| error.to_string())?;
    Ok(Box::new(JavaScript {
        program: Arc::new(Program {
            script,
            properties,
            time_limit: Duration::from_millis(u64::from(config.time_limit_ms)),
            callouts: Arc::new(Callouts::of(link.context)?),
        }),
        may_wait,
    }))
}

#[async_trait]
impl Policy for JavaScript {
    fn waits(&self) -> bool {
        self.may_wait
    }

    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let lent = lend(flow.scope);
        let (scope, outcome) = run(&self.program, lent);
        *flow.scope = scope;
        conclude(flow, outcome)
    }

    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let lent = lend(flow.scope);
        let program = Arc::clone(&self.program);
        match tokio::task::spawn_blocking(move || run(&program, lent)).await {
            Ok((scope, outcome)) => {
                *flow.scope = scope;
                conclude(flow, outcome)
            }
            Err(error) => Err(fault(flow, &format!("the script's thread failed: {error}"))),
        }
    }
}

/// Takes the scope out, for as long as the script has it.
fn lend(scope: &mut Scope) -> Scope {
    let hollow = scope.hollow();
    std::mem::replace(scope, hollow)
}

fn conclude(flow: &FlowContext<'_>, outcome: Result<(), Failure>) -> Result<Next, PolicyFault> {
    match outcome {
        Ok(()) => Ok(Next::Continue),
        Err(failure) => Err(fault(flow, &failure.to_string())),
    }
}

fn fault(flow: &FlowContext<'_>, error: &str) -> PolicyFault {
    let message = format!(
        "Execution of {} failed with error: Javascript runtime error: {error}",
        flow.name()
    );
    PolicyFault::new(500, "steps.javascript.ScriptExecutionFailed", message)
}

#[cfg(test)]
mod tests;
