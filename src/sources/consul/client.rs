//! Questions to the agent, one at a time.
//!
//! Owns the token, the namespace and what each status means. Connections of long-held questions and of short ones are
//! kept apart, so that a hundred watches never stand in the way of an authorization. Start at [`AgentClient::start`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use zeroize::Zeroize;

use super::address::AgentAddress;
use super::options::{self, AgentOptions};
use crate::base::secret::Secret;
use crate::model::plan::{KeyPairPlan, UpstreamTlsPlan};
use crate::runtime::client::{
    Address, Client, ClientError, ClientOptions, Destination, DestinationTls, HttpProtocol, Limits,
};
use crate::runtime::live::Live;
use crate::runtime::resolver::Resolver;
use crate::runtime::upstream_tls::{Trust, UpstreamTls};

/// To open a connection to the agent, which is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// To answer a question that is not held.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes. A catalog of ten thousand instances is some ten megabytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Idle connections to the agent for short questions.
const IDLE_MAX: usize = 16;
/// Answers up to this size are overwritten after use; leaf certificates are far smaller.
const WIPED_BYTES_MAX: usize = 64 << 10;
/// Addresses of the agent's name that are tried.
const ADDRESSES_TRIED_MAX: usize = 4;
/// An answer that says nothing is no longer than this.
const NOTHING_BYTES_MAX: usize = 4096;
/// The longest part of an error answer that is shown.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AgentError {
    #[error("the agent cannot be asked: {0}")]
    Unreachable(String),
    /// 403: the token is unknown or has no right to this.
    #[error("the agent refuses the token: {0}")]
    Forbidden(String),
    /// 404.
    #[error("the agent knows no such thing: {0}")]
    NotFound(String),
    /// 429 and 5xx.
    #[error("the agent answers {status}: {message}")]
    Failing { status: u16, message: String },
    /// 4xx: a mistake of ours.
    #[error("the agent does not understand the question, {status}: {message}")]
    Misunderstood { status: u16, message: String },
    #[error("the agent's answer cannot be read: {0}")]
    Unreadable(String),
}

impl AgentError {
    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::Failing { .. } => "failing",
            Self::Misunderstood { .. } => "misunderstood",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub struct AgentAnswer {
    pub body: Bytes,
    pub headers: HeaderMap,
}

impl AgentAnswer {
    /// `X-Consul-Index`.
    pub fn index(&self) -> Option<u64> {
        self.header("x-consul-index")?.parse().ok()
    }

    /// `X-Consul-ContentHash`.
    pub fn hash(&self) -> Option<&str> {
        self.header("x-consul-contenthash")
    }

    /// Were things left out because the token may not see them?
    pub fn is_filtered(&self) -> bool {
        self.header("x-consul-results-filtered-by-acls") == Some("true")
    }

    /// Does it say nothing: `null`, an empty list, or an object with nothing else in it?
    pub fn is_empty(&self) -> bool {
        says_nothing(&self.body)
    }

