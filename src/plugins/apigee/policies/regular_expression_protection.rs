//! `RegularExpressionProtection`: refuses messages in which a pattern is found.

use std::borrow::Cow;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::java_regex::JavaRegex;
use crate::dialects::apigee::json_path::{JsonPath, JsonPathError};
use crate::dialects::apigee::message::{Message, Part, Property};
use crate::dialects::apigee::policies::extract_variables::TextFrom;
use crate::dialects::apigee::policies::regular_expression_protection::Config;
use crate::dialects::apigee::variables::VariableName;
use crate::dialects::apigee::xml::{Document, Limits};
use crate::dialects::apigee::xpath::{Outcome, XPath};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;

const CODES: &str = "steps.regexprotection";
/// How much of a text is told in a fault.
const SHOWN_MAX: usize = 200;

struct RegularExpressionProtection {
    name: Box<str>,
    source: Option<VariableName>,
    ignore_unresolved: bool,
    texts: Vec<(TextFrom, Vec<JavaRegex>)>,
    xml: Vec<(XPath, Vec<JavaRegex>)>,
    json: Vec<(JsonPath, Vec<JavaRegex>)>,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(RegularExpressionProtection::build(
        link.name,
        link.config()?,
    )?))
}

fn regexes(patterns: &[String]) -> Result<Vec<JavaRegex>, String> {
    patterns
        .iter()
        .map(|pattern| JavaRegex::anywhere(pattern))
        .collect()
}

impl RegularExpressionProtection {
    fn build(name: &str, config: Config) -> Result<Self, String> {
        let texts = config
            .texts
            .iter()
            .map(|texts| Ok((texts.from.clone(), regexes(&texts.patterns)?)));
        let xml = config.xml.iter().map(|(expression, patterns)| {
            Ok((
                XPath::parse(expression, &config.namespaces)?,
                regexes(patterns)?,
            ))
        });
        let json = config
            .json
            .iter()
            .map(|(expression, patterns)| Ok((JsonPath::parse(expression)?, regexes(patterns)?)));
        Ok(Self {
            name: name.into(),
            texts: texts.collect::<Result<_, String>>()?,
            xml: xml.collect::<Result<_, String>>()?,
            json: json.collect::<Result<_, String>>()?,
            source: config.source.as_deref().map(VariableName::new),
            ignore_unresolved: config.ignore_unresolved,
        })
    }

    fn run(&self, scope: &Scope) -> Result<Next, PolicyFault> {
        let source = self.source.as_ref().map_or("message", VariableName::as_str);
        let message = scope
            .handle(source)
            .and_then(|handle| scope.message(handle));
        let needs_message = self
            .texts
            .iter()
            .any(|(from, _)| !matches!(from, TextFrom::Variable(_)))
            || !self.xml.is_empty()
            || !self.json.is_empty();
        let Some(message) = message else {
            if needs_message {
                let text = format!(
                    "{source} message is not available for RegularExpressionProtection StepDefinition {}",
                    self.name
                );
                return Err(fault("SourceMessageNotAvailable", text));
            }
            return self.texts(None, scope).map(|()| Next::Continue);
        };
        self.texts(Some(message), scope)?;
        self.payload(message)?;
        Ok(Next::Continue)
    }

