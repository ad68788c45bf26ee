//! SPIFFE identities as Consul writes them: URI to identity and back, and whether one is the other.
//!
//! Owns the URI forms of services, agents, servers, mesh gateways and signing authorities. Refuses to know certificates:
//! the caller hands in the text of a URI. Whatever cannot be read is an error, and an error means that nobody is let in.
//! Start at [`SpiffeId::parse`].

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

/// Longest URI that is looked at, in bytes. SPIFFE allows 2048.
pub const URI_BYTES_MAX: usize = 2048;
/// The namespace and partition of those who have only one.
pub const DEFAULT: &str = "default";

/// What a path segment may not hold as it is.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Why a URI is no identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpiffeError {
    #[error("is longer than {URI_BYTES_MAX} bytes")]
    TooLong,
    #[error("does not begin with 'spiffe://'")]
    Scheme,
    #[error("has no trust domain, or one with a user, a port, a query or a fragment")]
    TrustDomain,
    #[error("has the path '{0}', which is none of a service, agent, server or mesh gateway")]
    Path(String),
    #[error("has a segment that is not percent-encoded UTF-8")]
    Encoding,
}

/// Who a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpiffeId {
    Service(ServiceIdentity),
    /// An agent of the Consul cluster.
    Agent {
        trust_domain: String,
        partition: String,
        datacenter: String,
        id: String,
    },
    /// A server of the Consul cluster.
    Server {
        trust_domain: String,
        datacenter: String,
    },
    MeshGateway {
        trust_domain: String,
        partition: String,
        datacenter: String,
    },
    /// A certificate authority.
    Signing {
        trust_domain: String,
    },
}

/// A service of the mesh: what intentions, leaf certificates and upstreams speak about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceIdentity {
    /// `UUID.consul` whatever the domain of the cluster's DNS is.
    pub trust_domain: String,
    /// [`DEFAULT`] where the URI has none.
    pub partition: String,
    pub namespace: String,
    pub datacenter: String,
    pub service: String,
}

impl SpiffeId {
    /// Reads a URI as a certificate carries it.
    pub fn parse(uri: &str) -> Result<Self, SpiffeError> {
        if uri.len() > URI_BYTES_MAX {
            return Err(SpiffeError::TooLong);
        }
        let rest = uri.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (trust_domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if trust_domain.is_empty() || !trust_domain.bytes().all(is_plain) {
            return Err(SpiffeError::TrustDomain);
        }
        if path.contains(['?', '#']) {
            return Err(SpiffeError::TrustDomain);
        }
        let trust_domain = trust_domain.to_owned();
        // Segments are told apart in the text as it is: an encoded slash belongs to its segment.
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let wrong_path = || SpiffeError::Path(path.chars().take(200).collect());
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(wrong_path());
        }
        let (partition, segments) = match segments.as_slice() {
            ["ap", partition, rest @ ..] if !rest.is_empty() => (decode(partition)?, rest),
            all => (DEFAULT.to_owned(), all),
        };
        let has_partition = path.starts_with("/ap/");
        Ok(match segments {
            ["ns", namespace, "dc", datacenter, "svc", service] => Self::Service(ServiceIdentity {
                trust_domain,
                partition,
                namespace: decode(namespace)?,
                datacenter: decode(datacenter)?,
                service: decode(service)?,
            }),
            ["agent", "client", "dc", datacenter, "id", id] => Self::Agent {
                trust_domain,
                partition,
                datacenter: decode(datacenter)?,
                id: decode(id)?,
            },
            ["agent", "server", "dc", datacenter] if !has_partition => Self::Server {
                trust_domain,
                datacenter: decode(datacenter)?,
            },
            ["gateway", "mesh", "dc", datacenter] => Self::MeshGateway {
                trust_domain,
                partition,
                datacenter: decode(datacenter)?,
            },
            [] if !has_partition => Self::Signing { trust_domain },
            _ => return Err(wrong_path()),
        })
    }

    /// The service, if it is one.
    pub fn service(self) -> Option<ServiceIdentity> {
        match self {
            Self::Service(service) => Some(service),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "service",
            Self::Agent { .. } => "agent",
            Self::Server { .. } => "server",
            Self::MeshGateway { .. } => "mesh gateway",
            Self::Signing { .. } => "authority",
        }
    }
}

impl ServiceIdentity {
    /// Is a peer that shows `self` the one that `expected` names?
    ///
    /// The trust domain is left out: clusters move from one to another, and the chain of the certificate protects it.
    /// Upper and lower case are the same, as for Consul's own proxy.
    pub fn is_the(&self, expected: &Self) -> bool {
        self.service.eq_ignore_ascii_case(&expected.service)
            && self.datacenter.eq_ignore_ascii_case(&expected.datacenter)
            && self.namespace.eq_ignore_ascii_case(&expected.namespace)
            && self.partition.eq_ignore_ascii_case(&expected.partition)
    }
}

impl fmt::Display for ServiceIdentity {
    /// The URI. The default partition is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        if !self.partition.eq_ignore_ascii_case(DEFAULT) {
            write!(f, "/ap/{}", encode(&self.partition))?;
        }
        write!(
            f,
            "/ns/{}/dc/{}/svc/{}",
            encode(&self.namespace),
            encode(&self.datacenter),
            encode(&self.service)
        )
    }
}

fn encode(segment: &str) -> Cow<'_, str> {
    utf8_percent_encode(segment, SEGMENT).into()
}

