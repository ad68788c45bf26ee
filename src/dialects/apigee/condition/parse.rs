//! From text to tree.
//!
//! Owns tokens, precedence and limits. Each error says where it is and what is allowed there.

use super::pattern::{Glob, PathPattern};
use super::{Condition, Node, Operand, Operator, Test};
use crate::base::diagnostic::Diagnostic;
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::java_regex::JavaRegex;
use crate::dialects::apigee::variables::{Value, VariableName};

/// The longest condition, in bytes.
pub const BYTES_MAX: usize = 32 * 1024;
/// The deepest nesting of parentheses and negations.
pub const DEPTH_MAX: usize = 64;
/// The most comparisons in one condition.
pub const COMPARISONS_MAX: usize = 1000;

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("condition, line {line}, column {column}: {message}")]
pub struct ConditionError {
    /// Within the condition's text, counted from 1.
    pub line: u32,
    /// In characters within its line, counted from 1.
    pub column: u32,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl ConditionError {
    /// The error for whoever wrote it; `at` is the place of the element that holds the condition.
    pub fn diagnostic(&self, at: SourceRef) -> Diagnostic {
        Diagnostic::error("invalid-condition", at, self.to_string())
    }
}

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    /// The first thing that does not belong, with its place.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let text = text.trim();
        let mut parser = Parser {
            text,
            at: 0,
            token: Token::End,
            token_at: 0,
            depth: 0,
            comparisons: 0,
        };
        if text.len() > BYTES_MAX {
            return Err(parser.error(format!("is longer than {BYTES_MAX} bytes")));
        }
        parser.advance()?;
        let root = match parser.token {
            Token::End => Node::True,
            _ => parser.any()?,
        };
        match &parser.token {
            Token::End => Ok(Self {
                text: text.into(),
                root,
            }),
            Token::Close => Err(parser.error("')' closes nothing".to_owned())),
            other => Err(parser.error(format!(
                "'and', 'or' or the end is expected, not {}",
                other.told()
            ))),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Compare(Operator),
    /// `is`, which may stand before `not`.
    Is,
    Text(String),
    /// In single quotes: a variable.
    Quoted(String),
    Word(String),
    Number(Number),
    End,
}

/// A number.
#[derive(Clone, Debug, PartialEq)]
enum Number {
    Integer(i32),
    Long(i64),
    Float(f32),
    Double(f64),
}

impl From<Number> for Value<'static> {
    fn from(number: Number) -> Self {
        match number {
            Number::Integer(number) => Self::Integer(number),
            Number::Long(number) => Self::Long(number),
            Number::Float(number) => Self::Float(number),
            Number::Double(number) => Self::Double(number),
        }
    }
}

