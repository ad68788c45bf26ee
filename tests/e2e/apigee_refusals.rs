//! What is wrong with bundles is told before it serves, with file and line, and what serves goes on serving.

use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::harness::{Organization, Response, zip_files};

const ENDPOINT: &str = "<ProxyEndpoint name='default'>\n@\n<HTTPProxyConnection><BasePath>/p</BasePath>\
    <VirtualHost>default</VirtualHost></HTTPProxyConnection><RouteRule name='none'/></ProxyEndpoint>";

/// An archive of a proxy whose endpoint holds `inside` on its second line.
fn proxy(inside: &str, further: &[(&str, &str)]) -> Vec<u8> {
    let endpoint = ENDPOINT.replace('@', inside);
    let mut files: Vec<(&str, &[u8])> = vec![
        ("apiproxy/p.xml", b"<APIProxy name='p'/>"),
        ("apiproxy/proxies/default.xml", endpoint.as_bytes()),
    ];
    files.extend(further.iter().map(|(name, text)| (*name, text.as_bytes())));
    zip_files(&files)
}

fn steps(names: &[&str]) -> String {
    let steps: String = names
        .iter()
        .map(|name| format!("<Step><Name>{name}</Name></Step>"))
        .collect();
    format!("<PreFlow><Request>{steps}</Request></PreFlow>")
}

#[track_caller]
fn refused(answer: &Response, expected: &[&str]) {
    assert_eq!(answer.status, 400, "{}", answer.text());
    let message = answer.message();
    for part in expected {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(answer.json()["contexts"].is_array());
}

/// What is wrong, the files of the bundle, and what the answer tells.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn imports_are_refused_with_file_and_line() {
    let organization = Organization::new();
    let step = "<Step><Name>Gone</Name></Step>";
    let cases: &[Case<'_>] = &[
        (
            &steps(&["A", "B"]),
            &[
                (
                    "apiproxy/policies/A.xml",
                    "<AssignMessage name='A'>\n\n<Set>\n</AssignMessage>",
                ),
                ("apiproxy/policies/B.xml", "<AssignMessage name='B'/>"),
            ],
            &["policies/A.xml:4"],
        ),
        (
            &format!("<PreFlow><Request>\n{step}</Request></PreFlow>"),
            &[],
            &["proxies/default.xml:3", "names the policy 'Gone'"],
        ),
        (
            "<RouteRule name='r'>\n\n<Condition>request.verb = </Condition><TargetEndpoint>t</TargetEndpoint></RouteRule>",
            &[],
            &["proxies/default.xml:4", "names the target endpoint 't'"],
        ),
        (
            &steps(&["E"]),
            &[(
                "apiproxy/policies/E.xml",
                "<!DOCTYPE a [<!ENTITY x 'xxxxxxxxxx'><!ENTITY y '&x;&x;&x;&x;&x;&x;&x;'>]>\n<AssignMessage name='E'><DisplayName>&y;</DisplayName></AssignMessage>",
            )],
            &["policies/E.xml:1", "document type"],
        ),
        (
            &steps(&["J"]),
            &[(
                "apiproxy/policies/J.xml",
                "\n<JavaCallout name='J'><ResourceURL>java://x.jar</ResourceURL></JavaCallout>",
            )],
            &["policies/J.xml:2", "JavaCallout"],
        ),
        (
            &steps(&["Q", "S"]),
            &[
                (
                    "apiproxy/policies/Q.xml",
                    "<Quota name='Q' type='weekly'><Interval>1</Interval><TimeUnit>day</TimeUnit></Quota>",
                ),
                (
                    "apiproxy/policies/S.xml",
                    "<SpikeArrest name='S'><Rate>often</Rate></SpikeArrest>",
                ),
            ],
            // Everything at once.
            &["policies/Q.xml:1", "policies/S.xml:1"],
        ),
    ];
    for (inside, further, expected) in cases {
        let answer = organization.import("apis", "p", proxy(inside, further));
        refused(&answer, expected);
    }
    let answer = organization.import("apis", "p", zip_files(&[("other/p.xml", b"<APIProxy/>")]));
    refused(&answer, &["Bundle is invalid. Empty bundle."]);
    let answer = organization.import("apis", "p", b"no archive at all".to_vec());
    refused(&answer, &["Bundle is invalid"]);
    let escaping = zip_files(&[
        ("apiproxy/p.xml", b"<APIProxy name='p'/>"),
        ("apiproxy/../../etc/x.xml", b"<a/>"),
    ]);
    refused(
        &organization.import("apis", "p", escaping),
        &["Bundle is invalid"],
    );
    let admin = organization.gateway.admin();
    assert_eq!(
        admin.get("/v1/o/acme/apis").json(),
        serde_json::json!([]),
        "nothing was stored"
    );
}

