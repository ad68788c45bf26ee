//! `AccessControl`: allows or denies by the client's address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::texts::{place, template};
use super::{Parsed, PolicyReader};
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::xml::Fields;

/// The most rules, and the most addresses of one.
const LIST_MAX: usize = 1000;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub rules: Vec<Rule>,
    /// What happens to an address that no rule names.
    pub allows_others: bool,
    pub based_on: BasedOn,
    pub ignores_true_client_ip: bool,
}

/// A rule; the first that names an address decides about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub allows: bool,
    pub sources: Vec<Source>,
}

/// A block of addresses; both are templates, and the address may be a list with commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// Which addresses of `X-Forwarded-For` are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BasedOn {
    First,
    Last,
    All,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let based_on = [
        ("X_FORWARDED_FOR_FIRST_IP", BasedOn::First),
        ("X_FORWARDED_FOR_LAST_IP", BasedOn::Last),
        ("X_FORWARDED_FOR_ALL_IP", BasedOn::All),
    ];
    let mut config = Config {
        rules: Vec::new(),
        allows_others: true,
        based_on: fields
            .choice("ValidateBasedOn", &based_on, findings)
            .unwrap_or(BasedOn::First),
        ignores_true_client_ip: fields.boolean("IgnoreTrueClientIPHeader", false, findings),
    };
    let actions = [("ALLOW", true), ("DENY", false)];
    let list = fields.child("IPRules", findings);
    if list.is_none() {
        findings.error("missing-element", fields.place(), "needs <IPRules>");
    }
    let mut list = Fields::new(list?);
    config.allows_others = list
        .choice_attribute("noRuleMatchAction", &actions, findings)
        .unwrap_or(true);
    for element in list.children("MatchRule").take(LIST_MAX) {
        let mut inner = Fields::new(element);
        let allows = inner.choice_attribute("action", &actions, findings);
        if inner.attribute_text("action").is_none() {
            findings.error(
                "missing-attribute",
                place(element),
                "needs the attribute 'action', ALLOW or DENY",
            );
        }
        let mut sources = Vec::new();
        for source in inner.children("SourceAddress").take(LIST_MAX) {
            let mut item = Fields::new(source);
            let mask = item
                .attribute_text("mask")
                .map(|text| template(text, source, findings));
            item.finish(findings);
            let address = template(&source.text(), source, findings);
            if let Err(reason) = check(&address, mask.as_deref()) {
                findings.error("invalid-value", place(source), reason);
            }
            sources.push(Source { address, mask });
        }
        inner.finish(findings);
        if sources.is_empty() {
            findings.error("missing-element", place(element), "needs a <SourceAddress>");
        }
        config
            .rules
            .extend(allows.map(|allows| Rule { allows, sources }));
    }
    list.finish(findings);
    reader.parsed(&config)
}

/// Judges what is not a template.
fn check(address: &str, mask: Option<&str>) -> Result<(), String> {
    let is_fixed = |text: &str| Template::parse(text).is_ok_and(|parsed| parsed.fixed().is_some());
    if !is_fixed(address) {
        return Ok(());
    }
    for address in address.split(',') {
        let parsed: IpAddr = address
            .trim()
            .parse()
            .map_err(|_| format!("'{}' is not an address", address.trim()))?;
        let most = if parsed.is_ipv4() { 32 } else { 128 };
        if let Some(mask) = mask.filter(|mask| is_fixed(mask))
            && !mask.trim().parse().is_ok_and(|bits: u8| bits <= most)
        {
            return Err(format!(
                "attribute 'mask' must be a number from 0 to {most}, not '{mask}'"
            ));
        }
    }
    Ok(())
}
