//! From tree and document to an outcome.
//!
//! Owns axes, predicates, comparison and arithmetic. Everything is counted; `None` anywhere means that the budget is spent.

use std::borrow::Cow;
use std::cell::Cell;

use super::{Arithmetic, Axis, Comparison, Expression, Item, Outcome, STEPS_MAX, Step, Test};
use crate::dialects::apigee::xml::{Document, Kind, Name, Node};

/// Texts cost one step for so many bytes.
const BYTES_PER_STEP: usize = 64;

pub(super) fn evaluate<'d>(expression: &Expression, document: &'d Document) -> Option<Outcome<'d>> {
    let budget = Cell::new(STEPS_MAX);
    let context = Context {
        item: Item::Node(document.node()),
        position: 1,
        size: 1,
        budget: &budget,
    };
    expression.evaluate(&context)
}

/// What an expression is seen from.
pub(super) struct Context<'d, 'b> {
    pub(super) item: Item<'d>,
    pub(super) position: usize,
    pub(super) size: usize,
    budget: &'b Cell<usize>,
}

impl<'d> Context<'d, '_> {
    pub(super) fn spend(&self, steps: usize) -> Option<()> {
        self.budget.set(self.budget.get().checked_sub(steps)?);
        Some(())
    }

    /// A node's text, paid for.
    pub(super) fn text(&self, item: &Item<'d>) -> Option<Cow<'d, str>> {
        if let Item::Node(node) = item {
            self.spend((node.end() - node.index()) as usize)?;
        }
        let text = item.text();
        self.spend(1 + text.len() / BYTES_PER_STEP)?;
        Some(text)
    }

    /// An outcome's text, paid for.
    pub(super) fn text_of(&self, outcome: &Outcome<'d>) -> Option<Cow<'d, str>> {
        match outcome {
            Outcome::Nodes(items) => match items.first() {
                Some(item) => self.text(item),
                None => Some(Cow::Borrowed("")),
            },
            other => {
                let text = other.text();
                self.spend(1 + text.len() / BYTES_PER_STEP)?;
                Some(text)
            }
        }
    }

    pub(super) fn number_of(&self, outcome: &Outcome<'d>) -> Option<f64> {
        match outcome {
            Outcome::Nodes(_) => self.text_of(outcome).map(|text| super::number_of(&text)),
            other => Some(other.number()),
        }
    }
}

impl Expression {
    pub(super) fn evaluate<'d>(&self, context: &Context<'d, '_>) -> Option<Outcome<'d>> {
        context.spend(1)?;
        Some(match self {
            Self::Or(list) => {
                for expression in list {
                    if expression.evaluate(context)?.boolean() {
                        return Some(Outcome::Boolean(true));
                    }
                }
                Outcome::Boolean(false)
            }
            Self::And(list) => {
                for expression in list {
                    if !expression.evaluate(context)?.boolean() {
                        return Some(Outcome::Boolean(false));
                    }
                }
                Outcome::Boolean(true)
            }
            Self::Compare(first, rest) => {
                let mut left = first.evaluate(context)?;
                for (comparison, expression) in rest {
                    let right = expression.evaluate(context)?;
                    left = Outcome::Boolean(compare(*comparison, &left, &right, context)?);
                }
                left
            }
            Self::Calculate(first, rest) => {
                let mut number = context.number_of(&first.evaluate(context)?)?;
                for (operator, expression) in rest {
                    let other = context.number_of(&expression.evaluate(context)?)?;
                    number = match operator {
                        Arithmetic::Add => number + other,
                        Arithmetic::Subtract => number - other,
                        Arithmetic::Multiply => number * other,
                        Arithmetic::Divide => number / other,
                        Arithmetic::Remainder => number % other,
                    };
                }
                Outcome::Number(number)
            }
            Self::Negate(expression) => {
                Outcome::Number(-context.number_of(&expression.evaluate(context)?)?)
            }
            Self::Union(list) => {
                let mut items = Vec::new();
                for expression in list {
                    if let Outcome::Nodes(more) = expression.evaluate(context)? {
                        context.spend(more.len())?;
                        items.extend(more);
                    }
                }
                Outcome::Nodes(ordered(items))
            }
            Self::Literal(text) => Outcome::Text(Cow::Owned(text.to_string())),
            Self::Number(number) => Outcome::Number(*number),
            Self::Call(function, arguments) => function.call(arguments, context)?,
            Self::Path { absolute, steps } => {
                let from = if *absolute {
                    Item::Node(document_of(&context.item).node())
                } else {
                    context.item
                };
                Outcome::Nodes(walk(vec![from], steps, context)?)
            }
            Self::Filtered {
                from,
                predicates,
                steps,
            } => {
                let outcome = from.evaluate(context)?;
                // Predicates and steps mean nothing on what are no nodes.
                let Outcome::Nodes(mut items) = outcome else {
                    return Some(Outcome::Nodes(Vec::new()));
                };
                for predicate in predicates {
                    items = filter(items, predicate, context)?;
                }
                Outcome::Nodes(walk(items, steps, context)?)
            }
        })
    }
}

fn document_of<'d>(item: &Item<'d>) -> &'d Document {
    match item {
        Item::Node(node) => node.document(),
        Item::Attribute(attribute, _) => attribute.element().node().document(),
    }
}

