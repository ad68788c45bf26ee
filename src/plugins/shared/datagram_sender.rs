//! Messages over UDP to one place. Sending never waits: what the system does not take at once is lost and counted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lost_lines;
use crate::runtime::resolver::{Answer, Name, Resolver};

/// Longest message; the rest of longer ones is cut off. A datagram holds no more.
pub(crate) const MESSAGE_BYTES_MAX: usize = 65_000;

/// See the module.
pub(crate) struct DatagramSender {
    host: Host,
    port: u16,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// The last message was lost: this is told once.
    failing: AtomicBool,
}

enum Host {
    Address(IpAddr),
    Name(Arc<Name>),
}

impl DatagramSender {
    /// Opens the sockets.
    ///
    /// # Errors
    /// The system refuses them.
    pub(crate) fn open(host: &str, port: u16, resolver: &Arc<Resolver>) -> io::Result<Self> {
        let host = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(resolver.name(host)),
        };
        let socket = |address: IpAddr| {
            let socket = UdpSocket::bind((address, 0))?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let v4 = socket(Ipv4Addr::UNSPECIFIED.into());
        // There are machines without one of the two.
        let v6 = socket(Ipv6Addr::UNSPECIFIED.into()).ok();
        let v4 = match (v4, &v6) {
            (Ok(socket), _) => Some(socket),
            (Err(_), Some(_)) => None,
            (Err(error), None) => return Err(error),
        };
        Ok(Self {
            host,
            port,
            v4,
            v6,
            failing: AtomicBool::new(false),
        })
    }

    /// Sends a message, at most [`MESSAGE_BYTES_MAX`] bytes of it.
    pub(crate) fn send(&self, message: &[u8]) {
        let message = message.get(..MESSAGE_BYTES_MAX).unwrap_or(message);
        match self.try_to_send(message) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(reason) => {
                lost_lines::UDP.fetch_add(1, Ordering::Relaxed);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!("messages for a log cannot be sent and are lost: {reason}");
                }
            }
        }
    }

    fn try_to_send(&self, message: &[u8]) -> Result<(), String> {
        let address = match &self.host {
            Host::Address(address) => *address,
            Host::Name(name) => {
                let answer = name.answer();
                match &*answer {
                    Answer::Failed(reason) => {
                        return Err(format!("the name cannot be resolved: {reason}"));
                    }
                    Answer::Pending => return Err("the name is not resolved yet".to_owned()),
                    Answer::NotFound => return Err("the name does not exist".to_owned()),
                    answer => match answer.records().first() {
                        Some(record) => record.address,
                        None => return Err("the name has no address".to_owned()),
                    },
                }
            }
        };
        let socket = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        let socket = socket
            .as_ref()
            .ok_or_else(|| format!("this machine has no way to {address}"))?;
        let sent = socket.send_to(message, SocketAddr::new(address, self.port));
        sent.map(drop).map_err(|error| error.to_string())
    }
}
