//! Paths on their way through: how a request target is taken apart, and how the path for the upstream is written.
//!
//! Owns the two tables of upstream paths and the encoding of what is sent. Which raw paths are refused and what normal
//! means is decided in [`crate::base::path`], which this module shows again because the two belong together. Start with
//! [`Target::parse`] and [`write_upstream_path`].

pub use crate::base::path::{Refusal, normal_form, normalize};

use crate::base::path::push_triplet;
use crate::model::plan::PathJoining;

/// A request target, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path as sent; starts with a slash.
    pub path: &'a [u8],
    /// What follows the first `?`; `Some` even when that is nothing.
    pub query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Takes a target apart: `/path?query` or `scheme://authority/path?query`. Refused with status 400 are other forms,
    /// and spaces and control characters anywhere.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Refusal> {
        if raw.iter().any(|byte| *byte <= b' ' || *byte == 0x7F) {
            return Err(Refusal::ForbiddenByte);
        }
        let local = match raw.first() {
            Some(b'/') => raw,
            _ => strip_authority(raw).ok_or(Refusal::NotAPath)?,
        };
        let (path, query) = match memchr::memchr(b'?', local) {
            None => (local, None),
            Some(at) => {
                let (path, rest) = local.split_at(at);
                (path, rest.get(1..))
            }
        };
        let path = if path.is_empty() { b"/" } else { path };
        Ok(Self { path, query })
    }
}

/// What follows `scheme://authority`; starts with `/` or `?`, or is empty.
fn strip_authority(raw: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', raw)?;
    let (scheme, rest) = raw.split_at(colon);
    let named = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let rest = rest.strip_prefix(b"://").filter(|_| named)?;
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    if end == 0 { None } else { rest.get(end..) }
}

/// What the upstream path is made of.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamPath<'a> {
    /// The path of the service; empty means `/`.
    pub base: &'a [u8],
    /// The normalised request path.
    pub request: &'a [u8],
    /// The length of what matched of it, when a path was asked for.
    pub matched_length: Option<usize>,
    /// Whether what matched is left out.
    pub strip: bool,
    /// How the two are joined.
    pub join: PathJoining,
}

/// Appends the upstream path to `out`, percent-encoded.
///
/// *postfix* is the request path without what matched (without its first slash, where nothing was asked for).
///
/// | join | base ends in `/` | strip | postfix | upstream path |
/// |---|---|---|---|---|
/// | slash | yes | yes | empty | base `/`, or request ends in `/`: base; else base without its last slash |
/// | | yes | yes | `/…` | base without its last slash, postfix |
/// | | yes | yes | other | base, postfix |
/// | | yes | no | | base, request without its first slash |
/// | | no | yes | empty | base, and a slash if the request ends in one and is more than that |
/// | | no | yes | `/…` | base, postfix |
/// | | no | yes | other | base, slash, postfix |
/// | | no | no | | base, request unless that is `/` |
/// | concatenate | | yes | | base, postfix; one of two slashes between them dropped |
/// | | | no | | base, request without its first slash |
pub fn write_upstream_path(out: &mut Vec<u8>, parts: UpstreamPath<'_>) {
    for part in parts.join_parts() {
        encode_into(out, part);
    }
}