/// In document order, each node once.
fn ordered(mut items: Vec<Item<'_>>) -> Vec<Item<'_>> {
    let is_ordered = items
        .windows(2)
        .all(|pair| matches!(pair, [one, two] if one.order() < two.order()));
    if !is_ordered {
        items.sort_by_key(Item::order);
        items.dedup_by_key(|item| item.order());
    }
    items
}

fn walk<'d>(
    from: Vec<Item<'d>>,
    steps: &[Step],
    context: &Context<'d, '_>,
) -> Option<Vec<Item<'d>>> {
    let mut current = from;
    for step in steps {
        let mut next = Vec::new();
        for item in &current {
            let mut found = step.axis.items(item, &step.test, context)?;
            for predicate in &step.predicates {
                found = filter(found, predicate, context)?;
            }
            next.extend(found);
        }
        current = ordered(next);
    }
    Some(current)
}

/// Keeps the items for which the predicate holds; a number is a position.
fn filter<'d>(
    items: Vec<Item<'d>>,
    predicate: &Expression,
    context: &Context<'d, '_>,
) -> Option<Vec<Item<'d>>> {
    let size = items.len();
    let mut kept = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let inner = Context {
            item,
            position: index + 1,
            size,
            budget: context.budget,
        };
        let holds = match predicate.evaluate(&inner)? {
            Outcome::Number(number) => number == inner.position as f64,
            outcome => outcome.boolean(),
        };
        if holds {
            kept.push(item);
        }
    }
    Some(kept)
}

impl Axis {
    /// What lies on the axis and passes the test, nearest first.
    fn items<'d>(
        self,
        from: &Item<'d>,
        test: &Test,
        context: &Context<'d, '_>,
    ) -> Option<Vec<Item<'d>>> {
        let mut items = Vec::new();
        let mut visit = |node: Node<'d>| -> Option<()> {
            context.spend(1)?;
            if test.passes_node(node) {
                items.push(Item::Node(node));
            }
            Some(())
        };
        let node = match from {
            Item::Node(node) => *node,
            Item::Attribute(attribute, _) => {
                let element = attribute.element().node();
                match self {
                    Self::Itself | Self::DescendantOrSelf | Self::AncestorOrSelf
                        if matches!(test, Test::AnyNode) =>
                    {
                        let mut list = vec![*from];
                        if self == Self::AncestorOrSelf {
                            list.extend(Self::AncestorOrSelf.items(
                                &Item::Node(element),
                                test,
                                context,
                            )?);
                        }
                        return Some(list);
                    }
                    Self::Parent => {
                        visit(element)?;
                        return Some(items);
                    }
                    Self::Ancestor | Self::AncestorOrSelf => {
                        return Self::AncestorOrSelf.items(&Item::Node(element), test, context);
                    }
                    Self::Following => {
                        element.descendants().try_for_each(&mut visit)?;
                        following(element, &mut visit)?;
                        return Some(items);
                    }
                    Self::Preceding => {
                        return Self::Preceding.items(&Item::Node(element), test, context);
                    }
                    _ => return Some(items),
                }
            }
        };
        match self {
            Self::Itself => visit(node)?,
            Self::Child => node.children().try_for_each(visit)?,
            Self::Descendant => node.descendants().try_for_each(visit)?,
            Self::DescendantOrSelf => std::iter::once(node)
                .chain(node.descendants())
                .try_for_each(visit)?,
            Self::Parent => node.parent().into_iter().try_for_each(visit)?,
            Self::Ancestor => {
                std::iter::successors(node.parent(), |node| node.parent()).try_for_each(visit)?
            }
            Self::AncestorOrSelf => {
                std::iter::successors(Some(node), |node| node.parent()).try_for_each(visit)?
            }
            Self::FollowingSibling => {
                std::iter::successors(node.next(), |node| node.next()).try_for_each(visit)?
            }
            Self::PrecedingSibling => {
                std::iter::successors(node.previous(), |node| node.previous())
                    .try_for_each(visit)?
            }
            Self::Following => following(node, &mut visit)?,
            Self::Preceding => {
                let document = node.document();
                // Everything before it that does not hold it.
                for index in (1..node.index()).rev() {
                    if let Some(before) = document
                        .at(index)
                        .filter(|before| before.end() <= node.index())
                    {
                        visit(before)?;
                    } else {
                        context.spend(1)?;
                    }
                }
            }
            Self::Attribute => {
                let attributes = node
                    .element()
                    .into_iter()
                    .flat_map(|element| element.attributes());
                for (number, attribute) in attributes.enumerate() {
                    context.spend(1)?;
                    if !attribute.is_namespace() && test.passes_attribute(attribute.full_name()) {
                        items.push(Item::Attribute(attribute, number as u32));
                    }
                }
            }
        }
        debug_assert!(
            items.len() < 2 || self.is_reverse() == (items[0].order() > items[1].order())
        );
        Some(items)
    }
}

