//! Opening connections.

use std::io;
use std::pin::Pin;

use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora_core::tls::tokio_ssl::SslStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::error::{ClientError, Stage};
use super::pool::Connection;
use super::{Address, Destination, DestinationTls, HttpProtocol, Limits};
use crate::runtime::upstream_tls::UpstreamTls;

/// Largest response head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header fields of a response.
const HEADERS_MAX: usize = 256;

/// Opens a connection within the limit for connecting, and before `deadline`.
pub(super) async fn open(
    destination: &Destination,
    limits: &Limits,
    deadline: Instant,
) -> Result<Connection, ClientError> {
    let limit = deadline.min(Instant::now() + limits.connect);
    match tokio::time::timeout_at(limit, connect(destination)).await {
        Ok(opened) => opened,
        Err(_) => Err(ClientError::Timeout {
            address: destination.address.clone(),
            stage: Stage::Connecting,
        }),
    }
}

async fn connect(destination: &Destination) -> Result<Connection, ClientError> {
    let failed = |source| ClientError::Connect {
        address: destination.address.clone(),
        source,
    };
    match &destination.address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            secure(destination, stream).await
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            secure(destination, stream).await
        }
    }
}

async fn secure<S>(destination: &Destination, stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(DestinationTls { tls, server_name }) = &destination.tls else {
        return speak(destination, TokioIo::new(stream)).await;
    };
    let failed = |reason: String| ClientError::Handshake {
        address: destination.address.clone(),
        reason,
    };
    let offered: &[u8] = match destination.protocol {
        HttpProtocol::Http1 => b"\x08http/1.1",
        HttpProtocol::Http2 => b"\x02h2",
    };
    let ssl = tls.connection(server_name, offered).map_err(failed)?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| failed(error.to_string()))?;
    let shaken = Pin::new(&mut stream).connect().await;
    if let Err(error) = shaken {
        return Err(match UpstreamTls::refusal(stream.ssl()) {
            Some(reason) => ClientError::Verification {
                address: destination.address.clone(),
                reason: reason.to_owned(),
            },
            None => failed(error.to_string()),
        });
    }
    let agreed = stream.ssl().selected_alpn_protocol();
    if destination.protocol == HttpProtocol::Http2 && agreed != Some(b"h2") {
        return Err(failed("the peer does not speak HTTP/2".to_owned()));
    }
    speak(destination, TokioIo::new(stream)).await
}

/// Starts HTTP on a stream; a task of its own drives it until either side closes it.
async fn speak<S>(destination: &Destination, stream: S) -> Result<Connection, ClientError>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| ClientError::Connect {
        address: destination.address.clone(),
        source: io::Error::other(error),
    };
    match destination.protocol {
        HttpProtocol::Http1 => {
            let (sender, driver) = http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .handshake(stream)
                .await
                .map_err(failed)?;
            tokio::spawn(async move {
                // What breaks the connection is told to whoever waits for a response on it.
                let _ = driver.await;
            });
            Ok(Connection::Http1(sender))
        }
        HttpProtocol::Http2 => {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .max_header_list_size(HEAD_BYTES_MAX as u32)
                .handshake(stream)
                .await
                .map_err(failed)?;
            tokio::spawn(async move {
                let _ = driver.await;
            });
            Ok(Connection::Http2(sender))
        }
    }
}
