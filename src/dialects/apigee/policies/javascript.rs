//! `Javascript`: runs a script over the transaction's variables and messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bodies, Parsed, PolicyReader, written};
use crate::dialects::apigee::xml::Fields;

/// Most files of a script, the ones that it includes among them.
const FILES_MAX: usize = 50;
/// Time for one execution when none is written, in milliseconds.
const TIME_LIMIT_MS: u32 = 200;
/// Longest time for one execution that can be asked for, in milliseconds.
const TIME_LIMIT_MS_MAX: u32 = 60_000;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Time for one execution, waiting for answers of `httpClient` included, in milliseconds. Default 200.
    pub time_limit_ms: u32,
    /// URLs of the script's files in the order in which they run: `jsc://lib.js`.
    pub files: Vec<String>,
    /// Written in the policy itself; runs last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What the script sees as `properties`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl Config {
    /// The script's files in the order in which they run, with the names that errors tell. `resources` are texts by URL;
    /// what is written in the policy itself goes by the policy's name.
    ///
    /// # Errors
    /// When a resource is not there.
    pub fn script_files<'a>(
        &'a self,
        policy: &'a str,
        resources: &'a BTreeMap<String, String>,
    ) -> Result<Vec<(&'a str, &'a str)>, String> {
        let mut files = Vec::with_capacity(self.files.len() + 1);
        for url in &self.files {
            let text = resources.get(url);
            let text = text.ok_or_else(|| format!("there is no resource {url}"))?;
            files.push((url.trim_start_matches("jsc://"), text.as_str()));
        }
        if let Some(source) = &self.source {
            files.push((policy, source.as_str()));
        }
        Ok(files)
    }
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let place = reader.fields.place();
    let time_limit_ms = reader
        .fields
        .number_attribute("timeLimit", 1..=TIME_LIMIT_MS_MAX, findings)
        .unwrap_or(TIME_LIMIT_MS);
    let includes: Vec<_> = reader.fields.children("IncludeURL").collect();
    let main = reader.fields.child("ResourceURL", findings);
    let source = reader.fields.child("Source", findings);
    let mut properties = BTreeMap::new();
    if let Some(list) = reader.fields.child("Properties", findings) {
        let mut list = Fields::new(list);
        for element in list.children("Property") {
            let mut fields = Fields::new(element);
            let name = fields.required_attribute("name", findings);
            fields.finish(findings);
            if let Some(name) = name {
                properties.insert(name.to_owned(), element.text().into_owned());
            }
        }
        list.finish(findings);
    }
    if let Some(tls) = reader.fields.child("SSLInfo", findings) {
        findings.error(
            "unsupported-element",
            tls.place(),
            "TLS settings of a script's httpClient are not supported, use a ServiceCallout",
        );
    }
    if includes.len() >= FILES_MAX {
        let message = format!("includes too many files, allowed are {}", FILES_MAX - 1);
        findings.error("InvalidValue", place, message);
        return None;
    }
    let source = source.map(|element| element.raw_text().into_owned());
    let source = source.filter(|source| !source.trim().is_empty());
    if main.is_some() == source.is_some() {
        let message = "needs either <ResourceURL> with a script or <Source>, and not both";
        findings.error("missing-element", place, message);
        return None;
    }
    let mut files = Vec::new();
    let mut resources = Vec::new();
    for element in includes.into_iter().chain(main) {
        let url = element.text();
        if !url.starts_with("jsc://") {
            let message = format!("'{url}' is no script, allowed is jsc://FILE");
            findings.error("WrongResourceType", element.place(), message);
            continue;
        }
        files.push(url.to_string());
        resources.push(written(url.to_string(), element.place()));
    }
    let mut parsed = reader.parsed(&Config {
        time_limit_ms,
        files,
        source,
        properties,
    })?;
    parsed.resources = resources;
    // A script may name any variable, also one that it puts together.
    Some(parsed.with_bodies(Bodies::ALL))
}
