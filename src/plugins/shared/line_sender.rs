//! Lines over TCP or TLS to one place, off the request path: one bounded queue, one thread, one connection.
//!
//! A request never waits: when the queue is full the oldest lines are dropped and counted. A line that cannot be sent is
//! tried once more on a fresh connection and then given up. What is queued when the last user goes is still sent.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use boring::ssl::SslStream;
use parking_lot::{Condvar, Mutex};

use super::lost_lines;
use crate::runtime::resolver::{Answer, Name, Resolver, Watcher};
use crate::runtime::upstream_tls::UpstreamTls;

/// Lines that wait at most.
const LINES_MAX: usize = 10_000;
/// Bytes that wait at most.
const BYTES_MAX: usize = 16 << 20;
/// How long the last user waits until what is queued is sent.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Addresses of a name that are tried when connecting fails.
const ADDRESSES_TRIED_MAX: usize = 3;
/// After a failure nothing is tried for so long: lines are dropped at once, not each after a timeout.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Where lines go, and how.
pub(crate) struct Place {
    host: Host,
    port: u16,
    tls: Option<(Arc<UpstreamTls>, String)>,
    /// For connecting, and for each write.
    timeout: Duration,
    /// How long a connection without lines is kept.
    keep: Duration,
}

enum Host {
    Address(IpAddr),
    Name(Arc<Name>),
}

impl Place {
    /// `tls` comes with the server name to ask for.
    pub(crate) fn new(
        host: &str,
        port: u16,
        tls: Option<(Arc<UpstreamTls>, String)>,
        timeout: Duration,
        keep: Duration,
        resolver: &Arc<Resolver>,
    ) -> Self {
        let host = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(resolver.name(host)),
        };
        Self {
            host,
            port,
            tls,
            timeout,
            keep,
        }
    }
}

/// The queue and its thread.
pub(crate) struct LineSender {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Dropped since the last report.
    dropped: u64,
    closed: bool,
    /// The thread has gone.
    sent: bool,
}

impl LineSender {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system refuses a thread.
    pub(crate) fn start(place: Place) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        if let Host::Name(name) = &place.host {
            let watcher: std::sync::Weak<Shared> = Arc::downgrade(&shared);
            name.watch(watcher);
        }
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("line-sender".to_owned())
            .spawn(move || {
                let mut wire = Wire {
                    place,
                    connection: None,
                    failing: None,
                    lost: 0,
                };
                own.send_until_closed(&mut wire);
            })?;
        Ok(Self { shared })
    }

    /// Hands over a line with its line end.
    pub(crate) fn send(&self, line: Vec<u8>) {
        self.shared.queue.lock().push(line);
        self.shared.changed.notify_one();
    }
}

impl Drop for LineSender {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        self.shared.changed.notify_one();
        let sent = |queue: &mut Queue| !queue.sent;
        self.shared
            .ended
            .wait_while_for(&mut queue, sent, FLUSH_MAX);
    }
}

impl Watcher for Shared {
    fn changed(&self) {
        self.changed.notify_all();
    }
}

impl Queue {
    fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            match self.lines.pop_front() {
                Some(oldest) => {
                    self.bytes -= oldest.len();
                    self.dropped += 1;
                }
                None => break,
            }
        }
    }
}

impl Shared {
    fn send_until_closed(&self, wire: &mut Wire) {
        loop {
            let (lines, dropped) = {
                let mut queue = self.queue.lock();
                while queue.lines.is_empty() && !queue.closed {
                    let idle = wire.connection.is_some();
                    let silent = match idle {
                        true => self
                            .changed
                            .wait_for(&mut queue, wire.place.keep)
                            .timed_out(),
                        false => {
                            self.changed.wait(&mut queue);
                            false
                        }
                    };
                    if silent {
                        wire.connection = None;
                    }
                }
                if queue.lines.is_empty() {
                    queue.sent = true;
                    self.ended.notify_all();
                    return;
                }
                queue.bytes = 0;
                (
                    std::mem::take(&mut queue.lines),
                    std::mem::take(&mut queue.dropped),
                )
            };
            if dropped > 0 {
                lost_lines::TCP.fetch_add(dropped, Ordering::Relaxed);
                tracing::warn!(dropped, "log lines come faster than they can be sent");
            }
            self.await_name(&wire.place);
            for line in lines {
                wire.send(&line);
            }
        }
    }

    /// Waits for the first answer about the place's name, not longer than connecting may take.
    fn await_name(&self, place: &Place) {
        let Host::Name(name) = &place.host else {
            return;
        };
        let until = Instant::now() + place.timeout;
        let mut queue = self.queue.lock();
        while matches!(*name.answer(), Answer::Pending) {
            if self.changed.wait_until(&mut queue, until).timed_out() {
                return;
            }
        }
    }
}

/// The connection, and what is known of its failures.
struct Wire {
    place: Place,
    connection: Option<Connection>,
    /// Since when lines are lost.
    failing: Option<Instant>,
    lost: u64,
}

