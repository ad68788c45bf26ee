//! The core function library (XPath 1.0, section 4).

use std::borrow::Cow;

use super::evaluate::Context;
use super::{Expression, Item, Outcome};
use crate::dialects::apigee::xml::{Kind, Name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Last,
    Position,
    Count,
    Id,
    LocalName,
    NamespaceUri,
    Name,
    String,
    Concat,
    StartsWith,
    Contains,
    SubstringBefore,
    SubstringAfter,
    Substring,
    StringLength,
    NormalizeSpace,
    Translate,
    Boolean,
    Not,
    True,
    False,
    Lang,
    Number,
    Sum,
    Floor,
    Ceiling,
    Round,
}

/// The most arguments of `concat`.
const ARGUMENTS_MAX: usize = 100;

const FUNCTIONS: [(&str, Function, usize, usize); 27] = [
    ("last", Function::Last, 0, 0),
    ("position", Function::Position, 0, 0),
    ("count", Function::Count, 1, 1),
    ("id", Function::Id, 1, 1),
    ("local-name", Function::LocalName, 0, 1),
    ("namespace-uri", Function::NamespaceUri, 0, 1),
    ("name", Function::Name, 0, 1),
    ("string", Function::String, 0, 1),
    ("concat", Function::Concat, 2, ARGUMENTS_MAX),
    ("starts-with", Function::StartsWith, 2, 2),
    ("contains", Function::Contains, 2, 2),
    ("substring-before", Function::SubstringBefore, 2, 2),
    ("substring-after", Function::SubstringAfter, 2, 2),
    ("substring", Function::Substring, 2, 3),
    ("string-length", Function::StringLength, 0, 1),
    ("normalize-space", Function::NormalizeSpace, 0, 1),
    ("translate", Function::Translate, 3, 3),
    ("boolean", Function::Boolean, 1, 1),
    ("not", Function::Not, 1, 1),
    ("true", Function::True, 0, 0),
    ("false", Function::False, 0, 0),
    ("lang", Function::Lang, 1, 1),
    ("number", Function::Number, 0, 1),
    ("sum", Function::Sum, 1, 1),
    ("floor", Function::Floor, 1, 1),
    ("ceiling", Function::Ceiling, 1, 1),
    ("round", Function::Round, 1, 1),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        FUNCTIONS
            .iter()
            .find(|(known, ..)| *known == name)
            .map(|(_, function, ..)| *function)
    }

    /// The least and most arguments.
    pub(super) fn arguments(self) -> (usize, usize) {
        let row = FUNCTIONS.iter().find(|(_, function, ..)| *function == self);
        row.map_or((0, 0), |(_, _, least, most)| (*least, *most))
    }

    pub(super) fn call<'d>(
        self,
        arguments: &[Expression],
        context: &Context<'d, '_>,
    ) -> Option<Outcome<'d>> {
        let outcome = |number: usize| -> Option<Outcome<'d>> {
            match arguments.get(number) {
                Some(expression) => expression.evaluate(context),
                None => Some(Outcome::Nodes(vec![context.item])),
            }
        };
        let text = |number: usize| -> Option<Cow<'d, str>> { context.text_of(&outcome(number)?) };
        let number = |index: usize| -> Option<f64> { context.number_of(&outcome(index)?) };
        let owned = |text: String| Outcome::Text(Cow::Owned(text));
        Some(match self {
            Self::Last => Outcome::Number(context.size as f64),
            Self::Position => Outcome::Number(context.position as f64),
            Self::Count => match outcome(0)? {
                Outcome::Nodes(items) => Outcome::Number(items.len() as f64),
                _ => Outcome::Number(f64::NAN),
            },
            // Only a document type declares identifiers, and those are refused.
            Self::Id => Outcome::Nodes(Vec::new()),
            Self::LocalName => owned(
                name_of(&outcome(0)?)
                    .map(|name| name.local.to_string())
                    .unwrap_or_else(|| target_of(&outcome(0))),
            ),
            Self::NamespaceUri => {
                let outcome = outcome(0)?;
                owned(
                    name_of(&outcome)
                        .and_then(|name| name.namespace.as_deref())
                        .unwrap_or_default()
                        .to_owned(),
                )
            }
            Self::Name => owned(
                name_of(&outcome(0)?)
                    .map(ToString::to_string)
                    .unwrap_or_else(|| target_of(&outcome(0))),
            ),
            Self::String => Outcome::Text(text(0)?),
            Self::Concat => {
                let mut all = String::new();
                for index in 0..arguments.len() {
                    all.push_str(&text(index)?);
                }
                owned(all)
            }
            Self::StartsWith => Outcome::Boolean(text(0)?.starts_with(text(1)?.as_ref())),
            Self::Contains => Outcome::Boolean(text(0)?.contains(text(1)?.as_ref())),
            Self::SubstringBefore => {
                let (text, mark) = (text(0)?, text(1)?);
                owned(
                    text.split_once(mark.as_ref())
                        .map_or("", |(before, _)| before)
                        .to_owned(),
                )
            }
            Self::SubstringAfter => {
                let (text, mark) = (text(0)?, text(1)?);
                owned(
                    text.split_once(mark.as_ref())
                        .map_or("", |(_, after)| after)
                        .to_owned(),
                )
            }
            Self::Substring => {
                let text = text(0)?;
                let start = round(number(1)?);
                let end = if arguments.len() > 2 {
                    start + round(number(2)?)
                } else {
                    f64::INFINITY
                };
                let within =
                    |index: usize| (index as f64 + 1.0) >= start && (index as f64 + 1.0) < end;
                owned(
                    text.chars()
                        .enumerate()
                        .filter(|(index, _)| within(*index))
                        .map(|(_, character)| character)
                        .collect(),
                )
            }
            Self::StringLength => Outcome::Number(text(0)?.chars().count() as f64),
            Self::NormalizeSpace => {
                let text = text(0)?;
                let words = text
                    .split([' ', '\t', '\n', '\r'])
                    .filter(|word| !word.is_empty());
                owned(words.collect::<Vec<_>>().join(" "))
            }
            Self::Translate => {
                let (text, from, to) = (text(0)?, text(1)?, text(2)?);
                context.spend(text.len().saturating_mul(from.len()) / 64)?;
                let from: Vec<char> = from.chars().collect();
                let to: Vec<char> = to.chars().collect();
                let translated = text.chars().filter_map(|character| {
                    match from.iter().position(|known| *known == character) {
                        None => Some(character),
                        Some(index) => to.get(index).copied(),
                    }
                });
                owned(translated.collect())
            }
            Self::Boolean => Outcome::Boolean(outcome(0)?.boolean()),
            Self::Not => Outcome::Boolean(!outcome(0)?.boolean()),
            Self::True => Outcome::Boolean(true),
            Self::False => Outcome::Boolean(false),
            Self::Lang => Outcome::Boolean(is_in_language(&context.item, &text(0)?)),
            Self::Number => Outcome::Number(number(0)?),
            Self::Sum => match outcome(0)? {
                Outcome::Nodes(items) => {
                    let mut sum = 0.0;
                    for item in &items {
                        sum += super::number_of(&context.text(item)?);
                    }
                    Outcome::Number(sum)
                }
                _ => Outcome::Number(f64::NAN),
            },
            Self::Floor => Outcome::Number(number(0)?.floor()),
            Self::Ceiling => Outcome::Number(number(0)?.ceil()),
            Self::Round => Outcome::Number(round(number(0)?)),
        })
    }
}

