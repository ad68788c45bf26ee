//! What a kind of entity tells about itself: names, keys, links and the rules of its own.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityKind, RouterFlavor};
use crate::dialects::kong::entity_set::EntitySet;
use crate::dialects::kong::error::ApiError;
use crate::model::catalog::Catalog;
use crate::model::schema::{Field, FieldErrors, Record};

/// A kind of entity. The generic code reads this and nothing else.
#[derive(Debug)]
pub struct EntityDefinition {
    /// Which kind.
    pub kind: EntityKind,
    /// The name of one of them in flattened errors, for example `service`.
    pub singular: &'static str,
    /// The collection's path, for example `key-auths`; `None` for entities that exist only below a parent.
    pub path: Option<&'static str>,
    /// Collections below parents: `/consumers/K/key-auth`.
    pub nested: Vec<NestedPath>,
    /// The field by which a path may address a row besides its id.
    pub endpoint_key: Option<&'static str>,
    /// The link within which the endpoint key is unique; `None` when it is unique everywhere.
    pub endpoint_key_scope: Option<&'static str>,
    /// What a row holds.
    pub schema: Record,
    /// Fields that clients may write but rows do not hold (`url`, `snis`).
    pub shorthands: Vec<Field>,
    /// Links to other rows.
    pub foreign_keys: Vec<ForeignKey>,
    /// Fields, or combinations of them, that no two rows share.
    pub unique_sets: Vec<UniqueSet>,
    /// Whether PUT may make a row; else it only replaces one.
    pub put_creates: bool,
    /// Whether rows may expire (`ttl`).
    pub expires: bool,
    /// Whether `created_at` and `updated_at` are fractions of seconds.
    pub fraction_times: bool,
    /// Rewrites what the client gave into fields of the schema, before defaults are filled in.
    pub expand: Option<Expand>,
    /// Computes fields of a filled row; `given` are the fields that the client wrote.
    pub complete: Option<Complete>,
    /// Rules beyond the schema: other entities, plugins, certificates.
    pub verify: Option<Verify>,
    /// Rules on removal beyond links.
    pub before_delete: Option<BeforeDelete>,
}

/// Rewrites what a client gave.
pub type Expand = fn(&mut Map<String, Value>) -> Result<(), FieldErrors>;

/// Refuses the removal of a row that others still need.
pub type BeforeDelete = fn(&EntitySet, Uuid) -> Result<(), ApiError>;

/// Computes fields of a filled row.
pub type Complete = fn(&mut Map<String, Value>, given: &Given<'_>, context: &mut WriteContext<'_>);

/// Checks a filled row against everything else.
pub type Verify = fn(&EntitySet, &Map<String, Value>, &WriteContext<'_>) -> FieldErrors;

/// What a write changes, for rules that depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The fields as the client wrote them, shorthands expanded.
    pub fields: &'a Map<String, Value>,
    /// The row as it was, for a partial update.
    pub before: Option<&'a Map<String, Value>>,
}

/// A collection below a parent, named by the link that ties it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NestedPath {
    /// The link, for example `consumer`.
    pub field: &'static str,
    /// The last part of the path, for example `key-auth`.
    pub path: &'static str,
}

/// A link to another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignKey {
    /// The field that holds it.
    pub field: &'static str,
    /// What it links to.
    pub parent: EntityKind,
    /// What happens to the row when its parent is removed.
    pub on_delete: OnDelete,
}

/// What happens to rows when the row that they link to is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// The removal is refused.
    Restrict,
    /// They are removed too.
    Cascade,
}

/// Fields that together identify a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueSet {
    /// The fields, in the order of error texts.
    pub fields: &'static [&'static str],
    /// Whether null is a value like any other; else rows with a null are not compared.
    pub null_counts: bool,
}

impl UniqueSet {
    /// One field that no two rows share.
    pub const fn of(fields: &'static [&'static str]) -> Self {
        Self {
            fields,
            null_counts: false,
        }
    }

    /// The same with null as a value.
    pub const fn with_null(fields: &'static [&'static str]) -> Self {
        Self {
            fields,
            null_counts: true,
        }
    }
}

/// What a write may use of the world outside: the dialect has neither clock nor chance of its own.
pub struct WriteContext<'a> {
    /// Now, in milliseconds since 1970.
    pub now_millis: i64,
    /// How the router reads routes.
    pub flavor: RouterFlavor,
    /// The plugins of this build.
    pub catalog: &'a Catalog,
    /// Makes a fresh random id.
    pub new_id: &'a mut dyn FnMut() -> Uuid,
    /// Values such as passwords are already in stored form (declarative `_transform: false`).
    pub already_transformed: bool,
}

impl WriteContext<'_> {
    /// A fresh secret of 32 letters and digits.
    pub fn new_secret(&mut self) -> String {
        const ALPHABET: &[u8; 62] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let (left, right) = ((self.new_id)(), (self.new_id)());
        left.as_bytes()
            .iter()
            .chain(right.as_bytes())
            .filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()))
            .map(|byte| char::from(*byte))
            .collect()
    }
}

impl EntityDefinition {
    /// A definition with the usual parts: collection path equal to `path`, no links, no rules.
    pub fn new(kind: EntityKind, singular: &'static str, schema: Record) -> Self {
        Self {
            kind,
            singular,
            path: Some(kind.table()),
            nested: Vec::new(),
            endpoint_key: None,
            endpoint_key_scope: None,
            schema,
            shorthands: Vec::new(),
            foreign_keys: Vec::new(),
            unique_sets: Vec::new(),
            put_creates: true,
            expires: false,
            fraction_times: false,
            expand: None,
            complete: None,
            verify: None,
            before_delete: None,
        }
    }

    /// The name of the table.
    pub fn table(&self) -> &'static str {
        self.kind.table()
    }

    /// The field that clients may write: of the schema, or a shorthand.
    pub fn writable(&self, name: &str) -> Option<&Field> {
        self.schema
            .field(name)
            .or_else(|| self.shorthands.iter().find(|field| field.name == name))
    }

    /// The link in this field.
    pub fn foreign_key(&self, field: &str) -> Option<&ForeignKey> {
        self.foreign_keys.iter().find(|key| key.field == field)
    }

    /// The position in `unique_sets` of a set of this one field.
    pub fn unique_field(&self, field: &str) -> Option<usize> {
        self.unique_sets
            .iter()
            .position(|set| set.fields == [field])
    }

    pub(super) fn path(mut self, path: Option<&'static str>) -> Self {
        self.path = path;
        self
    }

    /// Sets an endpoint key that is unique everywhere.
    pub(super) fn endpoint_key(mut self, field: &'static [&'static str; 1]) -> Self {
        self.endpoint_key = Some(field[0]);
        self.unique(UniqueSet::of(field))
    }

    pub(super) fn unique(mut self, set: UniqueSet) -> Self {
        self.unique_sets.push(set);
        self
    }

    /// Adds a link, and the collection below its parent.
    pub(super) fn link(
        mut self,
        field: &'static str,
        parent: EntityKind,
        on_delete: OnDelete,
        nested_path: Option<&'static str>,
    ) -> Self {
        self.foreign_keys.push(ForeignKey {
            field,
            parent,
            on_delete,
        });
        if let Some(path) = nested_path {
            self.nested.push(NestedPath { field, path });
        }
        self
    }
}
