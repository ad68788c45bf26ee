//! Running steps: conditions, policies, shared flows, and what a failing policy leaves behind.

use std::sync::Arc;
use std::time::Instant;

use crate::dialects::apigee::condition::Condition;
use crate::dialects::apigee::program::Hook;
use crate::dialects::apigee::variables::Value;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::fault;
use crate::plugins::apigee::flow::program::{Flow, LinkedPolicy, Program, Sides, Step};
use crate::plugins::apigee::flow::scope::{FaultFacts, Scope, Side};
use crate::plugins::apigee::flow::trace::Event;

/// How deep shared flows, and chained proxies, may be nested.
pub(crate) const DEPTH_MAX: u32 = 10;

/// What happens after a list of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    Continue,
    /// The message `response` is the answer, no further step runs.
    Answer,
    /// No target is asked; the response's side begins after the attachment of the policy of this name there.
    AnswerFrom(Arc<str>),
}

/// Runs the steps of one list. `resume` holds the name of a policy until whose attachment steps are passed over.
pub(crate) async fn steps(
    program: &Arc<Program>,
    scope: &mut Scope,
    steps: &[Step],
    resume: &mut Option<Arc<str>>,
) -> Result<Then, PolicyFault> {
    for step in steps {
        let policy = &step.policy;
        if let Some(name) = resume {
            if *name == policy.name {
                *resume = None;
            }
            continue;
        }
        if !holds(scope, step.condition.as_ref())? {
            skipped(scope, policy, "the condition does not hold");
            continue;
        }
        if !policy.enabled {
            skipped(scope, policy, "it is not enabled");
            continue;
        }
        match run(program, scope, policy).await {
            Ok(Next::Continue) => {}
            Ok(Next::Answer) => return Ok(Then::Answer),
            Ok(Next::AnswerFromHere) => return Ok(Then::AnswerFrom(Arc::clone(&policy.name))),
            Err(fault) => {
                failed(scope, policy, &fault);
                if fault.is_raised || !policy.continue_on_error {
                    return Err(fault);
                }
            }
        }
        check_time(program, scope)?;
    }
    Ok(Then::Continue)
}

/// Runs the steps of a flow's side under the flow's name.
pub(crate) async fn flow(
    program: &Arc<Program>,
    scope: &mut Scope,
    name: &Arc<str>,
    sides: &Sides,
    resume: &mut Option<Arc<str>>,
) -> Result<Then, PolicyFault> {
    let list = match scope.side {
        Side::Response => &sides.response,
        Side::Request | Side::Error => &sides.request,
    };
    if list.is_empty() {
        return Ok(Then::Continue);
    }
    enter(scope, name, None);
    steps(program, scope, list, resume).await
}

/// Runs the first conditional flow whose condition holds.
pub(crate) async fn first_of(
    program: &Arc<Program>,
    scope: &mut Scope,
    flows: &[Flow],
    resume: &mut Option<Arc<str>>,
) -> Result<Then, PolicyFault> {
    for flow in flows {
        if holds(scope, flow.condition.as_ref())? {
            enter(scope, &flow.name, flow.description.as_ref());
            let list = match scope.side {
                Side::Response => &flow.steps.response,
                Side::Request | Side::Error => &flow.steps.request,
            };
            return steps(program, scope, list, resume).await;
        }
    }
    Ok(Then::Continue)
}

/// Runs the shared flow at a hook. A fault there ends the exchange only where the hook says so.
pub(crate) async fn hook(
    program: &Arc<Program>,
    scope: &mut Scope,
    hook: Option<&Hook>,
) -> Result<Then, PolicyFault> {
    let Some(hook) = hook else {
        return Ok(Then::Continue);
    };
    let Some(flow) = program.shared_flows.get(&hook.shared_flow).map(Arc::clone) else {
        return match hook.continue_on_error {
            true => Ok(Then::Continue),
            false => Err(fault::no_shared_flow(&hook.shared_flow)),
        };
    };
    enter(scope, &flow.name, None);
    match Box::pin(steps(program, scope, &flow.steps, &mut None)).await {
        Err(fault) if hook.continue_on_error && !fault.is_raised => {
            tracing::debug!(flow = %flow.name, fault = %fault.code, "a hook failed and is passed over");
            Ok(Then::Continue)
        }
        outcome => outcome,
    }
}

