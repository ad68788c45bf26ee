//! Heads of HTTP/1 as they came: one piece of memory, and where its parts are.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use crate::base::token::is_named;
use crate::runtime::head::fields::is_visible;
use crate::runtime::head::whole::Whole;
use crate::runtime::lengths::Lengths;

/// Fields whose places need no memory of their own.
const USUAL_FIELDS: usize = 12;
/// Room for fields that are added to a head: a map that must grow for them costs more than all of them.
const ADDED_FIELDS: usize = 8;

/// A head as it came.
pub trait Raw: Default {
    /// Pingora's type for it.
    type Whole: Whole;

    fn fields(&self) -> &RawFields;

    /// Makes Pingora's type of it.
    fn to_whole(&self) -> Self::Whole;
}

/// The fields of a head as they came. Whoever notes them has seen to it that names and values are such.
#[derive(Debug, Default)]
pub struct RawFields {
    bytes: Bytes,
    places: SmallVec<[Place; USUAL_FIELDS]>,
    lengths: Lengths,
}

/// Where a field is.
#[derive(Debug, Clone, Copy)]
struct Place {
    name: Part,
    value: Part,
}

/// Where a part of a head is. Limits on heads keep it far below 4 GiB.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    start: u32,
    length: u32,
}

impl Part {
    /// `part` lies in `head`.
    fn of(head: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        Self {
            start: start as u32,
            length: part.len() as u32,
        }
    }

    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.length as usize
    }

    fn slice(self, bytes: &Bytes) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }

    fn share(self, bytes: &Bytes) -> Bytes {
        bytes.slice_ref(self.slice(bytes))
    }
}

impl RawFields {
    /// Notes a field whose name and value lie in `head`.
    pub fn note(&mut self, head: &[u8], name: &[u8], value: &[u8]) {
        self.lengths.insert(name.len());
        self.places.push(Place {
            name: Part::of(head, name),
            value: Part::of(head, value),
        });
    }

    /// Takes the head in which the fields noted lie.
    pub fn hold(&mut self, head: Bytes) {
        self.bytes = head;
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Forgets the fields of a name, which is in lower case.
    pub fn remove(&mut self, name: &str) {
        let bytes = &self.bytes;
        self.places
            .retain(|place| !is_named(place.name.slice(bytes), name.as_bytes()));
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Each name as written, with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let places = self.places.iter();
        places.map(|place| {
            (
                place.name.slice(&self.bytes),
                place.value.slice(&self.bytes),
            )
        })
    }

    /// The values under a name, which is in lower case.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let places: &[Place] = match self.lengths.may_hold(name.len()) {
            true => &self.places,
            false => &[],
        };
        let of_name = places.iter().filter(move |place| self.is(place, name));
        of_name.map(|place| place.value.slice(&self.bytes))
    }

    /// The first of them.
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        let place = self.place(name)?;
        Some(place.value.slice(&self.bytes))
    }

    fn place(&self, name: &str) -> Option<&Place> {
        if !self.lengths.may_hold(name.len()) {
            return None;
        }
        self.places.iter().find(|place| self.is(place, name))
    }

    fn is(&self, place: &Place, name: &str) -> bool {
        place.name.length as usize == name.len()
            && is_named(place.name.slice(&self.bytes), name.as_bytes())
    }

    /// The fields as a map.
    pub(super) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.count() + ADDED_FIELDS);
        for place in &self.places {
            let name = HeaderName::from_bytes(place.name.slice(&self.bytes));
            let value = HeaderValue::from_maybe_shared(place.value.share(&self.bytes));
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        map
    }

    /// Does the map hold these fields, values of a name in their order, and no other?
    pub(super) fn are(&self, map: &HeaderMap) -> bool {
        map.len() == self.count()
            && map.keys().all(|name| {
                let values = map.get_all(name).iter().map(HeaderValue::as_bytes);
                values.eq(self.named(name.as_str()))
            })
    }

    /// Hands over each field; what follows a refusal is left out. Only a map at its size limit refuses, and no head of
    /// that many fields is read.
    fn each_shared<E>(&self, mut take: impl FnMut(Bytes, HeaderValue) -> Result<bool, E>) {
        for place in &self.places {
            let value = HeaderValue::from_maybe_shared(place.value.share(&self.bytes));
            let Ok(value) = value else { continue };
            if take(place.name.share(&self.bytes), value).is_err() {
                return;
            }
        }
    }
}

