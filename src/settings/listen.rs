//! Where the instance listens.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use super::key::keys;
use super::tls::CipherSuite;
use super::value::{Raw, Value};

keys! {
    /// Where the instance listens.
    pub struct ListenSettings {
        /// Where clients connect. Flags: `ssl`, `http2` (with `ssl` by ALPN, alone with prior knowledge),
        /// `proxy_protocol`, `reuseport`, `backlog=N`, with `ssl` also `ssl_cipher_suite=SUITE` instead of the setting of
        /// that name, and `connect` for callers in the mesh (see `consul_service`), with `http2` alone. Port 0 takes a
        /// free one.
        proxy_listen: Listeners<ProxyFlags> = "0.0.0.0:8000, 0.0.0.0:8443 http2 ssl";
        /// Where clients connect for routes with the protocols `tcp`, `tls` and `tls_passthrough`. On an address with
        /// `ssl` every connection begins with TLS, and the server name decides whether it ends here or passes through;
        /// without, nothing is looked at. Flags: `ssl`, `proxy_protocol`, `reuseport`, `backlog=N`, `ssl_cipher_suite=SUITE`.
        /// Port 0 takes a free one.
        stream_listen: Listeners<StreamFlags> = "off";
        /// Kong's Admin API. Flags: `ssl` (see `admin_ssl_cert`), `http2`, `reuseport`, `backlog=N`. HTTP/2 is served
        /// with and without `http2`.
        admin_listen: Listeners<AdministrationFlags> = "127.0.0.1:8001";
        /// `/status`, `/status/ready` and `/metrics` (Prometheus). Flags: as for `admin_listen` (see `status_ssl_cert`).
        status_listen: Listeners<AdministrationFlags> = "127.0.0.1:8007";
        /// A web page that shows this node, read-only, plain HTTP.
        admin_gui_listen: Listeners<PlainFlags> = "127.0.0.1:8002";
        /// Ports as clients see them, where something in front maps them: `80:8000` says that port 80 out there is port
        /// 8000 here. Routing, `X-Forwarded-Port` and logs use the outer port.
        port_maps: Vec<PortMap> = "" => reloads();
    }
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS.
    pub ssl: bool,
    /// HTTP/2, by ALPN with TLS, by prior knowledge without. HTTP/1.1 is always served.
    pub http2: bool,
    /// Each connection begins with a PROXY header, of version 1 or 2, that names the client. Only `trusted_ips` may
    /// connect.
    pub proxy_protocol: bool,
    /// For callers in the mesh: TLS with the certificate of `consul_service`, and callers must show one, too.
    pub connect: bool,
    /// Lets several processes bind the address (`SO_REUSEPORT`).
    pub reuseport: bool,
    /// Length of the queue of connections not yet accepted. Absent: the system's largest.
    pub backlog: Option<u32>,
    /// Versions and ciphers of this listener. Absent: those of the setting of this name.
    pub ssl_cipher_suite: Option<CipherSuite>,
}

impl Listen {
    /// The form that `GET /` reports for each listener.
    fn json(&self) -> serde_json::Value {
        let mut listener = self.address.to_string();
        for (flag, set) in [
            ("ssl", self.ssl),
            ("http2", self.http2),
            ("proxy_protocol", self.proxy_protocol),
            ("connect", self.connect),
            ("reuseport", self.reuseport),
        ] {
            if set {
                listener.push(' ');
                listener.push_str(flag);
            }
        }
        if let Some(backlog) = self.backlog {
            listener.push_str(&format!(" backlog={backlog}"));
        }
        if let Some(suite) = self.ssl_cipher_suite {
            listener.push_str(&format!(" ssl_cipher_suite={}", suite.word()));
        }
        json!({
            "ip": self.address.ip().to_string(),
            "port": self.address.port(),
            "ssl": self.ssl,
            "http2": self.http2,
            "proxy_protocol": self.proxy_protocol,
            "reuseport": self.reuseport,
            "backlog": self.backlog,
            "listener": listener,
        })
    }
}

/// The flags that a key allows.
pub trait Flags {
    /// Whether `ssl` is allowed.
    const SSL: bool;
    /// Whether `ssl_cipher_suite` is allowed, beside `ssl`.
    const SUITE: bool = Self::SSL;
    /// Whether `http2` is allowed.
    const HTTP2: bool;
    /// Whether `connect` is allowed.
    const CONNECT: bool = false;
    /// Whether `proxy_protocol` is allowed.
    const PROXY_PROTOCOL: bool;
}

/// Flags of `proxy_listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyFlags;
impl Flags for ProxyFlags {
    const CONNECT: bool = true;
    const SSL: bool = true;
    const HTTP2: bool = true;
    const PROXY_PROTOCOL: bool = true;
}

/// Flags of `stream_listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFlags;
impl Flags for StreamFlags {
    const SSL: bool = true;
    const HTTP2: bool = false;
    const PROXY_PROTOCOL: bool = true;
}

