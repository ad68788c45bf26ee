//! Heads of requests and responses, kept as they came until somebody looks closer.
//!
//! Most heads are passed on without anybody asking for more than a field or two. Such a head is one piece of memory and
//! the places of its fields in it. Whoever wants a map of fields gets one all the same: a head becomes Pingora's own type
//! when it is first treated as one, and stays that once it is changed.

mod fields;
mod raw;
mod whole;

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::runtime::head::fields::is_visible;
pub use crate::runtime::head::fields::{Fields, visible};
pub use crate::runtime::head::raw::{Raw, RawFields, RawRequest, RawResponse};
pub use crate::runtime::head::whole::Whole;

/// A request's head. Dereferences to Pingora's type at the price of a map; see [`Head::fields`].
pub type RequestHead = Head<RawRequest>;
/// A response's head, in the same way.
pub type ResponseHead = Head<RawResponse>;

/// A head in one of its forms.
#[derive(Debug)]
pub struct Head<R: Raw> {
    /// As it came; empty if it did not come in this form. In a place of its own, because heads are handed on often.
    raw: Box<R>,
    /// What was made of `raw` for somebody who looked.
    seen: OnceLock<Box<R::Whole>>,
    /// What stands instead of `raw`.
    changed: Option<Box<R::Whole>>,
}

impl<R: Raw> Head<R> {
    /// A head as it came.
    pub fn raw(raw: R) -> Self {
        Self {
            raw: Box::new(raw),
            seen: OnceLock::new(),
            changed: None,
        }
    }

    /// Its fields, at no price whatever its form.
    pub fn fields(&self) -> Fields<'_> {
        match &self.changed {
            Some(whole) => Fields::Map(whole.map()),
            None => Fields::Raw(self.raw.fields()),
        }
    }

    /// Is it still as it came, and nobody has looked closer?
    #[cfg(test)]
    pub(crate) fn is_raw(&self) -> bool {
        self.changed.is_none() && self.seen.get().is_none()
    }

    /// The head in Pingora's type.
    pub fn into_whole(self) -> Box<R::Whole> {
        let there = self.changed.or_else(|| self.seen.into_inner());
        there.unwrap_or_else(|| Box::new(self.raw.to_whole()))
    }

    /// Shows each field under its name as written.
    pub fn each(&self, mut show: impl FnMut(&[u8], &[u8])) {
        match &self.changed {
            Some(whole) => whole.each(show),
            None => {
                let fields = self.raw.fields().iter();
                fields.for_each(|(name, value)| show(name, value));
            }
        }
    }
}

impl<R: Raw> Deref for Head<R> {
    type Target = R::Whole;

    fn deref(&self) -> &R::Whole {
        match &self.changed {
            Some(whole) => whole,
            None => self.seen.get_or_init(|| Box::new(self.raw.to_whole())),
        }
    }
}

impl<R: Raw> DerefMut for Head<R> {
    fn deref_mut(&mut self) -> &mut R::Whole {
        self.changed.get_or_insert_with(|| {
            let seen = self.seen.take();
            seen.unwrap_or_else(|| Box::new(self.raw.to_whole()))
        })
    }
}

impl RequestHead {
    /// A head as it came, or what Pingora makes of it if its target may be read in another way.
    ///
    /// # Errors
    /// Pingora does not take the target.
    pub fn read(raw: RawRequest) -> pingora_error::Result<Self> {
        let changed = match raw.is_plain() {
            true => None,
            false => Some(Box::new(raw.read()?)),
        };
        Ok(Self {
            changed,
            ..Self::raw(raw)
        })
    }

    /// All of it as it came, whatever it has become since; empty if it did not come over HTTP/1.1 in an ordinary way.
    pub fn as_it_came(&self) -> &Bytes {
        self.raw.fields().bytes()
    }

    /// Has these fields instead of its own, under names in lower case.
    pub fn replace_fields(&mut self, fields: HeaderMap) {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method().clone();
        parts.version = self.version();
        parts.headers = fields;
        match &self.changed {
            // Only a head in Pingora's type may name an authority.
            Some(old) => parts.uri = old.uri.clone(),
            None => {
                if let Ok(target) = PathAndQuery::from_maybe_shared(self.raw.shared_target()) {
                    parts.uri = target.into();
                }
            }
        }
        let mut head = RequestHeader::from(parts);
        // What is no URI is kept beside it. The target was taken before, and is again.
        if head.raw_path() != self.raw_path() {
            let _ = head.set_raw_path(self.raw_path());
        }
        self.seen.take();
        self.changed = Some(Box::new(head));
    }

    pub fn method(&self) -> &Method {
        match &self.changed {
            Some(whole) => &whole.method,
            None => &self.raw.method,
        }
    }

    pub fn version(&self) -> Version {
        match &self.changed {
            Some(whole) => whole.version,
            None => Version::HTTP_11,
        }
    }

    /// The host asked for: the Host field, or else the authority of a target in absolute form and the `:authority` of
    /// HTTP/2. One that is not visible ASCII is none.
    pub fn host(&self) -> Option<&[u8]> {
        match &self.changed {
            Some(whole) => {
                let named = whole.headers.get(HOST).map(HeaderValue::as_bytes);
                let named = named.filter(|host| is_visible(host));
                named.or_else(|| Some(whole.uri.authority()?.as_str().as_bytes()))
            }
            None => self.raw.host(),
        }
    }

    /// Path and query (without `?`) of a target that was read once and for all: it starts with a slash, and nobody reads its
    /// bytes in another way. Others have to be looked at.
    pub fn plain_target(&self) -> Option<(&[u8], Option<&[u8]>)> {
        match &self.changed {
            Some(_) => None,
            None => Some((self.raw.path(), self.raw.query())),
        }
    }

    /// The request target as sent.
    pub fn raw_path(&self) -> &[u8] {
        match &self.changed {
            Some(whole) => whole.raw_path(),
            None => self.raw.target(),
        }
    }
}

impl ResponseHead {
    pub fn status(&self) -> StatusCode {
        match &self.changed {
            Some(whole) => whole.status,
            None => self.raw.status,
        }
    }

    pub fn version(&self) -> Version {
        match &self.changed {
            Some(whole) => whole.version,
            None => self.raw.version(),
        }
    }

    /// What stands behind the status.
    pub fn reason(&self) -> &str {
        match &self.changed {
            Some(whole) => whole.get_reason_phrase().unwrap_or_default(),
            None => self.raw.reason(),
        }
    }
}

impl<R: Raw> From<Box<R::Whole>> for Head<R> {
    fn from(whole: Box<R::Whole>) -> Self {
        Self {
            raw: Box::default(),
            seen: OnceLock::new(),
            changed: Some(whole),
        }
    }
}

impl From<RequestHeader> for RequestHead {
    fn from(whole: RequestHeader) -> Self {
        Box::new(whole).into()
    }
}

impl From<ResponseHeader> for ResponseHead {
    fn from(whole: ResponseHeader) -> Self {
        Box::new(whole).into()
    }
}
