//! Paths of the application that are reachable without the mesh (Consul: `Proxy.Expose`): listeners of their own, on
//! which nobody shows a certificate, and the plan parts behind them.
//!
//! Start at [`ExposedPath::read`] and [`exposed`].

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::application::Application;
use super::parts::Parts;
use super::registration::MeshProtocol;
use crate::model::route::ExpressionText;

/// More exposed paths than this are refused.
pub const EXPOSED_MAX: usize = 256;
/// Longest wait for the application, in milliseconds.
const TIMEOUT_MS: u32 = 60_000;

/// One path of the application that everybody may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedPath {
    /// Consul: `ListenerPort`.
    pub listener_port: u16,
    /// Compared as a whole. Consul: `Path`.
    pub path: String,
    /// Where the application listens on this machine. Consul: `LocalPathPort`.
    pub application_port: u16,
    /// Consul: `Protocol`, `http` or `http2`.
    pub protocol: MeshProtocol,
}

impl ExposedPath {
    /// Reads a member of `Proxy.Expose.Paths`.
    pub fn read(value: &Value) -> Result<Self, String> {
        let port = |key: &str| {
            let port = value.get(key).and_then(Value::as_u64);
            let port = port.and_then(|port| u16::try_from(port).ok());
            port.filter(|port| *port > 0)
                .ok_or_else(|| format!("Proxy.Expose.Paths: {key} is not a port in {value}"))
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
        let path = text("Path");
        if !path.starts_with('/') || path.contains("\"#") {
            return Err(format!(
                "Proxy.Expose.Paths: Path '{}' does not begin with '/'",
                path.escape_debug()
            ));
        }
        let protocol = match text("Protocol") {
            "" | "http" => MeshProtocol::Http,
            "http2" => MeshProtocol::Http2,
            other => {
                return Err(format!(
                    "Proxy.Expose.Paths: Protocol '{}' is neither http nor http2",
                    other.escape_debug()
                ));
            }
        };
        Ok(Self {
            listener_port: port("ListenerPort")?,
            path: path.to_owned(),
            application_port: port("LocalPathPort")?,
            protocol,
        })
    }
}

/// The name of the listener on a port, for the routes that are for it.
pub fn entrance(port: u16) -> String {
    format!("expose {port}")
}

/// The ports to listen on, each with whether HTTP/2 is spoken there.
pub fn ports(paths: &[ExposedPath]) -> BTreeMap<u16, bool> {
    let mut ports = BTreeMap::new();
    for path in paths {
        *ports.entry(path.listener_port).or_default() |= path.protocol == MeshProtocol::Http2;
    }
    ports
}

/// The parts behind all exposed paths; `host` is where the application listens.
pub fn exposed(host: &str, paths: &[ExposedPath]) -> Parts {
    let mut parts = Parts::default();
    for path in paths {
        let entrance = entrance(path.listener_port);
        let application = Application {
            name: format!("{entrance} {}", path.path).into(),
            description: json!({ "exposed": path.path }).to_string().into(),
            host: host.into(),
            port: path.application_port,
            protocol: path.protocol,
            entrance: entrance.clone(),
            condition: Some(ExpressionText {
                text: format!("http.path == r#\"{}\"#", path.path),
                stream: false,
            }),
            connect_timeout_ms: TIMEOUT_MS,
            silence_ms: TIMEOUT_MS,
        };
        parts.extend(application.parts(|part| {
            let name = format!("sallyport consul {entrance} {part} {}", path.path);
            Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
        }));
    }
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn paths_are_read_and_become_routes_of_their_listener() {
        let read = |text: &str| ExposedPath::read(&serde_json::from_str(text).unwrap());
        let path = read(r#"{"ListenerPort":21500,"Path":"/health","LocalPathPort":9001}"#).unwrap();
        let parts = exposed("127.0.0.1", std::slice::from_ref(&path));
        let route = parts.routes.values().next().unwrap();
        assert_eq!(route.matchers[0].entrance.as_deref(), Some("expose 21500"));
        assert_eq!(ports(&[path]), BTreeMap::from([(21500, false)]));
        for bad in [
            r#"{"ListenerPort":0,"Path":"/health","LocalPathPort":9001}"#,
            r#"{"ListenerPort":1,"Path":"health","LocalPathPort":9001}"#,
            r#"{"ListenerPort":1,"Path":"/health","LocalPathPort":9001,"Protocol":"tcp"}"#,
            "3",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
