//! Heads in Pingora's types.

use http::HeaderMap;
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
        let cased = self.case_header_iter();
        let cased = cased.map(|(name, value)| (name.as_slice(), value.as_bytes()));
        each(self.has_case().then_some(cased), &self.headers, show);
    }
}

impl Whole for ResponseHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn each(&self, show: impl FnMut(&[u8], &[u8])) {
        let cased = self.case_header_iter();
        let cased = cased.map(|(name, value)| (name.as_slice(), value.as_bytes()));
        each(self.has_case().then_some(cased), &self.headers, show);
    }
}

/// `cased`: the fields under their names as written, where somebody kept those.
fn each<'a>(
    cased: Option<impl Iterator<Item = (&'a [u8], &'a [u8])>>,
    fields: &HeaderMap,
    mut show: impl FnMut(&[u8], &[u8]),
) {
    match cased {
        Some(cased) => cased.for_each(|(name, value)| show(name, value)),
        None => in_lower_case(fields).for_each(|(name, value)| show(name, value)),
    }
}

/// The fields of a map, which keeps names in lower case.
pub(super) fn in_lower_case(fields: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let fields = fields.iter();
    fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}
