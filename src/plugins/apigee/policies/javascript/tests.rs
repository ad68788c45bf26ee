#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::callouts::Callouts;
use super::engine::{self, Failure};
use super::{Program, Script};
use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::scope::Scope;
use crate::plugins::apigee::policies::test_support::{scope, scope_of, text};
use crate::plugins::test_support::World;

fn program(files: &[(&str, &str)], time_limit: Duration) -> Arc<Program> {
    let callouts = World::new().with_context(Callouts::of).unwrap();
    Arc::new(Program {
        script: Script::assemble(files.iter().copied()),
        properties: json!({"key": "value"}),
        time_limit,
        callouts: Arc::new(callouts),
    })
}

fn run_in(scope: Scope, source: &str) -> (Scope, Result<(), Failure>) {
    engine::run(&program(&[("a.js", source)], Duration::from_secs(5)), scope)
}

/// The variable `out` after the script.
fn out(source: &str) -> Option<String> {
    let (scope, outcome) = run_in(scope(), source);
    outcome.unwrap_or_else(|failure| panic!("{source}: {failure}"));
    text(&scope, "out")
}

#[test]
fn scripts_see_the_transaction() {
    let cases = [
        ("context.setVariable('out', 1 + 1)", "2"),
        ("context.setVariable('out', 1.5)", "1.5"),
        ("context.setVariable('out', true)", "true"),
        (
            "context.setVariable('out', context.getVariable('none') === null)",
            "true",
        ),
        (
            "context.setVariable('out', context.getVariable('request.verb'))",
            "GET",
        ),
        (
            "context.setVariable('out', context.getVariable('request.header.accept'))",
            "text/html",
        ),
        (
            "context.setVariable('out', request.headers['Accept'].length)",
            "2",
        ),
        (
            "context.setVariable('out', '' + request.headers['accept'])",
            "text/html",
        ),
        (
            "context.setVariable('out', request.headers['accept'][1])",
            "text/xml",
        ),
        (
            "request.headers['X-New'] = 5; context.setVariable('out', request.headers['x-new'])",
            "5",
        ),
        (
            "delete request.headers['Accept']; context.setVariable('out', request.headers['Accept'] === undefined)",
            "true",
        ),
        (
            "var n = []; for (var h in request.headers) n.push(h); context.setVariable('out', n.join())",
            "accept",
        ),
        (
            "context.setVariable('out', request.queryParams['w'][1])",
            "2",
        ),
        (
            "request.queryParams['z'] = 'a b'; context.setVariable('out', request.querystring)",
            "w=1&w=2&z=a%20b",
        ),
        (
            "context.setVariable('out', request.content + request.method)",
            "bodyGET",
        ),
        (
            "context.targetRequest.body = {a: [1]}; context.setVariable('out', request.content)",
            "{\"a\":[1]}",
        ),
        (
            "request.content = '{\"a\":{\"b\":1}}'; request.content.asJSON.a.b = 2; context.setVariable('out', request.content)",
            "{\"a\":{\"b\":2}}",
        ),
        ("context.setVariable('out', 'a=1&b=x+y'.asForm.b)", "x y"),
        (
            "response.status = 404; context.setVariable('out', response.status.code + 1)",
            "405",
        ),
        ("context.setVariable('out', context.flow)", "PROXY_REQ_FLOW"),
        ("context.setVariable('out', properties.key)", "value"),
        (
            "print('x'); context.setVariable('out', crypto.getSHA256().update('a').update('b').digest())",
            "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603",
        ),
        (
            "context.setVariable('out', crypto.getMD5().update('a').digest64())",
            "DMF1ucDxtqgxw5niaXcmYQ==",
        ),
        (
            "context.setVariable('out', crypto.dateFormat('yyyy-MM-dd HH:mm', 'GMT+2', 0))",
            "1970-01-01 02:00",
        ),
        (
            "context.setVariable('out', crypto.base64Decode(crypto.base64Encode('ü')))",
            "ü",
        ),
        (
            "context.setVariable('o', {a: 1}); var o = context.getVariable('o'); o.a += 1; context.setVariable('out', context.getVariable('o').a)",
            "2",
        ),
        (
            "var s = 0; for each (var x in {a: 1, b: 2}) { s += x; } context.setVariable('out', s)",
            "3",
        ),
        (
            "const f = (x) => `${x}!`; let y = f('a'); context.setVariable('out', y)",
            "a!",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(out(source).as_deref(), Some(expected), "{source}");
    }
}

#[test]
fn every_run_begins_anew() {
    let source = "var seen = typeof leaked + typeof mine; leaked = 1; var mine = 2; \
                  context.setVariable('out', seen)";
    let program = program(&[("a.js", source)], Duration::from_secs(5));
    for _ in 0..3 {
        let (scope, outcome) = engine::run(&program, scope());
        assert_eq!(outcome, Ok(()));
        assert_eq!(text(&scope, "out").as_deref(), Some("undefinedundefined"));
    }
}

#[test]
fn objects_live_as_long_as_the_transaction() {
    let (scope, outcome) = run_in(
        scope(),
        "context.session.n = {deep: [1, 2]}; context.setVariable('kept', {f: 'x'})",
    );
    assert_eq!(outcome, Ok(()));
    assert_eq!(text(&scope, "kept").as_deref(), Some("[object Object]"));
    let (scope, outcome) = run_in(
        scope,
        "context.setVariable('out', context.session.n.deep[1] + context.getVariable('kept').f)",
    );
    assert_eq!(outcome, Ok(()));
    assert_eq!(text(&scope, "out").as_deref(), Some("2x"));
}

#[test]
fn errors_tell_file_and_line() {
    let files = [
        ("lib.js", "function f() {\n  return missing;\n}"),
        ("main.js", "\nf();"),
    ];
    let (_, outcome) = engine::run(&program(&files, Duration::from_secs(5)), scope());
    let expected = "ReferenceError: \"missing\" is not defined. (lib.js:2)";
    assert_eq!(outcome, Err(Failure::Threw(expected.to_owned())));
    let (_, outcome) = run_in(scope(), "throw 'plain'");
    assert_eq!(outcome, Err(Failure::Threw("plain".to_owned())));
    let (_, outcome) = run_in(scope(), "request.content.asXML");
    assert!(outcome.unwrap_err().to_string().contains("E4X"));
    for broken in ["var a = ;", "x = <a/>;", "await 1"] {
        let script = Script::assemble([("a.js", broken)]);
        assert!(
            script.check().unwrap_err().to_string().contains("a.js:1"),
            "{broken}"
        );
    }
}

#[test]
fn scripts_without_end_are_stopped() {
    let limit = Duration::from_millis(50);
    for source in [
        "for (;;) {}",
        "while (true) { try { for (;;) {} } catch (e) {} }",
    ] {
        let (scope, outcome) = engine::run(&program(&[("a.js", source)], limit), scope());
        assert_eq!(outcome, Err(Failure::OutOfTime(limit)), "{source}");
        assert_eq!(text(&scope, "request.verb").as_deref(), Some("GET"));
    }
    let hungry = [
        "var a = []; for (;;) { a.push(new Array(100000).join('x')); }",
        "function f() { return f() + 1; } f();",
        "'x'.repeat(1 << 29)",
    ];
    for source in hungry {
        let (_, outcome) = run_in(scope(), source);
        assert!(
            matches!(outcome, Err(Failure::Threw(_))),
            "{source}: {outcome:?}"
        );
    }
    assert_eq!(out("context.setVariable('out', 1)").as_deref(), Some("1"));
}

#[test]
fn answers_of_other_servers_arrive() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let head = String::from_utf8_lossy(&request[..length]).into_owned();
            let body = head.lines().next().unwrap().to_owned();
            let answer = format!(
                "HTTP/1.1 201 Created\r\nX-A: b\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let source = format!(
        "var e = httpClient.send(new Request('http://{address}/1', 'POST', {{'X-B': 'c'}}, 'b'));\n\
         e.waitForComplete();\n\
         context.setVariable('out', e.isSuccess() + ' ' + e.getResponse().status.code + ' ' +\n\
           e.getResponse().headers['x-a'] + ' ' + e.getResponse().content);\n\
         httpClient.get('http://{address}/2', function (response, error) {{\n\
           context.setVariable('called', response.content); }});"
    );
    let mut request = Message::request();
    request.path = "/shop".to_owned();
    let (scope, outcome) = run_in(scope_of(request), &source);
    assert_eq!(outcome, Ok(()));
    assert_eq!(
        text(&scope, "out").as_deref(),
        Some("true 201 b POST /1 HTTP/1.1")
    );
    assert_eq!(text(&scope, "called").as_deref(), Some("GET /2 HTTP/1.1"));
    server.join().unwrap();
    let source = "var e = httpClient.get('http://127.0.0.1:1/'); e.waitForComplete(); \
                  context.setVariable('out', e.isError() + ' ' + (e.getResponse() === null))";
    assert_eq!(out(source).as_deref(), Some("true true"));
}