/// A request's head as it came: HTTP/1.1, its target in origin form.
#[derive(Debug, Default)]
pub struct RawRequest {
    pub(super) fields: RawFields,
    pub(super) method: Method,
    target: Part,
    /// The target up to its question mark.
    path: Part,
    /// The first Host field, for which several ask, if it is visible ASCII.
    host: Option<Part>,
}

impl RawRequest {
    /// Begins with what the first line says; `target` lies in `head`.
    pub fn begin(head: &[u8], method: Method, target: &str) -> Self {
        let question = memchr::memchr(b'?', target.as_bytes());
        let target = Part::of(head, target.as_bytes());
        let path = Part {
            length: question.map_or(target.length, |at| at as u32),
            ..target
        };
        Self {
            fields: RawFields::default(),
            method,
            target,
            path,
            host: None,
        }
    }

    /// Notes a field whose name and value lie in `head`.
    pub fn note(&mut self, head: &[u8], name: &[u8], value: &[u8]) {
        self.fields.note(head, name, value);
    }

    /// Takes the head in which everything lies.
    pub fn hold(&mut self, head: Bytes) {
        self.fields.hold(head);
        let host = self.fields.place("host").map(|place| place.value);
        self.host = host.filter(|host| is_visible(host.slice(&self.fields.bytes)));
    }

    pub(super) fn host(&self) -> Option<&[u8]> {
        Some(self.host?.slice(&self.fields.bytes))
    }

    /// Is the target one that nobody reads in another way? Others are for [`RequestHeader`] to judge.
    pub fn is_plain(&self) -> bool {
        self.target().iter().all(|byte| is_plain(*byte))
    }

    /// Reads it at once.
    ///
    /// # Errors
    /// [`RequestHeader`] does not take the target.
    pub fn read(&self) -> pingora_error::Result<RequestHeader> {
        let room = self.fields.count() + ADDED_FIELDS;
        let mut whole = RequestHeader::build(self.method.clone(), self.target(), Some(room))?;
        whole.set_version(Version::HTTP_11);
        self.fields
            .each_shared(|name, value| whole.append_header(name, value));
        Ok(whole)
    }

    pub(super) fn target(&self) -> &[u8] {
        match self.target.slice(&self.fields.bytes) {
            [] => b"/",
            target => target,
        }
    }

    pub(super) fn shared_target(&self) -> Bytes {
        self.target.share(&self.fields.bytes)
    }

    pub(super) fn path(&self) -> &[u8] {
        match self.path.slice(&self.fields.bytes) {
            [] => b"/",
            path => path,
        }
    }

    pub(super) fn query(&self) -> Option<&[u8]> {
        let length = self.path.length as usize;
        self.target.slice(&self.fields.bytes).get(length + 1..)
    }
}