#[test]
fn an_archive_that_grows_without_end_is_refused() {
    let organization = Organization::new();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let nothing = vec![b' '; 1 << 20];
    for number in 0..8 {
        writer
            .start_file(format!("apiproxy/resources/jsc/{number}.js"), options)
            .expect("an entry");
        for _ in 0..64 {
            writer.write_all(&nothing).expect("content");
        }
    }
    let bomb = writer.finish().expect("an archive").into_inner();
    assert!(bomb.len() < 2 << 20, "a small archive");
    let answer = organization.import("apis", "bomb", bomb);
    refused(&answer, &["Bundle is invalid"]);
}

#[test]
fn a_deployment_is_judged_and_what_serves_stays() {
    let organization = Organization::new();
    let script = |source: &str| {
        let policy = "<Javascript name='J' timeLimit='200'><IncludeURL>jsc://lib/shared.js</IncludeURL><ResourceURL>jsc://main.js</ResourceURL></Javascript>";
        proxy(
            &steps(&["J"]),
            &[
                ("apiproxy/policies/J.xml", policy),
                (
                    "apiproxy/resources/jsc/lib/shared.js",
                    "function twice(x) {\n  return 2 * x;\n}\n",
                ),
                ("apiproxy/resources/jsc/main.js", source),
            ],
        )
    };
    let deploy = |archive: Vec<u8>| {
        let imported = organization
            .import("apis", "p", archive)
            .expect_status(201)
            .json();
        organization.deploy_revision(
            "apis",
            "p",
            imported["revision"].as_str().expect("a revision"),
        )
    };
    deploy(script(
        "context.setVariable('response.header.x-twice', twice(21));",
    ))
    .expect_status(200);
    let gateway = &organization.gateway;
    let serves = || {
        let answer = gateway.get("/p").send().expect_status(200);
        assert_eq!(answer.header("X-Twice"), Some("42"));
    };
    serves();
    let broken = deploy(script("var a = 1;\n\nif (a === 1 {\n}\n"));
    refused(
        &broken,
        &["resources/jsc/main.js:3", "SyntaxError", "policy \"J\""],
    );
    serves();
    let call = |to: &str| {
        format!("<FlowCallout name='C'><SharedFlowBundle>{to}</SharedFlowBundle></FlowCallout>")
    };
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "<AssignMessage name='C'/>",
            "<RouteRule name='x'><TargetEndpoint>t</TargetEndpoint></RouteRule>",
            &["no target server 'nowhere'"],
        ),
        (
            "<LookupCache name='C'><CacheResource>absent</CacheResource><CacheKey><KeyFragment>a</KeyFragment></CacheKey><AssignTo>x</AssignTo></LookupCache>",
            "",
            &["absent"],
        ),
        (
            "<Javascript name='C' timeLimit='200'><ResourceURL>jsc://absent.js</ResourceURL></Javascript>",
            "",
            &["jsc://absent.js"],
        ),
    ];
    let target = "<TargetEndpoint name='t'><HTTPTargetConnection><LoadBalancer><Server name='nowhere'/></LoadBalancer></HTTPTargetConnection></TargetEndpoint>";
    for (policy, rule, expected) in cases {
        let inside = format!("{}{rule}", steps(&["C"]));
        let archive = proxy(
            &inside,
            &[
                ("apiproxy/policies/C.xml", policy),
                ("apiproxy/targets/t.xml", target),
            ],
        );
        let imported = organization.import("apis", "p", archive);
        if imported.status == 400 {
            // Policies that this version refuses are told at import.
            refused(&imported, &["policies/C.xml"]);
            continue;
        }
        let revision = imported.expect_status(201).json()["revision"].clone();
        let answer =
            organization.deploy_revision("apis", "p", revision.as_str().expect("a revision"));
        refused(&answer, expected);
        serves();
    }
    let endpoint = ENDPOINT
        .replace('@', "")
        .replace("<VirtualHost>default<", "<VirtualHost>absent<");
    let archive = zip_files(&[
        ("apiproxy/p.xml", b"<APIProxy name='p'/>"),
        ("apiproxy/proxies/default.xml", endpoint.as_bytes()),
    ]);
    refused(&deploy(archive), &["absent"]);
    serves();
    // Shared flows that call each other in a circle.
    let shared = |to: &str| {
        zip_files(&[
            ("sharedflowbundle/s.xml", b"<SharedFlowBundle name='s'/>"),
            (
                "sharedflowbundle/sharedflows/default.xml",
                b"<SharedFlow name='default'><Step><Name>C</Name></Step></SharedFlow>",
            ),
            ("sharedflowbundle/policies/C.xml", call(to).as_bytes()),
        ])
    };
    organization
        .import("sharedflows", "one", shared("two"))
        .expect_status(201);
    organization
        .import("sharedflows", "two", shared("one"))
        .expect_status(201);
    organization
        .deploy_revision("sharedflows", "one", "1")
        .expect_status(200);
    let circle = organization.deploy_revision("sharedflows", "two", "1");
    refused(&circle, &["calls itself"]);
    let itself = organization
        .import("sharedflows", "self", shared("self"))
        .expect_status(201);
    drop(itself);
    refused(
        &organization.deploy_revision("sharedflows", "self", "1"),
        &["calls itself"],
    );
}

