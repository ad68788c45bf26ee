//! Where the agent is, in the notation of `CONSUL_HTTP_ADDR`.

use std::fmt;
use std::path::PathBuf;

/// The port of the agent's HTTP interface when none is named.
const PORT: u16 = 8500;

/// An agent's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAddress {
    Tcp {
        secure: bool,
        /// Without brackets.
        host: String,
        port: u16,
        /// Put before every path; empty, or begins with a slash and ends without.
        prefix: String,
    },
    Unix(PathBuf),
}

impl AgentAddress {
    /// Reads `HOST:PORT`, `http://…`, `https://…` or `unix:///PATH`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "'{text}' {what}, write HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH"
            )
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("http", text),
        };
        if scheme == "unix" {
            if !rest.starts_with('/') {
                return Err(wrong("has no absolute path"));
            }
            return Ok(Self::Unix(PathBuf::from(rest)));
        }
        let secure = match scheme {
            "http" => false,
            "https" => true,
            other => return Err(wrong(&format!("has the unknown scheme '{other}'"))),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains(['@', ' ', '?', '#']) || path.contains(['?', '#', ' ']) {
            return Err(wrong("is no address"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("lacks a ']'"))?;
                (host, after.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            None => match secure || text.contains("://") {
                true if secure => 443,
                true => 80,
                false => PORT,
            },
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(wrong("has no port")),
            },
        };
        // An address with all interfaces is meant to be reached on this machine.
        let host = match host {
            "" | "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        Ok(Self::Tcp {
            secure,
            host: host.to_owned(),
            port,
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Is the wire closed to others: loopback, a socket of the file system, or TLS? Private keys come over it.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { secure: true, .. } => true,
            Self::Tcp { host, .. } => {
                host == "localhost"
                    || host
                        .parse::<std::net::IpAddr>()
                        .is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl Default for AgentAddress {
    fn default() -> Self {
        Self::Tcp {
            secure: false,
            host: "127.0.0.1".to_owned(),
            port: PORT,
            prefix: String::new(),
        }
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp {
                secure,
                host,
                port,
                prefix,
            } => {
                let scheme = if *secure { "https" } else { "http" };
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}{prefix}"),
                    false => write!(f, "{scheme}://{host}:{port}{prefix}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reads_consul_s_notation() {
        for (text, shown) in [
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("consul.local", "http://consul.local:8500"),
            ("http://a:1/", "http://a:1"),
            ("https://a:1/agents/one/", "https://a:1/agents/one"),
            ("https://a", "https://a:443"),
            ("[::1]:8500", "http://[::1]:8500"),
            ("0.0.0.0:8500", "http://127.0.0.1:8500"),
            ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ] {
            assert_eq!(AgentAddress::parse(text).unwrap().to_string(), shown);
        }
        for text in ["ftp://a", "a:b", "a:0", "unix://x", "http://u@a:1", "[::1"] {
            assert!(AgentAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_travel_on_private_wires() {
        for (text, private) in [
            ("127.0.0.1:8500", true),
            ("localhost:8500", true),
            ("[::1]:1", true),
            ("https://far:1", true),
            ("unix:///x", true),
            ("10.0.0.1:8500", false),
            ("far:8500", false),
        ] {
            assert_eq!(AgentAddress::parse(text).unwrap().is_private(), private);
        }
    }
}