/// Bytes of a path and query that stand for themselves (RFC 3986, 3.3 and 3.4).
fn is_plain(byte: u8) -> bool {
    const OTHERS: &[u8] = b"-._~%!$&'()*+,;=:@/?";
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut at = 0;
        while at < 256 {
            plain[at] = (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        let mut at = 0;
        while at < OTHERS.len() {
            plain[OTHERS[at] as usize] = true;
            at += 1;
        }
        plain
    };
    PLAIN[usize::from(byte)]
}

impl Raw for RawRequest {
    type Whole = RequestHeader;

    fn fields(&self) -> &RawFields {
        &self.fields
    }

    fn to_whole(&self) -> RequestHeader {
        // No plain target is refused.
        self.read()
            .unwrap_or_else(|_| http::Request::new(()).into_parts().0.into())
    }
}

/// A response's head as it came.
#[derive(Debug, Default)]
pub struct RawResponse {
    pub(super) fields: RawFields,
    pub(super) status: StatusCode,
    version: Version,
    /// What stands behind the status, where it is not what usually does.
    reason: Option<Part>,
    /// Do names keep the case in which they came, if somebody looks?
    cased: bool,
}

impl RawResponse {
    /// Begins with what the first line says; `reason` lies in `head`. `cased`: names keep the case in which they came, for
    /// HTTP/1 clients.
    pub fn begin(
        head: &[u8],
        (version, status): (Version, StatusCode),
        reason: Option<&str>,
        cased: bool,
    ) -> Self {
        let own = reason.filter(|_| reason != status.canonical_reason());
        Self {
            fields: RawFields::default(),
            status,
            version,
            reason: own.map(|reason| Part::of(head, reason.as_bytes())),
            cased,
        }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn fields_mut(&mut self) -> &mut RawFields {
        &mut self.fields
    }

    pub(super) fn reason(&self) -> &str {
        match self.reason {
            // It was text when it was read.
            Some(part) => std::str::from_utf8(part.slice(&self.fields.bytes)).unwrap_or_default(),
            None => self.status.canonical_reason().unwrap_or_default(),
        }
    }
}

impl Raw for RawResponse {
    type Whole = ResponseHeader;

    fn fields(&self) -> &RawFields {
        &self.fields
    }

    fn to_whole(&self) -> ResponseHeader {
        let room = Some(self.fields.count() + ADDED_FIELDS);
        let whole = match self.cased {
            true => ResponseHeader::build(self.status, room),
            false => ResponseHeader::build_no_case(self.status, room),
        };
        // A status is never refused.
        let Ok(mut whole) = whole else {
            return http::Response::new(()).into_parts().0.into();
        };
        whole.set_version(self.version);
        if self.reason.is_some() {
            // Text is never refused.
            let _ = whole.set_reason_phrase(Some(self.reason()));
        }
        self.fields
            .each_shared(|name, value| whole.append_header(name, value));
        whole
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::runtime::head::{Head, RequestHead, ResponseHead};

    const REQUEST: &[u8] =
        b"PUT /a/%7e?b=%20 HTTP/1.1\r\nHost: Here\r\nx-A:  one \r\nAccept: */*\r\n\
        X-a: two\r\nX-Empty:\r\n\r\n";
    const RESPONSE: &[u8] = b"HTTP/1.0 404 No such thing\r\nServer: there\r\nsET-cookie: a=1\r\n\
        Content-Length: 3\r\nSet-Cookie: b=\xff\r\n\r\n";

    fn request(head: &'static [u8]) -> RawRequest {
        let mut room = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut room);
        parsed.parse(head).unwrap();
        let method = parsed.method.unwrap().parse().unwrap();
        let mut raw = RawRequest::begin(head, method, parsed.path.unwrap());
        for field in &*parsed.headers {
            raw.note(head, field.name.as_bytes(), field.value);
        }
        raw.hold(Bytes::from_static(head));
        raw
    }

    fn response(cased: bool) -> RawResponse {
        let mut room = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut room);
        parsed.parse(RESPONSE).unwrap();
        let status = StatusCode::from_u16(parsed.code.unwrap()).unwrap();
        let line = (Version::HTTP_10, status);
        let mut raw = RawResponse::begin(RESPONSE, line, parsed.reason, cased);
        for field in &*parsed.headers {
            let fields = raw.fields_mut();
            fields.note(RESPONSE, field.name.as_bytes(), field.value);
        }
        raw.fields_mut().hold(Bytes::from_static(RESPONSE));
        raw
    }

    fn written<R: Raw>(head: &Head<R>) -> Vec<String> {
        let mut fields = Vec::new();
        head.each(|name, value| {
            let field = [name, b":", value].concat();
            fields.push(String::from_utf8_lossy(&field).into_owned());
        });
        fields
    }

    #[test]
    fn says_the_same_in_every_form() {
        let mut head = RequestHead::raw(request(REQUEST));
        let names = ["host", "x-a", "accept", "x-empty", "x-b", "te"];
        for changed in [false, true] {
            let fields = head.fields();
            assert_eq!(
                matches!(fields, crate::runtime::head::Fields::Map(_)),
                changed
            );
            assert_eq!(head.method(), Method::PUT);
            assert_eq!(head.version(), Version::HTTP_11);
            assert_eq!(head.raw_path(), b"/a/%7e?b=%20");
            let values = names.map(|name| fields.named(name).collect::<Vec<_>>());
            let expected: [&[&[u8]]; 6] =
                [&[b"Here"], &[b"one", b"two"], &[b"*/*"], &[b""], &[], &[]];
            assert_eq!(values, expected);
            for (name, values) in names.into_iter().zip(expected) {
                let name = HeaderName::from_static(name);
                assert_eq!(fields.get(&name), values.first().copied());
                assert_eq!(fields.contains(&name), !values.is_empty());
            }
            assert_eq!(fields.count(), 5);
            assert_eq!(fields.to_map(), head.headers);
            assert!(fields.are(&head.headers));
            // Looked at, it is what it was; from here on it is changed.
            head.set_method(Method::PUT);
        }
        head.insert_header("X-A", "three").unwrap();
        assert_eq!(head.fields().named("x-a").count(), 1);
        assert!(written(&head).contains(&"X-A:three".to_owned()));
    }

    #[test]
    fn other_fields_may_stand_instead() {
        let mut head = RequestHead::raw(request(REQUEST));
        for _ in 0..2 {
            let mut map = HeaderMap::new();
            map.insert("host", HeaderValue::from_static("there"));
            map.insert("x-c", HeaderValue::from_static("d"));
            head.replace_fields(map.clone());
            assert!(head.fields().are(&map));
            assert_eq!(head.host(), Some(b"there".as_slice()));
            assert_eq!(written(&head), ["host:there", "x-c:d"]);
            assert_eq!((&head.headers, &head.method), (&map, &Method::PUT));
            assert_eq!(head.raw_path(), b"/a/%7e?b=%20");
            assert_eq!(head.uri, "/a/%7e?b=%20");
            // Once more, of a head in Pingora's type.
            head.set_method(Method::PUT);
        }
    }

    #[test]
    fn names_are_written_as_they_came() {
        let raw = ["Host:Here", "x-A:one", "Accept:*/*", "X-a:two", "X-Empty:"];
        let mut head = RequestHead::raw(request(REQUEST));
        assert_eq!(written(&head), raw);
        head.set_method(Method::GET);
        let grouped = ["Host:Here", "x-A:one", "X-a:two", "Accept:*/*", "X-Empty:"];
        assert_eq!(written(&head), grouped);
    }

    #[test]
    fn a_response_keeps_its_line() {
        for cased in [true, false] {
            let mut head = ResponseHead::raw(response(cased));
            for _ in 0..2 {
                assert_eq!(head.status(), StatusCode::NOT_FOUND);
                assert_eq!(head.version(), Version::HTTP_10);
                assert_eq!(head.reason(), "No such thing");
                let cookies: Vec<_> = head.fields().named("set-cookie").collect();
                assert_eq!(cookies, [b"a=1".as_slice(), b"b=\xff"]);
                head.remove_header("server");
            }
            let name = if cased { "sET-cookie" } else { "set-cookie" };
            assert!(written(&head).contains(&format!("{name}:a=1")));
            assert_eq!(head.get_reason_phrase(), Some("No such thing"));
        }
    }

    #[test]
    fn fields_are_forgotten_and_compared() {
        let mut raw = response(true);
        let mut map = raw.fields().to_map();
        assert!(raw.fields().are(&map));
        let cookies: Vec<_> = map.get_all("set-cookie").iter().rev().cloned().collect();
        map.remove("set-cookie");
        assert!(!raw.fields().are(&map));
        for cookie in cookies {
            map.append("set-cookie", cookie);
        }
        // The order of a name's values counts.
        assert!(!raw.fields().are(&map));
        map.remove("set-cookie");
        raw.fields_mut().remove("set-cookie");
        assert!(raw.fields().are(&map));
        map.insert("server", HeaderValue::from_static("elsewhere"));
        assert!(!raw.fields().are(&map));
    }

    #[test]
    fn targets_that_may_be_read_in_two_ways_are_not_plain() {
        for (target, plain) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], true),
            (b"GET /a-._~%20!$&'()*+,;=:@/?a/? HTTP/1.1\r\n\r\n", true),
            (b"GET /a#b HTTP/1.1\r\n\r\n", false),
            (b"GET /a|b HTTP/1.1\r\n\r\n", false),
            (b"GET /[a] HTTP/1.1\r\n\r\n", false),
            ("GET /\u{e4} HTTP/1.1\r\n\r\n".as_bytes(), false),
        ] {
            let raw = request(target);
            assert_eq!(raw.is_plain(), plain, "{}", String::from_utf8_lossy(target));
            if plain {
                assert_eq!(raw.read().unwrap().raw_path(), raw.target());
            }
        }
    }
}
