#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn read(proxy: &str) -> Result<ProxyConfiguration, Vec<String>> {
    let text = format!(
        r#"{{"Kind":"connect-proxy","ID":"web-1-sidecar-proxy","Service":"web-sidecar-proxy","Port":21001,"Proxy":{proxy}}}"#
    );
    let service: AgentService = serde_json::from_str(&text).unwrap();
    ProxyConfiguration::read(&service)
}

#[test]
fn a_sidecar_s_defaults() {
    let configuration =
        read(r#"{"DestinationServiceName":"web","LocalServicePort":9002}"#).unwrap();
    let public = configuration.public.unwrap();
    assert_eq!(public.bind.host, "0.0.0.0");
    assert_eq!(public.bind.port, 21001);
    assert_eq!(public.protocol, MeshProtocol::Tcp);
    assert_eq!(public.connect_timeout, Duration::from_secs(1));
    assert_eq!(public.handshake_timeout, Duration::from_secs(10));
    assert_eq!(public.connections_max, None);
    assert_eq!(
        public.application,
        LocalApplication::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 9002
        }
    );
}

#[test]
fn values_may_be_written_as_text() {
    let configuration = read(
        r#"{"DestinationServiceName":"web","LocalServiceSocketPath":"/run/app.sock",
            "Config":{"bind_address":"127.0.0.1","bind_port":"22000","protocol":"HTTP","handshake_timeout_ms":"250",
                      "local_connect_timeout_ms":300.0,"max_inbound_connections":"7","envoy_stuff":{}},
            "MeshGateway":{"Mode":"local"},
            "Upstreams":[
              {"DestinationName":"db","LocalBindPort":9191,"Config":{"connect_timeout_ms":"3000","protocol":"grpc",
               "limits":{"max_connections":"5"},"passive_health_check":{"interval":"2s","max_failures":3}}},
              {"DestinationType":"prepared_query","DestinationName":"near","LocalBindSocketPath":"/run/u.sock",
               "LocalBindSocketMode":"0600","Datacenter":"dc2","MeshGateway":{"Mode":"none"}}]}"#,
    )
    .unwrap();
    let public = configuration.public.unwrap();
    assert_eq!(
        (public.bind.port, public.protocol),
        (22000, MeshProtocol::Http)
    );
    assert_eq!(public.handshake_timeout, Duration::from_millis(250));
    assert_eq!(public.connect_timeout, Duration::from_millis(300));
    assert_eq!(public.connections_max, Some(7));
    assert_eq!(
        public.application,
        LocalApplication::Socket("/run/app.sock".to_owned())
    );
    let [db, near] = configuration.upstreams.as_slice() else {
        unreachable!()
    };
    assert_eq!(db.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(db.protocol, Some(MeshProtocol::Grpc));
    assert_eq!(db.limits.connections_max, Some(5));
    assert_eq!(db.passive_health.unwrap().failures_max, 3);
    assert_eq!(db.gateway, Some(GatewayMode::Local));
    assert_eq!(near.destination.kind, DestinationKind::PreparedQuery);
    assert_eq!(near.gateway, Some(GatewayMode::Direct));
    assert_eq!(
        near.listen,
        LocalListen::Socket {
            path: "/run/u.sock".to_owned(),
            mode: Some(0o600)
        }
    );
}

#[test]
fn a_public_listener_can_be_absent() {
    for proxy in [
        r#"{"DestinationServiceName":"web","LocalServicePort":1,"Config":{"bind_port":0}}"#,
        r#"{"DestinationServiceName":"web"}"#,
    ] {
        assert_eq!(read(proxy).unwrap().public, None, "{proxy}");
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let wrong = read(
        r#"{"Mode":"transparent","Config":{"bind_port":"many","protocol":"udp","local_service_address":"nowhere"},
            "Upstreams":[{"DestinationName":"db"},{"LocalBindPort":1,"DestinationPeer":"far"}]}"#,
    )
    .unwrap_err();
    for part in [
        "DestinationServiceName is missing",
        "'transparent' is not supported",
        "Config.bind_port: \"many\" is not a whole number",
        "'udp' is none of",
        "'nowhere' is not HOST:PORT",
        "upstream 'db': LocalBindPort 0 is not a port",
        "an upstream without DestinationName",
        "DestinationPeer 'far' is not supported",
    ] {
        assert!(
            wrong.iter().any(|one| one.contains(part)),
            "{part}: {wrong:#?}"
        );
    }
}
