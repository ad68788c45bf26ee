//! From steps and a document to values.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Filter, JsonPath, Operand, Operator, Step};

impl JsonPath {
    /// The values that the steps lead to. `None` when the budget is spent.
    pub(super) fn select<'v>(
        &self,
        root: &'v Value,
        from: &'v Value,
        budget: &mut usize,
    ) -> Option<Vec<&'v Value>> {
        let mut current = vec![from];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in current {
                step.apply(root, value, &mut next, budget)?;
            }
            current = next;
        }
        Some(current)
    }
}

fn spend(budget: &mut usize) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}

impl Step {
    fn apply<'v>(
        &self,
        root: &'v Value,
        value: &'v Value,
        into: &mut Vec<&'v Value>,
        budget: &mut usize,
    ) -> Option<()> {
        spend(budget)?;
        match self {
            Self::Names(names) => {
                into.extend(names.iter().filter_map(|name| value.get(name.as_ref())))
            }
            Self::Indexes(indexes) => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                into.extend(
                    indexes
                        .iter()
                        .filter_map(|index| list.get(place(*index, list.len())?)),
                );
            }
            Self::Slice(from, to, step) => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let bound = |index: Option<i64>, default: usize| match index {
                    None => default,
                    Some(index) if index < 0 => {
                        list.len().saturating_sub(index.unsigned_abs() as usize)
                    }
                    Some(index) => (index as usize).min(list.len()),
                };
                let part = list
                    .get(bound(*from, 0)..bound(*to, list.len()))
                    .unwrap_or_default();
                into.extend(part.iter().step_by((*step).max(1) as usize));
            }
            Self::Any => {
                for child in children(value) {
                    spend(budget)?;
                    into.push(child);
                }
            }
            Self::Deep => {
                // The parser of documents bounds their depth, a list of what is left needs no stack at all.
                let mut left = vec![value];
                while let Some(next) = left.pop() {
                    spend(budget)?;
                    into.push(next);
                    let below: Vec<_> = children(next).collect();
                    left.extend(below.into_iter().rev());
                }
            }
            Self::Filter(filter) => {
                // A filter on an object asks about the object itself.
                let candidates: Vec<_> = match value {
                    Value::Array(list) => list.iter().collect(),
                    Value::Object(_) => vec![value],
                    _ => Vec::new(),
                };
                for candidate in candidates {
                    if filter.holds(root, candidate, budget)? {
                        into.push(candidate);
                    }
                }
            }
        }
        Some(())
    }
}

fn children(value: &Value) -> impl Iterator<Item = &Value> {
    let (list, members) = match value {
        Value::Array(list) => (Some(list), None),
        Value::Object(members) => (None, Some(members)),
        _ => (None, None),
    };
    list.into_iter()
        .flatten()
        .chain(members.into_iter().flat_map(|members| members.values()))
}

fn place(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        return usize::try_from(index).ok();
    }
    length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
}

impl Filter {
    fn holds(&self, root: &Value, current: &Value, budget: &mut usize) -> Option<bool> {
        spend(budget)?;
        Some(match self {
            Self::All(filters) => {
                for filter in filters {
                    if !filter.holds(root, current, budget)? {
                        return Some(false);
                    }
                }
                true
            }
            Self::Any(filters) => {
                for filter in filters {
                    if filter.holds(root, current, budget)? {
                        return Some(true);
                    }
                }
                false
            }
            Self::Not(filter) => !filter.holds(root, current, budget)?,
            Self::Exists(operand) => operand.value(root, current, budget)?.is_some(),
            Self::Matches(operand, regex) => match operand.value(root, current, budget)? {
                Some(Value::String(text)) => regex.is_match(&text).ok()?,
                Some(Value::Number(number)) => regex.is_match(&number.to_string()).ok()?,
                _ => false,
            },
            Self::Compare(left, operator, right) => {
                let left = left.value(root, current, budget)?;
                let right = right.value(root, current, budget)?;
                operator.holds(left.as_ref(), right.as_ref())
            }
        })
    }
}

impl Operand {
    /// Outer `None`: the budget is spent. Inner `None`: there is nothing.
    fn value(&self, root: &Value, current: &Value, budget: &mut usize) -> Option<Option<Value>> {
        match self {
            Self::Literal(value) => Some(Some(value.clone())),
            Self::List(list) => Some(Some(Value::Array(list.clone()))),
            Self::Path { from_root, path } => {
                let from = if *from_root { root } else { current };
                let found = path.select(root, from, budget)?;
                Some(match path.function {
                    Some(function) => function.apply(&found, path.is_plain()),
                    None if path.is_definite() => found.first().map(|value| (*value).clone()),
                    None if found.is_empty() => None,
                    None => Some(Value::Array(found.into_iter().cloned().collect())),
                })
            }
        }
    }
}

impl Operator {
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            // What is not there differs from everything, and equals null only as `null` is written.
            _ => return self == Self::NotEquals,
        };
        let ordered = |accepted: &[Ordering]| {
            ordering(left, right).is_some_and(|ordering| accepted.contains(&ordering))
        };
        match self {
            Self::Equals => same(left, right),
            Self::NotEquals => !same(left, right),
            Self::Less => ordered(&[Ordering::Less]),
            Self::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
            Self::Greater => ordered(&[Ordering::Greater]),
            Self::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
            Self::In => contains(right, left),
            Self::NotIn => !contains(right, left),
            Self::Contains => contains(left, right),
            Self::Size => size(left).is_some_and(|size| right.as_u64() == Some(size as u64)),
            Self::Empty => size(left).is_some_and(|size| right.as_bool() == Some(size == 0)),
        }
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn ordering(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn contains(container: &Value, member: &Value) -> bool {
    match (container, member) {
        (Value::Array(list), member) => list.iter().any(|element| same(element, member)),
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        _ => false,
    }
}

fn size(value: &Value) -> Option<usize> {
    match value {
        Value::Array(list) => Some(list.len()),
        Value::Object(members) => Some(members.len()),
        Value::String(text) => Some(text.chars().count()),
        _ => None,
    }
}
