//! `BasicAuthentication`: makes a header of a name and password, or takes one apart. It checks neither.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::basic_authentication::{Config, Operation};
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;

const CODES: &str = "steps.basicauthentication";

struct BasicAuthentication {
    name: Box<str>,
    operation: Operation,
    user: VariableName,
    password: VariableName,
    header: VariableName,
    ignore_unresolved: bool,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(BasicAuthentication::build(
        link.name,
        &link.config()?,
    )))
}

impl BasicAuthentication {
    fn build(name: &str, config: &Config) -> Self {
        Self {
            name: name.into(),
            operation: config.operation,
            user: VariableName::new(&config.user),
            password: VariableName::new(&config.password),
            header: VariableName::new(&config.header),
            ignore_unresolved: config.ignore_unresolved,
        }
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let written = match self.operation {
            Operation::Encode => {
                let (user, password) = (
                    self.part(&self.user, scope)?,
                    self.part(&self.password, scope)?,
                );
                let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
                vec![(&self.header, value)]
            }
            Operation::Decode => {
                let Some(header) = scope.text(&self.header) else {
                    return if self.ignore_unresolved {
                        Ok(Next::Continue)
                    } else {
                        Err(self.unresolved(&self.header))
                    };
                };
                let (user, password) = decoded(&header).ok_or_else(|| {
                    let message = format!("Source variable: {} for basic authentication decode policy: {} is not valid", self.header, self.name);
                    PolicyFault::new(500, format!("{CODES}.InvalidBasicAuthenticationSource"), message)
                })?;
                vec![(&self.user, user), (&self.password, password)]
            }
        };
        for (name, value) in written {
            scope
                .set(name, Value::from(value))
                .map_err(|error| PolicyFault::of_write(CODES, &error))?;
        }
        Ok(Next::Continue)
    }

    fn part(&self, name: &VariableName, scope: &Scope) -> Result<String, PolicyFault> {
        match scope.text(name) {
            Some(text) => Ok(text.into_owned()),
            None if self.ignore_unresolved => Ok(String::new()),
            None => Err(self.unresolved(name)),
        }
    }

    fn unresolved(&self, name: &VariableName) -> PolicyFault {
        let message = format!("Unresolved variable : {name}");
        PolicyFault::new(500, format!("{CODES}.UnresolvedVariable"), message)
    }
}

/// Name and password of a header's value.
fn decoded(header: &str) -> Option<(String, String)> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

impl Policy for BasicAuthentication {
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

    fn policy(body: &str) -> BasicAuthentication {
        let xml = format!(
            "<BasicAuthentication name='b'><User ref='u'/><Password ref='p'/>{body}</BasicAuthentication>"
        );
        BasicAuthentication::build("b", &config(&xml))
    }

    #[test]
    fn encodes_and_decodes() {
        let mut scope = scope();
        scope.set_own("u", "Aladdin".to_owned());
        scope.set_own("p", "open:sesame".to_owned());
        policy("<Operation>Encode</Operation><AssignTo createNew='false'>request.header.Authorization</AssignTo>").run(&mut scope).unwrap();
        assert_eq!(
            text(&scope, "request.header.authorization").as_deref(),
            Some("Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ==")
        );
        scope.set_own("u", "x".to_owned());
        scope.set_own("p", "x".to_owned());
        policy("<Operation>Decode</Operation><Source>request.header.Authorization</Source>")
            .run(&mut scope)
            .unwrap();
        assert_eq!(
            (text(&scope, "u").as_deref(), text(&scope, "p").as_deref()),
            (Some("Aladdin"), Some("open:sesame"))
        );
    }

    #[test]
    fn fails_as_documented() {
        let decode = "<Operation>Decode</Operation><Source>request.header.Authorization</Source>";
        for bad in [
            "Bearer x",
            "Basic",
            "Basic !!",
            "Basic bm9jb2xvbg==",
            "Basic /w==",
        ] {
            let mut scope = scope();
            scope
                .set(
                    &VariableName::new("request.header.Authorization"),
                    bad.into(),
                )
                .unwrap();
            let fault = policy(decode).run(&mut scope).expect_err(bad);
            assert_eq!(fault.name, "InvalidBasicAuthenticationSource");
            assert!(!fault.message.contains(bad), "no secret in a message");
        }
        let fault = policy(decode).run(&mut scope()).expect_err("unset");
        assert_eq!(
            (fault.status, fault.code.as_ref()),
            (500, "steps.basicauthentication.UnresolvedVariable")
        );
        let ignoring =
            format!("{decode}<IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables>");
        assert!(policy(&ignoring).run(&mut scope()).is_ok());
    }
}