impl<'a> UpstreamPath<'a> {
    fn join_parts(&self) -> [&'a [u8]; 3] {
        let base = if self.base.is_empty() {
            b"/"
        } else {
            self.base
        };
        let open = base.strip_suffix(b"/");
        let request = self.request;
        let local = request.strip_prefix(b"/").unwrap_or(request);
        let postfix = self.postfix(local);
        match (self.join, open, self.strip) {
            (PathJoining::Slash, Some(open), true) => match postfix.first() {
                None if base == b"/" || request.ends_with(b"/") => [base, b"", b""],
                None => [open, b"", b""],
                Some(b'/') => [open, b"", postfix],
                Some(_) => [base, b"", postfix],
            },
            (PathJoining::Slash, None, true) => match postfix.first() {
                None if request.len() > 1 && request.ends_with(b"/") => [base, b"/", b""],
                None => [base, b"", b""],
                Some(b'/') => [base, b"", postfix],
                Some(_) => [base, b"/", postfix],
            },
            (PathJoining::Slash, None, false) if request == b"/" => [base, b"", b""],
            (PathJoining::Slash, None, false) => [base, b"", request],
            (PathJoining::Concatenate, Some(open), true) if postfix.starts_with(b"/") => {
                [open, b"", postfix]
            }
            (PathJoining::Concatenate, _, true) => [base, b"", postfix],
            (PathJoining::Slash, Some(_), false) | (PathJoining::Concatenate, _, false) => {
                [base, b"", local]
            }
        }
    }