/// Flags of `admin_listen` and `status_listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdministrationFlags;
impl Flags for AdministrationFlags {
    const SSL: bool = true;
    const SUITE: bool = false;
    const HTTP2: bool = true;
    const PROXY_PROTOCOL: bool = false;
}

/// Flags of listeners without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainFlags;
impl Flags for PlainFlags {
    const SSL: bool = false;
    const HTTP2: bool = true;
    const PROXY_PROTOCOL: bool = false;
}

/// The addresses of one key; none when it is `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners<F> {
    /// In the order written.
    pub all: Vec<Listen>,
    flags: std::marker::PhantomData<F>,
}

impl<F: Flags> Listeners<F> {
    /// More listeners than this are a mistake; each costs a descriptor in an upgrade, which can hand over no more.
    pub const MAX: usize = 16;

    /// The listeners as `GET /` reports them.
    pub fn report(&self) -> serde_json::Value {
        json!(self.all.iter().map(Listen::json).collect::<Vec<_>>())
    }

    fn flags() -> String {
        let optional = [
            (F::SSL, "`ssl`, "),
            (F::HTTP2, "`http2`, "),
            (F::PROXY_PROTOCOL, "`proxy_protocol`, "),
        ];
        let optional: String = optional
            .into_iter()
            .filter_map(|(allowed, flag)| allowed.then_some(flag))
            .collect();
        let suite = match F::SUITE {
            true => ", `ssl_cipher_suite=SUITE`",
            false => "",
        };
        format!("{optional}`reuseport`, `backlog=N`{suite}")
    }
}

impl<F: Flags> Value for Listeners<F> {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let parts = raw.many();
        let all = match parts.as_slice() {
            [] => return Err("must not be empty, write 'off' for no listener".to_owned()),
            ["off"] => Vec::new(),
            parts if parts.contains(&"off") => {
                return Err("'off' cannot stand beside addresses".to_owned());
            }
            parts if parts.len() > Self::MAX => {
                return Err(format!("{} addresses are too many", parts.len()));
            }
            parts => parts
                .iter()
                .map(|part| parse_listen::<F>(part))
                .collect::<Result<Vec<_>, _>>()?,
        };
        for (index, one) in all.iter().enumerate() {
            let earlier = all.iter().take(index);
            if one.address.port() != 0 && earlier.clone().any(|other| other.address == one.address)
            {
                return Err(format!("{} is listed twice", one.address));
            }
        }
        Ok(Self {
            all,
            flags: std::marker::PhantomData,
        })
    }

    fn allowed() -> String {
        format!(
            "`off`, or up to {} of `IP:PORT` followed by flags ({})",
            Self::MAX,
            Self::flags()
        )
    }

    fn json(&self) -> serde_json::Value {
        if self.all.is_empty() {
            return json!(["off"]);
        }
        json!(
            self.all
                .iter()
                .map(|one| one.json()["listener"].clone())
                .collect::<Vec<_>>()
        )
    }
}

fn parse_listen<F: Flags>(text: &str) -> Result<Listen, String> {
    let mut words = text.split_ascii_whitespace();
    let written = words.next().unwrap_or_default();
    if written.starts_with("unix:") {
        return Err(format!(
            "'{written}': sockets of the file system are not supported by this version"
        ));
    }
    let address: SocketAddr = written
        .parse()
        .map_err(|_| format!("'{written}' is not an IP address and port ([::1]:8000 for IPv6)"))?;
    let mut listen = Listen {
        address,
        ssl: false,
        http2: false,
        proxy_protocol: false,
        connect: false,
        reuseport: false,
        backlog: None,
        ssl_cipher_suite: None,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "ssl" && F::SSL => listen.ssl = true,
            None if word == "ssl" => {
                return Err(format!(
                    "flag 'ssl' of {written}: this listener speaks plain HTTP only"
                ));
            }
            None if word == "http2" && F::HTTP2 => listen.http2 = true,
            None if word == "http2" => {
                return Err(format!(
                    "flag 'http2' of {written}: streams are not looked into"
                ));
            }
            None if word == "proxy_protocol" && F::PROXY_PROTOCOL => listen.proxy_protocol = true,
            None if word == "connect" && F::CONNECT => listen.connect = true,
            None if word == "connect" => {
                return Err(format!(
                    "flag 'connect' of {written}: only 'proxy_listen' has listeners for callers in the mesh"
                ));
            }
            None if word == "proxy_protocol" => {
                return Err(format!(
                    "flag 'proxy_protocol' of {written}: this listener takes no PROXY header"
                ));
            }
            None if word == "udp" => {
                return Err(format!(
                    "flag 'udp' of {written}: datagrams are not proxied, only TCP and TLS"
                ));
            }
            None if word == "reuseport" => listen.reuseport = true,
            Some(("backlog", number)) => match number.parse() {
                Ok(backlog @ 1..=65_535) => listen.backlog = Some(backlog),
                _ => {
                    return Err(format!(
                        "backlog '{number}' of {written} is not a number between 1 and 65535"
                    ));
                }
            },
            Some(("ssl_cipher_suite", suite)) if F::SUITE => {
                let suite = CipherSuite::parse(&Raw::Text(suite.to_owned()))
                    .map_err(|why| format!("ssl_cipher_suite of {written}: {why}"))?;
                listen.ssl_cipher_suite = Some(suite);
            }
            _ => return Err(format!("flag '{word}' of {written} is not known")),
        }
    }
    if listen.ssl_cipher_suite.is_some() && !listen.ssl {
        return Err(format!(
            "flag 'ssl_cipher_suite' of {written} counts with 'ssl' only"
        ));
    }
    Ok(listen)
}

