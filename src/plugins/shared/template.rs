//! Texts with `$(…)` in them: parts of a request put into a value.
//!
//! Inside stands an expression: `headers`, `query_params`, `uri_captures` or `shared` with a key (`headers.x`,
//! `headers['x-y']`, `uri_captures[1]`), texts, numbers, `or`, `and`, `..` and parentheses, as Lua reads them. What is
//! absent is nothing, and shown as no text. Nothing else of Lua is there, and a template that needs it is refused.

use std::borrow::Cow;

use http::HeaderName;

use super::query::{self, Argument};
use crate::runtime::exchange::Exchange;

/// Bytes of a template.
const BYTES_MAX: usize = 8192;
/// Parentheses inside parentheses.
const DEPTH_MAX: usize = 16;

/// A parsed text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Value(Expression),
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Nothing,
    False,
    True,
    Text(String),
    Header(HeaderName),
    Argument(String),
    Capture(String),
    /// The first unless it is nothing or false, else the second.
    Or(Box<Self>, Box<Self>),
    /// The second, unless the first is nothing or false.
    And(Box<Self>, Box<Self>),
    Joined(Box<Self>, Box<Self>),
}

impl Template {
    /// Reads a text. The error quotes what cannot be read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("template is longer than {BYTES_MAX} bytes"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("$(") {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let mut reader = Reader {
                rest: after,
                depth: 0,
            };
            let value = reader
                .expression()
                .and_then(|value| reader.expect(")").map(|()| value))
                .map_err(|problem| format!("invalid template '{text}': {problem}"))?;
            parts.push(Part::Value(value));
            rest = reader.rest;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Fills in what the request holds.
    pub(crate) fn render(&self, exchange: &Exchange) -> Vec<u8> {
        let mut text = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.extend_from_slice(fixed.as_bytes()),
                Part::Value(expression) => text.extend_from_slice(&expression.text(exchange)),
            }
        }
        text
    }
}

impl Expression {
    fn text<'a>(&'a self, exchange: &'a Exchange) -> Cow<'a, [u8]> {
        match self.value(exchange) {
            Evaluated::Text(text) => text,
            Evaluated::True => Cow::Borrowed(b"true"),
            Evaluated::False => Cow::Borrowed(b"false"),
            Evaluated::Nothing => Cow::Borrowed(b""),
        }
    }

    fn value<'a>(&'a self, exchange: &'a Exchange) -> Evaluated<'a> {
        match self {
            Self::Nothing => Evaluated::Nothing,
            Self::True => Evaluated::True,
            Self::False => Evaluated::False,
            Self::Text(text) => Evaluated::Text(Cow::Borrowed(text.as_bytes())),
            Self::Header(name) => match exchange.request.headers.get(name) {
                Some(value) => Evaluated::Text(Cow::Borrowed(value.as_bytes())),
                None => Evaluated::Nothing,
            },
            Self::Argument(name) => argument(exchange, name),
            Self::Capture(key) => match exchange.captures().find(key) {
                Some(text) => Evaluated::Text(Cow::Owned(text.to_vec())),
                None => Evaluated::Nothing,
            },
            Self::Or(first, second) => match first.value(exchange) {
                Evaluated::Nothing | Evaluated::False => second.value(exchange),
                value => value,
            },
            Self::And(first, second) => match first.value(exchange) {
                value @ (Evaluated::Nothing | Evaluated::False) => value,
                _ => second.value(exchange),
            },
            Self::Joined(first, second) => {
                let mut text = first.text(exchange).into_owned();
                text.extend_from_slice(&second.text(exchange));
                Evaluated::Text(Cow::Owned(text))
            }
        }
    }
}

enum Evaluated<'a> {
    Nothing,
    False,
    True,
    Text(Cow<'a, [u8]>),
}

