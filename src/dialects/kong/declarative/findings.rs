//! What is wrong with a document, in the two shapes that clients read: a tree by place, and a list by entity.

use std::fmt;

use serde_json::{Map, Value, json};

use super::document::SyntaxError;
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::error::ApiError;
use crate::model::schema::{ENTITY, FieldErrors};

/// The answer to an empty document.
const MISSING: &str = "expected a declarative configuration";

/// A refused document.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentError {
    /// There is no document at all, or it is no mapping.
    Missing,
    /// Something in it is wrong.
    Invalid(Box<Findings>),
}

impl DocumentError {
    pub(super) fn unparsed(error: &SyntaxError) -> Self {
        let text = format!("failed parsing declarative configuration: {error}");
        let fields = FieldErrors::one("error", text).0;
        Self::Invalid(Box::new(Findings {
            unmatched: fields.clone(),
            fields,
            ..Findings::default()
        }))
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        400
    }

    /// The body of the answer. Kong: `flatten_errors`.
    pub fn to_json(&self, flatten_errors: bool) -> Value {
        let findings = match self {
            Self::Missing => return json!({ "message": MISSING }),
            Self::Invalid(findings) => findings,
        };
        if !flatten_errors {
            return ApiError::declarative_config(findings.fields.clone()).to_json();
        }
        let mut body = ApiError::declarative_config(findings.unmatched.clone()).to_json();
        if let Value::Object(body) = &mut body {
            body.insert("flattened_errors".into(), findings.flattened.clone().into());
        }
        body
    }

    /// Everything that is wrong, each with its place: `service "users": host: required field missing`.
    pub fn findings(&self) -> Vec<Finding> {
        let findings = match self {
            Self::Missing => {
                return vec![Finding {
                    path: Vec::new(),
                    text: MISSING.to_owned(),
                }];
            }
            Self::Invalid(findings) => findings,
        };
        let mut all = Vec::new();
        let unmatched = Value::Object(findings.unmatched.clone());
        collect(&mut all, &mut Vec::new(), "", &unmatched);
        for (entity, place) in findings.flattened.iter().zip(&findings.places) {
            let word = |key: &str| entity.get(key).and_then(Value::as_str);
            let mut subject = word("entity_type").unwrap_or("entity").to_owned();
            if let Some(name) = word("entity_name").or_else(|| word("entity_id")) {
                subject.push_str(&format!(" \"{name}\""));
            }
            let errors = entity.get("errors").and_then(Value::as_array);
            for error in errors.into_iter().flatten() {
                let message = error.get("message").and_then(Value::as_str);
                let message = message.unwrap_or("not allowed");
                let field = error.get("field").and_then(Value::as_str);
                let steps = place
                    .iter()
                    .flat_map(|(list, index)| [(*list).to_owned(), index.to_string()]);
                let inner = field.into_iter().flat_map(|field| field.split('.'));
                all.push(Finding {
                    path: steps.chain(inner.map(from_zero)).collect(),
                    text: match field {
                        Some(field) => format!("{subject}: {field}: {message}"),
                        None => format!("{subject}: {message}"),
                    },
                });
            }
        }
        all
    }
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Keys and positions (from 0) that lead to it from the root, as far as they exist.
    pub path: Vec<String>,
    /// What is wrong, with whom.
    pub text: String,
}

/// Positions are counted from 1 in what Kong's clients read.
fn from_zero(step: &str) -> String {
    match step.parse::<usize>() {
        Ok(position) => position.saturating_sub(1).to_string(),
        Err(_) => step.to_owned(),
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(MISSING),
            Self::Invalid(findings) => {
                f.write_str(&ApiError::declarative_config(findings.fields.clone()).message)
            }
        }
    }
}

impl std::error::Error for DocumentError {}

