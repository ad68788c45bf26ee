//! The front door: what happens between accepting a TCP connection and the first HTTP request, and between requests.
//!
//! ```text
//! accept ─▶ facts ─▶ TLS? ─▶ what is spoken? ─▶ HTTP/2: frames to Pingora
//!                                           └▶ HTTP/1: wait ─▶ ordinary? ─▶ gateway ────────────┐
//!                                                        ▲        └▶ session ─▶ Pingora, gateway ┤
//!                                                        └──────────── keep-alive ──────────────┘
//! ```

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::apps::{HttpPersistentSettings, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::ALPN;
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use tokio::net::TcpStream;

use crate::engine::accept::Serve;
use crate::engine::application::Application;
use crate::engine::gateway::Begun;
use crate::engine::http1::{Http1, Received};
use crate::engine::io::{Channel, Io, Refuse};
use crate::engine::pace::Limits;
use crate::engine::peek::{self, look};
use crate::engine::stream::Streams;
use crate::engine::tls::Acceptor;
use crate::engine::wait::{Alarm, once};
use crate::runtime::connection::Connection;

/// Once a request has begun to arrive, its head must come without pauses longer than this.
const HEAD_PAUSE_SECONDS: u64 = 10;
/// The first bytes of HTTP/2 with prior knowledge (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What every connection of a listener needs.
pub(crate) struct Front {
    pub(crate) application: Arc<Application>,
    pub(crate) acceptor: Option<Arc<Acceptor>>,
    /// HTTP/2 with prior knowledge on a plain listener.
    pub(crate) http2: bool,
    pub(crate) refuse: Refuse,
    /// Where connections go that a passthrough route claims.
    pub(crate) streams: Arc<Streams>,
    /// Turns true when connections without a request are to be closed.
    pub(crate) idle_closes: ShutdownWatch,
}

impl Serve for Front {
    async fn serve(
        &self,
        stream: TcpStream,
        connection: Connection,
        shutdown: ShutdownWatch,
    ) -> io::Result<()> {
        let (stream, connection) = match &self.acceptor {
            None => (stream, connection),
            Some(_) => match self.streams.claim(stream, connection).await {
                Ok(()) => return Ok(()),
                Err(ours) => ours,
            },
        };
        let keeping = self.keeping();
        self.serve_requests(stream, connection, keeping, shutdown)
            .await
    }
}

/// How long a client's connection is kept, by the settings at accept time.
#[derive(Clone, Copy)]
struct Keeping {
    idle: Duration,
    requests_max: u32,
    limits: Limits,
}

impl Front {
    fn keeping(&self) -> Keeping {
        let snapshot = self.streams.snapshots.load();
        let plan = &snapshot.serving.plan;
        Keeping {
            idle: match plan.client_idle_seconds {
                0 => Duration::from_secs(u64::from(u32::MAX)),
                seconds => Duration::from_secs(seconds),
            },
            requests_max: match plan.client_requests_max {
                0 => u32::MAX,
                requests => requests,
            },
            limits: Limits {
                head: match plan.client_head_ms {
                    0 => None,
                    milliseconds => Some(Duration::from_millis(milliseconds)),
                },
                body_rate: plan.client_body_bytes_per_second,
            },
        }
    }

    async fn serve_requests(
        &self,
        stream: TcpStream,
        connection: Connection,
        keeping: Keeping,
        shutdown: ShutdownWatch,
    ) -> io::Result<()> {
        let mut idle_closes = self.idle_closes.clone();
        let (channel, alpn) = match &self.acceptor {
            Some(acceptor) => {
                let (stream, facts, alpn) = acceptor.accept(stream).await?;
                let _ = connection.tls.set(facts);
                (Channel::Tls(Box::new(stream)), alpn)
            }
            None => {
                let alpn = match self.http2 {
                    true => tokio::select! {
                        spoken = recognise(&stream, keeping.idle) => spoken?,
                        _ = idle_closes.wait_for(|close| *close) => return Ok(()),
                    },
                    false => ALPN::H1,
                };
                (Channel::Plain(stream), alpn)
            }
        };
        self.serve_ready(channel, alpn, connection, keeping, shutdown)
            .await
    }

    /// What a plain connection speaks where HTTP/2 with prior knowledge is allowed.
    pub(crate) async fn recognised(&self, stream: &TcpStream) -> io::Result<ALPN> {
        recognise(stream, self.keeping().idle).await
    }

    /// Serves the requests of a connection whose TLS handshake is done.
    pub(crate) fn serve_channel(
        &self,
        channel: Channel,
        alpn: ALPN,
        connection: Connection,
        shutdown: ShutdownWatch,
    ) -> impl Future<Output = io::Result<()>> {
        let keeping = self.keeping();
        self.serve_ready(channel, alpn, connection, keeping, shutdown)
    }

    async fn serve_ready(
        &self,
        channel: Channel,
        alpn: ALPN,
        connection: Connection,
        keeping: Keeping,
        shutdown: ShutdownWatch,
    ) -> io::Result<()> {
        let Keeping {
            idle, requests_max, ..
        } = keeping;
        let connection = Arc::new(connection);
        let http2 = alpn == ALPN::H2;
        let digest = if http2 {
            Some(carry(&connection)?)
        } else {
            None
        };
        let refuse = Arc::clone(&self.refuse);
        let io = Io::new(
            connection,
            channel,
            Some(alpn),
            digest,
            refuse,
            keeping.limits,
        );
        if http2 {
            self.application.process_new(Box::new(io), &shutdown).await;
            return Ok(());
        }
        self.serve_http1(Box::new(io), idle, requests_max, shutdown)
            .await
    }

    async fn serve_http1(
        &self,
        mut io: Box<Io>,
        idle: Duration,
        requests_max: u32,
        shutdown: ShutdownWatch,
    ) -> io::Result<()> {
        let mut requests_left = requests_max;
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            let may_have_read_ahead = io.may_have_read_ahead();
            let mut ahead = BytesMut::new();
            let mut begun = None;
            if !may_have_read_ahead {
                settings = None;
                let ordinary = self.serve_ordinary(io, idle, &mut requests_left, &shutdown);
                let Some(left) = ordinary.await? else {
                    return Ok(());
                };
                (io, ahead, begun) = left;
            }
            io.expect_request(!ahead.is_empty());
            if !ahead.is_empty() {
                io.hand_to_session(&ahead);
            }
            let mut session = ServerSession::new_http1(io);
            if let Some(settings) = settings.take() {
                settings.apply_to_session(&mut session);
            }
            if !ahead.is_empty() {
                session.set_pipelined_prefix(ahead);
            }
            requests_left = requests_left.saturating_sub(1);
            session.set_keepalive_reuses_remaining(Some(requests_left));
            // A session that was not waited for may have to wait for its request as long as an idle client may.
            let pause = match may_have_read_ahead {
                true => idle.as_secs(),
                false => HEAD_PAUSE_SECONDS,
            };
            session.set_keepalive(Some(pause));
            let forwarded = self.application.forward(session, begun, &shutdown);
            let Some(reused) = forwarded.await else {
                return Ok(());
            };
            let (stream, persistent) = reused.consume();
            settings = persistent;
            io = match stream.into_any().downcast::<Io>() {
                Ok(io) => io,
                Err(_) => return Ok(()),
            };
        }
    }

    /// Serves requests until the connection ends, or until one comes that needs a session: then the stream, what was
    /// read of it, and how far the request came. No buffer exists while the client is silent.
    async fn serve_ordinary(
        &self,
        mut io: Box<Io>,
        idle: Duration,
        requests_left: &mut u32,
        shutdown: &ShutdownWatch,
    ) -> io::Result<Option<(Box<Io>, BytesMut, Option<Begun>)>> {
        let mut idle_closes = self.idle_closes.clone();
        if !self.application.reads_http1() {
            return tokio::select! {
                biased;
                ready = tokio::time::timeout(idle, io.readable()) => match ready {
                    Ok(ready) => ready.map(|()| Some((io, BytesMut::new(), None))),
                    Err(_) => Ok(None),
                },
                _ = idle_closes.wait_for(|close| *close) => Ok(None),
            };
        }
        // One of each for all requests: setting them up anew for each costs more than looking at them.
        let mut alarm = Alarm::default();
        let changes = idle_closes.clone();
        let closing = idle_closes.wait_for(|close| *close);
        let mut closing = pin!(once(closing, || changes.has_changed().unwrap_or(true)));
        let mut http1 = Http1::new(io);
        loop {
            let due = (http1.silent_since() + idle).into();
            let received = tokio::select! {
                biased;
                received = http1.receive() => received,
                () = alarm.rings(due) => return Ok(None),
                _ = &mut closing => return Ok(None),
            };
            let received = match received {
                // Whoever has begun is no longer idle.
                Ok(Received::Begun) => Box::pin(http1.receive_rest()).await,
                received => received,
            };
            let begun = match received? {
                Received::End => return Ok(None),
                Received::Extraordinary | Received::Begun => None,
                Received::Request(request, body) => {
                    if *requests_left <= 1 || *shutdown.borrow() {
                        http1.close();
                    }
                    let serving = self.application.serve_http1(&mut http1, request, body);
                    match serving.await {
                        Some(begun) => Some(begun),
                        None => {
                            *requests_left = requests_left.saturating_sub(1);
                            if http1.next().await {
                                continue;
                            }
                            http1.end().await;
                            return Ok(None);
                        }
                    }
                }
            };
            let request = begun.as_ref().map(|begun| &begun.exchange.request);
            let (io, ahead) = http1.into_parts(request.map_or(b"", |head| head.as_it_came()));
            return Ok(Some((io, ahead, begun)));
        }
    }
}

