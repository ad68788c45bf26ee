//! What an operator sees: file-log, access log, metrics, status.

use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Reply, Request, eventually, for_both_drivers, with_plugins};

#[test]
fn file_log_writes_one_entry_for_each_request() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| match request.target.as_str() {
            "/fail" => Reply::nothing(),
            _ => Reply::new(201, &[("X-Own", "1")], "body"),
        });
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.jsonl");
        let mut text = with_plugins(
            &origin.url(),
            &json!([{"name": "key-auth"}, {"name": "file-log", "config": {"path": path.to_str()}}]),
        );
        text["services"][0]["retries"] = json!(0);
        text["consumers"] = json!([{"username": "c", "keyauth_credentials": [{"key": "k"}]}]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        gateway
            .request("POST", "/p?q=1")
            .header("apikey", "k")
            .header("Authorization", "secret")
            .body("12345")
            .send()
            .expect_status(201);
        gateway.get("/denied").send().expect_status(401);
        gateway
            .get("/fail")
            .header("apikey", "k")
            .send()
            .expect_status(502);
        let entries: Vec<Value> = eventually("three entries", || {
            let text = std::fs::read_to_string(&path).ok()?;
            // The last line may still be on its way.
            let (whole, _) = text.rsplit_once('\n')?;
            let lines: Vec<Value> = whole
                .lines()
                .map(|line| serde_json::from_str(line).expect("a JSON line"))
                .collect();
            (lines.len() >= 3).then_some(lines)
        });
        let find = |status: u64| {
            let found = entries
                .iter()
                .find(|entry| entry["response"]["status"] == status);
            found.unwrap_or_else(|| panic!("no entry with {status}: {entries:?}"))
        };
        let good = find(201);
        assert_eq!(good["request"]["method"], "POST");
        assert_eq!(good["request"]["uri"], "/p?q=1");
        assert_eq!(good["request"]["querystring"], json!({"q": "1"}));
        assert_eq!(good["request"]["headers"]["authorization"], "REDACTED");
        assert_eq!(good["response"]["headers"]["x-own"], "1");
        assert_eq!(good["upstream_status"], "201");
        assert_eq!(good["source"], "upstream");
        assert_eq!(good["client_ip"], "127.0.0.1");
        assert_eq!(good["service"]["name"], "origin");
        assert_eq!(good["route"]["name"], "all");
        assert_eq!(good["consumer"]["username"], "c");
        assert_eq!(good["tries"].as_array().map(Vec::len), Some(1));
        assert_eq!(good["tries"][0]["port"], origin.port());
        for name in ["kong", "proxy", "request"] {
            assert!(good["latencies"][name].is_number(), "{name}: {good}");
        }
        assert!(
            good["started_at"]
                .as_u64()
                .is_some_and(|time| time > 1_600_000_000_000)
        );
        assert!(
            good["request"]["size"]
                .as_u64()
                .is_some_and(|size| size > 50)
        );
        let denied = find(401);
        assert_eq!(denied["source"], "kong");
        assert!(
            denied.get("upstream_status").is_none_or(Value::is_null),
            "{denied}"
        );
        let failed = find(502);
        assert_eq!(failed["source"], "kong");
        assert_eq!(entries.len(), 3);
    });
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .setting("proxy_access_log", "logs/access.log")
            .declarative(&with_plugins(&origin.url(), &json!([])).to_string())
            .start();
        gateway
            .get("/seen?x=1")
            .header("User-Agent", "tester")
            .send()
            .expect_status(200);
        let path = gateway.prefix().join("logs/access.log");
        let line = eventually("a line in the access log", || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines()
                .find(|line| line.contains("/seen?x=1"))
                .map(str::to_owned)
        });
        assert!(
            line.contains("200") && line.contains("tester") && line.contains("127.0.0.1"),
            "{line}"
        );
    });
}

/// Value of the metric whose line has all these parts.
fn metric(page: &str, parts: &[&str]) -> Option<f64> {
    let line = page
        .lines()
        .find(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn metrics_count_requests_bytes_and_latencies() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| match request.target.as_str() {
            "/bad" => Reply::new(500, &[], "no"),
            _ => Reply::ok("fine"),
        });
        let config = json!({"status_code_metrics": true, "latency_metrics": true, "bandwidth_metrics": true, "upstream_health_metrics": true, "per_consumer": true});
        let mut text = with_plugins(&origin.url(), &json!([]));
        text["plugins"] = json!([{"name": "prometheus", "config": config}]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        for _ in 0..5 {
            gateway.get("/").send().expect_status(200);
        }
        gateway.get("/bad").send().expect_status(500);
        let labels = ["service=\"origin\"", "route=\"all\""];
        let page = eventually("the requests are counted", || {
            let page = gateway.metrics();
            let parts = [
                "kong_http_requests_total{",
                labels[0],
                labels[1],
                "code=\"200\"",
                "source=\"service\"",
            ];
            let failed = metric(&page, &["kong_http_requests_total{", "code=\"500\""]);
            let all = metric(&page, &parts) == Some(5.0) && failed == Some(1.0);
            all.then_some(page)
        });
        for name in [
            "kong_request_latency_ms",
            "kong_upstream_latency_ms",
            "kong_kong_latency_ms",
        ] {
            let count = metric(&page, &[&format!("{name}_count{{"), labels[0], labels[1]]);
            assert_eq!(count, Some(6.0), "{name}");
            assert!(page.contains(&format!("# TYPE {name} histogram")), "{name}");
        }
        let egress = metric(
            &page,
            &["kong_bandwidth_bytes{", "direction=\"egress\"", labels[0]],
        );
        assert!(egress.is_some_and(|bytes| bytes > 100.0));
        assert!(page.contains("kong_node_info{"));
        assert!(page.contains("kong_nginx_connections_total{"));
        assert_eq!(metric(&page, &["kong_datastore_reachable"]), Some(1.0));
        // The same page on the Admin API.
        gateway.admin().get("/metrics").expect_status(200);
    });
}

#[test]
fn status_answers_on_its_own_listener_only_reads() {
    let gateway = Gateway::stored();
    let page = gateway.status_page();
    assert!(page["configuration"]["revision"].is_u64(), "{page}");
    assert!(page["server"]["connections_active"].is_number(), "{page}");
    let ready = Request::new(gateway.status(), "GET", "/status/ready")
        .send()
        .expect_status(200);
    assert_eq!(ready.message(), "ready");
    let write = Request::new(gateway.status(), "POST", "/services")
        .form("host=h")
        .send();
    assert!(
        write.status == 404 || write.status == 405,
        "{}",
        write.status
    );
}

#[test]
fn a_plugin_that_is_driven_by_requests_without_a_route_sees_them() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let mut text = with_plugins(&origin.url(), &json!([]));
        text["services"][0]["routes"] = json!([{"name": "only", "hosts": ["only.test"]}]);
        text["plugins"] = json!([{"name": "response-transformer", "config": {"add": {"headers": ["x-global:1"]}}}]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        let answer = gateway.get("/").send().expect_status(404);
        assert_eq!(answer.header("X-Global"), Some("1"));
    });
}
