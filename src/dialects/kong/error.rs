//! The errors of the Admin API and of declarative documents: codes, names, statuses and texts as clients know them.
//!
//! Source: Kong, "error model". Whoever answers a client renders [`ApiError::to_json`] with [`ApiError::status`].

use std::fmt;

use serde_json::{Map, Value, json};

use crate::model::schema::{ENTITY, FieldErrors};

/// What went wrong, as one of the numbered kinds that clients tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// The id in the path is no id.
    InvalidPrimaryKey = 1,
    /// A field or a combination of fields is not allowed.
    SchemaViolation = 2,
    /// A row with this id exists.
    PrimaryKeyViolation = 3,
    /// A link leads nowhere, or a row is still linked.
    ForeignKeyViolation = 4,
    /// Another row holds this value.
    UniqueViolation = 5,
    /// There is no such row.
    NotFound = 6,
    /// The page offset cannot be read.
    InvalidOffset = 7,
    /// The store failed.
    DatabaseError = 8,
    /// The page size is not allowed.
    InvalidSize = 9,
    /// The value of an endpoint key is not allowed.
    InvalidUnique = 10,
    /// A query option is not allowed.
    InvalidOptions = 11,
    /// The store in use does not offer the operation.
    OperationUnsupported = 12,
    /// A link by name leads nowhere.
    ForeignKeysUnresolved = 13,
    /// A declarative document is not allowed.
    DeclarativeConfig = 14,
    /// A value could not be transformed for storage.
    TransformationError = 15,
    /// A link is malformed.
    InvalidForeignKey = 16,
    /// The workspace does not exist.
    InvalidWorkspace = 17,
    /// A key cannot serve a query over all workspaces.
    InvalidUniqueGlobal = 18,
    /// Other rows still use this one.
    ReferencedByOthers = 19,
    /// A search query is not allowed.
    InvalidSearchQuery = 20,
    /// Synchronisation data is not allowed.
    InvalidSyncDeltas = 21,
}

impl ErrorCode {
    /// Every code, in order.
    pub const ALL: [Self; 21] = [
        Self::InvalidPrimaryKey,
        Self::SchemaViolation,
        Self::PrimaryKeyViolation,
        Self::ForeignKeyViolation,
        Self::UniqueViolation,
        Self::NotFound,
        Self::InvalidOffset,
        Self::DatabaseError,
        Self::InvalidSize,
        Self::InvalidUnique,
        Self::InvalidOptions,
        Self::OperationUnsupported,
        Self::ForeignKeysUnresolved,
        Self::DeclarativeConfig,
        Self::TransformationError,
        Self::InvalidForeignKey,
        Self::InvalidWorkspace,
        Self::InvalidUniqueGlobal,
        Self::ReferencedByOthers,
        Self::InvalidSearchQuery,
        Self::InvalidSyncDeltas,
    ];

    /// The name that stands beside the number.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidPrimaryKey => "invalid primary key",
            Self::SchemaViolation => "schema violation",
            Self::PrimaryKeyViolation => "primary key violation",
            Self::ForeignKeyViolation => "foreign key violation",
            Self::UniqueViolation => "unique constraint violation",
            Self::NotFound => "not found",
            Self::InvalidOffset => "invalid offset",
            Self::DatabaseError => "database error",
            Self::InvalidSize => "invalid size",
            Self::InvalidUnique => "invalid unique",
            Self::InvalidOptions => "invalid options",
            Self::OperationUnsupported => "operation unsupported",
            Self::ForeignKeysUnresolved => "foreign keys unresolved",
            Self::DeclarativeConfig => "invalid declarative configuration",
            Self::TransformationError => "transformation error",
            Self::InvalidForeignKey => "invalid foreign key",
            Self::InvalidWorkspace => "invalid workspace",
            Self::InvalidUniqueGlobal => "invalid global query",
            Self::ReferencedByOthers => "referenced by others",
            Self::InvalidSearchQuery => "invalid search query",
            Self::InvalidSyncDeltas => "invalid sync deltas",
        }
    }

    /// The HTTP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::UniqueViolation => 409,
            Self::NotFound => 404,
            Self::DatabaseError | Self::TransformationError => 500,
            Self::OperationUnsupported => 405,
            _ => 400,
        }
    }
}

/// An error answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// Which kind.
    pub code: ErrorCode,
    /// The text for people.
    pub message: String,
    /// What is wrong where; `options` in the answer for [`ErrorCode::InvalidOptions`].
    pub fields: Option<Map<String, Value>>,
    /// The endpoint key that stands in the name, for [`ErrorCode::InvalidUnique`].
    unique: Option<Box<str>>,
}

