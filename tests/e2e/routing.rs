//! Which route serves a request, and what the answer is when none does.

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Origin, Reply, Request, one_service};

/// A gateway whose routes all lead to a small answer; the origin lives as long as the pair.
fn routed(routes: &Value) -> (Gateway, Origin) {
    let origin = Origin::answering(|_| Reply::ok("ok"));
    let gateway = Gateway::with(&one_service(&origin.url(), routes));
    (gateway, origin)
}

#[track_caller]
fn assert_route(gateway: &Gateway, request: Request, expected: &str, why: &str) {
    let found = gateway.route_of(request);
    let expected = (!expected.is_empty()).then_some(expected);
    assert_eq!(found.as_deref(), expected, "{why}");
}

#[test]
fn hosts_match_plain_by_wildcard_and_by_port() {
    let (gateway, _origin) = routed(&json!([
        {"name": "plain", "hosts": ["example.com", "foo.test"]},
        {"name": "left", "hosts": ["*.example.com"]},
        {"name": "right", "hosts": ["example.*"]},
        {"name": "deep", "hosts": ["a.b.example.com"]},
        {"name": "ported", "hosts": ["ported.test:9999"]},
    ]));
    for (host, expected) in [
        ("example.com", "plain"),
        ("foo.test", "plain"),
        ("example.com:8000", "plain"),
        ("x.example.com", "left"),
        ("y.x.example.com", "left"),
        ("a.b.example.com", "deep"),
        ("example.org", "right"),
        ("example.co.uk", "right"),
        ("ported.test:9999", "ported"),
        ("ported.test:9998", ""),
        ("ported.test", ""),
        ("other.test", ""),
        ("notexample.com", ""),
    ] {
        assert_route(&gateway, gateway.get("/").host(host), expected, host);
    }
}

#[test]
fn paths_match_by_prefix_the_longest_first() {
    let (gateway, _origin) = routed(&json!([
        {"name": "service", "paths": ["/service"]},
        {"name": "resource", "paths": ["/service/resource"]},
        {"name": "hello", "paths": ["/hello/world"]},
        {"name": "root", "paths": ["/"]},
    ]));
    for (path, expected) in [
        ("/service/resource", "resource"),
        ("/service/resource/1", "resource"),
        ("/service/res", "service"),
        ("/services", "service"),
        ("/hello/world/resource?q=1", "hello"),
        ("/hello", "root"),
        ("/", "root"),
    ] {
        assert_route(&gateway, gateway.get(path), expected, path);
    }
}

#[test]
fn regex_paths_come_before_plain_ones_by_their_priority() {
    let (gateway, _origin) = routed(&json!([
        {"name": "six", "paths": ["~/version/\\d+/status/\\d+"], "regex_priority": 6},
        {"name": "status", "paths": ["~/status/\\d+"]},
        {"name": "any", "paths": ["~/version/any/"]},
        {"name": "plain", "paths": ["/version"]},
        {"name": "longer-plain", "paths": ["/version/any/longer/than/the/regex"]},
        {"name": "end", "paths": ["~/exact$"]},
        {"name": "low", "paths": ["~/p/.*"], "regex_priority": 1},
        {"name": "high", "paths": ["~/p/q"], "regex_priority": 2},
    ]));
    for (path, expected) in [
        ("/version/1/status/2", "six"),
        ("/status/77/more", "status"),
        ("/version/any/longer/than/the/regex", "any"),
        ("/version/9", "plain"),
        ("/exact", "end"),
        ("/exactly", ""),
        ("/p/q", "high"),
        ("/p/r", "low"),
        ("/x/status/1", ""),
    ] {
        assert_route(&gateway, gateway.get(path), expected, path);
    }
}