    /// `X-Consul-Default-ACL-Policy`.
    pub fn default_policy(&self) -> Option<&str> {
        self.header("x-consul-default-acl-policy")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Drop for AgentAnswer {
    /// Private keys come in answers: what nobody else holds is overwritten.
    fn drop(&mut self) {
        if self.body.len() <= WIPED_BYTES_MAX
            && let Ok(mut body) = std::mem::take(&mut self.body).try_into_mut()
        {
            body.as_mut().zeroize();
        }
    }
}

/// Asks the agent.
pub struct AgentClient {
    options: AgentOptions,
    token: ArcSwapOption<Secret>,
    tls: Option<Arc<UpstreamTls>>,
    /// For questions that are held.
    held: Arc<Client>,
    /// For all others.
    quick: Arc<Client>,
}

/// A question: where, and what to send.
#[derive(Debug, Clone)]
pub struct Question {
    pub method: Method,
    /// Path with its query, without namespace and partition.
    pub target: String,
    /// JSON.
    pub body: Option<String>,
    /// To the last byte of the answer.
    pub timeout: Duration,
    /// Is it held by the agent?
    pub held: bool,
}

impl Question {
    /// A short question.
    pub fn get(target: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            target: target.into(),
            body: None,
            timeout: ANSWER_TIMEOUT,
            held: false,
        }
    }

    /// A short question with a body, or an order.
    pub fn send(method: Method, target: impl Into<String>, body: String) -> Self {
        Self {
            method,
            body: Some(body),
            ..Self::get(target)
        }
    }
}

impl AgentClient {
    /// A client. The error says what is wrong with the certificates that it is to use.
    pub fn start(
        options: AgentOptions,
        resolver: &Arc<Resolver>,
        live: &Live,
    ) -> Result<Arc<Self>, String> {
        if !options.address.is_private() {
            tracing::warn!(
                agent = %options.address,
                "private keys travel to this agent without encryption: use an agent on this machine, or https"
            );
        }
        let tls = match &options.address {
            AgentAddress::Tcp { secure: true, .. } => {
                let trust = Trust::link(&Arc::from(""))?;
                let plan = UpstreamTlsPlan {
                    verify: Some(options.tls.verify),
                    verify_depth: Some(8),
                    authorities: options
                        .tls
                        .authorities
                        .iter()
                        .map(|pem| pem.as_str().into())
                        .collect(),
                    client_certificate: options.tls.client.as_ref().map(|(certificate, key)| {
                        Arc::new(KeyPairPlan {
                            certificate: certificate.as_str().into(),
                            key: key.clone(),
                        })
                    }),
                    ..UpstreamTlsPlan::default()
                };
                Some(UpstreamTls::link(&plan, None, &trust, live)?)
            }
            _ => None,
        };
        let pool = |idle: usize| ClientOptions {
            idle_per_destination_max: idle,
            idle_max: idle,
            ..ClientOptions::default()
        };
        Ok(Arc::new(Self {
            token: ArcSwapOption::from_pointee(options.token.clone()),
            held: Client::new(Arc::clone(resolver), pool(super::watch::HELD_MAX)),
            quick: Client::new(Arc::clone(resolver), pool(IDLE_MAX)),
            options,
            tls,
        }))
    }

    /// How the agent is reached.
    pub fn options(&self) -> &AgentOptions {
        &self.options
    }

