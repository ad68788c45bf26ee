//! Apigee bundles at work: routing, flows, faults, chains, traces, as a client sees them. The bundles lie in folders and
//! are deployed at start.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Driver, Gateway, Origin, Reply, Response, for_both_drivers};

/// Folders of bundles.
pub(crate) struct Bundles(TempDir);

impl Bundles {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// Adds a proxy: files by path below `apiproxy`.
    pub(crate) fn proxy(self, name: &str, files: &[(&str, &str)]) -> Self {
        self.bundle(name, "apiproxy", "APIProxy", files)
    }

    pub(crate) fn shared_flow(self, name: &str, files: &[(&str, &str)]) -> Self {
        self.bundle(name, "sharedflowbundle", "SharedFlowBundle", files)
    }

    fn bundle(self, name: &str, top: &str, root: &str, files: &[(&str, &str)]) -> Self {
        let folder = self.0.path().join(name).join(top);
        fs::create_dir_all(&folder).expect("a folder");
        let base = format!("<{root} name='{name}'/>");
        fs::write(folder.join(format!("{name}.xml")), base).expect("a file");
        for (path, text) in files {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
            fs::write(file, text).expect("a file");
        }
        self
    }

    /// Imports a proxy through the management API.
    pub(crate) fn import(&self, gateway: &Gateway, name: &str) -> Response {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        add_to_archive(&mut archive, &self.0.path().join(name), "");
        let bytes = archive.finish().expect("an archive").into_inner();
        let admin = gateway.admin();
        let path = format!("/v1/organizations/sallyport/apis?action=import&name={name}");
        let import = admin.request("POST", &path);
        let import = import.header("Content-Type", "application/octet-stream");
        admin.write(import.body(bytes))
    }

    /// Imports a proxy and asks for its deployment to the environment `test`.
    pub(crate) fn try_deploy(&self, gateway: &Gateway, name: &str) -> Response {
        let imported = self.import(gateway, name).expect_status(201).json();
        let revision = imported["revision"].as_str().expect("a revision");
        let path = format!(
            "/v1/organizations/sallyport/environments/test/apis/{name}/revisions/{revision}/deployments"
        );
        let admin = gateway.admin();
        admin.write(admin.request("POST", &path).form("override=true"))
    }

    /// Imports a proxy and deploys it to the environment `test`.
    #[track_caller]
    pub(crate) fn deploy(&self, gateway: &Gateway, name: &str) {
        self.try_deploy(gateway, name).expect_status(200);
    }

    fn paths(&self) -> String {
        let mut paths = String::new();
        for entry in fs::read_dir(self.0.path()).expect("the folder") {
            let _ = write!(paths, "{},", entry.expect("an entry").path().display());
        }
        paths.trim_end_matches(',').to_owned()
    }

    pub(crate) fn gateway(&self, driver: Option<Driver>) -> Gateway {
        let mut builder = Gateway::builder()
            .setting("database", "off")
            .setting("apigee_trace_token", "show-me")
            .setting("apigee_bundles", &self.paths());
        if let Some(driver) = driver {
            builder = builder.driver(driver);
        }
        builder.start()
    }
}

fn add_to_archive(
    archive: &mut zip::ZipWriter<std::io::Cursor<Vec<u8>>>,
    folder: &Path,
    below: &str,
) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let name = format!("{below}{name}");
        if path.is_dir() {
            add_to_archive(archive, &path, &format!("{name}/"));
        } else {
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(name, options).expect("an entry");
            let text = fs::read(path).expect("a file");
            archive.write_all(&text).expect("an entry");
        }
    }
}

/// A proxy endpoint on a base path with these further elements.
pub(crate) fn endpoint(base_path: &str, inside: &str) -> String {
    format!(
        "<ProxyEndpoint name='default'>{inside}<HTTPProxyConnection><BasePath>{base_path}</BasePath>\
         <VirtualHost>default</VirtualHost><VirtualHost>secure</VirtualHost></HTTPProxyConnection></ProxyEndpoint>"
    )
}

