//! How failures are told on the command line.
#![allow(
    clippy::print_stderr,
    reason = "standard error is where failures are told"
)]

use std::fmt;

use crate::model::Diagnostic;

/// A configuration or document that was refused, with everything that is wrong with it.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Vec<Diagnostic>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let line_break = if index > 0 { "\n" } else { "" };
            write!(f, "{line_break}{}", line(finding))?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// What a running instance said was wrong, one finding a line.
#[derive(Debug)]
pub(crate) struct Answered(pub(crate) String);

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Answered {}

/// Prints a failure to standard error: diagnostics one a line, anything else on one line with its causes.
pub(crate) fn tell(failure: &anyhow::Error) {
    if let Some(refused) = failure.downcast_ref::<Refused>() {
        eprintln!("{refused}");
    } else if let Some(answered) = failure.downcast_ref::<Answered>() {
        eprintln!("{answered}");
    } else {
        eprintln!("sallyport: {}", format!("{failure:#}").replace('\n', " "));
    }
}

/// Prints warnings to standard error, one a line.
pub(crate) fn warn(warnings: &[Diagnostic]) {
    for warning in warnings {
        eprintln!("{}", line(warning));
    }
}

fn line(finding: &Diagnostic) -> String {
    let text = finding.to_string().replace('\n', " ");
    if finding.is_error() {
        text
    } else {
        format!("{text} (warning)")
    }
}
