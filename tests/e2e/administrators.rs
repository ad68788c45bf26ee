//! Who may administer: passwords, and what a reload changes of them.

use argon2::password_hash::SaltString;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64::Engine;

use crate::harness::{Gateway, Request, eventually};

/// A line of a users file, hashed as cheaply as argon2 allows.
fn line(user: &str, password: &str) -> String {
    let salt = SaltString::encode_b64(b"a test's salt").expect("a salt");
    let cheap = Params::new(8, 1, 1, None).expect("parameters");
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap)
        .hash_password(password.as_bytes(), &salt)
        .expect("a hash");
    format!("{user}:{hash}\n")
}

fn asks_as(gateway: &Gateway, user: &str, password: &str) -> u16 {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    gateway
        .admin()
        .request("GET", "/services")
        .header("Authorization", &format!("Basic {pair}"))
        .send()
        .status
}

#[test]
fn passwords_are_demanded_and_a_reload_takes_them_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("users");
    let text = format!("# who\n{}{}", line("ann", "a"), line("bob", "b"));
    std::fs::write(&file, text).expect("a users file");
    let gateway = Gateway::builder()
        .setting("admin_auth", "basic")
        .setting("admin_users", file.to_str().expect("a path in UTF-8"))
        .setting("admin_gui_listen", "off")
        .start();
    let nobody = gateway.admin().get("/services").expect_status(401);
    assert!(
        nobody
            .header("WWW-Authenticate")
            .is_some_and(|offer| offer.starts_with("Basic "))
    );
    assert_eq!(asks_as(&gateway, "ann", "a"), 200);
    assert_eq!(asks_as(&gateway, "bob", "b"), 200);
    assert_eq!(asks_as(&gateway, "ann", "b"), 401);
    // Monitoring needs no password.
    Request::new(gateway.status(), "GET", "/status/ready")
        .send()
        .expect_status(200);

    std::fs::write(&file, line("bob", "b")).expect("a users file");
    let reload = gateway.run(&["reload"]);
    assert!(reload.status.success(), "{reload:?}");
    eventually("ann is locked out", || {
        (asks_as(&gateway, "ann", "a") == 401).then_some(())
    });
    assert_eq!(asks_as(&gateway, "bob", "b"), 200);

    std::fs::write(&file, "bob:not a hash\n").expect("a users file");
    let refused = gateway.run(&["reload"]);
    assert!(!refused.status.success());
    assert_eq!(asks_as(&gateway, "bob", "b"), 200, "the old ones stay");
}

#[test]
fn credentials_nobody_asked_for_are_ignored() {
    let gateway = Gateway::stored();
    assert_eq!(asks_as(&gateway, "anybody", "anything"), 200);
}
