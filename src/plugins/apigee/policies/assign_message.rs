//! `AssignMessage`: makes or edits a message, and sets variables.

use super::message_edits::{MessageEdits, Target};
use super::{Policy, PolicyLink};
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::policies::assign_message::{AssignTo, Config};
use crate::dialects::apigee::variables::MessageHandle;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::{Scope, Side};

const CODES: &str = "steps.assignmessage";

struct AssignMessage {
    assign_to: Option<AssignTo>,
    edits: MessageEdits,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(AssignMessage::build(link.name, link.config()?)?))
}

impl AssignMessage {
    fn build(name: &str, config: Config) -> Result<Self, String> {
        Ok(Self {
            assign_to: config.assign_to,
            edits: MessageEdits::link(&config.edits, format!("AssignMessage[{name}]"), CODES)?,
        })
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        // Who only sets variables needs no message.
        let target = match &self.assign_to {
            None if !self.edits.touch_messages() => None,
            assign_to => Some(Target::Held(target(assign_to.as_ref(), scope)?)),
        };
        self.edits.apply(scope, target)?;
        Ok(Next::Continue)
    }
}

/// The message that is edited, made when it has to be.
fn target(assign_to: Option<&AssignTo>, scope: &mut Scope) -> Result<MessageHandle, PolicyFault> {
    let name = assign_to
        .and_then(|it| it.name.as_deref())
        .unwrap_or("message");
    let create_new = assign_to.is_some_and(|it| it.create_new);
    if let Some(handle) = scope.handle(name).filter(|_| !create_new) {
        return Ok(handle);
    }
    let is_response = match name {
        "request" => false,
        "response" | "error" => true,
        "message" => scope.side != Side::Request,
        _ => assign_to.is_some_and(|it| it.is_response),
    };
    let message = if is_response {
        Message::response()
    } else {
        Message::request()
    };
    scope
        .put_message(name, message)
        .map_err(|error| PolicyFault::of_write(CODES, &error))
}

impl Policy for AssignMessage {
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
    use crate::dialects::apigee::variables::VariableName;

    fn run(body: &str, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let policy = AssignMessage::build(
            "a",
            config(&format!("<AssignMessage name='a'>{body}</AssignMessage>")),
        )
        .unwrap();
        policy.run(scope)
    }