pub(crate) fn target(name: &str, url: &str) -> String {
    format!(
        "<TargetEndpoint name='{name}'><HTTPTargetConnection><URL>{url}</URL></HTTPTargetConnection></TargetEndpoint>"
    )
}

pub(crate) const TO_DEFAULT: &str =
    "<RouteRule name='default'><TargetEndpoint>default</TargetEndpoint></RouteRule>";

pub(crate) fn raise(name: &str, status: u16, body: &str) -> String {
    format!(
        "<RaiseFault name='{name}'><FaultResponse><Set><Payload contentType='text/plain'>{body}</Payload>\
         <StatusCode>{status}</StatusCode></Set></FaultResponse></RaiseFault>"
    )
}

/// An AssignMessage that appends `value` to the header `X-Order` of the current message.
pub(crate) fn order(name: &str) -> String {
    format!(
        "<AssignMessage name='{name}'><Add><Headers><Header name='X-Order'>{name}</Header></Headers></Add></AssignMessage>"
    )
}

pub(crate) fn step(name: &str) -> String {
    format!("<Step><Name>{name}</Name></Step>")
}

#[test]
fn the_weather_proxy_passes_path_and_query_on() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let url = format!("{}/api?fixed=1", origin.url());
        let bundles = Bundles::new().proxy(
            "weather",
            &[
                ("proxies/default.xml", &endpoint("/weather", TO_DEFAULT)),
                ("targets/default.xml", &target("default", &url)),
            ],
        );
        let gateway = bundles.gateway(Some(driver));
        let answer = gateway
            .get("/weather/forecast%2Frss?w=12797282&fixed=2")
            .send()
            .expect_status(200);
        assert_eq!(
            answer.echoed_target(),
            "/api/forecast%2Frss?w=12797282&fixed=2"
        );
        assert_eq!(
            answer.echoed_one("X-Forwarded-For").as_deref(),
            Some("127.0.0.1")
        );
        let host = format!("127.0.0.1:{}", origin.port());
        assert_eq!(answer.echoed_one("Host"), Some(host));
        gateway
            .get_tls("w.test", "/weather")
            .send()
            .expect_status(200);
        for path in ["/weatherx", "/other"] {
            let answer = gateway.get(path).send().expect_status(404);
            let fault = &answer.json()["fault"];
            assert_eq!(
                fault["detail"]["errorcode"],
                "messaging.adaptors.http.flow.ApplicationNotFound"
            );
            let text = format!("Unable to identify proxy for host: default and url: {path}");
            assert_eq!(fault["faultstring"], text);
        }
    });
}

#[test]
fn route_rules_choose_by_header_and_by_verb() {
    let (one, two) = (
        Origin::answering(|_| Reply::ok("one")),
        Origin::answering(|_| Reply::ok("two")),
    );
    let rules = "<RouteRule name='1'><Condition>request.header.routeTo = \"TargetEndpoint1\"</Condition>\
        <TargetEndpoint>TargetEndpoint1</TargetEndpoint></RouteRule>\
        <RouteRule name='none'><Condition>request.verb = \"OPTIONS\"</Condition></RouteRule>\
        <RouteRule name='2'><TargetEndpoint>TargetEndpoint2</TargetEndpoint></RouteRule>";
    let bundles = Bundles::new().proxy(
        "rules",
        &[
            ("proxies/default.xml", &endpoint("/r", rules)),
            ("targets/1.xml", &target("TargetEndpoint1", &one.url())),
            ("targets/2.xml", &target("TargetEndpoint2", &two.url())),
        ],
    );
    let gateway = bundles.gateway(None);
    let chosen = gateway
        .get("/r")
        .header("routeTo", "TargetEndpoint1")
        .send();
    assert_eq!(chosen.expect_status(200).text(), "one");
    assert_eq!(gateway.get("/r").send().expect_status(200).text(), "two");
    let nothing = gateway.request("OPTIONS", "/r").send().expect_status(200);
    assert_eq!(
        nothing.text(),
        "",
        "a null route answers 200 with an empty body"
    );
    assert_eq!(two.received().len(), 1);
}