/// A port as clients see it, and the one that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// Out there.
    pub external: u16,
    /// Here.
    pub listening: u16,
}

impl Value for PortMap {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        let port = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port > 0);
        text.split_once(':')
            .and_then(|(external, listening)| {
                Some(Self {
                    external: port(external)?,
                    listening: port(listening)?,
                })
            })
            .ok_or_else(|| format!("'{text}' is not a pair of ports"))
    }

    fn allowed() -> String {
        "`EXTERNAL:LISTENING`, both between 1 and 65535".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        format!("{}:{}", self.external, self.listening).into()
    }
}

/// Whether two addresses cannot both be bound.
pub(super) fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |ip: IpAddr| ip.is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || covers(one.ip()) || covers(other.ip()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn proxy(text: &str) -> Result<Vec<Listen>, String> {
        Listeners::<ProxyFlags>::parse(&Raw::Text(text.to_owned())).map(|listeners| listeners.all)
    }

    #[test]
    fn reads_flags_and_addresses() {
        let all = proxy("0.0.0.0:8000 reuseport backlog=16384, [::]:0 http2 ssl").unwrap();
        assert_eq!(all[0].backlog, Some(16_384));
        assert!(all[0].reuseport && !all[0].ssl);
        assert!(all[1].ssl && all[1].http2 && all[1].address.is_ipv6());
        let stream = "127.0.0.1:1 ssl proxy_protocol, 127.0.0.1:2";
        let stream = Listeners::<StreamFlags>::parse(&Raw::Text(stream.into())).unwrap();
        assert!(stream.all[0].ssl && stream.all[0].proxy_protocol && !stream.all[1].ssl);
        assert_eq!(
            stream.json(),
            json!(["127.0.0.1:1 ssl proxy_protocol", "127.0.0.1:2"])
        );
        assert_eq!(proxy("off").unwrap(), []);
        assert_eq!(proxy("127.0.0.1:0, 127.0.0.1:0").unwrap().len(), 2);
    }

    #[test]
    fn refuses_by_name() {
        for (written, what) in [
            (
                "0.0.0.0:8000 deferred",
                "flag 'deferred' of 0.0.0.0:8000 is not known",
            ),
            (
                "0.0.0.0:8000 udp",
                "flag 'udp' of 0.0.0.0:8000: datagrams are not proxied, only TCP and TLS",
            ),
            (
                "0.0.0.0:8000 backlog=0",
                "backlog '0' of 0.0.0.0:8000 is not a number between 1 and 65535",
            ),
            (
                "localhost:8000",
                "'localhost:8000' is not an IP address and port ([::1]:8000 for IPv6)",
            ),
            (
                "0.0.0.0:70000",
                "'0.0.0.0:70000' is not an IP address and port ([::1]:8000 for IPv6)",
            ),
            ("0.0.0.0:80, 0.0.0.0:80 ssl", "0.0.0.0:80 is listed twice"),
            ("off, 0.0.0.0:80", "'off' cannot stand beside addresses"),
            ("", "must not be empty, write 'off' for no listener"),
        ] {
            assert_eq!(proxy(written), Err(what.to_owned()));
        }
        for plain in ["127.0.0.1:1 ssl", "127.0.0.1:1 proxy_protocol"] {
            assert!(Listeners::<PlainFlags>::parse(&Raw::Text(plain.into())).is_err());
        }
        let parse = |text: &str| Listeners::<AdministrationFlags>::parse(&Raw::Text(text.into()));
        assert!(parse("127.0.0.1:1 http2 ssl").unwrap().all[0].ssl);
        for wrong in [
            "127.0.0.1:1 proxy_protocol",
            "127.0.0.1:1 ssl ssl_cipher_suite=old",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let http2 = Raw::Text("127.0.0.1:1 http2".into());
        assert!(Listeners::<StreamFlags>::parse(&http2).is_err());
    }

    #[test]
    fn addresses_clash_when_one_covers_the_other() {
        let clashes = |a: &str, b: &str| clash(a.parse().unwrap(), b.parse().unwrap());
        assert!(clashes("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!clashes("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clashes("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clashes("0.0.0.0:80", "[::]:80"));
    }
}
