//! Listening sockets of an instance: which there are, and how they pass from one process to its successor.
//!
//! A socket is known by its role, its configured address and its place among equals, because a configuration may ask for
//! port 0 twice. The engine knows sockets by address alone, so a successor is told the address really bound.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use pingora_core::server::Fds;
use serde_json::json;

use super::instance::ShortFolder;
use crate::admin::node::{BoundListener, ListenerRole};
use crate::settings::listen::Listen;

/// Name of the socket in the prefix over which descriptors travel.
const HAND_OVER_SOCKET: &str = "upgrade.sock";
/// What Pingora's transfer takes: the names of all sockets together, in bytes, with a space after each.
const NAMES_BYTES_MAX: usize = 2048;
/// Connections that wait to be accepted on Admin and status listeners.
const BACKLOG: i32 = 1024;

/// Which setting a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Proxy,
    Stream,
    /// Those of `proxy_listen` with the flag `connect`, which open when there is a certificate to show.
    Mesh,
    Admin,
    Status,
    Page,
}

impl Role {
    /// The key of the setting.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Proxy => "proxy_listen",
            Self::Stream => "stream_listen",
            Self::Mesh => "proxy_listen_connect",
            Self::Admin => "admin_listen",
            Self::Status => "status_listen",
            Self::Page => "admin_gui_listen",
        }
    }
}

/// A bound listener as the Admin interface describes it.
pub(crate) fn bound(role: Role, listen: &Listen, address: SocketAddr) -> BoundListener {
    let flags = [
        ("ssl", json!(listen.ssl)),
        ("http2", json!(listen.http2)),
        ("proxy_protocol", json!(listen.proxy_protocol)),
        ("reuseport", json!(listen.reuseport)),
        ("backlog", json!(listen.backlog)),
    ];
    let role = match role {
        Role::Proxy | Role::Mesh => ListenerRole::Proxy,
        Role::Stream => ListenerRole::Stream,
        Role::Admin => ListenerRole::Admin,
        Role::Status => ListenerRole::Status,
        Role::Page => ListenerRole::Page,
    };
    BoundListener {
        role,
        address,
        flags: flags
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
    }
}

/// A socket under the name by which both sides of a hand-over know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

/// The names of one setting's listeners, in order.
pub(crate) fn names(role: Role, listeners: &[Listen]) -> Vec<Name> {
    let mut seen: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let name = |one: &Listen| {
        let place = seen.entry(one.address).or_default();
        *place += 1;
        Name(format!("{}/{}/{place}", role.setting(), one.address))
    };
    listeners.iter().map(name).collect()
}

/// Sockets that a predecessor handed over and nobody has taken yet. Those left at the end are closed.
#[derive(Default)]
pub(crate) struct Inherited {
    sockets: BTreeMap<Name, OwnedFd>,
}

impl Inherited {
    /// Waits for a predecessor's sockets. Blocks, at most some seconds.
    pub(crate) fn receive(prefix: &Path) -> anyhow::Result<Self> {
        let folder = ShortFolder::open(prefix)?;
        let path = folder.path(HAND_OVER_SOCKET);
        let mut fds = Fds::new();
        fds.get_from_sock(path.as_path_text())
            .context("no running instance handed its listening sockets over")?;
        let (names, raw) = fds.serialize();
        let sockets = names
            .into_iter()
            .zip(raw)
            .map(|(name, fd)| (Name(name), own(fd)))
            .collect();
        Ok(Self { sockets })
    }

    /// The socket of that name.
    pub(crate) fn take(&mut self, name: &Name) -> Option<TcpListener> {
        self.sockets.remove(name).map(TcpListener::from)
    }

    /// The names of sockets that nobody took: their listeners are no longer configured.
    pub(crate) fn left(&self) -> Vec<&str> {
        self.sockets.keys().map(|name| name.0.as_str()).collect()
    }
}

trait PathText {
    fn as_path_text(&self) -> &str;
}

impl PathText for std::path::PathBuf {
    /// The short name of a folder is ASCII.
    fn as_path_text(&self) -> &str {
        self.to_str().unwrap_or_default()
    }
}

#[allow(unsafe_code, reason = "received descriptors have no other owner")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the descriptor was just received from another process and is named nowhere else in this one.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Second handles to the sockets of this instance, kept to hand them over.
#[derive(Default)]
pub(crate) struct Keepsakes {
    sockets: Vec<(Name, OwnedFd)>,
    /// Those of listeners that come and go, as of now.
    passing: Mutex<Vec<(Name, OwnedFd)>>,
}