fn collect(all: &mut Vec<Finding>, path: &mut Vec<String>, place: &str, tree: &Value) {
    let below = |step: &str| match place {
        "" => step.to_owned(),
        place => format!("{place}.{step}"),
    };
    let mut enter = |step: String, shown: &str, tree: &Value| {
        path.push(step);
        collect(all, path, &below(shown), tree);
        path.pop();
    };
    match tree {
        Value::Object(map) => {
            for (key, tree) in map {
                enter(key.clone(), key, tree);
            }
        }
        Value::Array(list) => {
            for (index, tree) in list.iter().enumerate().filter(|(_, tree)| !tree.is_null()) {
                enter(index.to_string(), &(index + 1).to_string(), tree);
            }
        }
        Value::String(message) => all.push(Finding {
            path: path.clone(),
            text: format!("{place}: {message}"),
        }),
        other => all.push(Finding {
            path: path.clone(),
            text: format!("{place}: {other}"),
        }),
    }
}

/// Where an entity stands: lists and positions (from 0), outermost first.
pub(super) type Place = Vec<(&'static str, usize)>;

/// Everything that is wrong with a document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// By place: root key, 1-based position in lists (as arrays with null for what is sound), field.
    fields: Map<String, Value>,
    /// Those of `fields` that belong to no entity.
    unmatched: Map<String, Value>,
    /// Those that belong to one, by entity.
    flattened: Vec<Value>,
    /// Where the entities of `flattened` stand.
    places: Vec<Place>,
}

/// Whom a finding is about.
pub(super) struct Subject<'a> {
    pub(super) kind: EntityKind,
    pub(super) place: Place,
    /// The entity as written, without the entities inside it, with the link to the one around it.
    pub(super) sent: &'a Map<String, Value>,
}

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub(super) fn into_error(self) -> DocumentError {
        DocumentError::Invalid(Box::new(self))
    }

    /// Something about the root, or about a list as a whole.
    pub(super) fn add_at(&mut self, place: &Place, field: &str, message: &str) {
        for tree in [&mut self.fields, &mut self.unmatched] {
            let at = match place.is_empty() {
                true => Some(&mut *tree),
                false => descend(tree, place),
            };
            if let Some(at) = at {
                at.entry(field.to_owned())
                    .or_insert_with(|| Value::from(message));
            }
        }
    }

    /// An element of a list that is no entity at all.
    pub(super) fn add_element(&mut self, place: &Place, message: &str) {
        for tree in [&mut self.fields, &mut self.unmatched] {
            if let Some(at) = slot(tree, place) {
                *at = Value::from(message);
            }
        }
    }

    /// What is wrong with the fields of an entity.
    pub(super) fn add_fields(&mut self, subject: &Subject<'_>, errors: FieldErrors) {
        let mut list = Vec::new();
        categorize(&mut list, "", &errors.0);
        self.flatten(subject, list);
        if let Some(at) = descend(&mut self.fields, &subject.place) {
            let mut all = FieldErrors(std::mem::take(at));
            all.merge(errors);
            *at = all.0;
        }
    }

    /// That an entity as a whole clashes with another one.
    pub(super) fn add_clash(&mut self, subject: &Subject<'_>, message: String) {
        self.flatten(
            subject,
            vec![json!({ "type": "entity", "message": message })],
        );
        match slot(&mut self.fields, &subject.place) {
            Some(at @ Value::Null) => *at = Value::String(message),
            Some(Value::Object(map)) => {
                let mut all = FieldErrors(std::mem::take(map));
                all.add_whole(message);
                *map = all.0;
            }
            _ => {}
        }
    }

    /// That a link leads nowhere; it stands under the name of the entity, not under its place.
    pub(super) fn add_reference(
        &mut self,
        subject: &Subject<'_>,
        at: &str,
        field: &str,
        message: String,
    ) {
        self.flatten(
            subject,
            vec![json!({ "type": "field", "field": field, "message": message })],
        );
        let section = self
            .fields
            .entry(subject.kind.table())
            .or_insert_with(|| Value::Object(Map::new()));
        // Beside findings by position, a name becomes one more key.
        if let Value::Array(list) = section {
            let by_position = list.drain(..).zip(1..);
            *section = by_position
                .filter(|(tree, _)| !tree.is_null())
                .map(|(tree, index): (Value, i32)| (index.to_string(), tree))
                .collect::<Map<String, Value>>()
                .into();
        }
        if let Value::Object(section) = section {
            let list = section
                .entry(at)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(Value::String(message));
            }
        }
    }

    /// Adds to the entity's entry in the flat list; all its findings stand in one.
    fn flatten(&mut self, subject: &Subject<'_>, errors: Vec<Value>) {
        let entity_type = subject.kind.definition().singular;
        let sent = Value::Object(subject.sent.clone());
        let last = self.flattened.last_mut().and_then(Value::as_object_mut);
        if let Some(last) = last
            && last.get("entity") == Some(&sent)
            && last.get("entity_type").and_then(Value::as_str) == Some(entity_type)
            && let Some(Value::Array(list)) = last.get_mut("errors")
        {
            list.extend(errors);
            return;
        }
        let mut entry = Map::new();
        entry.insert("entity_type".into(), entity_type.into());
        if let Some(id) = sent.get("id").and_then(Value::as_str)
            && uuid::Uuid::try_parse(id).is_ok()
        {
            entry.insert("entity_id".into(), id.into());
        }
        if let Some(name) = sent.get("name").and_then(Value::as_str)
            && !name.is_empty()
        {
            entry.insert("entity_name".into(), name.into());
        }
        if let Some(Value::Array(tags)) = sent.get("tags")
            && tags.iter().all(Value::is_string)
        {
            entry.insert("entity_tags".into(), tags.clone().into());
        }
        entry.insert("entity".into(), sent);
        entry.insert("errors".into(), errors.into());
        self.flattened.push(Value::Object(entry));
        self.places.push(subject.place.clone());
    }
}

