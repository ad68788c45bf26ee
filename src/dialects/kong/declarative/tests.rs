#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::dialects::kong::entities::{EntityKind, RouterFlavor, WriteContext};
use crate::dialects::kong::entity_set::{EntitySet, RowKey};
use crate::model::catalog::{Catalog, PluginInfo};
use crate::model::schema::{Record, array, integer, string};

fn catalog() -> Catalog {
    let limits = Record::new(vec![integer().named("minute"), string().named("policy")]);
    let names = array(string()).default(json!(["apikey"]));
    Catalog::new([
        PluginInfo::new("rate-limiting", 910, limits),
        PluginInfo::new(
            "key-auth",
            1250,
            Record::new(vec![names.named("key_names")]),
        ),
    ])
}

fn with_context<T>(run: impl FnOnce(&mut WriteContext<'_>) -> T) -> T {
    let catalog = catalog();
    let mut next = 0;
    let mut new_id = || {
        next += 1;
        Uuid::from_u128(next)
    };
    run(&mut WriteContext {
        now_millis: 1_700_000_000_000,
        flavor: RouterFlavor::default(),
        catalog: &catalog,
        new_id: &mut new_id,
        already_transformed: false,
    })
}

fn loaded(yaml: &str) -> Result<EntitySet, DocumentError> {
    let document = Document::parse(yaml, Syntax::Yaml)?;
    with_context(|context| load(document, context, &mut |_, _| {})).map(|loaded| loaded.entities)
}

fn refused(yaml: &str) -> Value {
    loaded(yaml).unwrap_err().to_json(false)
}

fn named(entities: &EntitySet, kind: EntityKind, name: &str) -> serde_json::Map<String, Value> {
    entities
        .find(kind, &RowKey::Name(name.to_owned()), None)
        .unwrap_or_else(|| panic!("{kind} {name}"))
        .fields()
}

const NESTED: &str = "
_format_version: '3.0'
_comment: everything at once
_ignore: [{anything: 1}]
services:
- name: users
  url: http://users.test:8080/v1
  _comment: inside
  routes:
  - name: users-route
    paths: [/users, '~/u/\\d+$']
    plugins:
    - name: rate-limiting
      config: {minute: 5}
  plugins:
  - name: key-auth
routes:
- name: other
  service: users
  hosts: [other.test]
consumers:
- username: bob
  keyauth_credentials:
  - key: secret
  acls:
  - group: admins
  groups:
  - name: gold
consumer_groups:
- name: gold
  consumers:
  - username: alice
- name: silver
  consumers: [alice]
upstreams:
- name: pool.test
  targets:
  - target: 10.0.0.1:80
  - target: 10.0.0.2
plugins:
- name: rate-limiting
  consumer: bob
  config: {minute: 9}
";

fn nested() -> String {
    NESTED.replace(
        "consumers:\n- username: bob",
        "consumers:\n- username: alice\n- username: bob",
    )
}

#[test]
fn nested_entities_and_links_by_name() {
    let entities = loaded(&nested()).unwrap();
    let service = named(&entities, EntityKind::Service, "users");
    assert_eq!(service["host"], "users.test");
    assert_eq!(service["path"], "/v1");
    for route in ["users-route", "other"] {
        let route = named(&entities, EntityKind::Route, route);
        assert_eq!(route["service"], json!({"id": service["id"]}));
    }
    let counts: Vec<_> = [
        (EntityKind::Plugin, 3),
        (EntityKind::KeyAuthCredential, 1),
        (EntityKind::Acl, 1),
        (EntityKind::ConsumerGroupMember, 3),
        (EntityKind::Target, 2),
    ]
    .into_iter()
    .map(|(kind, expected)| (entities.rows(kind).count(), expected))
    .collect();
    assert!(
        counts.iter().all(|(found, expected)| found == expected),
        "{counts:?}"
    );
}

#[test]
fn ids_are_those_that_clients_compute() {
    let entities = loaded(
        "
_format_version: '3.0'
services: [{name: s, host: h.test}]
upstreams:
- id: f9792964-6797-482c-bfdf-08220a4f6839
  name: httproute.default.httproute-testing.1
  targets: [{target: '10.244.0.12:80'}]
plugins: [{name: key-auth}]
",
    )
    .unwrap();
    let table = |name: &str| {
        let base = Uuid::parse_str("fd02801f-0957-4a15-a55a-c8d9606f30b5").unwrap();
        Uuid::new_v5(&base, name.as_bytes())
    };
    let id = |kind| entities.rows(kind).next().unwrap().id;
    assert_eq!(
        id(EntityKind::Service),
        Uuid::new_v5(&table("services"), b"s")
    );
    // As computed by Kong's ingress controller.
    let target = Uuid::parse_str("48322e4a-b3b0-591b-8ed6-fd95a6d75019").unwrap();
    assert_eq!(id(EntityKind::Target), target);
    let plugin = Uuid::new_v5(&table("plugins"), b"plugins:*:key-auth:::");
    assert_eq!(id(EntityKind::Plugin), plugin);
}

#[test]
fn older_formats_are_migrated() {
    let document = |version: &str| {
        format!(
            "{{_format_version: '{version}', services: [{{name: s, host: h.test, routes: \
             [{{name: r, paths: ['/a/(b|c)', '/d/../e']}}]}}]}}"
        )
    };
    for version in ["1.1", "2.1"] {
        let entities = loaded(&document(version)).unwrap();
        let route = named(&entities, EntityKind::Route, "r");
        assert_eq!(route["paths"], json!(["~/a/(b|c)", "/e"]));
    }
    assert!(loaded(&document("3.0")).is_err());
}

#[test]
fn everything_wrong_is_told_at_its_place() {
    let body = refused(
        "
_format_version: '3.0'
unknown: 1
services:
- name: fine
  host: h.test
- name: broken
  colour: red
  routes:
  - paths: [no-slash]
    plugins:
    - name: key-auth
      config: {nope: 1}
routes: 5
upstreams: ['x']
",
    );
    assert_eq!(body["code"], 14);
    assert_eq!(body["name"], "invalid declarative configuration");
    let message = body["message"].as_str().unwrap();
    assert!(
        message.starts_with("declarative config is invalid: {"),
        "{message}"
    );
    assert_eq!(
        body["fields"],
        json!({
            "routes": "expected an array",
            "services": [null, {
                "colour": "unknown field",
                "host": "required field missing",
                "routes": [{
                    "paths": ["should start with: / (fixed path) or ~/ (regex path)"],
                    "plugins": [{"config": {"nope": "unknown field"}}],
                }],
            }],
            "unknown": "unknown field",
            "upstreams": ["expected a record"],
        })
    );
}

#[test]
fn links_and_clashes_are_told_in_their_shapes() {
    let cases = [
        (
            "routes: [{name: r1, paths: [/], service: x}]",
            json!({"routes": {"r1": ["invalid reference 'service: x' (no such entry in 'services')"]}}),
        ),
        (
            "consumers: [{username: a}, {username: a}]",
            json!({"consumers": [null, "uniqueness violation: 'consumers' entity with username set to 'a' already declared"]}),
        ),
        (
            "upstreams: [{name: u.test, targets: [{target: 'a.test:1'}, {target: 'a.test:1'}]}]",
            json!({"upstreams": [{"targets": [null, format!(
                "uniqueness violation: 'targets' entity with primary key set to '{}' already declared",
                "TARGET",
            )]}]}),
        ),
        (
            "consumers: [{username: a, custom_id: x}, {username: b, custom_id: x}]",
            json!({"consumers": [null, "uniqueness violation: 'consumers' entity with custom_id set to 'x' already declared"]}),
        ),
        (
            "services: [{host: h.test, routes: [{paths: [/], service: h}]}]",
            json!({"services": [{"routes": [{"service": "value must be null"}]}]}),
        ),
        ("_transform: 1", json!({"_transform": "expected a boolean"})),
    ];
    for (text, expected) in cases {
        let body = refused(&format!("_format_version: '3.0'\n{text}"));
        let mut fields = body["fields"].clone();
        let target = fields.pointer_mut("/upstreams/0/targets/1");
        if let Some(Value::String(text)) = target {
            let id = text.split('\'').nth(3).unwrap().to_owned();
            *text = text.replace(&id, "TARGET");
        }
        assert_eq!(fields, expected, "{text}");
    }
    for (version, complaint) in [
        ("", "required field missing"),
        ("_format_version: 3.0", "expected a string"),
        ("_format_version: '4.0'", "expected one of: 1.1, 2.1, 3.0"),
    ] {
        let body = refused(&format!("{version}\nservices: []"));
        assert_eq!(body["fields"], json!({"_format_version": complaint}));
    }
}

#[test]
fn errors_can_be_flattened() {
    let service = "4e3cb785-a8d0-5866-aa05-117f7c64f24d";
    let error = loaded(&format!(
        "
_format_version: '3.0'
unknown: 1
services:
- id: {service}
  name: s
  tags: [one, two]
  host: h.test
  retries: -1
  routes:
  - name: r
    protocols: [nope]
    paths: [/]
"
    ))
    .unwrap_err();
    let body = error.to_json(true);
    assert_eq!(body["fields"], json!({"unknown": "unknown field"}));
    assert_eq!(
        body["message"],
        "declarative config is invalid: {unknown=\"unknown field\"}"
    );
    let flattened = body["flattened_errors"].as_array().unwrap();
    let of = |kind: &str| {
        let found = flattened.iter().find(|error| error["entity_type"] == kind);
        found.unwrap_or_else(|| panic!("{kind}: {body}"))
    };
    let about = of("service");
    assert_eq!(about["entity_id"], service);
    assert_eq!(about["entity_name"], "s");
    assert_eq!(about["entity_tags"], json!(["one", "two"]));
    assert_eq!(
        about["entity"],
        json!({"id": service, "name": "s", "tags": ["one", "two"], "host": "h.test", "retries": -1})
    );
    assert_eq!(about["errors"][0]["field"], "retries");
    assert_eq!(about["errors"][0]["type"], "field");
    let about = of("route");
    assert_eq!(about["entity"]["service"], json!({"id": service}));
    assert_eq!(about["errors"][0]["field"], "protocols.1");
    assert_eq!(error.findings().len(), 1 + flattened.len());
}

#[test]
fn text_that_is_no_document() {
    let error = Document::parse("a: [", Syntax::Yaml).unwrap_err();
    let body = error.to_json(false);
    let text = body["fields"]["error"].as_str().unwrap();
    assert!(
        text.starts_with("failed parsing declarative configuration: 2:1: "),
        "{text}"
    );
    for text in ["", "just text", "[]"] {
        let error = Document::parse(text, Syntax::Yaml).unwrap_err();
        assert_eq!(
            error.to_json(true),
            json!({"message": "expected a declarative configuration"})
        );
    }
    assert!(loaded("_format_version: '3.0'").unwrap().is_empty());
}

#[test]
fn exports_come_back_the_same() {
    let entities = loaded(&nested()).unwrap();
    let yaml = export_yaml(&entities, 1_700_000_000_000).unwrap();
    assert!(
        yaml.starts_with("_format_version: '3.0'\n_transform: false\n"),
        "{yaml}"
    );
    let again = loaded(&yaml).unwrap_or_else(|error| panic!("{:?}", error.findings()));
    assert_eq!(EntitySet::difference(&entities, &again), []);
}

#[test]
fn loading_again_changes_only_what_is_different() {
    let load_at = |text: &str, now_millis: i64| {
        let document = Document::parse(text, Syntax::Yaml).unwrap();
        with_context(|context| {
            context.now_millis = now_millis;
            load(document, context, &mut |_, _| {}).unwrap()
        })
    };
    let before = load_at(&nested(), 1_700_000_000_000).entities;
    let text = nested().replace("hosts: [other.test]", "hosts: [another.test]");
    let mut again = load_at(&text, 1_700_000_099_000);
    assert!(EntitySet::difference(&before, &again.entities).len() > 10);
    again.keep_unchanged(&before);
    let changes = EntitySet::difference(&before, &again.entities);
    let kinds: Vec<EntityKind> = changes.iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [EntityKind::Route]);
}