#[test]
fn the_first_flow_that_fits_runs_and_others_do_not() {
    let origin = Origin::answering(|_| Reply::ok("found"));
    let flows = format!(
        "<PreFlow><Request>{}</Request><Response>{}</Response></PreFlow><Flows>\
         <Flow name='reports'><Condition>(proxy.pathsuffix MatchesPath \"/reports/**\") and (request.verb = \"GET\")</Condition>\
         <Request>{}</Request></Flow>\
         <Flow name='forecasts'><Condition>(proxy.pathsuffix MatchesPath \"/forecasts/**\") and (request.verb = \"GET\")</Condition></Flow>\
         <Flow name='unknown'><Request>{}</Request></Flow></Flows>\
         <PostFlow><Request>{}</Request><Response>{}</Response></PostFlow>{TO_DEFAULT}",
        step("pre"),
        step("pre"),
        step("reports"),
        step("Return404"),
        step("post"),
        step("post"),
    );
    let bundles = Bundles::new().proxy(
        "three",
        &[
            ("proxies/default.xml", &endpoint("/three", &flows)),
            ("targets/default.xml", &target("default", &origin.url())),
            ("policies/pre.xml", &order("pre")),
            ("policies/reports.xml", &order("reports")),
            ("policies/post.xml", &order("post")),
            (
                "policies/Return404.xml",
                &raise("Return404", 404, "no such resource"),
            ),
        ],
    );
    let gateway = bundles.gateway(None);
    let answer = gateway.get("/three/reports/2024").send().expect_status(200);
    assert_eq!(
        answer.all("X-Order"),
        ["pre", "post"],
        "the response's side has its own steps"
    );
    let received = origin.received();
    let order: Vec<_> = received[0]
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-order"))
        .collect();
    let order: Vec<_> = order.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(order, ["pre", "reports", "post"]);
    gateway
        .get("/three/forecasts/today")
        .send()
        .expect_status(200);
    let unknown = gateway.get("/three/other").send().expect_status(404);
    assert_eq!(unknown.text(), "no such resource");
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn faults_have_their_rules_and_their_shape() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/missing" => Reply::new(
            404,
            &[("Content-Type", "text/plain")],
            "the target's own words",
        ),
        "/closed" => Reply::nothing(),
        _ => Reply::new(500, &[], "broken"),
    });
    // The last rule of a proxy endpoint is tried first.
    let rules = format!(
        "<FaultRules><FaultRule name='all'>{}</FaultRule>\
         <FaultRule name='raised'>{}<Condition>fault.name = \"RaiseFault\"</Condition></FaultRule></FaultRules>\
         <DefaultFaultRule name='d'><AlwaysEnforce>true</AlwaysEnforce>{}</DefaultFaultRule>\
         <PreFlow><Request><Step><Name>Stop</Name><Condition>request.queryparam.stop = \"yes\"</Condition></Step></Request></PreFlow>{TO_DEFAULT}",
        step("all"),
        step("raised"),
        step("always"),
    );
    let refused = format!("http://{}", Origin::refused());
    let plain = endpoint("/plain", TO_DEFAULT);
    let bundles = Bundles::new()
        .proxy(
            "ruled",
            &[
                ("proxies/default.xml", &endpoint("/ruled", &rules)),
                ("targets/default.xml", &target("default", &origin.url())),
                ("policies/all.xml", &order("all")),
                ("policies/raised.xml", &order("raised")),
                ("policies/always.xml", &order("always")),
                ("policies/Stop.xml", &raise("Stop", 418, "stopped")),
            ],
        )
        .proxy(
            "plain",
            &[
                ("proxies/default.xml", &plain),
                ("targets/default.xml", &target("default", &refused)),
            ],
        );
    let gateway = bundles.gateway(None);
    let stopped = gateway.get("/ruled?stop=yes").send().expect_status(418);
    assert_eq!(stopped.all("X-Order"), ["raised", "always"]);
    assert_eq!(stopped.text(), "stopped");
    let missing = gateway.get("/ruled/missing").send().expect_status(404);
    assert_eq!(missing.text(), "the target's own words");
    assert_eq!(
        missing.all("X-Order"),
        ["all", "always"],
        "a target's error status is a fault"
    );
    let closed = gateway.get("/ruled/closed").send().expect_status(502);
    assert_eq!(
        closed.json()["fault"]["detail"]["errorcode"],
        "messaging.adaptors.http.flow.UnexpectedEOFAtTarget"
    );
    assert_eq!(closed.all("X-Order"), ["all", "always"]);
    let unreachable = gateway.get("/plain").send().expect_status(503);
    let expected = json!({"fault": {"faultstring": "The Service is temporarily unavailable",
        "detail": {"errorcode": "messaging.adaptors.http.flow.ServiceUnavailable"}}});
    assert_eq!(unreachable.json(), expected);
    let xml = gateway
        .request("POST", "/plain")
        .header("Content-Type", "text/xml")
        .body("<a/>")
        .send();
    assert!(xml.expect_status(503).text().contains("<faultstring>"));
}

