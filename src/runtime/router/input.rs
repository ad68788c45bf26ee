//! What a request or connection shows to the router, and what is derived from it once per lookup.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

use smallvec::SmallVec;

use crate::expr::{Field, Fields};
use crate::model::route::{HostReading, Protocol, split_port};
use crate::runtime::head;

/// Query arguments up to this length are decoded on the stack.
const DECODED_INLINE_BYTES: usize = 128;

/// Everything that a route can depend on. For connections, the HTTP parts are empty.
#[derive(Debug, Clone, Copy)]
pub struct MatchInput<'a> {
    /// What the client speaks. For requests: the scheme of the connection, whatever forwarded headers say.
    pub protocol: Protocol,
    /// The method as sent.
    pub method: &'a str,
    /// The `Host` header or `:authority` as sent; empty when there is none.
    pub host: &'a str,
    /// The normalised path.
    pub path: &'a [u8],
    /// The query without its `?`, as sent.
    pub query: &'a [u8],
    /// The request headers.
    pub headers: head::Fields<'a>,
    /// How many header lines are looked at. Default of the setting `lua_max_req_headers`: 100.
    pub header_count_max: usize,
    /// How many query arguments are looked at. Default of `lua_max_uri_args`: 100.
    pub query_count_max: usize,
    /// The server name of the TLS handshake.
    pub sni: Option<&'a str>,
    /// The client.
    pub source: Option<SocketAddr>,
    /// What the client connected to; only the address counts, the port is [`Self::listening_port`].
    pub destination: Option<SocketAddr>,
    /// The port that the client connected to, mapped to what the world sees (`port_maps`).
    pub listening_port: u16,
    /// The name of the listener, where it has one.
    pub entrance: Option<&'a str>,
}

/// A [`MatchInput`] with what several conditions need of it.
pub(super) struct View<'a> {
    pub(super) input: &'a MatchInput<'a>,
    /// The host without port.
    pub(super) host: &'a str,
    host_port: Option<u16>,
    /// Whether a header name contains `_`; found out when first asked.
    underscored: Cell<Option<bool>>,
}

impl<'a> View<'a> {
    pub(super) fn new(input: &'a MatchInput<'a>) -> Self {
        let (host, host_port) = split_port(input.host);
        Self {
            input,
            host,
            host_port,
            underscored: Cell::new(None),
        }
    }

    /// The port that the request is for.
    pub(super) fn port(&self, reading: HostReading) -> u16 {
        self.host_port.unwrap_or(match reading {
            HostReading::ListeningPort => self.input.listening_port,
            HostReading::SchemePort if self.input.protocol.is_secure() => 443,
            HostReading::SchemePort => 80,
        })
    }

    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.input
            .source
            .map(|source| SocketAddr::new(source.ip().to_canonical(), source.port()))
    }

    /// The address that the client connected to with the port that routes see.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        let port = self.port(HostReading::ListeningPort);
        self.input
            .destination
            .map(|destination| SocketAddr::new(destination.ip().to_canonical(), port))
    }

    /// Shows the values of a header to `visit`, until it breaks. `name` is in lower case; with `alike`, it is written
    /// with dashes and means the same with underscores.
    pub(super) fn each_header(
        &self,
        name: &str,
        alike: bool,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let headers = self.input.headers;
        let all_count = headers.count() <= self.input.header_count_max;
        let one_spelling = !alike || !name.contains('-') || !self.has_underscored_names();
        if all_count && one_spelling {
            return headers.named(name).try_for_each(visit);
        }
        headers
            .iter()
            .take(self.input.header_count_max)
            .filter(|(present, _)| same_name(present, name, alike))
            .try_for_each(|(_, value)| visit(value))
    }

    fn has_underscored_names(&self) -> bool {
        self.underscored.get().unwrap_or_else(|| {
            let mut fields = self.input.headers.iter();
            let found = fields.any(|(name, _)| name.contains(&b'_'));
            self.underscored.set(Some(found));
            found
        })
    }
}

