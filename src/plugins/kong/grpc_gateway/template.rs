//! Path templates of HTTP rules (google.api.http): which paths they match, and which parts of a path are variables.
//!
//! ```text
//! /v1/{name=shelves/*/books/*}/pages/{number}:print
//!     └────── a variable ────┘       └ {number=*} └ verb
//! ```
//!
//! `*` is one segment, `**` (only at the end) is any number of them, none included.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 2048;

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    segments: Vec<Segment>,
    verb: Option<String>,
    variables: Vec<Variable>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    /// The rest of the path; always the last one.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    /// The field that it fills, as a path with dots.
    field: String,
    /// Its segments: from this one to before that one.
    from: usize,
    to: usize,
}

impl Template {
    /// Reads a template. The error says what is wrong in it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("is longer than {TEMPLATE_BYTES_MAX} bytes"));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("must start with '/'".to_owned());
        };
        let mut reader = Reader {
            rest,
            template: Self {
                segments: Vec::new(),
                verb: None,
                variables: Vec::new(),
            },
        };
        reader.segments(false)?;
        if let Some(verb) = reader.rest.strip_prefix(':') {
            if verb.is_empty() || verb.contains(['/', '{', '}', '*', ':']) {
                return Err(format!("'{verb}' after ':' is no verb"));
            }
            reader.template.verb = Some(decoded(verb.as_bytes()).into_owned());
        } else if !reader.rest.is_empty() {
            return Err(format!("'{}' is unexpected", reader.rest));
        }
        let template = reader.template;
        let last = template.segments.len().saturating_sub(1);
        let rest = template.segments.iter().position(|it| *it == Segment::Rest);
        if rest.is_some_and(|at| at != last) {
            return Err("'**' may only be the last segment".to_owned());
        }
        Ok(template)
    }

    /// Does it end in a verb? Those without one match such paths too, so they come later.
    pub(crate) fn has_verb(&self) -> bool {
        self.verb.is_some()
    }

    /// The fields that its variables fill, in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| &*variable.field)
    }

    /// The values of the variables, in order, decoded; `None` when the path does not fit. `path` has no query.
    pub(crate) fn matches<'a>(&self, path: &'a str) -> Option<Vec<Cow<'a, str>>> {
        let mut path = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            let (before, after) = path.rsplit_once(':')?;
            if decoded(after.as_bytes()) != verb.as_str() {
                return None;
            }
            path = before;
        }
        // Where each segment of the path begins and ends.
        let mut bounds = Vec::with_capacity(self.segments.len());
        let mut at = 0;
        let mut open = true;
        for segment in &self.segments {
            if *segment == Segment::Rest {
                bounds.push((at.min(path.len()), path.len()));
                open = false;
                break;
            }
            if !open {
                return None;
            }
            let rest = path.get(at..)?;
            let length = rest.find('/').unwrap_or(rest.len());
            let part = rest.get(..length)?;
            let fits = match segment {
                Segment::Literal(literal) => decoded(part.as_bytes()) == literal.as_str(),
                _ => !part.is_empty(),
            };
            if !fits {
                return None;
            }
            bounds.push((at, at + length));
            at += length + 1;
            open = at <= path.len();
        }
        let ends_in_rest = self.segments.last() == Some(&Segment::Rest);
        if open && !ends_in_rest {
            return None;
        }
        self.variables
            .iter()
            .map(|variable| {
                let start = bounds.get(variable.from)?.0;
                let end = bounds.get(variable.to.checked_sub(1)?)?.1;
                // Nothing is left where `**` stands for no segment.
                let value = path.get(start..end.max(start))?;
                let value = value.strip_suffix('/').unwrap_or(value);
                Some(match self.is_one_segment(variable) {
                    true => decoded(value.as_bytes()),
                    false => decoded_but_slashes(value),
                })
            })
            .collect()
    }

    fn is_one_segment(&self, variable: &Variable) -> bool {
        variable.to == variable.from + 1 && self.segments.get(variable.from) == Some(&Segment::One)
    }
}

struct Reader<'a> {
    rest: &'a str,
    template: Template,
}

impl Reader<'_> {
    fn segments(&mut self, in_variable: bool) -> Result<(), String> {
        loop {
            self.segment(in_variable)?;
            match self.rest.strip_prefix('/') {
                Some(rest) => self.rest = rest,
                None => return Ok(()),
            }
        }
    }

    fn segment(&mut self, in_variable: bool) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix('{') {
            if in_variable {
                return Err("a variable in a variable".to_owned());
            }
            self.rest = rest;
            return self.variable();
        }
        let end = self.rest.find(['/', '{', '}', ':', '=']);
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        self.template.segments.push(match text {
            "*" => Segment::One,
            "**" => Segment::Rest,
            "" => return Err("an empty segment".to_owned()),
            text if text.contains('*') => return Err(format!("'{text}': '*' must stand alone")),
            text => Segment::Literal(decoded(text.as_bytes()).into_owned()),
        });
        Ok(())
    }

    fn variable(&mut self) -> Result<(), String> {
        let end = self.rest.find(['=', '}']).ok_or("'{' without '}'")?;
        let (field, rest) = self.rest.split_at(end);
        let is_name = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric() || character == '_')
        };
        if !field.split('.').all(is_name) {
            return Err(format!("'{field}' is no path of fields"));
        }
        if self.template.fields().any(|other| other == field) {
            return Err(format!("the variable '{field}' twice"));
        }
        let field = field.to_owned();
        let from = self.template.segments.len();
        self.rest = rest;
        match self.rest.strip_prefix('=') {
            Some(rest) => {
                self.rest = rest;
                self.segments(true)?;
            }
            None => self.template.segments.push(Segment::One),
        }
        self.rest = self.rest.strip_prefix('}').ok_or("'{' without '}'")?;
        let to = self.template.segments.len();
        self.template.variables.push(Variable { field, from, to });
        Ok(())
    }
}