/// Decodes a segment; half an escape is an error, not a percent sign.
fn decode(segment: &str) -> Result<String, SpiffeError> {
    let bytes = segment.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3).ok_or(SpiffeError::Encoding)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(SpiffeError::Encoding);
        }
    }
    match percent_decode_str(segment).decode_utf8() {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.into_owned()),
        _ => Err(SpiffeError::Encoding),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DOMAIN: &str = "7d80996e-2ed0-bf12-c467-78db5996e850.consul";

    fn service(partition: &str, namespace: &str, service: &str) -> SpiffeId {
        SpiffeId::Service(ServiceIdentity {
            trust_domain: DOMAIN.to_owned(),
            partition: partition.to_owned(),
            namespace: namespace.to_owned(),
            datacenter: "dc1".to_owned(),
            service: service.to_owned(),
        })
    }

    #[test]
    fn reads_every_form() {
        let (trust_domain, datacenter) = (DOMAIN.to_owned(), "dc1".to_owned());
        let cases = [
            (
                "/ns/default/dc/dc1/svc/web",
                service("default", "default", "web"),
            ),
            (
                "/ap/west/ns/foo%2Fbar/dc/dc1/svc/web%20x",
                service("west", "foo/bar", "web x"),
            ),
            (
                "/agent/client/dc/dc1/id/a-1",
                SpiffeId::Agent {
                    trust_domain: trust_domain.clone(),
                    partition: DEFAULT.to_owned(),
                    datacenter: datacenter.clone(),
                    id: "a-1".to_owned(),
                },
            ),
            (
                "/ap/west/agent/client/dc/dc1/id/a-1",
                SpiffeId::Agent {
                    trust_domain: trust_domain.clone(),
                    partition: "west".to_owned(),
                    datacenter: datacenter.clone(),
                    id: "a-1".to_owned(),
                },
            ),
            (
                "/agent/server/dc/dc1",
                SpiffeId::Server {
                    trust_domain: trust_domain.clone(),
                    datacenter: datacenter.clone(),
                },
            ),
            (
                "/gateway/mesh/dc/dc1",
                SpiffeId::MeshGateway {
                    trust_domain: trust_domain.clone(),
                    partition: DEFAULT.to_owned(),
                    datacenter: datacenter.clone(),
                },
            ),
            (
                "/ap/west/gateway/mesh/dc/dc1",
                SpiffeId::MeshGateway {
                    trust_domain: trust_domain.clone(),
                    partition: "west".to_owned(),
                    datacenter,
                },
            ),
            ("", SpiffeId::Signing { trust_domain }),
        ];
        for (path, expected) in cases {
            let uri = format!("spiffe://{DOMAIN}{path}");
            assert_eq!(SpiffeId::parse(&uri), Ok(expected.clone()), "{uri}");
            if let SpiffeId::Service(service) = expected {
                assert_eq!(service.to_string(), uri);
            }
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = format!("spiffe://d/{}", "a".repeat(URI_BYTES_MAX));
        for uri in [
            "",
            "http://d/ns/default/dc/dc1/svc/web",
            "SPIFFE://d/ns/default/dc/dc1/svc/web",
            "spiffe:///ns/default/dc/dc1/svc/web",
            "spiffe://user@d/ns/default/dc/dc1/svc/web",
            "spiffe://d:1/ns/default/dc/dc1/svc/web",
            "spiffe://d/ns/default/dc/dc1/svc/web?x",
            "spiffe://d/ns/default/dc/dc1/svc/web#x",
            "spiffe://d?x",
            "spiffe://d/",
            "spiffe://d/ap/west",
            "spiffe://d/ap/west/agent/server/dc/dc1",
            "spiffe://d/ns/default/dc/dc1/svc/",
            "spiffe://d/ns/default/dc/dc1/svc/web/",
            "spiffe://d//ns/default/dc/dc1/svc/web",
            "spiffe://d/ns//dc/dc1/svc/web",
            "spiffe://d/ns/default/dc/dc1/svc/w%2",
            "spiffe://d/ns/default/dc/dc1/svc/w%zz",
            "spiffe://d/ns/default/dc/dc1/svc/w%ff",
            "spiffe://d/ns/default/dc/dc1/svc/w%00",
            "spiffe://d/ap/x/ns/default/identity/web",
            &long,
        ] {
            assert!(SpiffeId::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn identities_are_compared_without_trust_domain_and_case() {
        let parse = |uri: &str| SpiffeId::parse(uri).unwrap().service().unwrap();
        let expected = parse("spiffe://a.consul/ns/default/dc/dc1/svc/db");
        for (shown, same) in [
            ("spiffe://a.consul/ns/default/dc/dc1/svc/db", true),
            ("spiffe://b.consul/ns/default/dc/dc1/svc/db", true),
            ("spiffe://a.consul/ns/default/dc/DC1/svc/DB", true),
            (
                "spiffe://a.consul/ap/default/ns/default/dc/dc1/svc/db",
                true,
            ),
            ("spiffe://a.consul/ns/default/dc/dc1/svc/web", false),
            ("spiffe://a.consul/ns/default/dc/dc2/svc/db", false),
            ("spiffe://a.consul/ns/other/dc/dc1/svc/db", false),
            ("spiffe://a.consul/ap/west/ns/default/dc/dc1/svc/db", false),
        ] {
            assert_eq!(parse(shown).is_the(&expected), same, "{shown}");
        }
    }
}
