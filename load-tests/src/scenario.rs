//! What is measured: the table of scenarios, each with the contestants that take part.

use anyhow::{Result, bail};

use crate::bundles::Bundle;
use crate::contestant::Setup;
use crate::mesh::Hop;
use crate::origin;

/// One thing to measure.
pub(crate) struct Scenario {
    /// Name for `--scenario`.
    pub(crate) name: &'static str,
    /// One line for the report.
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    /// What nginx, HAProxy and the gateway are configured with.
    pub(crate) setup: Setup,
    /// Whether the gateway also runs with [`Setup::Plain`], to be compared with itself.
    pub(crate) own_baseline: bool,
    /// Whether the bare proxy can do this.
    pub(crate) bare: bool,
    /// The goal for the gateway, if one is set.
    pub(crate) target: Option<Target>,
    /// Whether `--smoke` runs it.
    pub(crate) smoke: bool,
}

/// How a scenario loads the proxies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// `wrk` over keep-alive connections.
    Http1 { request: Request, tls: bool },
    /// `wrk` with `Connection: close`: a connection for each request.
    NewConnection { tls: bool },
    /// `h2load` over TLS: 16 connections with 16 streams each.
    Http2,
    /// Connections that made one request and then stay idle: KiB for each.
    IdleConnections { tls: bool },
    /// WebSocket tunnels in which nobody speaks: KiB for each.
    IdleTunnels,
    /// Resident memory of the process tree after some requests, in MB.
    ResidentMemory,
}

/// What each request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: &'static str,
    pub(crate) body_bytes: usize,
    /// Extra request headers.
    pub(crate) headers: usize,
    /// Connections that `wrk` keeps.
    pub(crate) connections: u32,
}

/// A goal of the project for the gateway.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// At most this ratio to nginx in the same round.
    ToNginx(f64),
    /// At most this ratio to Consul's own proxy in the same round.
    ToBuiltIn(f64),
    /// At most this ratio to the gateway's own plain figure in the same round.
    ToOwn(f64),
    /// At most so many CPU microseconds more than the gateway's own plain figure in the same round.
    AddedToOwn(f64),
    /// Less than this, in the unit of the scenario.
    Below(f64),
}

const SMALL: Request = Request {
    path: "/small",
    body_bytes: origin::SMALL_BYTES,
    headers: 0,
    connections: 32,
};

