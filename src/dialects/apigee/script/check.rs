//! Whether a script compiles: said before anything runs it, with file and line.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use rquickjs::context::EvalOptions;
use rquickjs::{CatchResultExt, CaughtError, Context, Function, Runtime};

use super::Script;

/// Most memory for compiling, in bytes.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most stack for compiling, in bytes; less than any thread has.
const STACK_BYTES_MAX: usize = 256 * 1024;
/// How often the engine may ask whether to go on: compiling needs none of it, but a file may close the function that it
/// is put into and begin to run.
const PATIENCE: u32 = 100;

/// What keeps a script from being compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file and the line in it, from 1, as far as known.
    pub place: Option<(Arc<str>, u32)>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((file, line)) => write!(f, "{} ({file}:{line})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Script {
    /// Compiles it and lets it go.
    ///
    /// # Errors
    /// What is wrong, with the place.
    pub fn check(&self) -> Result<(), Problem> {
        let failed = |error: rquickjs::Error| Problem {
            place: None,
            message: error.to_string(),
        };
        let runtime = Runtime::new().map_err(failed)?;
        runtime.set_memory_limit(MEMORY_BYTES_MAX);
        runtime.set_max_stack_size(STACK_BYTES_MAX);
        let asked = Cell::new(0);
        runtime.set_interrupt_handler(Some(Box::new(move || {
            asked.set(asked.get() + 1);
            asked.get() > PATIENCE
        })));
        let context = Context::full(&runtime).map_err(failed)?;
        context.with(|ctx| {
            let mut options = EvalOptions::default();
            options.strict = false;
            options.filename = Some(Self::NAME.to_owned());
            ctx.eval_with_options::<Function<'_>, _>(self.text(), options)
                .catch(&ctx)
                .map(drop)
                .map_err(|error| self.problem(&error))
        })
    }

    fn problem(&self, error: &CaughtError<'_>) -> Problem {
        let CaughtError::Exception(exception) = error else {
            return Problem {
                place: None,
                message: error.to_string(),
            };
        };
        let name: Option<String> = exception.as_object().get("name").ok();
        let message = exception.message().unwrap_or_default();
        let line = exception.stack().as_deref().and_then(Self::line_in);
        let place = line.and_then(|line| self.place(line));
        Problem {
            place: place.map(|(file, line)| (Arc::from(file), line)),
            message: format!("{}: {message}", name.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn tells_what_does_not_compile_and_where() {
        let check = |files: &[(&str, &str)]| Script::assemble(files.iter().copied()).check();
        assert_eq!(
            check(&[("a.js", "var x = 1;"), ("b.js", "x += 1; // end")]),
            Ok(())
        );
        // Nothing runs.
        assert_eq!(check(&[("a.js", "while (true) {}")]), Ok(()));
        let cases = [
            ("var ok = 1;", "var x = ;", ("b.js", 1)),
            ("var ok = 1;", "\n\nif (x {\n}", ("b.js", 3)),
            ("return 1\nlet a; let a;", "", ("a.js", 2)),
            ("", "var x = <a>{1}</a>;", ("b.js", 1)),
        ];
        for (first, second, (file, line)) in cases {
            let problem = check(&[("a.js", first), ("b.js", second)]).unwrap_err();
            assert_eq!(problem.place, Some((Arc::from(file), line)), "{problem}");
            assert!(problem.message.starts_with("SyntaxError: "), "{problem}");
        }
        // A file that leaves its function is stopped.
        let problem = check(&[("a.js", "}); while (true) {} (function () {")]);
        assert!(problem.is_err());
    }
}
