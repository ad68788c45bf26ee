//! `InvalidateCache`: removes entries of a cache.

use serde::{Deserialize, Serialize};

use super::caching::{Place, read_place};
use super::{Parsed, PolicyReader};
use crate::dialects::apigee::xml::Fields;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub place: Place,
    /// Whose entries, where they are not one's own.
    #[serde(default)]
    pub context: Context,
    /// Also all entries whose key begins with this one.
    pub purges_children: bool,
}

/// `<CacheContext>`: names that stand for those of the flow that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_endpoint: Option<String>,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let place = read_place(reader);
    let findings = &mut *reader.findings;
    let purges_children = reader.fields.boolean("PurgeChildEntries", false, findings);
    let mut context = Context::default();
    if let Some(element) = reader.fields.child("CacheContext", findings) {
        let mut fields = Fields::new(element);
        let mut of = |name| {
            let text = fields.filled_text(name, findings);
            text.map(|text| text.into_owned())
        };
        context = Context {
            proxy: of("APIProxyName"),
            proxy_endpoint: of("ProxyName"),
            target_endpoint: of("TargetName"),
        };
        fields.finish(findings);
    }
    let (place, named) = place?;
    let config = Config {
        place,
        context,
        purges_children,
    };
    Some(reader.parsed(&config)?.with_cache(named))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn reads_whose_entries_go() {
        let (config, findings, _) = read::<Config>(
            "<InvalidateCache name='i'><CacheKey><KeyFragment>a</KeyFragment></CacheKey>\
             <CacheContext><APIProxyName>other</APIProxyName><TargetName>t</TargetName></CacheContext>\
             <PurgeChildEntries>true</PurgeChildEntries></InvalidateCache>",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let config = config.unwrap();
        assert!(config.purges_children);
        assert_eq!(config.context.proxy.as_deref(), Some("other"));
        assert_eq!(config.context.proxy_endpoint, None);
        assert_eq!(config.context.target_endpoint.as_deref(), Some("t"));
    }
}
