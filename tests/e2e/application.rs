//! The main job on real input: a kong.yml with regexes, keys and limits before httpbin, used with curl.

use serde_json::Value;

use crate::harness::{Driver, Gateway, Program, curl, for_both_drivers};

fn configuration(port: u16) -> String {
    format!(
        r#"
_format_version: "3.0"
services:
  - name: httpbin
    url: http://127.0.0.1:{port}
    routes:
      - name: everything
        paths: [/bin]
      - name: by-status
        paths: ["~/codes/(?<code>[0-9]{{3}})$"]
        strip_path: false
        plugins:
          - name: request-transformer
            config: {{replace: {{uri: "/status/$(uri_captures['code'])"}}}}
      - name: members
        hosts: [members.test]
        preserve_host: true
        plugins:
          - name: key-auth
          - name: rate-limiting
            config: {{hour: 2, policy: local}}
consumers:
  - username: reader
    keyauth_credentials: [{{key: reader-key}}]
plugins:
  - name: correlation-id
    config: {{header_name: X-Correlation, echo_downstream: true}}
  - name: prometheus
"#
    )
}

fn before(server: &mut Program, driver: Driver) -> Gateway {
    Gateway::builder()
        .driver(driver)
        .declarative(&configuration(server.port()))
        .start()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn httpbin_works_through_the_gateway_over_every_protocol() {
    for_both_drivers(|driver| {
        let mut server = Program::start("httpbin_server.py", &[]);
        let gateway = before(&mut server, driver);
        let plain = format!("http://{}/bin", gateway.proxy());
        let tls = format!("https://{}/bin", gateway.tls());
        for (base, option) in [
            (&plain, "--http1.1"),
            (&tls, "--http1.1"),
            (&tls, "--http2"),
        ] {
            let run = |path: &str, more: &[&str]| {
                let url = format!("{base}{path}");
                let mut arguments = vec!["-k", option, url.as_str()];
                arguments.extend(more);
                curl(&arguments)
            };
            let got = json_of(&run("/get?a=1&b=%20x", &["-H", "X-Mine: yes"]));
            assert_eq!(got["args"]["b"], " x", "{base} {option}");
            assert_eq!(got["headers"]["X-Mine"], "yes");
            let posted = json_of(&run("/post", &["-d", "field=value"]));
            assert_eq!(posted["form"]["field"], "value");
            let put = json_of(&run(
                "/put",
                &[
                    "-X",
                    "PUT",
                    "-H",
                    "Content-Type: application/json",
                    "-d",
                    "{\"n\":1}",
                ],
            ));
            assert_eq!(put["json"]["n"], 1);
            assert_eq!(run("/stream/20", &[]).lines().count(), 20);
            assert_eq!(
                run(
                    "/stream-bytes/50000?chunk_size=777",
                    &["-o", "/dev/null", "-w", "%{size_download}"]
                ),
                "50000"
            );
            assert_eq!(
                run(
                    "/bytes/100000",
                    &["-o", "/dev/null", "-w", "%{size_download}"]
                ),
                "100000"
            );
            assert_eq!(
                run("/status/418", &["-o", "/dev/null", "-w", "%{http_code}"]),
                "418"
            );
            assert_eq!(
                run(
                    "/gzip",
                    &["--compressed", "-o", "/dev/null", "-w", "%{http_code}"]
                ),
                "200"
            );
            assert_eq!(
                run("/delay/1", &["-o", "/dev/null", "-w", "%{http_code}"]),
                "200"
            );
            assert_eq!(
                run(
                    "/basic-auth/u/p",
                    &["-u", "u:p", "-o", "/dev/null", "-w", "%{http_code}"]
                ),
                "200"
            );
            let head = run("/get", &["-I"]).to_ascii_lowercase();
            assert!(
                head.contains("x-correlation: ") && head.contains("x-kong-upstream-latency: "),
                "{head}"
            );
        }
    });
}

#[test]
fn its_routes_keys_and_limits_work_together() {
    for_both_drivers(|driver| {
        let mut server = Program::start("httpbin_server.py", &[]);
        let gateway = before(&mut server, driver);
        gateway.get("/codes/201").send().expect_status(201);
        gateway.get("/codes/2011").send().expect_status(404);
        let members = || gateway.get("/headers").host("members.test");
        members().send().expect_status(401);
        let answer = members()
            .header("apikey", "reader-key")
            .send()
            .expect_status(200)
            .json();
        assert_eq!(answer["headers"]["Host"], "members.test");
        assert_eq!(answer["headers"]["X-Consumer-Username"], "reader");
        members()
            .header("apikey", "reader-key")
            .send()
            .expect_status(200);
        members()
            .header("apikey", "reader-key")
            .send()
            .expect_status(429);
    });
}
