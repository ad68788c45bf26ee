//! Which registration a proxy is, and what it says.

use thiserror::Error;

use super::client::{AgentAnswer, AgentClient, AgentError, Question, decode};
use crate::dialects::consul::answers::{AgentService, ServiceProxy, Upstream};

/// How a proxy is told who it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Naming {
    /// The id of its own registration.
    ProxyId(String),
    /// The id of the service whose only sidecar it is.
    SidecarFor(String),
    /// Everything by hand.
    ByHand(Box<ByHand>),
}

/// A proxy that no registration describes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ByHand {
    /// The name of the service that it stands for.
    pub service: String,
    /// Where it listens for callers in the mesh.
    pub listen: Option<(String, u16)>,
    /// Where the application is.
    pub application: Option<(String, u16)>,
    pub upstreams: Vec<Upstream>,
    /// Registers itself, under this id if there is one.
    pub register: bool,
    pub register_id: Option<String>,
}

/// Why the registration is not known.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    #[error("{0}")]
    Agent(#[from] AgentError),
    #[error("No sidecar proxy registered for {0}")]
    None(String),
    #[error(
        "More than one sidecar proxy registered for {service}.\n    Start proxy with -proxy-id and one of the following IDs: {}",
        ids.join(", ")
    )]
    Several { service: String, ids: Vec<String> },
}

/// The id of the proxy's registration; none by hand.
pub async fn find(client: &AgentClient, naming: &Naming) -> Result<Option<String>, DiscoveryError> {
    let service = match naming {
        Naming::ByHand(_) => return Ok(None),
        Naming::ProxyId(id) => return Ok(Some(id.clone())),
        Naming::SidecarFor(service) => service,
    };
    let all: std::collections::BTreeMap<String, AgentService> =
        client.read(&Question::get("/v1/agent/services")).await?;
    choose(&all.into_values().collect::<Vec<_>>(), service).map(Some)
}

fn choose(all: &[AgentService], service: &str) -> Result<String, DiscoveryError> {
    let proxies = all.iter().filter(|one| {
        one.kind == "connect-proxy"
            && one
                .proxy
                .destination_service_id
                .eq_ignore_ascii_case(service)
    });
    let mut ids: Vec<String> = proxies.map(|proxy| proxy.id.clone()).collect();
    ids.sort();
    match ids.as_slice() {
        [] => Err(DiscoveryError::None(service.to_owned())),
        [id] => Ok(id.clone()),
        _ => Err(DiscoveryError::Several {
            service: service.to_owned(),
            ids,
        }),
    }
}

/// Reads an answer to `GET /v1/agent/service/:id`.
pub(super) fn decode_service(answer: &AgentAnswer) -> Result<AgentService, String> {
    decode(&answer.body)
}

impl ByHand {
    /// The id under which it registers.
    pub fn id(&self) -> String {
        match &self.register_id {
            None => format!("{}-proxy", self.service),
            Some(id) => format!("{}-proxy-{id}", self.service),
        }
    }

    /// What a registration would say.
    pub fn registration(&self) -> AgentService {
        let (host, port) = self.application.clone().unwrap_or_default();
        let mut proxy = ServiceProxy {
            destination_service_name: self.service.clone(),
            local_service_address: host,
            local_service_port: port.into(),
            upstreams: self.upstreams.clone(),
            ..ServiceProxy::default()
        };
        if let Some((host, _)) = &self.listen
            && !host.is_empty()
        {
            proxy
                .config
                .insert("bind_address".to_owned(), host.as_str().into());
        }
        AgentService {
            kind: "connect-proxy".to_owned(),
            id: self.id(),
            service: format!("{}-proxy", self.service),
            port: self.listen.as_ref().map_or(0, |(_, port)| (*port).into()),
            proxy,
            ..AgentService::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::dialects::consul::registration::ProxyConfiguration;

    fn services(text: &str) -> Vec<AgentService> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn exactly_one_sidecar_is_wanted() {
        let all = services(
            r#"[{"Kind":"","ID":"web-1","Service":"web"},
                {"Kind":"connect-proxy","ID":"p1","Proxy":{"DestinationServiceID":"web-1"}},
                {"Kind":"connect-proxy","ID":"p3","Proxy":{"DestinationServiceID":"api-1"}},
                {"Kind":"connect-proxy","ID":"p2","Proxy":{"DestinationServiceID":"api-1"}},
                {"Kind":"mesh-gateway","ID":"g","Proxy":{"DestinationServiceID":"db-1"}}]"#,
        );
        assert_eq!(choose(&all, "WEB-1").unwrap(), "p1");
        assert_eq!(
            choose(&all, "db-1").unwrap_err().to_string(),
            "No sidecar proxy registered for db-1"
        );
        assert_eq!(
            choose(&all, "api-1").unwrap_err().to_string(),
            "More than one sidecar proxy registered for api-1.\n    Start proxy with -proxy-id and one of the following IDs: p2, p3"
        );
    }

    #[test]
    fn by_hand_is_read_like_a_registration() {
        let by_hand = ByHand {
            service: "web".to_owned(),
            listen: Some(("127.0.0.1".to_owned(), 8443)),
            application: Some(("127.0.0.1".to_owned(), 9000)),
            ..ByHand::default()
        };
        let configuration = ProxyConfiguration::read(&by_hand.registration()).unwrap();
        let public = configuration.public.unwrap();
        assert_eq!(
            (public.bind.host.as_str(), public.bind.port),
            ("127.0.0.1", 8443)
        );
        let only_out = ByHand {
            service: "web".to_owned(),
            ..ByHand::default()
        };
        let configuration = ProxyConfiguration::read(&only_out.registration()).unwrap();
        assert_eq!(configuration.public, None);
    }
}
