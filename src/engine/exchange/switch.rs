//! What follows when an upstream switches protocols: the answer to the client, and then a tunnel.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};

use crate::engine::client::Client;
use crate::engine::exchange::codec::{UpstreamConnection, UpstreamStream};
use crate::engine::exchange::downstream::Downstream;
use crate::engine::exchange::{ExchangeDriver, left};
use crate::engine::io::Io;
use crate::engine::tunnel::{self, ClientStream, Limits};
use crate::engine::websocket::{frame::Compression, opening, relay};
use crate::engine::{heads, phases};
use crate::model::plan::Protocol;
use crate::runtime::exchange::{Exchange, RequestBody};
use crate::runtime::fault::{Blame, Fault, LocalResponse};
use crate::runtime::head::ResponseHead;
use crate::runtime::snapshot::Forward;

/// Does the request ask for a tunnel that this driver can carry? Not while bytes behind its head wait in a session.
pub(crate) fn is_tunnel(client: &Client<'_>, exchange: &Exchange) -> bool {
    speaks_http1(exchange)
        && exchange.request_body == RequestBody::Absent
        && match client {
            Client::Http1(_) => true,
            Client::Session(_) => !client.io().is_some_and(Io::may_have_read_ahead),
        }
}

/// Why a tunnel that only this driver could carry is none of those that it can.
pub(crate) fn refusal(exchange: &Exchange) -> Fault {
    if !speaks_http1(exchange) {
        let cause = "the upstream's protocol cannot carry a WebSocket";
        return Fault::transport(StatusCode::BAD_GATEWAY, Blame::Gateway, cause);
    }
    let cause = "a WebSocket handshake with a body, or behind other requests without waiting";
    Fault::transport(StatusCode::BAD_REQUEST, Blame::Client, cause)
}

fn speaks_http1(exchange: &Exchange) -> bool {
    exchange.forward().is_some_and(|forward| {
        matches!(
            forward.plan.protocol,
            Protocol::Http | Protocol::Https | Protocol::Ws | Protocol::Wss
        )
    })
}

impl ExchangeDriver {
    /// Passes a switch of protocols on, and then bytes or messages both ways. `Err` is a response for the caller to send;
    /// nothing has been written then.
    pub(super) async fn switch(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        forward: &Forward,
        connection: UpstreamConnection,
        mut head: ResponseHead,
    ) -> Result<(), Box<LocalResponse>> {
        if matches!(client, Client::Session(_)) && client.io().is_some_and(Io::may_have_read_ahead)
        {
            // The watch for a client that leaves has taken a byte that now belongs to the tunnel.
            let cause = "data was sent before the switch of protocols was answered";
            let fault = Fault::transport(StatusCode::BAD_REQUEST, Blame::Client, cause);
            client.close();
            return Err(phases::answer(exchange, &fault));
        }
        let compression = match exchange.reads_messages {
            false => None,
            true => match opening::confirm(exchange, &mut head) {
                Ok(compression) => Some(compression),
                Err(fault) => return Err(Box::pin(phases::failed(exchange, &fault)).await),
            },
        };
        if exchange.http2 {
            // There a tunnel is an ordinary answer that does not end (RFC 8441, 5).
            let _ = head.set_status(StatusCode::OK);
            for name in [&SEC_WEBSOCKET_ACCEPT, &CONNECTION, &UPGRADE] {
                head.remove_header(name);
            }
        }
        heads::drop_hop_by_hop(&mut head, true);
        heads::insert_left_fields(exchange, &mut head);
        phases::header_filter(exchange, &mut head);
        heads::insert_gateway_headers(exchange, &mut head);
        exchange.status = head.status.as_u16();
        let method = exchange.request.method().clone();
        let started =
            Downstream::start(client, &mut head, &method, None, Bytes::new(), false).await;
        client.close();
        exchange.response = Some(head);
        match started {
            Ok(downstream) => exchange.response_bytes = downstream.sent(),
            Err(error) => {
                left(client, exchange, &error);
                return Ok(());
            }
        }
        let (upstream, early) = connection.into_parts();
        Box::pin(self.carry(client, exchange, forward, (upstream, early), compression)).await;
        Ok(())
    }

    /// Carries a tunnel to its end; `compression` where its messages are read.
    async fn carry(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        forward: &Forward,
        (upstream, early): (UpstreamStream, Bytes),
        compression: Option<Compression>,
    ) {
        if let Some(io) = client.io() {
            io.keep_alive();
        }
        upstream.keep_alive();
        heads::settle(exchange);
        let Some((stream, ahead)) = ClientStream::of(client) else {
            return;
        };
        let idle = match exchange.snapshot.serving.plan.tunnel_idle_seconds {
            None => Some(Duration::from_millis(u64::from(
                forward.plan.read_timeout_ms,
            ))),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
        };
        let limits = Limits {
            idle,
            parting: self.parting.clone(),
        };
        let carried = match compression {
            None => {
                let (carried, ended) = tunnel::run(stream, upstream, ahead, early, limits).await;
                if let Err(error) = ended {
                    tracing::debug!(request_id = %exchange.request_id, %error, "tunnel ended");
                }
                carried
            }
            Some(compression) => {
                let ends = (ahead, early);
                let relayed = relay::run(stream, upstream, ends, exchange, compression, limits);
                let (carried, end) = relayed.await;
                tracing::debug!(request_id = %exchange.request_id, ?end, "tunnel ended");
                phases::tunnel_ended(exchange, &end);
                carried
            }
        };
        exchange.request_bytes += carried.to_upstream;
        exchange.response_bytes += carried.to_client;
    }
}
