//! `LookupCache`: reads an entry of a cache into a variable.

use std::time::Instant;

use super::caching::Cache;
use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::lookup_cache::Config;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::runtime::entry_cache::Found;

struct LookupCache {
    cache: Cache,
    assign_to: VariableName,
    /// `lookupcache.NAME.`
    own: String,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    Ok(Box::new(LookupCache {
        cache: Cache::link(link, &config.place),
        assign_to: VariableName::new(&config.assign_to),
        own: format!("lookupcache.{}.", link.name),
    }))
}

impl Policy for LookupCache {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let key = self.cache.key(flow);
        let found = self.cache.table.find(&key, Instant::now());
        let own = |name: &str| format!("{}{name}", self.own);
        flow.set_own(
            &own("cachehit"),
            Value::Boolean(matches!(found, Found::Value(_))),
        );
        flow.set_own(&own("cachename"), self.cache.name.to_string());
        flow.set_own(&own("cachekey"), key);
        flow.set_own(&own("assignto"), self.assign_to.as_str().to_owned());
        if let Found::Value(value) = found {
            let text = String::from_utf8_lossy(&value);
            flow.set(&self.assign_to, Value::Text(text))
                .map_err(|error| PolicyFault::of_write("steps.lookupcache", &error))?;
        }
        Ok(Next::Continue)
    }
}
