//! A proxy registration: what the proxy of a service is to listen on, and where it leads.
//!
//! Owns the keys of Consul's built-in proxy and the common ones of Envoy. Values are decoded weakly, because users write
//! numbers as text; unknown keys are skipped. Anything wrong makes the whole registration unusable, so that the caller
//! keeps the one before. Start at [`ProxyConfiguration::read`].

use std::time::Duration;

use serde_json::{Map, Value};

use super::answers::{AgentService, Upstream};
use super::duration::duration_of;
use super::expose::{EXPOSED_MAX, ExposedPath};
use crate::model::plan::Protocol;

/// More upstreams in one registration than this are refused.
pub const UPSTREAMS_MAX: usize = 1_000;
/// Longest timeout in milliseconds: a day.
const TIMEOUT_MS_MAX: u64 = 86_400_000;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const LOCAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What connections of a service speak. Consul: `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MeshProtocol {
    #[default]
    Tcp,
    Http,
    Http2,
    Grpc,
}

impl MeshProtocol {
    /// The protocol of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "tcp" => Self::Tcp,
            "http" | "http1.1" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            _ => return None,
        })
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    /// What the plan calls it towards an upstream: HTTP/2 is gRPC there, with or without TLS.
    pub fn in_the_plan(self) -> Protocol {
        match self {
            Self::Http2 | Self::Grpc => Protocol::Grpc,
            Self::Http | Self::Tcp => Protocol::Http,
        }
    }

    /// Are there requests to look at?
    pub fn has_requests(self) -> bool {
        self != Self::Tcp
    }
}

/// A host and a port that somebody listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bind {
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
}

/// Where a listener for applications is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LocalListen {
    Tcp(Bind),
    /// A socket of the file system, with the permissions that it gets.
    Socket {
        path: String,
        mode: Option<u32>,
    },
}

/// Where the application listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LocalApplication {
    Tcp { host: String, port: u16 },
    Socket(String),
}

/// The listener for callers in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicListener {
    /// Consul: `bind_address`, default `0.0.0.0`, and `bind_port`, default the port of the registration.
    pub bind: Bind,
    /// Consul: `protocol`, default `tcp`.
    pub protocol: MeshProtocol,
    /// Consul: `local_service_address`, default the registration's address, port or socket.
    pub application: LocalApplication,
    /// Consul: `local_connect_timeout_ms`, default 1000.
    pub connect_timeout: Duration,
    /// Consul: `handshake_timeout_ms`, default 10000.
    pub handshake_timeout: Duration,
    /// The longest wait for an answer of the application, for HTTP. Consul: `local_request_timeout_ms`.
    pub request_timeout: Option<Duration>,
    /// More connections than this are closed at once. Consul: `max_inbound_connections`, default unlimited.
    pub connections_max: Option<u32>,
}

/// What an upstream names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DestinationKind {
    Service,
    PreparedQuery,
}

/// Which service an upstream leads to. Two upstreams with the same destination differ by where they listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    pub kind: DestinationKind,
    pub name: String,
    /// Empty: the proxy's own.
    pub namespace: String,
    /// Empty: the proxy's own.
    pub partition: String,
    /// Empty: this cluster.
    pub peer: String,
    /// Empty: the agent's own.
    pub datacenter: String,
}

/// Limits on an upstream. Absent ones do not limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpstreamLimits {
    pub connections_max: Option<u32>,
    pub concurrent_requests_max: Option<u32>,
}

/// When an instance that fails is left out for a while. Consul: `passive_health_check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassiveHealth {
    pub interval: Duration,
    pub failures_max: u32,
}

/// Which way to other datacenters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GatewayMode {
    /// To the instance itself.
    #[default]
    Direct,
    /// Through a mesh gateway of this datacenter.
    Local,
    /// Through a mesh gateway of the other datacenter.
    Remote,
}

