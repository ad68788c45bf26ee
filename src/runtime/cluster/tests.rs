#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

//! Clusters with literal addresses, and with names from a name server of our own.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::model::plan::{StatusPlan, Thresholds, TrafficPlan};
use crate::runtime::resolver::tests::{NameServer, PATIENCE, answer_when};

pub(super) fn cluster(endpoints: Vec<EndpointPlan>) -> ClusterPlan {
    ClusterPlan {
        named: true,
        ..ClusterPlan::plain(Uuid::from_u128(1), "c", endpoints)
    }
}

pub(super) fn endpoint(host: &str, port: u16, weight: u32) -> EndpointPlan {
    EndpointPlan {
        id: Uuid::from_u128(u128::from(port)),
        host: host.into(),
        port,
        weight,
        rank: 0,
        roster: None,
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
    before.addresses()[0].vitals.set(false);
    assert_eq!(picks(&before, 5), counts(&[("192.0.2.2:80", 5)]));
    let mut three = two.clone();
    three.push(endpoint("192.0.2.3", 80, 1));
    let after = link(cluster(three), &live, &resolver);
    assert!(!picks(&after, 9).contains_key("192.0.2.1:80"));
    for address in after.addresses() {
        address.vitals.set(false);
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
        chosen.vitals.set(false);
        assert_ne!(cluster.pick(key, &[]).unwrap().address, first);
        chosen.vitals.set(true);
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

fn balanced_by(balance: BalancePlan, endpoints: Vec<EndpointPlan>) -> ClusterPlan {
    ClusterPlan {
        balance,
        ..cluster(endpoints)
    }
}

fn three() -> Vec<EndpointPlan> {
    (1..=3)
        .map(|last| endpoint(&format!("192.0.2.{last}"), 80 + last, 100))
        .collect()
}

fn port_of(picked: &Picked) -> u16 {
    picked.address.port()
}

#[tokio::test]
async fn least_connections_goes_where_least_is_done() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let mut endpoints = three();
    endpoints[2].weight = 200;
    let plan = balanced_by(BalancePlan::LeastConnections, endpoints);
    let cluster = link(plan.clone(), &live, &resolver);
    // Twice as much for twice the weight.
    let held: Vec<Picked> = (0..40).map(|_| cluster.pick(None, &[]).unwrap()).collect();
    let of = |port| held.iter().filter(|picked| port_of(picked) == port).count();
    assert_eq!((of(81), of(82), of(83)), (10, 10, 20));
    // A change of targets forgets nothing that is in progress.
    let mut plan = plan;
    plan.endpoints.push(endpoint("192.0.2.4", 84, 100));
    let after = link(plan, &live, &resolver);
    let more: Vec<Picked> = (0..9).map(|_| after.pick(None, &[]).unwrap()).collect();
    assert!(more.iter().all(|picked| port_of(picked) == 84));
    drop(more);
    drop(held);
    // Idle, weight decides.
    let mut ports: Vec<u16> = (0..8)
        .map(|_| port_of(&after.pick(None, &[]).unwrap()))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports, [83]);
    let tried: Vec<SocketAddr> = vec![([192, 0, 2, 3], 83).into()];
    assert_ne!(port_of(&after.pick(None, &tried).unwrap()), 83);
}

#[tokio::test]
async fn latency_turns_away_from_what_is_slow_or_fails() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let cluster = link(balanced_by(BalancePlan::Latency, three()), &live, &resolver);
    let shares = |cluster: &Cluster| {
        let mut shares: BTreeMap<u16, u32> = BTreeMap::new();
        for _ in 0..3000 {
            let picked = cluster.pick(None, &[]).unwrap();
            *shares.entry(port_of(&picked)).or_default() += 1;
        }
        shares
    };
    assert!(shares(&cluster).values().all(|share| *share > 700));
    for _ in 0..50 {
        let picked = cluster.pick(None, &[]).unwrap();
        let outcome = match port_of(&picked) {
            81 => (Outcome::Answered(200), Duration::from_millis(900)),
            82 => (Outcome::Broken, Duration::ZERO),
            _ => (Outcome::Answered(200), Duration::from_millis(5)),
        };
        picked.report(outcome.0, outcome.1);
    }
    // One of a pair is the good one in two of three draws.
    let after = shares(&cluster);
    assert!(after[&83] > 1800, "{after:?}");
    let retried: Vec<SocketAddr> = vec![([192, 0, 2, 3], 83).into()];
    assert_ne!(port_of(&cluster.pick(None, &retried).unwrap()), 83);
    // A new address starts with the mean: neither flooded nor shunned.
    let mut four = three();
    four.push(endpoint("192.0.2.4", 84, 100));
    let cluster = link(balanced_by(BalancePlan::Latency, four), &live, &resolver);
    let share = shares(&cluster)[&84];
    assert!((300..1500).contains(&share), "{share}");
}

