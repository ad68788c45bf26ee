//! What every connection's requests are given to: the gateway itself, or Pingora's proxy path before it.
//!
//! Ordinary requests never see Pingora's proxy path: its state for one request costs more than the rest of the work.

use std::cell::Cell;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use crate::engine::gateway::{BEGUN, Begun, ForcedDriver, Gateway};
use crate::engine::hooks::Hooks;
use crate::engine::http1::Http1;
use crate::runtime::head::RequestHead;

/// The gateway and Pingora's proxy path, which leads to it as well.
pub(crate) struct Application {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) proxy: Arc<HttpProxy<Hooks>>,
}

impl Application {
    /// Are HTTP/1 connections read by the gateway?
    pub(crate) fn reads_http1(&self) -> bool {
        self.gateway.forced != Some(ForcedDriver::Duplex)
    }

    /// Serves an ordinary request. What comes back is for [`Application::forward`].
    pub(crate) async fn serve_http1(
        &self,
        http1: &mut Http1,
        request: RequestHead,
        body: usize,
    ) -> Option<Begun> {
        self.gateway.serve_http1(http1, request, body).await
    }

    /// Gives a request to Pingora's proxy path, from its start or from where the gateway left it.
    pub(crate) async fn forward(
        &self,
        session: ServerSession,
        begun: Option<Begun>,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        match begun {
            Some(begun) => {
                let serving = self.proxy.process_new_http(session, shutdown);
                BEGUN.scope(Cell::new(Some(begun)), serving).await
            }
            None => self.proxy.process_new_http(session, shutdown).await,
        }
    }
}

/// Pingora accepts HTTP/2 streams and gives each to this.
#[async_trait]
impl HttpServerApp for Application {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut begun = None;
        if session.is_http2() && self.gateway.is_ordinary(&session) {
            begun = Some(self.gateway.serve_http2(&mut session).await?);
        }
        self.forward(session, begun, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