fn decoded(text: &[u8]) -> Cow<'_, str> {
    match percent_decode(text).into() {
        Cow::Borrowed(plain) => String::from_utf8_lossy(plain),
        Cow::Owned(plain) => match String::from_utf8(plain) {
            Ok(plain) => plain.into(),
            Err(error) => String::from_utf8_lossy(error.as_bytes())
                .into_owned()
                .into(),
        },
    }
}

/// Of several segments an encoded `/` stays encoded, or it would become one of the dividing ones.
fn decoded_but_slashes(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let slash = rest.find("%2F").into_iter().chain(rest.find("%2f")).min();
        let Some((before, after)) = slash.and_then(|at| rest.split_at_checked(at)) else {
            plain.push_str(&decoded(rest.as_bytes()));
            return plain.into();
        };
        let (slash, after) = after.split_at_checked(3).unwrap_or((after, ""));
        plain.push_str(&decoded(before.as_bytes()));
        plain.push_str(slash);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn paths_are_matched_and_variables_cut_out() {
        let cases: [(&str, &str, Option<&[&str]>); 27] = [
            ("/v1/shelves", "/v1/shelves", Some(&[])),
            ("/v1/shelves", "/v1/shelves/", None),
            ("/v1/shelves", "/v1/shelve", None),
            ("/v1/shelves", "/v1", None),
            ("/v1/shelves/{id}", "/v1/shelves/7", Some(&["7"])),
            ("/v1/shelves/{id}", "/v1/shelves/", None),
            ("/v1/shelves/{id}", "/v1/shelves", None),
            ("/v1/shelves/{id}", "/v1/shelves/7/8", None),
            (
                "/v1/shelves/{id}",
                "/v1/shelves/a%2Fb%20c",
                Some(&["a/b c"]),
            ),
            (
                "/v1/{name=shelves/*}",
                "/v1/shelves/7",
                Some(&["shelves/7"]),
            ),
            ("/v1/{name=shelves/*}", "/v1/books/7", None),
            (
                "/v1/{name=shelves/*/books/*}",
                "/v1/shelves/1/books/x%2Fy%20z",
                Some(&["shelves/1/books/x%2Fy z"]),
            ),
            ("/v1/{a.b=x/*}/{c}", "/v1/x/1/2", Some(&["x/1", "2"])),
            ("/v1/{rest=**}", "/v1/a/b/c", Some(&["a/b/c"])),
            ("/v1/{rest=**}", "/v1/", Some(&[""])),
            ("/v1/{rest=**}", "/v1", Some(&[""])),
            ("/v1/{rest=files/**}", "/v1/files", Some(&["files"])),
            ("/v1/{rest=files/**}", "/v1/files/a/b", Some(&["files/a/b"])),
            ("/v1/{rest=files/**}", "/v1/file/a", None),
            ("/v1/*/x", "/v1/anything/x", Some(&[])),
            ("/v1/**", "/v1/a/b", Some(&[])),
            (
                "/v1/{name=shelves/*}:archive",
                "/v1/shelves/7:archive",
                Some(&["shelves/7"]),
            ),
            ("/v1/{name=shelves/*}:archive", "/v1/shelves/7:remove", None),
            ("/v1/{name=shelves/*}:archive", "/v1/shelves/7", None),
            (
                "/v1/{name=shelves/*}",
                "/v1/shelves/7:archive",
                Some(&["shelves/7:archive"]),
            ),
            ("/v1/a%20b/{c}", "/v1/a%20b/%C3%A4", Some(&["ä"])),
            ("/{a}", "nothing", None),
        ];
        for (template, path, expected) in cases {
            let found = Template::parse(template).unwrap().matches(path);
            let found: Option<Vec<&str>> = found
                .as_ref()
                .map(|values| values.iter().map(AsRef::as_ref).collect());
            assert_eq!(found.as_deref(), expected, "{template} {path}");
        }
    }

    #[test]
    fn broken_templates_are_refused() {
        for (template, expected) in [
            ("v1", "must start with '/'"),
            ("/", "an empty segment"),
            ("/a//b", "an empty segment"),
            ("/a/", "an empty segment"),
            ("/{a", "'{' without '}'"),
            ("/{a=b", "'{' without '}'"),
            ("/{a=b}c", "'c' is unexpected"),
            ("/{}", "'' is no path of fields"),
            ("/{a..b}", "'a..b' is no path of fields"),
            ("/{a={b}}", "a variable in a variable"),
            ("/{a}/{a}", "the variable 'a' twice"),
            ("/{a=**}/b", "'**' may only be the last segment"),
            ("/a*", "'a*': '*' must stand alone"),
            ("/a:", "'' after ':' is no verb"),
            ("/a:b/c", "'b/c' after ':' is no verb"),
            ("/a}", "'}' is unexpected"),
        ] {
            assert_eq!(
                Template::parse(template).unwrap_err(),
                expected,
                "{template}"
            );
        }
        assert!(Template::parse(&format!("/{}", "a".repeat(3000))).is_err());
    }
}
