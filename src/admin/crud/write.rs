//! Writes: bodies in, one commit, the row as it is now out.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Operation, Parent, Place, Verb, coerce, find, find_child, find_parent, link_of, render,
    top_level_key,
};
use crate::admin::answer::{Answer, Outcome};
use crate::admin::body::Fields;
use crate::admin::call::Call;
use crate::admin::state::Admin;
use crate::dialects::kong::entities::{EntityKind, WriteContext};
use crate::dialects::kong::entity_set::{Change, EntitySet, RowKey, Written};
use crate::dialects::kong::error::ApiError;

/// What a write inside the control plane answers with.
pub(in crate::admin) struct Done {
    pub(in crate::admin) status: StatusCode,
    /// JSON text; empty for none.
    pub(in crate::admin) body: String,
}

impl Done {
    /// 200 with JSON text.
    pub(in crate::admin) fn ok(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            body,
        }
    }

    /// 204.
    pub(in crate::admin) fn no_content() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: String::new(),
        }
    }
}

/// Why a write was refused: by the rules, or because a path leads nowhere.
pub(in crate::admin) enum Refused {
    Rule(ApiError),
    Answer(Answer),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Rule(error)
    }
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// The outcome of a write inside the control plane, with everything that it changed.
pub(in crate::admin) type Attempt = Result<(Done, Vec<Change>), Refused>;

/// Runs a write operation.
pub(super) async fn write(admin: &Arc<Admin>, operation: Operation, call: &Call) -> Outcome {
    let given = if operation.writes_fields() {
        call.fields().await?
    } else {
        Fields::default()
    };
    refuse_without_database(admin, operation, call)?;
    let keys = call.keys.clone();
    commit(admin, move |admin, set, context| {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let attempt = Writing {
            admin,
            operation,
            keys: &keys,
            given: &given,
        };
        attempt.run(set, context)
    })
    .await
}

/// Commits what `attempt` does to the entities; it may run more than once, on a fresh copy each time.
pub(in crate::admin) async fn commit<F>(admin: &Arc<Admin>, mut attempt: F) -> Outcome
where
    F: FnMut(&Admin, &mut EntitySet, &mut WriteContext<'_>) -> Attempt + Send + 'static,
{
    let shared = admin.clone();
    let written = admin
        .control
        .write_kong(move |set, moment| {
            let mut new_id = Uuid::new_v4;
            let mut context = WriteContext {
                now_millis: moment.unix_ms(),
                catalog: &shared.catalog,
                flavor: shared.flavor(),
                new_id: &mut new_id,
                already_transformed: false,
            };
            let before = set.clone();
            match attempt(&shared, set, &mut context) {
                Ok((done, changes)) => Ok((Ok(done), changes)),
                Err(Refused::Rule(error)) => Err(error),
                Err(Refused::Answer(answer)) => {
                    // To the control plane this is a write that changes nothing, so nothing may be left of it.
                    *set = before;
                    Ok((Err(answer), Vec::new()))
                }
            }
        })
        .await;
    let (done, revision) = written?;
    let done = done?;
    let answer = if done.body.is_empty() {
        Answer::empty(done.status)
    } else {
        Answer::json_text(done.status, done.body)
    };
    Ok(answer.at_revision(revision))
}

/// Refuses writes of entities while a declarative document is the whole configuration.
pub(in crate::admin) fn refuse_without_database(
    admin: &Admin,
    operation: Operation,
    call: &Call,
) -> Result<(), Answer> {
    if !admin.is_db_less() {
        return Ok(());
    }
    let verb = match operation.verb {
        Verb::Create => "create",
        Verb::Replace => "create or update",
        Verb::Update => "update",
        Verb::Remove | Verb::Read => "remove",
    };
    let by = match operation.place {
        Place::Item { .. } => call.keys.last().and_then(|key| {
            let by_id = Uuid::try_parse(key).is_ok();
            let definition = admin.entities.definition(operation.kind);
            definition.endpoint_key.filter(|_| !by_id)
        }),
        _ => None,
    };
    Err(ApiError::unsupported_without_database(verb, operation.kind.table(), by).into())
}

/// One write on a draft of the entities.
struct Writing<'w> {
    admin: &'w Admin,
    operation: Operation,
    keys: &'w [&'w str],
    given: &'w Fields,
}

