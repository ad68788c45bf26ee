//! The shorthand `snis` of certificates: one write that changes a certificate and its server names together.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::prepare::Manner;
use super::{EntitySet, Written};
use crate::dialects::kong::entities::{EntityKind, SNIS, WriteContext};
use crate::dialects::kong::error::ApiError;

/// Server names of one certificate at most.
const NAMES_MAX: usize = 10_000;

impl EntitySet {
    /// Reads and checks a list of server names for a certificate (`None`: a new one). Null is the empty list.
    pub(super) fn check_snis(
        &self,
        list: &Value,
        certificate: Option<Uuid>,
    ) -> Result<Vec<String>, ApiError> {
        let shorthand = EntityKind::Certificate
            .definition()
            .writable(SNIS)
            .map(|field| field.validate(list));
        if let Some(Err(error)) = shorthand {
            let mut errors = crate::model::schema::FieldErrors::new();
            errors.add_tree(SNIS, error);
            return Err(ApiError::schema_violation(errors));
        }
        let mut names: Vec<String> = list
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if names.len() > NAMES_MAX {
            return Err(ApiError::field(
                SNIS,
                format!("length must be at most {NAMES_MAX}"),
            ));
        }
        names.sort_unstable();
        for pair in names.windows(2) {
            if let [first, second] = pair
                && first == second
            {
                return Err(ApiError::field(SNIS, format!("{first} is duplicated")));
            }
        }
        for name in &names {
            let holder = self.certificate_of_sni(name).map(|row| row.id);
            if let Some(holder) = holder
                && Some(holder) != certificate
            {
                return Err(ApiError::field(
                    SNIS,
                    format!("{name} already associated with existing certificate '{holder}'"),
                ));
            }
        }
        Ok(names)
    }

    /// Makes the server names of a certificate exactly these, which are sorted.
    pub(super) fn set_snis(
        &mut self,
        written: &mut Written,
        names: &[String],
        context: &mut WriteContext<'_>,
    ) -> Result<(), ApiError> {
        let certificate = written.row.id;
        let present: BTreeMap<String, Uuid> = self
            .children(EntityKind::Sni, "certificate", certificate)
            .filter_map(|row| Some((row.fields().get("name")?.as_str()?.to_owned(), row.id)))
            .collect();
        for (name, id) in &present {
            if names.binary_search(name).is_err() {
                written.changes.extend(self.take(EntityKind::Sni, *id));
            }
        }
        for name in names {
            if present.contains_key(name) {
                continue;
            }
            let fields = json!({ "name": name, "certificate": { "id": certificate } });
            let Value::Object(fields) = fields else {
                continue;
            };
            let prepared = self.prepare(EntityKind::Sni, None, fields, Manner::Whole, context)?;
            let sni = self.store(EntityKind::Sni, prepared, context)?;
            written.changes.extend(sni.changes);
        }
        Ok(())
    }
}