#[test]
fn headers_are_anded_over_names_and_ored_over_values() {
    let (gateway, _origin) = routed(&json!([
        {"name": "one", "paths": ["/h"], "headers": {"version": ["v1", "V2"]}},
        {"name": "two", "paths": ["/h"], "headers": {"version": ["v1"], "area": ["eu"]}},
        {"name": "regex", "paths": ["/h"], "headers": {"X-Kind": ["~*^foo-\\d+$"]}},
        {"name": "none", "paths": ["/h"]},
    ]));
    let request = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .fold(gateway.get("/h"), |request, (name, value)| {
                request.header(name, value)
            })
    };
    for (pairs, expected) in [
        (vec![("version", "v1")], "one"),
        (vec![("Version", "v2")], "one"),
        (vec![("version", "v1"), ("area", "eu")], "two"),
        (vec![("version", "v2"), ("area", "eu")], "one"),
        (vec![("version", "v9")], "none"),
        (vec![("version", "v9"), ("version", "v1")], "one"),
        (vec![("x-kind", "FOO-12")], "regex"),
        (vec![("x-kind", "foo-")], "none"),
        (vec![], "none"),
    ] {
        assert_route(&gateway, request(&pairs), expected, &format!("{pairs:?}"));
    }
}

#[test]
fn methods_are_matched_exactly() {
    let (gateway, _origin) = routed(&json!([
        {"name": "read", "paths": ["/m"], "methods": ["GET", "HEAD"]},
        {"name": "write", "paths": ["/m"], "methods": ["POST"]},
        {"name": "odd", "paths": ["/m"], "methods": ["PROPFIND"]},
    ]));
    for (method, expected) in [
        ("GET", "read"),
        ("HEAD", "read"),
        ("POST", "write"),
        ("PROPFIND", "odd"),
        ("DELETE", ""),
    ] {
        assert_route(&gateway, gateway.request(method, "/m"), expected, method);
    }
}

#[test]
fn the_route_with_more_kinds_of_rules_wins() {
    let (gateway, _origin) = routed(&json!([
        {"name": "host", "hosts": ["a.test"]},
        {"name": "host-method", "hosts": ["a.test"], "methods": ["POST"]},
        {"name": "long-path", "paths": ["/a/very/long/path/indeed"]},
        {"name": "host-path", "hosts": ["a.test"], "paths": ["/a"]},
        {"name": "wild-path", "hosts": ["*.test"], "paths": ["/a/very"]},
        {"name": "all", "hosts": ["a.test"], "paths": ["/a"], "methods": ["PUT"]},
    ]));
    for (method, host, path, expected) in [
        ("GET", "a.test", "/", "host"),
        ("POST", "a.test", "/", "host-method"),
        ("GET", "a.test", "/a/very/long/path/indeed", "host-path"),
        ("GET", "b.test", "/a/very/long/path/indeed", "wild-path"),
        ("GET", "c.other", "/a/very/long/path/indeed", "long-path"),
        ("PUT", "a.test", "/a", "all"),
    ] {
        let request = gateway.request(method, path).host(host);
        assert_route(
            &gateway,
            request,
            expected,
            &format!("{method} {host}{path}"),
        );
    }
}

#[test]
fn server_names_select_routes_on_tls_connections_only() {
    let (gateway, _origin) = routed(&json!([
        {"name": "sni", "snis": ["one.test"], "protocols": ["https"]},
        {"name": "wild", "snis": ["*.two.test"], "protocols": ["https"]},
        {"name": "other", "hosts": ["a.test"]},
    ]));
    assert_route(
        &gateway,
        gateway.get_tls("one.test", "/").host("x"),
        "sni",
        "exact",
    );
    assert_route(
        &gateway,
        gateway.get_tls("a.b.two.test", "/").host("x"),
        "wild",
        "wildcard",
    );
    assert_route(
        &gateway,
        gateway.get_tls("three.test", "/").host("one.test"),
        "",
        "the SNI counts, not the host",
    );
}

#[test]
fn requests_are_normalised_before_matching_and_forwarded_so() {
    let origin = Origin::echo();
    let routes = json!([{"name": "all", "paths": ["/"], "strip_path": false}]);
    let gateway = Gateway::with(&one_service(&origin.url(), &routes));
    for (sent, forwarded) in [
        ("/a%2fb", "/a%2Fb"),
        ("/f%6f%6f", "/foo"),
        ("/a/b/c/./../../g", "/a/g"),
        ("/a//b//", "/a/b/"),
        ("/endel%C3%B8st", "/endel%C3%B8st"),
        ("/%2E", "/"),
        ("/a%20b", "/a%20b"),
        ("/foo?", "/foo?"),
        ("/foo?a=%zz&b", "/foo?a=%zz&b"),
        ("/foo?a=/../b", "/foo?a=/../b"),
        ("/a%7Eb", "/a~b"),
    ] {
        let response = gateway.get(sent).send().expect_status(200);
        assert_eq!(response.echoed_target(), forwarded, "{sent}");
    }
}

