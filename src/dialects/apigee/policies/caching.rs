//! What the four cache policies have in common: keys, scopes, the cache that is named, and when entries end.

use serde::{Deserialize, Serialize};

use super::PolicyReader;
use super::texts::{RefOrText, place};
use crate::dialects::apigee::entities::cache::{parse_date, parse_time};
use crate::dialects::apigee::xml::{Element, Fields, Findings, Written};

/// Most parts of a key.
const FRAGMENTS_MAX: usize = 100;
/// Longest wait for a lookup that may be asked for, in seconds. Lookups are in memory and never wait.
const LOOKUP_SECONDS_MAX: u32 = 86_400;

/// Whose entries are seen: it decides what a key begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everybody's in the environment.
    Global,
    /// Those of the proxy's revision.
    Application,
    /// Those of the proxy endpoint.
    Proxy,
    /// Those of the target endpoint.
    Target,
    /// Those of the endpoint whose flow runs.
    #[default]
    Exclusive,
}

/// Where entries are, and under which key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The cache of the environment; none: the one that is always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    pub scope: Scope,
    /// What the key begins with, instead of what the scope says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<RefOrText>,
    pub fragments: Vec<RefOrText>,
}

/// When an entry ends: the first of these that is set. None: as the cache says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expiry {
    /// Seconds; 0 and less: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<RefOrText>,
    /// `HH:MM:SS` in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_of_day: Option<RefOrText>,
    /// `MM-DD-YYYY`, its beginning in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<RefOrText>,
}

/// Reads `<CacheKey>`, `<Scope>` and `<CacheResource>`; the last one also tells that the cache must exist.
pub(super) fn read_place(
    reader: &mut PolicyReader<'_, '_>,
) -> Option<(Place, Option<Written<String>>)> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let mut read = Place::default();
    let Some(key) = fields.child("CacheKey", findings) else {
        let message = "needs <CacheKey> with what tells entries apart";
        findings.error("missing-element", fields.place(), message);
        return None;
    };
    let mut inner = Fields::new(key);
    if let Some(prefix) = inner.child("Prefix", findings) {
        let prefix = RefOrText::read(prefix, findings);
        read.prefix = (!prefix.is_empty()).then_some(prefix);
    }
    let fragments: Vec<Element<'_>> = inner.children("KeyFragment").collect();
    if fragments.len() > FRAGMENTS_MAX {
        let message = format!("has more than {FRAGMENTS_MAX} fragments");
        findings.error("too-many-parts", place(key), message);
    }
    for element in fragments.into_iter().take(FRAGMENTS_MAX) {
        let mut fragment = Fields::new(element);
        let reference = fragment.attribute_text("ref").map(str::to_owned);
        fragment.ignore_attributes(&["type"]);
        fragment.finish(findings);
        let text = element.text();
        read.fragments.push(RefOrText {
            reference,
            text: (!text.is_empty()).then(|| text.into_owned()),
        });
    }
    inner.finish(findings);
    let scopes = [
        ("Global", Scope::Global),
        ("Application", Scope::Application),
        ("Proxy", Scope::Proxy),
        ("Target", Scope::Target),
        ("Exclusive", Scope::Exclusive),
    ];
    read.scope = fields
        .choice("Scope", &scopes, findings)
        .unwrap_or_default();
    let mut named = None;
    if let Some(resource) = fields.child("CacheResource", findings) {
        let name = resource.text().trim().to_owned();
        if !name.is_empty() {
            named = Some(Written {
                value: name.clone(),
                at: place(resource),
            });
            read.cache = Some(name);
        }
    }
    Some((read, named))
}

/// Reads `<ExpirySettings>`.
pub(super) fn read_expiry(fields: &mut Fields<'_>, findings: &mut Findings) -> Expiry {
    let mut read = Expiry::default();
    let Some(element) = fields.child("ExpirySettings", findings) else {
        return read;
    };
    let mut inner = Fields::new(element);
    let mut of = |name: &'static str, is_sound: fn(&str) -> bool, wanted: &str| {
        let element = inner.child(name, findings)?;
        let value = RefOrText::read(element, findings);
        if let Some(text) = &value.text
            && !is_sound(text.trim())
        {
            let message = format!("must be {wanted}, not '{text}'");
            findings.error("invalid-value", place(element), message);
        }
        (!value.is_empty()).then_some(value)
    };
    let is_number = |text: &str| text.parse::<i64>().is_ok();
    let seconds = of("TimeoutInSeconds", is_number, "a number of seconds");
    let short = of("TimeoutInSec", is_number, "a number of seconds");
    let is_time = |text: &str| parse_time(text).is_some();
    read.time_of_day = of("TimeOfDay", is_time, "a time of day, HH:MM:SS");
    let is_date = |text: &str| parse_date(text).is_some();
    read.date = of("ExpiryDate", is_date, "a date, MM-DD-YYYY");
    read.seconds = seconds.or(short);
    inner.ignore(&["valuesNull"]);
    inner.finish(findings);
    read
}

/// `<CacheLookupTimeoutInSeconds>` must be a number; entries are in memory, so there is nothing to wait for.
pub(super) fn check_lookup_timeout(fields: &mut Fields<'_>, findings: &mut Findings) {
    fields.number(
        "CacheLookupTimeoutInSeconds",
        0..=LOOKUP_SECONDS_MAX,
        findings,
    );
}
