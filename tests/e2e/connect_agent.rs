//! Consul Connect beside a real agent that is guarded: ACLs that deny, HTTPS with client certificates, a Unix socket.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::consul::{Agent, free_ports, sallyport};
use crate::harness::{Authority, Origin, Request, eventually};

/// The token that may do everything.
const MASTER: &str = "aaaaaaaa-0000-4000-8000-000000000001";

/// An agent that answers nobody without a token, on a port, over HTTPS and on a socket.
struct Guarded {
    agent: Agent,
    https: u16,
    folder: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [https] = free_ports();
        let authority = Authority::new();
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let own = authority.issue(&["127.0.0.1", "localhost"]);
        let client = authority.issue(&["client"]);
        write("client.pem", &client.certificate);
        write("client-key.pem", &client.key);
        let more = json!({
            "ports": {"https": https},
            "addresses": {"http": format!("127.0.0.1 unix://{}", folder.path().join("agent.sock").display())},
            "ca_file": write("ca.pem", &authority.pem()),
            "cert_file": write("own.pem", &own.certificate),
            "key_file": write("own-key.pem", &own.key),
            "verify_incoming": true,
            "acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}},
        });
        let agent = Agent::start_with(&more, Some(MASTER));
        eventually("the token is known", || {
            let own = Request::new(agent.address, "GET", "/v1/acl/token/self");
            let own = own.header("X-Consul-Token", MASTER).try_send().ok()?;
            (own.status == 200).then_some(())
        });
        Self {
            agent,
            https,
            folder,
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A token that speaks for one service.
    fn token_of(&self, service: &str) -> String {
        let body = json!({"ServiceIdentities": [{"ServiceName": service}]});
        let token = eventually("there is a leader", || {
            let asked = Request::new(self.agent.address, "PUT", "/v1/acl/token");
            let asked = asked.header("X-Consul-Token", MASTER).json(&body);
            let answer = asked.try_send().ok()?;
            let answer: Value = serde_json::from_slice(&answer.body).ok()?;
            Some(answer["SecretID"].as_str()?.to_owned())
        });
        write_only(&self.folder.path().join(service), &token);
        token
    }
}

fn write_only(file: &Path, text: &str) {
    fs::write(file, format!("{text}\n")).unwrap();
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answer = Request::new(address, "GET", "/through").try_send();
    answer.is_ok_and(|answer| answer.status == 200)
}

#[test]
fn tokens_https_and_a_socket_lead_to_the_agent() {
    let guarded = Guarded::start();
    let agent = &guarded.agent;
    let (web, db) = (Origin::echo(), Origin::echo());
    let [web_public, db_public, to_db, to_web] = free_ports();
    let upstream =
        |name: &str, port: u16| json!([{"DestinationName": name, "LocalBindPort": port}]);
    let none = json!({});
    agent.register(
        "web",
        web.port(),
        web_public,
        none.clone(),
        &upstream("db", to_db),
    );
    agent.register("db", db.port(), db_public, none, &upstream("web", to_web));
    let (web_token, _) = (guarded.token_of("web"), guarded.token_of("db"));

    // One speaks HTTPS with a certificate and has its token from a flag, the other a socket and a file.
    let over_https = format!("https://127.0.0.1:{}", guarded.https);
    let web_proxy = sallyport(
        agent.address,
        &[
            "-sidecar-for=web-1",
            &format!("-http-addr={over_https}"),
            &format!("-ca-file={}", guarded.file("ca.pem")),
            &format!("-client-cert={}", guarded.file("client.pem")),
            &format!("-client-key={}", guarded.file("client-key.pem")),
            &format!("-token={web_token}"),
        ],
    )
    .ready();
    let db_proxy = sallyport(
        agent.address,
        &[
            "-sidecar-for=db-1",
            &format!("-http-addr=unix://{}", guarded.file("agent.sock")),
            &format!("-token-file={}", guarded.file("db")),
        ],
    )
    .ready();

    // Nobody may call anybody, and the token of a service sees its upstream.
    let denied =
        "sallyport_connect_inbound_refused_total{service=\"db\",reason=\"denied_by_intention\"}";
    eventually("the default denies", || {
        assert!(!answers(to_db));
        (db_proxy.metric(denied) > 0).then_some(())
    });
    agent.intend("web", "db", "allow");
    eventually("web may call db", || answers(to_db).then_some(()));
    assert!(!answers(to_web));
    agent.intend("db", "web", "allow");
    eventually("db may call web", || answers(to_web).then_some(()));
    for proxy in [&web_proxy, &db_proxy] {
        let log = proxy.log();
        assert!(!log.contains(&web_token) && !log.contains("PRIVATE KEY"));
    }
}

#[test]
fn what_keeps_the_agent_from_answering_is_told() {
    let guarded = Guarded::start();
    let agent = &guarded.agent;
    let web = Origin::echo();
    let [public] = free_ports();
    agent.register("web", web.port(), public, json!({}), &json!([]));
    let over_https = format!("-http-addr=https://127.0.0.1:{}", guarded.https);
    let ca = format!("-ca-file={}", guarded.file("ca.pem"));
    let proxy = "-proxy-id=web-1-sidecar-proxy";

    // Without a certificate of its own, and without knowing whom to trust.
    for flags in [vec![proxy, &over_https, &ca], vec![proxy, &over_https]] {
        let refused = sallyport(agent.address, &flags);
        eventually("it is told", || {
            let log = refused.log();
            log.contains("the agent cannot be asked").then_some(())
        });
        assert_eq!(refused.readiness(), 503);
    }

    // A token without rights, replaced while the proxy runs.
    write_only(
        &guarded.folder.path().join("token"),
        "aaaaaaaa-0000-4000-8000-000000000002",
    );
    let token_file = format!("-token-file={}", guarded.file("token"));
    let ours = sallyport(agent.address, &[proxy, &token_file]);
    eventually("it is told", || {
        let log = ours.log();
        log.contains("the agent refuses the token").then_some(())
    });
    assert_eq!(ours.readiness(), 503);
    let good = guarded.token_of("web");
    write_only(&guarded.folder.path().join("token"), &good);
    let ours = ours.ready();
    assert!(!ours.log().contains(&good));
}
