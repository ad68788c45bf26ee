//! From text to tree.
//!
//! Owns XPath 1.0, section 3.7: tokens whose meaning depends on the one before.

use std::sync::Arc;

use super::function::Function;
use super::{
    Arithmetic, Axis, Comparison, DEPTH_MAX, EXPRESSION_BYTES_MAX, Expression, Step, Test, XPath,
};
use crate::dialects::apigee::xml::{is_name_character, is_name_start};

impl XPath {
    /// Parses an expression; `namespaces` says what its prefixes stand for.
    ///
    /// # Errors
    /// A sentence with the column of what does not belong.
    pub fn parse(text: &str, namespaces: &[(String, String)]) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("an XPath may have {EXPRESSION_BYTES_MAX} bytes"));
        }
        let tokens = tokens(text)?;
        let mut parser = Parser {
            text,
            tokens,
            at: 0,
            depth: 0,
            namespaces,
        };
        let root = parser.or()?;
        if parser.at < parser.tokens.len() {
            return Err(parser.error("the end is expected"));
        }
        Ok(Self {
            text: text.into(),
            root,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// An operator or punctuation.
    Symbol(&'static str),
    /// `and`, `or`, `div`, `mod` where an operator is due.
    Word(&'static str),
    /// `name`, `p:name`, `p:*`, `*`.
    Name(String),
    Literal(String),
    Number(f64),
}

const SYMBOLS: [&str; 21] = [
    "::", "//", "..", "!=", "<=", ">=", "(", ")", "[", "]", "@", ",", "/", "|", "+", "-", "=", "<",
    ">", ".", "$",
];

/// Tokens with the bytes before them.
fn tokens(text: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut list: Vec<(Token, usize)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            return Ok(list);
        };
        // Section 3.7: behind an operand, `*` and words are operators.
        let operator_due = match list.last() {
            None => false,
            Some((Token::Symbol(symbol), _)) => matches!(*symbol, ")" | "]" | ".." | "."),
            Some((Token::Word(_), _)) => false,
            Some(_) => true,
        };
        let (token, length) = match first {
            '"' | '\'' => {
                let body = rest.get(1..).unwrap_or_default();
                let end = body
                    .find(first)
                    .ok_or_else(|| at_column(text, at, "the closing quote is missing"))?;
                (
                    Token::Literal(body.get(..end).unwrap_or_default().to_owned()),
                    end + 2,
                )
            }
            '0'..='9' => number(rest),
            '.' if rest
                .chars()
                .nth(1)
                .is_some_and(|second| second.is_ascii_digit()) =>
            {
                number(rest)
            }
            '*' if operator_due => (Token::Word("*"), 1),
            '*' => (Token::Name("*".to_owned()), 1),
            first if is_name_start(first) => {
                let name = name(rest);
                let word = ["and", "or", "div", "mod"]
                    .into_iter()
                    .find(|word| *word == name);
                match word.filter(|_| operator_due) {
                    Some(word) => (Token::Word(word), word.len()),
                    None => (Token::Name(name.to_owned()), name.len()),
                }
            }
            other => {
                let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
                let symbol = symbol.ok_or_else(|| {
                    at_column(
                        text,
                        at,
                        &format!("'{other}' does not belong into an XPath"),
                    )
                })?;
                (Token::Symbol(symbol), symbol.len())
            }
        };
        list.push((token, at));
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn number(rest: &str) -> (Token, usize) {
    let integer = rest.bytes().take_while(u8::is_ascii_digit).count();
    let fraction = match rest.get(integer..).and_then(|rest| rest.strip_prefix('.')) {
        Some(digits) => 1 + digits.bytes().take_while(u8::is_ascii_digit).count(),
        None => 0,
    };
    let length = integer + fraction;
    (
        Token::Number(super::number_of(rest.get(..length).unwrap_or_default())),
        length,
    )
}

/// A name, with a prefix perhaps; `p:*` is one too, `axis::` is not.
fn name(rest: &str) -> &str {
    let part = |text: &str| {
        text.find(|character| !is_name_character(character))
            .unwrap_or(text.len())
    };
    let mut length = part(rest);
    let behind = rest.get(length..).unwrap_or_default();
    if let Some(local) = behind
        .strip_prefix(':')
        .filter(|local| !local.starts_with(':'))
    {
        if local.starts_with('*') {
            length += 2;
        } else if local.starts_with(is_name_start) {
            length += 1 + part(local);
        }
    }
    rest.get(..length).unwrap_or_default()
}

fn at_column(text: &str, at: usize, message: &str) -> String {
    let column = text.get(..at).unwrap_or(text).chars().count() + 1;
    format!("XPath '{text}', column {column}: {message}")
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    namespaces: &'t [(String, String)],
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(next)) if *next == symbol)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(next)) if *next == word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.error(&format!("'{symbol}' is expected")))
        }
    }

    fn error(&self, message: &str) -> String {
        let at = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |(_, at)| *at);
        at_column(self.text, at, message)
    }

    fn or(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(&format!("is nested deeper than {DEPTH_MAX}")));
        }
        let mut list = vec![self.and()?];
        while self.take_word("or") {
            list.push(self.and()?);
        }
        self.depth -= 1;
        Ok(single(list, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut list = vec![self.equality()?];
        while self.take_word("and") {
            list.push(self.equality()?);
        }
        Ok(single(list, Expression::And))
    }

    fn equality(&mut self) -> Result<Expression, String> {
        let first = self.relational()?;
        let mut rest = Vec::new();
        loop {
            let comparison = if self.take("=") {
                Comparison::Equal
            } else if self.take("!=") {
                Comparison::NotEqual
            } else {
                break;
            };
            rest.push((comparison, self.relational()?));
        }
        Ok(chain(first, rest, Expression::Compare))
    }

    fn relational(&mut self) -> Result<Expression, String> {
        let first = self.additive()?;
        let mut rest = Vec::new();
        loop {
            let comparison = if self.take("<=") {
                Comparison::LessOrEqual
            } else if self.take(">=") {
                Comparison::GreaterOrEqual
            } else if self.take("<") {
                Comparison::Less
            } else if self.take(">") {
                Comparison::Greater
            } else {
                break;
            };
            rest.push((comparison, self.additive()?));
        }
        Ok(chain(first, rest, Expression::Compare))
    }

    fn additive(&mut self) -> Result<Expression, String> {
        let first = self.multiplicative()?;
        let mut rest = Vec::new();
        loop {
            let operator = if self.take("+") {
                Arithmetic::Add
            } else if self.take("-") {
                Arithmetic::Subtract
            } else {
                break;
            };
            rest.push((operator, self.multiplicative()?));
        }
        Ok(chain(first, rest, Expression::Calculate))
    }

    fn multiplicative(&mut self) -> Result<Expression, String> {
        let first = self.unary()?;
        let mut rest = Vec::new();
        loop {
            let operator = if self.take_word("*") {
                Arithmetic::Multiply
            } else if self.take_word("div") {
                Arithmetic::Divide
            } else if self.take_word("mod") {
                Arithmetic::Remainder
            } else {
                break;
            };
            rest.push((operator, self.unary()?));
        }
        Ok(chain(first, rest, Expression::Calculate))
    }

    fn unary(&mut self) -> Result<Expression, String> {
        let mut negative = false;
        let mut signed = false;
        while self.take("-") {
            negative = !negative;
            signed = true;
        }
        let operand = self.union()?;
        if !signed {
            return Ok(operand);
        }
        let negated = Expression::Negate(Box::new(operand));
        Ok(if negative {
            negated
        } else {
            Expression::Negate(Box::new(negated))
        })
    }

    fn union(&mut self) -> Result<Expression, String> {
        let mut list = vec![self.path()?];
        while self.take("|") {
            list.push(self.path()?);
        }
        Ok(single(list, Expression::Union))
    }

    fn path(&mut self) -> Result<Expression, String> {
        let from = match self.peek().cloned() {
            Some(Token::Literal(text)) => {
                self.at += 1;
                Some(Expression::Literal(text.into()))
            }
            Some(Token::Number(number)) => {
                self.at += 1;
                Some(Expression::Number(number))
            }
            Some(Token::Symbol("(")) => {
                self.at += 1;
                let inner = self.or()?;
                self.expect(")")?;
                Some(inner)
            }
            Some(Token::Symbol("$")) => {
                return Err(self.error("there are no variables in policies' expressions"));
            }
            Some(Token::Name(name)) if self.is_call(&name) => Some(self.call(&name)?),
            _ => None,
        };
        let Some(from) = from else {
            return self.location();
        };
        let mut predicates = Vec::new();
        while self.take("[") {
            predicates.push(self.or()?);
            self.expect("]")?;
        }
        let mut steps = Vec::new();
        if self.is_symbol("/") || self.is_symbol("//") {
            self.steps(&mut steps)?;
        }
        if predicates.is_empty() && steps.is_empty() {
            return Ok(from);
        }
        Ok(Expression::Filtered {
            from: Box::new(from),
            predicates,
            steps,
        })
    }

    fn is_call(&self, name: &str) -> bool {
        let opens = matches!(self.tokens.get(self.at + 1), Some((Token::Symbol("("), _)));
        opens && !matches!(name, "node" | "text" | "comment" | "processing-instruction")
    }

    fn call(&mut self, name: &str) -> Result<Expression, String> {
        let function = Function::named(name)
            .ok_or_else(|| self.error(&format!("function '{name}' is not one of XPath 1.0")))?;
        let start = self.at;
        self.at += 2;
        let mut arguments = Vec::new();
        if !self.is_symbol(")") {
            arguments.push(self.or()?);
            while self.take(",") {
                arguments.push(self.or()?);
            }
        }
        self.expect(")")?;
        let (least, most) = function.arguments();
        if arguments.len() < least || arguments.len() > most {
            self.at = start;
            return Err(self.error(&format!(
                "function '{name}' does not take {} arguments",
                arguments.len()
            )));
        }
        Ok(Expression::Call(function, arguments))
    }

    fn location(&mut self) -> Result<Expression, String> {
        let mut steps = Vec::new();
        let absolute = self.is_symbol("/") || self.is_symbol("//");
        if self.is_symbol("/") && !self.step_follows(self.at + 1) {
            self.at += 1;
            return Ok(Expression::Path { absolute, steps });
        }
        if !absolute {
            steps.push(self.step()?);
        }
        self.steps(&mut steps)?;
        Ok(Expression::Path { absolute, steps })
    }

    fn step_follows(&self, at: usize) -> bool {
        match self.tokens.get(at) {
            Some((Token::Name(_), _)) => true,
            Some((Token::Symbol(symbol), _)) => matches!(*symbol, "." | ".." | "@"),
            _ => false,
        }
    }

    /// Steps, each behind a slash or two.
    fn steps(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        loop {
            if self.take("//") {
                steps.push(Step {
                    axis: Axis::DescendantOrSelf,
                    test: Test::AnyNode,
                    predicates: Vec::new(),
                });
            } else if !self.take("/") {
                return Ok(());
            }
            steps.push(self.step()?);
        }
    }

    fn step(&mut self) -> Result<Step, String> {
        let plain = |axis| Step {
            axis,
            test: Test::AnyNode,
            predicates: Vec::new(),
        };
        if self.take(".") {
            return Ok(plain(Axis::Itself));
        }
        if self.take("..") {
            return Ok(plain(Axis::Parent));
        }
        let mut axis = Axis::Child;
        if self.take("@") {
            axis = Axis::Attribute;
        } else if let (Some(Token::Name(name)), Some((Token::Symbol("::"), _))) =
            (self.peek(), self.tokens.get(self.at + 1))
        {
            axis = axis_named(name)
                .ok_or_else(|| self.error(&format!("'{name}' is not an axis that is supported")))?;
            self.at += 2;
        }
        let test = self.test()?;
        let mut predicates = Vec::new();
        while self.take("[") {
            predicates.push(self.or()?);
            self.expect("]")?;
        }
        Ok(Step {
            axis,
            test,
            predicates,
        })
    }

    fn test(&mut self) -> Result<Test, String> {
        let Some(Token::Name(name)) = self.peek().cloned() else {
            return Err(self.error("the name of an element, '*', '@' or '.' is expected"));
        };
        let opens = matches!(self.tokens.get(self.at + 1), Some((Token::Symbol("("), _)));
        if opens {
            self.at += 2;
            let test = match name.as_str() {
                "node" => Test::AnyNode,
                "text" => Test::Text,
                "comment" => Test::Comment,
                "processing-instruction" => {
                    let target = match self.peek() {
                        Some(Token::Literal(target)) => Some(target.as_str().into()),
                        _ => None,
                    };
                    self.at += usize::from(target.is_some());
                    Test::Instruction(target)
                }
                _ => return Err(self.error(&format!("'{name}()' cannot stand here"))),
            };
            self.expect(")")?;
            return Ok(test);
        }
        let test = match name.split_once(':') {
            None if name == "*" => Test::AnyName,
            None => Test::Name {
                namespace: None,
                local: name.as_str().into(),
            },
            Some((prefix, local)) => {
                let declared = self.namespaces.iter().find(|(known, _)| known == prefix);
                let namespace: Arc<str> = match (declared, prefix) {
                    (Some((_, namespace)), _) => Arc::from(namespace.as_str()),
                    (None, "xml") => Arc::from("http://www.w3.org/XML/1998/namespace"),
                    (None, _) => {
                        return Err(self.error(&format!(
                            "prefix '{prefix}' is not declared in <Namespaces>"
                        )));
                    }
                };
                match local {
                    "*" => Test::AnyIn(namespace),
                    local => Test::Name {
                        namespace: Some(namespace),
                        local: local.into(),
                    },
                }
            }
        };
        self.at += 1;
        Ok(test)
    }
}

fn axis_named(name: &str) -> Option<Axis> {
    Some(match name {
        "child" => Axis::Child,
        "descendant" => Axis::Descendant,
        "descendant-or-self" => Axis::DescendantOrSelf,
        "parent" => Axis::Parent,
        "ancestor" => Axis::Ancestor,
        "ancestor-or-self" => Axis::AncestorOrSelf,
        "following-sibling" => Axis::FollowingSibling,
        "preceding-sibling" => Axis::PrecedingSibling,
        "following" => Axis::Following,
        "preceding" => Axis::Preceding,
        "attribute" => Axis::Attribute,
        "self" => Axis::Itself,
        _ => return None,
    })
}

fn single(mut list: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match list.len() {
        1 => list.swap_remove(0),
        _ => many(list),
    }
}

fn chain<O>(
    first: Expression,
    rest: Vec<(O, Expression)>,
    many: fn(Box<Expression>, Vec<(O, Expression)>) -> Expression,
) -> Expression {
    if rest.is_empty() {
        first
    } else {
        many(Box::new(first), rest)
    }
}
