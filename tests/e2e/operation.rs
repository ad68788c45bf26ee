//! Running it: start, stop, upgrade without a failed request, commands, configuration errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Origin, Reply, Request, eventually, one_service};

fn all_routes() -> Value {
    json!([{"name": "all", "paths": ["/"]}])
}

#[test]
fn a_graceful_stop_finishes_what_is_in_flight_and_then_ends() {
    let origin = Origin::answering(|_| Reply::ok("finished").delayed(Duration::from_millis(700)));
    let mut gateway = Gateway::with(&one_service(&origin.url(), &all_routes()));
    let mut idle = Client::connect(gateway.proxy());
    idle.exchange("GET /missing HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut client = Client::connect(gateway.proxy());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request arrives", || {
        (origin.received().len() >= 2).then_some(())
    });
    let proxy = gateway.proxy();
    gateway.signal("TERM");
    assert_eq!(client.read_response().expect_status(200).text(), "finished");
    // It waits for nothing else: the idle client would be given five minutes.
    let status = gateway.wait();
    assert!(status.success(), "{status}");
    assert!(idle.is_closed());
    assert!(
        Request::new(proxy, "GET", "/").try_send().is_err(),
        "nobody listens any more"
    );
}

#[test]
fn an_idle_gateway_stops_at_once() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::with(r#"{"_format_version": "3.0"}"#);
        gateway.signal(signal);
        assert!(gateway.wait().success(), "{signal}");
    }
}

#[test]
fn an_upgrade_fails_no_request() {
    let origin = Origin::answering(|_| Reply::ok("x"));
    // The ports must stay known over the upgrade: the first instance chooses, the second inherits.
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin.create("/services", json!({"name": "s", "url": origin.url()}));
    admin.create("/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    let address = gateway.proxy();
    let (stop, good, bad) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(std::sync::Mutex::new(Vec::<String>::new())),
    );
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (stop, good, bad) = (stop.clone(), good.clone(), bad.clone());
            std::thread::spawn(move || {
                // Half of them keep their connection until they are told that it ends.
                let mut kept: Option<Client> = None;
                while !stop.load(Ordering::SeqCst) {
                    let keep = worker % 2 == 0;
                    let mut client = match kept.take() {
                        Some(client) => client,
                        None => Client::connect(address),
                    };
                    let request = if keep {
                        "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
                    } else {
                        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                    };
                    let outcome = client
                        .try_send(request)
                        .and_then(|()| client.try_read_response_to("GET"));
                    match outcome {
                        Ok(answer) if answer.status == 200 => {
                            good.fetch_add(1, Ordering::SeqCst);
                            let ends = answer
                                .header("Connection")
                                .is_some_and(|value| value.eq_ignore_ascii_case("close"));
                            if keep && !ends {
                                kept = Some(client);
                            }
                        }
                        Ok(answer) => bad
                            .lock()
                            .unwrap()
                            .push(format!("status {}", answer.status)),
                        Err(error) => bad.lock().unwrap().push(format!("{error} (kept: {keep})")),
                    }
                }
            })
        })
        .collect();
    eventually("traffic flows", || {
        (good.load(Ordering::SeqCst) > 200).then_some(())
    });
    let upgraded = gateway.run(&["upgrade"]);
    let before = good.load(Ordering::SeqCst);
    eventually("traffic goes on", || {
        (good.load(Ordering::SeqCst) > before + 200).then_some(())
    });
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().expect("a worker");
    }
    // The new instance is nobody's child: it has to be stopped by its own command.
    let stopped = gateway.run(&["stop"]);
    assert!(
        upgraded.status.success(),
        "{}",
        String::from_utf8_lossy(&upgraded.stderr)
    );
    assert!(
        stopped.status.success(),
        "{}",
        String::from_utf8_lossy(&stopped.stderr)
    );
    let bad = bad.lock().unwrap();
    assert!(
        bad.is_empty(),
        "{} failed of {}: {:?}",
        bad.len(),
        good.load(Ordering::SeqCst),
        bad.first()
    );
}

#[test]
fn health_tells_whether_the_instance_runs() {
    let mut gateway = Gateway::stored();
    let healthy = gateway.run(&["health"]);
    assert!(
        healthy.status.success(),
        "{}",
        String::from_utf8_lossy(&healthy.stderr)
    );
    let stopped = gateway.run(&["stop"]);
    assert!(
        stopped.status.success(),
        "{}",
        String::from_utf8_lossy(&stopped.stderr)
    );
    gateway.wait();
    let dead = gateway.run(&["health"]);
    assert_eq!(dead.status.code(), Some(1));
    let again = gateway.run(&["stop"]);
    assert_eq!(again.status.code(), Some(1));
}

#[test]
fn a_draining_instance_is_not_ready() {
    let gateway = Gateway::stored();
    let drain = Request::new(gateway.status(), "POST", "/status/ready")
        .json(&json!({"status": "draining"}))
        .send();
    drain.expect_status(204);
    let answer = Request::new(gateway.status(), "GET", "/status/ready")
        .send()
        .expect_status(503);
    assert_eq!(answer.message(), "draining");
    gateway.get("/").send().expect_status(404);
}

