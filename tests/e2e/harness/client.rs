//! An HTTP/1.1 client that sends exactly the bytes it is told to, and reads answers strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use boring::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use serde_json::Value;

use super::DEADLINE;

/// Anything that a client can talk over.
pub(crate) trait Transport: Read + Write + Send {}
impl<T: Read + Write + Send> Transport for T {}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every header of that name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}) in {}: {}", self.status, self.text()),
        }
    }

    /// `message` of a JSON body.
    #[track_caller]
    pub(crate) fn message(&self) -> String {
        let json = self.json();
        let message = json.get("message").and_then(Value::as_str);
        message.map_or_else(|| panic!("no message in {json}"), str::to_owned)
    }

    /// Fails unless the status is this one; gives itself back.
    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Self {
        assert_eq!(
            self.status,
            status,
            "{:?} {}",
            self.headers,
            self.text().chars().take(2000).collect::<String>()
        );
        self
    }

    /// What the echoing origin saw of the header `name`, all values.
    #[track_caller]
    pub(crate) fn echoed(&self, name: &str) -> Vec<String> {
        let json = self.json();
        let headers = json["headers"].as_array().unwrap_or_else(|| {
            panic!("not the echo of an origin: {json}");
        });
        headers
            .iter()
            .filter(|pair| {
                pair[0]
                    .as_str()
                    .is_some_and(|key| key.eq_ignore_ascii_case(name))
            })
            .map(|pair| pair[1].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// What the echoing origin saw of the header `name`, which must be there once at most.
    #[track_caller]
    pub(crate) fn echoed_one(&self, name: &str) -> Option<String> {
        let values = self.echoed(name);
        assert!(
            values.len() <= 1,
            "{name} came {} times: {values:?}",
            values.len()
        );
        values.into_iter().next()
    }

    /// The request target that the echoing origin saw.
    #[track_caller]
    pub(crate) fn echoed_target(&self) -> String {
        let json = self.json();
        let target = json["target"].as_str();
        target.map_or_else(|| panic!("not an echo: {json}"), str::to_owned)
    }
}

/// A connection that keeps what it has read too much.
pub(crate) struct Client {
    transport: Box<dyn Transport>,
    /// For half-closing and resetting under a TLS layer too.
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects in plain text.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = tcp(address);
        let transport = Box::new(socket.try_clone().expect("a second handle of a socket"));
        Self {
            transport,
            socket,
            buffer: Vec::new(),
        }
    }

    /// Connects over TLS with this server name, without checking the certificate.
    pub(crate) fn connect_tls(address: SocketAddr, server_name: &str) -> Self {
        let stream = tls_stream(address, Some(server_name), b"\x08http/1.1");
        let socket = stream.get_ref().try_clone().expect("a second handle");
        Self {
            transport: Box::new(stream),
            socket,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the connection takes bytes");
        self
    }

    /// Sends bytes; the other side may have gone.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.transport.write_all(bytes.as_ref())?;
        self.transport.flush()
    }

    /// Closes the sending half.
    pub(crate) fn finish_sending(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a TCP reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.socket);
        let _ = socket.set_linger(Some(std::time::Duration::ZERO));
    }

    /// Reads one answer to a request with this method.
    #[track_caller]
    pub(crate) fn read_response_to(&mut self, method: &str) -> Response {
        match self.try_read_response_to(method) {
            Ok(response) => response,
            Err(error) => panic!(
                "no whole answer ({error}), got {:?}",
                String::from_utf8_lossy(&self.buffer)
            ),
        }
    }

    /// Reads one answer to a GET.
    #[track_caller]
    pub(crate) fn read_response(&mut self) -> Response {
        self.read_response_to("GET")
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.read_response()
    }

    /// As [`Self::read_response_to`], telling how it failed.
    pub(crate) fn try_read_response_to(&mut self, method: &str) -> std::io::Result<Response> {
        let (status, headers) = self.try_read_head()?;
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        if method == "HEAD" || status == 204 || status == 304 || status < 200 {
            return Ok(response);
        }
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        let length = response
            .header("content-length")
            .map(|value| value.parse::<usize>().map_err(std::io::Error::other))
            .transpose()?;
        response.body = match (chunked, length) {
            (true, None) => self.read_chunked()?,
            (true, Some(_)) => {
                return Err(std::io::Error::other("both a length and chunked"));
            }
            (false, Some(length)) => self.read_exactly(length)?,
            (false, None) => self.read_to_end()?,
        };
        Ok(response)
    }

    /// Reads a status line and headers only.
    pub(crate) fn try_read_head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| status_line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("bad status line {status_line:?}")))?;
        let headers = lines
            .map(|line| {
                let (name, value) = line
                    .split_once(':')
                    .ok_or_else(|| std::io::Error::other(format!("bad header {line:?}")))?;
                Ok((name.to_owned(), value.trim().to_owned()))
            })
            .collect::<std::io::Result<_>>()?;
        Ok((status, headers))
    }

    /// Reads this many bytes.
    pub(crate) fn read_exactly(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Reads one chunk of a chunked body; an empty one is the last, with its trailers skipped.
    pub(crate) fn read_chunk(&mut self) -> std::io::Result<Vec<u8>> {
        let line = self.read_line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(std::io::Error::other)?;
        if size == 0 {
            while !self.read_line()?.is_empty() {}
            return Ok(Vec::new());
        }
        let chunk = self.read_exactly(size)?;
        self.read_exactly(2)?;
        Ok(chunk)
    }

    /// Whether the other side closes the connection, with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        match self.fill() {
            Ok(()) => false,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    fn read_chunked(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.read_chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn read_line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.fill()?;
        }
    }

    fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let count = self.transport.read(&mut chunk)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}

