//! Completing a record: defaults, nulls for what is absent, sets without duplicates, fields in schema order.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Field, Kind, Record};

impl Record {
    /// Completes a record as written by a client.
    ///
    /// Every field of the schema is present afterwards, in schema order: absent ones with their default or null, null
    /// ones with their default if they are required. Unknown fields stay at the end, for `validate` to refuse.
    /// Values of the wrong type are left as they are.
    pub fn fill(&self, mut given: Map<String, Value>) -> Map<String, Value> {
        self.move_aliases(&mut given);
        let mut filled = Map::with_capacity(self.fields.len());
        for field in &self.fields {
            let value = given.remove(field.name.as_ref());
            filled.insert(field.name.to_string(), field.fill(value));
        }
        filled.extend(given);
        filled
    }

    /// Moves values given under former names to where they belong; the present name wins when both are given.
    pub fn move_aliases(&self, given: &mut Map<String, Value>) {
        for alias in &self.aliases {
            let Some(value) = given.shift_remove(alias.name) else {
                continue;
            };
            if value.is_null() {
                continue;
            }
            place(given, alias.path, value);
        }
    }
}

/// Puts a value at a path of nested records, unless something else is there.
fn place(map: &mut Map<String, Value>, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let slot = map.entry(*first).or_insert(Value::Null);
    if rest.is_empty() {
        if slot.is_null() {
            *slot = value;
        }
        return;
    }
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    if let Value::Object(inner) = slot {
        place(inner, rest, value);
    }
}

impl Field {
    /// Completes one value; `None` when the client gave none.
    pub fn fill(&self, given: Option<Value>) -> Value {
        let value = match given {
            None | Some(Value::Null) if self.default.is_some() && self.takes_default(&given) => {
                self.default.clone().unwrap_or(Value::Null)
            }
            None | Some(Value::Null) => match &self.kind {
                Kind::Record(_) if self.required => Value::Object(Map::new()),
                _ => return Value::Null,
            },
            Some(value) => value,
        };
        match (&self.kind, value) {
            (Kind::Record(record), Value::Object(map)) => Value::Object(record.fill(map)),
            (Kind::Array(element), Value::Array(list)) => Value::Array(
                list.into_iter()
                    .map(|item| element.fill(Some(item)))
                    .collect(),
            ),
            (Kind::Set(element), Value::Array(list)) => {
                // Compared as texts: a list from outside may be long, and values have no order.
                let mut seen = HashSet::with_capacity(list.len());
                let items = list.into_iter().map(|item| element.fill(Some(item)));
                Value::Array(items.filter(|item| seen.insert(item.to_string())).collect())
            }
            (Kind::Map { values, .. }, Value::Object(map)) => Value::Object(
                map.into_iter()
                    .map(|(key, value)| (key, values.fill(Some(value))))
                    .collect(),
            ),
            // An empty list and an empty object look alike in form bodies and in Lua clients.
            (Kind::Array(_) | Kind::Set(_), Value::Object(map)) if map.is_empty() => {
                Value::Array(Vec::new())
            }
            (Kind::Record(record), Value::Array(list)) if list.is_empty() => {
                Value::Object(record.fill(Map::new()))
            }
            (Kind::Map { .. } | Kind::Abstract, Value::Array(list)) if list.is_empty() => {
                Value::Object(Map::new())
            }
            (Kind::Integer, Value::Number(number)) => whole(number),
            (_, value) => value,
        }
    }

    fn takes_default(&self, given: &Option<Value>) -> bool {
        given.is_none() || self.required
    }
}

/// Writes `80.0` as `80`; other numbers stay.
fn whole(number: serde_json::Number) -> Value {
    // Beyond 2^53 a double no longer tells whole numbers apart.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() <= EXACT_MAX => {
            Value::from(value as i64)
        }
        _ => Value::Number(number),
    }
}
