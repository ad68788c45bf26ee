//! `RaiseFault`: ends the normal flow with a response of its own.

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::message_edits::{MessageEdits, Target};
use super::{Policy, PolicyLink};
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::policies::raise_fault::Config;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::fault;
use crate::plugins::apigee::flow::scope::Scope;

const CODES: &str = "steps.raisefault";
const CODE: &str = "steps.raisefault.RaiseFault";

struct RaiseFault {
    name: Box<str>,
    edits: MessageEdits,
    short_reason: bool,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(RaiseFault::build(link.name, link.config()?)?))
}

impl RaiseFault {
    fn build(name: &str, config: Config) -> Result<Self, String> {
        Ok(Self {
            name: name.into(),
            edits: MessageEdits::link(&config.edits, format!("RaiseFault[{name}]"), CODES)?,
            short_reason: config.short_reason,
        })
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let text = format!("Raising fault. Fault name : {}", self.name);
        let mut response = Message::response();
        response.status = 500;
        self.edits.apply(scope, Some(Target::Own(&mut response)))?;
        if !self.edits.give_payload() {
            response.content = Bytes::from(fault::json(&text, CODE, None));
            response
                .headers
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
        }
        let mut raised = PolicyFault::new(response.status, CODE, text);
        raised.reason = self.short_reason.then(|| response.reason_text().to_owned());
        raised.response = Some(Box::new(response));
        raised.is_raised = true;
        Err(raised)
    }
}

impl Policy for RaiseFault {
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
    use super::super::test_support::{config, scope};
    use super::*;

    fn raise(body: &str) -> (PolicyFault, Message) {
        let policy = RaiseFault::build(
            "no",
            config(&format!("<RaiseFault name='no'>{body}</RaiseFault>")),
        )
        .unwrap();
        let fault = policy.run(&mut scope()).expect_err("a fault");
        let response = fault.response.as_deref().expect("a response").clone();
        (fault, response)
    }

    #[test]
    fn raises_what_is_written() {
        let (fault, response) = raise(
            "<FaultResponse><Set><Headers><Header name='X'>{request.verb}{unset}</Header></Headers>\
             <Payload contentType='text/plain'>no {request.header.accept}</Payload>\
             <StatusCode>403</StatusCode><ReasonPhrase>Never</ReasonPhrase></Set></FaultResponse><ShortFaultReason>true</ShortFaultReason>",
        );
        assert_eq!(
            (fault.status, fault.name.as_ref(), fault.is_raised),
            (403, "RaiseFault", true)
        );
        assert_eq!(fault.reason.as_deref(), Some("Never"));
        assert_eq!(
            (response.status, response.text().as_ref()),
            (403, "no text/html")
        );
        assert_eq!(response.headers["x"], "GET");
        assert!(
            !response.headers.contains_key("accept"),
            "nothing of the request comes along"
        );
    }

    #[test]
    fn has_a_default_body() {
        let (fault, response) = raise("");
        assert_eq!(fault.status, 500);
        let body: serde_json::Value = serde_json::from_slice(&response.content).unwrap();
        assert_eq!(
            body["fault"]["faultstring"],
            "Raising fault. Fault name : no"
        );
        assert_eq!(
            body["fault"]["detail"]["errorcode"],
            "steps.raisefault.RaiseFault"
        );
        assert_eq!(response.headers["content-type"], "application/json");
        let (_, response) = raise(
            "<FaultResponse><Set><Payload/><StatusCode>200</StatusCode></Set></FaultResponse>",
        );
        assert_eq!((response.status, response.content.len()), (200, 0));
    }

    #[test]
    fn may_insist_on_its_variables() {
        let body = "<FaultResponse><Set><Payload>{unset}</Payload></Set></FaultResponse><IgnoreUnresolvedVariables>false</IgnoreUnresolvedVariables>";
        let policy = RaiseFault::build(
            "no",
            config(&format!("<RaiseFault name='no'>{body}</RaiseFault>")),
        )
        .unwrap();
        let fault = policy.run(&mut scope()).expect_err("a fault");
        assert_eq!(fault.code, "steps.raisefault.UnresolvedVariable");
        assert!(!fault.is_raised);
    }
}
