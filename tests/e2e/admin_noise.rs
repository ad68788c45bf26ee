//! Every field of every entity and plugin with values that nobody expects: a clear answer, never a failure.

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Origin, Reply};

/// Values of every kind, at and beyond every edge.
fn strange_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(i64::MAX),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("\u{0}\n\r\t\u{7f}"),
        json!("ü💥\u{202e}"),
        json!("~/(a+)+$"),
        json!("{vault://env/x}"),
        json!("x".repeat(70_000)),
        json!([]),
        json!([null]),
        json!([1, "a", {}]),
        json!(["a:b", "a", ":", "a:", "$(headers", "$(x.y.z)"]),
        json!(["~/a|b", "/%zz", "//", "*.*", "1.2.3.4/99"]),
        json!({}),
        json!({"": null}),
        json!({"id": "x"}),
        json!({"a": {"b": [{"c": []}]}}),
        json!([{"ip": "::/0", "port": 70000}]),
    ]
}

/// Sends a body over one connection after the other's end only; gives the status.
fn post(client: &mut Client, path: &str, body: &Value) -> u16 {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.exchange(request).status
}

/// Names of the fields that a schema shows.
fn field_names(schema: &Value) -> Vec<String> {
    let fields = schema["fields"].as_array().cloned().unwrap_or_default();
    fields
        .iter()
        .filter_map(|field| Some(field.as_object()?.keys().next()?.clone()))
        .collect()
}

#[test]
fn no_value_of_any_field_makes_the_admin_api_fail() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let mut client = Client::connect(admin.address);
    let collections = [
        ("services", "/services", json!({"host": "h"})),
        ("routes", "/routes", json!({"paths": ["/p"]})),
        ("consumers", "/consumers", json!({})),
        ("upstreams", "/upstreams", json!({})),
        ("certificates", "/certificates", json!({})),
        ("ca_certificates", "/ca_certificates", json!({})),
        ("snis", "/snis", json!({})),
        ("vaults", "/vaults", json!({"name": "env"})),
        ("keys", "/keys", json!({})),
        ("key_sets", "/key-sets", json!({})),
        ("plugins", "/plugins", json!({"name": "cors"})),
    ];
    for (entity, path, base) in collections {
        let schema = admin
            .get(&format!("/schemas/{entity}"))
            .expect_status(200)
            .json();
        for field in field_names(&schema) {
            for value in strange_values() {
                let mut body = base.clone();
                body[&field] = value;
                let status = post(&mut client, path, &body);
                let told: String = body.to_string().chars().take(300).collect();
                assert!(matches!(status, 201 | 400 | 409), "{status}: {path} {told}");
            }
        }
    }
    admin.get("/services").expect_status(200);
    gateway.get("/").send();
}

#[test]
fn no_value_of_any_plugin_setting_makes_the_gateway_fail() {
    let origin = Origin::answering(|_| {
        Reply::new(200, &[("Content-Type", "application/json")], r#"{"a": 1}"#)
    });
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin.create("/services", json!({"name": "s", "url": origin.url()}));
    let mut client = Client::connect(admin.address);
    let enabled = admin.get("/plugins/enabled").json();
    let mut accepted = 0;
    for name in enabled["enabled_plugins"].as_array().expect("a list") {
        let name = name.as_str().expect("a name");
        // Writes to a file of that name; what matters is tested elsewhere.
        if name == "file-log" {
            continue;
        }
        let schema = admin
            .get(&format!("/schemas/plugins/{name}"))
            .expect_status(200)
            .json();
        let fields = schema["fields"].as_array().expect("fields").clone();
        let config = fields
            .iter()
            .find_map(|field| field.get("config"))
            .expect("a config");
        for field in field_names(config) {
            for value in strange_values() {
                let route = format!("r{accepted}");
                let body = json!({"name": name, "config": {&field: value}});
                let told: String = body.to_string().chars().take(300).collect();
                if accepted % 40 == 0 || admin.get(&format!("/routes/{route}")).status == 404 {
                    let route = json!({"name": route, "paths": [format!("/{route}")]});
                    admin
                        .request("POST", "/services/s/routes")
                        .json(&route)
                        .send();
                }
                let status = post(&mut client, &format!("/routes/{route}/plugins"), &body);
                assert!(matches!(status, 201 | 400 | 409), "{status}: {told}");
                if status == 201 {
                    accepted += 1;
                }
            }
        }
    }
    assert!(accepted > 20, "{accepted}");
    // The last write serves once this one does.
    admin.create(
        "/services/s/routes",
        json!({"name": "last", "paths": ["/last"]}),
    );
    gateway.get("/last").send().expect_status(200);
    for number in 0..accepted {
        let request = gateway
            .request("POST", &format!("/r{number}?a=1&apikey=x&b=%zz"))
            .header("Origin", "http://a.test")
            .header("Authorization", "Basic eDp5")
            .header("Access-Control-Request-Method", "GET")
            .json(&json!({"a": {"b": 1}}));
        let answer = request.send();
        assert!(answer.status != 502, "r{number}: {}", answer.text());
    }
}