/// Runs a shared flow on behalf of a policy.
pub(crate) async fn shared_flow(
    context: &mut FlowContext<'_>,
    name: &str,
) -> Result<Next, PolicyFault> {
    let program = context.program;
    let Some(flow) = program.shared_flows.get(name).map(Arc::clone) else {
        return Err(fault::no_shared_flow(name));
    };
    if context.scope.depth >= DEPTH_MAX {
        return Err(fault::too_deep(DEPTH_MAX));
    }
    context.scope.depth += 1;
    let before = (
        Arc::clone(&context.scope.flow_name),
        context.scope.flow_description.clone(),
    );
    enter(context.scope, &flow.name, None);
    let outcome = Box::pin(steps(program, context.scope, &flow.steps, &mut None)).await;
    (context.scope.flow_name, context.scope.flow_description) = before;
    context.scope.depth -= 1;
    match outcome? {
        Then::Continue => Ok(Next::Continue),
        Then::Answer => Ok(Next::Answer),
        Then::AnswerFrom(_) => Ok(Next::AnswerFromHere),
    }
}

/// Does a condition hold? One that is not there does.
pub(crate) fn holds(scope: &Scope, condition: Option<&Condition>) -> Result<bool, PolicyFault> {
    let Some(condition) = condition else {
        return Ok(true);
    };
    let holds = condition
        .evaluate(scope)
        .map_err(|error| fault::undecided(condition.text(), &error.to_string()))?;
    if let Some(trace) = &scope.trace {
        trace.push(Event::Condition {
            text: condition.text().to_owned(),
            holds,
        });
    }
    Ok(holds)
}

/// A flow begins.
pub(crate) fn enter(scope: &mut Scope, name: &Arc<str>, description: Option<&Arc<str>>) {
    scope.flow_name = Arc::clone(name);
    scope.flow_description = description.cloned();
    if let Some(trace) = &scope.trace {
        trace.push(Event::Flow {
            name: name.to_string(),
            at_us: trace.now_us(),
        });
    }
}

/// Is there time left for the whole exchange?
pub(crate) fn check_time(program: &Program, scope: &Scope) -> Result<(), PolicyFault> {
    let Some(limit) = program.plan.properties.api_timeout_ms else {
        return Ok(());
    };
    let spent = scope.inbound.started.elapsed().as_millis();
    match spent > u128::from(limit) && scope.side != Side::Error {
        true => Err(fault::api_timed_out()),
        false => Ok(()),
    }
}

async fn run(
    program: &Arc<Program>,
    scope: &mut Scope,
    policy: &Arc<LinkedPolicy>,
) -> Result<Next, PolicyFault> {
    let began = scope
        .trace
        .as_ref()
        .map(|trace| (trace.now_us(), Instant::now()));
    let mut context = FlowContext {
        scope,
        program,
        policy,
    };
    let outcome = match policy.waits {
        true => policy.policy.execute_async(&mut context).await,
        false => policy.policy.execute(&mut context),
    };
    if let (Some((at_us, began)), Some(trace)) = (began, &scope.trace) {
        trace.push(Event::Step {
            policy: policy.name.to_string(),
            at_us,
            took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            outcome: match &outcome {
                Ok(Next::Continue) => "done".to_owned(),
                Ok(Next::Answer | Next::AnswerFromHere) => "answered".to_owned(),
                Err(fault) => format!("fault {}", fault.code),
            },
        });
    }
    outcome
}

fn skipped(scope: &Scope, policy: &LinkedPolicy, reason: &'static str) {
    if let Some(trace) = &scope.trace {
        trace.push(Event::Skipped {
            policy: policy.name.to_string(),
            reason,
        });
    }
}

/// What a failing policy leaves behind, whether the flow goes on or not.
fn failed(scope: &mut Scope, policy: &LinkedPolicy, fault: &PolicyFault) {
    // Only the number of variables can refuse it.
    let _ = scope.set(&policy.failed, Value::Boolean(true));
    scope.fault = Some(Box::new(facts_of(fault, "Step", scope.side)));
    if let Some(trace) = &scope.trace {
        trace.push(Event::Fault {
            name: fault.name.to_string(),
            message: fault.message.clone(),
        });
    }
}

/// What variables tell of a fault.
pub(crate) fn facts_of(fault: &PolicyFault, category: &'static str, side: Side) -> FaultFacts {
    FaultFacts {
        name: fault.name.clone(),
        code: fault.code.clone(),
        message: fault.message.clone(),
        reason: fault.reason.clone(),
        category,
        state: match side {
            Side::Request => "PROXY_REQ_FLOW",
            Side::Response => "PROXY_RESP_FLOW",
            Side::Error => "ERROR_FLOW",
        },
    }
}