#[test]
fn a_wrong_setting_stops_the_start_and_is_named() {
    for (key, value, parts) in [
        ("wrokers", "2", &["wrokers", "workers"][..]),
        ("workers", "many", &["workers"]),
        ("proxy_listen", "nonsense", &["proxy_listen"]),
        ("database", "postgres", &["database", "embedded"]),
        ("trusted_ips", "300.1.1.1", &["trusted_ips"]),
        ("log_level", "loud", &["log_level"]),
        (
            "router_flavor",
            "vanilla",
            &["router_flavor", "traditional_compatible"],
        ),
    ] {
        let outcome = Gateway::builder().setting(key, value).try_start();
        let Err((status, errors)) = outcome else {
            panic!("{key} = {value} starts");
        };
        assert_eq!(status.code(), Some(1), "{key}: {errors}");
        for part in parts {
            assert!(
                errors.to_ascii_lowercase().contains(part),
                "{part} in {errors}"
            );
        }
    }
}

#[test]
fn a_taken_port_is_named() {
    let origin = Origin::echo();
    let listen = format!("{}, 127.0.0.1:0 ssl", origin.address);
    let outcome = Gateway::builder()
        .setting("proxy_listen", &listen)
        .try_start();
    let (status, errors) = outcome.err().expect("the port is taken");
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains(&origin.address.to_string()), "{errors}");
}

#[test]
fn bad_usage_has_its_own_status() {
    let gateway = Gateway::stored();
    assert_eq!(gateway.run(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(
        gateway.run(&["start", "--no-such-option"]).status.code(),
        Some(2)
    );
    let version = gateway.run(&["version"]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let completions = gateway.run(&["completions", shell]);
        assert!(
            completions.status.success() && !completions.stdout.is_empty(),
            "{shell}"
        );
    }
    let manual = gateway.run(&["man"]);
    assert!(String::from_utf8_lossy(&manual.stdout).contains(".TH"));
}

#[test]
fn a_settings_file_works_in_both_forms_and_the_environment_wins() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().expect("a folder");
    let declarative = folder.path().join("kong.yml");
    std::fs::write(&declarative, one_service(&origin.url(), &all_routes())).expect("a file");
    let toml = folder.path().join("sallyport.toml");
    std::fs::write(
        &toml,
        "workers = 2\nlog_level = \"loud\"\nunknown_thing = 1\n",
    )
    .expect("a file");
    let gateway = Gateway::stored();
    let checked = gateway.run(&["check", "-c", toml.to_str().expect("UTF-8")]);
    assert_eq!(checked.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
    for part in [
        "sallyport.toml:2:",
        "log_level",
        "sallyport.toml:3:",
        "unknown_thing",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    let conf = folder.path().join("kong.conf");
    std::fs::write(&conf, "# as Kong's\nlog_level = loud  # too loud\n").expect("a file");
    let checked = gateway.run(&["check", "-c", conf.to_str().expect("UTF-8")]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("kong.conf:2:"));
}

#[test]
fn ten_thousand_routes_load_and_one_change_serves_quickly() {
    let origin = Origin::answering(|_| Reply::ok("ok"));
    let gateway = Gateway::stored();
    let routes: Vec<Value> = (0..10_000)
        .map(|number| json!({"name": format!("r{number}"), "hosts": [format!("h{number}.test")], "paths": [format!("/p{number}")]}))
        .collect();
    let file = gateway.folder().join("many.json");
    std::fs::write(&file, one_service(&origin.url(), &json!(routes))).expect("a file");
    let imported = gateway.run(&["config", "db_import", file.to_str().expect("UTF-8")]);
    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
    eventually("the last route serves", || {
        let answer = gateway.get("/p9999").host("h9999.test").send();
        (answer.status == 200).then_some(())
    });
    let admin = gateway.admin();
    admin.create(
        "/services/origin/routes",
        json!({"name": "late", "hosts": ["late.test"]}),
    );
    gateway.get("/").host("late.test").send().expect_status(200);
}

#[test]
fn an_upgrade_keeps_what_config_brought() {
    let mut gateway = Gateway::builder().setting("database", "off").start();
    let admin = gateway.admin();
    let document = json!({
        "_format_version": "3.0",
        "routes": [{"name": "brought", "paths": ["/brought"]}],
    });
    admin.post("/config", document).expect_status(201);
    let hash = |gateway: &Gateway| gateway.status_page()["configuration_hash"].clone();
    let before = hash(&gateway);
    let upgraded = gateway.run(&["upgrade"]);
    assert!(
        upgraded.status.success(),
        "{}",
        String::from_utf8_lossy(&upgraded.stderr)
    );
    gateway.wait();
    assert_eq!(hash(&gateway), before);
    gateway.get("/brought").send().expect_status(503);
    gateway.get("/else").send().expect_status(404);
    let stopped = gateway.run(&["stop"]);
    assert!(stopped.status.success());
}

#[test]
fn an_upgrade_that_cannot_start_changes_nothing() {
    let gateway = Gateway::stored();
    let file = gateway.folder().join("wrong.toml");
    std::fs::write(&file, "wrokers = 2\n").unwrap();
    let upgraded = gateway.run(&["upgrade", "-c", file.to_str().unwrap()]);
    assert_eq!(upgraded.status.code(), Some(1));
    let told = String::from_utf8_lossy(&upgraded.stderr).into_owned();
    assert!(told.contains("wrong.toml:1: "), "{told}");
    assert!(gateway.run(&["health"]).status.success());
    gateway
        .admin()
        .create("/services", json!({"name": "s", "host": "a.test"}));
}