#[test]
fn paths_are_stripped_and_joined_as_documented() {
    let origin = Origin::echo();
    // Service path, route path, strip_path, request, path at the origin.
    let cases = [
        ("/service", "/route", true, "/routereq", "/service/req"),
        ("/service", "/route", true, "/route/req", "/service/req"),
        ("/service", "/route", true, "/route", "/service"),
        ("/service", "/route", false, "/route", "/service/route"),
        ("/service", "/route", true, "/route/", "/service/"),
        ("/service", "/route/", true, "/route/", "/service/"),
        ("/service/", "/route", true, "/route", "/service"),
        ("/service/", "/route", true, "/route/", "/service/"),
        ("/srv/", "/rou", true, "/rou", "/srv"),
        ("/srv", "/rou", true, "/roureq", "/srv/req"),
        ("/", "/route", true, "/route", "/"),
        ("/", "/route", true, "/route/x", "/x"),
        ("/", "/route", false, "/route/x", "/route/x"),
        ("/service", "~/r\\d+", true, "/r12/tail", "/service/tail"),
        ("/service", "/route", true, "/route%2E/req", "/service/req"),
        (
            "/service",
            "/route",
            true,
            "/route/x?q=1&q=2",
            "/service/x?q=1&q=2",
        ),
    ];
    let services: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(number, (base, path, strip, _, _))| {
            json!({
                "name": format!("s{number}"),
                "host": "127.0.0.1", "port": origin.port(), "path": base,
                "routes": [{"name": format!("r{number}"), "hosts": [format!("h{number}.test")], "paths": [path], "strip_path": strip}],
            })
        })
        .collect();
    let gateway =
        Gateway::with(&json!({"_format_version": "3.0", "services": services}).to_string());
    for (number, (base, path, strip, sent, expected)) in cases.iter().enumerate() {
        let request = gateway.get(sent).host(&format!("h{number}.test"));
        let target = request.send().expect_status(200).echoed_target();
        assert_eq!(
            target, *expected,
            "service {base}, route {path}, strip {strip}, request {sent}"
        );
    }
}

#[test]
fn the_host_is_the_services_own_unless_preserved() {
    let origin = Origin::echo();
    let gateway = Gateway::with(&one_service(
        &origin.url(),
        &json!([
            {"name": "own", "paths": ["/own"]},
            {"name": "kept", "paths": ["/kept"], "preserve_host": true},
        ]),
    ));
    let own = gateway.get("/own").host("client.test").send();
    assert_eq!(own.echoed_one("host"), Some(origin.address.to_string()));
    let kept = gateway.get("/kept").host("client.test:81").send();
    assert_eq!(kept.echoed_one("host").as_deref(), Some("client.test:81"));
}

#[test]
fn an_https_route_answers_plain_requests_with_426_or_a_redirect() {
    let (gateway, _origin) = routed(&json!([
        {"name": "required", "paths": ["/required"], "protocols": ["https"]},
        {"name": "moved", "paths": ["/moved"], "protocols": ["https"], "https_redirect_status_code": 301},
        {"name": "found", "paths": ["/found"], "protocols": ["https"], "https_redirect_status_code": 302},
        {"name": "temporary", "paths": ["/temporary"], "protocols": ["https"], "https_redirect_status_code": 307},
        {"name": "permanent", "paths": ["/permanent"], "protocols": ["https"], "https_redirect_status_code": 308},
        {"name": "http", "paths": ["/http"], "protocols": ["http"]},
    ]));
    let response = gateway.get("/required").send().expect_status(426);
    assert_eq!(response.message(), "Please use HTTPS protocol");
    assert_eq!(response.header("Upgrade"), Some("TLS/1.2, HTTP/1.1"));
    let connection = response.all("Connection").join(", ").to_ascii_lowercase();
    assert!(connection.contains("upgrade"), "{connection}");
    for (path, status) in [
        ("/moved", 301),
        ("/found", 302),
        ("/temporary", 307),
        ("/permanent", 308),
    ] {
        let response = gateway
            .get(&format!("{path}/x?q=1"))
            .host("a.test")
            .send()
            .expect_status(status);
        let location = format!("https://a.test{path}/x?q=1");
        assert_eq!(response.header("Location"), Some(location.as_str()));
        assert!(response.body.is_empty());
    }
    gateway
        .get_tls("a.test", "/required")
        .send()
        .expect_status(200);
    gateway.get_tls("a.test", "/http").send().expect_status(200);
}

