//! Intentions: which service may talk to which, evaluated here instead of by the agent.
//!
//! Owns the order of precedence and what follows from it for a connection. What an HTTP request must look like is in
//! [`super::permission`]. Whatever cannot be judged counts against the caller. Start at [`IntentionList::decide`].

use std::sync::Arc;

use serde::Deserialize;

use super::answers::nullable;
use super::permission::{Permission, PermissionList};
use super::spiffe::{DEFAULT, ServiceIdentity};

/// More intentions for one destination than this are not taken over.
pub const INTENTIONS_MAX: usize = 10_000;
const WILDCARD: &str = "*";

/// A rule as `GET /v1/connect/intentions/match` has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Intention {
    #[serde(rename = "ID", deserialize_with = "nullable")]
    pub id: String,
    #[serde(deserialize_with = "nullable")]
    pub source_name: String,
    #[serde(rename = "SourceNS", deserialize_with = "nullable")]
    pub source_namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub source_partition: String,
    #[serde(deserialize_with = "nullable")]
    pub source_peer: String,
    #[serde(deserialize_with = "nullable")]
    pub source_sameness_group: String,
    #[serde(deserialize_with = "nullable")]
    pub destination_name: String,
    #[serde(rename = "DestinationNS", deserialize_with = "nullable")]
    pub destination_namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub destination_partition: String,
    /// `allow`, `deny`, or empty when the permissions decide.
    #[serde(deserialize_with = "nullable")]
    pub action: String,
    #[serde(deserialize_with = "nullable")]
    pub permissions: Vec<Permission>,
    #[serde(deserialize_with = "nullable")]
    pub precedence: i64,
    /// Tokens that every request would have to carry; see [`IntentionList::compile`].
    #[serde(rename = "JWT")]
    pub jwt: Option<serde_json::Value>,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
}

impl Action {
    /// `allow` or `deny`; anything else is neither.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            _ if word.eq_ignore_ascii_case("allow") => Some(Self::Allow),
            _ if word.eq_ignore_ascii_case("deny") => Some(Self::Deny),
            _ => None,
        }
    }
}

/// What the list says about a caller.
#[derive(Debug, Clone)]
pub enum Decision {
    /// An intention names an action.
    Action(Action),
    /// The requests decide, each for itself. A connection that carries no requests is denied.
    Requests(Arc<PermissionList>),
    /// No intention speaks of the caller: the default of the mesh.
    Default,
}

/// The intentions of one destination, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct IntentionList {
    rules: Vec<Rule>,
    /// What could not be understood, for the log; each such rule denies.
    pub complaints: Vec<String>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    namespace: String,
    partition: String,
    decision: Decision,
}

impl IntentionList {
    /// Prepares a list. What is not understood denies, and is told in [`Self::complaints`].
    pub fn compile(intentions: &[Intention]) -> Self {
        let mut complaints = Vec::new();
        if intentions.len() > INTENTIONS_MAX {
            complaints.push(format!(
                "{} intentions are more than the {INTENTIONS_MAX} that are looked at, the rest denies",
                intentions.len()
            ));
        }
        // The agent sorts already; a list in another order would open doors.
        let mut sorted: Vec<&Intention> = intentions.iter().take(INTENTIONS_MAX).collect();
        sorted.sort_by_key(|intention| std::cmp::Reverse(intention.precedence));
        let rules = sorted
            .into_iter()
            // Those of peered clusters speak of callers whose certificates our roots do not cover.
            .filter(|one| one.source_peer.is_empty() && one.source_sameness_group.is_empty())
            .map(|intention| Rule::compile(intention, &mut complaints));
        let mut rules: Vec<Rule> = rules.collect();
        if intentions.len() > INTENTIONS_MAX {
            rules.push(Rule::deny_all());
        }
        Self { rules, complaints }
    }

    /// What holds for a caller: the first rule whose source it is.
    pub fn decide(&self, caller: &ServiceIdentity) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.speaks_of(caller));
        rule.map_or(Decision::Default, |rule| rule.decision.clone())
    }

    /// Does some rule speak of every caller, so that the default never counts?
    pub fn covers_everybody(&self) -> bool {
        self.rules.iter().any(|rule| {
            rule.name == WILDCARD && rule.namespace == WILDCARD && rule.partition == WILDCARD
        })
    }
}

