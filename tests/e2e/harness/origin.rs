//! A scripted origin: it counts connections and requests, keeps what it received, and answers as told.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boring::pkey::PKey;
use boring::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use boring::x509::X509;
use serde_json::json;

use super::Pair;
use super::client::Transport;

/// A connection thread ends when nothing comes for so long.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// A request as the origin got it, body included.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Which connection to this origin it came on, from 0.
    pub(crate) connection: usize,
    /// Which request on that connection it is, from 0.
    pub(crate) turn: usize,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What an origin does about a request.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    delay: Duration,
    bytes: Vec<Vec<u8>>,
    pause: Duration,
    after: After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Keep,
    Close,
    Reset,
}

impl Reply {
    /// A whole response with a `Content-Length`.
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = head(status, headers);
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        Self::raw(bytes)
    }

    /// Status 200 with this body.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200, &[("Content-Type", "text/plain")], body)
    }

    /// The request as JSON: method, target, version, headers (pairs), body, connection, turn.
    pub(crate) fn echo(request: &Received) -> Self {
        let headers: Vec<_> = request
            .headers
            .iter()
            .map(|(name, value)| json!([name, value]))
            .collect();
        let body = json!({
            "method": request.method,
            "target": request.target,
            "version": request.version,
            "headers": headers,
            "body": String::from_utf8_lossy(&request.body),
            "connection": request.connection,
            "turn": request.turn,
        });
        Self::new(
            200,
            &[("Content-Type", "application/json")],
            body.to_string(),
        )
    }

    /// A chunked response, each part written by itself.
    pub(crate) fn chunked(parts: &[&str]) -> Self {
        let mut reply = Self::raw(head(200, &[("Transfer-Encoding", "chunked")]));
        reply.bytes.last_mut().expect("a head").extend(b"\r\n");
        for part in parts {
            let chunk = format!("{:x}\r\n{part}\r\n", part.len());
            reply.bytes.push(chunk.into_bytes());
        }
        reply.bytes.push(b"0\r\n\r\n".to_vec());
        reply
    }

    /// Exactly these bytes.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            delay: Duration::ZERO,
            bytes: vec![bytes.into()],
            pause: Duration::ZERO,
            after: After::Keep,
        }
    }

    /// No byte at all; the connection is closed.
    pub(crate) fn nothing() -> Self {
        Self::raw("").then_close()
    }

    /// Waits before the first byte.
    pub(crate) fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits between the parts.
    pub(crate) fn paced(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Closes the connection afterwards.
    pub(crate) fn then_close(mut self) -> Self {
        self.after = After::Close;
        self
    }

    /// Resets the connection afterwards.
    pub(crate) fn then_reset(mut self) -> Self {
        self.after = After::Reset;
        self
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;
type Conversation = dyn Fn(TcpStream, usize) + Send + Sync;

enum Behaviour {
    Answers(Box<Script>),
    Converses(Box<Conversation>),
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    open: AtomicUsize,
    received: Mutex<Vec<Received>>,
    closing: AtomicBool,
}

/// A listening origin; it stops accepting when dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Origin {
    /// Answers everything with [`Reply::echo`].
    pub(crate) fn echo() -> Self {
        Self::answering(Reply::echo)
    }

    /// Answers each request by a function.
    pub(crate) fn answering(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Behaviour::Answers(Box::new(script)), None)
    }

    /// As [`Self::answering`], over TLS.
    pub(crate) fn answering_tls(
        pair: &Pair,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(
            Behaviour::Answers(Box::new(script)),
            Some(acceptor(pair, None)),
        )
    }

    /// As [`Self::answering_tls`], demanding a client certificate of this authority.
    pub(crate) fn answering_mutual_tls(
        pair: &Pair,
        authority_pem: &str,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let acceptor = acceptor(pair, Some(authority_pem));
        Self::start(Behaviour::Answers(Box::new(script)), Some(acceptor))
    }

    /// Hands every connection to a function, with its number.
    pub(crate) fn conversing(talk: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::start(Behaviour::Converses(Box::new(talk)), None)
    }

    /// An address where nothing listens.
    pub(crate) fn refused() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("an address")
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Everything received so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("no poison").clone()
    }

    fn start(behaviour: Behaviour, acceptor: Option<SslAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || accept(&listener, &shared, behaviour, acceptor));
        Self { address, state }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(
    listener: &TcpListener,
    state: &Arc<State>,
    behaviour: Behaviour,
    acceptor: Option<SslAcceptor>,
) {
    let behaviour = Arc::new(behaviour);
    for stream in listener.incoming() {
        if state.closing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = state.connections.fetch_add(1, Ordering::SeqCst);
        let (state, behaviour, acceptor) = (state.clone(), behaviour.clone(), acceptor.clone());
        std::thread::spawn(move || {
            state.open.fetch_add(1, Ordering::SeqCst);
            let _ = stream.set_read_timeout(Some(IDLE_MAX));
            let _ = stream.set_nodelay(true);
            match (&*behaviour, acceptor) {
                (Behaviour::Converses(talk), _) => talk(stream, number),
                (Behaviour::Answers(script), None) => {
                    if let Ok(transport) = stream.try_clone() {
                        answer(Box::new(transport), &stream, number, script, &state);
                    }
                }
                (Behaviour::Answers(script), Some(acceptor)) => {
                    if let Ok(handle) = stream.try_clone()
                        && let Ok(tls) = acceptor.accept(stream)
                    {
                        answer(Box::new(tls), &handle, number, script, &state);
                    }
                }
            }
            state.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn answer(
    mut transport: Box<dyn Transport>,
    socket: &TcpStream,
    connection: usize,
    script: &Script,
    state: &State,
) {
    let mut buffer = Vec::new();
    for turn in 0.. {
        let Some(mut request) = read_request(&mut *transport, &mut buffer) else {
            return;
        };
        request.connection = connection;
        request.turn = turn;
        state
            .received
            .lock()
            .expect("no poison")
            .push(request.clone());
        let reply = script(&request);
        std::thread::sleep(reply.delay);
        for (number, part) in reply.bytes.iter().enumerate() {
            if number > 0 {
                std::thread::sleep(reply.pause);
            }
            if transport
                .write_all(part)
                .and_then(|()| transport.flush())
                .is_err()
            {
                return;
            }
        }
        match reply.after {
            After::Keep => {}
            After::Close => return,
            After::Reset => {
                let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

/// Reads one request with its body; answers `Expect: 100-continue`.
pub(super) fn read_request(
    transport: &mut dyn Transport,
    buffer: &mut Vec<u8>,
) -> Option<Received> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        fill(transport, buffer)?;
    };
    let head: Vec<u8> = buffer.drain(..end + 4).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next()?.split(' ');
    let mut request = Received {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        version: words.next()?.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        connection: 0,
        turn: 0,
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    if request
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    {
        transport.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if request.header("transfer-encoding").is_some() {
        loop {
            let size = read_line(transport, buffer)?;
            let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                while !read_line(transport, buffer)?.is_empty() {}
                break;
            }
            while buffer.len() < size + 2 {
                fill(transport, buffer)?;
            }
            request.body.extend(buffer.drain(..size));
            buffer.drain(..2);
        }
    } else if let Some(length) = request.header("content-length") {
        let length: usize = length.parse().ok()?;
        while buffer.len() < length {
            fill(transport, buffer)?;
        }
        request.body = buffer.drain(..length).collect();
    }
    Some(request)
}

fn read_line(transport: &mut dyn Transport, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..at + 2).collect();
            return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        fill(transport, buffer)?;
    }
}

fn fill(transport: &mut dyn Transport, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 64 * 1024];
    let count = transport.read(&mut chunk).ok()?;
    if count == 0 {
        return None;
    }
    buffer.extend_from_slice(&chunk[..count]);
    Some(())
}

/// Accepts TLS with this certificate; with an authority also certificates of clients that it signed.
pub(crate) fn acceptor(pair: &Pair, client_authority_pem: Option<&str>) -> SslAcceptor {
    let mut builder =
        SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a TLS context");
    let certificate = X509::from_pem(pair.certificate.as_bytes()).expect("a certificate");
    let key = PKey::private_key_from_pem(pair.key.as_bytes()).expect("a key");
    builder
        .set_certificate(&certificate)
        .expect("a certificate");
    builder.set_private_key(&key).expect("its key");
    if let Some(pem) = client_authority_pem {
        let authority = X509::from_pem(pem.as_bytes()).expect("an authority");
        let store = builder.cert_store_mut();
        store.add_cert(authority).expect("an authority");
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    builder.build()
}
