//! Walks through a discovery chain: from a node to the shares of its resolvers, and from a resolver to its targets.
//!
//! Keys come from the agent: what is missing, or turns in a circle, is an error.

use super::chain::{ChainNode, ChainResolver, ChainTarget, DEPTH_MAX, DiscoveryChain};

/// All of the traffic, in the unit of [`shares`]: hundredths of a percent.
pub const WHOLE: u32 = 10_000;
/// More resolvers behind one node than this are refused.
const RESOLVERS_MAX: usize = 256;

/// The node of that name.
pub fn node<'a>(chain: &'a DiscoveryChain, name: &str) -> Result<&'a ChainNode, String> {
    let found = chain.nodes.get(name);
    found.ok_or_else(|| format!("the discovery chain has no node '{name}'"))
}

/// Where requests go that no route claims: the start, or what the last route of each router leads to, which takes
/// everything.
pub fn plain_start(chain: &DiscoveryChain) -> Result<&str, String> {
    let mut name = chain.start_node.as_str();
    for _ in 0..DEPTH_MAX {
        let node = node(chain, name)?;
        match (node.kind.as_str(), node.routes.last()) {
            ("router", Some(last)) => name = &last.next_node,
            ("router", None) => return Err(format!("the router '{name}' has no routes")),
            _ => return Ok(name),
        }
    }
    Err("the discovery chain does not end".to_owned())
}

/// The resolvers behind a node that is no router, each with its share of the traffic; [`WHOLE`] in all.
pub fn shares<'a>(chain: &'a DiscoveryChain, name: &'a str) -> Result<Vec<(u32, &'a str)>, String> {
    let mut found = Vec::new();
    let mut open = vec![(f64::from(WHOLE), name, 0)];
    while let Some((share, name, depth)) = open.pop() {
        let node = node(chain, name)?;
        match node.kind.as_str() {
            _ if depth > DEPTH_MAX => return Err("the discovery chain does not end".to_owned()),
            "resolver" => {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 0 and WHOLE"
                )]
                found.push((share.round() as u32, name));
            }
            "splitter" => {
                let total: f64 = node.splits.iter().map(|split| split.weight.max(0.0)).sum();
                if total <= 0.0 || !total.is_finite() {
                    return Err(format!("the splitter '{name}' leads nowhere"));
                }
                // The stack gives the last one first.
                for split in node.splits.iter().rev() {
                    let part = share * split.weight.max(0.0) / total;
                    open.push((part, split.next_node.as_str(), depth + 1));
                }
            }
            kind => {
                return Err(format!(
                    "the discovery chain of '{}' has a '{kind}' behind its start",
                    chain.service_name
                ));
            }
        }
        if found.len() + open.len() > RESOLVERS_MAX {
            return Err(format!(
                "the discovery chain of '{}' splits into more than {RESOLVERS_MAX} parts",
                chain.service_name
            ));
        }
    }
    Ok(found)
}

/// The resolver of that name.
pub fn resolver<'a>(chain: &'a DiscoveryChain, name: &str) -> Result<&'a ChainResolver, String> {
    let content = node(chain, name)?.resolver.as_ref();
    content.ok_or_else(|| format!("the discovery chain's node '{name}' is no resolver"))
}

/// The targets of a resolver, in the order of failover.
pub fn targets(chain: &DiscoveryChain, name: &str) -> Result<Vec<ChainTarget>, String> {
    let resolver = resolver(chain, name)?;
    let failover = resolver.failover.iter().flat_map(|way| &way.targets);
    std::iter::once(&resolver.target)
        .chain(failover)
        .take(DEPTH_MAX)
        .map(|id| {
            let target = chain.targets.get(id).cloned();
            target.ok_or_else(|| format!("the discovery chain has no target '{id}'"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn chain(nodes: &str) -> DiscoveryChain {
        let text = format!(
            r#"{{"ServiceName":"db","StartNode":"start","Nodes":{{{nodes},
                "a":{{"Type":"resolver","Resolver":{{"Target":"t1","Failover":{{"Targets":["t2"]}}}}}},
                "b":{{"Type":"resolver","Resolver":{{"Target":"t2"}}}}}},
                "Targets":{{"t1":{{"ID":"t1","Service":"db"}},"t2":{{"ID":"t2","Service":"db-far"}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn failover_comes_in_order() {
        let chain = chain(r#""start":{"Type":"resolver","Resolver":{"Target":"t9"}}"#);
        let names: Vec<_> = targets(&chain, "a")
            .unwrap()
            .into_iter()
            .map(|target| target.service)
            .collect();
        assert_eq!(names, ["db", "db-far"]);
        assert!(targets(&chain, "start").is_err());
        assert!(targets(&chain, "nowhere").is_err());
    }

    #[test]
    fn shares_add_up_and_circles_are_refused() {
        for (nodes, expected) in [
            (
                r#""start":{"Type":"splitter","Splits":[{"Weight":90.5,"NextNode":"a"},{"Weight":9.5,"NextNode":"b"}]}"#,
                vec![(9050, "a"), (950, "b")],
            ),
            (
                r#""start":{"Type":"router","Routes":[{"NextNode":"b"},{"NextNode":"a"}]}"#,
                vec![(WHOLE, "a")],
            ),
        ] {
            let chain = chain(nodes);
            let start = plain_start(&chain).unwrap();
            assert_eq!(shares(&chain, start).unwrap(), expected, "{nodes}");
        }
        for nodes in [
            r#""start":{"Type":"splitter","Splits":[{"Weight":100,"NextNode":"start"}]}"#,
            r#""start":{"Type":"splitter","Splits":[{"Weight":50,"NextNode":"start"},{"Weight":50,"NextNode":"start"}]}"#,
            r#""start":{"Type":"splitter","Splits":[]}"#,
            r#""start":{"Type":"router","Routes":[{"NextNode":"start"}]}"#,
            r#""start":{"Type":"router","Routes":[]}"#,
            r#""start":{"Type":"splitter","Splits":[{"Weight":1,"NextNode":"nowhere"}]}"#,
            r#""other":{}"#,
        ] {
            let chain = chain(nodes);
            let found = plain_start(&chain).and_then(|start| shares(&chain, start));
            assert!(found.is_err(), "{nodes}");
        }
    }
}
