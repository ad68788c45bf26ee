//! End to end: the real binary, real connections, scripted and real counterparts.
//!
//! One module for each topic; each test is a sentence about what a client sees. `harness` has the parts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

mod admin;
mod admin_noise;
mod admin_requests;
mod administration_tls;
mod administrators;
mod apigee_bundles;
mod apigee_caches;
mod apigee_flows;
mod apigee_jwt;
mod apigee_logging;
mod apigee_oauth;
mod apigee_properties;
mod apigee_refusals;
mod apigee_scripts;
mod apigee_targets;
mod apigee_tools;
mod application;
mod authentication;
mod balancing;
mod connect;
mod connect_agent;
mod connect_edge;
mod connect_faults;
mod connect_requests;
mod connect_walk;
mod declarative;
mod durability;
mod failures;
mod grpc;
mod grpc_gateway;
mod grpc_web;
mod headers;
mod http2;
mod load_shaping;
mod mutual_tls;
mod newcomer;
mod observing;
mod operation;
mod probes;
mod proxy_protocol;
mod proxying;
mod resilience;
mod routing;
mod settings;
mod stream_hello;
mod stream_plugins;
mod streams;
mod tls;
mod traffic;
mod upstream_tls;
mod websocket;
mod websocket_frames;
