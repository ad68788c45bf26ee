//! `PopulateCache`: puts a variable's value into a cache, as text; of a message its body.

use bytes::Bytes;

use super::caching::{Cache, Expiry};
use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::populate_cache::Config;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};

struct PopulateCache {
    name: Box<str>,
    cache: Cache,
    expiry: Expiry,
    source: VariableName,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    Ok(Box::new(PopulateCache {
        name: link.name.into(),
        cache: Cache::link(link, &config.place),
        expiry: Expiry::link(&config.expiry),
        source: VariableName::new(&config.source),
    }))
}

impl PopulateCache {
    fn value(&self, flow: &FlowContext<'_>) -> Option<Bytes> {
        use crate::dialects::apigee::variables::Variables;
        match flow.scope.variable(&self.source)? {
            Value::Message(handle) => Some(flow.message(handle)?.content.clone()),
            other => Some(Bytes::from(other.as_text().into_owned())),
        }
    }
}

impl Policy for PopulateCache {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let Some(value) = self.value(flow) else {
            return Err(PolicyFault::new(
                500,
                "steps.populatecache.EntryCannotBeCached",
                format!(
                    "PopulateCache[{}]: An entry cannot be cached, the variable {} is not set",
                    self.name,
                    self.source.as_str()
                ),
            ));
        };
        let life = self.cache.life(&self.expiry, flow.scope);
        let key = self.cache.key(flow);
        self.cache.keep(&key, value, life);
        Ok(Next::Continue)
    }
}
