//! The normal form of request paths: which raw paths are refused, and what the rest become before anything matches
//! them (RFC 3986, 6.2.2; Kong: URI normalisation).
//!
//! Owns the path only. The query is never looked at, and writing a path to an upstream is `runtime::path`'s business.
//! Start with [`normalize`]; configured paths are checked with [`normal_form`].

use std::borrow::Cow;
use std::fmt;

/// Why a request target or its path is refused (status 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It starts with neither `/` nor `scheme://`.
    NotAPath,
    /// A raw space, control byte or DEL in the target.
    ForbiddenByte,
    /// A `%` that is not followed by two hexadecimal digits.
    IncompleteTriplet,
    /// `%00`.
    EncodedNul,
    /// Its dot segments climb above the root.
    AboveRoot,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotAPath => "the request target starts with neither '/' nor 'scheme://'",
            Self::ForbiddenByte => "the request target contains a space or control character",
            Self::IncompleteTriplet => {
                "the path contains a '%' without two hexadecimal digits after it"
            }
            Self::EncodedNul => "the path contains '%00'",
            Self::AboveRoot => "the dot segments of the path climb above the root",
        })
    }
}

impl std::error::Error for Refusal {}

/// Whether an encoded byte keeps its triplet: the reserved characters of RFC 3986, 2.2, and `%` itself.
const RESERVED: [bool; 256] = set(b"!*'();:@&=+$,/?%#[]");

const fn set(bytes: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut index = 0;
    while index < bytes.len() {
        set[bytes[index] as usize] = true;
        index += 1;
    }
    set
}

/// The path of a request in its normal form; borrowed, without allocation, where it was normal already.
///
/// `raw` is the path as sent, without query. Errors are those of the HTTP layer, before any route is known.
pub fn normalize(raw: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    if is_plainly_normal(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    refuse_bad_triplets(raw)?;
    refuse_climbing(raw)?;
    Ok(normal_form(raw))
}

/// True when nothing in the path could need a change: the common case, in one pass.
fn is_plainly_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'%' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = *byte == b'/',
        }
    }
    true
}

fn refuse_bad_triplets(raw: &[u8]) -> Result<(), Refusal> {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'%', rest) {
        rest = rest.get(at..).unwrap_or_default();
        match triplet(rest) {
            None => return Err(Refusal::IncompleteTriplet),
            Some(0) => return Err(Refusal::EncodedNul),
            Some(_) => rest = rest.get(3..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Refuses paths whose dot segments climb above the root, reading them as a web server does that decodes everything:
/// slashes are merged and an encoded slash separates too, so that no reader behind us sees an escape that we did not.
fn refuse_climbing(raw: &[u8]) -> Result<(), Refusal> {
    let mut depth = 0_usize;
    // The dots of the current segment while it consists of nothing else.
    let mut dots = Some(0_usize);
    let mut rest = raw;
    loop {
        let (byte, length) = match rest.first() {
            None => (b'/', 0),
            Some(b'%') => triplet(rest).map_or((b'%', 1), |byte| (byte, 3)),
            Some(byte) => (*byte, 1),
        };
        match (byte, dots) {
            (b'/', Some(0 | 1)) => dots = Some(0),
            (b'/', Some(2)) => {
                depth = depth.checked_sub(1).ok_or(Refusal::AboveRoot)?;
                dots = Some(0);
            }
            (b'/', _) => {
                depth += 1;
                dots = Some(0);
            }
            (b'.', Some(count)) => dots = Some(count + 1),
            _ => dots = None,
        }
        if length == 0 {
            return Ok(());
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// The normal form of a path, refusing nothing: triplets of other than reserved characters are decoded and the rest
/// upper-cased, dot segments removed, slashes merged. An incomplete triplet stays as it is.
///
/// Kong: a configured `route.paths` entry without `~` must equal its own normal form.
pub fn normal_form(path: &[u8]) -> Cow<'_, [u8]> {
    if is_plainly_normal(path) || path == b"/" {
        return Cow::Borrowed(path);
    }
    let decoded = decode_unreserved(path);
    let undotted = remove_dot_segments(&decoded);
    let mut merged = Vec::with_capacity(undotted.len());
    for byte in undotted {
        if byte != b'/' || merged.last() != Some(&b'/') {
            merged.push(byte);
        }
    }
    match merged == path {
        true => Cow::Borrowed(path),
        false => Cow::Owned(merged),
    }
}

/// Decodes in one pass; what it decodes is not looked at again.
fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, triplet_after(*byte, after)) {
            (_, Some(value)) => {
                push_decoded(&mut decoded, value);
                rest = after.get(2..).unwrap_or_default();
            }
            (plain, None) => decoded.push(*plain),
        }
    }
    decoded
}

fn push_decoded(out: &mut Vec<u8>, value: u8) {
    if RESERVED.get(usize::from(value)).copied().unwrap_or(false) {
        push_triplet(out, value);
    } else {
        out.push(value);
    }
}

/// Appends `value` percent-encoded, in upper case.
pub fn push_triplet(out: &mut Vec<u8>, value: u8) {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'A' + nibble - 10
        }
    };
    out.extend_from_slice(&[b'%', digit(value >> 4), digit(value & 0xF)]);
}

/// RFC 3986, 5.2.4, for paths that start with a slash; a `..` at the root stays at the root.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|byte| *byte == b'/').peekable();
    // What stands before the first slash is no segment; request paths have nothing there.
    if let Some(head) = segments.next() {
        out.extend_from_slice(head);
    }
    let root = out.len();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    let parent = out.iter().rposition(|byte| *byte == b'/').unwrap_or(root);
                    out.truncate(parent.max(root));
                }
                if is_last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    out
}

