//! Services that share an address and differ in how they speak TLS with it: their connections are never mixed up.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Authority, Daemon, Driver, Gateway, Pair, for_both_drivers};

const IDS: [&str; 4] = [
    "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f20",
    "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f21",
    "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f22",
    "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f23",
];

/// nginx that tells who calls, over which of its connections and for which name. It trusts `clients`.
fn nginx(pair: &Pair, clients: &Authority) -> Daemon {
    let files = [
        ("certificate.pem", &*pair.certificate),
        ("key.pem", &*pair.key),
        ("clients.pem", &*clients.pem()),
    ];
    Daemon::nginx_http(&files, |folder, address| {
        let root = folder.display();
        format!(
            "listen {address} ssl; ssl_certificate {root}/certificate.pem; ssl_certificate_key {root}/key.pem;\n\
             ssl_client_certificate {root}/clients.pem; ssl_verify_client optional; keepalive_timeout 60s;\n\
             location / {{ return 200 '$ssl_client_verify|$ssl_client_s_dn|$connection|$ssl_server_name'; }}"
        )
    })
}

/// One service for each way, all at the same address.
fn document(
    port: u16,
    ways: &[(&str, Value)],
    certificates: &[&Pair],
    trust: &[&Authority],
) -> String {
    let services: Vec<Value> = ways
        .iter()
        .map(|(name, more)| {
            let mut service = json!({
                "name": name, "protocol": "https", "host": "localhost", "port": port, "retries": 0,
                "routes": [{"name": name, "paths": [format!("/{name}")]}],
            });
            for (key, value) in more.as_object().expect("fields") {
                service[key] = value.clone();
            }
            service
        })
        .collect();
    let certificates: Vec<Value> = certificates
        .iter()
        .zip(IDS)
        .map(|(pair, id)| json!({"id": id, "cert": pair.certificate, "key": pair.key}))
        .collect();
    let authorities: Vec<Value> = trust
        .iter()
        .zip(&IDS[2..])
        .map(|(authority, id)| json!({"id": id, "cert": authority.pem()}))
        .collect();
    json!({
        "_format_version": "3.0", "services": services, "certificates": certificates,
        "ca_certificates": authorities,
    })
    .to_string()
}

#[test]
fn one_address_under_many_identities_and_rules() {
    for_both_drivers(|driver: Driver| {
        let (origin, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
        let nginx = nginx(&origin.issue(&["localhost"]), &clients);
        let (alice, bob) = (clients.issue(&["alice.test"]), clients.issue(&["bob.test"]));
        let ways = [
            ("alice", json!({"client_certificate": {"id": IDS[0]}})),
            ("bob", json!({"client_certificate": {"id": IDS[1]}})),
            ("nobody", json!({})),
            (
                "sure",
                json!({"tls_verify": true, "ca_certificates": [IDS[2]]}),
            ),
            (
                "deep",
                json!({"tls_verify": true, "ca_certificates": [IDS[2]], "tls_verify_depth": 5}),
            ),
            (
                "mistrusting",
                json!({"tls_verify": true, "ca_certificates": [IDS[3]]}),
            ),
        ];
        let text = document(
            nginx.addresses[0].port(),
            &ways,
            &[&alice, &bob],
            &[&origin, &stranger],
        );
        let gateway = Gateway::builder().driver(driver).declarative(&text).start();
        let expected = BTreeMap::from([
            ("alice", Some("SUCCESS|CN=alice.test")),
            ("bob", Some("SUCCESS|CN=bob.test")),
            ("nobody", Some("NONE|")),
            ("sure", Some("NONE|")),
            ("deep", Some("NONE|")),
            ("mistrusting", None),
        ]);
        let mut connections: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        // Each after each other one: whoever might take a connection that is kept for another.
        for round in 0..4 {
            let names: Vec<&str> = match round % 2 {
                0 => expected.keys().copied().collect(),
                _ => expected.keys().rev().copied().collect(),
            };
            for name in names {
                let request = gateway.get(&format!("/{name}"));
                // nginx switches to nothing, but the gateway's own driver of tunnels asks.
                let request = match round {
                    3 => request
                        .header("Connection", "Upgrade")
                        .header("Upgrade", "websocket")
                        .header("Sec-WebSocket-Version", "13")
                        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                    _ => request,
                };
                let answer = request.send();
                let Some(expected) = expected[name] else {
                    assert_eq!(answer.status, 502, "{name}: {}", answer.text());
                    continue;
                };
                let text = answer.expect_status(200).text();
                let (who, rest) = text
                    .rsplit_once('|')
                    .expect("four parts")
                    .0
                    .rsplit_once('|')
                    .expect("parts");
                assert_eq!(who, expected, "{name}");
                connections.entry(name).or_default().insert(rest.to_owned());
            }
        }
        let all: Vec<&String> = connections.values().flatten().collect();
        let different: BTreeSet<&String> = all.iter().copied().collect();
        assert_eq!(all.len(), different.len(), "{connections:?}");
        // They are kept: each way has fewer connections than it had requests.
        assert!(connections["alice"].len() < 4, "{connections:?}");
    });
}

#[test]
fn a_changed_identity_is_shown_from_the_next_request_on() {
    for_both_drivers(|driver: Driver| {
        let (origin, clients) = (Authority::new(), Authority::new());
        let nginx = nginx(&origin.issue(&["localhost"]), &clients);
        let gateway = Gateway::builder().driver(driver).start();
        let admin = gateway.admin();
        let certificate = |name: &str| {
            let pair = clients.issue(&[name]);
            let body = json!({"cert": pair.certificate, "key": pair.key});
            admin.create("/certificates", body)["id"].clone()
        };
        let (alice, bob) = (certificate("alice.test"), certificate("bob.test"));
        let service = json!({
            "name": "s", "protocol": "https", "host": "localhost", "port": nginx.addresses[0].port(),
            "client_certificate": {"id": alice},
        });
        admin.create("/services", service);
        admin.create("/services/s/routes", json!({"paths": ["/"]}));
        let who = || {
            let text = gateway.get("/").send().expect_status(200).text();
            text.split('|').nth(1).expect("a subject").to_owned()
        };
        assert_eq!(who(), "CN=alice.test");
        for (id, expected) in [(&bob, "CN=bob.test"), (&alice, "CN=alice.test")] {
            let change = json!({"client_certificate": {"id": id}});
            admin.patch("/services/s", change).expect_status(200);
            assert_eq!(who(), expected);
        }
        admin
            .patch("/services/s", json!({"client_certificate": null}))
            .expect_status(200);
        assert_eq!(who(), "");
    });
}