/// Every scenario, in the order of the report.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "small",
        title: "small body, HTTP/1.1 keep-alive",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: Some(Target::ToNginx(1.35)),
        smoke: true,
    },
    Scenario {
        name: "body-16k",
        title: "16 KiB body",
        load: Load::Http1 {
            request: Request {
                path: "/16k",
                body_bytes: origin::MIDDLE_BYTES,
                ..SMALL
            },
            tls: false,
        },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: Some(Target::ToNginx(1.1)),
        smoke: false,
    },
    Scenario {
        name: "body-1m",
        title: "1 MiB body",
        load: Load::Http1 {
            request: Request {
                path: "/1m",
                body_bytes: origin::LARGE_BYTES,
                connections: 8,
                ..SMALL
            },
            tls: false,
        },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: None,
        smoke: true,
    },
    Scenario {
        name: "headers",
        title: "20 headers each way",
        load: Load::Http1 {
            request: Request {
                path: "/headers",
                headers: 20,
                ..SMALL
            },
            tls: false,
        },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: None,
        smoke: false,
    },
    Scenario {
        name: "tls",
        title: "TLS 1.3 keep-alive",
        load: Load::Http1 {
            request: SMALL,
            tls: true,
        },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: Some(Target::ToNginx(1.1)),
        smoke: true,
    },
    Scenario {
        name: "http2",
        title: "HTTP/2 over TLS, 16 × 16 streams",
        load: Load::Http2,
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: Some(Target::ToNginx(1.15)),
        smoke: true,
    },
    Scenario {
        name: "routes-10k",
        title: "10,000 host and path routes",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::ManyRoutes,
        own_baseline: true,
        bare: false,
        target: Some(Target::ToOwn(1.05)),
        smoke: true,
    },
    Scenario {
        name: "plugins",
        title: "key-auth, rate-limiting, correlation-id (nginx, HAProxy: without)",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Plugins,
        own_baseline: true,
        bare: false,
        target: Some(Target::ToOwn(1.15)),
        smoke: true,
    },
    Scenario {
        name: "apigee-pass",
        title: "a bundle that only passes on (nginx, HAProxy: a plain route)",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Bundle(Bundle::Pass),
        own_baseline: true,
        bare: false,
        target: Some(Target::ToOwn(1.2)),
        smoke: false,
    },
    Scenario {
        name: "apigee-policies",
        title: "a bundle with AssignMessage, VerifyAPIKey, SpikeArrest (nginx, HAProxy: without)",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Bundle(Bundle::Policies),
        own_baseline: true,
        bare: false,
        target: Some(Target::ToOwn(1.5)),
        smoke: false,
    },
    Scenario {
        name: "apigee-js",
        title: "a bundle with ten lines of JavaScript (nginx, HAProxy: without)",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Bundle(Bundle::Script),
        own_baseline: true,
        bare: false,
        target: Some(Target::AddedToOwn(60.0)),
        smoke: false,
    },
    Scenario {
        name: "connect",
        title: "new TCP connection for each request",
        load: Load::NewConnection { tls: false },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: None,
        smoke: false,
    },
    Scenario {
        name: "stream-small",
        title: "TCP stream: small exchanges over open connections",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Stream,
        own_baseline: false,
        bare: false,
        target: Some(Target::ToNginx(1.0)),
        smoke: true,
    },
    Scenario {
        name: "stream-1m",
        title: "TCP stream: 1 MiB answers",
        load: Load::Http1 {
            request: Request {
                path: "/1m",
                body_bytes: origin::LARGE_BYTES,
                connections: 8,
                ..SMALL
            },
            tls: false,
        },
        setup: Setup::Stream,
        own_baseline: false,
        bare: false,
        target: Some(Target::ToNginx(1.0)),
        smoke: true,
    },
    Scenario {
        name: "stream-connect",
        title: "TCP stream: a connection for each exchange",
        load: Load::NewConnection { tls: false },
        setup: Setup::Stream,
        own_baseline: false,
        bare: false,
        target: Some(Target::ToNginx(1.0)),
        smoke: false,
    },
    Scenario {
        name: "stream-tls",
        title: "TLS stream ended here: small exchanges over open connections",
        load: Load::Http1 {
            request: SMALL,
            tls: true,
        },
        setup: Setup::Stream,
        own_baseline: false,
        bare: false,
        target: Some(Target::ToNginx(1.0)),
        smoke: false,
    },
    Scenario {
        name: "mesh-inbound",
        title: "mesh, inbound: small exchanges over open connections",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Mesh(Hop::Inbound),
        own_baseline: false,
        bare: false,
        target: Some(Target::ToBuiltIn(1.0)),
        smoke: true,
    },
    Scenario {
        name: "mesh-inbound-http",
        title: "mesh, inbound: requests, each judged (Consul's proxy: bytes)",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Mesh(Hop::InboundRequests),
        own_baseline: false,
        bare: false,
        target: Some(Target::ToBuiltIn(1.0)),
        smoke: false,
    },
    Scenario {
        name: "mesh-inbound-connect",
        title: "mesh, inbound: a connection for each exchange, authorized",
        load: Load::NewConnection { tls: false },
        setup: Setup::Mesh(Hop::Inbound),
        own_baseline: false,
        bare: false,
        target: Some(Target::ToBuiltIn(1.0)),
        smoke: false,
    },
    Scenario {
        name: "mesh-inbound-1m",
        title: "mesh, inbound: 1 MiB answers",
        load: Load::Http1 {
            request: Request {
                path: "/1m",
                body_bytes: origin::LARGE_BYTES,
                connections: 8,
                ..SMALL
            },
            tls: false,
        },
        setup: Setup::Mesh(Hop::Inbound),
        own_baseline: false,
        bare: false,
        target: Some(Target::ToBuiltIn(1.0)),
        smoke: false,
    },
    Scenario {
        name: "mesh-outbound",
        title: "mesh, outbound: small exchanges over open connections",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Mesh(Hop::Outbound),
        own_baseline: false,
        bare: false,
        target: Some(Target::ToBuiltIn(1.0)),
        smoke: true,
    },
    Scenario {
        name: "mesh-outbound-http",
        title: "mesh, outbound: requests (Consul's proxy: bytes)",
        load: Load::Http1 {
            request: SMALL,
            tls: false,
        },
        setup: Setup::Mesh(Hop::OutboundRequests),
        own_baseline: false,
        bare: false,
        target: Some(Target::ToBuiltIn(1.0)),
        smoke: false,
    },
    Scenario {
        name: "mesh-outbound-connect",
        title: "mesh, outbound: a connection for each exchange",
        load: Load::NewConnection { tls: false },
        setup: Setup::Mesh(Hop::Outbound),
        own_baseline: false,
        bare: false,
        target: Some(Target::ToBuiltIn(1.0)),
        smoke: false,
    },
    Scenario {
        name: "idle",
        title: "idle keep-alive connection, KiB",
        load: Load::IdleConnections { tls: false },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: Some(Target::Below(8.0)),
        smoke: true,
    },
    Scenario {
        name: "idle-tls",
        title: "idle keep-alive connection over TLS, KiB",
        load: Load::IdleConnections { tls: true },
        setup: Setup::Plain,
        own_baseline: false,
        bare: true,
        target: Some(Target::Below(20.0)),
        smoke: false,
    },
    Scenario {
        name: "idle-tunnels",
        title: "idle WebSocket tunnel, KiB",
        load: Load::IdleTunnels,
        setup: Setup::Tunnels,
        own_baseline: false,
        bare: false,
        target: Some(Target::Below(40.0)),
        smoke: true,
    },
    Scenario {
        name: "memory-10k",
        title: "resident memory with 10,000 routes, MB",
        load: Load::ResidentMemory,
        setup: Setup::ManyRoutes,
        own_baseline: true,
        bare: false,
        target: Some(Target::Below(100.0)),
        smoke: false,
    },
];

/// The scenarios asked for, in table order.
///
/// # Errors
/// When a name is unknown.
pub(crate) fn select(names: &[String], smoke: bool) -> Result<Vec<&'static Scenario>> {
    for name in names {
        if !ALL.iter().any(|scenario| scenario.name == name) {
            let known: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
            bail!("unknown scenario {name:?}, known are {}", known.join(", "));
        }
    }
    Ok(ALL
        .iter()
        .filter(|scenario| {
            if names.is_empty() {
                !smoke || scenario.smoke
            } else {
                names.iter().any(|name| name == scenario.name)
            }
        })
        .collect())
}

impl Load {
    /// Whether the figure is CPU time per request (else memory).
    pub(crate) fn is_cpu(self) -> bool {
        !matches!(
            self,
            Self::IdleConnections { .. } | Self::IdleTunnels | Self::ResidentMemory
        )
    }
}
