//! Key-value maps at their three levels, and their entries.
//!
//! Maps are entities; entries are records, which policies write too. Values of encrypted maps are sealed before they
//! are stored and never shown.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::reply::Reply;
use crate::dialects::apigee::entities::key_value_map::{
    MAPS_TABLE, MapEntry, SEALED_MAP, entries_table,
};
use crate::dialects::apigee::entities::{BundleKind, KeyValueMap, Kind, MapScope, Stamp};
use crate::dialects::apigee::error::ApiError;
use crate::runtime::records::{Edit, Record};

/// Most entries that an answer shows.
const ENTRIES_MAX: usize = 100_000;
/// What stands in the place of a sealed value.
const MASK: &str = "*****";

/// A map of a call: its key and the table of its entries.
struct Place<'a> {
    organization: &'a str,
    scope: MapScope<'a>,
}

impl Place<'_> {
    fn table(&self, map: &str) -> String {
        entries_table(self.organization, self.scope, map)
    }

    fn find(&self, call: &Call, map: &str) -> Result<KeyValueMap, ApiError> {
        let scope = self.scope.key();
        let key = [self.organization, &scope, map];
        let found = call.set().find(&key);
        // Policies make maps too; those are known by their mark alone.
        let made = || {
            let mark = call
                .admin
                .keeping
                .records
                .find(MAPS_TABLE, &self.table(map))?;
            Some(KeyValueMap {
                name: map.to_owned(),
                encrypted: &*mark.text == SEALED_MAP,
                stamp: Stamp::default(),
            })
        };
        found
            .or_else(made)
            .ok_or_else(|| Kind::KeyValueMap.missing(map, self.words()))
    }

    fn words(&self) -> String {
        match self.scope {
            MapScope::Organization => format!("in organization {}", self.organization),
            MapScope::Environment(name) => format!("in environment {name}"),
            MapScope::Proxy(name) | MapScope::Policy(name, _) => format!("in APIProxy {name}"),
        }
    }
}

/// Answers calls below `keyvaluemaps` of a scope.
pub(super) async fn answer(
    call: &Call,
    scope: MapScope<'_>,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let place = Place {
        organization: &call.organization,
        scope,
    };
    if let MapScope::Proxy(proxy) = scope
        && !call.set().has(
            Kind::Bundle,
            &[place.organization, BundleKind::Proxy.word(), proxy],
        )
    {
        return Err(BundleKind::Proxy.missing(proxy, place.organization));
    }
    match (&call.method, rest) {
        (&Method::GET, []) => {
            let set = call.set();
            let scope = scope.key();
            let rows = set.list(Kind::KeyValueMap, &[place.organization, &scope]);
            let mut names: Vec<String> = rows.map(|row| row.name().to_owned()).collect();
            let below = place.table("");
            let records = &call.admin.keeping.records;
            let marks = records.index().list(MAPS_TABLE, Some(&below), ENTRIES_MAX);
            let made = marks
                .iter()
                .map_while(|(table, _)| table.strip_prefix(&below));
            names.extend(made.map(str::to_owned));
            names.sort_unstable();
            names.dedup();
            Ok(Reply::ok("List", json!(names)))
        }
        (&Method::POST, []) => create(call, &place).await,
        (&Method::GET, [map]) => {
            let known = place.find(call, map)?;
            Ok(Reply::ok("KeyValueMap", show(call, &place, &known)))
        }
        (&Method::POST | &Method::PUT, [map]) => merge(call, &place, map).await,
        (&Method::DELETE, [map]) => delete(call, &place, map).await,
        (&Method::GET, [map, "keys"]) => {
            place.find(call, map)?;
            let entries = call.admin.keeping.records.index().list(
                &place.table(map),
                call.parameter("startkey"),
                count(call),
            );
            let names: Vec<&str> = entries.iter().map(|(key, _)| &**key).collect();
            Ok(Reply::ok("List", json!(names)))
        }
        (&Method::GET, [map, "entries"]) => {
            let known = place.find(call, map)?;
            let shown = show(call, &place, &known);
            Ok(Reply::ok("KeyValueMap", shown))
        }
        (&Method::POST, [map, "entries"]) => {
            let known = place.find(call, map)?;
            let entry = MapEntry::read(call.fields()?)?;
            let table = place.table(map);
            if call
                .admin
                .keeping
                .records
                .find(&table, &entry.name)
                .is_some()
            {
                return Err(ApiError::exists(
                    "keyvaluemap.service.keyvaluemap_entry_already_exists",
                    format!("entry {} of KeyValueMap {map} already exists", entry.name),
                ));
            }
            put(call, &place, &known, std::slice::from_ref(&entry)).await?;
            Ok(Reply::created("Entry", show_entry(&known, &entry)))
        }
        (method, [map, "entries" | "keys", name]) => {
            let known = place.find(call, map)?;
            let table = place.table(map);
            let found = call.admin.keeping.records.find(&table, name);
            let missing = || {
                ApiError::missing(
                    "keyvaluemap.service.keyvaluemap_entry_doesnot_exist",
                    format!("entry {name} of KeyValueMap {map} does not exist"),
                )
            };
            match *method {
                Method::GET => {
                    let record = found.ok_or_else(missing)?;
                    let entry = entry_of(name, &record);
                    Ok(Reply::ok("Entry", show_entry(&known, &entry)))
                }
                Method::POST | Method::PUT => {
                    let entry = MapEntry::read(call.named_fields(Some(name))?)?;
                    found.ok_or_else(missing)?;
                    put(call, &place, &known, std::slice::from_ref(&entry)).await?;
                    Ok(Reply::ok("Entry", show_entry(&known, &entry)))
                }
                Method::DELETE => {
                    call.may_write()?;
                    let record = found.ok_or_else(missing)?;
                    call.admin.keeping.records.remove(&table, name).await?;
                    let entry = entry_of(name, &record);
                    Ok(Reply::ok("Entry", show_entry(&known, &entry)))
                }
                _ => Err(call.unknown()),
            }
        }
        _ => Err(call.unknown()),
    }
}

