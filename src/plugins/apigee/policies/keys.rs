//! Keys of apps as policies look them up: in the snapshot's directory, with what they stand for read once.

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::RwLock;
use uuid::Uuid;

use crate::dialects::apigee::condition::pattern::PathPattern;
use crate::dialects::apigee::entities::ApiProduct;
use crate::dialects::apigee::keys::{KeyFacts, credential_kind};
use crate::runtime::live::Live;
use crate::runtime::snapshot::Snapshot;

/// Facts kept read; then all are forgotten and read again as they are needed.
const FACTS_MAX: usize = 100_000;

/// A description, and what was read from it.
type Described = (Arc<str>, Arc<KeyFacts>);

/// What keys stand for, read from the descriptions of their principals.
#[derive(Default)]
pub(crate) struct KeyTable {
    facts: RwLock<AHashMap<Uuid, Described>>,
}

impl KeyTable {
    /// The one table of the process.
    pub(crate) fn of(live: &Live) -> Arc<Self> {
        live.keep("app-keys", Self::default)
    }

    /// What a consumer key stands for; none when nobody has it.
    pub(crate) fn find(
        &self,
        snapshot: &Snapshot,
        organization: &str,
        consumer_key: &str,
    ) -> Option<Arc<KeyFacts>> {
        let directory = &snapshot.directory;
        let credential = directory.credential(&credential_kind(organization), consumer_key)?;
        let principal = directory.principal(&credential.plan.principal)?;
        let (id, description) = (principal.plan.id, &principal.plan.description);
        if let Some((of, facts)) = self.facts.read().get(&id)
            && Arc::ptr_eq(of, description)
        {
            return Some(Arc::clone(facts));
        }
        let facts: Arc<KeyFacts> = Arc::new(serde_json::from_str(description).ok()?);
        let mut all = self.facts.write();
        if all.len() >= FACTS_MAX {
            all.clear();
        }
        all.insert(id, (Arc::clone(description), Arc::clone(&facts)));
        Some(facts)
    }
}

/// The first approved product of a key that opens this proxy, environment and path.
pub(crate) fn product_for<'a>(
    facts: &'a KeyFacts,
    environment: &str,
    proxy: &str,
    path: &str,
) -> Option<&'a ApiProduct> {
    let approved =
        |product: &&ApiProduct| {
            facts.key.api_products.iter().any(|approval| {
                approval.apiproduct == product.name && approval.status == "approved"
            })
        };
    let names = |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
    facts.products.iter().filter(approved).find(|product| {
        names(&product.environments, environment)
            && names(&product.proxies, proxy)
            && opens(&product.api_resources, path)
    })
}

/// Whether one of the patterns fits a path; without any everything is open.
fn opens(resources: &[String], path: &str) -> bool {
    let path = if path.is_empty() { "/" } else { path };
    resources.is_empty()
        || resources.iter().any(|resource| {
            // A slash alone stands for everything below it.
            resource == "/" || PathPattern::new(resource).matches(path)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_open_paths() {
        for (resource, path, open) in [
            ("/", "/a/b", true),
            ("/*", "/a", true),
            ("/*", "/a/b", false),
            ("/**", "/a/b", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/b", false),
            ("/a/{id}/c", "/a/7/c", true),
            ("/a/{id}/c", "/a/c", false),
        ] {
            assert_eq!(
                opens(&[resource.to_owned()], path),
                open,
                "{resource} {path}"
            );
        }
        assert!(opens(&[], "/x"));
    }
}
