//! The second baseline: the smallest possible Pingora proxy. One fixed peer, one thread, no policy.
//!
//! What the gateway costs above this is what *we* added; what this costs above nginx is Pingora's.

use std::net::SocketAddr;

use anyhow::{Result, anyhow};
use async_trait::async_trait;
use clap::Args;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Arguments of the `bare` role.
#[derive(Args)]
pub(crate) struct BareArguments {
    /// Address for plain HTTP/1.1.
    #[arg(long)]
    listen: String,
    /// Address for TLS (HTTP/1.1 and HTTP/2 by ALPN).
    #[arg(long)]
    listen_tls: String,
    /// PEM file with the certificate.
    #[arg(long)]
    certificate: String,
    /// PEM file with its key.
    #[arg(long)]
    key: String,
    /// The only upstream.
    #[arg(long)]
    upstream: SocketAddr,
}

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _context: &mut Self::CTX,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        #[allow(clippy::disallowed_methods, reason = "the address needs no resolving")]
        let peer = HttpPeer::new(self.upstream, false, String::new());
        Ok(Box::new(peer))
    }
}

/// Serves until killed.
///
/// # Errors
/// When the certificate or the key cannot be used.
pub(crate) fn run(arguments: &BareArguments) -> Result<()> {
    let configuration = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let upstream = arguments.upstream;
    let mut service = http_proxy_service(&server.configuration, Bare { upstream });
    service.add_tcp(&arguments.listen);
    let mut tls = TlsSettings::intermediate(&arguments.certificate, &arguments.key)
        .map_err(|error| anyhow!("cannot use the certificate: {error}"))?;
    tls.enable_h2();
    service.add_tls_with_settings(&arguments.listen_tls, None, tls);
    server.add_service(service);
    server.run_forever()
}
