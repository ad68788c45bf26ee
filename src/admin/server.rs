//! Serving a router on a listener that is bound already: HTTP/1.1 and HTTP/2, in clear text or over TLS, with limits.
//!
//! Knows nothing of what the router answers. Whoever calls [`serve`] owns the runtime and the listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use crate::engine::Acceptor;

/// Most connections of one listener; further ones wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Longest wait for the head of a request, which is also how long an idle connection stays.
const HEAD_PATIENCE: Duration = Duration::from_secs(75);

/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// How long requests in flight may take to end after the shutdown signal.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Pause after a failed accept: descriptors may have run out, and the loop must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The two ends of the connection that a request came on; the server puts it into the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The address on which the connection was accepted.
    pub local: SocketAddr,
    /// The client.
    pub remote: SocketAddr,
}

/// Serves until `shutdown` completes, then waits for the requests in flight. With `tls` every connection begins with a
/// handshake.
pub async fn serve(
    listener: std::net::TcpListener,
    tls: Option<Arc<Acceptor>>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(false);
    let builder = builder();
    tokio::pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = places.clone().acquire_owned() => place.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an administrative connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        // A lost socket option costs latency, nothing else.
        let _ = stream.set_nodelay(true);
        let (ends, tls) = (Ends { local, remote }, tls.clone());
        let (router, builder, stopped) = (router.clone(), builder.clone(), stopped.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_connection(stream, ends, router, builder, stopped).await,
                Some(acceptor) => match acceptor.accept_administrator(stream).await {
                    Ok(stream) => serve_connection(stream, ends, router, builder, stopped).await,
                    Err(error) => tracing::debug!(%remote, %error, "no administrative connection"),
                },
            }
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    let everyone = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    // When the patience ends, the runtime's shutdown cuts what is left.
    let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, places.acquire_many(everyone)).await;
    Ok(())
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(HEAD_PATIENCE);
    builder
}

async fn serve_connection<S>(
    stream: S,
    ends: Ends,
    router: Router,
    builder: Builder<TokioExecutor>,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ends);
        request.map(Body::new)
    });
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        let remote = ends.remote;
        tracing::debug!(%remote, %error, "an administrative connection ended early");
    }
}

/// Waits for the signal; a lost sender counts as one.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn serves_tells_the_ends_and_stops() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(
            "/",
            get(|Extension(ends): Extension<Ends>| async move { ends.local.to_string() }),
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, None, router, async {
            let _ = stopped.await;
        }));
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = vec![0; 4096];
        let length = client.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(&address.to_string()), "{answer}");
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
