//! `CORS`: lets pages of other origins read responses, and answers their preflight requests.

use serde::{Deserialize, Serialize};

use super::texts::{place, template};
use super::{Parsed, PolicyReader};
use crate::dialects::apigee::xml::{Element, Findings};

/// The policy as data; every text is a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub origins: String,
    pub methods: String,
    pub headers: Option<String>,
    pub exposed: Option<String>,
    /// Seconds; -1 forbids to keep the answer.
    pub max_age: String,
    pub allows_credentials: bool,
    pub answers_preflight: bool,
    pub ignore_unresolved: bool,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let list = |element: Option<Element<'_>>, findings: &mut Findings| {
        let element = element.filter(|element| !element.text().is_empty())?;
        Some(template(&element.text(), element, findings))
    };
    let origins_element = fields.child("AllowOrigins", findings);
    let origins = list(origins_element, findings);
    if origins.is_none() {
        findings.error("missing-element", fields.place(), "needs <AllowOrigins>");
    }
    let methods = list(fields.child("AllowMethods", findings), findings);
    let headers = list(fields.child("AllowHeaders", findings), findings);
    let exposed = list(fields.child("ExposeHeaders", findings), findings);
    let max_age_element = fields.child("MaxAge", findings);
    let max_age = list(max_age_element, findings).unwrap_or_else(|| "1800".to_owned());
    if let Some(element) = max_age_element
        && !max_age.contains('{')
        && !max_age.parse().is_ok_and(|seconds: i64| seconds >= -1)
    {
        findings.error(
            "invalid-value",
            place(element),
            format!("must be a number of seconds, or -1, not '{max_age}'"),
        );
    }
    let allows_credentials = fields.boolean("AllowCredentials", false, findings);
    if allows_credentials
        && let Some(element) = origins_element.filter(|_| {
            origins
                .as_deref()
                .is_some_and(|origins| origins.split(',').any(|origin| origin.trim() == "*"))
        })
    {
        findings.warning("invalid-value", place(element), "allows every origin with '*', which browsers refuse together with credentials: they are not allowed then");
    }
    let config = Config {
        origins: origins?,
        methods: methods.unwrap_or_else(|| "GET, POST, HEAD, OPTIONS".to_owned()),
        headers,
        exposed,
        max_age,
        allows_credentials,
        answers_preflight: fields.boolean("GeneratePreflightResponse", true, findings),
        ignore_unresolved: fields.boolean("IgnoreUnresolvedVariables", true, findings),
    };
    reader.parsed(&config)
}
