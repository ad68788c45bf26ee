//! How much a client may send, how much of it is looked at, and how connections are kept.

use super::key::keys;
use super::value::{ByteSize, Count, Seconds};

keys! {
    /// Limits and connection reuse.
    pub struct LimitSettings {
        /// The largest request body, in bytes; a larger one is answered 413. 0 is no limit.
        client_max_body_size: ByteSize = "0" => also(&["nginx_http_client_max_body_size"]) reloads();
        /// How long a client may take for the whole head of a request over HTTP/1, from its first byte and however slowly it
        /// drips; also for the first bytes of HTTP/2. 0 is no limit.
        client_header_timeout: Seconds = "10" => also(&["nginx_http_client_header_timeout"]) reloads();
        /// Bytes of a request's body over HTTP/1 that must arrive in each second that is waited for them, on average, after
        /// ten seconds of grace. 0 is no limit.
        client_body_min_rate: ByteSize = "240" => reloads();
        /// How long a client's connection over HTTP/1 may be idle between requests. 0 is no limit.
        keepalive_timeout: Seconds = "75" => also(&["nginx_http_keepalive_timeout"]) reloads();
        /// How long a connection over HTTP/2 may be without streams.
        http2_idle_timeout: Seconds = "180" => also(&["nginx_http_http2_idle_timeout"]);
        /// Connections that one proxy or stream listener may have open; further ones are closed at once. 0 is no limit.
        listener_connections_max: Count<0, 4_294_967_295> = "0" => reloads();
        /// Connections that one client may have open on all proxy and stream listeners together: one IPv4 address, or one
        /// IPv6 block of 64 bits. Further ones are closed at once. Behind `proxy_protocol` the client that the header names
        /// counts. 0 is no limit.
        address_connections_max: Count<0, 4_294_967_295> = "0" => reloads();
        /// Descriptors that traffic leaves to the Admin API and to files: when only these are free, proxy and stream
        /// listeners wait with accepting. At most half of those that the process may have.
        reserved_descriptors: Count<0, 1_000_000> = "64";
        /// Requests that one client connection may carry before it is closed.
        keepalive_requests: Count<1, 4_294_967_295> = "10000" => also(&["nginx_http_keepalive_requests"]) reloads();
        /// Request headers that routing and plugins look at, counted from the first.
        lua_max_req_headers: Count<1, 1000> = "100" => reloads();
        /// Response headers that plugins look at, counted from the first.
        lua_max_resp_headers: Count<1, 1000> = "100" => reloads();
        /// Query arguments that plugins look at, counted from the first.
        lua_max_uri_args: Count<1, 1000> = "100" => reloads();
        /// Idle connections kept to upstreams, for each proxy thread. 0 keeps none.
        upstream_keepalive_pool_size: Count<0, 1_000_000> = "512";
        /// Requests that one upstream connection may carry before it is closed. 0 is no limit.
        upstream_keepalive_max_requests: Count<0, 4_294_967_295> = "10000" => reloads();
        /// How long an upstream connection may be idle before it is closed. 0 is no limit.
        upstream_keepalive_idle_timeout: Seconds = "60" => reloads();
        /// How long a WebSocket may be silent in both directions before it is closed, instead of its service's
        /// `read_timeout`. 0 is no limit.
        tunnel_idle_timeout: Option<Seconds> = "" => reloads();
        /// Share of a service's requests that may be tried again after a failure, in per cent, counted over ten seconds.
        /// A hundred retries in ten seconds are always allowed. 100 is no limit.
        upstream_retry_budget: Count<0, 100> = "20" => reloads();
    }
}
