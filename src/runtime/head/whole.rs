//! Heads in Pingora's types.

use http::{HeaderMap, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

/// A head in Pingora's type.
pub trait Whole {
    fn map(&self) -> &HeaderMap;

    /// Shows each field under its name as written, or in lower case where nobody kept that.
    fn each(&self, show: impl FnMut(&[u8], &[u8]));
}

impl Whole for RequestHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn each(&self, show: impl FnMut(&[u8], &[u8])) {
        match self.has_case() {
            true => {
                let fields = self.case_header_iter();
                each_of(fields.map(|(name, value)| (name.as_slice(), value)), show);
            }
            false => each_of(in_lower_case(&self.headers), show),
        }
    }
}

impl Whole for ResponseHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn each(&self, show: impl FnMut(&[u8], &[u8])) {
        match self.has_case() {
            true => {
                let fields = self.case_header_iter();
                each_of(fields.map(|(name, value)| (name.as_slice(), value)), show);
            }
            false => each_of(in_lower_case(&self.headers), show),
        }
    }
}

fn each_of<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a HeaderValue)>,
    mut show: impl FnMut(&[u8], &[u8]),
) {
    for (name, value) in fields {
        show(name, value.as_bytes());
    }
}

fn in_lower_case(fields: &HeaderMap) -> impl Iterator<Item = (&[u8], &HeaderValue)> {
    let fields = fields.iter();
    fields.map(|(name, value)| (name.as_str().as_bytes(), value))
}
