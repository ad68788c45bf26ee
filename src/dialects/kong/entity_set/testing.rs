//! A small world for tests: a set, a catalog, a clock that stands still and ids that count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntitySet, Row, RowKey, Written};
use crate::dialects::kong::entities::{EntityKind, RouterFlavor, WriteContext};
use crate::dialects::kong::error::ApiError;
use crate::model::catalog::{Catalog, PluginInfo};
use crate::model::schema::{
    Record, array, at_least_one_of, boolean, header_name, json, number, string,
};

/// The second at which everything happens.
pub(crate) const NOW_SECONDS: i64 = 1_700_000_000;

pub(crate) struct World {
    pub(crate) set: EntitySet,
    pub(crate) catalog: Catalog,
    pub(crate) flavor: RouterFlavor,
    pub(crate) now_millis: i64,
    ids: u128,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            set: EntitySet::new(),
            catalog: catalog(),
            flavor: RouterFlavor::default(),
            now_millis: NOW_SECONDS * 1000 + 250,
            ids: 0,
        }
    }

    /// Writes on a clone and keeps it when the write succeeds, as the control plane does.
    pub(crate) fn write<T>(
        &mut self,
        operation: impl FnOnce(&mut EntitySet, &mut WriteContext<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut draft = self.set.clone();
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000 + *ids)
        };
        let mut context = WriteContext {
            now_millis: self.now_millis,
            flavor: self.flavor,
            catalog: &self.catalog,
            new_id: &mut new_id,
            already_transformed: false,
        };
        let outcome = operation(&mut draft, &mut context)?;
        self.set = draft;
        Ok(outcome)
    }

    pub(crate) fn create(&mut self, kind: EntityKind, given: Value) -> Result<Arc<Row>, ApiError> {
        let written = self.write(|set, context| set.create(kind, object(given), context))?;
        Ok(written.row)
    }

    pub(crate) fn id_of(&mut self, kind: EntityKind, given: Value) -> String {
        self.create(kind, given).unwrap().id.to_string()
    }

    pub(crate) fn upsert(
        &mut self,
        kind: EntityKind,
        key: &str,
        given: Value,
    ) -> Result<Written, ApiError> {
        let key = RowKey::read(kind.definition(), key)?;
        self.write(|set, context| set.upsert(kind, &key, None, object(given), context))
    }

    pub(crate) fn patch(
        &mut self,
        kind: EntityKind,
        key: &str,
        given: Value,
    ) -> Result<Arc<Row>, ApiError> {
        let key = RowKey::read(kind.definition(), key)?;
        let written =
            self.write(|set, context| set.patch(kind, &key, None, object(given), context))?;
        Ok(written.row)
    }

    pub(crate) fn delete(&mut self, kind: EntityKind, key: &str) -> Result<usize, ApiError> {
        let key = RowKey::read(kind.definition(), key)?;
        let changes = self.write(|set, _| set.delete(kind, &key, None))?;
        Ok(changes.len())
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn catalog() -> Catalog {
    let key_auth = Record::new(vec![
        array(header_name())
            .required()
            .default(json!(["apikey"]))
            .named("key_names"),
        boolean()
            .required()
            .default(false)
            .named("hide_credentials"),
    ]);
    let rate_limiting = Record::new(vec![
        number().greater_than(0).named("second"),
        number().greater_than(0).named("minute"),
        string().default("local").named("policy"),
    ]);
    Catalog::new([
        PluginInfo::new("key-auth", 1250, key_auth).without_consumer(),
        PluginInfo::new("rate-limiting", 910, rate_limiting)
            .check(at_least_one_of(&["config.second", "config.minute"])),
    ])
}
