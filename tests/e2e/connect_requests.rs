//! Consul Connect: upstreams whose requests are looked at, with routes, shares, limits and other ways.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boring::pkey::PKey;
use boring::ssl::{NameType, SslAcceptor, SslMethod, SslVerifyMode};
use boring::x509::X509;
use serde_json::{Value, json};

use crate::harness::consul::{
    Agent, LeafKind, MeshAuthority, Running, TRUST_DOMAIN, free_ports, sallyport,
};
use crate::harness::{Origin, Program, Reply, Request, Response, eventually, python_client};

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn get(port: u16, target: &str) -> Request {
    Request::new(local(port), "GET", target)
}

#[track_caller]
fn answered(port: u16, target: &str) -> Response {
    eventually(target, || {
        let answer = get(port, target).try_send().ok()?;
        (answer.status == 200).then_some(answer)
    })
}

/// An application that takes its time where it is asked to.
fn application() -> Origin {
    Origin::answering(|request| match request.target.contains("slow") {
        true => Reply::echo(request).delayed(Duration::from_secs(2)),
        false => Reply::echo(request),
    })
}

fn behind(agent: &Agent, name: &str, application: u16) -> Running {
    let [public] = free_ports();
    agent.register(name, application, public, json!({}), &json!([]));
    let proxy = agent.built_in_proxy(&format!("{name}-1"));
    // Calls before that would be failures, which passive checks remember.
    eventually("the built-in proxy listens", || {
        TcpStream::connect(local(public)).ok()
    });
    proxy
}

fn configure(agent: &Agent, entry: &Value) {
    agent.ask("PUT", "/v1/config", entry);
}

fn speaks(agent: &Agent, service: &str, protocol: &str) {
    let entry = json!({"Kind": "service-defaults", "Name": service, "Protocol": protocol});
    configure(agent, &entry);
}

/// Our proxy of `shop`, which calls these.
fn shop(agent: &Agent, upstreams: &Value) -> Running {
    let [unused] = free_ports();
    agent.register("shop", unused, unused, json!({"bind_port": 0}), upstreams);
    agent.sallyport("shop-1").ready()
}

#[test]
fn requests_take_the_routes_and_shares_of_the_chain() {
    let agent = Agent::start();
    let (web, second, admin) = (Origin::echo(), Origin::echo(), Origin::echo());
    for service in ["web", "second", "admin"] {
        speaks(&agent, service, "http");
    }
    let _behind = [
        behind(&agent, "web", web.port()),
        behind(&agent, "second", second.port()),
        behind(&agent, "admin", admin.port()),
    ];
    let splitter = json!({"Kind": "service-splitter", "Name": "web",
        "Splits": [{"Weight": 75, "Service": "web"}, {"Weight": 25, "Service": "second"}]});
    configure(&agent, &splitter);
    let to = |rewrite: &str| json!({"Service": "admin", "PrefixRewrite": rewrite});
    let router = json!({"Kind": "service-router", "Name": "web", "Routes": [
        {"Match": {"HTTP": {"PathPrefix": "/admin/"}}, "Destination": to("/inner/")},
        {"Match": {"HTTP": {"PathExact": "/exact", "Methods": ["GET"]}}, "Destination": to("")},
        {"Match": {"HTTP": {"PathRegex": "/[0-9]+"}}, "Destination": to("")},
        {"Match": {"HTTP": {"Header": [{"Name": "X-Debug", "Exact": "Yes"}]}}, "Destination": to("")},
        {"Match": {"HTTP": {"QueryParam": [{"Name": "debug", "Present": true}]}}, "Destination": to("")},
    ]});
    configure(&agent, &router);
    let [to_web] = free_ports();
    let shop = shop(
        &agent,
        &json!([{"DestinationName": "web", "LocalBindPort": to_web}]),
    );
    answered(to_web, "/");
    answered(to_web, "/exact");
    let asked = |origin: &Origin| origin.received().len();
    let by = |request: Request| {
        let before = asked(&admin);
        request.send().expect_status(200);
        asked(&admin) > before
    };
    for (request, is_admin) in [
        (get(to_web, "/exact"), true),
        (get(to_web, "/exact?x=1"), true),
        (get(to_web, "/exact/more"), false),
        (
            Request::new(local(to_web), "PUT", "/exact").body("x"),
            false,
        ),
        (get(to_web, "/123"), true),
        (get(to_web, "/123a"), false),
        (get(to_web, "/x").header("X-Debug", "Yes"), true),
        (get(to_web, "/x").header("X-Debug", "yes"), false),
        (get(to_web, "/x?debug"), true),
        (get(to_web, "/x?debugs"), false),
    ] {
        let shown = format!("{:?}", String::from_utf8_lossy(&request.bytes()));
        assert_eq!(by(request), is_admin, "{shown}");
    }
    // The path is rewritten, the host is not.
    let answer = get(to_web, "/admin/a?b=c")
        .host("web.test")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_target(), "/inner/a?b=c");
    assert_eq!(answer.echoed("Host"), ["web.test"]);
    // Long bodies take the other driver.
    let long = Request::new(local(to_web), "POST", "/x").body(vec![b'x'; 300_000]);
    long.send().expect_status(200);

    let (first_before, second_before) = (asked(&web), asked(&second));
    for _ in 0..100 {
        get(to_web, "/share").send().expect_status(200);
    }
    let shares = (asked(&web) - first_before, asked(&second) - second_before);
    assert!(shares.0 > 60 && shares.1 > 15, "{shares:?}");
    assert_eq!(shares.0 + shares.1, 100);

    // A change of the chain counts while requests run.
    let all = json!({"Kind": "service-splitter", "Name": "web",
        "Splits": [{"Weight": 0, "Service": "web"}, {"Weight": 100, "Service": "second"}]});
    configure(&agent, &all);
    eventually("everything goes to the second", || {
        let before = asked(&web);
        for _ in 0..8 {
            get(to_web, "/moved").send().expect_status(200);
        }
        (asked(&web) == before).then_some(())
    });
    let status = Request::new(shop.status_address(), "GET", "/status")
        .send()
        .json();
    assert_eq!(status["connect"]["upstreams"][0]["protocol"], "http");
}