impl ApiError {
    fn new(code: ErrorCode, message: String, fields: Option<Map<String, Value>>) -> Self {
        Self {
            code,
            message,
            fields,
            unique: None,
        }
    }

    /// Code 1: the id in the path is no UUID.
    pub fn invalid_primary_key(fields: Map<String, Value>) -> Self {
        let message = format!("invalid primary key: '{}'", lua_table(&fields));
        Self::new(ErrorCode::InvalidPrimaryKey, message, Some(fields))
    }

    /// Code 1 for a key that is not in UUID form.
    pub fn not_a_uuid() -> Self {
        Self::invalid_primary_key(single("id", "expected a valid UUID"))
    }

    /// Code 2.
    pub fn schema_violation(errors: FieldErrors) -> Self {
        let lines = complaint_lines(&errors.0);
        let message = counted(&lines, "schema violation", "schema violations");
        Self::new(ErrorCode::SchemaViolation, message, Some(errors.0))
    }

    /// Code 2 for one field.
    pub fn field(path: &str, message: impl Into<String>) -> Self {
        Self::schema_violation(FieldErrors::one(path, message))
    }

    /// Code 3.
    pub fn primary_key_violation(id: &str) -> Self {
        let fields = single("id", id);
        let message = format!("primary key violation on key '{}'", lua_table(&fields));
        Self::new(ErrorCode::PrimaryKeyViolation, message, Some(fields))
    }

    /// Code 4: a link leads nowhere.
    pub fn foreign_key_missing(field: &str, parent_table: &str, id: &str) -> Self {
        let key = single("id", id);
        let message = format!(
            "the foreign key '{}' does not reference an existing '{parent_table}' entity.",
            lua_table(&key)
        );
        let mut fields = Map::new();
        fields.insert(field.to_owned(), Value::Object(key));
        Self::new(ErrorCode::ForeignKeyViolation, message, Some(fields))
    }

    /// Code 4: the row is still linked.
    pub fn foreign_key_restricted(parent_table: &str, child_table: &str) -> Self {
        let message =
            format!("an existing '{child_table}' entity references this '{parent_table}' entity");
        let fields = single("@referenced_by", child_table);
        Self::new(ErrorCode::ForeignKeyViolation, message, Some(fields))
    }

    /// Code 5; `key` holds the fields that together must be unique.
    pub fn unique_violation(key: Map<String, Value>) -> Self {
        let message = format!("UNIQUE violation detected on '{}'", lua_table(&key));
        Self::new(ErrorCode::UniqueViolation, message, Some(key))
    }

    /// Code 6, looked up by id.
    pub fn not_found(id: &str) -> Self {
        let fields = single("id", id);
        let message = format!(
            "could not find the entity with primary key '{}'",
            lua_table(&fields)
        );
        Self::new(ErrorCode::NotFound, message, Some(fields))
    }

    /// Code 6, looked up by an endpoint key.
    pub fn not_found_by(field: &str, value: &str) -> Self {
        let fields = single(field, value);
        let message = format!("could not find the entity with '{}'", lua_table(&fields));
        Self::new(ErrorCode::NotFound, message, Some(fields))
    }

    /// Code 7.
    pub fn invalid_offset(offset: &str, reason: &str) -> Self {
        let message = format!("'{offset}' is not a valid offset: {reason}");
        Self::new(ErrorCode::InvalidOffset, message, None)
    }