/// The tree of one entity's findings as a list.
fn categorize(list: &mut Vec<Value>, prefix: &str, errors: &Map<String, Value>) {
    for (key, error) in errors {
        if key == ENTITY {
            let messages = error.as_array().into_iter().flatten();
            list.extend(messages.map(|text| json!({ "type": "entity", "message": text })));
            continue;
        }
        let field = match prefix {
            "" => key.clone(),
            prefix => format!("{prefix}.{key}"),
        };
        match error {
            Value::Object(inner) => categorize(list, &field, inner),
            Value::Array(elements) => {
                let by_position = elements.iter().zip(1..);
                let inner = by_position
                    .filter(|(tree, _)| !tree.is_null())
                    .map(|(tree, index): (_, i32)| (index.to_string(), tree.clone()))
                    .collect();
                categorize(list, &field, &inner);
            }
            message => list.push(json!({ "type": "field", "field": field, "message": message })),
        }
    }
}

/// The mapping at a place, made on the way; `None` when something else stands there already.
fn descend<'a>(
    tree: &'a mut Map<String, Value>,
    place: &Place,
) -> Option<&'a mut Map<String, Value>> {
    match slot(tree, place)? {
        at @ Value::Null => {
            *at = Value::Object(Map::new());
            at.as_object_mut()
        }
        Value::Object(map) => Some(map),
        // An element refused as a whole gets company.
        at @ Value::String(_) => {
            let whole = at.take();
            *at = json!({ ENTITY: [whole] });
            at.as_object_mut()
        }
        _ => None,
    }
}

/// The list element at a place, made on the way.
fn slot<'a>(tree: &'a mut Map<String, Value>, place: &Place) -> Option<&'a mut Value> {
    let (&(section, index), around) = place.split_last()?;
    let map = match around.is_empty() {
        true => tree,
        false => descend(tree, &around.to_vec())?,
    };
    let list = map
        .entry(section)
        .or_insert_with(|| Value::Array(Vec::new()));
    match list {
        Value::Array(list) => {
            if list.len() <= index {
                list.resize(index + 1, Value::Null);
            }
            list.get_mut(index)
        }
        Value::Object(by_name) => Some(
            by_name
                .entry((index + 1).to_string())
                .or_insert(Value::Null),
        ),
        _ => None,
    }
}
