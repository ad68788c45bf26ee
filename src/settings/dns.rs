//! How names of upstreams are resolved.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::key::{choice, keys};
use super::value::{Raw, Seconds, Value};

keys! {
    /// How names of upstreams are resolved.
    pub struct DnsSettings {
        /// Name servers, instead of those of `/etc/resolv.conf`. Without a port: 53.
        dns_resolver: Vec<NameServer> = "" => also(&["resolver_address"]);
        /// Names that are known without asking.
        dns_hostsfile: PathBuf = "/etc/hosts" => also(&["resolver_hosts_file"]);
        /// The kinds of records asked for, in this order; `LAST` is the kind that answered
        /// last for the name. `CNAME` asks for nothing of its own: aliases are followed.
        dns_order: Vec<DnsRecord> = "LAST, SRV, A, AAAA, CNAME";
        /// How long an answer is used, instead of its own time to live.
        dns_valid_ttl: Option<Seconds> = "" => also(&["resolver_valid_ttl"]);
        /// How long an expired answer is still used while a new one is asked for.
        dns_stale_ttl: Seconds = "3600" => also(&["resolver_stale_ttl"]);
        /// How long "no such name" is remembered.
        dns_not_found_ttl: Seconds = "30";
        /// How long a failure to resolve is remembered.
        dns_error_ttl: Seconds = "1" => also(&["resolver_error_ttl"]);
    }
}

choice! {
    /// Kinds of DNS records. Kong: `dns_order`.
    pub enum DnsRecord {
        /// The kind that answered last.
        Last = "LAST",
        /// Hosts and ports with priorities and weights.
        Srv = "SRV",
        /// IPv4 addresses.
        A = "A",
        /// IPv6 addresses.
        Aaaa = "AAAA",
        /// Another name.
        Cname = "CNAME",
    }
}

/// The address of a name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer(
    /// With its port.
    pub SocketAddr,
);

impl Value for NameServer {
    fn parse(raw: &Raw) -> Result<Self, String> {
        const DNS_PORT: u16 = 53;
        let text = raw.one()?;
        let address = text
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        address
            .map(|ip| SocketAddr::new(ip, DNS_PORT))
            .or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| format!("'{text}' is not the address of a name server"))
    }

    fn allowed() -> String {
        "`IP` or `IP:PORT`".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        self.0.to_string().into()
    }
}