/// A request put together from parts, sent on a connection of its own.
#[derive(Clone)]
pub(crate) struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    server_name: Option<String>,
}

impl Request {
    pub(crate) fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            address,
            method: method.to_owned(),
            target: target.to_owned(),
            host: None,
            headers: Vec::new(),
            body: None,
            server_name: None,
        }
    }

    /// The Host header; the address if never set.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// One more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A body, with its `Content-Length`.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// A JSON body.
    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(value.to_string())
    }

    /// A form body.
    pub(crate) fn form(self, pairs: &str) -> Self {
        self.header("Content-Type", "application/x-www-form-urlencoded")
            .body(pairs)
    }

    /// Sends over TLS with this server name.
    pub(crate) fn tls(mut self, server_name: &str) -> Self {
        self.server_name = Some(server_name.to_owned());
        self
    }

    /// The bytes of the request.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let host = self.host.clone();
        let host = host.unwrap_or_else(|| self.address.to_string());
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\n",
            self.method, self.target
        );
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends it on a new connection and reads the answer.
    #[track_caller]
    pub(crate) fn send(self) -> Response {
        match self.try_send() {
            Ok(response) => response,
            Err(error) => panic!("{} {}: {error}", self.method, self.target),
        }
    }

    /// As [`Self::send`], telling how it failed.
    pub(crate) fn try_send(&self) -> std::io::Result<Response> {
        let mut client = match &self.server_name {
            Some(name) => Client::connect_tls(self.address, name),
            None => {
                let socket = TcpStream::connect_timeout(&self.address, DEADLINE)?;
                socket.set_read_timeout(Some(DEADLINE))?;
                Client {
                    transport: Box::new(socket.try_clone()?),
                    socket,
                    buffer: Vec::new(),
                }
            }
        };
        client.try_send(self.bytes())?;
        client.try_read_response_to(&self.method)
    }
}

/// A TLS connection that accepts any certificate; `protocols` is the ALPN list in wire form.
pub(crate) fn tls_stream(
    address: SocketAddr,
    server_name: Option<&str>,
    protocols: &[u8],
) -> SslStream<TcpStream> {
    let mut builder = SslConnector::builder(SslMethod::tls()).expect("a TLS context");
    builder.set_verify(SslVerifyMode::NONE);
    builder
        .set_alpn_protos(protocols)
        .expect("an ALPN list in wire form");
    let configuration = builder.build().configure().expect("a TLS connection");
    let configuration = configuration
        .verify_hostname(false)
        .use_server_name_indication(server_name.is_some());
    configuration
        .connect(server_name.unwrap_or("unnamed.test"), tcp(address))
        .expect("a TLS handshake")
}

fn tcp(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, DEADLINE).expect("somebody listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    socket.set_nodelay(true).expect("no delay");
    socket
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