#[tokio::test]
async fn sticky_clients_stay_also_while_draining() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let balance = BalancePlan::Sticky {
        cookie: "s".into(),
        path: "/".into(),
    };
    let cluster = link(balanced_by(balance.clone(), three()), &live, &resolver);
    assert_eq!(cluster.sticky_cookie(), Some(("s", "/")));
    let first = cluster.pick(None, &[]).unwrap();
    let (token, home) = (first.token.unwrap(), first.address);
    for _ in 0..9 {
        assert_eq!(cluster.pick(Some(token), &[]).unwrap().address, home);
    }
    let elsewhere = cluster.pick(Some(token), &[home]).unwrap();
    assert_ne!(elsewhere.address, home);
    assert_ne!(elsewhere.token, Some(token));
    assert!(cluster.pick(Some(1), &[]).is_ok());
    // Drained: only those who have been there.
    let mut drained = three();
    let leaving = drained
        .iter_mut()
        .find(|endpoint| endpoint.port == home.port());
    leaving.unwrap().weight = 0;
    let other_node = Live::default();
    for live in [&live, &other_node] {
        let cluster = link(
            balanced_by(balance.clone(), drained.clone()),
            live,
            &resolver,
        );
        assert_eq!(cluster.pick(Some(token), &[]).unwrap().address, home);
        for _ in 0..9 {
            assert_ne!(cluster.pick(None, &[]).unwrap().address, home);
        }
    }
    // Gone, or unhealthy.
    drained.retain(|endpoint| endpoint.port != home.port());
    let gone = link(balanced_by(balance, drained), &live, &resolver);
    assert_ne!(gone.pick(Some(token), &[]).unwrap().address, home);
    assert!(cluster.set_health(Uuid::from_u128(u128::from(home.port())), None, false));
    assert_ne!(cluster.pick(Some(token), &[]).unwrap().address, home);
}

#[tokio::test]
async fn later_ranks_stand_in() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let mut endpoints = three();
    endpoints[2].rank = 1;
    let cluster = link(cluster(endpoints), &live, &server.resolver());
    for _ in 0..10 {
        assert_ne!(port_of(&cluster.pick(None, &[]).unwrap()), 83);
    }
    let addresses = cluster.addresses();
    let (one, two) = (addresses[0].socket, addresses[1].socket);
    // All of the first rank have failed this request.
    assert_eq!(port_of(&cluster.pick(None, &[one, two]).unwrap()), 83);
    addresses[0].vitals.set(false);
    assert_eq!(cluster.pick(None, &[]).unwrap().address, two);
    addresses[1].vitals.set(false);
    assert_eq!(port_of(&cluster.pick(None, &[]).unwrap()), 83);
    addresses[2].vitals.set(false);
    assert!(cluster.pick(None, &[]).is_err());
}

#[tokio::test]
async fn too_little_available_weight_stops_all() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let mut plan = cluster(three());
    plan.health.available_percent_above = 50.0;
    let guarded = link(plan.clone(), &live, &resolver);
    assert!(guarded.pick(None, &[]).is_ok());
    let down = |cluster: &Cluster, number: usize, is_down: bool| {
        cluster.addresses()[number].vitals.set(!is_down);
    };
    down(&guarded, 0, true);
    assert!(guarded.pick(None, &[]).is_ok());
    down(&guarded, 1, true);
    assert_eq!(guarded.pick(None, &[]).err(), Some(NoEndpoint::NoneUsable));
    let view = guarded.weight_view();
    assert_eq!(
        (view.available_weight, view.total_weight, view.healthy),
        (100, 300, false)
    );
    down(&guarded, 1, false);
    assert!(guarded.pick(None, &[]).is_ok());
    assert_eq!(guarded.changes().counts(), (1, 2));
    plan.health.available_percent_above = 100.0;
    let never = link(plan, &live, &resolver);
    assert!(never.pick(None, &[]).is_err());
}

