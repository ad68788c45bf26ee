//! Secrets of a record, replaced by fingerprints before anybody reads it.

use serde_json::{Map, Value};

use super::{Field, Kind, Record};
use crate::base::secret::Secret;

impl Record {
    /// Replaces the value of every field that is a secret by its fingerprint. Links to a vault are no secrets.
    pub fn conceal(&self, record: &mut Map<String, Value>) {
        for field in &self.fields {
            if let Some(value) = record.get_mut(&*field.name) {
                field.conceal(value);
            }
        }
    }
}

impl Field {
    fn conceal(&self, value: &mut Value) {
        if self.encrypted {
            conceal_texts(value);
            return;
        }
        match (&self.kind, value) {
            (Kind::Record(record), Value::Object(fields)) => record.conceal(fields),
            (Kind::Array(element) | Kind::Set(element), Value::Array(all)) => {
                for one in all {
                    element.conceal(one);
                }
            }
            (Kind::Map { values, .. }, Value::Object(all)) => {
                for one in all.values_mut() {
                    values.conceal(one);
                }
            }
            _ => {}
        }
    }
}

fn conceal_texts(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::String(text) if super::is_reference(text) => {}
        Value::String(text) => *text = Secret::new(text.as_str()).fingerprint(),
        Value::Number(number) => {
            *value = Secret::new(number.to_string()).fingerprint().into();
        }
        Value::Array(all) => all.iter_mut().for_each(conceal_texts),
        Value::Object(all) => all.values_mut().for_each(conceal_texts),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::json;

    use super::super::{array, map, record, string};
    use super::*;

    #[test]
    fn replaces_secrets_wherever_they_stand() {
        let inner = Record::new(vec![
            string().encrypted().named("password"),
            string().named("host"),
        ]);
        let schema = Record::new(vec![
            record(inner).named("server"),
            array(string().encrypted()).named("keys"),
            map(string(), string().encrypted()).named("tokens"),
            string().encrypted().named("vault"),
            string().named("name"),
        ]);
        let mut value = json!({
            "server": {"password": "hunter2", "host": "h"}, "keys": ["k1", "k2"],
            "tokens": {"a": "t"}, "vault": "{vault://env/x}", "name": "n",
        });
        let Value::Object(fields) = &mut value else {
            panic!("an object");
        };
        schema.conceal(fields);
        let text = value.to_string();
        for secret in ["hunter2", "k1", "k2", "\"t\""] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(value["server"]["host"], "h");
        assert_eq!(value["vault"], "{vault://env/x}");
        assert_eq!(value["name"], "n");
        assert!(value["keys"][0].as_str().unwrap().starts_with("sha256:"));
    }
}
