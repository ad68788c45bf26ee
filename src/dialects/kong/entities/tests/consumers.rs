//! Consumers and their credentials.

use serde_json::json;

use super::refused;
use crate::dialects::kong::entities::*;
use crate::dialects::kong::entity_set::testing::World;

#[test]
fn consumer_rules() {
    let mut world = World::new();
    refused(
        &mut world,
        EntityKind::Consumer,
        json!({}),
        json!({"@entity": ["at least one of these fields must be non-empty: 'custom_id', 'username'"]}),
    );
    world
        .create(
            EntityKind::Consumer,
            json!({"username": "ann", "custom_id": "1"}),
        )
        .unwrap();
    let error = world
        .create(
            EntityKind::Consumer,
            json!({"username": "bob", "custom_id": "1"}),
        )
        .unwrap_err();
    assert_eq!(error.status(), 409);
    assert_eq!(
        error.message,
        "UNIQUE violation detected on '{custom_id=\"1\"}'"
    );
    let error = world
        .patch(
            EntityKind::Consumer,
            "ann",
            json!({"username": null, "custom_id": null}),
        )
        .unwrap_err();
    assert_eq!(
        error.message,
        "schema violation (when updating, at least one of these fields must be non-empty: 'custom_id', 'username')"
    );
}

#[test]
fn credentials_are_completed() {
    let mut world = World::new();
    let consumer = world.id_of(EntityKind::Consumer, json!({"username": "ann"}));
    let link = json!({ "id": consumer });
    let row = world
        .create(EntityKind::KeyAuthCredential, json!({ "consumer": link }))
        .unwrap();
    let credential: KeyAuthCredential = row.parse().unwrap();
    assert_eq!(credential.key.len(), 32);

    let row = world
        .create(
            EntityKind::BasicAuthCredential,
            json!({"consumer": link, "username": "ann", "password": "secret"}),
        )
        .unwrap();
    let stored: BasicAuthCredential = row.parse().unwrap();
    let hash = BasicAuthCredential::hash("secret", &stored.consumer.id);
    assert_eq!(hash.len(), 40);
    assert_eq!(stored.password, hash);
    // Another field leaves the stored hash alone.
    let patched = world
        .patch(
            EntityKind::BasicAuthCredential,
            "ann",
            json!({"tags": ["x"]}),
        )
        .unwrap();
    assert_eq!(
        patched.parse::<BasicAuthCredential>().unwrap().password,
        hash
    );

    let acl = json!({"consumer": link, "group": "admins"});
    world
        .create(EntityKind::Acl, acl.clone())
        .unwrap()
        .parse::<Acl>()
        .unwrap();
    let error = world.create(EntityKind::Acl, acl).unwrap_err();
    assert_eq!(
        error.message,
        format!(
            "UNIQUE violation detected on '{{consumer={{id=\"{consumer}\"}},group=\"admins\"}}'"
        )
    );
}
