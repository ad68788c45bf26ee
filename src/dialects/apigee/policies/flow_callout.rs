//! `FlowCallout`: runs the steps of a shared flow.

use serde::{Deserialize, Serialize};

use super::{Parsed, PolicyReader, written};
use crate::dialects::apigee::xml::Fields;

/// Most parameters of a call.
const PARAMETERS_MAX: usize = 100;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The shared flow's name; a template.
    pub shared_flow: String,
    pub parameters: Vec<Parameter>,
}

/// A variable that is set before the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    /// A variable whose value counts when it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// A template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let place = reader.fields.place();
    let shared_flow = reader.fields.required_text("SharedFlowBundle", findings)?;
    let mut parameters = Vec::new();
    if let Some(list) = reader.fields.child("Parameters", findings) {
        let mut list = Fields::new(list);
        for element in list.children("Parameter").take(PARAMETERS_MAX) {
            let mut fields = Fields::new(element);
            let name = fields.required_attribute("name", findings);
            let reference = fields.attribute_text("ref").map(str::to_owned);
            let value = fields.attribute("value").map(|it| it.value().to_owned());
            fields.finish(findings);
            let text = element.text();
            let text = (!text.is_empty()).then(|| text.into_owned());
            if let Some(name) = name {
                parameters.push(Parameter {
                    name: name.to_owned(),
                    reference,
                    value: value.or(text),
                });
            }
        }
        list.finish(findings);
    }
    let shared_flow = shared_flow.into_owned();
    let mut parsed = reader.parsed(&Config {
        shared_flow: shared_flow.clone(),
        parameters,
    })?;
    if !shared_flow.contains('{') {
        parsed.shared_flows.push(written(shared_flow, place));
    }
    Some(parsed)
}
