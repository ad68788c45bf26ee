//! Organisations: shown, never made.

use serde_json::{Value, json};

use super::call::Call;
use super::reply::Reply;
use crate::dialects::apigee::entities::{Kind, Organization};
use crate::dialects::apigee::error::ApiError;

/// `GET /organizations`
pub(super) fn list(call: &Call) -> Result<Reply, ApiError> {
    if call.method != http::Method::GET {
        return Err(call.unknown());
    }
    let set = call.set();
    let names: Vec<&str> = set
        .list(Kind::Organization, &[])
        .map(|row| row.name())
        .collect();
    Ok(Reply::ok("List", json!(names)))
}

/// `GET /organizations/O`
pub(super) fn show(call: &Call) -> Result<Reply, ApiError> {
    if call.method != http::Method::GET {
        return Err(call.unknown());
    }
    let set = call.set();
    let name = call.organization.as_str();
    let organization: Option<Organization> = set.find(&[name]);
    let stamp = organization.map(|organization| organization.stamp);
    let environments: Vec<&str> = set
        .list(Kind::Environment, &[name])
        .map(|row| row.name())
        .collect();
    let mut shown = json!({
        "name": name,
        "displayName": name,
        "environments": environments,
        // With this property clients write single entries of key-value maps.
        "properties": {"property": [{"name": "features.isCpsEnabled", "value": "true"}]},
        "type": "trial",
    });
    if let (Some(fields), Ok(Value::Object(stamp))) =
        (shown.as_object_mut(), serde_json::to_value(stamp))
    {
        fields.extend(stamp);
    }
    Ok(Reply::ok("Organization", shown))
}