fn following<'d>(node: Node<'d>, visit: &mut impl FnMut(Node<'d>) -> Option<()>) -> Option<()> {
    let document = node.document();
    (node.end()..document.len() as u32)
        .filter_map(|index| document.at(index))
        .try_for_each(visit)
}

impl Test {
    fn passes_node(&self, node: Node<'_>) -> bool {
        match (self, node.kind()) {
            (Self::AnyNode, _)
            | (Self::AnyName, Kind::Element(_))
            | (Self::Text, Kind::Text(_))
            | (Self::Comment, Kind::Comment(_)) => true,
            (Self::AnyIn(_) | Self::Name { .. }, Kind::Element(name)) => self.passes_name(name),
            (Self::Instruction(wanted), Kind::Instruction { target, .. }) => {
                wanted.as_deref().is_none_or(|wanted| wanted == target)
            }
            _ => false,
        }
    }

    fn passes_attribute(&self, name: &Name) -> bool {
        match self {
            Self::AnyNode | Self::AnyName => true,
            Self::AnyIn(_) | Self::Name { .. } => self.passes_name(name),
            _ => false,
        }
    }

    fn passes_name(&self, name: &Name) -> bool {
        match self {
            Self::AnyIn(namespace) => name.namespace.as_ref() == Some(namespace),
            Self::Name { namespace, local } => *namespace == name.namespace && *local == name.local,
            _ => false,
        }
    }
}

/// XPath 1.0, 3.4: a set of nodes compares by any of its members.
fn compare<'d>(
    comparison: Comparison,
    left: &Outcome<'d>,
    right: &Outcome<'d>,
    context: &Context<'d, '_>,
) -> Option<bool> {
    match (left, right) {
        (Outcome::Nodes(_), Outcome::Boolean(_)) | (Outcome::Boolean(_), Outcome::Nodes(_)) => {
            compare_values(
                comparison,
                &Outcome::Boolean(left.boolean()),
                &Outcome::Boolean(right.boolean()),
                context,
            )
        }
        (Outcome::Nodes(lefts), Outcome::Nodes(rights)) => {
            let texts = |items: &[Item<'d>]| {
                items
                    .iter()
                    .map(|item| context.text(item).map(Outcome::Text))
                    .collect::<Option<Vec<_>>>()
            };
            let (lefts, rights) = (texts(lefts)?, texts(rights)?);
            for left in &lefts {
                for right in &rights {
                    if compare_values(comparison, left, right, context)? {
                        return Some(true);
                    }
                }
            }
            Some(false)
        }
        (Outcome::Nodes(items), other) => {
            for item in items {
                if compare_values(
                    comparison,
                    &Outcome::Text(context.text(item)?),
                    other,
                    context,
                )? {
                    return Some(true);
                }
            }
            Some(false)
        }
        (other, Outcome::Nodes(items)) => {
            for item in items {
                if compare_values(
                    comparison,
                    other,
                    &Outcome::Text(context.text(item)?),
                    context,
                )? {
                    return Some(true);
                }
            }
            Some(false)
        }
        _ => compare_values(comparison, left, right, context),
    }
}

fn compare_values<'d>(
    comparison: Comparison,
    left: &Outcome<'d>,
    right: &Outcome<'d>,
    context: &Context<'d, '_>,
) -> Option<bool> {
    let length = |outcome: &Outcome<'_>| match outcome {
        Outcome::Text(text) => text.len(),
        _ => 0,
    };
    context.spend(1 + length(left).min(length(right)) / BYTES_PER_STEP)?;
    let equal = || match (left, right) {
        (Outcome::Boolean(_), _) | (_, Outcome::Boolean(_)) => left.boolean() == right.boolean(),
        (Outcome::Number(_), _) | (_, Outcome::Number(_)) => left.number() == right.number(),
        (Outcome::Text(left), Outcome::Text(right)) => left == right,
        _ => false,
    };
    Some(match comparison {
        Comparison::Equal => equal(),
        // NaN differs from everything, itself included, so this is no more than the opposite.
        Comparison::NotEqual => !equal(),
        Comparison::Less => left.number() < right.number(),
        Comparison::LessOrEqual => left.number() <= right.number(),
        Comparison::Greater => left.number() > right.number(),
        Comparison::GreaterOrEqual => left.number() >= right.number(),
    })
}