#[test]
fn proxies_call_each_other_inside_the_process() {
    let origin = Origin::echo();
    let local = |inside: &str| {
        format!(
            "<TargetEndpoint name='default'><LocalTargetConnection>{inside}</LocalTargetConnection></TargetEndpoint>"
        )
    };
    let by_name = local("<APIProxy>inner</APIProxy><ProxyEndpoint>default</ProxyEndpoint>");
    let by_path = local("<Path>/inner/base</Path>");
    let itself = local("<Path>/loop</Path>");
    let inner = format!(
        "<PreFlow><Request>{}</Request><Response>{}</Response></PreFlow>{TO_DEFAULT}",
        step("in"),
        step("in")
    );
    let outer = format!(
        "<PreFlow><Response>{}</Response></PreFlow>{TO_DEFAULT}",
        step("out")
    );
    let bundles = Bundles::new()
        .proxy(
            "inner",
            &[
                ("proxies/default.xml", &endpoint("/inner", &inner)),
                ("targets/default.xml", &target("default", &origin.url())),
                ("policies/in.xml", &order("in")),
            ],
        )
        .proxy(
            "named",
            &[
                ("proxies/default.xml", &endpoint("/named", &outer)),
                ("targets/default.xml", &by_name),
                ("policies/out.xml", &order("out")),
            ],
        )
        .proxy(
            "pathed",
            &[
                ("proxies/default.xml", &endpoint("/pathed", TO_DEFAULT)),
                ("targets/default.xml", &by_path),
            ],
        )
        .proxy(
            "loop",
            &[
                ("proxies/default.xml", &endpoint("/loop", TO_DEFAULT)),
                ("targets/default.xml", &itself),
            ],
        );
    let gateway = bundles.gateway(None);
    let answer = gateway.get("/named/x?y=1").send().expect_status(200);
    assert_eq!(answer.echoed_target(), "/x?y=1");
    assert_eq!(answer.echoed("X-Order"), ["in"]);
    assert_eq!(
        answer.all("X-Order"),
        ["in", "out"],
        "responses run inside out"
    );
    let answer = gateway.get("/pathed/more").send().expect_status(200);
    assert_eq!(answer.echoed_target(), "/base/more");
    let looping = gateway.get("/loop").send().expect_status(500);
    assert_eq!(
        looping.json()["fault"]["detail"]["errorcode"],
        "messaging.runtime.ProxyChainTooDeep"
    );
}