/// Compares a header name of the request, in any case, with a configured one in lower case.
fn same_name(present: &[u8], name: &str, alike: bool) -> bool {
    let folded = |byte: u8| match byte {
        b'_' if alike => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    let present_folded = present.iter().copied().map(folded);
    present.len() == name.len() && present_folded.eq(name.bytes().map(folded))
}

impl Fields for View<'_> {
    fn text(&self, field: &Field) -> Option<&[u8]> {
        let present = |text: &&str| !text.is_empty();
        let input = self.input;
        match field {
            Field::Protocol => Some(input.protocol.as_str().as_bytes()),
            Field::Sni => input.sni.map(str::as_bytes),
            Field::Method => Some(input.method).filter(present).map(str::as_bytes),
            Field::Host => Some(self.host).filter(present).map(str::as_bytes),
            Field::Path => input.protocol.is_http().then_some(input.path),
            _ => None,
        }
    }

    fn each(&self, field: &Field, visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) {
        // A visitor that has seen enough is no failure.
        let _ = match field {
            Field::Header(name) if !name.contains('_') => self.each_header(name, false, visit),
            Field::Header(name) => self
                .input
                .headers
                .iter()
                .take(self.input.header_count_max)
                .filter(|(present, _)| same_name(present, name, true))
                .try_for_each(|(_, value)| visit(value)),
            Field::Query(name) => each_argument(
                self.input.query,
                self.input.query_count_max,
                name.as_bytes(),
                visit,
            ),
            _ => ControlFlow::Continue(()),
        };
    }

    fn integer(&self, field: &Field) -> Option<i64> {
        match field {
            Field::SourcePort => self.input.source.map(|source| source.port().into()),
            Field::DestinationPort => Some(self.port(HostReading::ListeningPort).into()),
            _ => None,
        }
    }

    fn address(&self, field: &Field) -> Option<IpAddr> {
        match field {
            Field::SourceAddress => self.source().map(|source| source.ip()),
            Field::DestinationAddress => self.destination().map(|destination| destination.ip()),
            _ => None,
        }
    }
}

/// Shows the decoded values of the query arguments called `name` to `visit`, until it breaks.
fn each_argument(
    query: &[u8],
    count_max: usize,
    name: &[u8],
    visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for argument in query
        .split(|byte| *byte == b'&')
        .filter(|argument| !argument.is_empty())
        .take(count_max)
    {
        let equals = memchr::memchr(b'=', argument).unwrap_or(argument.len());
        let (key, value) = argument.split_at(equals);
        if decoded(key, |key| key == name) {
            decoded(value.get(1..).unwrap_or_default(), &mut *visit)?;
        }
    }
    ControlFlow::Continue(())
}

/// Calls `then` with the form-decoded text; an incomplete triplet stays as it is.
fn decoded<R>(text: &[u8], then: impl FnOnce(&[u8]) -> R) -> R {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return then(text);
    }
    let spaced: SmallVec<[u8; DECODED_INLINE_BYTES]> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let out: SmallVec<[u8; DECODED_INLINE_BYTES]> =
        percent_encoding::percent_decode(&spaced).collect();
    then(&out)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    #[test]
    fn query_arguments() {
        for (query, name, expected) in [
            ("a=1&b=2&a=3", "a", vec!["1", "3"]),
            ("a&b", "a", vec![""]),
            ("a=", "a", vec![""]),
            ("a%62=x+y%2B%zz", "ab", vec!["x y+%zz"]),
            ("&&a=b=c", "a", vec!["b=c"]),
            ("", "a", vec![]),
            ("x=1&x=2&a=3", "a", vec!["3"]),
            ("x=1&x=2&x=3&a=4", "a", vec![]),
        ] {
            let mut seen = Vec::new();
            let _ = each_argument(query.as_bytes(), 3, name.as_bytes(), &mut |value| {
                seen.push(String::from_utf8(value.to_vec()).unwrap());
                ControlFlow::Continue(())
            });
            assert_eq!(seen, expected, "{query}");
        }
    }
}
