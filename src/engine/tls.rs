//! TLS towards clients: everything that touches the TLS library on this side is here.
//!
//! One context for each set of listener properties; the certificate is chosen for each handshake from the snapshot
//! that is current then, before resumption is considered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use boring::error::ErrorStack;
use boring::ssl::{
    AlpnError, ClientHello, NameType, SelectCertError, Ssl, SslContext, SslMethod, SslOptions,
    SslRef, SslVerifyMode, select_next_proto,
};
use foreign_types::ForeignTypeRef;
use pingora_core::protocols::tls::ALPN;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::engine::read_ahead::{ReadAhead, TlsStream};
use crate::runtime::certificate_requests::CertificateRequests;
use crate::runtime::certificates::ServerCertificate;
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::connection::TlsFacts;
use crate::runtime::snapshot::Snapshot;
use crate::settings::tls::{CipherSuite, TlsSettings};

mod profile;

/// A client that does not finish its handshake in time is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a listener speaks inside TLS, as it offers it by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Offers {
    Http1,
    Http2,
    /// Streams: whatever the client asks for is not answered.
    Nothing,
}

/// Accepts TLS connections for listeners with the same properties.
pub struct Acceptor {
    context: SslContext,
}

/// Why a client could not be accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("TLS handshake timed out")]
    Timeout,
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
}

impl Acceptor {
    /// Builds the context, with the suite that its listeners have. The error names the setting that the TLS library refuses.
    pub(crate) fn new(
        settings: &TlsSettings,
        offers: Offers,
        suite: CipherSuite,
        snapshots: Arc<ArcSwap<Snapshot>>,
    ) -> Result<Self, String> {
        let refused = |what: &str| {
            let what = what.to_owned();
            move |error: boring::error::ErrorStack| format!("{what}: {error}")
        };
        let mut builder = SslContext::builder(SslMethod::tls()).map_err(refused("TLS context"))?;
        for shortcoming in profile::apply(&mut builder, settings, suite)? {
            tracing::warn!("{shortcoming}");
        }
        builder.set_options(SslOptions::NO_RENEGOTIATION);
        builder.set_select_certificate_callback(move |hello| choose_certificate(hello, &snapshots));
        builder.set_alpn_select_callback(move |_, offered| {
            let ours: &[u8] = match offers {
                Offers::Http2 => b"\x02h2\x08http/1.1",
                Offers::Http1 => b"\x08http/1.1",
                Offers::Nothing => return Err(AlpnError::NOACK),
            };
            select_next_proto(ours, offered).ok_or(AlpnError::NOACK)
        });
        Ok(Self {
            context: builder.build(),
        })
    }

    /// For listeners of administrators: `own` is shown whatever name is asked for, or else what is shown for names
    /// without a certificate. Nobody is asked for a certificate. The error is as above.
    pub fn administrative(
        settings: &TlsSettings,
        own: Option<Arc<ServerCertificate>>,
        snapshots: Arc<ArcSwap<Snapshot>>,
    ) -> Result<Self, String> {
        let mut builder = SslContext::builder(SslMethod::tls())
            .map_err(|error| format!("TLS context: {error}"))?;
        for shortcoming in profile::apply(&mut builder, settings, settings.ssl_cipher_suite)? {
            tracing::warn!("{shortcoming}");
        }
        builder.set_options(SslOptions::NO_RENEGOTIATION);
        builder.set_select_certificate_callback(move |mut hello| {
            let snapshot = snapshots.load();
            let shown = own.as_ref().or_else(|| snapshot.certificates.select(None));
            let shown = shown.ok_or(SelectCertError::ERROR)?;
            // Sessions of other listeners are not theirs to resume.
            let scope = Sha256::digest(b"administration");
            let ready = shown
                .show(&mut hello)
                .and_then(|()| limit_resumption(hello.ssl_mut(), &scope));
            ready.map_err(|error| {
                tracing::error!(%error, "the certificate of an administrative listener cannot be used");
                SelectCertError::ERROR
            })
        });
        builder.set_alpn_select_callback(move |_, offered| {
            select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::NOACK)
        });
        Ok(Self {
            context: builder.build(),
        })
    }

    /// Does the handshake of an administrator's connection, within a limit of time.
    pub async fn accept_administrator(
        &self,
        stream: TcpStream,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, AcceptError> {
        let (stream, _, _) = self.accept(stream).await?;
        Ok(stream)
    }

    /// Does the handshake.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream, TlsFacts, ALPN), AcceptError> {
        let failed = |error: &dyn std::fmt::Display| AcceptError::Handshake(error.to_string());
        let ssl = Ssl::new(&self.context).map_err(|error| failed(&error))?;
        let mut stream =
            TlsStream::new(ssl, ReadAhead::new(stream)).map_err(|error| failed(&error))?;
        let handshake = std::pin::Pin::new(&mut stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake.accept()).await {
            Err(_) => return Err(AcceptError::Timeout),
            Ok(Err(error)) => return Err(failed(&error)),
            Ok(Ok(())) => {}
        }
        let ssl = stream.ssl();
        let alpn = match ssl.selected_alpn_protocol() {
            Some(b"h2") => ALPN::H2,
            _ => ALPN::H1,
        };
        let facts = TlsFacts {
            server_name: ssl
                .servername(NameType::HOST_NAME)
                .map(|name| name.to_ascii_lowercase().into()),
            version: ssl.version_str(),
            cipher: ssl
                .current_cipher()
                .map_or("", boring::ssl::SslCipherRef::name),
            client_certificate: ClientCertificate::of(ssl).map(Arc::new),
        };
        Ok((stream, facts, alpn))
    }
}

