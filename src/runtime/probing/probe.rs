//! One probe of one address: a connection, and what is asked on it.
//!
//! Written by hand rather than with a client: of an HTTP answer only the status line matters, and a probe that costs
//! little can be sent to many.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::tls::tokio_ssl::SslStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::model::plan::{HttpProbePlan, ProbeKind, ProbePlan};
use crate::runtime::cluster::{Cluster, Endpoint, Outcome, Vitals};
use crate::runtime::probing::grpc;
use crate::runtime::upstream_tls::UpstreamTls;

/// Longest head of an answer that is looked at, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of such a head.
const HEADERS_MAX: usize = 128;
/// `HTTP/1.1 200`.
const STATUS_LINE_BYTES: usize = 12;

/// Probes an address as its cluster's plan says. `None` says nothing: there is no plan, or what it needs is missing.
pub(super) async fn probe(cluster: &Cluster, vitals: &Vitals) -> Option<Outcome> {
    let plan = cluster.plan.health.probe.as_ref()?;
    let endpoint = vitals.endpoint()?;
    let tls = match plan.tls {
        Some(_) => Some(cluster.probe_tls()?),
        None => None,
    };
    let limit = Duration::from_millis(u64::from(plan.timeout_ms));
    let asking = ask(plan, tls.as_deref(), vitals.address, &endpoint);
    let outcome = match pingora_timeout::timeout(limit, asking).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => {
            tracing::debug!(address = %vitals.address, %error, "probe failed");
            match error.kind() {
                io::ErrorKind::TimedOut => Outcome::TimedOut,
                _ => Outcome::Broken,
            }
        }
        Err(_) => Outcome::TimedOut,
    };
    Some(outcome)
}

async fn ask(
    plan: &ProbePlan,
    tls: Option<&UpstreamTls>,
    mut address: SocketAddr,
    endpoint: &Arc<Endpoint>,
) -> io::Result<Outcome> {
    if let Some(port) = plan.port {
        address.set_port(port);
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return speak(plan, stream, endpoint).await;
    };
    let name = plan.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    let offered: &[u8] = match plan.kind {
        ProbeKind::Connect => b"",
        ProbeKind::Http(_) => b"\x08http/1.1",
        ProbeKind::Grpc { .. } => b"\x02h2",
    };
    let ssl = tls
        .connection(name.unwrap_or(&endpoint.host), offered)
        .map_err(io::Error::other)?;
    let mut stream = SslStream::new(ssl, stream).map_err(io::Error::other)?;
    Pin::new(&mut stream)
        .connect()
        .await
        .map_err(io::Error::other)?;
    speak(plan, stream, endpoint).await
}

async fn speak<S>(plan: &ProbePlan, mut stream: S, endpoint: &Endpoint) -> io::Result<Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match &plan.kind {
        ProbeKind::Connect => Ok(Outcome::Connected),
        ProbeKind::Http(http) => {
            let request = request(http, plan.tls.is_some(), endpoint);
            stream.write_all(&request).await?;
            stream.flush().await?;
            answer(http, &mut stream).await.map(Outcome::Answered)
        }
        ProbeKind::Grpc { service } => {
            let name = endpoint.authority_with_port.as_bytes();
            grpc::check(stream, plan.tls.is_some(), name, service)
                .await
                .map(Outcome::Answered)
        }
    }
}

fn request(http: &HttpProbePlan, secure: bool, endpoint: &Endpoint) -> Vec<u8> {
    let usual_port = if secure { 443 } else { 80 };
    let mut request = Vec::with_capacity(256);
    let mut put = |parts: &[&[u8]]| {
        for part in parts {
            request.extend_from_slice(part);
        }
    };
    put(&[
        http.method.as_bytes(),
        b" ",
        http.path.as_bytes(),
        b" HTTP/1.1\r\n",
    ]);
    let is_host = |name: &str| name.eq_ignore_ascii_case("host");
    if !http.headers.iter().any(|(name, _)| is_host(name)) {
        let host = match endpoint.port == usual_port {
            true => &endpoint.authority,
            false => &endpoint.authority_with_port,
        };
        put(&[b"Host: ", host.as_bytes(), b"\r\n"]);
    }
    for (name, value) in &http.headers {
        put(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if !http.body.is_empty() {
        let length = http.body.len().to_string();
        put(&[b"Content-Length: ", length.as_bytes(), b"\r\n"]);
    }
    put(&[b"Connection: close\r\n\r\n", http.body.as_bytes()]);
    request
}

/// The answer's status; 500 where it lacks a header that is expected.
async fn answer<S: AsyncRead + Unpin>(http: &HttpProbePlan, stream: &mut S) -> io::Result<u16> {
    let mut head = Vec::with_capacity(512);
    loop {
        let room = HEAD_BYTES_MAX.saturating_sub(head.len()) as u64;
        let read = (&mut *stream).take(room).read_buf(&mut head).await?;
        let answer = match http.expected_headers.is_empty() {
            true => status(&head)?,
            false => status_with_headers(http, &head)?,
        };
        if let Some(status) = answer {
            return Ok(status);
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn status(head: &[u8]) -> io::Result<Option<u16>> {
    let Some(line) = head.get(..STATUS_LINE_BYTES) else {
        return Ok(None);
    };
    let digits = line
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok());
    digits.map(Some).ok_or_else(|| not_http(&"no status line"))
}

fn status_with_headers(http: &HttpProbePlan, head: &[u8]) -> io::Result<Option<u16>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(head).map_err(|error| not_http(&error))?;
    if parsed.is_partial() {
        return Ok(None);
    }
    let has = |(name, value): &(Arc<str>, Arc<str>)| {
        response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case(name) && header.value.trim_ascii() == value.as_bytes()
        })
    };
    Ok(match http.expected_headers.iter().all(has) {
        true => response.code,
        false => Some(500),
    })
}

fn not_http(reason: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the answer is not HTTP/1: {reason}"),
    )
}
