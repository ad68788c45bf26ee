#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde_json::{Value, json};
use uuid::Uuid;

use super::testing::{NOW_SECONDS, World, object};
use super::*;
use crate::base::self_signed::{Algorithm, SelfSigned};

const SERVICE: EntityKind = EntityKind::Service;
const ROUTE: EntityKind = EntityKind::Route;

#[test]
fn post_refuses_an_id_that_exists() {
    let mut world = World::new();
    let id = world.id_of(SERVICE, json!({"host": "h"}));
    let error = world
        .create(SERVICE, json!({"host": "h", "id": id}))
        .unwrap_err();
    assert_eq!(
        (error.code as u8, error.message),
        (3, format!("primary key violation on key '{{id=\"{id}\"}}'"))
    );
}

#[test]
fn put_replaces_whole_rows() {
    let mut world = World::new();
    let made = world
        .upsert(SERVICE, "s", json!({"host": "h", "path": "/x"}))
        .unwrap();
    assert_eq!(made.row.fields()["name"], "s");
    world.now_millis += 5000;
    let replaced = world.upsert(SERVICE, "s", json!({"host": "g"})).unwrap();
    assert_eq!(replaced.row.id, made.row.id);
    let fields = replaced.row.fields();
    assert_eq!(
        (&fields["host"], &fields["path"], &fields["created_at"]),
        (&json!("g"), &Value::Null, &json!(NOW_SECONDS + 5))
    );
    assert_eq!(replaced.changes.len(), 1);
    assert_eq!(replaced.changes[0].before.as_ref(), Some(&made.row));

    let id = "11111111-2222-4333-8444-555555555555";
    let by_id = world.upsert(SERVICE, id, json!({"host": "h"})).unwrap();
    assert_eq!(by_id.row.id.to_string(), id);

    let error = world
        .upsert(SERVICE, "a b", json!({"host": "h"}))
        .unwrap_err();
    assert_eq!(error.name(), "invalid unique name");
    let error = world
        .upsert(EntityKind::CaCertificate, "x", json!({}))
        .unwrap_err();
    assert_eq!(
        error.message,
        "invalid primary key: '{id=\"expected a valid UUID\"}'"
    );
    let error = world
        .upsert(EntityKind::Target, id, json!({"target": "a"}))
        .unwrap_err();
    assert_eq!(error.status(), 404);
}

#[test]
fn patch_lays_fields_over_a_row() {
    let mut world = World::new();
    world
        .create(
            SERVICE,
            json!({"host": "h", "name": "s", "path": "/x", "retries": 1}),
        )
        .unwrap();
    world.now_millis += 5000;
    let row = world
        .patch(
            SERVICE,
            "s",
            json!({"path": null, "port": null, "retries": 3}),
        )
        .unwrap();
    let fields = row.fields();
    assert_eq!(fields["path"], Value::Null);
    assert_eq!(fields["port"], 80);
    assert_eq!(fields["retries"], 3);
    assert_eq!(fields["created_at"], NOW_SECONDS);
    assert_eq!(fields["updated_at"], NOW_SECONDS + 5);

    let upstream =
        json!({"name": "u", "healthchecks": {"active": {"timeout": 3, "concurrency": 2}}});
    world.create(EntityKind::Upstream, upstream).unwrap();
    let row = world
        .patch(
            EntityKind::Upstream,
            "u",
            json!({"healthchecks": {"active": {"timeout": 4}}}),
        )
        .unwrap();
    let active = &row.fields()["healthchecks"]["active"];
    assert_eq!(
        (&active["timeout"], &active["concurrency"]),
        (&json!(4), &json!(2))
    );

    let error = world.patch(SERVICE, "nope", json!({})).unwrap_err();
    assert_eq!(
        (error.status(), error.message.as_str()),
        (404, "could not find the entity with '{name=\"nope\"}'")
    );
    let id = Uuid::from_u128(9).to_string();
    let error = world.patch(SERVICE, &id, json!({})).unwrap_err();
    assert_eq!(
        error.message,
        format!("could not find the entity with primary key '{{id=\"{id}\"}}'")
    );
}