#[test]
fn shared_flows_run_with_the_callers_variables() {
    let origin = Origin::echo();
    let call = "<FlowCallout name='Call'><SharedFlowBundle>stamp</SharedFlowBundle>\
        <Parameters><Parameter name='who'>{request.queryparam.name}</Parameter></Parameters></FlowCallout>";
    let stamp = "<AssignMessage name='Stamp'><Set><Headers><Header name='X-Who'>{who}</Header></Headers></Set></AssignMessage>";
    let flow = format!("<SharedFlow name='default'>{}</SharedFlow>", step("Stamp"));
    let pre = format!(
        "<PreFlow><Request>{}</Request></PreFlow>{TO_DEFAULT}",
        step("Call")
    );
    let bundles = Bundles::new()
        .proxy(
            "caller",
            &[
                ("proxies/default.xml", &endpoint("/caller", &pre)),
                ("targets/default.xml", &target("default", &origin.url())),
                ("policies/call.xml", call),
            ],
        )
        .shared_flow(
            "stamp",
            &[
                ("sharedflows/default.xml", &flow),
                ("policies/stamp.xml", stamp),
            ],
        );
    let gateway = bundles.gateway(None);
    let answer = gateway.get("/caller?name=ada").send().expect_status(200);
    assert_eq!(answer.echoed_one("X-Who").as_deref(), Some("ada"));
}

#[test]
fn callouts_and_dynamic_targets_reach_other_hosts() {
    let service = Origin::answering(|request| Reply::ok(format!("asked {}", request.target)));
    let origin = Origin::echo();
    let callout = format!(
        "<ServiceCallout name='Ask'><Request><Set><QueryParams><QueryParam name='q'>{{proxy.pathsuffix}}</QueryParam></QueryParams></Set></Request>\
         <Response>answer</Response><HTTPTargetConnection><URL>{}/lookup</URL></HTTPTargetConnection></ServiceCallout>",
        service.url()
    );
    let keep = "<AssignMessage name='Keep'><Set><Headers><Header name='X-Answer'>{answer.content}</Header></Headers></Set></AssignMessage>";
    let pre = format!(
        "<PreFlow><Request>{}{}</Request></PreFlow>{TO_DEFAULT}",
        step("Ask"),
        step("Keep")
    );
    let bundles = Bundles::new().proxy(
        "asking",
        &[
            ("proxies/default.xml", &endpoint("/ask", &pre)),
            (
                "targets/default.xml",
                &target("default", "http://{request.header.x-host}/dynamic"),
            ),
            ("policies/ask.xml", &callout),
            ("policies/keep.xml", keep),
        ],
    );
    let gateway = bundles.gateway(None);
    let host = origin.address.to_string();
    let answer = gateway
        .get("/ask/me")
        .header("X-Host", &host)
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_target(), "/dynamic/me");
    assert_eq!(
        answer.echoed_one("X-Answer").as_deref(),
        Some("asked /lookup?q=%2Fme")
    );
}

#[test]
fn a_traced_request_tells_what_it_did() {
    let origin = Origin::echo();
    let pre = format!(
        "<PreFlow><Request><Step><Name>Mark</Name><Condition>request.verb = \"GET\"</Condition></Step>\
         <Step><Name>Never</Name><Condition>request.verb = \"PUT\"</Condition></Step></Request></PreFlow>{TO_DEFAULT}"
    );
    let bundles = Bundles::new().proxy(
        "traced",
        &[
            ("proxies/default.xml", &endpoint("/traced", &pre)),
            ("targets/default.xml", &target("default", &origin.url())),
            ("policies/mark.xml", &order("Mark")),
            ("policies/never.xml", &order("Never")),
        ],
    );
    let gateway = bundles.gateway(None);
    gateway
        .get("/traced")
        .header("Sallyport-Trace", "wrong")
        .send()
        .expect_status(200);
    let answer = gateway
        .get("/traced")
        .header("Sallyport-Trace", "show-me")
        .send()
        .expect_status(200);
    assert_eq!(
        answer.echoed_one("Sallyport-Trace"),
        None,
        "the token stays here"
    );
    let traces = gateway.admin().get("/traces").json();
    let traces = traces["data"].as_array().unwrap().clone();
    assert_eq!(traces.len(), 1, "only those with the token");
    let events = traces[0]["events"].as_array().unwrap();
    let has = |event: &str, key: &str, value: &str| {
        events
            .iter()
            .any(|it| it["event"] == event && it[key] == value)
    };
    assert!(has("step", "policy", "Mark"), "{events:#?}");
    assert!(has("skipped", "policy", "Never"));
    assert!(has("condition", "text", "request.verb = \"PUT\""));
    assert!(has("read", "variable", "request.verb"));
}

