//! HTTP/2 from clients: over TLS and in plain text, with curl, nghttp and h2load.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Driver, Gateway, Origin, Reply, curl, for_both_drivers, one_service};

fn before(origin: &Origin, driver: Driver) -> Gateway {
    let routes = json!([{"name": "all", "paths": ["/"]}]);
    Gateway::builder()
        .driver(driver)
        .setting("proxy_listen", "127.0.0.1:0 http2, 127.0.0.1:0 http2 ssl")
        .declarative(&one_service(&origin.url(), &routes))
        .start()
}

#[test]
fn curl_gets_an_answer_over_http_2_with_tls() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = before(&origin, driver);
        let url = format!("https://{}/path?q=1", gateway.tls());
        let answer = curl(&["-k", "--http2", "-i", "-H", "X-Mixed: Value", &url]);
        assert!(answer.starts_with("HTTP/2 200"), "{answer}");
        assert!(answer.contains("\"target\":\"/path?q=1\""), "{answer}");
        assert!(
            answer
                .to_ascii_lowercase()
                .contains("[\"x-mixed\",\"value\"]"),
            "{answer}"
        );
        assert!(
            answer.contains("2 sallyport/"),
            "Via of the request: {answer}"
        );
        let host = format!("[\"host\",\"{}\"]", origin.address);
        assert!(answer.to_ascii_lowercase().contains(&host), "{answer}");
    });
}

#[test]
fn curl_gets_an_answer_over_http_2_in_plain_text() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = before(&origin, driver);
        let url = format!("http://{}/h2c", gateway.proxy());
        let answer = curl(&["--http2-prior-knowledge", "-i", &url]);
        assert!(answer.starts_with("HTTP/2 200"), "{answer}");
        let answer = curl(&["--http1.1", "-i", &url]);
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "the same port serves both: {answer}"
        );
    });
}

#[test]
fn bodies_of_every_kind_pass_over_http_2() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| match request.target.as_str() {
            "/chunked" => Reply::chunked(&["one", "two", "three"]),
            "/empty" => Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"),
            _ => Reply::ok(&request.body),
        });
        let gateway = before(&origin, driver);
        let base = format!("https://{}", gateway.tls());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("body");
        let body: Vec<u8> = (0..3_000_000_u32)
            .map(|index| (index % 241) as u8)
            .collect();
        std::fs::write(&file, &body).expect("a file");
        let back = folder.path().join("back");
        let upload = format!("@{}", file.display());
        let echo = format!("{base}/echo");
        curl(&[
            "-k",
            "--http2",
            "--data-binary",
            &upload,
            "-o",
            back.to_str().expect("UTF-8"),
            &echo,
        ]);
        assert!(std::fs::read(&back).expect("a file") == body);
        assert_eq!(
            curl(&["-k", "--http2", &format!("{base}/chunked")]),
            "onetwothree"
        );
        let empty = curl(&[
            "-k",
            "--http2",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
            &format!("{base}/empty"),
        ]);
        assert_eq!(empty, "204 2");
        let head = curl(&["-k", "--http2", "-I", &echo]);
        assert!(head.starts_with("HTTP/2 200"), "{head}");
    });
}

#[test]
fn gateway_made_answers_have_their_shape_over_http_2() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| Reply::ok("late").delayed(Duration::from_secs(3)));
        let routes = json!([{"name": "all", "paths": ["/slow"]}, {"name": "tls", "paths": ["/tls"], "protocols": ["https"]}]);
        let text = json!({
            "_format_version": "3.0",
            "services": [{"name": "origin", "url": origin.url(), "read_timeout": 150, "retries": 0, "routes": routes}],
        });
        let gateway = Gateway::builder()
            .driver(driver)
            .setting("proxy_listen", "127.0.0.1:0 http2, 127.0.0.1:0 http2 ssl")
            .declarative(&text.to_string())
            .start();
        let over_tls = |path: &str| {
            curl(&[
                "-k",
                "--http2",
                "-i",
                &format!("https://{}{path}", gateway.tls()),
            ])
        };
        let missing = over_tls("/none");
        assert!(missing.starts_with("HTTP/2 404"), "{missing}");
        assert!(
            missing.contains("no Route matched with those values"),
            "{missing}"
        );
        let late = over_tls("/slow");
        assert!(late.starts_with("HTTP/2 504"), "{late}");
        let plain = curl(&[
            "--http2-prior-knowledge",
            "-i",
            &format!("http://{}/tls", gateway.proxy()),
        ]);
        assert!(plain.starts_with("HTTP/2 426"), "{plain}");
    });
}

#[test]
fn many_streams_share_a_connection() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| Reply::ok("x".repeat(2000)));
        let gateway = before(&origin, driver);
        let output = Command::new("h2load")
            .args(["-n", "2000", "-c", "4", "-m", "20"])
            .arg(format!("https://{}/", gateway.tls()))
            .output()
            .expect("h2load is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("2000 succeeded, 0 failed"), "{text}");
        assert!(text.contains("status codes: 2000 2xx"), "{text}");
    });
}

#[test]
fn an_early_answer_survives_an_upload_that_nobody_reads() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let routes = json!([{"name": "all", "paths": ["/"], "plugins": [{"name": "key-auth"}]}]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&one_service(&origin.url(), &routes))
            .start();
        let url = format!("https://{}/", gateway.tls());
        let body = "x".repeat(1000);
        for _ in 0..20 {
            let answer = curl(&[
                "-k",
                "--http2",
                "-H",
                "Expect:",
                "-d",
                &body,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &url,
            ]);
            assert_eq!(answer, "401");
        }
    });
}

#[test]
fn cookies_that_came_apart_reach_the_origin_as_one() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = before(&origin, driver);
        let output = Command::new("nghttp")
            .args(["--no-verify-peer", "-H", "cookie: a=1", "-H", "cookie: b=2"])
            .arg(format!("https://{}/", gateway.tls()))
            .output()
            .expect("nghttp is installed");
        let text = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
        assert!(text.contains("[\"cookie\",\"a=1; b=2\"]"), "{text}");
    });
}

#[test]
fn nghttp_gets_several_answers_over_one_connection() {
    let origin = Origin::echo();
    let gateway = before(&origin, Driver::Exchange);
    let base = format!("https://{}", gateway.tls());
    let output = Command::new("nghttp")
        .args(["-v", "--no-verify-peer"])
        .args([
            format!("{base}/1"),
            format!("{base}/2"),
            format!("{base}/3"),
        ])
        .output()
        .expect("nghttp is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches(":status: 200").count(), 3, "{text}");
}
