//! Writing: what POST, PUT, PATCH and DELETE mean for any kind of row.
//!
//! Every operation works on `&mut self` and may leave it half changed when it fails: work on a clone, and drop it then.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::index::{linked, positions, unique_value};
use super::prepare::{Manner, Prepared};
use super::{Change, EntitySet, Row, RowKey};
use crate::dialects::kong::entities::{EntityKind, EntityTable, OnDelete, SNIS, WriteContext};
use crate::dialects::kong::error::ApiError;

/// What a write did.
#[derive(Debug, Clone)]
pub struct Written {
    /// The row as it is now.
    pub row: Arc<Row>,
    /// Everything that changed, the row itself included.
    pub changes: Vec<Change>,
}

impl EntitySet {
    /// POST: makes a new row. A given id that exists is code 3.
    pub fn create(
        &mut self,
        kind: EntityKind,
        mut given: Map<String, Value>,
        context: &mut WriteContext<'_>,
    ) -> Result<Written, ApiError> {
        let ended = self.make_room(context);
        let snis = self.snis_given(kind, &mut given, None)?;
        let prepared = self.prepare(kind, None, given, Manner::Whole, context)?;
        if self.row(kind, prepared.id).is_some() {
            return Err(ApiError::primary_key_violation(&prepared.id.to_string()));
        }
        let mut written = self.store(kind, prepared, context)?;
        if let Some(names) = snis {
            self.set_snis(&mut written, &names, context)?;
        }
        written.changes.extend(ended);
        Ok(written)
    }

    /// Checks what a client would write, by itself: no other row is looked at. Kong: `/schemas/ENTITY/validate`.
    ///
    /// # Errors
    ///
    /// Code 2.
    pub fn validate_alone(
        kind: EntityKind,
        mut given: Map<String, Value>,
        context: &mut WriteContext<'_>,
    ) -> Result<(), ApiError> {
        let nobody = Self::new();
        nobody.snis_given(kind, &mut given, None)?;
        // A link by name leads nowhere here; that somebody wrote one is all that counts.
        for key in &kind.definition().foreign_keys {
            if let Some(Value::Object(link)) = given.get_mut(key.field)
                && !link.contains_key("id")
                && link
                    .keys()
                    .all(|field| key.parent.definition().unique_field(field).is_some())
            {
                *link = Map::from_iter([("id".to_owned(), Uuid::nil().to_string().into())]);
            }
        }
        nobody
            .prepare(kind, None, given, Manner::Whole, context)
            .map(|_| ())
    }

    /// PUT: makes a row, or replaces the one that is there whole.
    ///
    /// `parent` narrows a key that is unique only within its parent. Kinds that PUT may not make (targets) are code 6
    /// when absent; the answer of HTTP is then the plain one.
    pub fn upsert(
        &mut self,
        kind: EntityKind,
        key: &RowKey,
        parent: Option<Uuid>,
        mut given: Map<String, Value>,
        context: &mut WriteContext<'_>,
    ) -> Result<Written, ApiError> {
        let ended = self.make_room(context);
        let definition = EntityTable::of(context.flavor).definition(kind);
        let existing = self.find(kind, key, parent).cloned();
        if existing.is_none() && !definition.put_creates {
            return Err(key.not_found(definition));
        }
        let id = match (key, &existing) {
            (RowKey::Id(id), _) => Some(*id),
            (RowKey::Name(name), existing) => {
                let field = definition.endpoint_key.unwrap_or("id");
                let value = Value::from(name.as_str());
                if let Some(Err(error)) = definition
                    .schema
                    .field(field)
                    .map(|field| field.validate(&value))
                {
                    let text = error.as_str().unwrap_or("not allowed").to_owned();
                    return Err(ApiError::invalid_unique(field, text));
                }
                given.insert(field.to_owned(), value);
                // The body's id makes a new row; an existing one keeps its own.
                existing.as_ref().map(|row| row.id)
            }
        };
        if id.is_some() {
            given.shift_remove("id");
        }
        let snis = match self.snis_given(kind, &mut given, id)? {
            // A replacement says everything: names not listed are gone.
            None if kind == EntityKind::Certificate && existing.is_some() => Some(Vec::new()),
            names => names,
        };
        let prepared = self.prepare(kind, id, given, Manner::Whole, context)?;
        let mut written = self.store(kind, prepared, context)?;
        if let Some(names) = snis {
            self.set_snis(&mut written, &names, context)?;
        }
        written.changes.extend(ended);
        Ok(written)
    }

