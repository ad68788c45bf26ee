//! The forms a configuration is written in: TOML, and Kong's `key = value` lines.
//!
//! Turns text into entries with their lines. Refuses to know which keys exist.

use toml::de::{DeTable, DeValue};

use super::value::Raw;
use crate::base::{diagnostic::Diagnostic, source_ref::SourceRef};

/// How the text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// TOML 1.0, all keys on the top level.
    Toml,
    /// `key = value` a line, `#` begins a comment, `\#` stands for the character.
    Conf,
}

impl Form {
    /// The form that a file's name stands for: Kong's when it ends in `.conf`, else TOML.
    pub fn of(file_name: &str) -> Self {
        if file_name.ends_with(".conf") {
            Self::Conf
        } else {
            Self::Toml
        }
    }
}

/// One key as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Raw,
    /// Where, with the key as subject.
    pub(super) at: SourceRef,
}

/// The longest configuration that is read, in bytes. A declarative document may be inside.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// Reads a document into its entries; what cannot be read goes to `diagnostics`.
pub(super) fn parse_document(
    name: &str,
    form: Form,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Entry> {
    if text.len() > DOCUMENT_BYTES_MAX {
        diagnostics.push(
            Diagnostic::error(
                "too-large",
                SourceRef::document(name),
                format!("is {} bytes long", text.len()),
            )
            .with_hint(format!("allowed are {DOCUMENT_BYTES_MAX}")),
        );
        return Vec::new();
    }
    match form {
        Form::Toml => parse_toml(name, text, diagnostics),
        Form::Conf => parse_conf(name, text, diagnostics),
    }
}

fn parse_toml(name: &str, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let mut at = SourceRef::document(name);
        if let Some(span) = error.span() {
            at = at.at_line(lines.line_of(span.start));
        }
        diagnostics.push(Diagnostic::error(
            "syntax",
            at,
            error.message().replace('\n', " "),
        ));
    }
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let at = SourceRef::document(name)
            .at_line(lines.line_of(key.span().start))
            .about(key.get_ref().as_ref());
        match toml_value(value.get_ref()) {
            Ok(value) => entries.push(Entry { key: key.get_ref().to_string(), value, at }),
            Err(what) => diagnostics.push(
                Diagnostic::error("invalid-value", at, format!("cannot be {what}"))
                    .with_hint("allowed are text, numbers, switches and arrays of them; every key is on the top level"),
            ),
        }
    }
    entries
}

fn toml_value(value: &DeValue<'_>) -> Result<Raw, &'static str> {
    match value {
        DeValue::Array(members) => members
            .iter()
            .map(|member| toml_scalar(member.get_ref()))
            .collect::<Result<Vec<_>, _>>()
            .map(Raw::List),
        other => toml_scalar(other).map(Raw::Text),
    }
}

fn toml_scalar(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err("a number this large"),
        },
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(switch) => Ok(switch.to_string()),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Array(_) => Err("a list of lists"),
        DeValue::Table(_) => Err("a table"),
    }
}

fn parse_conf(name: &str, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let line = without_comment(line);
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let at = SourceRef::document(name).at_line(number);
        let Some((key, value)) = line.split_once('=') else {
            diagnostics.push(
                Diagnostic::error("syntax", at, format!("'{line}' has no '='"))
                    .with_hint("a line reads 'key = value'"),
            );
            continue;
        };
        let (key, value) = (key.trim(), unquoted(value.trim()));
        let at = at.about(key);
        if let Some(first) = entries.iter().position(|entry| entry.key == key) {
            diagnostics.push(
                Diagnostic::warning("repeated-key", at.clone(), "is set twice")
                    .with_hint("the last one counts"),
            );
            entries.remove(first);
        }
        entries.push(Entry {
            key: key.to_owned(),
            value: Raw::Text(value.to_owned()),
            at,
        });
    }
    entries
}

/// Cuts a line at its first `#` that no backslash precedes; `\#` becomes `#`.
fn without_comment(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'#') => {
                characters.next();
                kept.push('#');
            }
            '#' => break,
            other => kept.push(other),
        }
    }
    kept
}

/// Kong's reader takes a value in one pair of single or double quotes as the text between them.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

/// Finds the line of a byte offset.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let starts = std::iter::once(0)
            .chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1))
            .collect();
        Self { starts }
    }

    fn line_of(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Vec<(String, Raw, Option<u32>)>, Vec<String>);

    fn read(form: Form, text: &str) -> Read {
        let mut diagnostics = Vec::new();
        let entries = parse_document("f", form, text, &mut diagnostics);
        (
            entries
                .into_iter()
                .map(|entry| (entry.key, entry.value, entry.at.line))
                .collect(),
            diagnostics.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn toml_entries_know_their_lines() {
        let (entries, wrong) = read(
            Form::Toml,
            "a = 1\n# c\nb = [\"x\", 2]\nc = true\nd = 0x10\n",
        );
        assert_eq!(
            entries,
            [
                ("a".into(), Raw::Text("1".into()), Some(1)),
                ("b".into(), Raw::List(vec!["x".into(), "2".into()]), Some(3)),
                ("c".into(), Raw::Text("true".into()), Some(4)),
                ("d".into(), Raw::Text("16".into()), Some(5)),
            ]
        );
        assert!(wrong.is_empty());
    }

    #[test]
    fn toml_mistakes_are_all_told() {
        let (_, wrong) = read(Form::Toml, "a = \nb = 1\nb = 2\n[section]\nc = 1\n");
        assert!(
            wrong.iter().any(|line| line.starts_with("f:1: ")),
            "{wrong:?}"
        );
        assert!(
            wrong.iter().any(|line| line.starts_with("f:3: ")),
            "{wrong:?}"
        );
        assert!(
            wrong
                .iter()
                .any(|line| line.starts_with("f:4: section: cannot be a table")),
            "{wrong:?}"
        );
    }

    #[test]
    fn conf_lines() {
        let (entries, wrong) = read(
            Form::Conf,
            "# all\n\nproxy_listen = 0.0.0.0:80 ssl, [::]:81 # why\nprefix='/a \\# b'\nnonsense\n",
        );
        assert_eq!(
            entries,
            [
                (
                    "proxy_listen".into(),
                    Raw::Text("0.0.0.0:80 ssl, [::]:81".into()),
                    Some(3)
                ),
                ("prefix".into(), Raw::Text("/a # b".into()), Some(4)),
            ]
        );
        assert_eq!(
            wrong,
            ["f:5: 'nonsense' has no '=', a line reads 'key = value'"]
        );
    }
}
