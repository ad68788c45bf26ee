//! The fields of a head, whatever its form.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::runtime::head::raw::RawFields;
use crate::runtime::head::whole::in_lower_case;

/// Fields to be asked by name. Values are bytes: what may stand in them was seen to when they were read.
#[derive(Debug, Clone, Copy)]
pub enum Fields<'a> {
    Raw(&'a RawFields),
    Map(&'a HeaderMap),
}

impl<'a> Fields<'a> {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Raw(raw) => raw.count(),
            Self::Map(map) => map.len(),
        }
    }

    /// The first value under a name.
    pub fn get(self, name: &HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Raw(raw) => raw.first(name.as_str()),
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// Is there a field of this name?
    pub fn contains(self, name: &HeaderName) -> bool {
        match self {
            Self::Raw(raw) => raw.first(name.as_str()).is_some(),
            Self::Map(map) => map.contains_key(name),
        }
    }

    /// All values under a name, which is in lower case, in the order in which they came.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let (raw, map) = match self {
            Self::Raw(raw) => (Some(raw.named(name)), None),
            Self::Map(map) => (None, Some(map.get_all(name))),
        };
        let of_map = map.into_iter().flatten().map(HeaderValue::as_bytes);
        raw.into_iter().flatten().chain(of_map)
    }

    /// The fields as a map of their own.
    pub fn to_map(self) -> HeaderMap {
        match self {
            Self::Raw(raw) => raw.to_map(),
            Self::Map(map) => map.clone(),
        }
    }

    /// Are they those of the map?
    pub fn are(self, map: &HeaderMap) -> bool {
        match self {
            Self::Raw(raw) => raw.are(map),
            Self::Map(own) => own == map,
        }
    }

    /// Every name with its value. Names come in any case.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let (raw, map) = match self {
            Self::Raw(raw) => (Some(raw.iter()), None),
            Self::Map(map) => (None, Some(in_lower_case(map))),
        };
        raw.into_iter().flatten().chain(map.into_iter().flatten())
    }
}

impl<'a> From<&'a HeaderMap> for Fields<'a> {
    fn from(map: &'a HeaderMap) -> Self {
        Self::Map(map)
    }
}

/// A value as text, if it is visible ASCII, as [`HeaderValue::to_str`] has it.
pub fn visible(value: &[u8]) -> Option<&str> {
    match is_visible(value) {
        true => std::str::from_utf8(value).ok(),
        false => None,
    }
}

pub(super) fn is_visible(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}
