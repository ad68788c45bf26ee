//! Nothing that was answered is lost, whatever is killed when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::{Gateway, Request, eventually};

#[test]
fn everything_answered_is_there_after_a_kill_in_the_middle_of_writes() {
    let mut gateway = Gateway::stored();
    let mut answered: Vec<String> = Vec::new();
    for round in 0..3 {
        let admin = gateway.admin().address;
        let done = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (done, stop) = (done.clone(), stop.clone());
                std::thread::spawn(move || {
                    for number in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let name = format!("r{round}-w{writer}-{number}");
                        let body = json!({"name": name, "url": "http://127.0.0.1:1/"});
                        let answer = Request::new(admin, "POST", "/services")
                            .json(&body)
                            .try_send();
                        match answer {
                            Ok(answer) if answer.status == 201 => done.lock().unwrap().push(name),
                            Ok(answer) => panic!("{} {}", answer.status, answer.text()),
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        eventually("some writes are answered", || {
            (done.lock().unwrap().len() > 40).then_some(())
        });
        let again = gateway.kill();
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().expect("a writer that saw no refusal");
        }
        answered.extend(done.lock().unwrap().drain(..));
        gateway = again.start();
        let mut found = std::collections::HashSet::new();
        let mut next = Some("/services?size=1000".to_owned());
        while let Some(path) = next {
            let page = gateway.admin().get(&path).expect_status(200).json();
            for service in page["data"].as_array().expect("a list") {
                assert_eq!(service["path"], "/", "no half-applied change");
                found.insert(service["name"].as_str().expect("a name").to_owned());
            }
            next = page["next"].as_str().map(str::to_owned);
        }
        for name in &answered {
            assert!(
                found.contains(name),
                "{name} was answered and is lost (round {round})"
            );
        }
        // At most one unanswered write for each writer may have got through.
        assert!(found.len() <= answered.len() + 4 * (round + 1));
    }
}

#[test]
fn a_restart_serves_what_was_configured() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin.create(
        "/services",
        json!({"name": "s", "url": "http://127.0.0.1:1", "retries": 0}),
    );
    admin.create("/services/s/routes", json!({"name": "r", "paths": ["/x"]}));
    admin.create("/services/s/plugins", json!({"name": "key-auth"}));
    admin.create("/consumers", json!({"username": "c"}));
    admin.create("/consumers/c/key-auth", json!({"key": "k"}));
    let before = admin.get("/routes/r").json();
    let gateway = gateway.kill().start();
    assert_eq!(
        gateway.admin().get("/routes/r").expect_status(200).json(),
        before
    );
    gateway.get("/x").send().expect_status(401);
    gateway
        .get("/x")
        .header("apikey", "k")
        .send()
        .expect_status(502);
}

#[test]
fn two_instances_do_not_share_a_folder() {
    let gateway = Gateway::stored();
    let prefix = gateway.prefix();
    let second = Gateway::builder()
        .setting("prefix", prefix.to_str().expect("UTF-8"))
        .try_start();
    let (status, errors) = second.err().expect("the folder is taken");
    assert_eq!(status.code(), Some(1), "{errors}");
    gateway.admin().get("/services").expect_status(200);
}
