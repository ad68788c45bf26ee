//! Policies as bundles write them: one file each that turns XML into a configuration, and the one table that lists them.
//!
//! A policy is a file here and a line in [`TABLE`], and a file that runs it in `plugins::apigee::policies`. What is read
//! here is plain data: the compiled plan shows it. Refuses to know how a policy runs.

pub mod access_control;
pub mod assert_condition;
pub mod assign_message;
pub mod basic_authentication;
pub mod caching;
pub mod cors;
pub mod extract_variables;
pub mod flow_callout;
pub mod invalidate_cache;
pub mod javascript;
pub mod json_to_xml;
pub mod jwt;
pub mod key_value_map_operations;
pub mod lookup_cache;
pub mod message_edits;
pub mod message_logging;
pub mod oauth_info;
pub mod oauth_v2;
pub mod populate_cache;
pub mod quota;
pub mod raise_fault;
pub mod regular_expression_protection;
pub mod response_cache;
pub mod service_callout;
pub mod spike_arrest;
pub mod statistics_collector;
#[cfg(test)]
pub(crate) mod test_support;
pub mod texts;
pub mod threat_protection;
pub mod verify_api_key;
pub mod xml_to_json;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::xml::{Fields, Findings, Written};

/// Reads the rest of a policy's file. `None` when it cannot be used; the reason is among the findings.
pub type Parse = fn(&mut PolicyReader<'_, '_>) -> Option<Parsed>;

/// One line of the table.
pub struct PolicyEntry {
    /// The type, as the root element is spelt.
    pub kind: &'static str,
    /// Other spellings of the root element.
    pub spellings: &'static [&'static str],
    /// `<Properties>` mean something to it.
    pub reads_properties: bool,
    pub parse: Parse,
}

impl PolicyEntry {
    const fn new(kind: &'static str, parse: Parse) -> Self {
        Self {
            kind,
            spellings: &[],
            reads_properties: false,
            parse,
        }
    }
}

/// Every policy that can be used.
const TABLE: &[PolicyEntry] = &[
    PolicyEntry::new("AssignMessage", assign_message::parse),
    PolicyEntry::new("AssertCondition", assert_condition::parse),
    PolicyEntry::new("ServiceCallout", service_callout::parse),
    PolicyEntry::new("FlowCallout", flow_callout::parse),
    PolicyEntry {
        spellings: &["JavaScript"],
        reads_properties: true,
        ..PolicyEntry::new("Javascript", javascript::parse)
    },
    PolicyEntry::new("AccessControl", access_control::parse),
    PolicyEntry::new("BasicAuthentication", basic_authentication::parse),
    PolicyEntry::new("ExtractVariables", extract_variables::parse),
    PolicyEntry::new("JSONThreatProtection", threat_protection::parse_json),
    PolicyEntry::new("JSONToXML", json_to_xml::parse),
    PolicyEntry::new(
        "RegularExpressionProtection",
        regular_expression_protection::parse,
    ),
    PolicyEntry::new("XMLThreatProtection", threat_protection::parse_xml),
    PolicyEntry::new("XMLToJSON", xml_to_json::parse),
    PolicyEntry::new("CORS", cors::parse),
    PolicyEntry::new("KeyValueMapOperations", key_value_map_operations::parse),
    PolicyEntry::new("InvalidateCache", invalidate_cache::parse),
    PolicyEntry::new("LookupCache", lookup_cache::parse),
    PolicyEntry::new("MessageLogging", message_logging::parse),
    PolicyEntry::new("PopulateCache", populate_cache::parse),
    PolicyEntry::new("ResponseCache", response_cache::parse),
    PolicyEntry::new("OAuthV2", oauth_v2::parse),
    PolicyEntry::new("GetOAuthV2Info", oauth_info::parse_show),
    PolicyEntry::new("SetOAuthV2Info", oauth_info::parse_change),
    PolicyEntry::new("DeleteOAuthV2Info", oauth_info::parse_delete),
    PolicyEntry::new("RevokeOAuthV2", oauth_info::parse_revoke),
    PolicyEntry::new("GenerateJWT", jwt::parse_generate_jwt),
    PolicyEntry::new("VerifyJWT", jwt::parse_verify_jwt),
    PolicyEntry::new("DecodeJWT", jwt::parse_decode_jwt),
    PolicyEntry::new("GenerateJWS", jwt::parse_generate_jws),
    PolicyEntry::new("VerifyJWS", jwt::parse_verify_jws),
    PolicyEntry::new("DecodeJWS", jwt::parse_decode_jws),
    PolicyEntry::new("Quota", quota::parse),
    PolicyEntry::new("RaiseFault", raise_fault::parse),
    PolicyEntry::new("SpikeArrest", spike_arrest::parse),
    PolicyEntry::new("StatisticsCollector", statistics_collector::parse),
    PolicyEntry::new("VerifyAPIKey", verify_api_key::parse),
];

/// The line for a root element.
pub fn entry(element: &str) -> Option<&'static PolicyEntry> {
    TABLE
        .iter()
        .find(|entry| entry.kind == element || entry.spellings.contains(&element))
}