impl Writing<'_> {
    fn run(&self, set: &mut EntitySet, context: &mut WriteContext<'_>) -> Attempt {
        match self.operation.place {
            Place::Collection { below } => self.create(set, below, context),
            Place::Item { below } => match self.operation.verb {
                Verb::Remove => self.remove(set, below),
                Verb::Update => self.update(set, below, context),
                _ => self.replace(set, below, context),
            },
            Place::Linked { child, field } => self.write_linked(set, child, field, context),
        }
    }

    fn key(&self, index: usize) -> &str {
        self.keys.get(index).copied().unwrap_or_default()
    }

    /// The fields given, typed, and tied to the parent of the path.
    fn fields(&self, plugin: Option<&str>, tie: Option<(&str, Uuid)>) -> Map<String, Value> {
        let mut fields = self.given.values.clone();
        let definition = self.admin.entities.definition(self.operation.kind);
        if !self.given.typed {
            coerce(self.admin, definition, &mut fields, plugin);
        }
        if let Some((field, parent)) = tie {
            fields.insert(field.to_owned(), json!({ "id": parent }));
        }
        fields
    }

    fn parent(
        &self,
        set: &EntitySet,
        below: Option<Parent>,
    ) -> Result<Option<(&'static str, Uuid)>, Refused> {
        match below {
            None => Ok(None),
            Some(parent) => {
                let id = find_parent(set, self.admin, parent.kind, self.key(0))?;
                Ok(Some((parent.field, id)))
            }
        }
    }

    fn create(
        &self,
        set: &mut EntitySet,
        below: Option<Parent>,
        context: &mut WriteContext<'_>,
    ) -> Attempt {
        let tie = self.parent(set, below)?;
        let fields = self.fields(None, tie);
        let written = set.create(self.operation.kind, fields, context)?;
        Ok(self.done(set, StatusCode::CREATED, written))
    }

    fn replace(
        &self,
        set: &mut EntitySet,
        below: Option<Parent>,
        context: &mut WriteContext<'_>,
    ) -> Attempt {
        let tie = self.parent(set, below)?;
        let key = self.item_key(below)?;
        let kind = self.operation.kind;
        let existing = set.find(kind, &key, tie.map(|(_, id)| id));
        if let (Some(row), Some((field, parent))) = (existing, tie)
            && link_of(row, field) != Some(parent)
        {
            return Err(Answer::not_found().into());
        }
        if existing.is_none() && !self.admin.entities.definition(kind).put_creates {
            return Err(Answer::not_found().into());
        }
        let fields = self.fields(None, tie);
        let written = set.upsert(kind, &key, tie.map(|(_, id)| id), fields, context)?;
        Ok(self.done(set, StatusCode::OK, written))
    }

    fn update(
        &self,
        set: &mut EntitySet,
        below: Option<Parent>,
        context: &mut WriteContext<'_>,
    ) -> Attempt {
        let tie = self.parent(set, below)?;
        let key = self.item_key(below)?;
        let kind = self.operation.kind;
        let existing = set.find(kind, &key, tie.map(|(_, id)| id));
        let belongs =
            |row: &_| tie.is_none_or(|(field, parent)| link_of(row, field) == Some(parent));
        let Some(row) = existing.filter(|row| belongs(row)) else {
            let nameless = kind == EntityKind::Plugin && !self.given.values.contains_key("name");
            if nameless || tie.is_some() {
                return Err(Answer::not_found().into());
            }
            return Err(key.not_found(self.admin.entities.definition(kind)).into());
        };
        // Below a parent the link stays as it is, unless the client moves the row on purpose.
        let plugin = (kind == EntityKind::Plugin).then(|| row.fields());
        let plugin = plugin
            .as_ref()
            .and_then(|fields| fields.get("name"))
            .and_then(Value::as_str);
        let fields = self.fields(plugin, None);
        let key = RowKey::Id(row.id);
        let written = set.patch(kind, &key, None, fields, context)?;
        Ok(self.done(set, StatusCode::OK, written))
    }

    fn remove(&self, set: &mut EntitySet, below: Option<Parent>) -> Attempt {
        let kind = self.operation.kind;
        let id = match self.parent(set, below)? {
            None => find(set, self.admin, kind, self.key(0))?.map(|row| row.id),
            Some((field, parent)) => {
                let row = find_child(set, self.admin, kind, self.key(1), field, parent)?;
                Some(row.ok_or_else(Answer::not_found)?.id)
            }
        };
        let changes = match id {
            Some(id) => set.delete(kind, &RowKey::Id(id), None)?,
            None => Vec::new(),
        };
        Ok((Done::no_content(), changes))
    }

    /// The row that a child links to.
    fn write_linked(
        &self,
        set: &mut EntitySet,
        child: EntityKind,
        field: &'static str,
        context: &mut WriteContext<'_>,
    ) -> Attempt {
        let kind = self.operation.kind;
        let row = find(set, self.admin, child, self.key(0))?
            .cloned()
            .ok_or_else(Answer::not_found)?;
        let linked = set.linked_row(&row, field).map(|linked| linked.id);
        match (self.operation.verb, linked) {
            (Verb::Remove, Some(_)) => Err(Answer::method_not_allowed().into()),
            (Verb::Remove | Verb::Update, None) => Err(Answer::not_found().into()),
            (Verb::Update, Some(id)) => {
                let plugin = None;
                let fields = self.fields(plugin, None);
                let written = set.patch(kind, &RowKey::Id(id), None, fields, context)?;
                Ok(self.done(set, StatusCode::OK, written))
            }
            (_, Some(id)) => {
                let fields = self.fields(None, None);
                let written = set.upsert(kind, &RowKey::Id(id), None, fields, context)?;
                Ok(self.done(set, StatusCode::OK, written))
            }
            (_, None) => {
                let fields = self.fields(None, None);
                let mut written = set.create(kind, fields, context)?;
                let link = Map::from_iter([(field.to_owned(), json!({ "id": written.row.id }))]);
                let tied = set.patch(child, &RowKey::Id(row.id), None, link, context)?;
                written.changes.extend(tied.changes);
                Ok(self.done(set, StatusCode::OK, written))
            }
        }
    }

    fn item_key(&self, below: Option<Parent>) -> Result<RowKey, ApiError> {
        let definition = self.admin.entities.definition(self.operation.kind);
        match below {
            None => top_level_key(definition, self.key(0)),
            Some(_) => RowKey::read(definition, self.key(1)),
        }
    }

    fn done(&self, set: &EntitySet, status: StatusCode, written: Written) -> (Done, Vec<Change>) {
        let body = render(set, self.admin, &written.row);
        (Done { status, body }, written.changes)
    }
}
