//! Form bodies carry only texts: this turns them into what the schema asks for.

use serde_json::{Map, Number, Value};

use super::{Field, Kind, Record};

impl Record {
    /// Gives the values of a form body their types, in place, as the schema says.
    ///
    /// Texts become numbers and booleans where the schema wants those, single values become one-element lists, the
    /// empty text becomes null. What does not fit stays, for `validate` to refuse.
    pub fn coerce(&self, given: &mut Map<String, Value>) {
        for (name, value) in given.iter_mut() {
            if let Some(field) = self.field(name) {
                field.coerce(value);
            } else if let Some(alias) = self.aliases.iter().find(|alias| alias.name == name)
                && let Some(field) = self.field_at(alias.path)
            {
                field.coerce(value);
            } else if value.as_str() == Some("") {
                *value = Value::Null;
            }
        }
    }
}

impl Field {
    /// Gives one value its type, in place.
    pub fn coerce(&self, value: &mut Value) {
        if value.as_str() == Some("")
            && !(matches!(self.kind, Kind::String) && self.len_min == Some(0))
        {
            *value = Value::Null;
            return;
        }
        match &self.kind {
            Kind::Integer | Kind::Number => {
                if let Some(number) = value.as_str().and_then(parse_number) {
                    *value = Value::Number(number);
                }
            }
            Kind::Boolean => match value.as_str() {
                Some("true") => *value = Value::Bool(true),
                Some("false") => *value = Value::Bool(false),
                _ => {}
            },
            Kind::String => {
                // A text field that looks like a number in JSON stays refused; forms have no numbers to begin with.
            }
            Kind::Array(element) | Kind::Set(element) => {
                if let Value::String(text) = value
                    && self.comma_separated
                {
                    *value = text
                        .split(',')
                        .map(|part| Value::from(part.trim()))
                        .collect();
                } else if !value.is_array() && !value.is_null() {
                    *value = Value::Array(vec![value.take()]);
                }
                if let Value::Array(list) = value {
                    if self.comma_separated {
                        split_elements(list);
                    }
                    for item in list.iter_mut() {
                        element.coerce(item);
                    }
                    // `paths[]=` is how a form says "no paths".
                    list.retain(|item| !item.is_null());
                }
            }
            Kind::Map { values, .. } => {
                if let Value::Object(map) = value {
                    for inner in map.values_mut() {
                        values.coerce(inner);
                    }
                }
            }
            Kind::Record(record) => {
                if let Value::Object(map) = value {
                    record.coerce(map);
                }
            }
            Kind::Foreign(_) | Kind::Abstract | Kind::Any => {}
        }
    }
}

fn split_elements(list: &mut Vec<Value>) {
    if !list
        .iter()
        .any(|item| item.as_str().is_some_and(|text| text.contains(',')))
    {
        return;
    }
    *list = std::mem::take(list)
        .into_iter()
        .flat_map(|item| match item {
            Value::String(text) => text
                .split(',')
                .map(|part| Value::from(part.trim()))
                .collect::<Vec<_>>(),
            other => vec![other],
        })
        .collect();
}

fn parse_number(text: &str) -> Option<Number> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Number::from(whole));
    }
    // `f64` also reads "inf" and "nan", which JSON cannot hold.
    text.parse::<f64>().ok().and_then(Number::from_f64)
}