#[test]
fn links_lead_somewhere() {
    let mut world = World::new();
    let service = world.id_of(SERVICE, json!({"host": "h", "name": "s"}));
    let row = world
        .create(ROUTE, json!({"hosts": ["h"], "service": {"name": "s"}}))
        .unwrap();
    assert_eq!(row.fields()["service"], json!({"id": service}));
    let row = world
        .create(ROUTE, json!({"hosts": ["h"], "service": {"id": ""}}))
        .unwrap();
    assert_eq!(row.fields()["service"], Value::Null);

    let row = world
        .create(
            ROUTE,
            json!({"hosts": ["h"], "service": {"name": "whatever", "id": service}}),
        )
        .unwrap();
    assert_eq!(row.fields()["service"], json!({"id": service}));

    let absent = Uuid::from_u128(7).to_string();
    for (link, code, message) in [
        (
            json!({"name": "x"}),
            13,
            "foreign key unresolved (service.name: the foreign key cannot be resolved with '{name=\"x\"}' for an existing 'services' entity)".to_owned(),
        ),
        (
            json!({"id": absent}),
            4,
            format!("the foreign key '{{id=\"{absent}\"}}' does not reference an existing 'services' entity."),
        ),
        (
            json!({"id": "x"}),
            2,
            "schema violation (service.id: expected a valid UUID)".to_owned(),
        ),
        (
            json!({"host": "h"}),
            2,
            "schema violation (service.id: missing primary key)".to_owned(),
        ),
    ] {
        let error = world
            .create(ROUTE, json!({"hosts": ["h"], "service": link}))
            .unwrap_err();
        assert_eq!((error.code as u8, error.message), (code, message));
    }
}

#[test]
fn delete_restricts_or_cascades() {
    let mut world = World::new();
    let service = world.id_of(SERVICE, json!({"host": "h", "name": "s"}));
    let link = json!({ "id": service });
    let route = world.id_of(ROUTE, json!({"hosts": ["h"], "service": link}));
    world
        .create(
            EntityKind::Plugin,
            json!({"name": "key-auth", "route": {"id": route}, "service": link}),
        )
        .unwrap();
    let error = world.delete(SERVICE, "s").unwrap_err();
    assert_eq!(
        error.to_json(),
        json!({
            "code": 4,
            "fields": {"@referenced_by": "routes"},
            "message": "an existing 'routes' entity references this 'services' entity",
            "name": "foreign key violation",
        })
    );
    // The route and the plugin on it.
    assert_eq!(world.delete(ROUTE, &route).unwrap(), 2);
    assert_eq!(world.delete(ROUTE, &route).unwrap(), 0);
    assert_eq!(world.delete(SERVICE, "s").unwrap(), 1);
    assert!(world.set.is_empty());
    assert!(world.set.unique.is_empty() && world.set.links.is_empty());
}

#[test]
fn a_refused_write_leaves_no_trace() {
    let mut world = World::new();
    world
        .create(SERVICE, json!({"host": "h", "name": "s"}))
        .unwrap();
    let before = world.set.clone();
    let error = world
        .create(SERVICE, json!({"host": "h", "name": "s"}))
        .unwrap_err();
    assert_eq!(error.message, "UNIQUE violation detected on '{name=\"s\"}'");
    assert!(EntitySet::difference(&before, &world.set).is_empty());
}

#[test]
fn names_are_free_again_after_a_change() {
    let mut world = World::new();
    world
        .create(SERVICE, json!({"host": "h", "name": "a"}))
        .unwrap();
    world.patch(SERVICE, "a", json!({"name": "b"})).unwrap();
    world
        .create(SERVICE, json!({"host": "h", "name": "a"}))
        .unwrap();
    assert_eq!(
        world
            .patch(SERVICE, "a", json!({"name": "b"}))
            .unwrap_err()
            .status(),
        409
    );
}

