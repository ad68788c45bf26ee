//! `StatisticsCollector`: what is to be counted of each request.

use serde::{Deserialize, Serialize};

use super::texts::{place, variable};
use super::{Parsed, PolicyReader};
use crate::dialects::apigee::xml::Fields;

/// Most statistics of one policy.
const STATISTICS_MAX: usize = 100;
/// Longest name of a statistic.
const NAME_BYTES_MAX: usize = 128;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub statistics: Vec<Statistic>,
}

/// `<Statistic>`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistic {
    pub name: String,
    /// The variable.
    pub reference: String,
    pub is_number: bool,
    /// What counts while the variable is unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let Some(list) = reader.fields.child("Statistics", findings) else {
        let message = "needs <Statistics>";
        findings.error("missing-element", reader.fields.place(), message);
        return None;
    };
    let kinds = [
        ("string", false),
        ("boolean", false),
        ("integer", true),
        ("long", true),
        ("float", true),
        ("double", true),
    ];
    let mut inner = Fields::new(list);
    let mut statistics: Vec<Statistic> = Vec::new();
    for element in inner.children("Statistic") {
        let mut fields = Fields::new(element);
        let name = fields
            .required_attribute("name", findings)
            .map(str::to_owned);
        let reference = fields.required_attribute("ref", findings);
        let reference = reference.and_then(|name| variable(name, element, findings));
        let kind = fields.attribute_text("type").map(str::to_ascii_lowercase);
        fields.finish(findings);
        let is_number = match kind.as_deref() {
            None => false,
            Some(kind) => match kinds.iter().find(|(word, _)| *word == kind) {
                Some((_, is_number)) => *is_number,
                None => {
                    let message = format!(
                        "type must be one of string, boolean, integer, long, float and double, not '{kind}'"
                    );
                    findings.error("invalid-value", place(element), message);
                    false
                }
            },
        };
        let (Some(name), Some(reference)) = (name, reference) else {
            continue;
        };
        let text = element.text();
        let default = (!text.is_empty()).then(|| text.into_owned());
        if is_number
            && default
                .as_deref()
                .is_some_and(|text| text.parse::<f64>().is_err())
        {
            let message = "the default of a number must be one";
            findings.error("invalid-value", place(element), message);
        }
        let wrong = if name.len() > NAME_BYTES_MAX {
            Some(format!("the name is longer than {NAME_BYTES_MAX} bytes"))
        } else if statistics.iter().any(|other| other.name == name) {
            Some(format!("there are two statistics of the name '{name}'"))
        } else if statistics.len() >= STATISTICS_MAX {
            Some(format!("a policy may have at most {STATISTICS_MAX}"))
        } else {
            None
        };
        if let Some(message) = wrong {
            findings.error("invalid-statistic", place(element), message);
            continue;
        }
        statistics.push(Statistic {
            name,
            reference,
            is_number,
            default,
        });
    }
    inner.finish(findings);
    if statistics.is_empty() {
        findings.error("missing-element", place(list), "needs <Statistic>");
        return None;
    }
    reader.parsed(&Config { statistics })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn reads_names_types_and_defaults() {
        let (config, findings, _) = read::<Config>(
            "<StatisticsCollector name='s'><Statistics><Statistic name='product' ref='p' type='string'>none</Statistic>\
             <Statistic name='price' ref='q' type='Integer'>0</Statistic></Statistics></StatisticsCollector>",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let statistics = config.unwrap().statistics;
        assert_eq!(statistics.len(), 2);
        assert!(!statistics[0].is_number && statistics[1].is_number);
        assert_eq!(statistics[0].default.as_deref(), Some("none"));
        for body in [
            "",
            "<Statistics/>",
            "<Statistics><Statistic name='a' ref='b' type='map'/></Statistics>",
            "<Statistics><Statistic name='a' ref='b'/><Statistic name='a' ref='c'/></Statistics>",
            "<Statistics><Statistic name='a' ref='b' type='integer'>x</Statistic></Statistics>",
        ] {
            let xml = format!("<StatisticsCollector name='s'>{body}</StatisticsCollector>");
            let (_, findings, _) = read::<Config>(&xml);
            assert!(findings.iter().any(|one| one.is_error()), "{body}");
        }
    }
}
