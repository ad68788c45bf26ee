//! From a proxy registration to plan parts: what requests that arrive on its public listener match, and where they lead.
//!
//! Listeners of streams need no plan: their bytes go straight to the application. Start at [`inbound`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::application::Application;
use super::parts::Parts;
use super::registration::{LocalApplication, PublicListener};

/// The longest silence of an application, where the registration names none, in milliseconds.
const READ_TIMEOUT_MS: u32 = 60_000;

/// The name of a service's public listener, for the routes that are for it.
pub fn entrance(service: &str) -> String {
    format!("inbound {service}")
}

/// The parts behind a public listener that carries requests. They take every request that comes in there.
pub fn inbound(service: &str, public: &PublicListener) -> Result<Parts, String> {
    let (host, application_port) = match &public.application {
        LocalApplication::Tcp { host, port } => (Arc::<str>::from(host.as_str()), *port),
        LocalApplication::Socket(path) => {
            return Err(format!(
                "Proxy.LocalServiceSocketPath '{path}' works with protocol 'tcp' only, not with '{}'",
                public.protocol.word()
            ));
        }
    };
    let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let application = Application {
        name: format!("{service} (inbound)").into(),
        description: json!({ "service": service }).to_string().into(),
        host,
        port: application_port,
        protocol: public.protocol,
        entrance: entrance(service),
        condition: None,
        connect_timeout_ms: milliseconds(public.connect_timeout),
        silence_ms: public.request_timeout.map_or(READ_TIMEOUT_MS, milliseconds),
    };
    Ok(application.parts(|part| {
        let name = format!("sallyport consul inbound {part} {service}");
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::dialects::consul::registration::{Bind, MeshProtocol};
    use crate::model::plan::Protocol;

    #[test]
    fn a_listener_leads_to_its_application_and_goes_without_a_trace() {
        let public = PublicListener {
            bind: Bind {
                host: "127.0.0.1".to_owned(),
                port: 21000,
            },
            protocol: MeshProtocol::Grpc,
            application: LocalApplication::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 9000,
            },
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(10),
            request_timeout: None,
            connections_max: None,
        };
        let mut plan = crate::model::plan::Plan::default();
        let parts = inbound("web", &public).unwrap();
        plan.apply(&parts.delta_from(&Parts::default()));
        let route = plan.routes.values().next().unwrap();
        let forward = &plan.forwards[&route.forward.unwrap()];
        assert_eq!((forward.port, forward.protocol), (9000, Protocol::Grpc));
        plan.apply(&Parts::default().delta_from(&parts));
        assert_eq!(plan, crate::model::plan::Plan::default());
        let socket = PublicListener {
            application: LocalApplication::Socket("/x".to_owned()),
            ..public
        };
        assert!(inbound("web", &socket).is_err());
    }
}