    /// What is left of the request path. Dots at its beginning are dropped: they were part of a segment that began with
    /// what was stripped, and must not become a dot segment of their own.
    fn postfix(&self, local: &'a [u8]) -> &'a [u8] {
        let postfix = match self.matched_length {
            Some(length) => self.request.get(length..).unwrap_or_default(),
            None => local,
        };
        match postfix {
            b"." | b".." => b"",
            [b'.', b'/', rest @ ..] | [b'.', b'.', b'/', rest @ ..] => rest,
            _ => postfix,
        }
    }
}

/// The bytes that are sent as they are. `%` is one of them: triplets that survived normalisation are not encoded twice.
const SAFE: [bool; 256] = {
    let mut safe = [false; 256];
    let marks = b"!#$&'()*+,/:;=?@[]-_.~%";
    let mut index = 0;
    while index < marks.len() {
        safe[marks[index] as usize] = true;
        index += 1;
    }
    let mut byte = 0;
    while byte < 128_u8 {
        if byte.is_ascii_alphanumeric() {
            safe[byte as usize] = true;
        }
        byte += 1;
    }
    safe
};

/// Appends `text`, percent-encoding what may not stand in a request target.
pub fn encode_into(out: &mut Vec<u8>, text: &[u8]) {
    let is_safe = |byte: &u8| SAFE.get(usize::from(*byte)).copied().unwrap_or(false);
    if text.iter().all(is_safe) {
        out.extend_from_slice(text);
        return;
    }
    for byte in text {
        if is_safe(byte) {
            out.push(*byte);
        } else {
            push_triplet(out, *byte);
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

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets() {
        let target = |path: &'static str, query: Option<&'static str>| {
            Ok(Target {
                path: path.as_bytes(),
                query: query.map(str::as_bytes),
            })
        };
        for (raw, expected) in [
            ("/", target("/", None)),
            ("/foo?", target("/foo", Some(""))),
            ("/q?%zz?b", target("/q", Some("%zz?b"))),
            ("http://a.test/x?y", target("/x", Some("y"))),
            ("http://a.test", target("/", None)),
            ("http://a.test?y", target("/", Some("y"))),
            ("http:///x", Err(Refusal::NotAPath)),
            ("1http://a/x", Err(Refusal::NotAPath)),
            ("*", Err(Refusal::NotAPath)),
            ("a.test:443", Err(Refusal::NotAPath)),
            ("?x", Err(Refusal::NotAPath)),
            ("", Err(Refusal::NotAPath)),
            ("/a b", Err(Refusal::ForbiddenByte)),
            ("/a?b c", Err(Refusal::ForbiddenByte)),
            ("/a\tb", Err(Refusal::ForbiddenByte)),
            ("/a\x7f", Err(Refusal::ForbiddenByte)),
            ("/é\"<>{}|\\^`", target("/é\"<>{}|\\^`", None)),
        ] {
            assert_eq!(Target::parse(raw.as_bytes()), expected, "{raw}");
        }
    }

    fn joined(
        base: &str,
        route: Option<&str>,
        strip: bool,
        request: &str,
        join: PathJoining,
    ) -> String {
        let mut out = Vec::new();
        let parts = UpstreamPath {
            base: base.as_bytes(),
            request: request.as_bytes(),
            matched_length: route.map(str::len),
            strip,
            join,
        };
        write_upstream_path(&mut out, parts);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn upstream_paths() {
        for (base, route, strip, request, segments, text) in [
            (
                "/service",
                Some("/route"),
                true,
                "/routereq",
                "/service/req",
                "/servicereq",
            ),
            (
                "/service",
                Some("/route"),
                false,
                "/route",
                "/service/route",
                "/serviceroute",
            ),
            (
                "/service",
                Some("/route/"),
                true,
                "/route/",
                "/service/",
                "/service",
            ),
            (
                "/service/",
                Some("/route"),
                true,
                "/route",
                "/service",
                "/service/",
            ),
            ("/srv/", Some("/rou"), true, "/rou", "/srv", "/srv/"),
            ("/", Some("/route"), true, "/route", "/", "/"),
            ("", Some("/route"), true, "/route", "/", "/"),
            ("/service", None, true, "/", "/service", "/service"),
            ("/service", None, false, "/", "/service", "/service"),
            ("/srv", Some("/rou"), true, "/roureq", "/srv/req", "/srvreq"),
            ("/srv/", Some("/rou"), true, "/rou/", "/srv/", "/srv/"),
            (
                "/srv/",
                Some("/rou"),
                true,
                "/roureq",
                "/srv/req",
                "/srv/req",
            ),
            (
                "/srv/",
                Some("/rou"),
                false,
                "/roureq",
                "/srv/roureq",
                "/srv/roureq",
            ),
            ("/srv/", Some("/rou/"), true, "/rou/", "/srv/", "/srv/"),
            (
                "/srv",
                Some("/rou"),
                true,
                "/rou/req",
                "/srv/req",
                "/srv/req",
            ),
            (
                "/srv",
                Some("/rou"),
                false,
                "/rou/req",
                "/srv/rou/req",
                "/srvrou/req",
            ),
            ("/srv", None, true, "/a/", "/srv/a/", "/srva/"),
            ("/", None, true, "/a", "/a", "/a"),
            ("/srv", Some("/route"), true, "/route.", "/srv", "/srv"),
            ("/srv", Some("/route"), true, "/route..", "/srv", "/srv"),
            (
                "/srv",
                Some("/route"),
                true,
                "/route./req",
                "/srv/req",
                "/srvreq",
            ),
            (
                "/srv",
                Some("/route"),
                true,
                "/route../req",
                "/srv/req",
                "/srvreq",
            ),
            (
                "/srv",
                Some("/route"),
                true,
                "/route.x",
                "/srv/.x",
                "/srv.x",
            ),
        ] {
            let case = format!("({base}, {route:?}, {strip}, {request})");
            assert_eq!(
                joined(base, route, strip, request, PathJoining::Slash),
                segments,
                "segments {case}"
            );
            assert_eq!(
                joined(base, route, strip, request, PathJoining::Concatenate),
                text,
                "text {case}"
            );
        }
    }

    #[test]
    fn encoding() {
        for (text, expected) in [
            ("/a b", "/a%20b"),
            ("/request/foo%2Fbar", "/request/foo%2Fbar"),
            ("/endeløst", "/endel%C3%B8st"),
            ("/\"<>{}|\\^`", "/%22%3C%3E%7B%7D%7C%5C%5E%60"),
            (
                "!#$&'()*+,/:;=?@[]-_.~%azAZ09",
                "!#$&'()*+,/:;=?@[]-_.~%azAZ09",
            ),
        ] {
            let mut out = Vec::new();
            encode_into(&mut out, text.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_reads_as_what_was_matched(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let raw = [b"/".as_slice(), &raw].concat();
            if let Ok(path) = normalize(&raw) {
                let mut sent = Vec::new();
                encode_into(&mut sent, &path);
                prop_assert!(sent.iter().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(normal_form(&sent).into_owned(), path.into_owned());
            }
        }
    }
}
