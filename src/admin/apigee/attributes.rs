//! Attributes of products, developers, apps and keys, each by its name.

use http::Method;
use serde_json::json;

use super::call::Call;
use super::collection::{borrowed, find, owned};
use super::reply::Reply;
use crate::dialects::apigee::entities::{Attribute, Entity, Stamp};
use crate::dialects::apigee::error::ApiError;

/// Answers calls below `attributes` of the entity under a key. `list` finds its attributes, `stamp` its stamp, where it
/// has one.
pub(super) async fn answer<E>(
    call: &Call,
    key: &[&str],
    rest: &[&str],
    list: fn(&mut E) -> &mut Vec<Attribute>,
    stamp: fn(&mut E) -> Option<&mut Stamp>,
) -> Result<Reply, ApiError>
where
    E: Entity + Send + 'static,
{
    let mut known: E = find(&call.set(), key)?;
    let attributes = list(&mut known);
    let missing = |name: &str| {
        ApiError::missing(
            "keymanagement.service.attribute_doesnot_exist",
            format!("attribute {name} does not exist"),
        )
    };
    let one = |name: &str| {
        let found = attributes.iter().find(|attribute| attribute.name == name);
        found.cloned().ok_or_else(|| missing(name))
    };
    let (edit, shown, root) = match (&call.method, rest) {
        (&Method::GET, []) => {
            return Ok(Reply::ok("Attributes", json!({"attribute": attributes})));
        }
        (&Method::GET, [name]) => return Ok(Reply::ok("Attribute", json!(one(name)?))),
        (&Method::POST | &Method::PUT, []) => {
            let mut fields = call.fields()?;
            // The list is called `attribute` in answers, and either in bodies.
            if let Some(given) = fields.take("attribute") {
                fields.set("attributes", given);
            }
            let given = fields.attributes()?.unwrap_or_default();
            fields.finish()?;
            (
                Edit::All(given.clone()),
                json!({"attribute": given}),
                "Attributes",
            )
        }
        (&Method::POST | &Method::PUT, [name]) => {
            let mut fields = call.named_fields(Some(name))?;
            let given = Attribute {
                name: fields.needed("name")?,
                value: fields.text("value")?.unwrap_or_default(),
            };
            fields.finish()?;
            (Edit::Set(given.clone()), json!(given), "Attribute")
        }
        (&Method::DELETE, [name]) => {
            let known = one(name)?;
            (Edit::Remove(known.name.clone()), json!(known), "Attribute")
        }
        _ => return Err(call.unknown()),
    };
    let (key, user) = (owned(key), call.user.clone());
    let written = call.write(move |set, moment| {
        let key = borrowed(&key);
        let mut entity: E = find(set, &key)?;
        let attributes = list(&mut entity);
        match &edit {
            Edit::All(given) => attributes.clone_from(given),
            Edit::Set(given) => Attribute::set(attributes, given.clone())?,
            Edit::Remove(name) => attributes.retain(|attribute| attribute.name != *name),
        }
        if let Some(stamp) = stamp(&mut entity) {
            *stamp = stamp.touched(moment.unix_ms(), &user);
        }
        Ok(((), vec![set.put(&key, &entity)]))
    });
    let revision = written.await?.1;
    Ok(Reply::ok(root, shown).at(revision))
}

enum Edit {
    All(Vec<Attribute>),
    Set(Attribute),
    Remove(String),
}