fn argument<'a>(exchange: &'a Exchange, name: &str) -> Evaluated<'a> {
    let Some(text) = exchange.query() else {
        return Evaluated::Nothing;
    };
    let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
    match query::find(text, name.as_bytes(), arguments_max) {
        Argument::Absent => Evaluated::Nothing,
        Argument::Valueless => Evaluated::True,
        Argument::One(value) => Evaluated::Text(value),
        Argument::Several => {
            // The first one, as elsewhere where one value is wanted.
            let first = query::pieces(text)
                .find(|(key, _)| *query::decode(key) == *name.as_bytes())
                .and_then(|(_, value)| value);
            first.map_or(Evaluated::True, |value| {
                Evaluated::Text(query::decode(value))
            })
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn expression(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!(
                "more than {DEPTH_MAX} parentheses inside each other"
            ));
        }
        let mut value = self.conjunction()?;
        while self.takes_word("or") {
            value = Expression::Or(Box::new(value), Box::new(self.conjunction()?));
        }
        self.depth -= 1;
        Ok(value)
    }

    fn conjunction(&mut self) -> Result<Expression, String> {
        let mut value = self.joined()?;
        while self.takes_word("and") {
            value = Expression::And(Box::new(value), Box::new(self.joined()?));
        }
        Ok(value)
    }

    fn joined(&mut self) -> Result<Expression, String> {
        let mut value = self.primary()?;
        while self.takes("..") {
            value = Expression::Joined(Box::new(value), Box::new(self.primary()?));
        }
        Ok(value)
    }

    fn primary(&mut self) -> Result<Expression, String> {
        if self.takes("(") {
            let value = self.expression()?;
            self.expect(")")?;
            return Ok(value);
        }
        if let Some(text) = self.quoted()? {
            return Ok(Expression::Text(text));
        }
        if let Some(number) = self.number() {
            return Ok(Expression::Text(number.to_owned()));
        }
        let name = self.word();
        match name {
            "nil" => return Ok(Expression::Nothing),
            "true" => return Ok(Expression::True),
            "false" => return Ok(Expression::False),
            "headers" | "query_params" | "uri_captures" | "shared" => {}
            "" => return Err(format!("expected a value at '{}'", self.shown())),
            other => {
                return Err(format!(
                    "'{other}' is unknown, expected one of: headers, query_params, uri_captures, shared"
                ));
            }
        }
        let key = self.key()?;
        Ok(match name {
            "headers" => {
                // As nginx reads names of variables.
                let name = key.replace('_', "-");
                match HeaderName::from_bytes(name.as_bytes()) {
                    Ok(name) => Expression::Header(name),
                    Err(_) => return Err(format!("'{key}' is not a header name")),
                }
            }
            "query_params" => Expression::Argument(key),
            "uri_captures" => Expression::Capture(key),
            // Values that other code shares with templates; there is no such code.
            _ => Expression::Nothing,
        })
    }

    /// `.name`, `['name']`, `["name"]` or `[1]`.
    fn key(&mut self) -> Result<String, String> {
        if self.takes("[") {
            let key = match self.quoted()? {
                Some(text) => text,
                None => self
                    .number()
                    .map(str::to_owned)
                    .ok_or_else(|| format!("expected a key at '{}'", self.shown()))?,
            };
            self.expect("]")?;
            return Ok(key);
        }
        if self.rest.starts_with('.') && !self.rest.starts_with("..") && self.takes(".") {
            let key = self.word();
            if !key.is_empty() {
                return Ok(key.to_owned());
            }
        }
        Err(format!("expected a key at '{}'", self.shown()))
    }

    fn quoted(&mut self) -> Result<Option<String>, String> {
        self.skip_space();
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return Ok(None);
        };
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, escaped)) if !escaped.is_alphanumeric() => text.push(escaped),
                    _ => return Err(format!("unknown escape at '{}'", self.shown())),
                },
                character if character == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(Some(text));
                }
                character => text.push(character),
            }
        }
        Err(format!("no closing quotation mark at '{}'", self.shown()))
    }

    fn number(&mut self) -> Option<&'a str> {
        self.skip_space();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!number.is_empty()).then_some(number)
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let before = self.rest;
        if self.word() == word {
            return true;
        }
        self.rest = before;
        false
    }

    fn takes(&mut self, sign: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.takes(sign) {
            return Ok(());
        }
        Err(format!("expected '{sign}' at '{}'", self.shown()))
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn shown(&self) -> String {
        self.rest.chars().take(20).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use std::sync::Arc;

    use super::*;
    use crate::plugins::test_support::{Message, World};
    use crate::runtime::matched::MatchedPath;

    #[test]
    fn renders() {
        let mut exchange =
            World::new().exchange(Message::get("/users/7?q=a%20b&flag").header("X-One", "1"));
        let pattern = crate::expr::pattern::compile("^/users/(?P<user>[0-9]+)").unwrap();
        exchange.matched = MatchedPath::new(Some(8), Some(Arc::new(pattern)));
        for (template, expected) in [
            ("plain", "plain"),
            ("$(headers.x_one)", "1"),
            ("$(headers['x-one'])", "1"),
            ("<$( headers[\"X-One\"] )>", "<1>"),
            ("$(headers.none)", ""),
            ("$(headers.none or 'it''s')", "!"),
            ("$(headers.none or 'y')", "y"),
            ("$(query_params.q)", "a b"),
            ("$(query_params.flag)", "true"),
            ("$(uri_captures.user)-$(uri_captures[1])", "7-7"),
            ("$(headers.x_one and 'yes' or 'no')", "yes"),
            ("$(headers.none and 'yes' or 'no')", "no"),
            ("$('a' .. (nil or 'b') .. 3)", "ab3"),
            ("$(shared.any or 'none')", "none"),
            ("cost: $5", "cost: $5"),
        ] {
            match Template::parse(template) {
                Ok(parsed) => {
                    let text = parsed.render(&exchange);
                    assert_eq!(text, expected.as_bytes(), "{template}");
                }
                Err(_) => assert_eq!(expected, "!", "{template}"),
            }
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (template, problem) in [
            ("$(os.time())", "'os' is unknown"),
            ("$(headers)", "expected a key at ')'"),
            ("$(headers.x", "expected ')' at ''"),
            ("$('x)", "no closing quotation mark"),
            ("$()", "expected a value at ')'"),
            ("$(headers['a b'])", "'a b' is not a header name"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(problem), "{template}: {error}");
        }
        let deep = format!("$({}{})", "(".repeat(99), ")".repeat(99));
        assert!(Template::parse(&deep).unwrap_err().contains("16 paren"));
    }
}