    /// PATCH: lays fields over a row. An absent row is code 6.
    pub fn patch(
        &mut self,
        kind: EntityKind,
        key: &RowKey,
        parent: Option<Uuid>,
        mut given: Map<String, Value>,
        context: &mut WriteContext<'_>,
    ) -> Result<Written, ApiError> {
        let ended = self.make_room(context);
        let definition = EntityTable::of(context.flavor).definition(kind);
        let Some(row) = self.find(kind, key, parent).cloned() else {
            return Err(key.not_found(definition));
        };
        given.shift_remove("id");
        let snis = self.snis_given(kind, &mut given, Some(row.id))?;
        let before = row.fields();
        let prepared =
            self.prepare(kind, Some(row.id), given, Manner::Partial(&before), context)?;
        let mut written = self.store(kind, prepared, context)?;
        if let Some(names) = snis {
            self.set_snis(&mut written, &names, context)?;
        }
        written.changes.extend(ended);
        Ok(written)
    }

    /// DELETE: removes a row and what cascades from it. Nothing changes when it is absent.
    pub fn delete(
        &mut self,
        kind: EntityKind,
        key: &RowKey,
        parent: Option<Uuid>,
    ) -> Result<Vec<Change>, ApiError> {
        let Some(id) = self.find(kind, key, parent).map(|row| row.id) else {
            return Ok(Vec::new());
        };
        let mut changes = Vec::new();
        self.delete_row(kind, id, &mut changes)?;
        Ok(changes)
    }

    /// Takes out what has ended, so that it neither holds a key nor is written to.
    fn make_room(&mut self, context: &WriteContext<'_>) -> Vec<Change> {
        self.remove_expired(u64::try_from(context.now_millis / 1000).unwrap_or(0))
    }

    fn delete_row(
        &mut self,
        kind: EntityKind,
        id: Uuid,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApiError> {
        if let Some(rule) = kind.definition().before_delete {
            rule(self, id)?;
        }
        let mut cascading = Vec::new();
        for child in EntityTable::of(Default::default()).iter() {
            for key in child.foreign_keys.iter().filter(|key| key.parent == kind) {
                let mut rows = self.children(child.kind, key.field, id).peekable();
                match key.on_delete {
                    OnDelete::Restrict if rows.peek().is_some() => {
                        return Err(ApiError::foreign_key_restricted(
                            kind.table(),
                            child.table(),
                        ));
                    }
                    OnDelete::Restrict => {}
                    OnDelete::Cascade => cascading.extend(rows.map(|row| (row.kind, row.id))),
                }
            }
        }
        // A row may hang on its parent by several links; the second time it is gone. Depth is that of the entity
        // table, four levels.
        for (kind, id) in cascading {
            if self.row(kind, id).is_some() {
                self.delete_row(kind, id, changes)?;
            }
        }
        changes.extend(self.take(kind, id));
        Ok(())
    }

    /// Checks links and uniqueness, then puts the row in.
    pub(super) fn store(
        &mut self,
        kind: EntityKind,
        prepared: Prepared,
        context: &WriteContext<'_>,
    ) -> Result<Written, ApiError> {
        let definition = EntityTable::of(context.flavor).definition(kind);
        let Prepared { id, fields } = prepared;
        for key in &definition.foreign_keys {
            if let Some(parent) = linked(&fields, key.field)
                && self.row(key.parent, parent).is_none()
            {
                return Err(ApiError::foreign_key_missing(
                    key.field,
                    key.parent.table(),
                    &parent.to_string(),
                ));
            }
        }
        for (position, set) in positions(&definition.unique_sets) {
            let Some(value) = unique_value(set, &fields) else {
                continue;
            };
            let holder = self.unique.get(&(kind, position, value));
            if holder.is_some_and(|holder| *holder != id) {
                return Err(ApiError::unique_violation(violated(set.fields, &fields)));
            }
        }
        let row = Arc::new(Row::from_map(kind, id, fields));
        let change = self.put(row.clone());
        Ok(Written {
            row,
            changes: vec![change],
        })
    }

    /// Takes the server names out of what a client wrote to a certificate, checked; `None` when it names none.
    fn snis_given(
        &self,
        kind: EntityKind,
        given: &mut Map<String, Value>,
        certificate: Option<Uuid>,
    ) -> Result<Option<Vec<String>>, ApiError> {
        if kind != EntityKind::Certificate {
            return Ok(None);
        }
        match given.shift_remove(SNIS) {
            None => Ok(None),
            Some(list) => self.check_snis(&list, certificate).map(Some),
        }
    }
}

/// The fields of a violated unique set, as the error shows them.
fn violated(names: &[&str], fields: &Map<String, Value>) -> Map<String, Value> {
    names
        .iter()
        .map(|name| {
            let value = fields.get(*name).cloned().unwrap_or(Value::Null);
            ((*name).to_owned(), value)
        })
        // Clients of the open edition know no consumer groups.
        .filter(|(name, value)| name != "consumer_group" || !value.is_null())
        .collect()
}
