//! `KeyValueMapOperations`: entries of key-value maps, which are records.
//!
//! Several values of one key are one text, separated by a character that no text of the management API holds. What is
//! sealed belongs to an encrypted map and is only given to private variables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::{Place, Policy, PolicyLink};
use crate::base::seal::Seal;
use crate::dialects::apigee::entities::MapScope;
use crate::dialects::apigee::entities::key_value_map::{MAPS_TABLE, SEALED_MAP, entries_table};
use crate::dialects::apigee::policies::key_value_map_operations::{
    Config, Operation, Scope as Level,
};
use crate::dialects::apigee::policies::texts::RefOrText;
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use crate::runtime::records::{Edit, Record, Records};

/// Between several values of one key.
const SEPARATOR: char = '\u{1e}';

struct KeyValueMapOperations {
    name: String,
    map: Template,
    config: Config,
    level: Level,
    records: Arc<dyn Records>,
    seal: Seal,
    writes: bool,
    /// The entries of the start have been looked at.
    begun: AtomicBool,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let live = link.context.live;
    Ok(Box::new(KeyValueMapOperations::build(
        link.name,
        config,
        Arc::clone(live.records()),
        live.seal().clone(),
    )?))
}

impl KeyValueMapOperations {
    fn build(
        name: &str,
        config: Config,
        records: Arc<dyn Records>,
        seal: Seal,
    ) -> Result<Self, String> {
        let reads = |operation: &Operation| matches!(operation, Operation::Get { .. });
        Ok(Self {
            name: name.to_owned(),
            map: Template::parse(&config.map).map_err(|error| error.to_string())?,
            level: config.scope,
            writes: !config.initial.is_empty() || !config.operations.iter().all(reads),
            records,
            seal,
            begun: AtomicBool::new(false),
            config,
        })
    }

    fn table(&self, scope: &Scope) -> String {
        let map = scope.fill(&self.map);
        let place: &Place = &scope.place;
        let level = match self.level {
            Level::Organization => MapScope::Organization,
            Level::Environment => MapScope::Environment(&place.environment),
            Level::Proxy => MapScope::Proxy(&place.proxy),
            Level::Policy => MapScope::Policy(&place.proxy, &self.name),
        };
        entries_table(&place.organization, level, map.trim())
    }

    /// The edits of an entry, sealed when its map is.
    fn put(&self, table: &str, key: &str, values: &[String]) -> Result<Vec<Edit>, PolicyFault> {
        let separator = SEPARATOR.to_string();
        let text = values.join(&separator);
        let map = self.records.find(MAPS_TABLE, table);
        let is_sealed = map.as_ref().is_some_and(|map| &*map.text == SEALED_MAP);
        let text = if is_sealed {
            self.seal
                .seal(table, &text)
                .ok_or_else(|| failed("a value cannot be sealed"))?
        } else {
            text
        };
        let edit = |table: &str, key: &str, text: String| Edit {
            table: table.into(),
            key: key.into(),
            record: Some(Record {
                text: text.into(),
                expires_at_ms: None,
            }),
        };
        let mut edits = vec![edit(table, key, text)];
        if map.is_none() {
            // A map that nobody has made comes to be with its first entry.
            edits.push(edit(MAPS_TABLE, table, String::new()));
        }
        Ok(edits)
    }

    /// The values of an entry, and whether they were sealed.
    fn values(&self, table: &str, key: &str) -> Option<(Vec<String>, bool)> {
        let record = self.records.find(table, key)?;
        let map = self.records.find(MAPS_TABLE, table);
        let is_sealed = map.is_some_and(|map| &*map.text == SEALED_MAP);
        let text = if is_sealed {
            self.seal.open(table, &record.text)?
        } else {
            record.text.to_string()
        };
        Some((
            text.split(SEPARATOR).map(str::to_owned).collect(),
            is_sealed,
        ))
    }

    fn get(
        &self,
        scope: &mut Scope,
        key: &[RefOrText],
        assign_to: &str,
        index: Option<usize>,
    ) -> Result<(), PolicyFault> {
        let (table, key) = (self.table(scope), joined(scope, key));
        let Some((values, is_sealed)) = self.values(&table, &key) else {
            return Ok(());
        };
        if is_sealed && !assign_to.starts_with("private.") {
            return Err(PolicyFault::new(
                500,
                "steps.keyvaluemapoperations.SetVariableFailed",
                format!(
                    "Failed to set variable {assign_to}: values of encrypted maps are for variables that begin with private."
                ),
            ));
        }
        let value = match (index, values.as_slice()) {
            (Some(index), values) => match values.get(index - 1) {
                Some(value) => Value::from(value.clone()),
                None => return Ok(()),
            },
            (None, [value]) => Value::from(value.clone()),
            (None, values) => {
                Value::Collection(values.iter().map(|value| value.as_str().into()).collect())
            }
        };
        let written = scope.set(&VariableName::new(assign_to), value);
        written.map_err(|error| PolicyFault::of_write("steps.keyvaluemapoperations", &error))
    }

    async fn write(&self, edits: Vec<Edit>) -> Result<(), PolicyFault> {
        let written = self.records.write(edits).await;
        written.map_err(|error| failed(&error.to_string()))
    }