#[test]
fn calls_and_failover_work_where_requests_are_looked_at() {
    let agent = Agent::start();
    let mut server = Program::start("grpc_server.py", &[]);
    let backup = Origin::echo();
    speaks(&agent, "calls", "grpc");
    for service in ["main", "backup"] {
        speaks(&agent, service, "http");
    }
    let _behind = [
        behind(&agent, "calls", server.port()),
        behind(&agent, "backup", backup.port()),
    ];
    let resolver = json!({"Kind": "service-resolver", "Name": "main",
        "Failover": {"*": {"Service": "backup"}}});
    configure(&agent, &resolver);
    let [to_calls, to_main] = free_ports();
    let _shop = shop(
        &agent,
        &json!([
            {"DestinationName": "calls", "LocalBindPort": to_calls},
            {"DestinationName": "main", "LocalBindPort": to_main},
        ]),
    );
    answered(to_main, "/through");
    assert_eq!(
        backup.received().last().expect("a request").target,
        "/through"
    );
    // It comes back when there is an instance.
    let main = Origin::echo();
    let _main = behind(&agent, "main", main.port());
    eventually("the main one serves again", || {
        let answer = get(to_main, "/again").send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        (!main.received().is_empty()).then_some(())
    });
    for kind in ["unary", "streams", "errors"] {
        let output = python_client("grpc_client.py", &[&local(to_calls).to_string(), kind]);
        assert!(output.ends_with("good\n"), "{kind}: {output}");
    }
}