impl Token {
    fn told(&self) -> String {
        match self {
            Self::Open => "'('".to_owned(),
            Self::Close => "')'".to_owned(),
            Self::And => "'and'".to_owned(),
            Self::Or => "'or'".to_owned(),
            Self::Not => "'not'".to_owned(),
            Self::Compare(_) | Self::Is => "an operator".to_owned(),
            Self::Text(text) => format!("the text \"{text}\""),
            Self::Quoted(name) => format!("the variable '{name}'"),
            Self::Word(word) => format!("'{word}'"),
            Self::Number(_) => "a number".to_owned(),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Symbols, longer ones before those that begin them.
const SYMBOLS: [(&str, Token); 20] = [
    ("&&", Token::And),
    ("||", Token::Or),
    ("==", Token::Compare(Operator::Equals)),
    ("=|", Token::Compare(Operator::StartsWith)),
    ("=", Token::Compare(Operator::Equals)),
    ("!=", Token::Compare(Operator::NotEquals)),
    ("!~", Token::Compare(Operator::NotGlob)),
    ("!", Token::Not),
    (":=", Token::Compare(Operator::EqualsIgnoringCase)),
    (">=", Token::Compare(Operator::GreaterOrEqual)),
    (">", Token::Compare(Operator::Greater)),
    ("<=", Token::Compare(Operator::LessOrEqual)),
    ("<", Token::Compare(Operator::Less)),
    ("~~", Token::Compare(Operator::Regex)),
    ("~/", Token::Compare(Operator::Path)),
    ("~", Token::Compare(Operator::Glob)),
    ("(", Token::Open),
    (")", Token::Close),
    ("\u{2265}", Token::Compare(Operator::GreaterOrEqual)),
    ("\u{2264}", Token::Compare(Operator::LessOrEqual)),
];

/// Words in lower case; they are read in any case.
const WORDS: [(&str, Token); 19] = [
    ("and", Token::And),
    ("or", Token::Or),
    ("not", Token::Not),
    ("is", Token::Is),
    ("equals", Token::Compare(Operator::Equals)),
    ("isnot", Token::Compare(Operator::NotEquals)),
    ("notequals", Token::Compare(Operator::NotEquals)),
    (
        "equalscaseinsensitive",
        Token::Compare(Operator::EqualsIgnoringCase),
    ),
    ("greaterthan", Token::Compare(Operator::Greater)),
    (
        "greaterthanorequals",
        Token::Compare(Operator::GreaterOrEqual),
    ),
    ("lesserthan", Token::Compare(Operator::Less)),
    ("lesserthanorequals", Token::Compare(Operator::LessOrEqual)),
    ("javaregex", Token::Compare(Operator::Regex)),
    ("matches", Token::Compare(Operator::Glob)),
    ("like", Token::Compare(Operator::Glob)),
    ("matchespath", Token::Compare(Operator::Path)),
    ("likepath", Token::Compare(Operator::Path)),
    ("startswith", Token::Compare(Operator::StartsWith)),
    ("lessthan", Token::Compare(Operator::Less)),
];

struct Parser<'t> {
    text: &'t str,
    at: usize,
    token: Token,
    token_at: usize,
    depth: usize,
    comparisons: usize,
}

impl Parser<'_> {
    /// An error at the current token.
    fn error(&self, message: String) -> ConditionError {
        self.error_at(self.token_at, message)
    }

    fn error_at(&self, at: usize, message: String) -> ConditionError {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        ConditionError {
            line: 1 + before.matches('\n').count() as u32,
            column: 1 + line.chars().count() as u32,
            message,
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Reads the next token.
    fn advance(&mut self) -> Result<(), ConditionError> {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.token_at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            self.token = Token::End;
            return Ok(());
        };
        let (token, length) = match first {
            '"' | '\'' => {
                let body = rest.get(1..).unwrap_or_default();
                let Some(end) = body.find(first) else {
                    return Err(self.error(format!("{first} is not closed")));
                };
                let body = body.get(..end).unwrap_or_default().to_owned();
                let length = body.len() + 2;
                let token = if first == '"' {
                    Token::Text(body)
                } else {
                    Token::Quoted(body)
                };
                (token, length)
            }
            '\u{201C}' | '\u{201D}' | '\u{2018}' | '\u{2019}' => {
                return Err(self.error(format!(
                    "'{first}' is a typographic quotation mark, texts stand in plain \""
                )));
            }
            '-' | '0'..='9' => self.number(rest)?,
            first if is_word(first) => {
                let word: String = rest
                    .chars()
                    .take_while(|character| is_word(*character))
                    .collect();
                let length = word.len();
                let lower = word.to_ascii_lowercase();
                let known = WORDS.iter().find(|(known, _)| *known == lower);
                (
                    known.map_or(Token::Word(word), |(_, token)| token.clone()),
                    length,
                )
            }
            other => {
                let known = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol));
                let (symbol, token) = known.ok_or_else(|| {
                    self.error(format!("'{other}' does not belong into a condition"))
                })?;
                (token.clone(), symbol.len())
            }
        };
        self.token = token;
        self.at += length;
        Ok(())
    }

    /// A number, or a word that begins with a digit.
    fn number(&self, rest: &str) -> Result<(Token, usize), ConditionError> {
        let negative = usize::from(rest.starts_with('-'));
        let body = rest.get(negative..).unwrap_or_default();
        let word: &str = body
            .split(|character: char| !is_word(character))
            .next()
            .unwrap_or_default();
        let length = negative + word.len();
        let text = rest.get(..length).unwrap_or_default();
        let (digits, suffix) = match text.chars().next_back() {
            Some(suffix @ ('f' | 'F' | 'd' | 'D' | 'l' | 'L')) => (
                text.get(..length - 1).unwrap_or_default(),
                suffix.to_ascii_lowercase(),
            ),
            _ => (text, ' '),
        };
        let plain = digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-'));
        let number = match suffix {
            _ if !plain => None,
            'f' => digits.parse().ok().map(Number::Float),
            'd' => digits.parse().ok().map(Number::Double),
            'l' => digits.parse().ok().map(Number::Long),
            _ if digits.contains('.') => digits.parse().ok().map(Number::Double),
            _ => digits
                .parse()
                .map(Number::Integer)
                .or_else(|_| digits.parse().map(Number::Long))
                .ok(),
        };
        match number {
            Some(number) => Ok((Token::Number(number), length)),
            // Names such as `1st.header` are legal if strange.
            None if negative == 0 && digits.bytes().any(|byte| byte.is_ascii_alphabetic()) => {
                Ok((Token::Word(text.to_owned()), length))
            }
            None => Err(self.error(format!("'{text}' is not a number"))),
        }
    }

