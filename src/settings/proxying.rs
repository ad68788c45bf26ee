//! What the proxy adds, believes and answers: headers, trusted addresses, error bodies.

use std::path::PathBuf;

use ipnet::IpNet;

use super::key::{choice, keys};
use super::value::{Raw, Value};

keys! {
    /// What the proxy adds, believes and answers.
    pub struct ProxyingSettings {
        /// Headers added to answers for the client. `server_tokens` stands for `Server` and `Via`, `latency_tokens` for
        /// the four latencies. `off` adds none.
        headers: HeaderTokens = "server_tokens, latency_tokens, X-Kong-Request-Id" => reloads();
        /// Headers added to requests for the upstream. `off` adds none.
        headers_upstream: UpstreamHeaderTokens = "X-Kong-Request-Id" => reloads();
        /// Whose `X-Forwarded-*` headers and PROXY headers are believed: addresses and blocks, `0.0.0.0/0, ::/0` for everybody's. `unix:`
        /// is taken and matches nobody, as no listener is a socket of the file system.
        trusted_ips: TrustedAddresses = "" => reloads();
        /// The header that names the client when a trusted peer connects. With `proxy_protocol` none does: on listeners with
        /// that flag the PROXY header of a trusted peer names the client in any case.
        real_ip_header: RealIpHeader = "X-Real-IP" => reloads();
        /// Whether the last untrusted member of `X-Forwarded-For` is the client, instead of the last one.
        real_ip_recursive: bool = "off" => reloads();
        /// Type of the body of errors raised by the HTTP layer for clients that do not say what they accept.
        error_default_type: ErrorType = "text/plain" => reloads();
        /// A file whose text replaces the HTML body of errors; `%s` stands for message and request id, in this order.
        error_template_html: Option<PathBuf> = "" => reloads();
        /// A file whose text replaces the JSON body of errors; `%s` as above.
        error_template_json: Option<PathBuf> = "" => reloads();
        /// A file whose text replaces the XML body of errors; `%s` as above.
        error_template_xml: Option<PathBuf> = "" => reloads();
        /// A file whose text replaces the plain body of errors; `%s` as above.
        error_template_plain: Option<PathBuf> = "" => reloads();
        /// Whether a request with `Kong-Debug: 1` is told which route and service matched.
        allow_debug_header: bool = "off" => reloads();
    }
}

/// Headers that the proxy adds to answers. Kong: `headers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderTokens {
    /// `Server` on answers made here, or where the upstream sent none.
    pub server: bool,
    /// `Via` on proxied answers.
    pub via: bool,
    /// `X-Kong-Upstream-Latency`.
    pub upstream_latency: bool,
    /// `X-Kong-Proxy-Latency`.
    pub proxy_latency: bool,
    /// `X-Kong-Response-Latency`, on answers made here.
    pub response_latency: bool,
    /// `X-Kong-Admin-Latency`, on answers of the Admin and Status APIs.
    pub admin_latency: bool,
    /// `X-Kong-Upstream-Status`.
    pub upstream_status: bool,
    /// `X-Kong-Request-Id`.
    pub request_id: bool,
}

const HEADER_WORDS: [&str; 10] = [
    "server_tokens",
    "latency_tokens",
    "Server",
    "Via",
    "X-Kong-Upstream-Latency",
    "X-Kong-Proxy-Latency",
    "X-Kong-Response-Latency",
    "X-Kong-Admin-Latency",
    "X-Kong-Upstream-Status",
    "X-Kong-Request-Id",
];

impl Value for HeaderTokens {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let words = raw.many();
        if words.is_empty() {
            return Err("must not be empty, write 'off' for none".to_owned());
        }
        let mut tokens = Self::default();
        for word in words {
            match word.to_ascii_lowercase().as_str() {
                // Kong ignores `off` beside others.
                "off" => {}
                "server_tokens" => (tokens.server, tokens.via) = (true, true),
                "latency_tokens" => {
                    tokens.upstream_latency = true;
                    tokens.proxy_latency = true;
                    tokens.response_latency = true;
                    tokens.admin_latency = true;
                }
                "server" => tokens.server = true,
                "via" => tokens.via = true,
                "x-kong-upstream-latency" => tokens.upstream_latency = true,
                "x-kong-proxy-latency" => tokens.proxy_latency = true,
                "x-kong-response-latency" => tokens.response_latency = true,
                "x-kong-admin-latency" => tokens.admin_latency = true,
                "x-kong-upstream-status" => tokens.upstream_status = true,
                "x-kong-request-id" => tokens.request_id = true,
                _ => return Err(format!("'{word}' is no header that can be added")),
            }
        }
        Ok(tokens)
    }

    fn allowed() -> String {
        format!(
            "`off`, or a list of {}",
            HEADER_WORDS.map(|word| format!("`{word}`")).join(", ")
        )
    }

    fn json(&self) -> serde_json::Value {
        let mut words = Vec::new();
        match (self.server, self.via) {
            (true, true) => words.push("server_tokens"),
            (true, false) => words.push("Server"),
            (false, true) => words.push("Via"),
            (false, false) => {}
        }
        let latencies = [
            (self.upstream_latency, "X-Kong-Upstream-Latency"),
            (self.proxy_latency, "X-Kong-Proxy-Latency"),
            (self.response_latency, "X-Kong-Response-Latency"),
            (self.admin_latency, "X-Kong-Admin-Latency"),
        ];
        if latencies.iter().all(|(set, _)| *set) {
            words.push("latency_tokens");
        } else {
            words.extend(
                latencies
                    .iter()
                    .filter(|(set, _)| *set)
                    .map(|(_, word)| word),
            );
        }
        let others = [
            (self.upstream_status, "X-Kong-Upstream-Status"),
            (self.request_id, "X-Kong-Request-Id"),
        ];
        words.extend(others.iter().filter(|(set, _)| *set).map(|(_, word)| word));
        if words.is_empty() {
            words.push("off");
        }
        serde_json::json!(words)
    }
}