    fn texts(&self, message: Option<&Message>, scope: &Scope) -> Result<(), PolicyFault> {
        for (from, regexes) in &self.texts {
            let read = |property: &Property| {
                message
                    .and_then(|message| message.read(property))
                    .map(|value| value.into_text())
            };
            let texts: Vec<Cow<'_, str>> = match from {
                // The whole path, as it is meant.
                TextFrom::UriPath => message
                    .map(|message| decoded_path(&message.path))
                    .into_iter()
                    .collect(),
                // Every value: an attack may be in the second.
                TextFrom::QueryParameter(name) => message
                    .and_then(|message| message.query.as_deref())
                    .map(|query| values(query, name))
                    .unwrap_or_default(),
                TextFrom::FormParameter(name) => message
                    .and_then(Message::form)
                    .map(|form| values(form, name))
                    .unwrap_or_default(),
                TextFrom::Header(name) => read(&Property::header(name, Part::Joined))
                    .into_iter()
                    .collect(),
                TextFrom::Variable(name) => {
                    let text = scope.text(&VariableName::new(name));
                    if text.is_none() && !self.ignore_unresolved {
                        let text = format!(
                            "Failed to resolve variable {name} in RegularExpressionProtection {}",
                            self.name
                        );
                        return Err(fault("VariableResolutionFailed", text));
                    }
                    text.into_iter().collect()
                }
            };
            for text in texts {
                self.check(&text, regexes)?;
            }
        }
        Ok(())
    }

    fn payload(&self, message: &Message) -> Result<(), PolicyFault> {
        let media = message
            .media_type()
            .unwrap_or_default()
            .to_ascii_lowercase();
        if !self.json.is_empty()
            && (media.ends_with("/json") || media.ends_with("+json"))
            && !message.content.is_empty()
        {
            let document: serde_json::Value = serde_json::from_slice(&message.content)
                .map_err(|_| self.failed("the body is not JSON"))?;
            for (path, regexes) in &self.json {
                match path.read(&document) {
                    Ok(serde_json::Value::Array(list)) => {
                        for value in list {
                            self.check(
                                &crate::dialects::apigee::json_path::result_text(&value),
                                regexes,
                            )?;
                        }
                    }
                    Ok(value) => self.check(
                        &crate::dialects::apigee::json_path::result_text(&value),
                        regexes,
                    )?,
                    Err(JsonPathError::Missing(_)) => {}
                    Err(error) => return Err(self.failed(&error.to_string())),
                }
            }
        }
        let is_xml = media == "text/xml" || media == "application/xml" || media.ends_with("+xml");
        if !self.xml.is_empty() && is_xml && !message.content.is_empty() {
            let text = message.text();
            let document = Document::parse("message", &text, Limits::MESSAGE)
                .map_err(|error| self.failed(&error.to_string()))?;
            for (xpath, regexes) in &self.xml {
                match xpath
                    .evaluate(&document)
                    .map_err(|limit| self.failed(&limit.to_string()))?
                {
                    Outcome::Nodes(items) => {
                        for item in items {
                            self.check(&item.text(), regexes)?;
                        }
                    }
                    outcome => self.check(&outcome.text(), regexes)?,
                }
            }
        }
        Ok(())
    }

    fn check(&self, text: &str, regexes: &[JavaRegex]) -> Result<(), PolicyFault> {
        for regex in regexes {
            // A text that takes too long to judge does not pass.
            if regex
                .is_match(text)
                .map_err(|limit| self.failed(&limit.to_string()))?
            {
                let shown: String = text.chars().take(SHOWN_MAX).collect();
                let message = format!(
                    "Regular Expression Threat Detected in {}: regex: {} input: {shown}",
                    self.name,
                    regex.pattern()
                );
                return Err(fault("ThreatDetected", message));
            }
        }
        Ok(())
    }

    fn failed(&self, reason: &str) -> PolicyFault {
        fault(
            "ExecutionFailed",
            format!(
                "Failed to execute the RegularExpressionProtection StepDefinition {}. Reason: {reason}",
                self.name
            ),
        )
    }
}

fn decoded_path(path: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy()
}

fn values<'m>(raw: &'m str, name: &str) -> Vec<Cow<'m, str>> {
    let parameters = crate::dialects::apigee::message::parameters::Parameters(raw);
    parameters
        .iter()
        .filter(|(known, _)| known == name)
        .map(|(_, value)| value)
        .collect()
}

fn fault(name: &str, message: String) -> PolicyFault {
    PolicyFault::new(500, format!("{CODES}.{name}"), message)
}

impl Policy for RegularExpressionProtection {
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
    use super::super::test_support::{config, scope_of};
    use super::*;

    const SQL: &str =
        "<Pattern ignoreCase='true'>[\\s]*((delete)|(exec)|(drop\\s*table))</Pattern>";