/// Halves go up.
fn round(number: f64) -> f64 {
    if number.is_finite() {
        (number + 0.5).floor()
    } else {
        number
    }
}

fn name_of<'d>(outcome: &Outcome<'d>) -> Option<&'d Name> {
    let Outcome::Nodes(items) = outcome else {
        return None;
    };
    match items.first()? {
        Item::Node(node) => match node.kind() {
            Kind::Element(name) => Some(name),
            _ => None,
        },
        Item::Attribute(attribute, _) => Some(attribute.full_name()),
    }
}

/// The target of a processing instruction is its name.
fn target_of(outcome: &Option<Outcome<'_>>) -> String {
    let Some(Outcome::Nodes(items)) = outcome else {
        return String::new();
    };
    match items.first() {
        Some(Item::Node(node)) => match node.kind() {
            Kind::Instruction { target, .. } => target.to_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn is_in_language(item: &Item<'_>, wanted: &str) -> bool {
    let node = match item {
        Item::Node(node) => *node,
        Item::Attribute(attribute, _) => attribute.element().node(),
    };
    let mut elements =
        std::iter::successors(Some(node), |node| node.parent()).filter_map(|node| node.element());
    let language = elements.find_map(|element| {
        let mut attributes = element.attributes();
        attributes
            .find(|attribute| &*attribute.full_name().prefix == "xml" && attribute.name() == "lang")
    });
    language.is_some_and(|language| {
        let language = language.value();
        let start = language.get(..wanted.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(wanted))
            && matches!(language.as_bytes().get(wanted.len()), None | Some(b'-'))
    })
}