fn count(call: &Call) -> usize {
    call.parameter("count")
        .and_then(|count| count.parse().ok())
        .unwrap_or(ENTRIES_MAX)
        .min(ENTRIES_MAX)
}

fn entry_of(name: &str, record: &Record) -> MapEntry {
    MapEntry {
        name: name.to_owned(),
        value: record.text.to_string(),
    }
}

fn show_entry(map: &KeyValueMap, entry: &MapEntry) -> Value {
    let value = if map.encrypted { MASK } else { &entry.value };
    json!({"name": entry.name, "value": value})
}

fn show(call: &Call, place: &Place<'_>, map: &KeyValueMap) -> Value {
    let table = place.table(&map.name);
    let listed = call
        .admin
        .keeping
        .records
        .index()
        .list(&table, None, ENTRIES_MAX);
    let entries: Vec<Value> = listed
        .iter()
        .map(|(name, record)| show_entry(map, &entry_of(name, record)))
        .collect();
    json!({"encrypted": map.encrypted, "entry": entries, "name": map.name})
}

/// Writes entries in place of those of their names.
async fn put(
    call: &Call,
    place: &Place<'_>,
    map: &KeyValueMap,
    entries: &[MapEntry],
) -> Result<(), ApiError> {
    call.may_write()?;
    let table: Arc<str> = place.table(&map.name).into();
    let mut edits = Vec::with_capacity(entries.len());
    for entry in entries {
        let text = if map.encrypted {
            let sealed = call.admin.keeping.seal.seal(&table, &entry.value);
            sealed.ok_or_else(|| ApiError::failure("a value cannot be sealed"))?
        } else {
            entry.value.clone()
        };
        edits.push(Edit {
            table: Arc::clone(&table),
            key: entry.name.as_str().into(),
            record: Some(Record {
                text: text.into(),
                expires_at_ms: None,
            }),
        });
    }
    Ok(call.admin.keeping.records.write(edits).await?)
}

async fn create(call: &Call, place: &Place<'_>) -> Result<Reply, ApiError> {
    let (map, entries) = KeyValueMap::read(call.fields()?, Stamp::default())?;
    let key = [
        place.organization.to_owned(),
        place.scope.key(),
        map.name.clone(),
    ];
    let (user, words, written_map) = (call.user.clone(), place.words(), map.clone());
    let written = call.write(move |set, moment| {
        let key = key.each_ref().map(String::as_str);
        if set.has(Kind::KeyValueMap, &key) {
            return Err(Kind::KeyValueMap.exists(&written_map.name, &words));
        }
        let mut map = written_map.clone();
        map.stamp = Stamp::new(moment.unix_ms(), &user);
        Ok(((), vec![set.put(&key, &map)]))
    });
    let revision = written.await?.1;
    // Left by a map of this name that was deleted while a policy wrote to it.
    let records = &call.admin.keeping.records;
    records.remove_table(&place.table(&map.name)).await?;
    let mark = Record {
        text: if map.encrypted { SEALED_MAP } else { "" }.into(),
        expires_at_ms: None,
    };
    records
        .put(MAPS_TABLE, &place.table(&map.name), mark)
        .await?;
    put(call, place, &map, &entries).await?;
    Ok(Reply::created("KeyValueMap", show(call, place, &map)).at(revision))
}

/// Adds entries to a map, in place of those of their names: the form of clients from before single entries.
async fn merge(call: &Call, place: &Place<'_>, name: &str) -> Result<Reply, ApiError> {
    let known = place.find(call, name)?;
    let mut fields = call.named_fields(Some(name))?;
    if let Some(encrypted) = fields.switch("encrypted")?
        && encrypted != known.encrypted
    {
        return Err(ApiError::field("encrypted", "cannot be changed"));
    }
    let (_, entries) = KeyValueMap::read(fields, Stamp::default())?;
    put(call, place, &known, &entries).await?;
    Ok(Reply::ok("KeyValueMap", show(call, place, &known)))
}

async fn delete(call: &Call, place: &Place<'_>, name: &str) -> Result<Reply, ApiError> {
    let known = place.find(call, name)?;
    let shown = show(call, place, &known);
    let key = [
        place.organization.to_owned(),
        place.scope.key(),
        name.to_owned(),
    ];
    let written = call.write(move |set, _| {
        let key = key.each_ref().map(String::as_str);
        let removed = set.remove(Kind::KeyValueMap, &key);
        Ok(((), removed.into_iter().collect()))
    });
    let revision = written.await?.1;
    let records = &call.admin.keeping.records;
    records.remove_table(&place.table(name)).await?;
    records.remove(MAPS_TABLE, &place.table(name)).await?;
    Ok(Reply::ok("KeyValueMap", shown).at(revision))
}