#[test]
fn an_import_adds_and_replaces_and_removes_nothing() {
    let mut entities = loaded(&nested()).unwrap();
    let before = entities.clone();
    let document = "
_format_version: '3.0'
services: [{name: users, host: new.test}, {name: more, host: more.test}]
";
    let document = Document::parse(document, Syntax::Yaml).unwrap();
    let mut reports = Vec::new();
    let imported = with_context(|context| {
        import(&mut entities, document, context, &mut |done, all| {
            reports.push((done, all))
        })
    })
    .unwrap();
    assert_eq!((imported.count, imported.changes.len()), (2, 2));
    assert_eq!(reports.last(), Some(&(2, 2)));
    assert_eq!(entities.len(), before.len() + 1);
    let service = named(&entities, EntityKind::Service, "users");
    assert_eq!(service["host"], "new.test");
    assert_eq!(
        service["id"],
        named(&before, EntityKind::Service, "users")["id"]
    );
}

#[test]
fn hostile_documents_are_refused_not_fatal() {
    for text in [
        "_format_version: '3.0'\nservices: [{routes: [{plugins: [{consumer: {id: {}}}]}]}]",
        "_format_version: '3.0'\nconsumers: [{username: 1, groups: [1, x, {}, {name: {}}]}]",
        "_format_version: '3.0'\ncertificates: [{snis: [a.test]}]",
        "_format_version: '3.0'\nservices: [null, [], 5, {id: x, name: [], routes: {a: 1}}]",
        "_format_version: '3.0'\ntargets: [{target: x}]\nacls: [{}]\nplugins: [{}]",
        "_format_version: '3.0'\nroutes: [{paths: {a: 1}, name: r, service: {a: b, c: d}}]",
    ] {
        let error = loaded(text).unwrap_err();
        assert_eq!(error.to_json(true)["code"], 14, "{text}");
        assert!(!error.findings().is_empty());
    }
}
