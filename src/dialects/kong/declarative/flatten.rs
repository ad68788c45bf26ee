//! From a nested document to a flat list of entities, each with its id and with links by id.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::findings::{Findings, Place, Subject};
use super::ids::derived_id;
use super::load::nowhere;
use super::migrate::migrate_paths;
use crate::dialects::kong::entities::{EntityDefinition, EntityKind, EntityTable};
use crate::dialects::kong::entity_set::{EntitySet, RowKey};

/// One entity of a document.
#[derive(Debug)]
pub(super) struct FlatEntity {
    pub(super) kind: EntityKind,
    pub(super) id: Uuid,
    /// What goes to the entity set: with id, links by id, without comments.
    pub(super) fields: Map<String, Value>,
    /// As written, without the entities inside it.
    sent: Map<String, Value>,
    /// The entity around it.
    parent: Option<usize>,
    section: &'static str,
    index: usize,
    /// Something is wrong with it already: it is checked, but nobody may rely on it.
    pub(super) refused: bool,
}

/// A flattened document.
pub(super) struct Flat {
    /// In the order of the document, parents before what is inside them.
    pub(super) entities: Vec<FlatEntity>,
    pub(super) findings: Findings,
    /// Values are as the gateway stores them. Kong: `_transform: false`.
    pub(super) already_transformed: bool,
}

impl Flat {
    pub(super) fn subject<'a>(&self, entity: &'a FlatEntity) -> Subject<'a> {
        Subject {
            kind: entity.kind,
            place: place_of(&self.entities, entity.parent, entity.section, entity.index),
            sent: &entity.sent,
        }
    }
}