    #[test]
    fn edits_the_current_message_in_order() {
        let mut scope = scope();
        run(
            "<AssignVariable><Name>v</Name><Value>1</Value></AssignVariable>\
             <Set><Headers><Header name='A-{v}'>x{v}</Header></Headers><QueryParams><QueryParam name='q'>{v}&amp;</QueryParam></QueryParams>\
             <Verb>PUT</Verb><Payload contentType='application/json'>{\"v\":{v}}</Payload></Set>\
             <AssignVariable><Name>v</Name><Value>2</Value></AssignVariable>\
             <Add><Headers><Header name='A-1'>y{v}</Header></Headers></Add>\
             <Remove><Headers><Header name='accept'/></Headers></Remove>",
            &mut scope,
        )
        .unwrap();
        let cases = [
            ("request.header.a-1.values.string", Some("x1,y2")),
            ("request.querystring", Some("w=1&w=2&q=1%26")),
            ("request.verb", Some("PUT")),
            ("request.content", Some("{\"v\":1}")),
            ("request.header.content-type", Some("application/json")),
            ("request.header.accept", None),
            ("v", Some("2")),
        ];
        for (name, expected) in cases {
            assert_eq!(text(&scope, name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn makes_messages() {
        let mut scope = scope();
        run(
            "<AssignTo createNew='true' type='response'>mine</AssignTo><Set><StatusCode>{unset:201}</StatusCode><Payload>a</Payload></Set>",
            &mut scope,
        )
        .unwrap();
        assert_eq!(text(&scope, "mine.status.code").as_deref(), Some("201"));
        run("<AssignTo>mine</AssignTo><Copy source='request'><Headers/><Payload>true</Payload></Copy>", &mut scope).unwrap();
        assert_eq!(
            text(&scope, "mine.header.accept").as_deref(),
            Some("text/html")
        );
        assert_eq!(text(&scope, "mine.content").as_deref(), Some("body"));
        assert_eq!(text(&scope, "mine.status.code").as_deref(), Some("201"));
        run("<AssignTo createNew='true'>request</AssignTo>", &mut scope).unwrap();
        assert_eq!(text(&scope, "request.header.accept"), None);
    }

    #[test]
    fn assigns_variables() {
        let mut scope = scope();
        run(
            "<AssignVariable><Name>a</Name><Ref>request.verb</Ref><Value>no</Value></AssignVariable>\
             <AssignVariable><Name>b</Name><Ref>unset</Ref><Value>fallback</Value></AssignVariable>\
             <AssignVariable><Name>c</Name><Template>{a}-{toLowerCase(b)}</Template></AssignVariable>\
             <AssignVariable><Name>t</Name><Value>&lt;{a}&gt;</Value></AssignVariable>\
             <AssignVariable><Name>d</Name><Template ref='t'/></AssignVariable>\
             <AssignVariable><Name>request.header.x</Name><Value>1</Value></AssignVariable>\
             <AssignVariable><Name>m</Name><Ref>request</Ref></AssignVariable>\
             <AssignVariable><Name>target.copy.pathsuffix</Name><Value>false</Value></AssignVariable>",
            &mut scope,
        )
        .unwrap();
        for (name, expected) in [
            ("a", "GET"),
            ("b", "fallback"),
            ("c", "GET-fallback"),
            ("d", "<GET>"),
            ("request.header.x", "1"),
            ("m.verb", "GET"),
        ] {
            assert_eq!(text(&scope, name).as_deref(), Some(expected), "{name}");
        }
        assert!(!scope.copies_path_suffix);
    }

    #[test]
    fn fails_as_documented() {
        let cases = [
            (
                "<Set><Payload>{nix}</Payload></Set>",
                "steps.assignmessage.UnresolvedVariable",
                "AssignMessage[a]: unable to resolve variable nix",
            ),
            (
                "<AssignVariable><Name>v</Name><Ref>nix</Ref></AssignVariable>",
                "steps.assignmessage.UnresolvedVariable",
                "variable nix",
            ),
            (
                "<Copy source='nix'/>",
                "steps.assignmessage.UnresolvedVariable",
                "variable nix",
            ),
            (
                "<Copy source='plain'/>",
                "steps.assignmessage.VariableOfNonMsgType",
                "AssignMessage[a]: value of variable plain is not of type Message",
            ),
            (
                "<AssignTo createNew='true' type='response'>m</AssignTo><Set><StatusCode>{plain}</StatusCode></Set>",
                "steps.assignmessage.InvalidStatusCode",
                "from 100 to 599",
            ),
            (
                "<AssignVariable><Name>request.uri</Name><Value>x</Value></AssignVariable>",
                "steps.assignmessage.ImmutableVariable",
                "read-only",
            ),
            (
                "<Set><Headers><Header name='a b'>x</Header></Headers></Set>",
                "steps.assignmessage.SetVariableFailed",
                "header",
            ),
            (
                "<AssignTo type='response'>n</AssignTo><Set><QueryParams><QueryParam name='q'>1</QueryParam></QueryParams></Set>",
                "steps.assignmessage.SetVariableFailed",
                "response",
            ),
        ];
        for (body, code, part) in cases {
            let mut scope = scope();
            scope.set(&VariableName::new("plain"), "x".into()).unwrap();
            let fault = run(body, &mut scope).expect_err(body);
            assert_eq!((fault.status, fault.code.as_ref()), (500, code), "{body}");
            assert!(fault.message.contains(part), "{body}: {}", fault.message);
            if code.ends_with("UnresolvedVariable") {
                let body =
                    format!("{body}<IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables>");
                assert!(run(&body, &mut scope).is_ok(), "{body}");
            }
        }
    }
}