#[test]
fn the_policy_is_read_and_linked() {
    let xml = "<Javascript name='j' timeLimit='300'><IncludeURL>jsc://lib.js</IncludeURL>\
               <ResourceURL>jsc://main.js</ResourceURL>\
               <Properties><Property name='p'>v</Property></Properties></Javascript>";
    let config: serde_json::Value = crate::plugins::apigee::policies::test_support::config(xml);
    assert_eq!(
        config,
        json!({"time_limit_ms": 300, "files": ["jsc://lib.js", "jsc://main.js"], "properties": {"p": "v"}})
    );
    let world = World::new();
    let place = crate::plugins::apigee::policies::Place {
        organization: "o".to_owned(),
        environment: "e".to_owned(),
        proxy: "p".to_owned(),
        revision: 1,
        shared_flow: None,
    };
    let link = |main: &str| {
        let resources = BTreeMap::from([
            ("jsc://lib.js".to_owned(), "var a = 1;".to_owned()),
            ("jsc://main.js".to_owned(), main.to_owned()),
        ]);
        world.with_context(|context| {
            let link = super::PolicyLink {
                name: "j",
                config: &config,
                resources: &resources,
                callout: None,
                cache: None,
                place: &place,
                context,
            };
            super::link(&link).map(|policy| policy.waits())
        })
    };
    assert_eq!(link("a += 1;"), Ok(false));
    assert_eq!(link("httpClient.get('x');"), Ok(true));
    assert!(link("a +=;").unwrap_err().contains("main.js:1"));
}