#[test]
fn a_trusted_proxy_may_say_that_the_request_came_over_tls() {
    let origin = Origin::echo();
    let routes = json!([{"name": "secure", "paths": ["/"], "protocols": ["https"]}]);
    let text = one_service(&origin.url(), &routes);
    let trusting = Gateway::builder()
        .setting("trusted_ips", "127.0.0.1")
        .declarative(&text)
        .start();
    let response = trusting
        .get("/")
        .header("X-Forwarded-Proto", "https")
        .send()
        .expect_status(200);
    assert_eq!(
        response.echoed_one("x-forwarded-proto").as_deref(),
        Some("https")
    );
    trusting.get("/").send().expect_status(426);
    let distrusting = Gateway::with(&text);
    distrusting
        .get("/")
        .header("X-Forwarded-Proto", "https")
        .send()
        .expect_status(426);
}

#[test]
fn no_route_gives_the_documented_404() {
    let (gateway, _origin) = routed(&json!([{"name": "r", "hosts": ["a.test"]}]));
    let response = gateway.get("/").send().expect_status(404);
    assert_eq!(
        response.header("Content-Type"),
        Some("application/json; charset=utf-8")
    );
    let id = response.header("X-Kong-Request-Id").expect("a request id");
    assert_eq!(id.len(), 32);
    assert_eq!(
        response.text(),
        format!(
            "{{\n  \"message\":\"no Route matched with those values\",\n  \"request_id\":\"{id}\"\n}}"
        )
    );
    assert!(
        response
            .header("Server")
            .is_some_and(|server| server.starts_with("sallyport/"))
    );
    assert!(response.header("X-Kong-Response-Latency").is_some());
    assert_eq!(response.header("Via"), None);
}

#[test]
fn error_bodies_follow_the_accept_header() {
    let (gateway, _origin) = routed(&json!([{"name": "r", "hosts": ["a.test"]}]));
    let message = "no Route matched with those values";
    for (accept, content_type, start) in [
        (
            "text/html",
            "text/html; charset=utf-8",
            "<!doctype html>\n<html>\n  <head>",
        ),
        ("text/plain", "text/plain; charset=utf-8", message),
        (
            "application/xml",
            "application/xml; charset=utf-8",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>",
        ),
        ("application/json", "application/json; charset=utf-8", "{\n"),
        ("*/*", "application/json; charset=utf-8", "{\n"),
        ("text/*", "text/plain; charset=utf-8", message),
        ("image/png", "application/json; charset=utf-8", "{\n"),
        (
            "text/html;q=0.3, application/xml;q=0.9",
            "application/xml; charset=utf-8",
            "<?xml",
        ),
    ] {
        let response = gateway
            .get("/")
            .header("Accept", accept)
            .send()
            .expect_status(404);
        assert_eq!(
            response.header("Content-Type"),
            Some(content_type),
            "{accept}"
        );
        assert!(
            response.text().starts_with(start),
            "{accept}: {}",
            response.text()
        );
        assert!(response.text().contains(message), "{accept}");
    }
}

#[test]
fn a_route_without_a_service_gives_503_and_a_disabled_service_404() {
    let gateway = Gateway::with(
        &json!({
            "_format_version": "3.0",
            "routes": [{"name": "alone", "paths": ["/alone"]}],
            "services": [{"name": "off", "url": "http://127.0.0.1:1", "enabled": false, "routes": [{"name": "r", "paths": ["/off"]}]}],
        })
        .to_string(),
    );
    let response = gateway.get("/alone").send().expect_status(503);
    assert_eq!(response.message(), "no Service found with those values");
    gateway.get("/off").send().expect_status(404);
}