/// Flattens a document. `known` are the entities that an import adds to: what it names by an endpoint key that is known
/// keeps the known id.
pub(super) fn flatten(
    root: Map<String, Value>,
    table: &EntityTable,
    known: &EntitySet,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Flat {
    let mut walk = Walk {
        nesting: nesting(table),
        table,
        known,
        new_id,
        older_format: false,
        entities: Vec::new(),
        findings: Findings::default(),
    };
    let already_transformed = walk.root(root);
    let Walk {
        entities, findings, ..
    } = walk;
    let mut flat = Flat {
        entities,
        findings,
        already_transformed,
    };
    Links::of(&mut flat).resolve(&mut flat, table);
    flat
}

/// What may stand inside each kind: the child's kind and its link to the parent.
fn nesting(table: &EntityTable) -> HashMap<EntityKind, Vec<(EntityKind, &'static str)>> {
    let mut nesting: HashMap<EntityKind, Vec<_>> = HashMap::new();
    for definition in table.iter() {
        for key in &definition.foreign_keys {
            let children = nesting.entry(key.parent).or_default();
            children.push((definition.kind, key.field));
        }
    }
    nesting
}

struct Walk<'a> {
    nesting: HashMap<EntityKind, Vec<(EntityKind, &'static str)>>,
    table: &'a EntityTable,
    known: &'a EntitySet,
    new_id: &'a mut dyn FnMut() -> Uuid,
    /// Format 1.1 or 2.1.
    older_format: bool,
    entities: Vec<FlatEntity>,
    findings: Findings,
}

/// The entity around a list: its position, id, and the link that leads to it.
#[derive(Clone, Copy)]
struct Around {
    position: usize,
    id: Uuid,
    link: &'static str,
}

impl Walk<'_> {
    fn root(&mut self, mut root: Map<String, Value>) -> bool {
        let here = Place::new();
        let complaint = match root.shift_remove("_format_version") {
            None | Some(Value::Null) => Some("required field missing"),
            Some(Value::String(version)) => {
                self.older_format = version == "1.1" || version == "2.1";
                let known = self.older_format || version == "3.0";
                (!known).then_some("expected one of: 1.1, 2.1, 3.0")
            }
            Some(_) => Some("expected a string"),
        };
        if let Some(complaint) = complaint {
            self.findings.add_at(&here, "_format_version", complaint);
        }
        let transform = match root.shift_remove("_transform") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(transform)) => transform,
            Some(_) => {
                let complaint = "expected a boolean";
                self.findings.add_at(&here, "_transform", complaint);
                true
            }
        };
        for (field, complaint) in extras(&mut root) {
            self.findings.add_at(&here, field, complaint);
        }
        for definition in self.table.iter() {
            if let Some(list) = root.shift_remove(definition.table()) {
                self.section(definition, definition.table(), list, None);
            }
        }
        for unknown in root.keys() {
            self.findings.add_at(&here, unknown, "unknown field");
        }
        !transform
    }

    /// A list of entities of one kind.
    fn section(
        &mut self,
        definition: &EntityDefinition,
        section: &'static str,
        list: Value,
        around: Option<Around>,
    ) {
        let list = match list {
            Value::Array(list) => list,
            Value::Null => return,
            // In formats without a notation for empty lists both look alike.
            Value::Object(map) if map.is_empty() => return,
            _ => {
                let parent = around.and_then(|around| self.entities.get(around.position));
                let place = parent.map_or_else(Place::new, |parent| {
                    place_of(&self.entities, parent.parent, parent.section, parent.index)
                });
                self.findings.add_at(&place, section, "expected an array");
                return;
            }
        };
        for (index, item) in list.into_iter().enumerate() {
            match item {
                Value::Object(fields) => {
                    self.entity(definition, section, index, fields, around);
                }
                Value::String(name) if definition.kind == EntityKind::ConsumerGroupMember => {
                    let mut fields = Map::new();
                    fields.insert("name".into(), name.into());
                    self.entity(definition, section, index, fields, around);
                }
                _ => {
                    let parent = around.map(|around| around.position);
                    let place = place_of(&self.entities, parent, section, index);
                    self.findings.add_element(&place, "expected a record");
                }
            }
        }
    }

    fn entity(
        &mut self,
        definition: &EntityDefinition,
        section: &'static str,
        index: usize,
        mut fields: Map<String, Value>,
        around: Option<Around>,
    ) {
        let kind = definition.kind;
        let children = self.take_children(kind, &mut fields);
        let mut sent = fields.clone();
        let mut complaints = extras(&mut fields);
        if kind == EntityKind::ConsumerGroupMember {
            name_member(&mut fields, section);
        }
        if kind == EntityKind::Route
            && self.older_format
            && let Some(paths) = fields.get_mut("paths")
        {
            migrate_paths(paths);
        }
        if fields.get("id").is_some_and(Value::is_null) {
            fields.shift_remove("id");
        }
        let parent = around.map(|around| (around.link, around.id));
        let id = self.id_of(definition, &fields, parent);
        if !fields.contains_key("id") {
            fields.insert("id".into(), id.to_string().into());
        }
        if let Some(around) = around {
            let link = json!({ "id": around.id });
            if fields.get(around.link).is_some_and(|link| !link.is_null()) {
                complaints.push((around.link, "value must be null"));
            } else {
                sent.insert(around.link.to_owned(), link.clone());
            }
            fields.insert(around.link.to_owned(), link);
        }
        let position = self.entities.len();
        self.entities.push(FlatEntity {
            kind,
            id,
            fields,
            sent,
            parent: around.map(|around| around.position),
            section,
            index,
            refused: !complaints.is_empty(),
        });
        for (field, complaint) in complaints {
            if let Some(entity) = self.entities.get(position) {
                let subject = Subject {
                    kind,
                    place: place_of(&self.entities, entity.parent, section, index),
                    sent: &entity.sent,
                };
                let errors = crate::model::schema::FieldErrors::one(field, complaint);
                self.findings.add_fields(&subject, errors);
            }
        }
        for (child, section, link, list) in children {
            let around = Around { position, id, link };
            let definition = self.table.definition(child);
            self.section(definition, section, list, Some(around));
        }
    }

    /// Takes the lists of entities inside an entity out of its fields.
    fn take_children(
        &self,
        kind: EntityKind,
        fields: &mut Map<String, Value>,
    ) -> Vec<(EntityKind, &'static str, &'static str, Value)> {
        let mut children = Vec::new();
        for (child, link) in self.nesting.get(&kind).into_iter().flatten() {
            if let Some(list) = fields.shift_remove(child.table()) {
                children.push((*child, child.table(), *link, list));
            }
        }
        // Memberships have friendlier names from both sides.
        let membership = match kind {
            EntityKind::Consumer => Some(("groups", "consumer")),
            EntityKind::ConsumerGroup => Some(("consumers", "consumer_group")),
            _ => None,
        };
        if let Some((section, link)) = membership
            && let Some(list) = fields.shift_remove(section)
        {
            children.push((EntityKind::ConsumerGroupMember, section, link, list));
        }
        children
    }

    /// The id given, else the known one of an entity with the same key, else the derived one, else a random one.
    fn id_of(
        &mut self,
        definition: &EntityDefinition,
        fields: &Map<String, Value>,
        parent: Option<(&str, Uuid)>,
    ) -> Uuid {
        if let Some(id) = fields.get("id") {
            // One that is no UUID is refused by its own rule; what is inside needs something to hang on meanwhile.
            let given = id.as_str().and_then(|id| Uuid::try_parse(id).ok());
            return given.unwrap_or_else(|| (self.new_id)());
        }
        let key = definition.endpoint_key.and_then(|key| fields.get(key));
        if let Some(Value::String(key)) = key
            && let Some(row) = self.known.find(
                definition.kind,
                &RowKey::Name(key.clone()),
                parent.map(|(_, id)| id),
            )
        {
            return row.id;
        }
        derived_id(definition, fields, parent).unwrap_or_else(|| (self.new_id)())
    }
}

/// `{name: group}` inside a consumer, `{username: consumer}` inside a group: becomes the other link.
fn name_member(fields: &mut Map<String, Value>, section: &str) {
    let (link, names): (_, &[&str]) = match section {
        "groups" => ("consumer_group", &["name"]),
        "consumers" => ("consumer", &["username", "name", "id"]),
        _ => return,
    };
    let named = names.iter().find_map(|name| fields.shift_remove(*name));
    if let Some(named) = named {
        fields.insert(link.to_owned(), named);
    }
}

