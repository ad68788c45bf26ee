//! Lists of entities that all work alike: list, create, show, update, delete by name.

use http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::reply::Reply;
use crate::dialects::apigee::entities::{Entity, Fields, Stamp};
use crate::dialects::apigee::entity_set::EntitySet;
use crate::dialects::apigee::error::ApiError;

/// What is special about one kind of entity.
pub(super) struct Collection<E> {
    /// The root element in XML.
    pub(super) root: &'static str,
    /// Reads a body.
    pub(super) read: fn(Fields, Stamp) -> Result<E, ApiError>,
    /// The name of what was read.
    pub(super) name: fn(&E) -> &str,
    pub(super) stamp: fn(&mut E) -> &mut Stamp,
    /// The answer that shows one; the key stands below the parents.
    pub(super) show: fn(&EntitySet, &[&str], &E) -> Value,
    /// Refuses what must not be written beside the other entities.
    pub(super) check: fn(&EntitySet, &[&str], &E) -> Result<(), ApiError>,
    /// Refuses to delete what is still used.
    pub(super) check_delete: fn(&EntitySet, &[&str], &E) -> Result<(), ApiError>,
}

/// Where a collection stands, for messages: `in environment test`.
fn place(parents: &[&str]) -> String {
    match parents {
        [_, environment, ..] => format!("in environment {environment}"),
        _ => "in the organization".to_owned(),
    }
}

/// No rule.
pub(super) fn anything<E>(_: &EntitySet, _: &[&str], _: &E) -> Result<(), ApiError> {
    Ok(())
}

/// Answers a call to a collection below `parents`: `rest` is empty, or holds a name.
pub(super) async fn answer<E>(
    call: &Call,
    collection: &'static Collection<E>,
    parents: &[&str],
    rest: &[&str],
) -> Result<Reply, ApiError>
where
    E: Entity + Clone + Send + 'static,
{
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => {
            let set = call.set();
            let names: Vec<&str> = set.list(E::KIND, parents).map(|row| row.name()).collect();
            Ok(Reply::ok("List", json!(names)))
        }
        (&Method::POST, []) => create(call, collection, parents).await,
        (&Method::GET | &Method::HEAD, [name]) => {
            let set = call.set();
            let key = [parents, &[name]].concat();
            let entity: E = find(&set, &key)?;
            Ok(Reply::ok(
                collection.root,
                (collection.show)(&set, &key, &entity),
            ))
        }
        (&Method::PUT | &Method::POST, [name]) => update(call, collection, parents, name).await,
        (&Method::DELETE, [name]) => delete(call, collection, parents, name).await,
        _ => Err(call.unknown()),
    }
}

/// The entity under a key.
pub(super) fn find<E: Entity>(set: &EntitySet, key: &[&str]) -> Result<E, ApiError> {
    set.find(key).ok_or_else(|| {
        let (name, parents) = key.split_last().unwrap_or((&"", &[]));
        E::KIND.missing(name, place(parents))
    })
}

async fn create<E>(
    call: &Call,
    collection: &'static Collection<E>,
    parents: &[&str],
) -> Result<Reply, ApiError>
where
    E: Entity + Clone + Send + 'static,
{
    let given = call
        .parameter("name")
        .filter(|_| call.method == Method::POST);
    let entity = (collection.read)(call.named_fields(given)?, Stamp::default())?;
    let (parents, user) = (owned(parents), call.user.clone());
    let written = call.write(move |set, moment| {
        let mut key = borrowed(&parents);
        let name = (collection.name)(&entity).to_owned();
        key.push(&name);
        if set.has(E::KIND, &key) {
            return Err(E::KIND.exists(&name, place(&borrowed(&parents))));
        }
        (collection.check)(set, &key, &entity)?;
        let mut entity = entity.clone();
        *(collection.stamp)(&mut entity) = Stamp::new(moment.unix_ms(), &user);
        let change = set.put(&key, &entity);
        let shown = (collection.show)(set, &key, &entity);
        Ok((shown, vec![change]))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::created(collection.root, shown).at(revision))
}

async fn update<E>(
    call: &Call,
    collection: &'static Collection<E>,
    parents: &[&str],
    name: &str,
) -> Result<Reply, ApiError>
where
    E: Entity + Clone + Send + 'static,
{
    let entity = (collection.read)(call.named_fields(Some(name))?, Stamp::default())?;
    let key = owned(&[parents, &[name]].concat());
    let user = call.user.clone();
    let written = call.write(move |set, moment| {
        let key = borrowed(&key);
        let mut known: E = find(set, &key)?;
        (collection.check)(set, &key, &entity)?;
        let mut entity = entity.clone();
        *(collection.stamp)(&mut entity) =
            (collection.stamp)(&mut known).touched(moment.unix_ms(), &user);
        let change = set.put(&key, &entity);
        let shown = (collection.show)(set, &key, &entity);
        Ok((shown, vec![change]))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::ok(collection.root, shown).at(revision))
}

async fn delete<E>(
    call: &Call,
    collection: &'static Collection<E>,
    parents: &[&str],
    name: &str,
) -> Result<Reply, ApiError>
where
    E: Entity + Clone + Send + 'static,
{
    let key = owned(&[parents, &[name]].concat());
    let written = call.write(move |set, _| {
        let key = borrowed(&key);
        let known: E = find(set, &key)?;
        (collection.check_delete)(set, &key, &known)?;
        let shown = (collection.show)(set, &key, &known);
        Ok((shown, set.remove(E::KIND, &key).into_iter().collect()))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::ok(collection.root, shown).at(revision))
}

/// Names that an operation can keep.
pub(super) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Names as keys take them.
pub(super) fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// An entity as it is stored: its fields have the names of the API.
pub(super) fn as_stored<E: Entity>(_: &EntitySet, _: &[&str], entity: &E) -> Value {
    serde_json::to_value(entity).unwrap_or_default()
}