/// The byte that a triplet at the start of `text` stands for.
fn triplet(text: &[u8]) -> Option<u8> {
    let (first, rest) = text.split_first()?;
    triplet_after(*first, rest)
}

fn triplet_after(first: u8, rest: &[u8]) -> Option<u8> {
    match (first, rest) {
        (b'%', [high, low, ..]) => Some(hexadecimal(*high)? << 4 | hexadecimal(*low)?),
        _ => None,
    }
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// The normal form of the text of a path *regex*, as old declarative formats were migrated: triplets of reserved
/// characters are upper-cased, others decoded, with a backslash where the decoded byte means something in a regex.
pub fn normal_regex_text(pattern: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match triplet_after(*byte, after) {
            Some(value) => {
                if matches!(value, b'.' | b'^' | b'-' | b'{' | b'}' | b'\\' | b'|') {
                    out.push(b'\\');
                }
                push_decoded(&mut out, value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => out.push(*byte),
        }
    }
    out
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

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn normal_forms() {
        for (raw, expected) in [
            ("", ""),
            ("/", "/"),
            ("/a%2fb", "/a%2Fb"),
            ("/f%6f%6f", "/foo"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/a//b//", "/a/b/"),
            ("/endel%C3%B8st", "/endeløst"),
            ("/%2E", "/"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a//../b", "/a/b"),
            ("/.hidden/..file/...", "/.hidden/..file/..."),
            ("/%20%22%7b%7C%5e", "/ \"{|^"),
            ("/%2525", "/%2525"),
            (
                "/%21%2a%27%28%29%3b%3a%40%26%3d%2b%24%2c%2f%3f%25%23%5b%5d",
                "/%21%2A%27%28%29%3B%3A%40%26%3D%2B%24%2C%2F%3F%25%23%5B%5D",
            ),
            ("/a!*'();:@&=+$,b", "/a!*'();:@&=+$,b"),
        ] {
            assert_eq!(
                normalize(raw.as_bytes()).as_deref().map(text),
                Ok(expected.to_owned()),
                "{raw}"
            );
        }
    }

    #[test]
    fn normal_paths_are_borrowed() {
        for raw in [
            "/",
            "",
            "/a/b",
            "/a/b/",
            "/a.b/c..d",
            "/~x",
            "/.hidden",
            "/a%2Fb",
            "/%25",
        ] {
            assert!(
                matches!(normalize(raw.as_bytes()), Ok(Cow::Borrowed(_))),
                "{raw}"
            );
        }
    }

    #[test]
    fn refusals() {
        for (raw, refusal) in [
            ("/%", Refusal::IncompleteTriplet),
            ("/%4", Refusal::IncompleteTriplet),
            ("/%zz", Refusal::IncompleteTriplet),
            ("/a%2", Refusal::IncompleteTriplet),
            ("/%+1", Refusal::IncompleteTriplet),
            ("/%00", Refusal::EncodedNul),
            ("/a%00b", Refusal::EncodedNul),
            ("/..", Refusal::AboveRoot),
            ("/../a", Refusal::AboveRoot),
            ("/%2E%2E/a", Refusal::AboveRoot),
            ("/a/b/../../../c", Refusal::AboveRoot),
            ("/a//../../b", Refusal::AboveRoot),
            ("/a/..%2f..", Refusal::AboveRoot),
            ("/./..", Refusal::AboveRoot),
        ] {
            assert_eq!(normalize(raw.as_bytes()), Err(refusal), "{raw}");
        }
        for fine in [
            "/a/..",
            "/a/../b/..",
            "/...",
            "/a/.../b",
            "/..a",
            "/a/%2E%2E/b",
        ] {
            assert!(normalize(fine.as_bytes()).is_ok(), "{fine}");
        }
    }

    #[test]
    fn migrated_regexes() {
        for (raw, expected) in [
            (r"/a%2fb/\d+", r"/a%2Fb/\d+"),
            ("/%61%2e%7c", r"/a\.\|"),
            ("//a/../b", "//a/../b"),
            ("/50%", "/50%"),
        ] {
            assert_eq!(text(&normal_regex_text(raw.as_bytes())), expected, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_stable(raw in "/([a./%2eEfF51/]|%2[eEfF]|%5[bBcC]|/\\.\\.?/|é| ){0,24}") {
            let once = normal_form(raw.as_bytes()).into_owned();
            // An incomplete triplet may become complete by what is decoded behind it; no request with one gets here.
            if refuse_bad_triplets(raw.as_bytes()).is_ok() {
                prop_assert_eq!(text(&normal_form(&once)), text(&once));
            }
        }

        #[test]
        fn the_fast_check_agrees(raw in "/[a./%2eE]{0,12}") {
            let raw = raw.as_bytes();
            if is_plainly_normal(raw) {
                prop_assert!(refuse_climbing(raw).is_ok());
                let undotted = remove_dot_segments(&decode_unreserved(raw));
                prop_assert_eq!(text(&undotted), text(raw));
            }
        }

        #[test]
        fn accepted_paths_have_no_dot_segments(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let raw = [b"/".as_slice(), &raw].concat();
            if let Ok(path) = normalize(&raw) {
                prop_assert!(path.starts_with(b"/"));
                prop_assert!(!path.windows(2).any(|pair| pair == b"//"));
                prop_assert!(!path.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b".."));
            }
        }
    }
}
