#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

//! Clusters with literal addresses, and with names from a name server of our own.

use std::collections::BTreeMap;

use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::model::plan::HealthPlan;
use crate::runtime::resolver::tests::{NameServer, PATIENCE, answer_when};

pub(super) fn cluster(endpoints: Vec<EndpointPlan>) -> ClusterPlan {
    ClusterPlan {
        id: Uuid::from_u128(1),
        name: "c".into(),
        endpoints,
        balance: BalancePlan::RoundRobin,
        health: HealthPlan::default(),
        host_header: None,
        use_srv_name: false,
        client_certificate: None,
        named: true,
    }
}

pub(super) fn endpoint(host: &str, port: u16, weight: u32) -> EndpointPlan {
    EndpointPlan {
        id: Uuid::from_u128(u128::from(port)),
        host: host.into(),
        port,
        weight,
        rank: 0,
    }
}

fn hashing(endpoints: Vec<EndpointPlan>) -> ClusterPlan {
    ClusterPlan {
        balance: BalancePlan::ConsistentHashing {
            slots: 10_000,
            on: HashInput::Address,
            fallback: HashInput::None,
        },
        ..cluster(endpoints)
    }
}

fn link(plan: ClusterPlan, live: &Live, resolver: &Arc<Resolver>) -> Arc<Cluster> {
    Cluster::link(Arc::new(plan), live, resolver).unwrap()
}

/// How often each address is picked in so many turns.
fn picks(cluster: &Cluster, turns: usize) -> BTreeMap<String, usize> {
    let mut picks = BTreeMap::new();
    for _ in 0..turns {
        let picked = cluster.pick(None, &[]).unwrap();
        *picks.entry(picked.address.to_string()).or_default() += 1;
    }
    picks
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected
        .iter()
        .map(|(address, count)| ((*address).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn literal_addresses_get_their_shares() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let plan = cluster(vec![
        endpoint("192.0.2.1", 80, 75),
        endpoint("2001:db8::1", 81, 25),
        endpoint("192.0.2.3", 82, 0),
    ]);
    let cluster = link(plan, &live, &server.resolver());
    assert!(cluster.is_resolved());
    let expected = counts(&[("192.0.2.1:80", 30), ("[2001:db8::1]:81", 10)]);
    assert_eq!(picks(&cluster, 40), expected);
    assert_eq!(cluster.view().len(), 3);
}

#[tokio::test]
async fn tries_go_elsewhere_while_there_is_another() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let plan = cluster(vec![
        endpoint("192.0.2.1", 80, 60_000),
        endpoint("192.0.2.2", 80, 1),
        endpoint("192.0.2.3", 80, 1),
    ]);
    let cluster = link(plan, &live, &server.resolver());
    let mut tried = Vec::new();
    for _ in 0..3 {
        let picked = cluster.pick(None, &tried).unwrap();
        assert!(!tried.contains(&picked.address));
        tried.push(picked.address);
    }
    assert!(tried.contains(&cluster.pick(None, &tried).unwrap().address));
}

#[tokio::test]
async fn unavailable_addresses_are_passed_over_and_remembered() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let two = vec![endpoint("192.0.2.1", 80, 1), endpoint("192.0.2.2", 80, 1)];
    let before = link(cluster(two.clone()), &live, &resolver);
    before.addresses()[0].availability.set(false);
    assert_eq!(picks(&before, 5), counts(&[("192.0.2.2:80", 5)]));
    let mut three = two.clone();
    three.push(endpoint("192.0.2.3", 80, 1));
    let after = link(cluster(three), &live, &resolver);
    assert!(!picks(&after, 9).contains_key("192.0.2.1:80"));
    for address in after.addresses() {
        address.availability.set(false);
    }
    assert_eq!(after.pick(None, &[]).err(), Some(NoEndpoint::NoneUsable));
    drop((before, after));
    let forgotten = link(cluster(two), &live, &resolver);
    assert_eq!(picks(&forgotten, 2).len(), 2);
}

#[tokio::test]
async fn hashing_stays_until_unavailable() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let mut endpoints: Vec<EndpointPlan> = (1..=4)
        .map(|last| endpoint(&format!("192.0.2.{last}"), 80, 100))
        .collect();
    let cluster = link(hashing(endpoints.clone()), &live, &resolver);
    endpoints.reverse();
    let mut other_node = hashing(endpoints);
    other_node.id = Uuid::from_u128(2);
    let other_node = link(other_node, &live, &resolver);
    for user in 0..200 {
        let key = Some(Cluster::hash(format!("user-{user}").as_bytes()));
        let first = cluster.pick(key, &[]).unwrap().address;
        assert_eq!(cluster.pick(key, &[first]).unwrap().address, first);
        assert_eq!(other_node.pick(key, &[]).unwrap().address, first);
        let addresses = cluster.addresses();
        let chosen = addresses
            .iter()
            .find(|known| known.socket == first)
            .unwrap();
        chosen.availability.set(false);
        assert_ne!(cluster.pick(key, &[]).unwrap().address, first);
        chosen.availability.set(true);
    }
    assert!(cluster.pick(None, &[]).is_ok());
    assert!(cluster.hash_input().is_some());
}