    /// Code 8. The answer hides the message; the log shows it.
    pub fn database_error(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::DatabaseError, message.into(), None)
    }

    /// Code 9.
    pub fn invalid_size(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidSize, message.into(), None)
    }

    /// Code 10: the value of an endpoint key breaks its own rule.
    pub fn invalid_unique(field: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorCode::InvalidUnique, message.into(), None);
        error.unique = Some(field.into());
        error
    }

    /// Code 11.
    pub fn invalid_options(errors: FieldErrors) -> Self {
        let lines = complaint_lines(&errors.0);
        let message = counted(&lines, "invalid option", "option violations");
        Self::new(ErrorCode::InvalidOptions, message, Some(errors.0))
    }

    /// Code 12: writing while a file is the configuration; `verb` is create, update, create or update, remove.
    pub fn unsupported_without_database(verb: &str, table: &str, by: Option<&str>) -> Self {
        let by = by.map_or(String::new(), |key| format!(" by '{key}'"));
        let message = format!("cannot {verb} '{table}' entities{by} when not using a database");
        Self::new(ErrorCode::OperationUnsupported, message, None)
    }

    /// Code 12 with a text of its own.
    pub fn operation_unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::OperationUnsupported, message.into(), None)
    }

    /// Code 13: a link by a unique field leads nowhere.
    pub fn foreign_key_unresolved(field: &str, key: &str, value: &str, parent: &str) -> Self {
        let text = format!(
            "the foreign key cannot be resolved with '{}' for an existing '{parent}' entity",
            lua_table(&single(key, value))
        );
        let message = format!("foreign key unresolved ({field}.{key}: {text})");
        let fields = FieldErrors::one(&format!("{field}.{key}"), text);
        Self::new(ErrorCode::ForeignKeysUnresolved, message, Some(fields.0))
    }

    /// Code 14.
    pub fn declarative_config(fields: Map<String, Value>) -> Self {
        let message = format!("declarative config is invalid: {}", lua_table(&fields));
        Self::new(ErrorCode::DeclarativeConfig, message, Some(fields))
    }

    /// Code 15.
    pub fn transformation_error(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::TransformationError, message.into(), None)
    }

    /// Code 16.
    pub fn invalid_foreign_key(fields: Map<String, Value>) -> Self {
        let message = format!("invalid foreign key: '{}'", lua_table(&fields));
        Self::new(ErrorCode::InvalidForeignKey, message, Some(fields))
    }

    /// Code 17.
    pub fn invalid_workspace(name: &str) -> Self {
        let message = format!("invalid workspace '{name}'");
        Self::new(ErrorCode::InvalidWorkspace, message, None)
    }

    /// Code 18.
    pub fn invalid_unique_global(name: &str) -> Self {
        let message = format!("unique key {name} is invalid for global query");
        Self::new(ErrorCode::InvalidUniqueGlobal, message, None)
    }

    /// Code 19.
    pub fn referenced_by_others(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ReferencedByOthers, message.into(), None)
    }

    /// Code 20.
    pub fn invalid_search_query(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidSearchQuery, message.into(), None)
    }

    /// Code 21.
    pub fn invalid_sync_deltas(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidSyncDeltas, message.into(), None)
    }

    /// The name that stands beside the number.
    pub fn name(&self) -> String {
        match &self.unique {
            Some(field) => format!("{} {field}", self.code.name()),
            None => self.code.name().to_owned(),
        }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        self.code.status()
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Value {
        if self.code == ErrorCode::DatabaseError {
            return json!({ "message": "An unexpected error occurred" });
        }
        let mut body = Map::new();
        body.insert("code".into(), Value::from(self.code as u8));
        if let Some(fields) = &self.fields {
            let name = match self.code {
                ErrorCode::InvalidOptions => "options",
                _ => "fields",
            };
            body.insert(name.into(), Value::Object(fields.clone()));
        }
        body.insert("message".into(), Value::from(self.message.as_str()));
        body.insert("name".into(), Value::from(self.name()));
        Value::Object(body)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<FieldErrors> for ApiError {
    fn from(errors: FieldErrors) -> Self {
        Self::schema_violation(errors)
    }
}

fn single(field: &str, value: &str) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert(field.to_owned(), Value::from(value));
    map
}

/// One line for each complaint: those about the whole first, then by field, at most two levels deep.
fn complaint_lines(errors: &Map<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(Value::Array(whole)) = errors.get(ENTITY) {
        lines.extend(whole.iter().map(text_of));
    }
    for (name, complaint) in sorted(errors) {
        match complaint {
            _ if name == ENTITY => {}
            Value::Object(inner) => {
                for (sub, complaint) in sorted(inner) {
                    lines.push(format!("{name}.{sub}: {}", text_of(complaint)));
                }
            }
            Value::Array(list) => {
                for (index, complaint) in list.iter().enumerate() {
                    if !complaint.is_null() {
                        lines.push(format!("{name}.{}: {}", index + 1, text_of(complaint)));
                    }
                }
            }
            text => lines.push(format!("{name}: {}", text_of(text))),
        }
    }
    lines
}

fn counted(lines: &[String], one: &str, many: &str) -> String {
    match lines {
        [line] => format!("{one} ({line})"),
        lines => format!("{} {many} ({})", lines.len(), lines.join("; ")),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => {
            let mut out = String::new();
            write_lua(&mut out, other, Some(1));
            out
        }
    }
}

fn sorted(map: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut entries: Vec<(&str, &Value)> = map
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// A map in compact Lua notation: `{k="v",n={id="…"}}`, keys sorted.
pub fn lua_table(map: &Map<String, Value>) -> String {
    let mut out = String::new();
    write_lua_map(&mut out, map, None);
    out
}

/// `depth` is the indentation of what stands inside; `None` writes everything on one line.
fn write_lua(out: &mut String, value: &Value, depth: Option<usize>) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
        Value::String(text) => write_lua_text(out, text),
        Value::Array(list) => write_lua_list(out, list, depth),
        Value::Object(map) => write_lua_map(out, map, depth),
    }
}

