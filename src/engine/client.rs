//! Whoever sent the request, as the exchange driver talks to it.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use pingora_core::protocols::http::ServerSession;
use pingora_error::{Error, ErrorType};

use crate::base::token::is_named;
use crate::engine::http1::Http1;
use crate::engine::io::Io;
use crate::engine::phases::BodySource;
use crate::runtime::exchange::{Exchange, RequestBody};
use crate::runtime::fault::{Blame, Fault, FaultKind};

/// Most that is reserved at once for a body of announced length, in bytes.
const RESERVED_BYTES_MAX: u64 = 1024 * 1024;

/// The client's side of an exchange.
pub(crate) enum Client<'a> {
    /// A connection whose requests the gateway reads itself.
    Http1(&'a mut Http1),
    /// A session of Pingora's: an HTTP/2 stream, or an HTTP/1 request that is out of the ordinary.
    Session(&'a mut ServerSession),
}

impl Client<'_> {
    pub(crate) fn is_http2(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Session(session) => session.is_http2(),
        }
    }

    /// The stream underneath; none under HTTP/2, whose streams do not show it.
    pub(crate) fn io(&self) -> Option<&Io> {
        match self {
            Self::Http1(http1) => Some(http1.io()),
            Self::Session(session) => Io::under(session),
        }
    }

    /// This answer is the last one on its connection. HTTP/2 connections go on.
    pub(crate) fn close(&mut self) {
        match self {
            Self::Http1(http1) => http1.close(),
            Self::Session(session) => session.set_keepalive(None),
        }
    }

    /// The version that the client speaks, and whether its connection is kept.
    pub(crate) fn keeps(&self) -> (Version, bool) {
        match self {
            Self::Http1(http1) => (Version::HTTP_11, http1.is_kept()),
            Self::Session(session) => match session.as_http1() {
                Some(http1) => (http1.req_header().version, http1.will_keepalive()),
                None => (Version::HTTP_11, false),
            },
        }
    }

    /// Pending for as long as the client stays, whatever it sends ahead.
    pub(crate) async fn left(&mut self) {
        match self {
            Self::Http1(http1) => http1.left().await,
            Self::Session(session) => {
                if let Err(error) = session.read_body_or_idle(true).await {
                    tracing::debug!(%error, "client left");
                }
            }
        }
    }

    /// The response was cut short: an HTTP/2 stream is reset, an HTTP/1 connection closed.
    pub(crate) async fn cut_short(&mut self) {
        self.close();
        if let Self::Session(session) = self
            && session.is_http2()
        {
            session.shutdown().await;
        }
    }

    /// What Pingora silently put right in the request's head. The gateway's own reader puts nothing right.
    pub(crate) fn repaired(&self, exchange: &Exchange) -> Option<&'static str> {
        let Self::Session(session) = self else {
            return None;
        };
        if Io::under(session).is_some_and(Io::is_line_broken) {
            return Some("a space in the request target");
        }
        let both = exchange.request.fields().contains(&TRANSFER_ENCODING)
            && session
                .as_http1()
                .is_some_and(|http1| announces_length(&http1.get_headers_raw_bytes()));
        both.then_some("both Content-Length and Transfer-Encoding")
    }

    /// A client whose HTTP/2 stream is reset while it still sends may take that for a failure and drop the answer, as
    /// curl does: what comes within `limit` is read. On HTTP/1 the rest of a body is read before the next request.
    pub(crate) async fn read_away(&mut self, limit: Duration) {
        if let Self::Session(session) = self
            && session.is_http2()
        {
            session.set_total_drain_timeout(Some(limit));
            if let Err(error) = session.drain_request_body().await {
                tracing::debug!(%error, "request body not read to its end");
            }
        }
    }

    async fn body_piece(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self {
            Self::Http1(http1) => http1.body_piece().await.map_err(BodyError::Io),
            Self::Session(session) => {
                let piece = session.read_request_body().await;
                if matches!(piece, Ok(None))
                    && let Some(io) = Io::under(session)
                {
                    io.body_ended();
                }
                piece.map_err(BodyError::Session)
            }
        }
    }
}

/// Why a request body could not be read.
enum BodyError {
    Io(io::Error),
    Session(Box<Error>),
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Self {
        let timed_out = match &error {
            BodyError::Io(error) => error.kind() == io::ErrorKind::TimedOut,
            BodyError::Session(error) => *error.etype() == ErrorType::ReadTimedout,
        };
        let status = match timed_out {
            true => StatusCode::REQUEST_TIMEOUT,
            false => StatusCode::BAD_REQUEST,
        };
        let cause = match error {
            BodyError::Io(error) => format!("reading the request body: {error}"),
            BodyError::Session(error) => format!("reading the request body: {error}"),
        };
        Self::transport(status, Blame::Client, cause)
    }
}

impl BodySource for Client<'_> {
    async fn hold(&mut self, exchange: &mut Exchange, bytes_max: Option<u64>) -> Result<(), Fault> {
        let RequestBody::Streaming { length } = exchange.request_body else {
            return Ok(());
        };
        let plan = &exchange.snapshot.serving.plan;
        let held_max = bytes_max.unwrap_or(plan.held_body_bytes_max as u64);
        let limit = match plan.request_body_bytes_max {
            0 => held_max,
            limit => limit.min(held_max),
        };
        let too_large = || {
            let cause = format!("request body exceeds {limit} bytes, the limit for held bodies");
            Fault::transport(StatusCode::PAYLOAD_TOO_LARGE, Blame::Client, cause)
                .kind(FaultKind::RequestTooLarge)
        };
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        if exchange.request.fields().contains(&EXPECT) {
            if let Self::Session(session) = self {
                let written = session.write_continue_response().await;
                written.map_err(BodyError::Session)?;
            }
            exchange.request.remove_header(&EXPECT);
        }
        let reserve = length.unwrap_or(0).min(RESERVED_BYTES_MAX) as usize;
        let mut body = BytesMut::with_capacity(reserve);
        while let Some(piece) = self.body_piece().await? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        exchange.request_body = RequestBody::Held(body.freeze());
        Ok(())
    }
}

/// Is there a Content-Length in a raw head? Pingora drops one that comes with a Transfer-Encoding.
fn announces_length(head: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n').any(|line| {
        line.get(..NAME.len())
            .is_some_and(|start| is_named(start, NAME))
    })
}
