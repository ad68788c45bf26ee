//! API products: what apps are given access to.

use serde::{Deserialize, Serialize};

use super::{Attribute, Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// An API product of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiProduct {
    pub name: String,
    pub display_name: String,
    #[serde(default)]
    pub description: String,
    /// `auto` or `manual`: whether keys are good for it at once.
    pub approval_type: String,
    /// Proxies that it opens; none: all.
    pub proxies: Vec<String>,
    /// Environments that it opens; none: all.
    pub environments: Vec<String>,
    /// Path patterns that it opens; none: all.
    pub api_resources: Vec<String>,
    pub scopes: Vec<String>,
    /// Requests per interval that a Quota policy may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_interval: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_time_unit: Option<String>,
    pub attributes: Vec<Attribute>,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for ApiProduct {
    const KIND: Kind = Kind::ApiProduct;
}

impl ApiProduct {
    /// Reads a body, which replaces the whole entity.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        let name = fields.name()?;
        let product = Self {
            display_name: fields.text("displayName")?.unwrap_or_else(|| name.clone()),
            description: fields.text("description")?.unwrap_or_default(),
            approval_type: fields
                .text("approvalType")?
                .unwrap_or_else(|| "auto".to_owned()),
            proxies: fields.texts("proxies")?,
            environments: fields.texts("environments")?,
            api_resources: fields.texts("apiResources")?,
            scopes: fields
                .texts("scopes")?
                .into_iter()
                .filter(|scope| !scope.is_empty())
                .collect(),
            quota: fields.text("quota")?.filter(|text| is_given(text)),
            quota_interval: fields.text("quotaInterval")?.filter(|text| is_given(text)),
            quota_time_unit: fields.text("quotaTimeUnit")?.filter(|text| is_given(text)),
            attributes: fields.attributes()?.unwrap_or_default(),
            name,
            stamp,
        };
        if fields.take("operationGroup").is_some() || fields.take("graphqlOperationGroup").is_some()
        {
            return Err(ApiError::field(
                "operationGroup",
                "is not supported, use proxies and apiResources",
            ));
        }
        fields.ignore(&["fault"]);
        fields.finish()?;
        product.check()?;
        Ok(product)
    }

    fn check(&self) -> Result<(), ApiError> {
        if !["auto", "manual"].contains(&self.approval_type.as_str()) {
            return Err(ApiError::field(
                "approvalType",
                format!(
                    "'{}' is not known, allowed are auto and manual",
                    self.approval_type
                ),
            ));
        }
        for (name, value) in [
            ("quota", &self.quota),
            ("quotaInterval", &self.quota_interval),
        ] {
            if let Some(value) = value
                && value.parse::<u64>().is_err()
            {
                return Err(ApiError::field(
                    name,
                    format!("'{value}' is not a whole number"),
                ));
            }
        }
        if let Some(unit) = &self.quota_time_unit
            && !["second", "minute", "hour", "day", "week", "month"].contains(&unit.as_str())
        {
            return Err(ApiError::field(
                "quotaTimeUnit",
                format!("'{unit}' is not known, allowed are minute, hour, day, month"),
            ));
        }
        Ok(())
    }

    /// Whether keys are good for it without somebody's approval.
    pub fn is_approved_at_once(&self) -> bool {
        self.approval_type == "auto"
    }
}

/// Clients write `null` for what they leave out.
fn is_given(text: &str) -> bool {
    !text.is_empty() && text != "null"
}