#[test]
fn debug_headers_name_route_and_service_when_allowed_and_asked() {
    let origin = Origin::echo();
    let text = one_service(&origin.url(), &json!([{"name": "r", "paths": ["/"]}]));
    let gateway = Gateway::with(&text);
    let answer = gateway
        .get("/")
        .header("Kong-Debug", "1")
        .send()
        .expect_status(200);
    assert_eq!(answer.header("Kong-Route-Name"), Some("r"));
    assert_eq!(answer.header("Kong-Service-Name"), Some("origin"));
    assert_eq!(answer.header("Kong-Route-Id").map(str::len), Some(36));
    assert_eq!(answer.header("Kong-Service-Id").map(str::len), Some(36));
    assert_eq!(gateway.get("/").send().header("Kong-Route-Name"), None);
    let silent = Gateway::builder().declarative(&text).start();
    let answer = silent.get("/").header("Kong-Debug", "1").send();
    assert_eq!(answer.header("Kong-Route-Name"), None);
}

#[test]
fn the_expressions_flavour_routes_by_expressions() {
    let origin = Origin::answering(|_| Reply::ok("ok"));
    let gateway = Gateway::builder()
        .debug_headers()
        .setting("router_flavor", "expressions")
        .declarative(&one_service(
            &origin.url(),
            &json!([
                {"name": "prefix", "expression": "http.path ^= \"/api\" && http.method == \"GET\"", "priority": 1},
                {"name": "header", "expression": "http.path ^= \"/api\" && any(http.headers.x_kind) == \"a\"", "priority": 9},
                {"name": "query", "expression": "http.queries.v == \"2\"", "priority": 20},
                {"name": "segments", "expression": "http.path.segments.0 == \"seg\" && http.path.segments.len == 2", "priority": 1},
                {"name": "source", "expression": "http.path == \"/from\" && net.src.ip in 127.0.0.0/8", "priority": 1},
            ]),
        ))
        .start();
    assert_route(&gateway, gateway.get("/api/x"), "prefix", "prefix");
    assert_route(
        &gateway,
        gateway.request("POST", "/api/x"),
        "",
        "another method",
    );
    assert_route(
        &gateway,
        gateway.get("/api").header("X-Kind", "a"),
        "header",
        "priority",
    );
    assert_route(&gateway, gateway.get("/api?v=2"), "query", "query");
    assert_route(&gateway, gateway.get("/seg/x"), "segments", "two segments");
    assert_route(&gateway, gateway.get("/seg/x/y"), "", "three segments");
    assert_route(&gateway, gateway.get("/from"), "source", "source address");
}

#[test]
fn the_traditional_flavour_tries_hosts_before_headers() {
    let origin = Origin::answering(|_| Reply::ok("ok"));
    let routes = json!([
        {"name": "headers", "paths": ["/"], "headers": {"x-a": ["1"]}},
        {"name": "wildcard", "paths": ["/"], "hosts": ["*.test"]},
    ]);
    let text = one_service(&origin.url(), &routes);
    for (flavour, expected) in [
        ("traditional", "wildcard"),
        ("traditional_compatible", "headers"),
    ] {
        let gateway = Gateway::builder()
            .debug_headers()
            .setting("router_flavor", flavour)
            .declarative(&text)
            .start();
        let request = gateway.get("/").host("a.test").header("x-a", "1");
        assert_route(&gateway, request, expected, flavour);
    }
}

#[test]
fn requests_that_are_no_http_get_400_and_reach_nobody() {
    let (gateway, origin) = routed(&json!([{"name": "all", "paths": ["/"]}]));
    for bytes in [
        "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /.. HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%2E%2E/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a/b/../../../c HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET nothing HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "G=T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gibberish\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let mut client = Client::connect(gateway.proxy());
        client.send(bytes);
        client.finish_sending();
        let response = client
            .try_read_response_to("GET")
            .unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
        assert!(
            response.status == 400 || response.status == 501,
            "{bytes:?} got {}",
            response.status
        );
        assert!(client.is_closed(), "{bytes:?}");
    }
    assert_eq!(origin.received().len(), 0, "{:?}", origin.received());
    gateway.request("TRACE", "/").send().expect_status(405);
    let long = "x".repeat(9 * 1024);
    let response = gateway
        .get("/")
        .header("X-Long", &long)
        .send()
        .expect_status(400);
    assert!(
        response
            .text()
            .starts_with("Request header or cookie too large\n")
    );
    gateway.get(&format!("/{long}")).send().expect_status(414);
    let many = |count: usize| {
        let field = "x".repeat(4000);
        (0..count).fold(gateway.get("/"), |request, number| {
            request.header(&format!("X-{number}"), &field)
        })
    };
    many(9).send().expect_status(400);
    many(7).send().expect_status(200);
}