fn write_lua_map(out: &mut String, map: &Map<String, Value>, depth: Option<usize>) {
    let entries = sorted(map)
        .into_iter()
        .map(|(key, value)| (Some(lua_key(key)), value))
        .collect();
    write_lua_entries(out, entries, depth);
}

fn write_lua_list(out: &mut String, list: &[Value], depth: Option<usize>) {
    // Nulls are holes; behind the first hole the index must be written.
    let mut dense = true;
    let mut entries = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        if value.is_null() {
            dense = false;
        } else if dense {
            entries.push((None, value));
        } else {
            entries.push((Some(format!("[{}]", index + 1)), value));
        }
    }
    write_lua_entries(out, entries, depth);
}

fn write_lua_entries(
    out: &mut String,
    entries: Vec<(Option<String>, &Value)>,
    depth: Option<usize>,
) {
    out.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let Some(depth) = depth {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        }
        if let Some(key) = key {
            out.push_str(key);
            out.push_str(if depth.is_some() { " = " } else { "=" });
        }
        write_lua(out, value, depth.map(|depth| depth + 1));
    }
    if let Some(depth) = depth
        && !entries.is_empty()
    {
        out.push('\n');
        out.push_str(&"  ".repeat(depth - 1));
    }
    out.push('}');
}

fn lua_key(key: &str) -> String {
    let identifier = !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if identifier {
        return key.to_owned();
    }
    let mut out = String::from("[");
    write_lua_text(&mut out, key);
    out.push(']');
    out
}

fn write_lua_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    fn errors(value: Value) -> FieldErrors {
        match value {
            Value::Object(map) => FieldErrors(map),
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn schema_violations_read_as_clients_know_them() {
        for (tree, message) in [
            (
                json!({"sources": "cannot set 'sources' when 'protocols' is 'http' or 'https'"}),
                "schema violation (sources: cannot set 'sources' when 'protocols' is 'http' or 'https')",
            ),
            (
                json!({
                    "path": "value must be null",
                    "@entity": ["failed conditional validation given value of field 'protocol'"],
                }),
                "2 schema violations (failed conditional validation given value of field 'protocol'; path: value must be null)",
            ),
            (
                json!({"paths": [null, "should start with: /"]}),
                "schema violation (paths.2: should start with: /)",
            ),
            (
                json!({"config": {"queue": {"max_batch_size": "expected an integer"}}}),
                "schema violation (config.queue: {\n  max_batch_size = \"expected an integer\"\n})",
            ),
        ] {
            let error = ApiError::schema_violation(errors(tree));
            assert_eq!(error.message, message);
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn the_sources_example_is_exact() {
        let error = ApiError::field(
            "sources",
            "cannot set 'sources' when 'protocols' is 'http' or 'https'",
        );
        assert_eq!(
            error.to_json(),
            json!({
                "code": 2,
                "fields": {"sources": "cannot set 'sources' when 'protocols' is 'http' or 'https'"},
                "message": "schema violation (sources: cannot set 'sources' when 'protocols' is 'http' or 'https')",
                "name": "schema violation",
            })
        );
    }

    #[test]
    fn keys_are_written_in_lua_notation() {
        let Value::Object(key) = json!({
            "service": {"id": "x"}, "name": "basic-auth", "route": null, "consumer": null,
        }) else {
            panic!("an object");
        };
        assert_eq!(
            ApiError::unique_violation(key).message,
            "UNIQUE violation detected on '{consumer=null,name=\"basic-auth\",route=null,service={id=\"x\"}}'"
        );
        assert_eq!(
            ApiError::not_a_uuid().message,
            "invalid primary key: '{id=\"expected a valid UUID\"}'"
        );
        assert_eq!(
            ApiError::foreign_key_unresolved("service", "name", "x", "services").message,
            "foreign key unresolved (service.name: the foreign key cannot be resolved with '{name=\"x\"}' for an existing 'services' entity)"
        );
    }

    #[test]
    fn codes_are_numbered_from_one() {
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index + 1);
        }
        assert_eq!(
            ApiError::invalid_unique("name", "x").to_json()["name"],
            "invalid unique name"
        );
    }
}