    fn run(
        body: &str,
        query: &str,
        kind: &str,
        content: &'static str,
    ) -> Result<Next, PolicyFault> {
        let mut request = Message::request();
        request.path = "/shop/a%20delete".to_owned();
        request.query = Some(query.to_owned());
        request.add_header("Content-Type", kind).unwrap();
        request.add_header("X-Note", "one, DELETE two").unwrap();
        request.content = content.into();
        let xml =
            format!("<RegularExpressionProtection name='r'>{body}</RegularExpressionProtection>");
        RegularExpressionProtection::build("r", config(&xml))
            .unwrap()
            .run(&scope_of(request))
    }

    #[test]
    fn finds_threats_everywhere() {
        let of = |from: &str| format!("<{from}>{SQL}</{}>", from.split(' ').next().unwrap());
        let json = format!(
            "<JSONPayload><JSONPath><Expression>$.a[*].b</Expression>{SQL}</JSONPath></JSONPayload>"
        );
        let xml = format!(
            "<XMLPayload><XPath><Expression>//b</Expression><Type>string</Type>{SQL}</XPath></XMLPayload>"
        );
        let cases = [
            (
                of("QueryParam name='q'"),
                "q=ok&q=DROP%20%20table",
                "text/plain",
                "",
                true,
            ),
            (
                of("QueryParam name='q'"),
                "q=ok&p=delete",
                "text/plain",
                "",
                false,
            ),
            (of("URIPath"), "", "text/plain", "", true),
            (of("Header name='X-Note'"), "", "text/plain", "", true),
            (
                of("FormParam name='f'"),
                "",
                "application/x-www-form-urlencoded",
                "f=exec",
                true,
            ),
            (
                of("Variable name='request.content'"),
                "",
                "text/plain",
                "please delete",
                true,
            ),
            (
                json.clone(),
                "",
                "application/json",
                "{\"a\":[{\"b\":\"x\"},{\"b\":\"delete\"}]}",
                true,
            ),
            (
                json.clone(),
                "",
                "application/json",
                "{\"a\":[{\"c\":\"delete\"}]}",
                false,
            ),
            (
                json,
                "",
                "text/plain",
                "{\"a\":[{\"b\":\"delete\"}]}",
                false,
            ),
            (
                xml.clone(),
                "",
                "text/xml",
                "<a><b>x</b><b>exec</b></a>",
                true,
            ),
            (xml, "", "text/xml", "<a><c>exec</c></a>", false),
        ];
        for (body, query, kind, content, threat) in cases {
            let outcome = run(&body, query, kind, content);
            assert_eq!(
                outcome.is_err(),
                threat,
                "{body} {query} {content}: {outcome:?}"
            );
            if let Err(fault) = outcome {
                assert_eq!(
                    (fault.status, fault.code.as_ref()),
                    (500, "steps.regexprotection.ThreatDetected")
                );
                assert!(
                    fault
                        .message
                        .starts_with("Regular Expression Threat Detected in r: regex: "),
                    "{}",
                    fault.message
                );
            }
        }
    }

    #[test]
    fn fails_closed() {
        let broken = format!(
            "<JSONPayload><JSONPath><Expression>$.a</Expression>{SQL}</JSONPath></JSONPayload>"
        );
        assert_eq!(
            run(&broken, "", "application/json", "{").unwrap_err().name,
            "ExecutionFailed"
        );
        let unset = format!("<Variable name='nix'>{SQL}</Variable>");
        assert_eq!(
            run(&unset, "", "x/y", "").unwrap_err().name,
            "VariableResolutionFailed"
        );
        let ignoring =
            format!("{unset}<IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables>");
        assert!(run(&ignoring, "", "x/y", "").is_ok());
        let gone = format!("<Source>nix</Source><URIPath>{SQL}</URIPath>");
        assert_eq!(
            run(&gone, "", "x/y", "").unwrap_err().name,
            "SourceMessageNotAvailable"
        );
        let slow = "<Variable name='request.content'><Pattern>(a*)*\\1b</Pattern></Variable>";
        let text: &'static str = Box::leak("a".repeat(5000).into_boxed_str());
        assert_eq!(
            run(slow, "", "x/y", text).unwrap_err().name,
            "ExecutionFailed"
        );
    }
}
