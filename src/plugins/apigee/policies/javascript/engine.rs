//! Engines that run scripts: each thread has one for each policy, with the script compiled.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rquickjs::context::EvalOptions;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Function, Persistent, Runtime};

use super::{Program, host};
use crate::dialects::apigee::script::Script;
use crate::plugins::apigee::flow::scope::Scope;

/// Most memory of one engine, in bytes.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most stack of a script, in bytes; less than any thread has.
const STACK_BYTES_MAX: usize = 256 * 1024;
/// Time for compiling a script.
const COMPILE_TIME: Duration = Duration::from_secs(2);
/// Runs of one engine between two looks at its memory, because looking walks all of it.
const RUNS_BETWEEN_LOOKS: u32 = 256;
/// Engines of one thread; beyond, those that were made first go.
const ENGINES_MAX: usize = 256;

const PRELUDE: &str = include_str!("prelude.js");

thread_local! {
    static ENGINES: RefCell<Vec<(Weak<Program>, Engine)>> = const { RefCell::new(Vec::new()) };
}

/// Why a script failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It threw; the text is the error with its place.
    Threw(String),
    OutOfTime(Duration),
    /// The engine itself could not be made.
    Engine(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threw(text) => write!(f, "\"{text}\""),
            Self::OutOfTime(limit) => {
                write!(
                    f,
                    "the script exceeded time limit of {} ms",
                    limit.as_millis()
                )
            }
            Self::Engine(text) => f.write_str(text),
        }
    }
}

/// Fields are dropped in this order: values before the engine that owns them.
struct Engine {
    runner: Persistent<Function<'static>>,
    script: Persistent<Function<'static>>,
    context: Context,
    deadline: Rc<Cell<Instant>>,
    runs: u32,
}

impl Engine {
    /// May it run once more? One that is half full is given up, and made anew when it is needed. It is looked at after
    /// a run that failed, perhaps for want of memory, and now and then.
    fn has_room(&mut self, failed: bool) -> bool {
        self.runs = self.runs.wrapping_add(1);
        let looks = failed || self.runs.is_multiple_of(RUNS_BETWEEN_LOOKS);
        !looks
            || self.context.runtime().memory_usage().memory_used_size
                < (MEMORY_BYTES_MAX / 2) as i64
    }
}

/// Runs the script over a transaction, which comes back whatever happened.
pub(super) fn run(program: &Arc<Program>, scope: Scope) -> (Scope, Result<(), Failure>) {
    let mut engine = match take(program) {
        Ok(engine) => engine,
        Err(failure) => return (scope, Err(failure)),
    };
    let deadline = Instant::now() + program.time_limit;
    engine.deadline.set(deadline);
    let (scope, outcome) = host::lend(scope, deadline, &program.callouts, || {
        engine.context.with(|ctx| {
            let called = call(&engine, &ctx);
            called
                .catch(&ctx)
                .map_err(|error| failure(&error, program, deadline))
        })
    });
    // An engine that was stopped in the middle, or ran out of memory, is not used again.
    let is_sound = match &outcome {
        Ok(()) => engine.has_room(false),
        Err(Failure::Threw(_)) => engine.has_room(true),
        Err(_) => false,
    };
    if is_sound {
        ENGINES.with_borrow_mut(|engines| engines.push((Arc::downgrade(program), engine)));
    }
    (scope, outcome)
}

fn call<'js>(engine: &Engine, ctx: &Ctx<'js>) -> rquickjs::Result<()> {
    let runner = engine.runner.clone().restore(ctx)?;
    let script = engine.script.clone().restore(ctx)?;
    runner.call((script,))
}

fn take(program: &Arc<Program>) -> Result<Engine, Failure> {
    let found = ENGINES.with_borrow_mut(|engines| {
        let at = engines
            .iter()
            .position(|(owner, _)| std::ptr::eq(owner.as_ptr(), Arc::as_ptr(program)))?;
        Some(engines.swap_remove(at).1)
    });
    if let Some(engine) = found {
        return Ok(engine);
    }
    ENGINES.with_borrow_mut(|engines| {
        engines.retain(|(owner, _)| owner.strong_count() > 0);
        while engines.len() >= ENGINES_MAX {
            engines.remove(0);
        }
    });
    Engine::new(program)
}

impl Engine {
    fn new(program: &Arc<Program>) -> Result<Self, Failure> {
        let (runtime, deadline) = runtime().map_err(|error| Failure::Engine(error.to_string()))?;
        let context =
            Context::full(&runtime).map_err(|error| Failure::Engine(error.to_string()))?;
        let made = context.with(|ctx| {
            let make = || -> rquickjs::Result<_> {
                let prelude: Function<'_> = evaluate(&ctx, "prelude.js", PRELUDE)?;
                let properties = ctx.json_parse(program.properties.to_string())?;
                let runner: Function<'_> = prelude.call((host::object(&ctx)?, properties))?;
                let script: Function<'_> = evaluate(&ctx, Script::NAME, program.script.text())?;
                Ok((
                    Persistent::save(&ctx, runner),
                    Persistent::save(&ctx, script),
                ))
            };
            make()
                .catch(&ctx)
                .map_err(|error| Failure::Engine(described(&error, &program.script)))
        });
        let (runner, script) = made?;
        Ok(Self {
            runner,
            script,
            context,
            deadline,
            runs: 0,
        })
    }
}

fn runtime() -> rquickjs::Result<(Runtime, Rc<Cell<Instant>>)> {
    let runtime = Runtime::new()?;
    runtime.set_memory_limit(MEMORY_BYTES_MAX);
    runtime.set_max_stack_size(STACK_BYTES_MAX);
    let deadline = Rc::new(Cell::new(Instant::now() + COMPILE_TIME));
    let watched = Rc::clone(&deadline);
    runtime.set_interrupt_handler(Some(Box::new(move || Instant::now() >= watched.get())));
    Ok((runtime, deadline))
}

fn evaluate<'js, V: rquickjs::FromJs<'js>>(
    ctx: &Ctx<'js>,
    name: &str,
    source: &str,
) -> rquickjs::Result<V> {
    let mut options = EvalOptions::default();
    options.strict = false;
    options.filename = Some(name.to_owned());
    ctx.eval_with_options(source, options)
}

fn failure(error: &CaughtError<'_>, program: &Program, deadline: Instant) -> Failure {
    if Instant::now() >= deadline {
        return Failure::OutOfTime(program.time_limit);
    }
    Failure::Threw(described(error, &program.script))
}

/// An error as scripts' authors know it: `ReferenceError: "x" is not defined. (file.js:6)`.
fn described(error: &CaughtError<'_>, script: &Script) -> String {
    let (text, stack) = match error {
        CaughtError::Exception(exception) => {
            let object = exception.as_object();
            let name = object.get::<_, String>("name").unwrap_or_default();
            let message = exception.message().unwrap_or_default();
            let message = match message.strip_suffix(" is not defined") {
                Some(name) => format!("\"{name}\" is not defined."),
                None => message,
            };
            (format!("{name}: {message}"), exception.stack())
        }
        CaughtError::Value(value) => {
            let text = value.as_string().and_then(|text| text.to_string().ok());
            (text.unwrap_or_else(|| format!("{value:?}")), None)
        }
        CaughtError::Error(error) => (error.to_string(), None),
    };
    let line = stack.as_deref().and_then(Script::line_in);
    match line.and_then(|line| script.place(line)) {
        Some((file, line)) => format!("{text} ({file}:{line})"),
        None => text,
    }
}