impl Rule {
    fn compile(intention: &Intention, complaints: &mut Vec<String>) -> Self {
        let or_default = |text: &str| match text {
            "" => DEFAULT.to_owned(),
            text => text.to_owned(),
        };
        let source = &intention.source_name;
        let target = &intention.destination_name;
        let mut complain = |what: &str| {
            complaints.push(format!(
                "intention '{source}' => '{target}': {what}, it denies"
            ));
        };
        let decision = if !intention.permissions.is_empty() {
            let list = PermissionList::compile(&intention.permissions, intention.jwt.is_some());
            for what in &list.complaints {
                complain(what);
            }
            Decision::Requests(Arc::new(list))
        } else {
            Decision::Action(match Action::from_word(&intention.action) {
                Some(Action::Allow) if intention.jwt.is_some() => {
                    complain("tokens (JWT) in intentions are not supported");
                    Action::Deny
                }
                Some(action) => action,
                None => {
                    complain("has neither an action nor permissions");
                    Action::Deny
                }
            })
        };
        Self {
            name: source.clone(),
            namespace: or_default(&intention.source_namespace),
            partition: or_default(&intention.source_partition),
            decision,
        }
    }

    fn deny_all() -> Self {
        Self {
            name: WILDCARD.to_owned(),
            namespace: WILDCARD.to_owned(),
            partition: WILDCARD.to_owned(),
            decision: Decision::Action(Action::Deny),
        }
    }

    fn speaks_of(&self, caller: &ServiceIdentity) -> bool {
        let same = |rule: &str, caller: &str| rule == WILDCARD || rule.eq_ignore_ascii_case(caller);
        same(&self.name, &caller.service)
            && same(&self.namespace, &caller.namespace)
            && same(&self.partition, &caller.partition)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::dialects::consul::spiffe::SpiffeId;

    fn caller(path: &str) -> ServiceIdentity {
        let uri = format!("spiffe://t.consul{path}");
        SpiffeId::parse(&uri).unwrap().service().unwrap()
    }

    fn list(text: &str) -> IntentionList {
        let intentions: Vec<Intention> = serde_json::from_str(text).unwrap();
        IntentionList::compile(&intentions)
    }

    fn word(decision: &Decision) -> &'static str {
        match decision {
            Decision::Action(Action::Allow) => "allow",
            Decision::Action(Action::Deny) => "deny",
            Decision::Requests(_) => "requests",
            Decision::Default => "default",
        }
    }

    #[test]
    fn the_most_exact_rule_decides_whatever_the_order_of_the_list() {
        let list = list(
            r#"[{"SourceName":"*","DestinationName":"db","Action":"deny","Precedence":8},
                {"SourceName":"web","SourceNS":"default","DestinationName":"db","Action":"allow","Precedence":9},
                {"SourceName":"api","SourceNS":"default","DestinationName":"db","Precedence":9,
                 "Permissions":[{"Action":"allow","HTTP":{"PathExact":"/"}}]},
                {"SourceName":"west","SourceNS":"*","SourcePartition":"w","DestinationName":"db","Action":"allow","Precedence":7},
                {"SourceName":"peered","SourcePeer":"other","DestinationName":"db","Action":"allow","Precedence":9},
                {"SourceName":"strange","DestinationName":"db","Action":"maybe","Precedence":9},
                {"SourceName":"token","DestinationName":"db","Action":"allow","JWT":{"Providers":[]},"Precedence":9}]"#,
        );
        for (path, expected) in [
            ("/ns/default/dc/dc1/svc/web", "allow"),
            ("/ns/default/dc/dc1/svc/WEB", "allow"),
            ("/ns/default/dc/dc9/svc/web", "allow"),
            ("/ns/other/dc/dc1/svc/web", "default"),
            ("/ap/w/ns/default/dc/dc1/svc/web", "default"),
            ("/ns/default/dc/dc1/svc/api", "requests"),
            ("/ns/default/dc/dc1/svc/unnamed", "deny"),
            ("/ap/w/ns/any/dc/dc1/svc/west", "allow"),
            ("/ns/default/dc/dc1/svc/peered", "deny"),
            ("/ns/default/dc/dc1/svc/strange", "deny"),
            ("/ns/default/dc/dc1/svc/token", "deny"),
        ] {
            assert_eq!(word(&list.decide(&caller(path))), expected, "{path}");
        }
        assert_eq!(list.complaints.len(), 2, "{:?}", list.complaints);
    }

    #[test]
    fn no_rule_is_the_default() {
        let web = caller("/ns/default/dc/dc1/svc/web");
        assert_eq!(word(&list("[]").decide(&web)), "default");
        assert!(!list("[]").covers_everybody());
    }
}
