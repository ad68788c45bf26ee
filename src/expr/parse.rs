//! Text to [`Expression`]: a recursive-descent parser that checks types as it goes.
//!
//! Messages that Kong's clients know are kept word for word; each error also says where it is.

use std::fmt;

use super::check::{Literal, Mismatch, Operator, bare_literal, check};
use super::field::{Field, Scope};
use super::{Expression, Node, Predicate};

/// The longest expression that is parsed.
pub const EXPRESSION_BYTES_MAX: usize = 64 << 10;
/// How deep parentheses may nest; the parser and the evaluator recurse once for each.
pub const DEPTH_MAX: usize = 64;
/// How many predicates one expression may have.
pub const PREDICATES_MAX: usize = 4096;

/// Why an expression was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong, without the position.
    pub message: String,
    /// The line, counted from one.
    pub line: usize,
    /// The column in characters, counted from one.
    pub column: usize,
}

impl fmt::Display for ParseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} (line {}, column {})",
            self.message, self.line, self.column
        )
    }
}

impl std::error::Error for ParseError {}

impl Expression {
    /// Parses and type-checks an expression, and compiles its regexes.
    pub fn parse(text: &str, scope: Scope) -> Result<Self, ParseError> {
        let mut parser = Parser {
            text,
            at: 0,
            scope,
            predicates: 0,
        };
        parser
            .expression()
            .map(|root| Self { root })
            .map_err(|refusal| refusal.locate(text))
    }
}

/// An error before its position is counted out in lines and columns.
struct Refusal {
    at: usize,
    message: String,
}

impl Refusal {
    fn locate(self, text: &str) -> ParseError {
        let before = text.get(..self.at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ParseError {
            message: self.message,
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before
                .get(line_start..)
                .map_or(0, |line| line.chars().count())
                + 1,
        }
    }
}

type Parsed<T> = Result<T, Refusal>;

struct Parser<'t> {
    text: &'t str,
    at: usize,
    scope: Scope,
    predicates: usize,
}

impl<'t> Parser<'t> {
    fn expression(&mut self) -> Parsed<Node> {
        if self.text.len() > EXPRESSION_BYTES_MAX {
            return self.refuse(
                0,
                format!("an expression may have at most {EXPRESSION_BYTES_MAX} bytes"),
            );
        }
        let root = self.conjunction(0)?;
        self.skip_blanks();
        match self.rest().is_empty() {
            true => Ok(root),
            false => self.refuse(self.at, "expected '&&', '||' or the end of the expression"),
        }
    }

    fn conjunction(&mut self, depth: usize) -> Parsed<Node> {
        let first = self.disjunction(depth)?;
        if !self.take("&&") {
            return Ok(first);
        }
        let mut parts = vec![first, self.disjunction(depth)?];
        while self.take("&&") {
            parts.push(self.disjunction(depth)?);
        }
        Ok(Node::All(parts))
    }

    fn disjunction(&mut self, depth: usize) -> Parsed<Node> {
        let first = self.term(depth)?;
        if !self.take("||") {
            return Ok(first);
        }
        let mut parts = vec![first, self.term(depth)?];
        while self.take("||") {
            parts.push(self.term(depth)?);
        }
        Ok(Node::Any(parts))
    }

    fn term(&mut self, depth: usize) -> Parsed<Node> {
        if self.take("!") {
            self.skip_blanks();
            return match self.rest().starts_with('(') {
                true => Ok(Node::Not(Box::new(self.term(depth)?))),
                false => self.refuse(
                    self.at,
                    "expected '(' after '!': only a parenthesised expression can be negated",
                ),
            };
        }
        if !self.take("(") {
            return self.predicate().map(Node::Predicate);
        }
        if depth >= DEPTH_MAX {
            return self.refuse(
                self.at,
                format!("parentheses may nest at most {DEPTH_MAX} deep"),
            );
        }
        let inner = self.conjunction(depth + 1)?;
        match self.take(")") {
            true => Ok(inner),
            false => self.refuse(self.at, "expected ')'"),
        }
    }