enum Connection {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Wire {
    fn send(&mut self, line: &[u8]) {
        let resting = |since: &Instant| since.elapsed() < FAILURE_PAUSE;
        if self.failing.as_ref().is_some_and(resting) {
            self.lose();
            return;
        }
        match self.try_to_send(line) {
            Ok(()) => {
                if self.failing.take().is_some() {
                    tracing::warn!(lost = self.lost, "log lines can be sent again");
                    self.lost = 0;
                }
            }
            Err(reason) => {
                if self.lost == 0 {
                    tracing::error!("log lines cannot be sent and are lost: {reason}");
                }
                self.lose();
                self.failing = Some(Instant::now());
            }
        }
    }

    fn lose(&mut self) {
        self.lost += 1;
        lost_lines::TCP.fetch_add(1, Ordering::Relaxed);
    }

    fn try_to_send(&mut self, line: &[u8]) -> Result<(), String> {
        if let Some(mut connection) = self.connection.take()
            && connection.is_open()
            && connection.write(line).is_ok()
        {
            self.connection = Some(connection);
            return Ok(());
        }
        let mut connection = self.connect()?;
        connection.write(line).map_err(|error| error.to_string())?;
        self.connection = Some(connection);
        Ok(())
    }

    fn connect(&self) -> Result<Connection, String> {
        let place = &self.place;
        let mut failure = "the name has no address".to_owned();
        for address in place.addresses()?.into_iter().take(ADDRESSES_TRIED_MAX) {
            match place.connect_to(address) {
                Ok(connection) => return Ok(connection),
                Err(reason) => failure = format!("{address}: {reason}"),
            }
        }
        Err(failure)
    }
}

impl Place {
    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        match &self.host {
            Host::Address(address) => Ok(vec![SocketAddr::new(*address, self.port)]),
            Host::Name(name) => match &*name.answer() {
                Answer::Failed(reason) => Err(format!("the name cannot be resolved: {reason}")),
                Answer::Pending => Err("the name is not resolved yet".to_owned()),
                Answer::NotFound => Err("the name does not exist".to_owned()),
                answer => {
                    let records = answer.records().iter();
                    Ok(records
                        .map(|record| SocketAddr::new(record.address, self.port))
                        .collect())
                }
            },
        }
    }

    fn connect_to(&self, address: SocketAddr) -> Result<Connection, String> {
        let failed = |error: io::Error| error.to_string();
        let stream = TcpStream::connect_timeout(&address, self.timeout).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream
            .set_write_timeout(Some(self.timeout))
            .map_err(failed)?;
        stream
            .set_read_timeout(Some(self.timeout))
            .map_err(failed)?;
        let Some((tls, name)) = &self.tls else {
            return Ok(Connection::Plain(stream));
        };
        let ssl = tls.connection(name, b"")?;
        let stream = ssl
            .connect(stream)
            .map_err(|error| format!("TLS handshake failed: {error}"))?;
        Ok(Connection::Tls(Box::new(stream)))
    }
}

impl Connection {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(line),
            Self::Tls(stream) => stream.write_all(line).and_then(|()| stream.flush()),
        }
    }

    /// Has the other end not closed it? What it says is of no interest.
    fn is_open(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        };
        let look = || {
            stream.set_nonblocking(true)?;
            let looked = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            looked
        };
        match look() {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use std::io::{BufRead, BufReader, Read};
    use std::net::TcpListener;

    use super::*;

    fn place(address: SocketAddr) -> Place {
        Place {
            host: Host::Address(address.ip()),
            port: address.port(),
            tls: None,
            timeout: Duration::from_secs(5),
            keep: Duration::from_secs(60),
        }
    }

    #[test]
    fn sends_all_lines_and_connects_again() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = LineSender::start(place(server.local_addr().unwrap())).unwrap();
        sender.send(b"1\n".to_vec());
        let mut first = BufReader::new(server.accept().unwrap().0);
        let mut line = String::new();
        first.read_line(&mut line).unwrap();
        assert_eq!(line, "1\n");
        drop(first);
        let reading = std::thread::spawn(move || {
            let mut rest = String::new();
            server
                .accept()
                .unwrap()
                .0
                .read_to_string(&mut rest)
                .unwrap();
            rest
        });
        sender.send(b"2\n".to_vec());
        sender.send(b"3\n".to_vec());
        drop(sender);
        assert_eq!(reading.join().unwrap(), "2\n3\n");
    }

    #[test]
    fn nobody_there_holds_up_nobody() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        drop(server);
        let began = Instant::now();
        let sender = LineSender::start(place(address)).unwrap();
        for _ in 0..100 {
            sender.send(b"lost\n".to_vec());
        }
        drop(sender);
        assert!(began.elapsed() < FLUSH_MAX + Duration::from_secs(3));
    }

    #[test]
    fn drops_the_oldest() {
        let mut queue = Queue::default();
        for number in 0..LINES_MAX + 5 {
            queue.push(number.to_string().into_bytes());
        }
        assert_eq!((queue.lines.len(), queue.dropped), (LINES_MAX, 5));
        assert_eq!(queue.lines.front().unwrap(), b"5");
        queue.push(vec![b'x'; BYTES_MAX]);
        assert_eq!(queue.lines.len(), 1);
    }
}