impl Keepsakes {
    /// Keeps a second handle.
    pub(crate) fn keep(&mut self, name: Name, socket: &impl AsFd) -> anyhow::Result<()> {
        let copy = socket
            .as_fd()
            .try_clone_to_owned()
            .context("a listening socket cannot be kept")?;
        self.sockets.push((name, copy));
        Ok(())
    }

    /// Keeps these for the next hand-over, instead of those before.
    pub(crate) fn keep_passing(&self, sockets: Vec<(Name, OwnedFd)>) {
        *self.passing.lock() = sockets;
    }

    /// Hands all sockets to the successor that waits for them. Blocks, at most some seconds.
    pub(crate) fn send(&self, prefix: &Path) -> anyhow::Result<()> {
        let passing = self.passing.lock();
        let sockets = || self.sockets.iter().chain(&*passing);
        let names: usize = sockets().map(|(name, _)| name.0.len() + 1).sum();
        if names > NAMES_BYTES_MAX {
            bail!("the addresses of all listeners together are too long to be handed over");
        }
        let folder = ShortFolder::open(prefix)?;
        let path = folder.path(HAND_OVER_SOCKET);
        let mut fds = Fds::new();
        for (name, socket) in sockets() {
            fds.add(name.0.clone(), socket.as_raw_fd());
        }
        fds.send_to_sock(path.as_path_text())
            .context("the successor does not take the listening sockets")?;
        Ok(())
    }
}

/// What the engine has to be told of its listeners of one setting.
pub(crate) struct ProxyListeners {
    /// With the address really bound where a predecessor had chosen a port.
    pub(crate) listeners: Vec<Listen>,
    /// Sockets by that address.
    pub(crate) inherited: HashMap<String, RawFd>,
}

/// Sorts out which sockets of the proxy a predecessor has left.
pub(crate) fn proxy_listeners(
    role: Role,
    configured: &[Listen],
    inherited: &mut Inherited,
) -> anyhow::Result<ProxyListeners> {
    let mut sockets = HashMap::new();
    let mut listeners = Vec::new();
    for (one, name) in configured.iter().zip(names(role, configured)) {
        let mut one = one.clone();
        if let Some(socket) = inherited.take(&name) {
            one.address = socket
                .local_addr()
                .context("an inherited socket has no address")?;
            sockets.insert(one.address.to_string(), socket.into_raw_fd());
        }
        listeners.push(one);
    }
    Ok(ProxyListeners {
        listeners,
        inherited: sockets,
    })
}

/// Binds a listener of the Admin or status interface, or takes the predecessor's.
pub(crate) fn bind(
    role: Role,
    one: &Listen,
    name: &Name,
    inherited: &mut Inherited,
) -> anyhow::Result<TcpListener> {
    if let Some(socket) = inherited.take(name) {
        return Ok(socket);
    }
    let open = || -> std::io::Result<TcpListener> {
        let address = one.address;
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if one.reuseport {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(
            one.backlog
                .map_or(BACKLOG, |backlog| i32::try_from(backlog).unwrap_or(BACKLOG)),
        )?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    open().with_context(|| format!("{}: cannot listen on {}", role.setting(), one.address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn listen(address: &str) -> Listen {
        Listen {
            address: address.parse().unwrap(),
            ssl: false,
            http2: false,
            proxy_protocol: false,
            connect: false,
            reuseport: false,
            backlog: None,
            ssl_cipher_suite: None,
        }
    }

    #[test]
    fn sockets_pass_to_a_successor() {
        let prefix = tempfile::tempdir().unwrap();
        let configured = [listen("127.0.0.1:0"), listen("127.0.0.1:0")];
        let names = names(Role::Admin, &configured);
        let mut keepsakes = Keepsakes::default();
        let mut bound = Vec::new();
        for (one, name) in configured.iter().zip(&names) {
            let socket = bind(Role::Admin, one, name, &mut Inherited::default()).unwrap();
            keepsakes.keep(name.clone(), &socket).unwrap();
            bound.push(socket.local_addr().unwrap());
        }
        let folder = prefix.path().to_owned();
        let receiver = std::thread::spawn(move || Inherited::receive(&folder).unwrap());
        keepsakes.send(prefix.path()).unwrap();
        let mut inherited = receiver.join().unwrap();
        assert_eq!(inherited.left().len(), 2);
        for (name, address) in names.iter().zip(bound) {
            assert_eq!(inherited.take(name).unwrap().local_addr().unwrap(), address);
        }
        assert!(inherited.left().is_empty());
    }
}