#[test]
fn limits_hold_and_exposed_paths_need_no_certificate() {
    let agent = Agent::start();
    let (web, shop) = (application(), Origin::echo());
    speaks(&agent, "web", "http");
    let _web = behind(&agent, "web", web.port());
    let [to_web, exposed, unused] = free_ports();
    let body = json!({
        "Name": "shop", "ID": "shop-1", "Port": shop.port(),
        "Connect": {"SidecarService": {
            "Port": unused,
            "Check": {"Name": "alive", "TTL": "3600s", "Status": "passing"},
            "Proxy": {
                "Config": {"bind_address": "127.0.0.1"},
                "Expose": {"Paths": [
                    {"ListenerPort": exposed, "Path": "/health", "LocalPathPort": shop.port()},
                ]},
                "Upstreams": [{"DestinationName": "web", "LocalBindPort": to_web, "Config": {
                    "limits": {"max_concurrent_requests": 1, "max_pending_requests": 5},
                    "passive_health_check": {"interval": "30s", "max_failures": 3},
                }}],
            },
        }},
    });
    agent.ask("PUT", "/v1/agent/service/register", &body);
    let proxy = agent.sallyport("shop-1").ready();
    answered(to_web, "/");
    let slow = std::thread::spawn(move || get(to_web, "/slow").send().status);
    eventually("the first one is in progress", || {
        let received = web.received();
        received
            .iter()
            .any(|request| request.target == "/slow")
            .then_some(())
    });
    assert_eq!(get(to_web, "/").send().status, 503);
    assert_eq!(slow.join().unwrap(), 200);
    answered(to_web, "/");

    let answer = answered(exposed, "/health");
    assert_eq!(answer.echoed_target(), "/health");
    for closed in ["/", "/health/more", "/other"] {
        assert_eq!(get(exposed, closed).send().status, 404, "{closed}");
    }
    let status = Request::new(proxy.status_address(), "GET", "/status")
        .send()
        .json();
    let warnings = status["connect"]["warnings"].to_string();
    assert!(
        warnings.contains("max_pending_requests has no effect"),
        "{status}"
    );
    assert!(proxy.log().contains("max_pending_requests has no effect"));
}

/// A server that shows a certificate of `db` in another datacenter, and remembers the names it was asked for.
fn far_database(authority: &MeshAuthority) -> (u16, Arc<Mutex<Vec<String>>>) {
    let mut kind = LeafKind::of("db");
    kind.uris = vec![format!("spiffe://{TRUST_DOMAIN}/ns/default/dc/dc2/svc/db")];
    let (certificate, key) = authority.issue(&kind);
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    let certificate = X509::from_pem(certificate.as_bytes()).unwrap();
    builder.set_certificate(&certificate).unwrap();
    builder
        .set_private_key(&PKey::private_key_from_pem(key.as_bytes()).unwrap())
        .unwrap();
    builder.set_verify_callback(
        SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        |_, _| true,
    );
    let acceptor = Arc::new(builder.build());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let names: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::clone(&names);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (acceptor, asked) = (Arc::clone(&acceptor), Arc::clone(&asked));
            // A stranger that connects and says nothing keeps nobody else waiting.
            std::thread::spawn(move || {
                let Ok(mut stream) = acceptor.accept(stream) else {
                    return;
                };
                let name = stream.ssl().servername(NameType::HOST_NAME).unwrap_or("");
                asked.lock().unwrap().push(name.to_owned());
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nfar",
                );
                let _ = stream.shutdown();
            });
        }
    });
    (port, names)
}