/// What a policy's file is read with: the root element's fields, and where to complain.
pub struct PolicyReader<'a, 'f> {
    /// The root element; name, `enabled` and the like are known already, and the rest is asked for by the policy's file.
    /// Whoever calls it warns about what nobody asked for.
    pub fields: Fields<'a>,
    pub findings: &'f mut Findings,
    /// The policy's name.
    pub name: &'a str,
}

impl PolicyReader<'_, '_> {
    /// Complains about the whole policy.
    pub fn error(&mut self, code: &'static str, message: impl Into<String>) {
        self.findings.error(code, self.fields.place(), message);
    }

    /// The configuration as data.
    pub fn parsed<C: Serialize>(&mut self, config: &C) -> Option<Parsed> {
        match serde_json::to_value(config) {
            Ok(config) => Some(Parsed {
                config,
                ..Parsed::default()
            }),
            Err(error) => {
                self.error("configuration", format!("cannot be compiled: {error}"));
                None
            }
        }
    }
}

/// A policy as data, and what the compiler has to know about it.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// What the file that runs it is linked from.
    pub config: Value,
    /// Bodies that it looks at or replaces though its text does not say so.
    pub bodies: Bodies,
    /// The current message's body is held for it even where the endpoint streams.
    pub holds_streams: bool,
    /// Shared flows that it calls, as far as their names are fixed.
    pub shared_flows: Vec<Written<String>>,
    /// Resources that it needs, as URLs: `jsc://x.js`.
    pub resources: Vec<Written<String>>,
    /// Caches that must exist in the environment.
    pub caches: Vec<Written<String>>,
    /// Where it sends requests of its own.
    pub callout: Option<Callout>,
}

/// Where a policy sends requests of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Callout {
    Http(Box<crate::dialects::apigee::bundle::HttpTarget>),
    Local(crate::dialects::apigee::bundle::LocalTarget),
}

impl Parsed {
    /// The same, with bodies that it looks at or replaces.
    #[must_use]
    pub fn with_bodies(mut self, bodies: Bodies) -> Self {
        self.bodies = self.bodies.with(bodies);
        self
    }

    /// The same, with the cache that must exist, if it names one.
    #[must_use]
    pub fn with_cache(mut self, named: Option<Written<String>>) -> Self {
        self.caches.extend(named);
        self
    }
}

/// Which bodies somebody looks at or replaces; they are held whole then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bodies {
    pub request: bool,
    pub response: bool,
    /// That of the message which is current where the policy is attached.
    pub current: bool,
}

impl Bodies {
    /// None.
    pub const NONE: Self = Self {
        request: false,
        response: false,
        current: false,
    };
    /// That of the current message.
    pub const CURRENT: Self = Self {
        current: true,
        ..Self::NONE
    };
    /// That of the request.
    pub const REQUEST: Self = Self {
        request: true,
        ..Self::NONE
    };
    /// That of the response.
    pub const RESPONSE: Self = Self {
        response: true,
        ..Self::NONE
    };
    /// All of them, for policies that may look at anything.
    pub const ALL: Self = Self {
        request: true,
        response: true,
        current: true,
    };

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            request: self.request || other.request,
            response: self.response || other.response,
            current: self.current || other.current,
        }
    }

    /// The bodies that a text speaks of: a condition, a template, a variable's name. Errs on the side of holding.
    pub fn in_text(text: &str) -> Self {
        let mut bodies = Self::NONE;
        let is_part = |character: char| {
            character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
        };
        for word in text.split(|character| !is_part(character)) {
            let (message, property) = word.split_once('.').unwrap_or((word, ""));
            let property = property.split('.').next().unwrap_or_default();
            let looks = match property {
                "content" | "formparam" | "formparams" | "formstring" => true,
                // The message itself, as a source or reference: only where it stands alone.
                "" => word == text.trim(),
                _ => false,
            };
            match message {
                "request" if looks => bodies.request = true,
                // The error of a target has its body.
                "error" if looks => bodies.response = true,
                "response" if looks => bodies.response = true,
                "message" if looks => bodies.current = true,
                _ => {}
            }
        }
        bodies
    }
}

/// A name with the place where it was written.
pub fn written(value: impl Into<String>, at: SourceRef) -> Written<String> {
    Written {
        value: value.into(),
        at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_bodies_that_texts_speak_of() {
        let cases = [
            ("request.content", Bodies::REQUEST),
            ("x = 1 and request.formparam.a = \"b\"", Bodies::REQUEST),
            ("{message.content}", Bodies::CURRENT),
            (" request ", Bodies::REQUEST),
            ("a request for you", Bodies::NONE),
            ("response.header.content", Bodies::NONE),
            ("request.header.content-type", Bodies::NONE),
            ("{response.content.as.base64}", Bodies::RESPONSE),
            ("my.request.content", Bodies::NONE),
        ];
        for (text, expected) in cases {
            assert_eq!(Bodies::in_text(text), expected, "{text}");
        }
    }
}