fn choose_certificate(
    mut hello: ClientHello<'_>,
    snapshots: &ArcSwap<Snapshot>,
) -> Result<(), SelectCertError> {
    let snapshot = snapshots.load();
    let name = hello
        .servername(NameType::HOST_NAME)
        .map(str::to_ascii_lowercase);
    let Some(certificate) = snapshot.certificates.select(name.as_deref()) else {
        return Err(SelectCertError::ERROR);
    };
    certificate.show(&mut hello).map_err(|error| {
        tracing::error!(%error, server_name = ?name, "certificate cannot be used");
        SelectCertError::ERROR
    })?;
    ask_for_certificate(&mut hello, &snapshot.certificate_requests, name.as_deref()).map_err(
        |error| {
            tracing::error!(%error, server_name = ?name, "a client certificate cannot be asked for");
            SelectCertError::ERROR
        },
    )
}

/// Asks the client for a certificate where a route for its server name may need one.
///
/// Whatever it shows is accepted here, nothing as well: the routes decide, and verify anew on each connection, so that a
/// session resumed after its authority was taken away proves nothing. A session is resumed only under the name, and with
/// the asking or not asking, with which it began.
fn ask_for_certificate(
    hello: &mut ClientHello<'_>,
    requests: &CertificateRequests,
    name: Option<&str>,
) -> Result<(), ErrorStack> {
    let asks = requests.asks(name);
    let mut scope = Sha256::new();
    scope.update([u8::from(asks)]);
    scope.update(name.unwrap_or_default());
    let ssl = hello.ssl_mut();
    limit_resumption(ssl, &scope.finalize())?;
    if asks {
        requests.tell_names(name, ssl)?;
        ssl.set_custom_verify_callback(SslVerifyMode::PEER, |_| Ok(()));
    }
    Ok(())
}

/// Lets a session of this connection be resumed only by connections with the same scope, and the other way round.
#[allow(
    unsafe_code,
    reason = "the safe library sets this for whole contexts only"
)]
fn limit_resumption(ssl: &mut SslRef, scope: &[u8]) -> Result<(), ErrorStack> {
    // SAFETY: the pointer is that of a live connection borrowed mutably here; the library copies the bytes, whose number
    // (32) is the most that it takes.
    let set = unsafe {
        boring_sys::SSL_set_session_id_context(ssl.as_ptr(), scope.as_ptr(), scope.len())
    };
    match set {
        1 => Ok(()),
        _ => Err(ErrorStack::get()),
    }
}

/// A handshake failure as an I/O error.
impl From<AcceptError> for io::Error {
    fn from(error: AcceptError) -> Self {
        io::Error::other(error)
    }
}
