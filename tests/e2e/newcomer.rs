//! The newcomer's path: the commands of Kong's documentation, word for word, with curl.

use crate::harness::{Gateway, Origin, curl, eventually};

/// Splits what `curl -i` prints into status line, headers and body.
fn parts(output: &str) -> (String, String, String) {
    let (head, body) = output.split_once("\r\n\r\n").expect("headers and a body");
    let (status, headers) = head.split_once("\r\n").expect("a status line");
    (status.to_owned(), headers.to_owned(), body.to_owned())
}

#[test]
fn the_documented_commands_lead_to_a_proxied_route() {
    let origin = Origin::echo();
    let gateway = Gateway::stored();
    let admin = format!("http://{}", gateway.admin().address);

    let created = curl(&[
        "-i",
        "-X",
        "POST",
        &format!("{admin}/services/"),
        "-d",
        "name=foo-service",
        "-d",
        &format!("url={}", origin.url()),
    ]);
    let (status, headers, body) = parts(&created);
    assert!(status.starts_with("HTTP/1.1 201 Created"), "{created}");
    assert!(
        headers
            .to_ascii_lowercase()
            .contains("content-type: application/json; charset=utf-8")
    );
    let service: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(service["name"], "foo-service");
    assert_eq!(service["protocol"], "http");
    assert_eq!(service["host"], "127.0.0.1");
    assert_eq!(service["port"], origin.port());
    assert_eq!(service["path"], serde_json::Value::Null);
    assert_eq!(service["retries"], 5);
    assert_eq!(service["connect_timeout"], 60000);
    assert_eq!(service["enabled"], true);
    let id = service["id"].as_str().expect("an id");

    let created = curl(&[
        "-i",
        "-X",
        "POST",
        &format!("{admin}/routes/"),
        "-d",
        "hosts[]=example.com",
        "-d",
        "paths[]=/foo",
        "-d",
        &format!("service.id={id}"),
    ]);
    let (status, _, body) = parts(&created);
    assert!(status.starts_with("HTTP/1.1 201 Created"), "{created}");
    let route: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(route["hosts"], serde_json::json!(["example.com"]));
    assert_eq!(route["paths"], serde_json::json!(["/foo"]));
    assert_eq!(route["protocols"], serde_json::json!(["http", "https"]));
    assert_eq!(route["strip_path"], true);
    assert_eq!(route["preserve_host"], false);
    assert_eq!(route["regex_priority"], 0);
    assert_eq!(route["service"]["id"], id);

    // The write serves within a moment; a newcomer types slower than this.
    let answer = eventually("the route serves", || {
        let answer = curl(&[
            "-i",
            "-X",
            "GET",
            &format!("http://{}/foo/hello?x=1", gateway.proxy()),
            "-H",
            "Host: example.com",
        ]);
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    });
    let (_, headers, body) = parts(&answer);
    let echo: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(echo["target"], "/hello?x=1");
    let headers = headers.to_ascii_lowercase();
    for name in [
        "x-kong-upstream-latency:",
        "x-kong-proxy-latency:",
        "x-kong-request-id:",
    ] {
        assert!(headers.contains(name), "{name} in {headers}");
    }
    assert!(headers.contains("via: 1.1 sallyport/"), "{headers}");

    let answer = curl(&["-i", &format!("http://{}/foo", gateway.proxy())]);
    let (status, _, body) = parts(&answer);
    assert!(status.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(
        body.contains("\"message\":\"no Route matched with those values\""),
        "{body}"
    );
}

#[test]
fn sources_on_an_http_route_are_refused_in_the_documented_words() {
    let gateway = Gateway::stored();
    let answer = curl(&[
        "-i",
        "-X",
        "POST",
        &format!("http://{}/routes/", gateway.admin().address),
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"name":"r","paths":["/x"],"protocols":["http","https"],"sources":[{"ip":"10.0.0.1"}]}"#,
    ]);
    let (status, _, body) = parts(&answer);
    assert!(status.starts_with("HTTP/1.1 400"), "{answer}");
    let error: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        error,
        serde_json::json!({
            "code": 2,
            "fields": {"sources": "cannot set 'sources' when 'protocols' is 'http' or 'https'"},
            "message": "schema violation (sources: cannot set 'sources' when 'protocols' is 'http' or 'https')",
            "name": "schema violation",
        })
    );
}

#[test]
fn a_plugin_protects_the_route_a_minute_later() {
    let origin = Origin::echo();
    let gateway = Gateway::stored();
    let admin = format!("http://{}", gateway.admin().address);
    let post = |path: &str, data: &[&str]| {
        let url = format!("{admin}{path}");
        let mut arguments = vec!["-i", "-X", "POST", &url];
        for pair in data {
            arguments.extend(["--data", pair]);
        }
        let answer = curl(&arguments);
        assert!(answer.starts_with("HTTP/1.1 201"), "{path}: {answer}");
    };
    post(
        "/services",
        &["name=example-service", &format!("url={}", origin.url())],
    );
    post("/services/example-service/routes", &["hosts[]=example.com"]);
    post(
        "/services/example-service/plugins/",
        &["name=key-auth", "config.key_names=apikey"],
    );
    post("/consumers/", &["username=Jason"]);
    post("/consumers/Jason/key-auth/", &["key=ENTER_KEY_HERE"]);

    let url = format!("http://{}", gateway.proxy());
    eventually("the route is protected", || {
        curl(&["-i", &url, "--header", "Host: example.com"])
            .starts_with("HTTP/1.1 401")
            .then_some(())
    });
    let answer = eventually("the key is known", || {
        let answer = curl(&[
            "-i",
            &url,
            "-H",
            "Host: example.com",
            "-H",
            "apikey: ENTER_KEY_HERE",
        ]);
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    });
    assert!(
        answer.contains("[\"X-Consumer-Username\",\"Jason\"]"),
        "{answer}"
    );
}