    async fn begin(&self, scope: &Scope) -> Result<(), PolicyFault> {
        if self.config.initial.is_empty() || self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let table = self.table(scope);
        let mut edits = Vec::new();
        for (key, values) in &self.config.initial {
            let key = joined(scope, key);
            if self.records.find(&table, &key).is_none() {
                edits.extend(self.put(&table, &key, &texts(scope, values))?);
            }
        }
        self.write(edits).await?;
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    async fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        self.begin(scope).await?;
        for operation in &self.config.operations {
            match operation {
                Operation::Get {
                    key,
                    assign_to,
                    index,
                } => self.get(scope, key, assign_to, *index)?,
                Operation::Put {
                    key,
                    values,
                    replaces,
                } => {
                    let (table, key) = (self.table(scope), joined(scope, key));
                    if *replaces || self.records.find(&table, &key).is_none() {
                        let edits = self.put(&table, &key, &texts(scope, values))?;
                        self.write(edits).await?;
                    }
                }
                Operation::Delete { key } => {
                    let (table, key) = (self.table(scope), joined(scope, key));
                    let edit = Edit {
                        table: table.into(),
                        key: key.into(),
                        record: None,
                    };
                    self.write(vec![edit]).await?;
                }
            }
        }
        Ok(Next::Continue)
    }
}

fn failed(reason: &str) -> PolicyFault {
    PolicyFault::new(
        500,
        "steps.keyvaluemapoperations.OperationFailed",
        format!("KeyValueMapOperations: {reason}"),
    )
}

fn text_of(scope: &Scope, part: &RefOrText) -> String {
    let name = part.reference.as_deref().map(VariableName::new);
    let referred = name.as_ref().and_then(|name| scope.text(name));
    referred
        .map(|text| text.into_owned())
        .or_else(|| part.text.clone())
        .unwrap_or_default()
}

fn texts(scope: &Scope, parts: &[RefOrText]) -> Vec<String> {
    parts.iter().map(|part| text_of(scope, part)).collect()
}

/// A key: its parts, joined.
fn joined(scope: &Scope, parts: &[RefOrText]) -> String {
    texts(scope, parts).join("__")
}

#[async_trait]
impl Policy for KeyValueMapOperations {
    fn waits(&self) -> bool {
        self.writes
    }

    /// Without writes nothing waits.
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        for operation in &self.config.operations {
            if let Operation::Get {
                key,
                assign_to,
                index,
            } = operation
            {
                self.get(flow.scope, key, assign_to, *index)?;
            }
        }
        Ok(Next::Continue)
    }

    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.run(flow.scope).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::super::test_support::{config, scope, text};
    use super::*;
    use crate::runtime::records::MemoryRecords;

    fn policy(records: &Arc<dyn Records>, seal: &Seal, body: &str) -> KeyValueMapOperations {
        let xml = format!(
            "<KeyValueMapOperations name='k' mapIdentifier='m'>{body}</KeyValueMapOperations>"
        );
        let (records, seal) = (Arc::clone(records), seal.clone());
        KeyValueMapOperations::build("k", config(&xml), records, seal).unwrap()
    }

    const GET: &str =
        "<Get assignTo='got'><Key><Parameter>a</Parameter><Parameter ref='b'/></Key></Get>";

    #[tokio::test]
    async fn entries_are_put_got_and_deleted() {
        let records: Arc<dyn Records> = Arc::new(MemoryRecords::default());
        let seal = Seal::fleeting();
        let mut scope = scope();
        scope.set_own("b", "1".to_owned());
        scope.set_own("v", "one".to_owned());
        let key = "<Key><Parameter>a</Parameter><Parameter ref='b'/></Key>";
        let get = policy(&records, &seal, GET);
        get.run(&mut scope).await.unwrap();
        assert_eq!(text(&scope, "got"), None);
        for (put, expected) in [
            (format!("<Put>{key}<Value ref='v'/></Put>"), "one"),
            (format!("<Put>{key}<Value>two</Value></Put>"), "one"),
            (
                format!("<Put override='true'>{key}<Value>two</Value></Put>"),
                "two",
            ),
        ] {
            let put = policy(&records, &seal, &put);
            assert!(put.waits());
            put.run(&mut scope).await.unwrap();
            get.run(&mut scope).await.unwrap();
            assert_eq!(text(&scope, "got").as_deref(), Some(expected));
        }
        let delete = policy(&records, &seal, &format!("<Delete>{key}</Delete>"));
        delete.run(&mut scope).await.unwrap();
        let table = get.table(&scope);
        assert_eq!(records.find(&table, "a__1"), None);
    }

    #[tokio::test]
    async fn values_of_encrypted_maps_stay_private() {
        let records: Arc<dyn Records> = Arc::new(MemoryRecords::default());
        let seal = Seal::fleeting();
        let mut scope = scope();
        scope.set_own("b", "1".to_owned());
        let get = policy(&records, &seal, GET);
        let table = get.table(&scope);
        let mark = Record {
            text: SEALED_MAP.into(),
            expires_at_ms: None,
        };
        records.put(MAPS_TABLE, &table, mark).await.unwrap();
        let start = policy(
            &records,
            &seal,
            "<InitialEntries><Entry><Key><Parameter>a__1</Parameter></Key><Value>x</Value><Value>y</Value></Entry></InitialEntries>\
             <Get assignTo='private.got' index='2'><Key><Parameter>a__1</Parameter></Key></Get>",
        );
        start.run(&mut scope).await.unwrap();
        assert_eq!(text(&scope, "private.got").as_deref(), Some("y"));
        assert!(
            records
                .find(&table, "a__1")
                .unwrap()
                .text
                .starts_with("sealed:")
        );
        let fault = get.run(&mut scope).await.expect_err("a fault");
        assert_eq!(fault.code, "steps.keyvaluemapoperations.SetVariableFailed");
    }
}