#[test]
fn what_is_wrong_with_a_bundle_is_told_before_it_serves() {
    let broken = endpoint(
        "/x",
        "<PreFlow><Request><Step><Name>Gone</Name></Step></Request></PreFlow><RouteRule name='r'><TargetEndpoint>t</TargetEndpoint></RouteRule>",
    );
    let bundles = Bundles::new().proxy(
        "broken",
        &[
            ("proxies/default.xml", &broken),
            ("policies/j.xml", "<JavaCallout name='J'/>"),
        ],
    );
    let refused = Gateway::builder()
        .setting("database", "off")
        .setting("apigee_bundles", &bundles.paths())
        .try_start();
    let Err((_, errors)) = refused else {
        panic!("it started")
    };
    for expected in [
        "broken/proxies/default.xml:1: <Step>: names the policy 'Gone'",
        "broken/policies/j.xml:1: policy \"J\" has type JavaCallout",
        "names the target endpoint 't'",
    ] {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
}

#[test]
fn a_response_that_nothing_looks_at_is_what_it_would_be_if_something_did() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/plain" => Reply::new(200, &[("X-One", "1"), ("x-ONE", "2")], "plain"),
        "/named" => Reply::raw(b"HTTP/1.1 299 Of Its Own\r\nContent-Length: 0\r\n\r\n"),
        "/trailed" => Reply::new(
            200,
            &[("Trailer", "X-Later"), ("TE", "trailers")],
            "trailed",
        ),
        "/moved" => Reply::new(302, &[("Location", "/elsewhere")], ""),
        "/missing" => Reply::new(404, &[("X-Why", "gone")], "missing"),
        "/not-allowed" => Reply::new(405, &[], ""),
        _ => Reply::new(204, &[], ""),
    });
    let unheard =
        "<Step><Name>asked</Name><Condition>response.status.code = 999</Condition></Step>";
    let bundles = ["", unheard].into_iter().zip(["quiet", "heard"]);
    let bundles = bundles.fold(Bundles::new(), |bundles, (response, name)| {
        let flows = format!(
            "<PreFlow><Request>{}</Request><Response>{response}</Response></PreFlow>{TO_DEFAULT}",
            step("asked")
        );
        bundles.proxy(
            name,
            &[
                (
                    "proxies/default.xml",
                    &endpoint(&format!("/{name}"), &flows),
                ),
                ("targets/default.xml", &target("default", &origin.url())),
                ("policies/asked.xml", &order("asked")),
            ],
        )
    });
    let gateway = bundles.gateway(None);
    let expected = [
        ("plain", 200),
        ("named", 299),
        ("trailed", 200),
        ("moved", 302),
        ("missing", 404),
        ("not-allowed", 502),
        ("nothing", 204),
    ];
    for (path, status) in expected {
        let [quiet, heard] = ["quiet", "heard"].map(|proxy| {
            let answer = gateway.get(&format!("/{proxy}/{path}")).send();
            let answer = answer.expect_status(status);
            // The gateway's own differ from answer to answer.
            let own = |name: &str| name == "Date" || name.starts_with("X-Kong-");
            let fields = answer.headers.iter().filter(|(name, _)| !own(name));
            let mut fields: Vec<_> = fields.cloned().collect();
            fields.sort();
            (fields, answer.body)
        });
        assert_eq!(quiet, heard, "{path}");
    }
    assert!(
        origin
            .received()
            .iter()
            .all(|it| it.header("X-Order") == Some("asked"))
    );
}