/// One way out of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfiguration {
    pub listen: LocalListen,
    pub destination: Destination,
    /// Overrides what the discovery chain says, see [`ResolverTimeouts`]. Consul: `connect_timeout_ms`.
    ///
    /// [`ResolverTimeouts`]: super::timeouts::ResolverTimeouts
    pub connect_timeout: Option<Duration>,
    /// Overrides what the discovery chain says. Consul: `protocol`.
    pub protocol: Option<MeshProtocol>,
    pub limits: UpstreamLimits,
    pub passive_health: Option<PassiveHealth>,
    /// Absent: what the discovery chain says.
    pub gateway: Option<GatewayMode>,
}

/// What a proxy is configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfiguration {
    /// The service that it stands for: the name of its leaf and the target of intentions.
    pub service: String,
    /// Empty for the default.
    pub namespace: String,
    /// Empty for the default.
    pub partition: String,
    /// None when the port is 0, or when there is no application.
    pub public: Option<PublicListener>,
    pub upstreams: Vec<UpstreamConfiguration>,
    /// Paths of the application that everybody may ask for.
    pub exposed: Vec<ExposedPath>,
    /// What was read but has no effect.
    pub warnings: Vec<String>,
}

impl ProxyConfiguration {
    /// Reads a registration. All that is wrong is told at once.
    pub fn read(service: &AgentService) -> Result<Self, Vec<String>> {
        let mut reading = Reading::default();
        let proxy = &service.proxy;
        if service.kind != "connect-proxy" {
            reading.wrong(format!(
                "'{}' is registered as '{}', not as a connect-proxy",
                service.id, service.kind
            ));
        }
        if proxy.destination_service_name.is_empty() {
            reading.wrong("Proxy.DestinationServiceName is missing".to_owned());
        }
        if proxy.mode == "transparent" {
            reading.wrong("Proxy.Mode: 'transparent' is not supported, use 'direct'".to_owned());
        }
        if proxy.expose.checks {
            reading.warnings.push(
                "Proxy.Expose.Checks has no effect: name the paths in Proxy.Expose.Paths"
                    .to_owned(),
            );
        }
        let exposed = reading.exposed(&proxy.expose.paths);
        let public = reading.public(service);
        if proxy.upstreams.len() > UPSTREAMS_MAX {
            reading.wrong(format!("more than {UPSTREAMS_MAX} upstreams"));
        }
        let mut upstreams = Vec::new();
        for upstream in proxy.upstreams.iter().take(UPSTREAMS_MAX) {
            upstreams.extend(reading.upstream(upstream, &proxy.mesh_gateway.mode));
        }
        if !reading.wrong.is_empty() {
            return Err(reading.wrong);
        }
        Ok(Self {
            service: proxy.destination_service_name.clone(),
            namespace: service.namespace.clone(),
            partition: service.partition.clone(),
            public,
            upstreams,
            exposed,
            warnings: reading.warnings,
        })
    }
}

/// Decodes and collects what is wrong.
#[derive(Default)]
struct Reading {
    wrong: Vec<String>,
    warnings: Vec<String>,
}

impl Reading {
    fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    fn exposed(&mut self, paths: &[Value]) -> Vec<ExposedPath> {
        if paths.len() > EXPOSED_MAX {
            self.wrong(format!("Proxy.Expose.Paths: more than {EXPOSED_MAX} paths"));
        }
        let mut exposed = Vec::new();
        for path in paths.iter().take(EXPOSED_MAX) {
            match ExposedPath::read(path) {
                Ok(path) => exposed.push(path),
                Err(what) => self.wrong(what),
            }
        }
        exposed
    }

