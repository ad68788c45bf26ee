//! Checks that span several fields of a record.

use serde_json::{Map, Value};

use super::{Field, FieldErrors};

/// A rule over several fields. Names are dotted paths from the record that holds the check.
#[derive(Debug, Clone)]
pub enum Check {
    /// One at least is set.
    AtLeastOneOf(Vec<&'static str>),
    /// Exactly one is set.
    OnlyOneOf(Vec<&'static str>),
    /// At most one is set.
    MutuallyExclusive(Vec<&'static str>),
    /// All or none are set.
    MutuallyRequired(Vec<&'static str>),
    /// Those that are set differ from each other.
    Distinct(Vec<&'static str>),
    /// When one field has a value of some form, another must have a value of some form.
    Conditional {
        /// The field that decides.
        if_field: &'static str,
        /// Its form.
        if_match: Box<Field>,
        /// The field that is checked.
        then_field: &'static str,
        /// The form it must have.
        then_match: Box<Field>,
        /// The message for the whole record, when the usual one says too little.
        then_error: Option<&'static str>,
    },
    /// When one field has a value of some form, one of several fields must be set.
    ConditionalAtLeastOneOf {
        /// The field that decides.
        if_field: &'static str,
        /// Its form.
        if_match: Box<Field>,
        /// The fields of which one must be set.
        then_at_least_one_of: Vec<&'static str>,
        /// The message, when the usual one says too little; `%s` stands for the field list.
        then_error: Option<&'static str>,
    },
    /// A rule in code.
    Custom {
        /// The fields that it reads; it runs only when they are valid.
        fields: Vec<&'static str>,
        /// The rule.
        rule: fn(&Map<String, Value>) -> Result<(), FieldErrors>,
    },
}

/// One of the fields at least is set.
pub fn at_least_one_of(fields: &[&'static str]) -> Check {
    Check::AtLeastOneOf(fields.to_vec())
}

/// Exactly one of the fields is set.
pub fn only_one_of(fields: &[&'static str]) -> Check {
    Check::OnlyOneOf(fields.to_vec())
}

/// At most one of the fields is set.
pub fn mutually_exclusive(fields: &[&'static str]) -> Check {
    Check::MutuallyExclusive(fields.to_vec())
}

/// All or none of the fields are set.
pub fn mutually_required(fields: &[&'static str]) -> Check {
    Check::MutuallyRequired(fields.to_vec())
}

/// The fields that are set differ from each other.
pub fn distinct(fields: &[&'static str]) -> Check {
    Check::Distinct(fields.to_vec())
}

/// When `if_field` matches, `then_field` must match: `conditional("limit_by", any().eq("header"), "header_name", any().required())`.
pub fn conditional(
    if_field: &'static str,
    if_match: Field,
    then_field: &'static str,
    then_match: Field,
) -> Check {
    Check::Conditional {
        if_field,
        if_match: Box::new(if_match),
        then_field,
        then_match: Box::new(then_match),
        then_error: None,
    }
}

/// When `if_field` matches, one of the fields must be set.
pub fn conditional_at_least_one_of(
    if_field: &'static str,
    if_match: Field,
    fields: &[&'static str],
    then_error: Option<&'static str>,
) -> Check {
    Check::ConditionalAtLeastOneOf {
        if_field,
        if_match: Box::new(if_match),
        then_at_least_one_of: fields.to_vec(),
        then_error,
    }
}

/// A rule in code over the named fields.
pub fn custom(
    fields: &[&'static str],
    rule: fn(&Map<String, Value>) -> Result<(), FieldErrors>,
) -> Check {
    Check::Custom {
        fields: fields.to_vec(),
        rule,
    }
}

impl Check {
    /// Runs the check on a filled record and adds what is wrong to `errors`.
    ///
    /// A rule in code is skipped when its fields already have complaints, since it relies on their form.
    pub fn run(&self, record: &Map<String, Value>, errors: &mut FieldErrors) {
        if let Self::Custom { fields, .. } = self
            && fields.iter().any(|path| errors.covers(path))
        {
            return;
        }
        match self {
            Self::AtLeastOneOf(fields) => {
                if !fields.iter().any(|path| is_set(record, path)) {
                    errors.add_whole(format!(
                        "at least one of these fields must be non-empty: {}",
                        quoted(fields)
                    ));
                }
            }
            Self::OnlyOneOf(fields) => {
                if count_set(record, fields) != 1 {
                    errors.add_whole(format!(
                        "exactly one of these fields must be non-empty: {}",
                        quoted(fields)
                    ));
                }
            }
            Self::MutuallyExclusive(fields) => {
                if count_set(record, fields) > 1 {
                    errors.add_whole(format!(
                        "only one or none of these fields must be set: {}",
                        quoted(fields)
                    ));
                }
            }
            Self::MutuallyRequired(fields) => {
                let set = count_set(record, fields);
                if set != 0 && set != fields.len() {
                    errors.add_whole(format!(
                        "all or none of these fields must be set: {}",
                        quoted(fields)
                    ));
                }
            }
            Self::Distinct(fields) => {
                let mut seen: Vec<&Value> = Vec::new();
                for value in fields.iter().map(|path| value_at(record, path)) {
                    if value.is_null() {
                        continue;
                    }
                    if seen.contains(&value) {
                        errors.add_whole(format!(
                            "values of these fields must be distinct: {}",
                            quoted(fields)
                        ));
                        return;
                    }
                    seen.push(value);
                }
            }
            Self::Conditional {
                if_field,
                if_match,
                then_field,
                then_match,
                then_error,
            } => {
                if if_match.validate(value_at(record, if_field)).is_err() {
                    return;
                }
                if let Err(error) = then_match.validate(value_at(record, then_field)) {
                    if let Value::String(text) = error {
                        errors.add(then_field, text);
                    }
                    match then_error {
                        Some(text) => errors.add_whole(*text),
                        None => errors.add_whole(format!(
                            "failed conditional validation given value of field '{if_field}'"
                        )),
                    }
                }
            }
            Self::ConditionalAtLeastOneOf {
                if_field,
                if_match,
                then_at_least_one_of,
                then_error,
            } => {
                if if_match.validate(value_at(record, if_field)).is_err()
                    || then_at_least_one_of.iter().any(|path| is_set(record, path))
                {
                    return;
                }
                let list = quoted(then_at_least_one_of);
                match then_error {
                    Some(text) => errors.add_whole(text.replace("%s", &list)),
                    None => errors.add_whole(format!(
                        "at least one of these fields must be non-empty: {list}"
                    )),
                }
            }
            Self::Custom { rule, .. } => {
                if let Err(found) = rule(record) {
                    errors.merge(found);
                }
            }
        }
    }

    /// The fields that the check reads, as dotted paths.
    pub fn reads(&self) -> Vec<&'static str> {
        match self {
            Self::AtLeastOneOf(fields)
            | Self::OnlyOneOf(fields)
            | Self::MutuallyExclusive(fields)
            | Self::MutuallyRequired(fields)
            | Self::Distinct(fields)
            | Self::Custom { fields, .. } => fields.clone(),
            Self::Conditional {
                if_field,
                then_field,
                ..
            } => vec![if_field, then_field],
            Self::ConditionalAtLeastOneOf {
                if_field,
                then_at_least_one_of,
                ..
            } => {
                let mut fields = then_at_least_one_of.clone();
                fields.push(if_field);
                fields
            }
        }
    }
}

/// The value at a dotted path; null when there is none.
pub(super) fn value_at<'a>(record: &'a Map<String, Value>, path: &str) -> &'a Value {
    const NULL: &Value = &Value::Null;
    let mut steps = path.split('.');
    let Some(mut value) = steps.next().and_then(|first| record.get(first)) else {
        return NULL;
    };
    for step in steps {
        match value.get(step) {
            Some(inner) => value = inner,
            None => return NULL,
        }
    }
    value
}

fn is_set(record: &Map<String, Value>, path: &str) -> bool {
    match value_at(record, path) {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn count_set(record: &Map<String, Value>, fields: &[&str]) -> usize {
    fields.iter().filter(|path| is_set(record, path)).count()
}

fn quoted(fields: &[&str]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!("'{field}'")).collect();
    fields.join(", ")
}
