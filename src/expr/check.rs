//! What fits together: fields, functions, operators and literals. Messages that clients know are kept word for word.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::field::{Field, Kind};
use super::{AddressTest, IntegerTest, Test, TextTest, pattern};

pub(super) const TYPE_MISMATCH: &str = "Type mismatch between the LHS and RHS values of predicate";
pub(super) const LOWER_NEEDS_TEXT: &str =
    "lower-case transformation function only supported with String type fields";
pub(super) const REGEX_NEEDS_TEXT: &str = "Regex operators only supports string operands";
pub(super) const AFFIX_NEEDS_TEXT: &str = "Prefix/Postfix operators only supports string operands";
pub(super) const CONTAINS_NEEDS_TEXT: &str = "Contains operator only supports string operands";
pub(super) const ORDER_NEEDS_INTEGER: &str =
    "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only supports integer operands";
pub(super) const IN_NEEDS_CIDR: &str = "In/NotIn operators only supports IP in CIDR";

/// A literal on the right of an operator, before it is known to fit.
pub(super) enum Literal {
    Text(String),
    Integer(i64),
    Address(IpAddr),
    Network(IpNet),
}

impl Literal {
    /// The field kind that it can be compared with; a network compares only by `in`.
    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Text(_) => Some(Kind::Text),
            Self::Integer(_) => Some(Kind::Integer),
            Self::Address(_) => Some(Kind::Address),
            Self::Network(_) => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equals,
    Differs,
    Matches,
    Prefix,
    Suffix,
    Contains,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    In,
    NotIn,
}

/// Why they do not fit.
pub(super) enum Mismatch {
    Types(&'static str),
    Regex(String),
}

/// Makes sure that field, functions, operator and literal fit together.
pub(super) fn check(
    field: &Field,
    lower: bool,
    operator: Operator,
    literal: Literal,
) -> Result<Test, Mismatch> {
    let kind = field.kind();
    let unchecked = matches!(operator, Operator::Matches | Operator::In | Operator::NotIn);
    if !unchecked && literal.kind() != Some(kind) {
        return Err(Mismatch::Types(TYPE_MISMATCH));
    }
    if lower && kind != Kind::Text {
        return Err(Mismatch::Types(LOWER_NEEDS_TEXT));
    }
    match (operator, literal) {
        (Operator::Matches, Literal::Text(regex)) if kind == Kind::Text => pattern::compile(&regex)
            .map(|regex| Test::Text(TextTest::Matches(Arc::new(regex))))
            .map_err(Mismatch::Regex),
        (Operator::Matches, _) => Err(Mismatch::Types(REGEX_NEEDS_TEXT)),
        (Operator::In, Literal::Network(network)) if kind == Kind::Address => {
            Ok(Test::Address(AddressTest::In(network)))
        }
        (Operator::NotIn, Literal::Network(network)) if kind == Kind::Address => {
            Ok(Test::Address(AddressTest::NotIn(network)))
        }
        (Operator::In | Operator::NotIn, _) | (_, Literal::Network(_)) => {
            Err(Mismatch::Types(IN_NEEDS_CIDR))
        }
        (operator, Literal::Text(text)) => {
            text_test(operator, text.into_bytes().into_boxed_slice())
        }
        (operator, Literal::Integer(number)) => integer_test(operator, number),
        (operator, Literal::Address(address)) => match operator {
            Operator::Equals => Ok(Test::Address(AddressTest::Equals(address))),
            Operator::Differs => Ok(Test::Address(AddressTest::Differs(address))),
            other => Err(wrong_operands(other)),
        },
    }
}

fn text_test(operator: Operator, text: Box<[u8]>) -> Result<Test, Mismatch> {
    let test = match operator {
        Operator::Equals => TextTest::Equals(text),
        Operator::Differs => TextTest::Differs(text),
        Operator::Prefix => TextTest::StartsWith(text),
        Operator::Suffix => TextTest::EndsWith(text),
        Operator::Contains => TextTest::Contains(text),
        other => return Err(wrong_operands(other)),
    };
    Ok(Test::Text(test))
}

fn integer_test(operator: Operator, number: i64) -> Result<Test, Mismatch> {
    let test = match operator {
        Operator::Equals => IntegerTest::Equals,
        Operator::Differs => IntegerTest::Differs,
        Operator::Greater => IntegerTest::Greater,
        Operator::GreaterOrEqual => IntegerTest::GreaterOrEqual,
        Operator::Less => IntegerTest::Less,
        Operator::LessOrEqual => IntegerTest::LessOrEqual,
        other => return Err(wrong_operands(other)),
    };
    Ok(Test::Integer(test, number))
}

fn wrong_operands(operator: Operator) -> Mismatch {
    Mismatch::Types(match operator {
        Operator::Prefix | Operator::Suffix => AFFIX_NEEDS_TEXT,
        Operator::Contains => CONTAINS_NEEDS_TEXT,
        Operator::Matches => REGEX_NEEDS_TEXT,
        Operator::In | Operator::NotIn => IN_NEEDS_CIDR,
        Operator::Greater | Operator::GreaterOrEqual | Operator::Less | Operator::LessOrEqual => {
            ORDER_NEEDS_INTEGER
        }
        Operator::Equals | Operator::Differs => TYPE_MISMATCH,
    })
}

/// A literal without quotes: a network, an address or an integer.
pub(super) fn bare_literal(word: &str) -> Result<Literal, String> {
    if word.is_empty() {
        return Err(
            "expected a literal: \"text\", r#\"text\"#, an integer, an address or a network"
                .to_owned(),
        );
    }
    if let Some((address, _)) = word.split_once('/') {
        let network: IpNet = word.parse().map_err(|_| {
            format!("'{word}' is no network, expected one like 10.0.0.0/8 or fd00::/8")
        })?;
        return match network.network() == network.addr() {
            true => Ok(Literal::Network(network)),
            false => Err(format!(
                "'{word}' has host bits set, consider '{}' (or '{address}')",
                network.trunc()
            )),
        };
    }
    if word.contains(['.', ':']) {
        return word
            .parse()
            .map(Literal::Address)
            .map_err(|_| format!("'{word}' is no IPv4 or IPv6 address"));
    }
    integer(word).map(Literal::Integer).ok_or_else(|| {
        format!("'{word}' is no text, address or 64-bit integer (texts are written in quotes)")
    })
}

/// A signed 64-bit integer: decimal, hexadecimal after `0x`, octal after a leading zero.
pub(super) fn integer(word: &str) -> Option<i64> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", word),
    };
    let (digits, radix) = if let Some(hexadecimal) = digits.strip_prefix("0x") {
        (hexadecimal, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (digits.get(1..)?, 8)
    } else {
        (digits, 10)
    };
    // `from_str_radix` would take a second sign.
    digits
        .starts_with(|first: char| first.is_ascii_hexdigit())
        .then(|| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok())
        .flatten()
}