/// An agent of a datacenter whose `db` is in another one, behind a mesh gateway at this port.
fn agent_with_gateway(authority: &MeshAuthority, gateway: u16, listen: u16, mode: &str) -> Origin {
    let roots = json!({"ActiveRootID": "r", "TrustDomain": TRUST_DOMAIN,
        "Roots": [{"ID": "r", "RootCert": authority.pem(), "Active": true}]});
    let (certificate, key) = authority.issue(&LeafKind::of("web"));
    let leaf = json!({"CertPEM": certificate, "PrivateKeyPEM": key,
        "ServiceURI": format!("spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web")});
    let service = json!({"Kind": "connect-proxy", "ID": "web-proxy", "Service": "web-proxy", "Port": 0,
        "Proxy": {"DestinationServiceName": "web", "MeshGateway": {"Mode": mode},
                  "Upstreams": [{"DestinationName": "db", "LocalBindPort": listen}]}});
    let chain = json!({"Chain": {"ServiceName": "db", "Datacenter": "dc1", "Protocol": "tcp", "StartNode": "r",
        "Nodes": {"r": {"Type": "resolver", "Resolver": {"Target": "t"}}},
        "Targets": {"t": {"ID": "t", "Service": "db", "Namespace": "default", "Datacenter": "dc2",
                          "SNI": format!("db.default.dc2.internal.{TRUST_DOMAIN}")}}}});
    let instances = json!([{"Node": {"Node": "n", "Address": "127.0.0.1", "Datacenter": "dc2"},
        "Service": {"Kind": "connect-proxy", "ID": "p", "Service": "p", "Port": 1,
                    "Proxy": {"DestinationServiceName": "db"}}, "Checks": []}]);
    // Inside it is at a port where nobody is, unless that is asked for.
    let (inside, outside) = if mode == "local" {
        (gateway, 1)
    } else {
        (1, gateway)
    };
    let gateways = json!([{"Node": {"Node": "g", "Address": "127.0.0.1", "Datacenter": "dc"},
        "Service": {"Kind": "mesh-gateway", "ID": "g", "Service": "mesh-gateway", "Address": "127.0.0.1",
                    "Port": inside, "TaggedAddresses": {"wan": {"Address": "127.0.0.1", "Port": outside}}},
        "Checks": []}]);
    let far = if mode == "local" {
        "?cached"
    } else {
        "?cached&dc=dc2"
    };
    let gateway_question = format!("/v1/health/service/mesh-gateway{far}");
    Origin::answering(move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        let (body, hash): (&Value, &str) = match path {
            "/v1/agent/connect/ca/roots" => (&roots, ""),
            "/v1/agent/connect/ca/leaf/web" => (&leaf, ""),
            "/v1/agent/service/web-proxy" => (&service, "one"),
            "/v1/discovery-chain/db" => (&chain, ""),
            "/v1/health/connect/db" => (&instances, ""),
            "/v1/health/service/mesh-gateway" if request.target.starts_with(&gateway_question) => {
                (&gateways, "")
            }
            _ => return Reply::new(404, &[], "unknown"),
        };
        let headers = [("X-Consul-Index", "7"), ("X-Consul-ContentHash", hash)];
        let reply = Reply::new(200, &headers, body.to_string());
        match request.target.contains("wait=") && request.target.contains("index=7")
            || request.target.contains("hash=one")
        {
            true => reply.delayed(Duration::from_secs(5)),
            // Who we are comes last: only then is it known that the target is elsewhere.
            false if path.contains("/leaf/") => reply.delayed(Duration::from_millis(500)),
            false => reply,
        }
    })
}

#[test]
fn a_resolver_says_how_long_connecting_may_take() {
    let agent = Agent::start();
    // Takes connections into its queue, and never says a word.
    let silent = TcpListener::bind(local(0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    speaks(&agent, "requests", "http");
    for name in ["bytes", "requests"] {
        let service = json!({"Name": name, "Port": port, "Address": "127.0.0.1", "Connect": {"Native": true}});
        agent.ask("PUT", "/v1/agent/service/register", &service);
        let resolver = json!({"Kind": "service-resolver", "Name": name, "ConnectTimeout": "150ms"});
        configure(&agent, &resolver);
    }
    let [to_bytes, to_requests] = free_ports();
    let shop = shop(
        &agent,
        &json!([{"DestinationName": "bytes", "LocalBindPort": to_bytes},
            {"DestinationName": "requests", "LocalBindPort": to_requests}]),
    );
    eventually("the time for requests is over", || {
        let answer = get(to_requests, "/").try_send().ok()?;
        (answer.status == 504).then_some(())
    });
    eventually("the time for bytes is over", || {
        drop(TcpStream::connect(local(to_bytes)));
        let told = shop.log().contains("no connection within 150ms");
        told.then_some(())
    });
}

#[test]
fn other_datacenters_are_reached_through_mesh_gateways() {
    for mode in ["local", "remote"] {
        let authority = MeshAuthority::new();
        let (gateway, names) = far_database(&authority);
        let [listen] = free_ports();
        let agent = agent_with_gateway(&authority, gateway, listen, mode);
        let _proxy = sallyport(agent.address, &["-proxy-id", "web-proxy"]).ready();
        assert_eq!(answered(listen, "/").text(), "far", "{mode}");
        let expected = format!("db.default.dc2.internal.{TRUST_DOMAIN}");
        assert_eq!(names.lock().unwrap().last(), Some(&expected), "{mode}");
    }
}
