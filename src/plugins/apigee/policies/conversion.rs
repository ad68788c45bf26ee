//! `JSONToXML` and `XMLToJSON`.
//!
//! Owns where a conversion takes its text from and where it puts the result: both policies do the same in that.

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::convert::{JsonToXml, XmlToJson, json_to_xml, xml_to_json};
use crate::dialects::apigee::policies::{json_to_xml as to_xml, xml_to_json as to_json};
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;

struct Conversion {
    name: Box<str>,
    source: Option<VariableName>,
    output: Option<VariableName>,
    direction: Direction,
}

enum Direction {
    ToXml(JsonToXml),
    ToJson(XmlToJson),
}

pub(super) fn link_json_to_xml(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(Conversion::to_xml(link.name, link.config()?)))
}

pub(super) fn link_xml_to_json(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(Conversion::to_json(link.name, link.config()?)))
}

impl Conversion {
    fn to_xml(name: &str, config: to_xml::Config) -> Self {
        Self {
            name: name.into(),
            source: config.source.as_deref().map(VariableName::new),
            output: config.output.as_deref().map(VariableName::new),
            direction: Direction::ToXml(config.options),
        }
    }

    fn to_json(name: &str, config: to_json::Config) -> Self {
        Self {
            name: name.into(),
            source: config.source.as_deref().map(VariableName::new),
            output: config.output.as_deref().map(VariableName::new),
            direction: Direction::ToJson(config.options),
        }
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let source_name = self.source.as_ref().map_or("message", VariableName::as_str);
        let source = scope.handle(source_name);
        let text = match (source, &self.source) {
            (Some(handle), _) => scope
                .message(handle)
                .map(|message| message.text().into_owned()),
            (None, Some(name)) => scope.text(name).map(|text| text.into_owned()),
            (None, None) => None,
        };
        let Some(text) = text else {
            return Err(self.fault(
                "SourceUnavailable",
                format!("Source {source_name} is not available"),
            ));
        };
        if source.is_none() && self.output.is_none() {
            return Err(self.fault(
                "OutputVariableIsNotAvailable",
                "Output variable is not available".to_owned(),
            ));
        }
        let converted = match &self.direction {
            Direction::ToXml(options) => json_to_xml(&text, options),
            Direction::ToJson(options) => xml_to_json(&text, options),
        };
        let converted = converted.map_err(|reason| {
            self.fault(
                "ExecutionFailed",
                format!("Execution failed. reason: {reason}"),
            )
        })?;
        let target = match &self.output {
            None => source,
            Some(name) => scope.handle(name.as_str()),
        };
        if let Some(message) = target.and_then(|handle| scope.message_mut(handle)) {
            let kind = match self.direction {
                Direction::ToXml(_) => HeaderValue::from_static("text/xml;charset=UTF-8"),
                Direction::ToJson(_) => HeaderValue::from_static("application/json"),
            };
            message.headers.insert(CONTENT_TYPE, kind);
            message.replace_content(Bytes::from(converted));
        } else if let Some(name) = &self.output {
            scope
                .set(name, Value::from(converted))
                .map_err(|error| PolicyFault::of_write(self.codes(), &error))?;
        }
        Ok(Next::Continue)
    }

    fn codes(&self) -> &'static str {
        match self.direction {
            Direction::ToXml(_) => "steps.json2xml",
            Direction::ToJson(_) => "steps.xml2json",
        }
    }

    fn fault(&self, name: &str, text: String) -> PolicyFault {
        let kind = match self.direction {
            Direction::ToXml(_) => "JSONToXML",
            Direction::ToJson(_) => "XMLToJSON",
        };
        PolicyFault::new(
            500,
            format!("{}.{name}", self.codes()),
            format!("{kind}[{}]: {text}", self.name),
        )
    }
}

impl Policy for Conversion {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.run(flow.scope)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::super::test_support::{config, scope, text};
    use super::*;

    #[test]
    fn converts_messages_and_variables() {
        let mut scope = scope();
        let message = scope.message_mut(scope.current()).unwrap();
        message.replace_content("{\"a\":{\"b\":[1,2]}}".into());
        Conversion::to_xml(
            "c",
            config("<JSONToXML name='c'><Source>request</Source></JSONToXML>"),
        )
        .run(&mut scope)
        .unwrap();
        assert!(
            text(&scope, "request.content")
                .unwrap()
                .ends_with("<a><b>1</b><b>2</b></a>")
        );
        assert_eq!(
            text(&scope, "request.header.content-type").as_deref(),
            Some("text/xml;charset=UTF-8")
        );
        let back = "<XMLToJSON name='c'><Options><RecognizeNumber>true</RecognizeNumber></Options><OutputVariable>out</OutputVariable></XMLToJSON>";
        Conversion::to_json("c", config(back))
            .run(&mut scope)
            .unwrap();
        assert_eq!(
            text(&scope, "out").as_deref(),
            Some("{\"a\":{\"b\":[1,2]}}")
        );
        let again = "<JSONToXML name='c'><Source>out</Source><OutputVariable>request</OutputVariable><Options><OmitXmlDeclaration>true</OmitXmlDeclaration></Options></JSONToXML>";
        Conversion::to_xml("c", config(again))
            .run(&mut scope)
            .unwrap();
        assert_eq!(
            text(&scope, "request.content").as_deref(),
            Some("<a><b>1</b><b>2</b></a>")
        );
    }

    #[test]
    fn fails_as_documented() {
        let cases = [
            (
                "<JSONToXML name='c'><Source>nix</Source></JSONToXML>",
                "steps.json2xml.SourceUnavailable",
                "JSONToXML[c]: Source nix is not available",
            ),
            (
                "<JSONToXML name='c'><Source>text</Source></JSONToXML>",
                "steps.json2xml.OutputVariableIsNotAvailable",
                "",
            ),
            (
                "<JSONToXML name='c'/>",
                "steps.json2xml.ExecutionFailed",
                "not JSON",
            ),
        ];
        for (xml, code, part) in cases {
            let mut scope = scope();
            scope.set(&VariableName::new("text"), "{}".into()).unwrap();
            let fault = Conversion::to_xml("c", config(xml))
                .run(&mut scope)
                .expect_err(xml);
            assert_eq!((fault.status, fault.code.as_ref()), (500, code));
            assert!(fault.message.contains(part), "{}", fault.message);
        }
    }
}