/// Headers that the proxy adds to requests. Kong: `headers_upstream`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamHeaderTokens {
    /// `X-Kong-Request-Id`.
    pub request_id: bool,
}

impl Value for UpstreamHeaderTokens {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let words = raw.many();
        if words.is_empty() {
            return Err("must not be empty, write 'off' for none".to_owned());
        }
        let mut tokens = Self::default();
        for word in words {
            match word.to_ascii_lowercase().as_str() {
                "off" => {}
                "x-kong-request-id" => tokens.request_id = true,
                _ => return Err(format!("'{word}' is no header that can be added")),
            }
        }
        Ok(tokens)
    }

    fn allowed() -> String {
        "`off` or `X-Kong-Request-Id`".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!([if self.request_id {
            "X-Kong-Request-Id"
        } else {
            "off"
        }])
    }
}

/// Whose forwarding headers are believed. Kong: `trusted_ips`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedAddresses {
    /// The blocks, in the order written; a single address is a block of one.
    pub blocks: Vec<IpNet>,
    /// Whether `unix:` was among them.
    pub unix: bool,
}

impl Value for TrustedAddresses {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let mut trusted = Self::default();
        for word in raw.many() {
            if word == "unix:" {
                trusted.unix = true;
            } else if let Ok(block) = word.parse::<IpNet>() {
                trusted.blocks.push(block.trunc());
            } else if let Ok(address) = word.parse::<std::net::IpAddr>() {
                trusted.blocks.push(IpNet::from(address));
            } else {
                return Err(format!("'{word}' is neither an IP address nor a block"));
            }
        }
        Ok(trusted)
    }

    fn allowed() -> String {
        "a list of IP addresses, blocks such as `10.0.0.0/8`, and `unix:`".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        let mut words: Vec<String> = self.blocks.iter().map(ToString::to_string).collect();
        if self.unix {
            words.push("unix:".to_owned());
        }
        serde_json::json!(words)
    }
}

/// The value of `real_ip_header` that stands for no header.
pub const PROXY_PROTOCOL: &str = "proxy_protocol";

/// The header that names the client. Kong: `real_ip_header`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealIpHeader(
    /// In lower case.
    pub String,
);

impl Value for RealIpHeader {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !text.bytes().all(is_token) {
            return Err(format!("'{text}' is not the name of a header"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    fn allowed() -> String {
        "the name of a header, or `proxy_protocol`".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        self.0.as_str().into()
    }
}

choice! {
    /// Types of error bodies. Kong: `error_default_type`.
    pub enum ErrorType {
        /// `text/plain`.
        Plain = "text/plain",
        /// `text/html`.
        Html = "text/html",
        /// `application/json`.
        Json = "application/json",
        /// `application/xml`.
        Xml = "application/xml",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn header_tokens() {
        let default =
            HeaderTokens::parse(&text("server_tokens, latency_tokens, X-Kong-Request-Id")).unwrap();
        assert!(default.server && default.via && default.admin_latency && default.request_id);
        assert!(!default.upstream_status);
        assert_eq!(
            default.json(),
            serde_json::json!(["server_tokens", "latency_tokens", "X-Kong-Request-Id"])
        );
        assert_eq!(
            HeaderTokens::parse(&text("off")).unwrap(),
            HeaderTokens::default()
        );
        assert!(HeaderTokens::parse(&text("off, VIA")).unwrap().via);
        assert!(HeaderTokens::parse(&text("X-Powered-By")).is_err());
        assert!(
            UpstreamHeaderTokens::parse(&text("x-kong-request-id"))
                .unwrap()
                .request_id
        );
    }

    #[test]
    fn trusted_addresses() {
        let trusted = TrustedAddresses::parse(&text("10.1.2.3/8, ::1, unix:")).unwrap();
        assert_eq!(
            trusted.json(),
            serde_json::json!(["10.0.0.0/8", "::1/128", "unix:"])
        );
        assert!(
            TrustedAddresses::parse(&text(""))
                .unwrap()
                .blocks
                .is_empty()
        );
        assert!(TrustedAddresses::parse(&text("localhost")).is_err());
    }

    #[test]
    fn real_ip_header() {
        assert_eq!(
            RealIpHeader::parse(&text("X-Forwarded-For")).unwrap().0,
            "x-forwarded-for"
        );
        assert!(RealIpHeader::parse(&text("a b")).is_err());
    }
}
