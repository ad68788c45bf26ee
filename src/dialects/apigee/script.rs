//! A policy's script: its files put together as one function, and the way back from a line to its file.
//!
//! Every execution of a script has variables of its own because all its files are the body of one function. Refuses to
//! know what a script may call; that is the runner's.

mod check;

use std::sync::Arc;

pub use check::Problem;

/// Names that the function gives to the script.
pub const PARAMETERS: &str =
    "context,request,response,message,error,httpClient,Request,print,properties,crypto";

/// Source files as one function expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    text: String,
    /// The line of the text on which each file begins.
    files: Vec<(u32, Arc<str>)>,
}

impl Script {
    /// What engines call the function's text in the stacks of errors.
    pub const NAME: &str = "script";

    /// Puts files together, in the order in which they run.
    pub fn assemble<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = format!("(function({PARAMETERS}){{\n");
        let mut line = 2;
        let mut begins = Vec::new();
        for (name, source) in files {
            begins.push((line, Arc::from(name)));
            let source = for_each_in(source.trim_start_matches('\u{feff}'));
            text.push_str(&source);
            // A comment on the last line must not swallow what follows.
            text.push('\n');
            line += u32::try_from(source.matches('\n').count()).unwrap_or(u32::MAX / 2) + 1;
        }
        text.push_str("})");
        Self {
            text,
            files: begins,
        }
    }

    /// The line of the text in the innermost frame of a stack that is the script's: `    at f (script:12:3)`.
    pub fn line_in(stack: &str) -> Option<u32> {
        stack.lines().find_map(|frame| {
            let (_, place) = frame.split_once("script:")?;
            let digits = place.split(|character: char| !character.is_ascii_digit());
            digits.into_iter().next()?.parse().ok()
        })
    }

    /// The function expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file, and the line in it (from 1), of a line of the text.
    pub fn place(&self, line: u32) -> Option<(&str, u32)> {
        let (begin, name) = self.files.iter().rev().find(|(begin, _)| *begin <= line)?;
        Some((name, line - begin + 1))
    }
}

/// Rewrites `for each (x in y)`, which only one old engine knows, as a loop over values.
fn for_each_in(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("for each") {
        let (before, loop_text) = rest.split_at(at);
        out.push_str(before);
        match rewritten(before, loop_text) {
            Some((text, length)) => {
                out.push_str(&text);
                rest = loop_text.get(length..).unwrap_or_default();
            }
            None => {
                out.push_str("for each");
                rest = loop_text.get("for each".len()..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// The loop's head in today's words, and the length of the old one.
fn rewritten(before: &str, text: &str) -> Option<(String, usize)> {
    let is_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '$');
    if before.chars().next_back().is_some_and(is_word) {
        return None;
    }
    let after = text.get("for each".len()..)?;
    let open = after.len() - after.trim_start().len();
    if !after.trim_start().starts_with('(') {
        return None;
    }
    let inner = after.get(open + 1..)?;
    let mut depth = 1_u32;
    let close = inner.char_indices().find_map(|(at, character)| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })?;
    let head = inner.get(..close)?;
    let (variable, values) = head.split_once(" in ")?;
    let length = "for each".len() + open + 1 + close + 1;
    Some((
        format!("for ({variable} of Object.values(Object({values})))"),
        length,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lines_lead_back_to_their_files() {
        let script = Script::assemble([("a.js", "one\ntwo"), ("b.js", "three\n"), ("c.js", "x")]);
        let lines: Vec<&str> = script.text().lines().collect();
        let cases = [
            ("one", Some(("a.js", 1))),
            ("two", Some(("a.js", 2))),
            ("three", Some(("b.js", 1))),
            ("x", Some(("c.js", 1))),
        ];
        for (text, place) in cases {
            let line = lines.iter().position(|line| *line == text).unwrap() + 1;
            assert_eq!(script.place(u32::try_from(line).unwrap()), place, "{text}");
        }
        assert_eq!(script.place(1), None);
    }

    #[test]
    fn old_loops_are_rewritten() {
        let cases = [
            (
                "for each (var x in f(y)) { a }",
                "for (var x of Object.values(Object(f(y)))) { a }",
            ),
            (
                "for each(x in y) z",
                "for (x of Object.values(Object(y))) z",
            ),
            ("xfor each (a in b)", "xfor each (a in b)"),
            ("// for each of them", "// for each of them"),
            ("for each (", "for each ("),
            ("for (var x in y) {}", "for (var x in y) {}"),
        ];
        for (old, new) in cases {
            assert_eq!(for_each_in(old), new);
        }
    }
}