    fn public(&mut self, service: &AgentService) -> Option<PublicListener> {
        let config = &service.proxy.config;
        let port = match self.number(config, "Config", "bind_port", 0, 65_535) {
            Some(port) => port,
            None => u64::from(service.port),
        };
        let application = self.application(service);
        let host = text(config, "bind_address").unwrap_or_else(|| "0.0.0.0".to_owned());
        let protocol = self.protocol(config, "Config").unwrap_or_default();
        let handshake = self.timeout(config, "Config", "handshake_timeout_ms");
        let connect = self.timeout(config, "Config", "local_connect_timeout_ms");
        let request_timeout = self.timeout(config, "Config", "local_request_timeout_ms");
        let limit = u64::from(u32::MAX);
        let connections = self.number(config, "Config", "max_inbound_connections", 0, limit);
        let port = match u16::try_from(port) {
            Ok(0) => return None,
            Ok(port) => port,
            Err(_) => {
                self.wrong(format!("Port: {port} is not a port"));
                return None;
            }
        };
        Some(PublicListener {
            bind: Bind { host, port },
            protocol,
            application: application?,
            connect_timeout: connect.unwrap_or(LOCAL_CONNECT_TIMEOUT),
            handshake_timeout: handshake.unwrap_or(HANDSHAKE_TIMEOUT),
            request_timeout,
            connections_max: connections
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number > 0),
        })
    }

    fn application(&mut self, service: &AgentService) -> Option<LocalApplication> {
        let proxy = &service.proxy;
        if let Some(written) = text(&proxy.config, "local_service_address") {
            let parsed = written.rsplit_once(':').and_then(|(host, port)| {
                let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
                let host = host.trim_matches(['[', ']']);
                (!host.is_empty()).then(|| LocalApplication::Tcp {
                    host: host.to_owned(),
                    port,
                })
            });
            if parsed.is_none() {
                self.wrong(format!(
                    "Config.local_service_address: '{written}' is not HOST:PORT"
                ));
            }
            return parsed;
        }
        if !proxy.local_service_socket_path.is_empty() {
            return Some(LocalApplication::Socket(
                proxy.local_service_socket_path.clone(),
            ));
        }
        let host = match proxy.local_service_address.as_str() {
            "" => "127.0.0.1",
            host => host,
        };
        match u16::try_from(proxy.local_service_port) {
            Ok(0) => None,
            Ok(port) => Some(LocalApplication::Tcp {
                host: host.to_owned(),
                port,
            }),
            Err(_) => {
                self.wrong(format!(
                    "Proxy.LocalServicePort: {} is not a port",
                    proxy.local_service_port
                ));
                None
            }
        }
    }

    fn upstream(
        &mut self,
        upstream: &Upstream,
        proxy_gateway: &str,
    ) -> Option<UpstreamConfiguration> {
        let name = &upstream.destination_name;
        let place = format!("upstream '{name}'");
        let before = self.wrong.len();
        if name.is_empty() {
            self.wrong("an upstream without DestinationName".to_owned());
        }
        let kind = match upstream.destination_type.as_str() {
            "" | "service" => DestinationKind::Service,
            "prepared_query" => DestinationKind::PreparedQuery,
            other => {
                self.warnings
                    .push(format!("{place}: type '{other}' is taken for 'service'"));
                DestinationKind::Service
            }
        };
        if !upstream.destination_peer.is_empty() {
            self.wrong(format!(
                "{place}: DestinationPeer '{}' is not supported: the agent does not tell the certificates of peered clusters",
                upstream.destination_peer
            ));
        }
        let listen = self.local_listen(upstream, &place);
        let config = &upstream.config;
        let connect_timeout = self.timeout(config, &place, "connect_timeout_ms");
        let protocol = self.protocol(config, &place);
        let limits = self.limits(config, &place);
        let passive_health = self.passive_health(config, &place);
        let mode = match upstream.mesh_gateway.mode.as_str() {
            "" => proxy_gateway,
            own => own,
        };
        let gateway = match mode {
            "" => None,
            "none" => Some(GatewayMode::Direct),
            "local" => Some(GatewayMode::Local),
            "remote" => Some(GatewayMode::Remote),
            other => {
                self.wrong(format!(
                    "{place}: MeshGateway.Mode '{other}' is none of none, local and remote"
                ));
                None
            }
        };
        if self.wrong.len() > before {
            return None;
        }
        Some(UpstreamConfiguration {
            listen: listen?,
            destination: Destination {
                kind,
                name: name.clone(),
                namespace: upstream.destination_namespace.clone(),
                partition: upstream.destination_partition.clone(),
                peer: String::new(),
                datacenter: upstream.datacenter.clone(),
            },
            connect_timeout,
            protocol,
            limits,
            passive_health,
            gateway,
        })
    }

    fn local_listen(&mut self, upstream: &Upstream, place: &str) -> Option<LocalListen> {
        if !upstream.local_bind_socket_path.is_empty() {
            let written = upstream.local_bind_socket_mode.as_str();
            let mode = match written {
                "" => None,
                _ => match u32::from_str_radix(written, 8) {
                    Ok(mode) if mode <= 0o777 => Some(mode),
                    _ => {
                        self.wrong(format!(
                            "{place}: LocalBindSocketMode '{written}' is not an octal mode such as 0600"
                        ));
                        None
                    }
                },
            };
            return Some(LocalListen::Socket {
                path: upstream.local_bind_socket_path.clone(),
                mode,
            });
        }
        let host = match upstream.local_bind_address.as_str() {
            "" => "127.0.0.1",
            host => host,
        };
        match u16::try_from(upstream.local_bind_port) {
            Ok(port) if port > 0 => Some(LocalListen::Tcp(Bind {
                host: host.to_owned(),
                port,
            })),
            _ => {
                self.wrong(format!(
                    "{place}: LocalBindPort {} is not a port, and there is no LocalBindSocketPath",
                    upstream.local_bind_port
                ));
                None
            }
        }
    }

    fn limits(&mut self, config: &Map<String, Value>, place: &str) -> UpstreamLimits {
        let Some(Value::Object(limits)) = config.get("limits") else {
            return UpstreamLimits::default();
        };
        let place = format!("{place}: limits");
        let mut limit = |key| {
            self.number(limits, &place, key, 0, u64::from(u32::MAX))
                .and_then(|number| u32::try_from(number).ok())
        };
        let limits = UpstreamLimits {
            connections_max: limit("max_connections"),
            concurrent_requests_max: limit("max_concurrent_requests"),
        };
        if limit("max_pending_requests").is_some() {
            self.warnings.push(format!(
                "{place}.max_pending_requests has no effect: no request waits for a connection"
            ));
        }
        limits
    }

    fn passive_health(
        &mut self,
        config: &Map<String, Value>,
        place: &str,
    ) -> Option<PassiveHealth> {
        let Some(Value::Object(check)) = config.get("passive_health_check") else {
            return None;
        };
        let place = format!("{place}: passive_health_check");
        let failures = self.number(check, &place, "max_failures", 0, u64::from(u32::MAX))?;
        let interval = match check.get("interval") {
            None => Duration::from_secs(10),
            Some(value) => match duration_of(value) {
                Some(interval) if !interval.is_zero() => interval,
                _ => {
                    self.wrong(format!(
                        "{place}.interval: {value} is not a duration such as 10s"
                    ));
                    return None;
                }
            },
        };
        (failures > 0).then(|| PassiveHealth {
            interval,
            failures_max: u32::try_from(failures).unwrap_or(u32::MAX),
        })
    }

    fn protocol(&mut self, config: &Map<String, Value>, place: &str) -> Option<MeshProtocol> {
        let word = text(config, "protocol")?;
        let protocol = MeshProtocol::from_word(&word.to_ascii_lowercase());
        if protocol.is_none() {
            self.wrong(format!(
                "{place}.protocol: '{word}' is none of tcp, http, http2 and grpc"
            ));
        }
        protocol
    }

    fn timeout(&mut self, config: &Map<String, Value>, place: &str, key: &str) -> Option<Duration> {
        let number = self.number(config, place, key, 0, TIMEOUT_MS_MAX)?;
        // No time at all means the default, as nothing does.
        (number > 0).then(|| Duration::from_millis(number))
    }

    /// A whole number, or text that is one.
    fn number(
        &mut self,
        config: &Map<String, Value>,
        place: &str,
        key: &str,
        least: u64,
        most: u64,
    ) -> Option<u64> {
        let value = config.get(key)?;
        let number = match value {
            Value::Null => return None,
            Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(format!(
                "{place}.{key}: {value} is not a whole number between {least} and {most}"
            ));
        }
        number
    }
}

/// A number with a point but without a fraction, as some writers of JSON have it.
fn whole(number: f64) -> Option<u64> {
    let fits = (0.0..=9e15).contains(&number) && number.fract() == 0.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked on the line above"
    )]
    fits.then_some(number as u64)
}

fn text(config: &Map<String, Value>, key: &str) -> Option<String> {
    match config.get(key)? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