#[test]
fn pages_follow_ids_and_tags() {
    let mut world = World::new();
    for index in 0..7 {
        let tags = if index % 2 == 0 {
            json!(["even", "all"])
        } else {
            json!(["all"])
        };
        world
            .create(
                SERVICE,
                json!({"host": "h", "name": format!("s{index}"), "tags": tags}),
            )
            .unwrap();
    }
    let names = |page: &Page| -> Vec<String> {
        page.rows
            .iter()
            .map(|row| row.fields()["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut query = PageQuery {
        size: 3,
        ..PageQuery::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = world.set.page(SERVICE, &query);
        seen.extend(names(&page));
        query.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    for (filter, expected) in [
        ("all,even", vec!["s0", "s2", "s4", "s6"]),
        ("even/nope", vec!["s0", "s2", "s4", "s6"]),
        ("all,nope", vec![]),
    ] {
        let query = PageQuery {
            tags: Some(TagFilter::parse(filter).unwrap()),
            ..PageQuery::default()
        };
        assert_eq!(
            names(&world.set.page(SERVICE, &query)),
            expected,
            "{filter}"
        );
    }
    let tagged = world.set.tagged(Some("even"), None, 3);
    assert_eq!(tagged.len(), 3);
    assert_eq!(world.set.tagged(Some("even"), tagged.last(), 3).len(), 1);
    assert_eq!(world.set.tagged(None, None, 100).len(), 11);
}

#[test]
fn tag_filters_refuse_in_known_words() {
    for (text, message) in [
        ("", "cannot be null"),
        ("a,b/c", "invalid filter syntax"),
        ("a,,b", "invalid filter syntax"),
        ("1,2,3,4,5,6", "cannot query more than 5 tags"),
        (
            "a\u{7}",
            "must only contain printable ascii (except `,` and `/`) or valid utf-8",
        ),
    ] {
        let error = TagFilter::parse(text).unwrap_err();
        assert_eq!(error.message, format!("invalid option (tags: {message})"));
        assert!(error.to_json().get("options").is_some());
    }
}

#[test]
fn targets_are_found_by_address_and_shown_newest_first() {
    let mut world = World::new();
    let upstream = world
        .create(EntityKind::Upstream, json!({"name": "u"}))
        .unwrap()
        .id;
    for name in ["a", "b", "c"] {
        world.now_millis += 1000;
        let given = json!({"target": name, "upstream": {"id": upstream}});
        world.create(EntityKind::Target, given).unwrap();
    }
    let query = PageQuery {
        size: 2,
        parent: Some(("upstream", upstream)),
        ..PageQuery::default()
    };
    let page = world.set.page(EntityKind::Target, &query);
    let names: Vec<Value> = page
        .rows
        .iter()
        .map(|row| row.fields()["target"].clone())
        .collect();
    assert_eq!(names, ["c:8000", "b:8000"]);
    let rest = PageQuery {
        after: page.next,
        ..query
    };
    assert_eq!(world.set.page(EntityKind::Target, &rest).rows.len(), 1);

    let key = RowKey::read(EntityKind::Target.definition(), "B").unwrap();
    assert!(
        world
            .set
            .find(EntityKind::Target, &key, Some(upstream))
            .is_some()
    );
    assert!(world.set.find(EntityKind::Target, &key, None).is_none());
}

#[test]
fn certificates_and_their_names_change_together() {
    let mut world = World::new();
    let pair = SelfSigned {
        algorithm: Algorithm::EcdsaP256,
        common_name: "a.test",
        dns_names: &[],
        addresses: &[],
        authority: false,
        not_before: NOW_SECONDS,
        days: 1,
    }
    .generate()
    .unwrap();
    let with = |snis: Value| json!({"cert": pair.certificate, "key": pair.key, "snis": snis});
    let kind = EntityKind::Certificate;
    let row = world
        .create(kind, with(json!(["b.test", "a.test"])))
        .unwrap();
    assert!(row.fields().get("snis").is_none());
    let shown = world.set.show(&row, world.now_millis, &world.catalog);
    assert_eq!(shown["snis"], json!(["a.test", "b.test"]));
    assert_eq!(world.set.certificate_of_sni("a.test").unwrap().id, row.id);

    let id = row.id.to_string();
    for (snis, message) in [
        (
            json!(["a.test"]),
            format!(
                "schema violation (snis: a.test already associated with existing certificate '{id}')"
            ),
        ),
        (
            json!(["c.test", "c.test"]),
            "schema violation (snis: c.test is duplicated)".to_owned(),
        ),
        (
            json!(["127.0.0.1"]),
            "schema violation (snis.1: must not be an IP)".to_owned(),
        ),
    ] {
        assert_eq!(world.create(kind, with(snis)).unwrap_err().message, message);
    }
    world.patch(kind, &id, json!({"tags": ["x"]})).unwrap();
    assert_eq!(world.set.snis_of(row.id), ["a.test", "b.test"]);
    world
        .patch(kind, &id, json!({"snis": ["b.test", "c.test"]}))
        .unwrap();
    assert_eq!(world.set.snis_of(row.id), ["b.test", "c.test"]);
    let written = world
        .upsert(
            kind,
            &id,
            json!({"cert": pair.certificate, "key": pair.key}),
        )
        .unwrap();
    assert_eq!(world.set.snis_of(row.id), Vec::<String>::new());
    assert_eq!(written.changes.len(), 3);

    world.patch(kind, &id, json!({"snis": ["d.test"]})).unwrap();
    assert_eq!(world.delete(kind, &id).unwrap(), 2);
    assert!(world.set.is_empty());
}

#[test]
fn keys_end() {
    let mut world = World::new();
    let consumer = world.id_of(EntityKind::Consumer, json!({"username": "ann"}));
    let kind = EntityKind::KeyAuthCredential;
    let row = world
        .create(
            kind,
            json!({"consumer": {"id": consumer}, "key": "k", "ttl": 10}),
        )
        .unwrap();
    world.now_millis += 4000;
    let ttl = |world: &World, row: &Row| {
        world.set.show(row, world.now_millis, &world.catalog)["ttl"].clone()
    };
    assert_eq!(ttl(&world, &row), 7);
    // Another field keeps the end; a new ttl starts again; zero lives for ever.
    let row = world.patch(kind, "k", json!({"tags": ["x"]})).unwrap();
    assert_eq!(ttl(&world, &row), 7);
    let row = world.patch(kind, "k", json!({"ttl": 20})).unwrap();
    assert_eq!(ttl(&world, &row), 21);
    let mut ended = world.set.clone();
    let end = row.expires_at.unwrap();
    assert!(ended.remove_expired(end - 1).is_empty());
    assert_eq!(ended.remove_expired(end).len(), 1);
    // What has ended makes room.
    let mut later = World::new();
    later.set = world.set.clone();
    later.now_millis = world.now_millis + 60_000;
    let again = later
        .write(|set, context| {
            set.create(
                kind,
                object(json!({"consumer": {"id": consumer}, "key": "k"})),
                context,
            )
        })
        .unwrap();
    assert_eq!(again.changes.len(), 2);
    let row = world.patch(kind, "k", json!({"ttl": 0})).unwrap();
    assert_eq!(ttl(&world, &row), Value::Null);
    let error = world.patch(kind, "k", json!({"ttl": -1})).unwrap_err();
    assert_eq!(
        error.message,
        "schema violation (ttl: value should be between 0 and 100000000)"
    );
}

#[test]
fn changes_replay_elsewhere() {
    let mut world = World::new();
    let mut follower = EntitySet::new();
    for index in 0..50 {
        let written = world
            .write(|set, context| {
                let given = json!({"host": "h", "name": format!("s{}", index % 7), "tags": ["t"]});
                let key = RowKey::Name(format!("s{}", index % 7));
                set.upsert(SERVICE, &key, None, object(given), context)
            })
            .unwrap();
        for change in &written.changes {
            follower.apply(change);
        }
    }
    assert!(EntitySet::difference(&world.set, &follower).is_empty());
    assert_eq!(follower.unique, world.set.unique);
    assert_eq!(follower.tags, world.set.tags);
    let stored: Vec<Row> = world
        .set
        .all_rows()
        .map(|row| Row::from_stored(row.kind, row.id, row.json.clone()).unwrap())
        .collect();
    let mut restored = EntitySet::new();
    for row in stored {
        restored.put(row.into());
    }
    assert_eq!(EntitySet::difference(&EntitySet::new(), &restored).len(), 7);
    assert_eq!(restored.links, world.set.links);
    assert!(Row::from_stored(SERVICE, Uuid::nil(), "[]".into()).is_err());
}

#[test]
fn an_entity_can_be_checked_alone() {
    let mut world = World::new();
    for (kind, given, complaint) in [
        (
            ROUTE,
            json!({"hosts": ["h"], "service": {"name": "nope"}}),
            None,
        ),
        (SERVICE, json!({"url": "http://h"}), None),
        (
            ROUTE,
            json!({"hosts": ["h"], "sources": [{"port": 1}]}),
            Some(
                "schema violation (sources: cannot set 'sources' when 'protocols' is 'http' or 'https')",
            ),
        ),
        (
            EntityKind::Plugin,
            json!({"name": "key-auth", "config": {"x": 1}}),
            Some("schema violation (config.x: unknown field)"),
        ),
    ] {
        let outcome =
            world.write(|_, context| EntitySet::validate_alone(kind, object(given), context));
        let message = outcome.err().map(|error| error.message);
        assert_eq!(message.as_deref(), complaint);
    }
    assert!(world.set.is_empty());
}

#[test]
fn odd_values_are_refused_in_every_field() {
    let odd = [
        json!(null),
        json!(""),
        json!("\u{0}é/*~(%"),
        json!("*"),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(true),
        json!([]),
        json!([null, [], {}]),
        json!({}),
        json!({"id": 1, "name": []}),
        json!({"": {"": null}}),
    ];
    for kind in EntityKind::ALL {
        let definition = kind.definition();
        let names = definition
            .schema
            .fields
            .iter()
            .chain(&definition.shorthands)
            .map(|field| field.name.as_ref());
        for name in names.chain(["unknown"]) {
            for value in &odd {
                let mut world = World::new();
                let given = json!({ name: value, "name": "key-auth", "host": "h", "hosts": ["h"] });
                match world.create(*kind, given) {
                    Ok(row) => assert_eq!(world.set.row(*kind, row.id), Some(&row)),
                    Err(error) => assert!(
                        matches!(error.status(), 400 | 409) && !error.message.is_empty(),
                        "{kind}.{name} = {value}: {error}"
                    ),
                }
                let mut form = object(json!({ name: value }));
                definition.schema.coerce(&mut form);
            }
        }
    }
}

#[test]
fn indexes_follow_any_sequence_of_writes() {
    let mut world = World::new();
    // A fixed linear congruential sequence: the same writes on every run.
    let mut state = 1_u64;
    let mut pick = |bound: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let (mut done, mut refused) = (0, 0);
    for _ in 0..1500 {
        let name = format!("n{}", pick(6));
        let tags = json!([format!("t{}", pick(3))]);
        let link = json!({ "name": format!("n{}", pick(6)) });
        let outcome = match pick(6) {
            0 => world
                .upsert(SERVICE, &name, json!({"host": "h", "tags": tags}))
                .map(|_| ()),
            1 => world
                .upsert(
                    ROUTE,
                    &name,
                    json!({"hosts": ["h"], "service": link, "tags": tags}),
                )
                .map(|_| ()),
            2 => world
                .patch(
                    ROUTE,
                    &name,
                    json!({"name": format!("n{}", pick(6)), "service": link}),
                )
                .map(|_| ()),
            3 => world
                .create(
                    EntityKind::Plugin,
                    json!({"name": "key-auth", "route": link, "instance_name": name}),
                )
                .map(|_| ()),
            4 => world.delete(ROUTE, &name).map(|_| ()),
            _ => world.delete(SERVICE, &name).map(|_| ()),
        };
        match outcome {
            Ok(()) => done += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(done > 300 && refused > 100, "{done} {refused}");
    let mut rebuilt = EntitySet::new();
    for row in world.set.all_rows() {
        rebuilt.put(row.clone());
        for key in &row.kind.definition().foreign_keys {
            if let Some(parent) = index::linked(&row.fields(), key.field) {
                assert!(world.set.row(key.parent, parent).is_some());
            }
        }
    }
    assert_eq!(rebuilt.unique, world.set.unique);
    assert_eq!(rebuilt.links, world.set.links);
    assert_eq!(rebuilt.tags, world.set.tags);
}