    fn predicate(&mut self) -> Parsed<Predicate> {
        self.skip_blanks();
        let start = self.at;
        self.predicates += 1;
        if self.predicates > PREDICATES_MAX {
            return self.refuse(
                start,
                format!("an expression may have at most {PREDICATES_MAX} predicates"),
            );
        }
        let (field, lower, any) = self.left_side()?;
        let operator = self.operator()?;
        self.skip_blanks();
        let literal_at = self.at;
        let literal = self.literal()?;
        match check(&field, lower, operator, literal) {
            Ok(test) => Ok(Predicate {
                field,
                lower,
                any,
                test,
            }),
            Err(Mismatch::Types(message)) => self.refuse(start, message),
            Err(Mismatch::Regex(reason)) => {
                self.refuse(literal_at, format!("invalid regex: {reason}"))
            }
        }
    }

    /// The field and the functions around it.
    fn left_side(&mut self) -> Parsed<(Field, bool, bool)> {
        let (mut lower, mut any) = (false, false);
        let mut open = 0_usize;
        loop {
            self.skip_blanks();
            let start = self.at;
            let name = self.identifier()?;
            if !self.take("(") {
                let field = match Field::parse(name, self.scope) {
                    Ok(field) => field,
                    Err(message) => return self.refuse(start, message),
                };
                for _ in 0..open {
                    if !self.take(")") {
                        return self.refuse(self.at, "expected ')'");
                    }
                }
                return Ok((field, lower, any));
            }
            match name {
                "lower" => lower = true,
                "any" => any = true,
                _ => {
                    return self.refuse(
                        start,
                        format!("unknown function '{name}', expected 'lower' or 'any'"),
                    );
                }
            }
            open += 1;
            if open > DEPTH_MAX {
                return self.refuse(
                    start,
                    format!("functions may nest at most {DEPTH_MAX} deep"),
                );
            }
        }
    }