/// Looks at the first bytes without taking them.
async fn recognise(stream: &TcpStream, idle: Duration) -> io::Result<ALPN> {
    let judge = |first: &[u8]| {
        if !HTTP2_PREFACE.starts_with(first) {
            return Some(ALPN::H1);
        }
        (first.len() == HTTP2_PREFACE.len()).then_some(ALPN::H2)
    };
    let limit = idle.min(Duration::from_secs(HEAD_PAUSE_SECONDS));
    match look(stream, HTTP2_PREFACE.len(), limit, judge).await {
        Ok(spoken) => Ok(spoken),
        // Whatever it was, HTTP/1 says what is wrong with it.
        Err(peek::Unseen::Ended(_) | peek::Unseen::TooLong(_)) => Ok(ALPN::H1),
        Err(peek::Unseen::Late(_)) => Err(io::ErrorKind::TimedOut.into()),
        Err(peek::Unseen::Io(error)) => Err(error),
    }
}

/// Packs the connection's facts where HTTP/2 streams find them.
fn carry(connection: &Arc<Connection>) -> io::Result<Arc<ProxyDigest>> {
    let head = ResponseHeader::build_no_case(200, Some(0)).map_err(io::Error::other)?;
    let facts: Box<dyn std::any::Any + Send + Sync> = Box::new(Arc::clone(connection));
    Ok(Arc::new(ProxyDigest::new(Box::new(head), Some(facts))))
}
