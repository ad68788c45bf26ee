//! The gateway's own HTTP client, for everything that is not a proxied request: probes, questions to agents, callouts,
//! deliveries of logs, answers about revoked certificates.
//!
//! ```text
//! send_url ─▶ resolve ─▶ send ─▶ pool ─▶ take, or connect (TCP, Unix, TLS) ─▶ exchange ─▶ whole response
//!                                  ▲──────────────── keep ◀───────────────────────┘
//! ```
//!
//! Owns connections of its own, apart from those of proxied requests: bodies are small and held whole, and every call has
//! an end in time and size. Refuses to know what is asked and why, and to retry what may have been done already. Start at
//! [`Client::send`] and [`Client::send_url`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use tokio::time::Instant;

use crate::runtime::resolver::Resolver;
use crate::runtime::upstream_tls::UpstreamTls;

mod connect;
mod error;
mod exchange;
mod names;
mod pool;
#[cfg(test)]
mod tests;

pub use error::{ClientError, Stage};

use names::Names;
use pool::{Pool, PoolKey};

/// Addresses of a name that are tried when connecting fails.
const ADDRESSES_TRIED_MAX: usize = 3;

/// What a client keeps.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// Idle connections kept for one destination. Default 32.
    pub idle_per_destination_max: usize,
    /// Idle connections kept in all. Default 1024.
    pub idle_max: usize,
    /// How long an idle connection is kept. Default 30 s, below what servers usually allow.
    pub idle: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            idle_per_destination_max: 32,
            idle_max: 1024,
            idle: Duration::from_secs(30),
        }
    }
}

/// Where a request goes, and how it gets there.
#[derive(Debug, Clone)]
pub struct Destination {
    pub address: Address,
    /// Without it the connection is plain.
    pub tls: Option<DestinationTls>,
    pub protocol: HttpProtocol,
}

/// A place to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(Arc<Path>),
}

/// TLS of a destination.
#[derive(Clone)]
pub struct DestinationTls {
    pub tls: Arc<UpstreamTls>,
    /// Host name or address without port: sent as server name, and verified if the settings say so.
    pub server_name: Arc<str>,
}

/// The version of HTTP to speak. There is no negotiation: over TLS this one alone is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HttpProtocol {
    #[default]
    Http1,
    /// Without TLS by prior knowledge.
    Http2,
}

/// The end of every call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To open a connection, TLS included. Default 5 s.
    pub connect: Duration,
    /// From the call to the last byte of the response. Default 30 s.
    pub total: Duration,
    /// Longest response body. Default 1 MiB.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            total: Duration::from_secs(30),
            body_bytes_max: 1 << 20,
        }
    }
}

/// Sends requests and keeps connections. One for the whole process.
pub struct Client {
    names: Names,
    pool: Arc<Pool>,
}

impl Client {
    /// A client that finds names with this resolver.
    pub fn new(resolver: Arc<Resolver>, options: ClientOptions) -> Arc<Self> {
        Arc::new(Self {
            names: Names::new(resolver),
            pool: Arc::new(Pool::new(options)),
        })
    }

    /// Sends a request and waits for the whole response, whatever its status.
    ///
    /// The request's URI may be absolute or only a target; `Host` is taken from its header, else from the URI, else from
    /// the destination. `Content-Length` is set. A pooled connection is used when there is one; when it turns out to be
    /// closed a request that may be repeated is sent once more over a new one. Must be called within a tokio runtime.
    pub async fn send(
        &self,
        destination: &Destination,
        request: Request<Bytes>,
        limits: &Limits,
    ) -> Result<Response<Bytes>, ClientError> {
        let deadline = Instant::now() + limits.total;
        self.send_until(destination, request, limits, deadline)
            .await
    }

    /// Sends a request to the absolute `http` or `https` URL that it names, over HTTP/1.1.
    ///
    /// `tls` counts for `https`. While connecting fails further addresses of the name are tried. Redirects are not
    /// followed.
    pub async fn send_url(
        &self,
        tls: &Arc<UpstreamTls>,
        request: Request<Bytes>,
        limits: &Limits,
    ) -> Result<Response<Bytes>, ClientError> {
        let deadline = Instant::now() + limits.total;
        let target = UrlTarget::of(request.uri())?;
        let addresses = match target.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let limit = deadline.min(Instant::now() + limits.connect);
                self.names.resolve(&target.host, limit).await?
            }
        };
        let mut last = None;
        for address in addresses.into_iter().take(ADDRESSES_TRIED_MAX) {
            let destination = Destination {
                address: Address::Tcp(SocketAddr::new(address, target.port)),
                tls: target.secure.then(|| DestinationTls {
                    tls: Arc::clone(tls),
                    server_name: Arc::clone(&target.host),
                }),
                protocol: HttpProtocol::Http1,
            };
            match self
                .send_until(&destination, request.clone(), limits, deadline)
                .await
            {
                Err(error) if error.is_connecting() && Instant::now() < deadline => {
                    last = Some(error);
                }
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Unresolved {
            name: target.host,
            reason: "the name has no address".into(),
        }))
    }

    async fn send_until(
        &self,
        destination: &Destination,
        request: Request<Bytes>,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Response<Bytes>, ClientError> {
        let key = PoolKey::of(destination);
        let request = exchange::prepare(destination, request)?;
        if let Some(connection) = self.pool.take(&key) {
            let repeatable = is_idempotent(request.method());
            let once_more = request.clone();
            let outcome =
                exchange::run(&self.pool, &key, connection, request, limits, deadline).await;
            match outcome {
                Err(failure) if failure.stale && (repeatable || !failure.error.was_written()) => {
                    let fresh = connect::open(destination, limits, deadline).await?;
                    return exchange::run(&self.pool, &key, fresh, once_more, limits, deadline)
                        .await
                        .map_err(|failure| failure.error);
                }
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
        let connection = connect::open(destination, limits, deadline).await?;
        exchange::run(&self.pool, &key, connection, request, limits, deadline)
            .await
            .map_err(|failure| failure.error)
    }

    /// Idle connections at present.
    pub fn idle_connections(&self) -> usize {
        self.pool.idle()
    }
}

/// What a URL says about where to go.
struct UrlTarget {
    secure: bool,
    /// Without brackets.
    host: Arc<str>,
    port: u16,
}

impl UrlTarget {
    fn of(uri: &Uri) -> Result<Self, ClientError> {
        let refused = |reason: &str| ClientError::Url {
            url: uri.to_string(),
            reason: reason.to_owned(),
        };
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| refused("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused(
                "it must not hold a user name or password, use an Authorization header",
            ));
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(refused("it has no host"));
        }
        Ok(Self {
            secure,
            host: host.into(),
            port: authority
                .port_u16()
                .unwrap_or(if secure { 443 } else { 80 }),
        })
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for DestinationTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DestinationTls")
            .field("server_name", &self.server_name)
            .field("identity", &self.tls.identity())
            .finish()
    }
}
