//! Policies at work: one file each, and the one table that lists them.
//!
//! A policy is linked once from the configuration that `dialects::apigee::policies` has read, and executed by many
//! requests at once: it keeps no state of a request. What it may see and change is its [`FlowContext`].

mod access_control;
mod assert_condition;
mod assign_message;
mod basic_authentication;
mod caching;
mod conversion;
mod cors;
mod extract_variables;
mod flow_callout;
mod invalidate_cache;
mod javascript;
mod jwt;
mod key_value_map_operations;
mod key_variables;
mod keys;
mod lookup_cache;
pub(crate) mod message_edits;
mod message_logging;
mod oauth;
mod populate_cache;
mod quota;
mod raise_fault;
mod regular_expression_protection;
mod response_cache;
mod service_callout;
mod spike_arrest;
mod statistics_collector;
mod stored_response;
#[cfg(test)]
pub(crate) mod test_support;
mod threat_protection;
mod verify_api_key;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::runtime::contract::LinkContext;

/// What a step runs.
#[async_trait]
pub(crate) trait Policy: Send + Sync {
    /// Runs it. For policies that wait for nothing; the others say so in [`Policy::waits`].
    fn execute(&self, _flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        Ok(Next::Continue)
    }

    /// Must [`Policy::execute_async`] be called instead of [`Policy::execute`]? Asked once, when it is linked.
    fn waits(&self) -> bool {
        false
    }

    /// As [`Policy::execute`], for policies that wait for something.
    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.execute(flow)
    }
}

/// What a policy is linked from.
pub(crate) struct PolicyLink<'a> {
    /// Its name in the bundle.
    pub(crate) name: &'a str,
    /// What the dialect has read.
    pub(crate) config: &'a Value,
    /// The texts of the resources that it names, by URL.
    pub(crate) resources: &'a std::collections::BTreeMap<String, String>,
    /// Where it sends requests of its own.
    pub(crate) callout: Option<&'a crate::dialects::apigee::program::Way>,
    /// The cache that it names.
    pub(crate) cache: Option<&'a crate::dialects::apigee::program::CacheTerms>,
    /// Where it runs; also a key for state that outlives a configuration.
    pub(crate) place: &'a Place,
    /// State that outlives a configuration, the client for callouts, the resolver.
    pub(crate) context: &'a LinkContext<'a>,
}

/// Where a policy runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) organization: String,
    pub(crate) environment: String,
    /// The proxy whose requests it sees.
    pub(crate) proxy: String,
    pub(crate) revision: u32,
    /// The shared flow whose policy it is, if it is one's.
    pub(crate) shared_flow: Option<String>,
}

impl PolicyLink<'_> {
    /// The configuration in its own type.
    pub(crate) fn config<C: DeserializeOwned>(&self) -> Result<C, String> {
        C::deserialize(self.config).map_err(|error| error.to_string())
    }
}

/// Builds a policy; the error says what is wrong and what is allowed.
pub(crate) type LinkPolicy = fn(&PolicyLink<'_>) -> Result<Box<dyn Policy>, String>;

/// One line of the table.
pub(crate) struct PolicyEntry {
    /// The type, as in `dialects::apigee::policies`.
    pub(crate) kind: &'static str,
    /// `PREFIX.NAME.failed` is set when one fails.
    pub(crate) prefix: &'static str,
    pub(crate) link: LinkPolicy,
}

impl PolicyEntry {
    const fn new(kind: &'static str, prefix: &'static str, link: LinkPolicy) -> Self {
        Self { kind, prefix, link }
    }
}

/// Every policy that can run.
const TABLE: &[PolicyEntry] = &[
    PolicyEntry::new("AssignMessage", "assignmessage", assign_message::link),
    PolicyEntry::new("AssertCondition", "assertcondition", assert_condition::link),
    PolicyEntry::new("FlowCallout", "flow", flow_callout::link),
    PolicyEntry::new("Javascript", "javascript", javascript::link),
    PolicyEntry::new("AccessControl", "acl", access_control::link),
    PolicyEntry::new(
        "BasicAuthentication",
        "BasicAuthentication",
        basic_authentication::link,
    ),
    PolicyEntry::new(
        "ExtractVariables",
        "extractvariables",
        extract_variables::link,
    ),
    PolicyEntry::new(
        "JSONThreatProtection",
        "jsonattack",
        threat_protection::link_json,
    ),
    PolicyEntry::new("JSONToXML", "jsontoxml", conversion::link_json_to_xml),
    PolicyEntry::new(
        "RegularExpressionProtection",
        "regularexpressionprotection",
        regular_expression_protection::link,
    ),
    PolicyEntry::new(
        "XMLThreatProtection",
        "xmlattack",
        threat_protection::link_xml,
    ),
    PolicyEntry::new("XMLToJSON", "xmltojson", conversion::link_xml_to_json),
    PolicyEntry::new("CORS", "cors", cors::link),
    PolicyEntry::new("ServiceCallout", "servicecallout", service_callout::link),
    PolicyEntry::new(
        "KeyValueMapOperations",
        "keyvaluemapoperations",
        key_value_map_operations::link,
    ),
    PolicyEntry::new("InvalidateCache", "invalidatecache", invalidate_cache::link),
    PolicyEntry::new("LookupCache", "lookupcache", lookup_cache::link),
    PolicyEntry::new("MessageLogging", "messagelogging", message_logging::link),
    PolicyEntry::new("PopulateCache", "populatecache", populate_cache::link),
    PolicyEntry::new("ResponseCache", "responsecache", response_cache::link),
    PolicyEntry::new("OAuthV2", "oauthV2", oauth::link),
    PolicyEntry::new("GetOAuthV2Info", "oauthV2", oauth::info::link),
    PolicyEntry::new("SetOAuthV2Info", "oauthV2", oauth::info::link),
    PolicyEntry::new("DeleteOAuthV2Info", "oauthV2", oauth::info::link),
    PolicyEntry::new("RevokeOAuthV2", "oauthV2", oauth::info::link),
    PolicyEntry::new("GenerateJWT", "jwt", jwt::link),
    PolicyEntry::new("VerifyJWT", "jwt", jwt::link),
    PolicyEntry::new("DecodeJWT", "jwt", jwt::link),
    PolicyEntry::new("GenerateJWS", "jws", jwt::link),
    PolicyEntry::new("VerifyJWS", "jws", jwt::link),
    PolicyEntry::new("DecodeJWS", "jws", jwt::link),
    PolicyEntry::new("Quota", "ratelimit", quota::link),
    PolicyEntry::new("RaiseFault", "raisefault", raise_fault::link),
    PolicyEntry::new("SpikeArrest", "ratelimit", spike_arrest::link),
    PolicyEntry::new(
        "StatisticsCollector",
        "statisticscollector",
        statistics_collector::link,
    ),
    PolicyEntry::new("VerifyAPIKey", "oauthV2", verify_api_key::link),
];

/// The line for a type.
pub(crate) fn entry(kind: &str) -> Option<&'static PolicyEntry> {
    TABLE.iter().find(|entry| entry.kind == kind)
}
