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

/// Prints a failure to standard error: diagnostics one a line, anything else on one line with its causes.
pub(crate) fn tell(failure: &anyhow::Error) {
    match failure.downcast_ref::<Refused>() {
        Some(refused) => eprintln!("{refused}"),
        None => eprintln!("sallyport: {}", format!("{failure:#}").replace('\n', " ")),
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