#[tokio::test]
async fn names_bring_addresses_ports_and_weights() {
    let (live, server) = (Live::default(), NameServer::start().await);
    server.v4("a.test", 60, &[[192, 0, 2, 1], [192, 0, 2, 2]]);
    server.v4("n1.test", 60, &[[192, 0, 2, 11]]);
    server.v4("n2.test", 60, &[[192, 0, 2, 12]]);
    server.services(
        "s.test",
        &[(1, 30, 8001, "n1.test"), (1, 10, 8002, "n2.test")],
    );
    let resolver = server.resolver();
    let cases = [
        (
            vec![endpoint("a.test", 80, 10), endpoint("192.0.2.9", 80, 20)],
            counts(&[
                ("192.0.2.1:80", 1),
                ("192.0.2.2:80", 1),
                ("192.0.2.9:80", 2),
            ]),
        ),
        (
            vec![endpoint("s.test", 80, 1)],
            counts(&[("192.0.2.11:8001", 3), ("192.0.2.12:8002", 1)]),
        ),
        (
            vec![endpoint("s.test", 80, 0), endpoint("192.0.2.9", 80, 20)],
            counts(&[("192.0.2.9:80", 4)]),
        ),
    ];
    for (endpoints, expected) in cases {
        for endpoint in &endpoints {
            if endpoint.host.parse::<IpAddr>().is_err() {
                let name = resolver.name(&endpoint.host);
                let settled = |answer: &Answer| *answer != Answer::Pending;
                answer_when(&name, settled).await;
                // Keeps the name for the cluster.
                let cluster = link(cluster(endpoints.clone()), &live, &resolver);
                assert_eq!(picks(&cluster, 4), expected);
                if expected.contains_key("192.0.2.11:8001") {
                    let endpoint = cluster.pick(None, &[]).unwrap().endpoint;
                    assert_eq!(&*endpoint.host, "s.test");
                    assert_eq!(
                        endpoint.authority_with_port,
                        format!("s.test:{}", endpoint.port)
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn waits_for_the_first_answer_and_says_what_failed() {
    let (live, server) = (Live::default(), NameServer::start().await);
    server.v4("a.test", 60, &[[192, 0, 2, 1]]);
    let resolver = server.resolver();
    let mut plain = cluster(vec![endpoint("a.test", 80, 100)]);
    plain.named = false;
    let found = link(plain.clone(), &live, &resolver);
    assert!(!found.is_resolved());
    assert!(matches!(
        found.pick(None, &[]),
        Err(NoEndpoint::Resolver(_))
    ));
    timeout(PATIENCE, found.resolved()).await.unwrap();
    assert!(found.pick(None, &[]).is_ok());
    timeout(PATIENCE, found.resolved()).await.unwrap();

    plain.endpoints = vec![endpoint("absent.test", 80, 100)];
    let absent = link(plain.clone(), &live, &resolver);
    timeout(PATIENCE, absent.resolved()).await.unwrap();
    assert_eq!(absent.pick(None, &[]).err(), Some(NoEndpoint::NameNotFound));
    plain.named = true;
    let absent = link(plain, &live, &resolver);
    assert_eq!(absent.pick(None, &[]).err(), Some(NoEndpoint::NoneUsable));
    assert_eq!(absent.view()[0].failure, Some(NoEndpoint::NameNotFound));
}

#[tokio::test]
async fn refuses_plans_beyond_its_limits() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let heavy = cluster(vec![endpoint("192.0.2.1", 80, 65_536)]);
    let empty = cluster(vec![endpoint("", 80, 1)]);
    for plan in [heavy, empty] {
        let error = Cluster::link(Arc::new(plan), &live, &resolver)
            .err()
            .unwrap();
        assert!(error.starts_with("cluster 'c': "), "{error}");
    }
    let none = link(cluster(Vec::new()), &live, &resolver);
    assert!(none.is_resolved());
    assert_eq!(none.pick(None, &[]).err(), Some(NoEndpoint::NoneUsable));
}
