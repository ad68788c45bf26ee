//! `LookupCache`: reads an entry of a cache into a variable.

use serde::{Deserialize, Serialize};

use super::caching::{Place, check_lookup_timeout, read_place};
use super::texts::variable;
use super::{Parsed, PolicyReader};

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub place: Place,
    /// The variable that gets the value.
    pub assign_to: String,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let place = read_place(reader);
    check_lookup_timeout(&mut reader.fields, reader.findings);
    let root = reader.fields.element();
    let assign_to = reader.fields.required_text("AssignTo", reader.findings);
    let assign_to = assign_to.and_then(|name| variable(&name, root, reader.findings));
    let (place, named) = place?;
    let config = Config {
        place,
        assign_to: assign_to?,
    };
    Some(reader.parsed(&config)?.with_cache(named))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::caching::Scope;
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn reads_key_scope_and_cache() {
        let (config, findings, _) = read::<Config>(
            "<LookupCache name='l'><CacheKey><Prefix>p</Prefix><KeyFragment>a</KeyFragment>\
             <KeyFragment ref='request.queryparam.w' type='string'/></CacheKey><Scope>Global</Scope>\
             <CacheResource>c</CacheResource><CacheLookupTimeoutInSeconds>30</CacheLookupTimeoutInSeconds>\
             <AssignTo>flow.value</AssignTo></LookupCache>",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let config = config.unwrap();
        assert_eq!(config.assign_to, "flow.value");
        assert_eq!(config.place.scope, Scope::Global);
        assert_eq!(config.place.cache.as_deref(), Some("c"));
        assert_eq!(config.place.fragments.len(), 2);
        assert_eq!(config.place.prefix.unwrap().text.as_deref(), Some("p"));
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for body in [
            "<AssignTo>x</AssignTo>",
            "<CacheKey/>",
            "<CacheKey/><AssignTo>x</AssignTo><Scope>Galaxy</Scope>",
            "<CacheKey/><AssignTo>x</AssignTo><CacheLookupTimeoutInSeconds>soon</CacheLookupTimeoutInSeconds>",
        ] {
            let (_, findings, _) =
                read::<Config>(&format!("<LookupCache name='l'>{body}</LookupCache>"));
            assert!(findings.iter().any(|one| one.is_error()), "{body}");
        }
    }
}
