//! The builder methods of [`Field`]: each adds one rule or annotation and returns the field.

use std::borrow::Cow;

use serde_json::Value;

use super::{Field, Kind, Pattern, Rule};

impl Field {
    /// A field of a kind without any rule.
    pub fn of(kind: Kind) -> Self {
        Self {
            name: Cow::Borrowed(""),
            kind,
            description: String::new(),
            required: false,
            default: None,
            unique: false,
            auto: false,
            immutable: false,
            referenceable: false,
            encrypted: false,
            uuid: false,
            timestamp: false,
            is_regex: false,
            comma_separated: false,
            eq: None,
            ne: None,
            one_of: Vec::new(),
            not_one_of: Vec::new(),
            between: None,
            greater_than: None,
            len_eq: None,
            len_min: None,
            len_max: None,
            starts_with: None,
            pattern: None,
            contains: None,
            exclusive_subsets: Vec::new(),
            validators: Vec::new(),
        }
    }

    /// Gives the field its name.
    pub fn named(mut self, name: &'static str) -> Self {
        // Raw identifiers (`r#type`) come from the declaration macro.
        self.name = Cow::Borrowed(name.strip_prefix("r#").unwrap_or(name));
        self
    }

    /// Says what the field means.
    pub fn described(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Joins the lines of a doc comment into the description.
    pub fn documented(mut self, lines: &[&str]) -> Self {
        let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        self.description = lines.join(" ").trim().to_owned();
        self
    }

    /// Refuses null and absence.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets the value used when none is given.
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// No two rows may hold the same value.
    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// Filled in by the gateway when absent.
    pub fn auto(mut self) -> Self {
        self.auto = true;
        self
    }

    /// May not change once written.
    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// Accepts a `{vault://…}` reference instead of a value.
    pub fn referenceable(mut self) -> Self {
        self.referenceable = true;
        self
    }

    /// Marks a secret.
    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// Demands UUID form.
    pub fn uuid_form(mut self) -> Self {
        self.uuid = true;
        self
    }

    /// Demands that the text compiles as a regular expression.
    pub fn regex(mut self) -> Self {
        self.is_regex = true;
        self
    }

    /// Splits texts of form bodies on commas.
    pub fn comma_separated(mut self) -> Self {
        self.comma_separated = true;
        self
    }

    /// The value must equal this; null allows only null.
    pub fn eq(mut self, value: impl Into<Value>) -> Self {
        self.eq = Some(value.into());
        self
    }

    /// The value must differ from this.
    pub fn ne(mut self, value: impl Into<Value>) -> Self {
        self.ne = Some(value.into());
        self
    }

    /// Allows these values only.
    pub fn one_of<V: Into<Value> + Clone>(mut self, values: &[V]) -> Self {
        self.one_of = values.iter().cloned().map(Into::into).collect();
        self
    }

    /// Refuses these values.
    pub fn not_one_of<V: Into<Value> + Clone>(mut self, values: &[V]) -> Self {
        self.not_one_of = values.iter().cloned().map(Into::into).collect();
        self
    }

    /// Inclusive bounds of a number.
    pub fn between(mut self, low: impl Into<f64>, high: impl Into<f64>) -> Self {
        self.between = Some((low.into(), high.into()));
        self
    }

    /// Exclusive lower bound of a number.
    pub fn greater_than(mut self, bound: impl Into<f64>) -> Self {
        self.greater_than = Some(bound.into());
        self
    }

    /// Exact length of text or list.
    pub fn len_eq(mut self, length: usize) -> Self {
        self.len_eq = Some(length);
        self
    }

    /// Least length of text or list.
    pub fn len_min(mut self, length: usize) -> Self {
        self.len_min = Some(length);
        self
    }

    /// Greatest length of text or list.
    pub fn len_max(mut self, length: usize) -> Self {
        self.len_max = Some(length);
        self
    }

    /// Prefix that text must have.
    pub fn starts_with(mut self, prefix: &'static str) -> Self {
        self.starts_with = Some(prefix);
        self
    }

    /// Form that text must have; `text` is what readers see, `accepts` decides.
    pub fn matching(mut self, text: &'static str, accepts: fn(&str) -> bool) -> Self {
        self.pattern = Some(Pattern { text, accepts });
        self
    }

    /// Value that a list must contain.
    pub fn contains(mut self, value: impl Into<Value>) -> Self {
        self.contains = Some(value.into());
        self
    }

    /// All values of the list must come from one of these groups.
    pub fn exclusive_subsets(mut self, groups: &[&[&'static str]]) -> Self {
        self.exclusive_subsets = groups.iter().map(|group| group.to_vec()).collect();
        self
    }

    /// Adds a further rule, which answers with the message for the client.
    pub fn validated_by(mut self, rule: Rule) -> Self {
        self.validators.push(rule);
        self
    }
}
