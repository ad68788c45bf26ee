//! The fields that an expression can ask about, and where each may be used.

/// The kind of traffic that an expression is written for: it decides which fields exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// HTTP and gRPC requests: every field.
    Http,
    /// TCP, TLS and UDP: only `net.*` and `tls.*`.
    Stream,
}

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, compared case-sensitively.
    Text,
    /// A signed 64-bit number.
    Integer,
    /// An IPv4 or IPv6 address.
    Address,
}

/// Something that can be asked about a request or a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `net.protocol`: `http`, `https`, `tcp`, `tls` or `udp`.
    Protocol,
    /// `tls.sni`: the server name of the handshake.
    Sni,
    /// `http.method`.
    Method,
    /// `http.host`: the request's host without its port.
    Host,
    /// `http.path`: the normalised path.
    Path,
    /// `http.path.segments.N` and `.N_M`: segments counted from zero, both ends included, joined by `/`.
    PathSegments {
        /// The first segment.
        first: usize,
        /// The last segment, at least `first`.
        last: usize,
    },
    /// `http.path.segments.len`: how many segments the path has; an empty last one does not count.
    PathSegmentCount,
    /// `http.headers.NAME`: every value of a header; lower case, `-` written `_`.
    Header(String),
    /// `http.queries.NAME`: every value of a query argument, decoded; the empty text where it has none.
    Query(String),
    /// `net.src.ip`.
    SourceAddress,
    /// `net.src.port`.
    SourcePort,
    /// `net.dst.ip`.
    DestinationAddress,
    /// `net.dst.port`, and its older name `net.port`.
    DestinationPort,
}

/// The message for a name that is no field, or none of this scope. Kong's text.
const UNKNOWN: &str = "Unknown LHS field";
/// The message for a segment field that cannot be read. Kong's text.
const ILL_FORMED_SEGMENTS: &str = "illformed http.path.segments.* field";

impl Field {
    /// Reads a field's name; the error is the message for the author of the expression.
    pub(super) fn parse(name: &str, scope: Scope) -> Result<Self, &'static str> {
        let field = match name {
            "net.protocol" => Self::Protocol,
            "tls.sni" => Self::Sni,
            "net.src.ip" => Self::SourceAddress,
            "net.src.port" => Self::SourcePort,
            "net.dst.ip" => Self::DestinationAddress,
            "net.dst.port" | "net.port" => Self::DestinationPort,
            _ if scope == Scope::Stream => return Err(UNKNOWN),
            "http.method" => Self::Method,
            "http.host" => Self::Host,
            "http.path" => Self::Path,
            _ => return Self::parse_http_family(name),
        };
        Ok(field)
    }

    fn parse_http_family(name: &str) -> Result<Self, &'static str> {
        if let Some(header) = name.strip_prefix("http.headers.") {
            return match header {
                "" => Err(UNKNOWN),
                _ => Ok(Self::Header(header.to_ascii_lowercase())),
            };
        }
        if let Some(argument) = name.strip_prefix("http.queries.") {
            return match argument {
                "" => Err(UNKNOWN),
                _ => Ok(Self::Query(argument.to_owned())),
            };
        }
        let Some(segments) = name.strip_prefix("http.path.segments.") else {
            return Err(UNKNOWN);
        };
        if segments == "len" {
            return Ok(Self::PathSegmentCount);
        }
        let (first, last) = segments.split_once('_').unwrap_or((segments, segments));
        match (segment_number(first), segment_number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self::PathSegments { first, last }),
            _ => Err(ILL_FORMED_SEGMENTS),
        }
    }

    /// The type of this field's values.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Protocol
            | Self::Sni
            | Self::Method
            | Self::Host
            | Self::Path
            | Self::PathSegments { .. }
            | Self::Header(_)
            | Self::Query(_) => Kind::Text,
            Self::PathSegmentCount | Self::SourcePort | Self::DestinationPort => Kind::Integer,
            Self::SourceAddress | Self::DestinationAddress => Kind::Address,
        }
    }
}

/// A segment number without sign or blanks; no path has more segments than a `u16` counts.
fn segment_number(digits: &str) -> Option<usize> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u16>().ok().map(usize::from)
}
