//! The Admin API through its router, in this process, on a store in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod apigee;
mod clients;
mod crud;
mod documents;
mod errors;
mod lists;
mod special_endpoints;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt;
use uuid::Uuid;

use super::dispatch::{self, Front};
use super::guard::Guard;
use super::node::{
    AddressHealth, BoundListener, ClusterHealth, EndpointHealth, Identity, ListenerRole, Node,
    Traffic,
};
use super::special;
use super::state::Admin;
use crate::control::ControlPlane;
use crate::control::store::memory::MemoryStore;
use crate::settings::{Document, Form, Settings};

/// A node that serves whatever is written, without any network.
struct StillNode {
    identity: Identity,
    level: Mutex<String>,
    draining: Mutex<bool>,
    health: Mutex<Option<ClusterHealth>>,
}

impl Node for StillNode {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn listeners(&self) -> Vec<BoundListener> {
        vec![BoundListener {
            role: ListenerRole::Proxy,
            address: "127.0.0.1:40001".parse().unwrap(),
            flags: serde_json::Map::from_iter([("ssl".to_owned(), true.into())]),
        }]
    }
    fn traffic(&self) -> Traffic {
        Traffic {
            total_requests: 7,
            ..Traffic::default()
        }
    }
    fn serving_revision(&self) -> Option<u64> {
        Some(3)
    }
    fn serving(&self) -> tokio::sync::watch::Receiver<Option<u64>> {
        tokio::sync::watch::channel(Some(u64::MAX)).1
    }
    fn readiness(&self) -> Result<(), &'static str> {
        if *self.draining.lock() {
            Err("draining")
        } else {
            Ok(())
        }
    }
    fn drain(&self) {
        *self.draining.lock() = true;
    }
    fn metrics(&self) -> String {
        "kong_nginx_requests_total 7\n".to_owned()
    }
    fn cluster_health(&self, _: Uuid) -> Option<ClusterHealth> {
        self.health.lock().clone()
    }
    fn set_health(&self, _: Uuid, _: Uuid, _: Option<SocketAddr>, _: bool) -> Result<(), String> {
        Err("health checks are not supported by this version".to_owned())
    }
    fn log_level(&self) -> String {
        self.level.lock().clone()
    }
    fn set_log_level(&self, level: &str, _: Option<u64>) -> Result<(), String> {
        level.clone_into(&mut self.level.lock());
        Ok(())
    }
    fn timers(&self) -> (u64, u64) {
        (0, 1)
    }
}

/// An Admin API to talk to.
struct Api {
    router: Router,
    admin: Arc<Admin>,
    node: Arc<StillNode>,
}

/// An answer, read.
struct Reply {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Reply {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The value, after checking the status.
    #[track_caller]
    fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }
}

impl Api {
    fn new() -> Self {
        Self::with_settings("")
    }

    fn db_less() -> Self {
        Self::with_settings("database = \"off\"\n")
    }

    fn with_settings(text: &str) -> Self {
        let document = Document {
            name: "test.toml",
            form: Form::Toml,
            text,
        };
        let (settings, _) = Settings::parse(Some(document), &[]).unwrap();
        let store = Arc::new(MemoryStore::forgetful());
        let control = ControlPlane::start(store, Box::new(|_| {})).unwrap();
        let node = Arc::new(StillNode {
            identity: Identity {
                node_id: Uuid::from_u128(1),
                hostname: "gate".to_owned(),
                pid: 42,
            },
            level: Mutex::new("notice".to_owned()),
            draining: Mutex::new(false),
            health: Mutex::new(None),
        });
        let admin = Arc::new(Admin::new(
            Arc::new(control),
            Arc::new(crate::plugins::catalog()),
            Arc::new(settings),
            node.clone(),
        ));
        let front = Front {
            admin: admin.clone(),
            table: special::table(admin.entities),
            guard: Guard::new("gate"),
        };
        Self {
            router: dispatch::router(front, super::apigee::router(admin.clone())),
            admin,
            node,
        }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        Reply::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn ask(&self, method: &str, path: &str, content_type: &str, body: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "").await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.ask("DELETE", path, "", "").await
    }

    async fn form(&self, method: &str, path: &str, body: &str) -> Reply {
        self.ask(method, path, "application/x-www-form-urlencoded", body)
            .await
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.ask(method, path, "application/json", &body.to_string())
            .await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.json("POST", path, &body).await
    }

    /// Makes an entity and answers with it.
    async fn made(&self, path: &str, body: Value) -> Value {
        self.post(path, body).await.expect(201)
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

/// An endpoint with one address.
fn endpoint(target: &Value, healthy: bool) -> EndpointHealth {
    EndpointHealth {
        id: id(target).parse().unwrap(),
        host: "127.0.0.1".to_owned(),
        port: 9000,
        weight: 100,
        dns: "A".to_owned(),
        addresses: vec![AddressHealth {
            address: "127.0.0.1:9000".parse().unwrap(),
            weight: 100,
            healthy,
        }],
    }
}
