//! Typed descriptions of configuration records: what fields exist, what they may hold, what they default to.
//!
//! One description serves everyone: it fills defaults ([`Record::fill`]), refuses what is wrong in the words that
//! clients know ([`Record::validate`]), turns form values into typed ones ([`Record::coerce`]) and documents itself
//! ([`Record::to_json`]). The shape follows Kong's schema language, because its clients read the descriptions.
//!
//! Start at [`Field`] and the constructors in [`kinds`]; [`config_record!`](crate::config_record) declares a typed
//! struct and its description in one go. This module knows no entity, no plugin, no storage.

mod checks;
mod coerce;
mod conceal;
mod describe;
mod errors;
mod fill;
pub mod kinds;
mod macros;
mod rules;
mod validate;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use checks::{
    Check, at_least_one_of, conditional, conditional_at_least_one_of, custom, distinct,
    mutually_exclusive, mutually_required, only_one_of,
};
pub use errors::{ENTITY, FieldErrors, REQUIRED};
pub use kinds::*;
pub use serde_json::json;
pub use validate::is_reference;

/// A record: its fields in the order in which they are shown, and the checks that span several of them.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The fields, in presentation order.
    pub fields: Vec<Field>,
    /// Checks over several fields; they run after the fields themselves, and only when the fields they read are valid.
    pub checks: Vec<Check>,
    /// Former names of fields, still accepted and still shown.
    pub aliases: Vec<Alias>,
}

/// A former, flat name of a field, for example `redis_host` for `redis.host`.
#[derive(Debug, Clone)]
pub struct Alias {
    /// The former name.
    pub name: &'static str,
    /// Where the value lives now, outermost first.
    pub path: &'static [&'static str],
}

/// What a field holds.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Text. Empty text is refused unless `len_min` is zero.
    String,
    /// A whole number; `1.0` counts as one.
    Integer,
    /// Any finite number.
    Number,
    /// True or false.
    Boolean,
    /// A list that keeps order and duplicates.
    Array(Box<Field>),
    /// A list without duplicates.
    Set(Box<Field>),
    /// A mapping with free keys.
    Map {
        /// What keys must look like.
        keys: Box<Field>,
        /// What values must look like.
        values: Box<Field>,
    },
    /// A nested record.
    Record(Arc<Record>),
    /// A link to a row of the named table, written `{"id": "…"}`.
    Foreign(&'static str),
    /// A record whose description depends on another field (a plugin's `config`); checked by its owner.
    Abstract,
    /// Anything; used by the conditions of checks.
    Any,
}

/// One field: its name, what it holds and the rules on its value. Elements of lists are fields without a name.
#[derive(Debug, Clone)]
pub struct Field {
    /// The name; empty for elements of lists and values of maps.
    pub name: Cow<'static, str>,
    /// What it holds.
    pub kind: Kind,
    /// What it means, for the manual and the schema endpoints.
    pub description: String,
    /// Whether null and absence are refused (after the default was filled in).
    pub required: bool,
    /// The value when none is given.
    pub default: Option<Value>,
    /// No two rows may hold the same value.
    pub unique: bool,
    /// Filled in by the gateway when absent (ids, time stamps, generated keys).
    pub auto: bool,
    /// May not change once written.
    pub immutable: bool,
    /// May hold a `{vault://…}` reference instead of a value.
    pub referenceable: bool,
    /// A secret: masked in logs and shown as a fingerprint in plans.
    pub encrypted: bool,
    /// Text in UUID form.
    pub uuid: bool,
    /// Seconds since 1970.
    pub timestamp: bool,
    /// Text that must compile as a regular expression.
    pub is_regex: bool,
    /// In form bodies a text is split on commas (a comma is never legal in the values).
    pub comma_separated: bool,
    /// The value must equal this.
    pub eq: Option<Value>,
    /// The value must differ from this.
    pub ne: Option<Value>,
    /// The only values allowed; empty for no restriction.
    pub one_of: Vec<Value>,
    /// Values refused.
    pub not_one_of: Vec<Value>,
    /// Inclusive bounds of a number.
    pub between: Option<(f64, f64)>,
    /// Exclusive lower bound of a number.
    pub greater_than: Option<f64>,
    /// Exact length of text (bytes) or of a list.
    pub len_eq: Option<usize>,
    /// Least length of text (bytes) or of a list.
    pub len_min: Option<usize>,
    /// Greatest length of text (bytes) or of a list.
    pub len_max: Option<usize>,
    /// Prefix that text must have.
    pub starts_with: Option<&'static str>,
    /// Form that text must have.
    pub pattern: Option<Pattern>,
    /// Value that a list must contain.
    pub contains: Option<Value>,
    /// All values must come from exactly one of these groups.
    pub exclusive_subsets: Vec<Vec<&'static str>>,
    /// Further rules, in order.
    pub validators: Vec<Rule>,
}

/// A rule on a value that is not null; it answers with the message for the client.
pub type Rule = fn(&Value) -> Result<(), String>;

/// The form of a text: as shown to readers, and as a predicate.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// The form in regular expression notation, for the schema endpoints.
    pub text: &'static str,
    /// Whether a text has the form.
    pub accepts: fn(&str) -> bool,
}

impl Record {
    /// A record of the given fields.
    pub fn new(fields: Vec<Field>) -> Self {
        Self {
            fields,
            checks: Vec::new(),
            aliases: Vec::new(),
        }
    }

    /// Adds a check over several fields.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Adds a former name: `alias("redis_host", &["redis", "host"])`.
    pub fn alias(mut self, name: &'static str, path: &'static [&'static str]) -> Self {
        self.aliases.push(Alias { name, path });
        self
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Follows a path of nested records to a field.
    pub fn field_at(&self, path: &[&str]) -> Option<&Field> {
        let (first, rest) = path.split_first()?;
        let field = self.field(first)?;
        match (&field.kind, rest.is_empty()) {
            (_, true) => Some(field),
            (Kind::Record(record), false) => record.field_at(rest),
            _ => None,
        }
    }

    /// Writes the former names beside the present ones, as answers show them.
    pub fn show_aliases(&self, record: &mut Map<String, Value>) {
        for alias in &self.aliases {
            let mut value = None;
            for (depth, step) in alias.path.iter().enumerate() {
                value = match depth {
                    0 => record.get(*step),
                    _ => value.and_then(|inner: &Value| inner.get(step)),
                };
            }
            let value = value.cloned().unwrap_or(Value::Null);
            record.insert(alias.name.to_owned(), value);
        }
    }
}