/// Takes out what may stand anywhere and means nothing.
fn extras(fields: &mut Map<String, Value>) -> Vec<(&'static str, &'static str)> {
    let mut complaints = Vec::new();
    match fields.shift_remove("_comment") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(_) => complaints.push(("_comment", "expected a string")),
    }
    match fields.shift_remove("_ignore") {
        None | Some(Value::Null | Value::Array(_)) => {}
        Some(_) => complaints.push(("_ignore", "expected an array")),
    }
    complaints
}

fn place_of(
    entities: &[FlatEntity],
    mut parent: Option<usize>,
    section: &'static str,
    index: usize,
) -> Place {
    let mut place = vec![(section, index)];
    while let Some(entity) = parent.and_then(|parent| entities.get(parent)) {
        place.push((entity.section, entity.index));
        parent = entity.parent;
    }
    place.reverse();
    place
}

/// By what the entities of a document may be named.
struct Links {
    by_key: HashMap<(EntityKind, String), Uuid>,
    by_id: HashMap<(EntityKind, Uuid), usize>,
}

impl Links {
    /// Collects the names and refuses those that are taken.
    fn of(flat: &mut Flat) -> Self {
        let mut links = Self {
            by_key: HashMap::new(),
            by_id: HashMap::new(),
        };
        let mut clashes = Vec::new();
        for (position, entity) in flat.entities.iter().enumerate() {
            let definition = entity.kind.definition();
            let key = definition
                .endpoint_key
                .filter(|_| definition.endpoint_key_scope.is_none());
            if let Some(field) = key
                && let Some(Value::String(value)) = entity.fields.get(field)
            {
                let slot = (entity.kind, value.clone());
                if links.by_key.contains_key(&slot) {
                    clashes.push((position, uniqueness(definition, field, value)));
                    continue;
                }
                links.by_key.insert(slot, entity.id);
            }
            if links
                .by_id
                .insert((entity.kind, entity.id), position)
                .is_some()
            {
                let id = entity.id.to_string();
                clashes.push((position, uniqueness(definition, "primary key", &id)));
            }
        }
        for (position, message) in clashes {
            if let Some(entity) = flat.entities.get(position) {
                let subject = flat.subject(entity);
                flat.findings.add_clash(&subject, message);
            }
            if let Some(entity) = flat.entities.get_mut(position) {
                entity.refused = true;
            }
        }
        links
    }

    /// Replaces every link by name or id by one by id.
    fn resolve(&self, flat: &mut Flat, table: &EntityTable) {
        for position in 0..flat.entities.len() {
            let Some(entity) = flat.entities.get_mut(position) else {
                return;
            };
            let mut dangling = Vec::new();
            for key in &table.definition(entity.kind).foreign_keys {
                let Some(written) = entity.fields.get(key.field) else {
                    continue;
                };
                let name = match written {
                    Value::String(name) => name.as_str(),
                    Value::Object(link) if link.len() == 1 => {
                        match link.values().next().and_then(Value::as_str) {
                            Some(name) => name,
                            None => continue,
                        }
                    }
                    _ => continue,
                };
                match self.find(key.parent, name) {
                    Some(id) => {
                        let link = json!({ "id": id });
                        entity.fields.insert(key.field.to_owned(), link);
                    }
                    None => {
                        let shown = match written {
                            Value::String(name) => name.clone(),
                            other => other.to_string(),
                        };
                        let message = format!(
                            "invalid reference '{}: {shown}' (no such entry in '{}')",
                            key.field, key.parent
                        );
                        dangling.push((key.field, message));
                    }
                }
            }
            if dangling.is_empty() {
                continue;
            }
            entity.refused = true;
            for (field, _) in &dangling {
                entity.fields.insert((*field).to_owned(), nowhere());
            }
            let Some(entity) = flat.entities.get(position) else {
                return;
            };
            let subject = flat.subject(entity);
            let key = entity.kind.definition().endpoint_key;
            let name = key.and_then(|key| entity.fields.get(key)?.as_str());
            let at = name.map_or_else(|| entity.id.to_string(), str::to_owned);
            for (field, message) in dangling {
                flat.findings.add_reference(&subject, &at, field, message);
            }
        }
    }

    fn find(&self, kind: EntityKind, name: &str) -> Option<Uuid> {
        if let Some(id) = self.by_key.get(&(kind, name.to_owned())) {
            return Some(*id);
        }
        let id = Uuid::try_parse(name).ok()?;
        self.by_id.contains_key(&(kind, id)).then_some(id)
    }
}

/// The text for an entity whose `field` another one holds already.
pub(super) fn uniqueness(definition: &EntityDefinition, field: &str, value: &str) -> String {
    format!(
        "uniqueness violation: '{}' entity with {field} set to '{value}' already declared",
        definition.table()
    )
}
