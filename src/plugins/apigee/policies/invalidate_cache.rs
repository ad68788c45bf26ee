//! `InvalidateCache`: removes entries of a cache.

use super::caching::Cache;
use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::invalidate_cache::Config;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};

struct InvalidateCache {
    cache: Cache,
    config: Config,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    Ok(Box::new(InvalidateCache {
        cache: Cache::link(link, &config.place),
        config,
    }))
}

impl Policy for InvalidateCache {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let key = self.cache.key_in(flow, &self.config.context);
        match self.config.purges_children {
            true => {
                self.cache.table.remove_below(&key);
            }
            false => {
                self.cache.table.remove(&key);
            }
        }
        Ok(Next::Continue)
    }
}
