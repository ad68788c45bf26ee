//! `acl`: who may pass, by groups.

use std::sync::Arc;

use http::StatusCode;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::schema::only_one_of;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::headers::{lenient_value, set_request};
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;

const CONSUMER_GROUPS: &str = "X-Consumer-Groups";
const AUTHENTICATED_GROUPS: &str = "X-Authenticated-Groups";

config_record! {
    /// Lets consumers pass, or turns them away, by the groups that they are in.
    pub struct Config {
        /// Groups that may pass; everybody else may not.
        allow: Option<Vec<String>> = array(string()),
        /// Groups that may not pass; everybody else may.
        deny: Option<Vec<String>> = array(string()),
        /// Do not tell the upstream the caller's groups in `X-Consumer-Groups` or `X-Authenticated-Groups`.
        hide_groups_header: bool = boolean().required().default(false),
        /// Prefer groups that an authentication plugin vouched for to those of the consumer.
        always_use_authenticated_groups: bool = boolean().required().default(false),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("acl", 950, Config::schema())
            .without_consumer()
            .check(only_one_of(&["config.allow", "config.deny"]))
            .credentials(&["acls"])
            .with_messages(),
        link,
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let (allow, listed) = match (config.allow, config.deny) {
        (Some(groups), None) => (true, groups),
        (None, Some(groups)) => (false, groups),
        // The other list may be there but empty.
        (Some(groups), Some(denied)) if denied.is_empty() => (true, groups),
        (Some(allowed), Some(groups)) if allowed.is_empty() => (false, groups),
        _ => return Err("config: exactly one of 'allow' and 'deny' must be set".to_owned()),
    };
    Ok(Arc::new(AccessList {
        allow,
        listed,
        hide_header: config.hide_groups_header,
        prefer_authenticated: config.always_use_authenticated_groups,
    }))
}

struct AccessList {
    /// Does the list name those who pass, or those who do not?
    allow: bool,
    listed: Vec<String>,
    hide_header: bool,
    prefer_authenticated: bool,
}

impl Plugin for AccessList {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let identity = &exchange.identity;
        let vouched = &identity.groups[..];
        let (groups, header): (&[Arc<str>], _) = match &identity.principal {
            // Groups that were vouched for count more than those of a stand-in.
            Some(_) if !vouched.is_empty() && identity.credential.is_none() => {
                (vouched, AUTHENTICATED_GROUPS)
            }
            Some(_) if !vouched.is_empty() && self.prefer_authenticated => {
                (vouched, AUTHENTICATED_GROUPS)
            }
            Some(principal) => (&principal.plan.acl_groups, CONSUMER_GROUPS),
            None if !vouched.is_empty() => (vouched, AUTHENTICATED_GROUPS),
            None if identity.credential.is_some() => return forbidden(),
            None => {
                return Flow::fault(Fault::refuse(StatusCode::UNAUTHORIZED, "Unauthorized"));
            }
        };
        let is_listed = groups
            .iter()
            .any(|group| self.listed.iter().any(|listed| **listed == **group));
        if is_listed != self.allow {
            return forbidden();
        }
        let shown = (!self.hide_header && !groups.is_empty()).then(|| groups.join(", "));
        let head = &mut exchange.request;
        // Never the client's own claim.
        head.remove_header(CONSUMER_GROUPS);
        head.remove_header(AUTHENTICATED_GROUPS);
        if let Some(shown) = shown {
            set_request(head, header, lenient_value(shown.as_bytes()));
        }
        Flow::Continue
    }
}

fn forbidden() -> Flow {
    Flow::fault(Fault::refuse(
        StatusCode::FORBIDDEN,
        "You cannot consume this service",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World, refusal};

    #[test]
    fn decides_by_groups() {
        let world = World::new()
            .principal("alice", &["gold", "staff"])
            .principal("bob", &[]);
        let forbidden = Some(403);
        for (config, caller, vouched, refused, header) in [
            (
                json!({"allow": ["gold"]}),
                Some("alice"),
                None,
                None,
                "gold, staff",
            ),
            (
                json!({"allow": ["silver"]}),
                Some("alice"),
                None,
                forbidden,
                "",
            ),
            (
                json!({"deny": ["gold"]}),
                Some("alice"),
                None,
                forbidden,
                "",
            ),
            (
                json!({"deny": ["silver"]}),
                Some("alice"),
                None,
                None,
                "gold, staff",
            ),
            (json!({"allow": ["gold"]}), Some("bob"), None, forbidden, ""),
            (json!({"deny": ["gold"]}), Some("bob"), None, None, ""),
            (json!({"allow": ["gold"]}), None, None, Some(401), ""),
            (json!({"allow": ["vip"]}), None, Some("vip"), None, "vip"),
            (
                json!({"allow": ["gold"], "hide_groups_header": true}),
                Some("alice"),
                None,
                None,
                "",
            ),
            (
                json!({"allow": ["vip"], "always_use_authenticated_groups": true}),
                Some("alice"),
                Some("vip"),
                None,
                "vip",
            ),
        ] {
            let case = format!("{config} {caller:?} {vouched:?}");
            let plugin = world.link(entry(), config);
            let mut exchange =
                world.exchange(Message::get("/").header("x-consumer-groups", "forged"));
            if let Some(caller) = caller {
                world.authenticate(&mut exchange, caller);
            }
            exchange.identity.groups.extend(vouched.map(Arc::from));
            let seen = refusal(&plugin.access(&mut exchange));
            assert_eq!(seen.map(|(status, _)| status), refused, "{case}");
            if refused.is_none() {
                let headers = &exchange.request.headers;
                let name = if vouched.is_some() {
                    "x-authenticated-groups"
                } else {
                    "x-consumer-groups"
                };
                let seen = headers
                    .get(name)
                    .map_or("", |value| value.to_str().unwrap());
                assert_eq!(seen, header, "{case}");
            }
        }
    }

    #[test]
    fn demands_exactly_one_list() {
        let world = World::new();
        for config in [json!({}), json!({"allow": ["a"], "deny": ["b"]})] {
            assert_eq!(
                world.refused(entry(), config),
                json!({"@entity": [
                    "exactly one of these fields must be non-empty: 'config.allow', 'config.deny'"
                ]})
            );
        }
    }
}
