//! `AssignMessage`: makes or edits a message, and sets variables.

use serde::{Deserialize, Serialize};

use super::message_edits::{self, Edits};
use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::xml::Fields;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assign_to: Option<AssignTo>,
    pub edits: Edits,
}

/// The message that is edited, when it is not the current one as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignTo {
    /// None is the current message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A fresh message takes its place.
    pub create_new: bool,
    /// A message that is made is a response.
    pub is_response: bool,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let assign_to = reader.fields.child("AssignTo", findings).map(|element| {
        let mut fields = Fields::new(element);
        let create_new = fields.boolean_attribute("createNew", false, findings);
        let is_response = fields
            .choice_attribute("type", &[("request", false), ("response", true)], findings)
            .unwrap_or(false);
        fields.ignore_attributes(&["transport"]);
        fields.finish(findings);
        let name = element.text();
        AssignTo {
            name: (!name.is_empty()).then(|| name.into_owned()),
            create_new,
            is_response,
        }
    });
    let edits = message_edits::read(&mut reader.fields, false, findings);
    let bodies = bodies_of(&edits, assign_to.as_ref());
    Some(
        reader
            .parsed(&Config { assign_to, edits })?
            .with_bodies(bodies),
    )
}

/// The bodies that are looked at or replaced without being named in a text.
fn bodies_of(edits: &Edits, assign_to: Option<&AssignTo>) -> Bodies {
    use message_edits::Edit;
    let named = |name: Option<&str>| match name {
        None => Bodies::CURRENT,
        Some(name) => Bodies::in_text(name),
    };
    let target = named(assign_to.and_then(|it| it.name.as_deref()));
    edits
        .steps
        .iter()
        .fold(Bodies::NONE, |bodies, edit| match edit {
            Edit::Copy(copy) if copy.payload || copy.form_parameters.is_some() => {
                bodies.with(named(copy.source.as_deref())).with(target)
            }
            Edit::Remove(remove) if remove.payload || remove.form_parameters.is_some() => {
                bodies.with(target)
            }
            Edit::Add(add) if !add.form_parameters.is_empty() => bodies.with(target),
            Edit::Set(set) if set.payload.is_some() || !set.form_parameters.is_empty() => {
                bodies.with(target)
            }
            _ => bodies,
        })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::super::message_edits::{Edit, Names};
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn keeps_the_order_and_everything_written() {
        let (config, findings, bodies) = read::<Config>(
            "<AssignMessage name='a'><AssignTo createNew='true' type='response' transport='http'>x</AssignTo>\
             <AssignVariable><Name>v</Name><Value> 1 </Value><Ref>w</Ref></AssignVariable>\
             <Set><Headers><Header name='H'>{v}</Header></Headers><Payload contentType='text/xml'>\n<a x=\"1\"><b/></a> </Payload>\
             <StatusCode>{code}</StatusCode></Set>\
             <Remove><Headers/><Payload>true</Payload></Remove><Copy source='request'><QueryParams><QueryParam name='q'/></QueryParams></Copy>\
             <Set><Verb>POST</Verb></Set><IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables></AssignMessage>",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let config = config.unwrap();
        assert!(config.edits.ignore_unresolved);
        assert!(config.assign_to.unwrap().is_response);
        let [
            Edit::AssignVariable(variable),
            Edit::Set(set),
            Edit::Remove(remove),
            Edit::Copy(copy),
            Edit::Set(second),
        ] = config.edits.steps.as_slice()
        else {
            panic!("{:?}", config.edits.steps);
        };
        assert_eq!(variable.value.as_deref(), Some(" 1 "));
        assert_eq!(set.payload.as_ref().unwrap().text, "<a x=\"1\"><b/></a>");
        assert_eq!(remove.headers, Some(Names::All));
        assert_eq!(
            copy.query_parameters,
            Some(Names::Some(vec!["q".to_owned()]))
        );
        assert_eq!(second.verb.as_deref(), Some("POST"));
        assert_eq!(
            bodies,
            Bodies::NONE,
            "the message x is neither request nor response"
        );
    }

    #[test]
    fn tells_all_that_is_wrong() {
        let (_, findings, _) = read::<Config>(
            "<AssignMessage name='a'>\n<Set><Headers><Header name='H.0'>x</Header></Headers></Set>\n\
             <AssignVariable><Name/><Value>1</Value></AssignVariable>\n<Set><Payload>{substring(a)}</Payload><StatusCode>9</StatusCode></Set>\n\
             <AssignTo type='odd'/><Strange/></AssignMessage>",
        );
        let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
        for part in [
            "p.xml:2: <Header>: the index in 'H.0'",
            "p.xml:3: <AssignVariable>: needs the name",
            "p.xml:4: <Payload>: template, line 1",
            "from 100 to 599",
            "must be one of request, response",
        ] {
            assert!(
                told.iter().any(|line| line.contains(part)),
                "{part}: {told:#?}"
            );
        }
    }
}