#[test]
fn scripts_without_end_are_stopped() {
    let organization = Organization::new();
    let cases = [
        ("loops", "while (true) {}", "time limit"),
        (
            "allocates",
            "var all = []; while (true) { all.push(new Array(100000).join('x') + all.length); }",
            "",
        ),
        ("recurses", "function f() { return f() + 1; } f();", ""),
        (
            "matches",
            "/^(a+)+$/.test(new Array(40).join('a') + 'b');",
            "",
        ),
    ];
    for (name, source, told) in cases {
        let policy = format!(
            "<Javascript name='J' timeLimit='300'><Source><![CDATA[{source}]]></Source></Javascript>"
        );
        let endpoint = ENDPOINT
            .replace('@', &steps(&["J"]))
            .replace("/p<", &format!("/{name}<"));
        let archive = zip_files(&[
            ("apiproxy/p.xml", b"<APIProxy name='p'/>"),
            ("apiproxy/proxies/default.xml", endpoint.as_bytes()),
            ("apiproxy/policies/J.xml", policy.as_bytes()),
        ]);
        organization
            .import("apis", name, archive)
            .expect_status(201);
        organization
            .deploy_revision("apis", name, "1")
            .expect_status(200);
        for _ in 0..2 {
            let answer = organization
                .gateway
                .get(&format!("/{name}"))
                .send()
                .expect_status(500);
            let fault = &answer.json()["fault"];
            assert_eq!(
                fault["detail"]["errorcode"], "steps.javascript.ScriptExecutionFailed",
                "{name}"
            );
            let text = fault["faultstring"].as_str().expect("a text");
            assert!(text.contains(told), "{name}: {text}");
        }
    }
}
