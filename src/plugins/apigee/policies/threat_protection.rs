//! `JSONThreatProtection` and `XMLThreatProtection`: limits on the structure of bodies.

use super::{Policy, PolicyLink};
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::policies::threat_protection::{JsonConfig, XmlConfig};
use crate::dialects::apigee::threats::{JsonLimits, XmlLimits, check_json, check_xml};
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;

struct ThreatProtection {
    name: Box<str>,
    source: Option<VariableName>,
    limits: Limits,
}

enum Limits {
    Json(JsonLimits),
    Xml(XmlLimits),
}

pub(super) fn link_json(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: JsonConfig = link.config()?;
    Ok(Box::new(ThreatProtection::build(
        link.name,
        config.source,
        Limits::Json(config.limits),
    )))
}

pub(super) fn link_xml(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: XmlConfig = link.config()?;
    Ok(Box::new(ThreatProtection::build(
        link.name,
        config.source,
        Limits::Xml(config.limits),
    )))
}

impl ThreatProtection {
    fn build(name: &str, source: Option<String>, limits: Limits) -> Self {
        Self {
            name: name.into(),
            source: source.as_deref().map(VariableName::new),
            limits,
        }
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let outcome = self.check(scope);
        if outcome.is_err() {
            // Bundles branch on the bare name, too.
            let bare = match self.limits {
                Limits::Json(_) => "jsonattack.failed",
                Limits::Xml(_) => "xmlattack.failed",
            };
            scope.set_own(bare, Value::Boolean(true));
        }
        outcome.map(|()| Next::Continue)
    }

    fn check(&self, scope: &Scope) -> Result<(), PolicyFault> {
        let name = self.source.as_ref().map_or("message", VariableName::as_str);
        let text = match (scope.handle(name), &self.source) {
            (Some(handle), _) => {
                let message = scope.message(handle);
                if !message.is_some_and(|message| self.concerns(message)) {
                    return Ok(());
                }
                message.map(|message| message.text())
            }
            (None, Some(source)) => scope.text(source),
            (None, None) => None,
        };
        let Some(text) = text else {
            return Err(self.fault(
                "SourceUnavailable",
                format!("Source {name} is not available"),
            ));
        };
        if text.trim().is_empty() {
            return Ok(());
        }
        let outcome = match &self.limits {
            Limits::Json(limits) => check_json(&text, limits),
            Limits::Xml(limits) => check_xml(&text, limits),
        };
        outcome.map_err(|reason| {
            let label = self.label();
            self.fault(
                "ExecutionFailed",
                format!("Execution failed. reason: {label}: {reason}"),
            )
        })
    }

    /// Bodies of other types are not looked at.
    fn concerns(&self, message: &Message) -> bool {
        let Some(media) = message.media_type() else {
            return false;
        };
        let media = media.to_ascii_lowercase();
        match self.limits {
            Limits::Json(_) => media == "application/json" || media.ends_with("+json"),
            Limits::Xml(_) => {
                media == "text/xml" || media == "application/xml" || media.ends_with("+xml")
            }
        }
    }

    fn label(&self) -> String {
        let kind = match self.limits {
            Limits::Json(_) => "JSONThreatProtection",
            Limits::Xml(_) => "XMLThreatProtection",
        };
        format!("{kind}[{}]", self.name)
    }

    fn fault(&self, name: &str, text: String) -> PolicyFault {
        let codes = match self.limits {
            Limits::Json(_) => "steps.jsonthreatprotection",
            Limits::Xml(_) => "steps.xmlthreatprotection",
        };
        PolicyFault::new(
            500,
            format!("{codes}.{name}"),
            format!("{}: {text}", self.label()),
        )
    }
}

impl Policy for ThreatProtection {
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
    use super::super::test_support::{config, scope_of, text};
    use super::*;

    fn scope(kind: &str, body: &'static str) -> Scope {
        let mut request = Message::request();
        request.add_header("Content-Type", kind).unwrap();
        request.content = body.into();
        scope_of(request)
    }

    fn json(body: &str) -> ThreatProtection {
        let config: JsonConfig = config(&format!(
            "<JSONThreatProtection name='j'>{body}</JSONThreatProtection>"
        ));
        ThreatProtection::build("j", config.source, Limits::Json(config.limits))
    }

    #[test]
    fn stops_what_is_too_large() {
        let policy = json(
            "<ObjectEntryNameLength>3</ObjectEntryNameLength><ContainerDepth>-1</ContainerDepth><Source>request</Source>",
        );
        let mut bad = scope("application/json; charset=utf-8", "{\n\"long\":1}");
        let fault = policy.run(&mut bad).unwrap_err();
        assert_eq!(
            (fault.status, fault.code.as_ref()),
            (500, "steps.jsonthreatprotection.ExecutionFailed")
        );
        assert_eq!(
            fault.message,
            "JSONThreatProtection[j]: Execution failed. reason: JSONThreatProtection[j]: Exceeded object entry name length at line 2"
        );
        assert_eq!(text(&bad, "jsonattack.failed").as_deref(), Some("true"));
        for (kind, body) in [
            ("text/plain", "{\"long\":1}"),
            ("application/json", ""),
            ("application/json", "{\"abc\":[[[[]]]]}"),
        ] {
            assert!(policy.run(&mut scope(kind, body)).is_ok(), "{kind} {body}");
        }
        let xml: XmlConfig = config(
            "<XMLThreatProtection name='x'><NameLimits><Element>3</Element></NameLimits><StructureLimits><ChildCount includeText='false'>9</ChildCount></StructureLimits></XMLThreatProtection>",
        );
        let policy = ThreatProtection::build("x", xml.source, Limits::Xml(xml.limits));
        let mut bad = scope("text/xml", "<long/>");
        let fault = policy.run(&mut bad).unwrap_err();
        assert!(
            fault
                .message
                .ends_with("Element name length exceeded at line 1"),
            "{}",
            fault.message
        );
        assert_eq!(text(&bad, "xmlattack.failed").as_deref(), Some("true"));
        assert!(policy.run(&mut scope("text/xml", "<a/>")).is_ok());
    }
}