    /// Asks. Whatever is no good answer is an error that says what kind.
    pub async fn ask(&self, question: &Question) -> Result<AgentAnswer, AgentError> {
        let request = self.request(question)?;
        let client = match question.held {
            true => &self.held,
            false => &self.quick,
        };
        let limits = Limits {
            connect: CONNECT_TIMEOUT,
            total: question.timeout,
            body_bytes_max: ANSWER_BYTES_MAX,
        };
        let unreachable = |error: ClientError| AgentError::Unreachable(error.chain());
        let response = match &self.options.address {
            AgentAddress::Unix(path) => {
                let destination = Destination {
                    address: Address::Unix(path.as_path().into()),
                    tls: None,
                    protocol: HttpProtocol::Http1,
                };
                client.send(&destination, request, &limits).await
            }
            AgentAddress::Tcp { host, port, .. } => {
                self.send_tcp(client, host, *port, request, &limits).await
            }
        };
        let response = response.map_err(unreachable)?;
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            return Ok(AgentAnswer {
                body,
                headers: parts.headers,
            });
        }
        let message: String = String::from_utf8_lossy(&body)
            .trim()
            .chars()
            .take(MESSAGE_CHARACTERS_MAX)
            .map(|character| {
                if character.is_control() {
                    ' '
                } else {
                    character
                }
            })
            .collect();
        Err(match parts.status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                self.read_token_again();
                AgentError::Forbidden(message)
            }
            StatusCode::NOT_FOUND => AgentError::NotFound(message),
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                AgentError::Failing {
                    status: status.as_u16(),
                    message,
                }
            }
            status => AgentError::Misunderstood {
                status: status.as_u16(),
                message,
            },
        })
    }

    /// Asks and reads the answer as JSON.
    pub async fn read<T: serde::de::DeserializeOwned>(
        &self,
        question: &Question,
    ) -> Result<T, AgentError> {
        let answer = self.ask(question).await?;
        decode(&answer.body).map_err(AgentError::Unreadable)
    }

    /// Tries the addresses of a name in turn while none can be connected to.
    async fn send_tcp(
        &self,
        client: &Arc<Client>,
        host: &str,
        port: u16,
        request: Request<Bytes>,
        limits: &Limits,
    ) -> Result<http::Response<Bytes>, ClientError> {
        let server_name = self.options.tls.server_name.as_deref().unwrap_or(host);
        let addresses = addresses(host, port, limits.connect).await?;
        let mut last = None;
        for address in addresses {
            let destination = Destination {
                address: Address::Tcp(address),
                tls: self.tls.as_ref().map(|tls| DestinationTls {
                    tls: Arc::clone(tls),
                    server_name: server_name.into(),
                }),
                protocol: HttpProtocol::Http1,
            };
            match client.send(&destination, request.clone(), limits).await {
                Err(error) if !error.was_written() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| unresolved(host, "the name has no address")))
    }

    fn request(&self, question: &Question) -> Result<Request<Bytes>, AgentError> {
        let mistake = |what: String| AgentError::Misunderstood {
            status: 0,
            message: what,
        };
        let (prefix, host) = match &self.options.address {
            AgentAddress::Unix(_) => ("", "localhost".to_owned()),
            AgentAddress::Tcp {
                host, port, prefix, ..
            } => match host.contains(':') {
                true => (prefix.as_str(), format!("[{host}]:{port}")),
                false => (prefix.as_str(), format!("{host}:{port}")),
            },
        };
        let mut target = format!("{prefix}{}", question.target);
        for (name, value) in [
            ("ns", &self.options.namespace),
            ("partition", &self.options.partition),
        ] {
            // A question may name its own.
            let own = format!("{name}=");
            let named = target.contains(&format!("?{own}")) || target.contains(&format!("&{own}"));
            if let Some(value) = value.as_ref().filter(|_| !named) {
                target.push(if target.contains('?') { '&' } else { '?' });
                target.push_str(&own);
                target.push_str(&encode(value));
            }
        }
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(target)
            .header("host", host)
            .header("accept", "application/json");
        if let Some(token) = self.token.load().as_deref() {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| mistake("the token cannot be sent in a header".to_owned()))?;
            value.set_sensitive(true);
            request = request.header("x-consul-token", value);
        }
        if let Some(auth) = &self.options.auth {
            let text = base64::engine::general_purpose::STANDARD.encode(auth.expose());
            let mut value = HeaderValue::from_str(&format!("Basic {text}"))
                .map_err(|_| mistake("consul_http_auth cannot be sent".to_owned()))?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        if question.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = question.body.clone().unwrap_or_default();
        request
            .body(Bytes::from(body))
            .map_err(|error| mistake(error.to_string()))
    }

    /// A token in a file may have been replaced since it was read.
    fn read_token_again(&self) {
        let Some(file) = &self.options.token_file else {
            return;
        };
        match options::read_token(file) {
            Ok(token) => self.token.store(token.map(Arc::new)),
            Err(error) => tracing::warn!(error, "the token cannot be read again"),
        }
    }
}

fn unresolved(host: &str, reason: &str) -> ClientError {
    ClientError::Unresolved {
        name: host.into(),
        reason: reason.into(),
    }
}

/// The addresses of the agent's host, as the system knows them: it is `localhost` or a number nearly always.
async fn addresses(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, ClientError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match tokio::time::timeout(limit, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.take(ADDRESSES_TRIED_MAX).collect()),
        Ok(Err(error)) => Err(unresolved(host, &error.to_string())),
        Err(_) => Err(unresolved(host, "nobody answered in time")),
    }
}

/// Reads JSON; the error says where it stops making sense, not what stood there.
pub fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("line {}, column {}", error.line(), error.column()))
}

/// See [`AgentAnswer::is_empty`].
fn says_nothing(body: &[u8]) -> bool {
    fn nothing(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Null => true,
            serde_json::Value::Array(list) => list.is_empty(),
            serde_json::Value::Object(members) => members.values().all(nothing),
            _ => false,
        }
    }
    // The name of a service may stand in it.
    body.len() <= NOTHING_BYTES_MAX
        && serde_json::from_slice(body).is_ok_and(|value| nothing(&value))
}

/// A name as part of a path or query.
pub fn encode(text: &str) -> String {
    const SAFE: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, SAFE).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_say_nothing() {
        for (body, nothing) in [
            ("[]", true),
            (" null\n", true),
            ("{}", true),
            ("{\"db\": null}", true),
            ("{\"db\": []}", true),
            ("[{}]", false),
            ("{\"Roots\": [], \"TrustDomain\": \"x\"}", false),
            ("0", false),
            ("[", false),
        ] {
            assert_eq!(says_nothing(body.as_bytes()), nothing, "{body}");
        }
    }
}
