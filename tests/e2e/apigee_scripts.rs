//! ScriptTarget: Node.js programs of bundles, which the gateway runs, watches and stops.

use std::process::Command;

use crate::apigee_flows::{Bundles, TO_DEFAULT, endpoint, order, raise, step};
use crate::harness::{Gateway, eventually};

/// Tells what it sees; `/die` ends it, `/spin` keeps it busy for good, `/fail` answers 500.
const SERVER: &str = "const http = require('http');\n\
    const { word } = require('./lib/word');\n\
    const packed = require('packed');\n\
    console.log('the program begins');\n\
    http.createServer((request, response) => {\n\
      if (request.url === '/die') process.exit(3);\n\
      if (request.url === '/spin') for (;;);\n\
      const pieces = [];\n\
      request.on('data', piece => pieces.push(piece));\n\
      request.on('end', () => {\n\
        response.statusCode = request.url === '/fail' ? 500 : 201;\n\
        response.setHeader('X-Program', 'yes');\n\
        response.end(JSON.stringify({\n\
          method: request.method, url: request.url, header: request.headers['x-a'] || null,\n\
          body: Buffer.concat(pieces).toString(), word, packed, pid: process.pid,\n\
          given: process.env.GIVEN, home: process.env.HOME || null, arguments: process.argv.slice(2),\n\
        }));\n\
      });\n\
    }).listen(9000);\n";

const TARGET: &str = "<TargetEndpoint name='default'><PreFlow><Response><Step><Name>seen</Name></Step></Response></PreFlow>\
    <ScriptTarget><ResourceURL>node://server.js</ResourceURL>\
    <EnvironmentVariables><EnvironmentVariable name='GIVEN'>value</EnvironmentVariable></EnvironmentVariables>\
    <Arguments><Argument>one</Argument><Argument>two words</Argument></Arguments></ScriptTarget></TargetEndpoint>";

fn bundles(name: &str) -> Bundles {
    let rules = format!(
        "<FaultRules><FaultRule name='f'>{}</FaultRule></FaultRules>{TO_DEFAULT}",
        step("failed")
    );
    let base = format!("/{name}");
    Bundles::new().proxy(
        name,
        &[
            ("proxies/default.xml", &endpoint(&base, &rules)),
            ("targets/default.xml", TARGET),
            ("policies/seen.xml", &order("seen")),
            ("policies/failed.xml", &raise("failed", 599, "it failed")),
            ("resources/node/server.js", SERVER),
            ("resources/node/lib/word.js", "exports.word = 'required';"),
            (
                "resources/node/node_modules/packed/index.js",
                "module.exports = 'from a module';",
            ),
        ],
    )
}

/// The process of the program, as it tells.
#[track_caller]
fn pid(gateway: &Gateway, path: &str) -> u64 {
    let answer = gateway.get(path).send().expect_status(201);
    answer.json()["pid"].as_u64().expect("a number")
}

fn await_end(pid: u64) {
    eventually("the program has ended", || {
        let alive = Command::new("kill").args(["-0", &pid.to_string()]).output();
        (!alive.expect("kill runs").status.success()).then_some(())
    });
}

#[test]
fn a_program_answers_as_the_target() {
    // The same port in two programs is no port at all.
    let bundles = bundles("script");
    let other = bundles.proxy(
        "other",
        &[
            ("proxies/default.xml", &endpoint("/other", TO_DEFAULT)),
            (
                "targets/default.xml",
                "<TargetEndpoint name='default'><ScriptTarget><ResourceURL>node://o.js</ResourceURL></ScriptTarget></TargetEndpoint>",
            ),
            (
                "resources/node/o.js",
                "require('http').createServer((q, r) => r.end('other')).listen(9000);",
            ),
        ],
    );
    let gateway = other.gateway(None);
    let request = gateway
        .request("POST", "/script/a%20b/c?d=e&d=f")
        .header("X-A", "b");
    let answer = request.body("hello").send().expect_status(201);
    assert_eq!(answer.header("X-Program"), Some("yes"));
    assert_eq!(
        answer.all("X-Order"),
        ["seen"],
        "the target's response flow runs"
    );
    let seen = answer.json();
    for (name, expected) in [
        ("method", "POST"),
        ("url", "/a%20b/c?d=e&d=f"),
        ("header", "b"),
        ("body", "hello"),
        ("word", "required"),
        ("packed", "from a module"),
        ("given", "value"),
    ] {
        assert_eq!(seen[name], expected, "{name}");
    }
    assert_eq!(seen["arguments"], serde_json::json!(["one", "two words"]));
    assert!(seen["home"].is_null(), "the environment is the bundle's");
    let root = gateway.get("/script").send().expect_status(201);
    assert_eq!(root.json()["url"], "/");
    assert_eq!(
        gateway.get("/other").send().expect_status(200).text(),
        "other"
    );
    let failed = gateway.get("/script/fail").send().expect_status(599);
    assert_eq!(failed.text(), "it failed");
    eventually("its output is in the log", || {
        gateway.said().contains("the program begins").then_some(())
    });
}

#[test]
fn a_program_that_dies_is_started_again_and_ends_with_the_gateway() {
    let bundles = bundles("script");
    let mut gateway = bundles.gateway(None);
    let first = pid(&gateway, "/script");
    gateway.get("/script/die").send().expect_status(599);
    let second = eventually("it serves again", || {
        let answer = gateway.get("/script").send();
        (answer.status == 201).then(|| answer.json()["pid"].as_u64().expect("a number"))
    });
    assert_ne!(first, second);
    gateway.signal("TERM");
    gateway.wait();
    await_end(second);
}

#[test]
fn no_program_outlives_a_gateway_that_is_killed() {
    let bundles = bundles("script");
    let gateway = bundles.gateway(None);
    let pid = pid(&gateway, "/script");
    // Even one that is busy for good.
    let spinning = gateway.get("/script/spin");
    let waiting = std::thread::spawn(move || drop(spinning.try_send()));
    gateway.kill();
    waiting.join().expect("a thread");
    await_end(pid);
}

#[test]
fn undeploying_stops_the_program_and_a_new_revision_has_its_own() {
    let gateway = Gateway::builder()
        .setting("admin_gui_listen", "off")
        .start();
    let bundles = bundles("script");
    bundles.deploy(&gateway, "script");
    let first = pid(&gateway, "/script");
    bundles.deploy(&gateway, "script");
    let second = pid(&gateway, "/script");
    assert_ne!(first, second);
    await_end(first);
    let path = "/v1/organizations/sallyport/environments/test/apis/script/revisions/2/deployments";
    gateway.admin().delete(path).expect_status(200);
    await_end(second);
}

#[test]
fn without_a_node_the_deployment_is_refused() {
    let gateway = Gateway::builder()
        .setting("admin_gui_listen", "off")
        .setting("apigee_node_path", "/no/such/node")
        .start();
    let refused = bundles("script").try_deploy(&gateway, "script");
    assert_eq!(refused.status, 400);
    let message = refused.message();
    assert!(
        message.contains("apigee_node_path") && message.contains("/no/such/node"),
        "{message}"
    );
}