    fn identifier(&mut self) -> Parsed<&'t str> {
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
            .count();
        match rest.get(..length) {
            Some(name) if name.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                self.at += length;
                Ok(name)
            }
            _ => self.refuse(self.at, "expected a field, a function or '('"),
        }
    }

    fn operator(&mut self) -> Parsed<Operator> {
        const SYMBOLS: [(&str, Operator); 9] = [
            ("==", Operator::Equals),
            ("!=", Operator::Differs),
            ("=^", Operator::Suffix),
            ("^=", Operator::Prefix),
            ("~", Operator::Matches),
            (">=", Operator::GreaterOrEqual),
            (">", Operator::Greater),
            ("<=", Operator::LessOrEqual),
            ("<", Operator::Less),
        ];
        for (symbol, operator) in SYMBOLS {
            if self.take(symbol) {
                return Ok(operator);
            }
        }
        if self.take_word("contains") {
            return Ok(Operator::Contains);
        }
        if self.take_word("in") {
            return Ok(Operator::In);
        }
        let start = self.at;
        if self.take_word("not") {
            if self.take_word("in") {
                return Ok(Operator::NotIn);
            }
            self.at = start;
        }
        self.refuse(
            self.at,
            "expected an operator: ==, !=, ~, ^=, =^, >, >=, <, <=, in, not in or contains",
        )
    }

    fn literal(&mut self) -> Parsed<Literal> {
        if self.rest().starts_with('"') {
            return self.quoted_text();
        }
        if self.rest().starts_with("r#\"") {
            return self.raw_text();
        }
        let start = self.at;
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'/' | b'-')
            })
            .count();
        let word = rest.get(..length).unwrap_or_default();
        self.at += length;
        match bare_literal(word) {
            Ok(literal) => Ok(literal),
            Err(message) => self.refuse(start, message),
        }
    }

    fn quoted_text(&mut self) -> Parsed<Literal> {
        let start = self.at;
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    self.at = start + offset + 1;
                    return Ok(Literal::Text(text));
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, 't')) => text.push('\t'),
                    _ => {
                        let message = r##"unknown escape, expected \", \\, \n, \r or \t (or a raw text: r#"…"#)"##;
                        return self.refuse(start + offset, message);
                    }
                },
                plain => text.push(plain),
            }
        }
        self.refuse(start, "the text literal has no closing '\"'")
    }

    fn raw_text(&mut self) -> Parsed<Literal> {
        let start = self.at;
        let body = self.rest().get(3..).unwrap_or_default();
        match body.find("\"#") {
            Some(length) => {
                let text = body.get(..length).unwrap_or_default().to_owned();
                self.at = start + 3 + length + 2;
                Ok(Literal::Text(text))
            }
            None => self.refuse(start, "the raw text literal has no closing '\"#'"),
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Skips blanks, then takes `symbol` when it comes next.
    fn take(&mut self, symbol: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    /// Like [`Self::take`], for a word that must not run on.
    fn take_word(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let runs_on = |after: &str| {
            after.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
        };
        let found = self
            .rest()
            .strip_prefix(word)
            .is_some_and(|after| !runs_on(after));
        if found {
            self.at += word.len();
        }
        found
    }

    fn refuse<T>(&self, at: usize, message: impl Into<String>) -> Parsed<T> {
        Err(Refusal {
            at,
            message: message.into(),
        })
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

    use super::super::Test;
    use super::super::check::*;
    use super::*;

    fn shape(node: &Node) -> String {
        let list = |parts: &[Node], symbol: &str| {
            let parts: Vec<String> = parts.iter().map(shape).collect();
            format!("({})", parts.join(symbol))
        };
        match node {
            Node::All(parts) => list(parts, " & "),
            Node::Any(parts) => list(parts, " | "),
            Node::Not(inner) => format!("!{}", shape(inner)),
            Node::Predicate(Predicate {
                test: Test::Integer(_, number),
                ..
            }) => number.to_string(),
            Node::Predicate(_) => "p".to_owned(),
        }
    }

    #[test]
    fn or_binds_tighter_than_and() {
        for (text, expected) in [
            ("1 && 2 || 3", "(1 & (2 | 3))"),
            ("1 || 2 && 3", "((1 | 2) & 3)"),
            ("1 || 2 || 3 && 4 && 5 || 6", "((1 | 2 | 3) & 4 & (5 | 6))"),
            ("(1 && 2) || 3", "((1 & 2) | 3)"),
            ("!(1 && 2) || 3", "(!(1 & 2) | 3)"),
            ("! ( 1 )", "!1"),
            ("((1))", "1"),
        ] {
            let text: String = text
                .chars()
                .map(|character| match character {
                    digit @ '0'..='9' => format!("net.dst.port=={digit}"),
                    other => other.to_string(),
                })
                .collect();
            let parsed = Expression::parse(&text, Scope::Http).unwrap();
            assert_eq!(shape(&parsed.root), expected, "{text}");
        }
    }

    #[test]
    fn literals() {
        for (text, expected) in [
            ("0", 0),
            ("10", 10),
            ("-7", -7),
            ("0x1F", 31),
            ("010", 8),
            ("-0x10", -16),
        ] {
            assert_eq!(integer(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "08",
            "0x",
            "1_0",
            "--1",
            "+1",
            "9223372036854775808",
            "0x+1",
            "a",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        for good in [
            r##"http.path == "a\"b\\c\n\r\t""##,
            r###"http.path ~ r#"^/\d+"x"#"###,
            "net.src.ip == 1.2.3.4",
            "net.src.ip != fd00::1",
            "net.src.ip in 10.0.0.0/8",
            "net.src.ip  not \n in ::/0",
            r#"any(lower(http.headers.x_y)) contains "z""#,
            r#"lower(any(http.queries.q))=="z""#,
            r#"http.path.segments.0_2 == "a/b/c" && http.path.segments.len >= 3"#,
            "net.port == 80",
        ] {
            if let Err(error) = Expression::parse(good, Scope::Http) {
                panic!("{good}: {error}");
            }
        }
    }

    #[test]
    fn refusals() {
        for (text, message, column) in [
            (r#"http.nothing == "a""#, "Unknown LHS field", 1),
            (r#"(nothing == "a")"#, "Unknown LHS field", 2),
            (r#"http.headers. == "a""#, "Unknown LHS field", 1),
            (
                r#"http.path.segments.x == "a""#,
                "illformed http.path.segments.* field",
                1,
            ),
            (
                r#"http.path.segments.2_1 == "a""#,
                "illformed http.path.segments.* field",
                1,
            ),
            ("http.path == 1", TYPE_MISMATCH, 1),
            (r#"net.src.port == "a""#, TYPE_MISMATCH, 1),
            ("net.src.ip == 10.0.0.0/8", TYPE_MISMATCH, 1),
            ("http.path > 1", TYPE_MISMATCH, 1),
            ("lower(net.src.port) == 1", LOWER_NEEDS_TEXT, 1),
            ("http.path ~ 1", REGEX_NEEDS_TEXT, 1),
            (r#"net.src.port ~ "1""#, REGEX_NEEDS_TEXT, 1),
            ("net.src.port ^= 1", AFFIX_NEEDS_TEXT, 1),
            ("net.src.port =^ 1", AFFIX_NEEDS_TEXT, 1),
            ("net.src.port contains 1", CONTAINS_NEEDS_TEXT, 1),
            (r#"http.path > "a""#, ORDER_NEEDS_INTEGER, 1),
            ("net.src.ip in 10.0.0.1", IN_NEEDS_CIDR, 1),
            (r#"http.path in "a""#, IN_NEEDS_CIDR, 1),
            ("net.src.port not in 10.0.0.0/8", IN_NEEDS_CIDR, 1),
            (
                "net.src.ip in 10.0.0.1/8",
                "'10.0.0.1/8' has host bits set, consider '10.0.0.0/8' (or '10.0.0.1')",
                15,
            ),
            (r#"http.path ~ "(""#, "invalid regex: unclosed group", 13),
            ("", "expected a field, a function or '('", 1),
            (
                r#"upper(http.path) == "a""#,
                "unknown function 'upper', expected 'lower' or 'any'",
                1,
            ),
            (
                r#"!http.path == "a""#,
                "expected '(' after '!': only a parenthesised expression can be negated",
                2,
            ),
            (r#"(http.path == "a""#, "expected ')'", 18),
            (
                r#"http.path == "a" http"#,
                "expected '&&', '||' or the end of the expression",
                18,
            ),
            (
                r#"http.path == "a\x""#,
                r##"unknown escape, expected \", \\, \n, \r or \t (or a raw text: r#"…"#)"##,
                16,
            ),
            (
                r#"http.path == "a"#,
                "the text literal has no closing '\"'",
                14,
            ),
            (
                r##"http.path == r#"a""##,
                "the raw text literal has no closing '\"#'",
                14,
            ),
        ] {
            let error = Expression::parse(text, Scope::Http).unwrap_err();
            assert_eq!(
                (error.message.as_str(), error.column),
                (message, column),
                "{text}"
            );
        }
        let error = Expression::parse("http.path == \"a\" &&\n\n  é", Scope::Http).unwrap_err();
        assert_eq!((error.line, error.column), (3, 3));
        let error = Expression::parse(r#"http.path == "a""#, Scope::Stream).unwrap_err();
        assert_eq!(error.to_string(), "Unknown LHS field (line 1, column 1)");
    }

    #[test]
    fn limits() {
        let nested =
            |depth: usize| format!("{}net.port == 1{}", "(".repeat(depth), ")".repeat(depth));
        assert!(Expression::parse(&nested(DEPTH_MAX), Scope::Http).is_ok());
        assert!(Expression::parse(&nested(DEPTH_MAX + 1), Scope::Http).is_err());
        let negated = format!("{}net.port == 1{}", "!(".repeat(20_000), ")".repeat(20_000));
        assert!(Expression::parse(&negated, Scope::Http).is_err());
        let functions = format!(
            "{}http.path{} == \"a\"",
            "any(".repeat(DEPTH_MAX + 1),
            ")".repeat(DEPTH_MAX + 1)
        );
        assert!(Expression::parse(&functions, Scope::Http).is_err());
        let wide = vec!["net.port==1"; PREDICATES_MAX + 1].join("&&");
        assert!(
            Expression::parse(&wide, Scope::Http)
                .unwrap_err()
                .message
                .contains("predicates")
        );
        let long = " ".repeat(EXPRESSION_BYTES_MAX + 1);
        assert!(
            Expression::parse(&long, Scope::Http)
                .unwrap_err()
                .message
                .contains("bytes")
        );
    }
}