    fn deeper(&mut self) -> Result<(), ConditionError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("is nested deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    fn any(&mut self) -> Result<Node, ConditionError> {
        let mut nodes = vec![self.all()?];
        while self.token == Token::Or {
            self.advance()?;
            nodes.push(self.all()?);
        }
        Ok(single(nodes, Node::Any))
    }

    fn all(&mut self) -> Result<Node, ConditionError> {
        let mut nodes = vec![self.unary()?];
        while self.token == Token::And {
            self.advance()?;
            nodes.push(self.unary()?);
        }
        Ok(single(nodes, Node::All))
    }

    fn unary(&mut self) -> Result<Node, ConditionError> {
        if self.token != Token::Not {
            return self.comparison();
        }
        self.advance()?;
        self.deeper()?;
        let node = self.unary()?;
        self.depth -= 1;
        Ok(Node::Not(Box::new(node)))
    }

    fn comparison(&mut self) -> Result<Node, ConditionError> {
        self.comparisons += 1;
        if self.comparisons > COMPARISONS_MAX {
            return Err(self.error(format!("has more than {COMPARISONS_MAX} comparisons")));
        }
        if self.token == Token::Open {
            self.advance()?;
            self.deeper()?;
            let node = self.any()?;
            self.depth -= 1;
            if self.token != Token::Close {
                return Err(self.error(format!("')' is expected, not {}", self.token.told())));
            }
            self.advance()?;
            return Ok(node);
        }
        let left = self.operand()?;
        let negated = self.token == Token::Not;
        if negated {
            self.advance()?;
        }
        let mut operator = match self.token {
            Token::Compare(operator) => operator,
            Token::Is => Operator::Equals,
            _ if negated => {
                return Err(self.error(format!(
                    "an operator is expected after 'not', not {}",
                    self.token.told()
                )));
            }
            _ => return Ok(Node::Truth(left)),
        };
        let was_is = self.token == Token::Is;
        self.advance()?;
        if was_is && self.token == Token::Not {
            self.advance()?;
            operator = Operator::NotEquals;
        }
        let at = self.token_at;
        let right = self.operand()?;
        let node = self.compared(left, operator, right, at)?;
        Ok(if negated {
            Node::Not(Box::new(node))
        } else {
            node
        })
    }

    fn operand(&mut self) -> Result<Operand, ConditionError> {
        let operand = match std::mem::replace(&mut self.token, Token::End) {
            Token::Text(text) => Operand::Literal(Value::from(text)),
            Token::Number(number) => Operand::Literal(number.into()),
            Token::Quoted(name) => self.variable(&name)?,
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Operand::Null,
            Token::Word(word) if word.eq_ignore_ascii_case("true") => {
                Operand::Literal(Value::Boolean(true))
            }
            Token::Word(word) if word.eq_ignore_ascii_case("false") => {
                Operand::Literal(Value::Boolean(false))
            }
            Token::Word(word) => self.variable(&word)?,
            other => {
                let message = format!(
                    "a variable, text in \" or number is expected, not {}",
                    other.told()
                );
                return Err(self.error(message));
            }
        };
        self.advance()?;
        Ok(operand)
    }

    fn variable(&self, name: &str) -> Result<Operand, ConditionError> {
        if name.trim().is_empty() || name.len() > VariableName::BYTES_MAX {
            return Err(self.error(format!(
                "'{name}' is not a variable, single quotes hold the name of one"
            )));
        }
        Ok(Operand::Variable(VariableName::new(name.trim())))
    }

    /// A comparison, its pattern compiled when it is a text.
    fn compared(
        &self,
        left: Operand,
        operator: Operator,
        right: Operand,
        at: usize,
    ) -> Result<Node, ConditionError> {
        let Operand::Literal(pattern) = &right else {
            return Ok(Node::Compare(left, operator, right));
        };
        let pattern = pattern.as_text();
        let test = match operator {
            Operator::Glob | Operator::NotGlob => Test::Glob(Glob::new(&pattern)),
            Operator::Path => Test::Path(PathPattern::new(&pattern)),
            Operator::Regex => Test::Regex(
                JavaRegex::whole(&pattern).map_err(|message| self.error_at(at, message))?,
            ),
            _ => return Ok(Node::Compare(left, operator, right)),
        };
        Ok(Node::Matches {
            subject: left,
            test,
            negated: operator == Operator::NotGlob,
        })
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '.' | '_' | '-' | '$')
}

fn single(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() > 1 {
        return many(nodes);
    }
    nodes.pop().unwrap_or(Node::True)
}