#[tokio::test]
async fn traffic_ejects_and_only_thresholds_heal() {
    let (live, server) = (Live::default(), NameServer::start().await);
    let resolver = server.resolver();
    let mut plan = cluster(three());
    plan.health.traffic = Some(TrafficPlan {
        statuses: StatusPlan {
            good: vec![200],
            bad: vec![500],
            others_are_good: false,
        },
        thresholds: Thresholds {
            bad_statuses: 2,
            timeouts: 1,
            ..Thresholds::default()
        },
    });
    let cluster = link(plan.clone(), &live, &resolver);
    let report = |cluster: &Cluster, port: u16, outcome: Outcome| {
        for _ in 0..12 {
            let picked = cluster.pick(None, &[]).unwrap();
            if port_of(&picked) == port {
                return picked.report(outcome, Duration::ZERO);
            }
        }
        panic!("{port} is not picked");
    };
    report(&cluster, 81, Outcome::Answered(500));
    report(&cluster, 82, Outcome::Broken);
    report(&cluster, 83, Outcome::Answered(404));
    assert_eq!(picks(&cluster, 9).len(), 3);
    // The count goes on where targets change.
    plan.endpoints.push(endpoint("192.0.2.4", 84, 100));
    let cluster = link(plan, &live, &resolver);
    report(&cluster, 81, Outcome::Answered(500));
    report(&cluster, 83, Outcome::TimedOut);
    let expected = counts(&[("192.0.2.2:82", 4), ("192.0.2.4:84", 4)]);
    let mut left = picks(&cluster, 8);
    left.retain(|_, count| *count > 0);
    assert_eq!(
        left.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    assert_eq!(cluster.changes().counts(), (0, 2));
}

#[tokio::test]
async fn a_roster_gives_addresses_by_share_and_rank() {
    use crate::runtime::roster::{Member, Members, Rosters};

    let live = Live::default();
    let resolver = NameServer::start().await.resolver();
    let rosters = Rosters::of(&live);
    let rostered = |name: &str, weight| EndpointPlan {
        roster: Some(name.into()),
        ..endpoint(name, 80, weight)
    };
    let plan = cluster(vec![rostered("a", 75), rostered("b", 25)]);
    let cluster = link(plan, &live, &resolver);
    assert!(!cluster.is_resolved());
    assert!(cluster.pick(None, &[]).is_err());
    let member = |host: &str, rank| Member {
        host: host.into(),
        port: 21000,
        weight: 1,
        rank,
        secured: None,
    };
    let set = |name: &str, all: Vec<Member>| {
        rosters.roster(&name.into()).set(Members {
            all,
            known: true,
            trouble: None,
        });
    };
    set("a", vec![member("192.0.2.1", 0), member("192.0.2.9", 1)]);
    set("b", vec![member("192.0.2.2", 0), member("192.0.2.3", 0)]);
    assert!(cluster.is_resolved());
    let picks = picks(&cluster, 99);
    assert_eq!(picks["192.0.2.1:21000"], 75);
    assert_eq!(picks["192.0.2.2:21000"], 12);
    assert!(!picks.contains_key("192.0.2.9:21000"));
    set("a", vec![]);
    set("b", vec![]);
    assert!(matches!(
        cluster.pick(None, &[]),
        Err(NoEndpoint::NoneUsable)
    ));
}

#[tokio::test]
async fn no_more_exchanges_than_allowed() {
    let live = Live::default();
    let resolver = NameServer::start().await.resolver();
    let plan = ClusterPlan {
        exchanges_max: Some(2),
        ..cluster(vec![endpoint("192.0.2.1", 80, 1)])
    };
    let cluster = link(plan, &live, &resolver);
    let first = cluster.pick(None, &[]).unwrap();
    let second = cluster.pick(None, &[]).unwrap();
    assert_eq!(cluster.pick(None, &[]).unwrap_err(), NoEndpoint::TooMany(2));
    drop(first);
    assert!(cluster.pick(None, &[]).is_ok());
    drop(second);
}
