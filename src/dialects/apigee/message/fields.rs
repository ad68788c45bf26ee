//! Header fields with Apigee's idea of their values.
//!
//! Owns the comma rule: a field with commas holds several values, unless commas belong to its syntax. Refuses to know
//! which fields the engine may send.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

/// Fields whose values hold commas that separate nothing.
const WHOLE: [HeaderName; 7] = [
    header::COOKIE,
    header::DATE,
    header::EXPIRES,
    header::IF_MODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::SET_COOKIE,
    header::USER_AGENT,
];

/// The values under a name: all lines in order, each split at its commas.
pub fn values<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
    let whole = WHOLE.contains(name);
    headers
        .get_all(name)
        .iter()
        .map(text)
        .flat_map(move |line| split(line, whole))
}

/// The first value under a name.
pub fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let line = text(headers.get(name)?);
    if WHOLE.contains(name) {
        return Some(line);
    }
    Some(match line {
        Cow::Borrowed(line) => Cow::Borrowed(line.split(',').next().unwrap_or_default().trim()),
        Cow::Owned(line) => {
            Cow::Owned(line.split(',').next().unwrap_or_default().trim().to_owned())
        }
    })
}

/// All values under a name as one text.
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut lines = headers.get_all(name).iter().map(text);
    let first = lines.next()?;
    Some(lines.fold(first, |mut all, line| {
        let all_text = all.to_mut();
        all_text.push(',');
        all_text.push_str(&line);
        all
    }))
}

/// Replaces the value with this number, from 1, or appends when there are fewer.
pub fn set_number(headers: &mut HeaderMap, name: &HeaderName, number: usize, value: &HeaderValue) {
    let mut list = values_owned(headers, name);
    match number.checked_sub(1).and_then(|index| list.get_mut(index)) {
        Some(slot) => *slot = value.clone(),
        None => list.push(value.clone()),
    }
    replace(headers, name, list);
}

/// Removes the value with this number, from 1. Tells whether there was one.
pub fn remove_number(headers: &mut HeaderMap, name: &HeaderName, number: usize) -> bool {
    let mut list = values_owned(headers, name);
    let Some(index) = number.checked_sub(1).filter(|index| *index < list.len()) else {
        return false;
    };
    list.remove(index);
    replace(headers, name, list);
    true
}

fn values_owned(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    values(headers, name)
        .filter_map(|value| {
            HeaderValue::from_str(&value)
                .or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
                .ok()
        })
        .collect()
}

fn replace(headers: &mut HeaderMap, name: &HeaderName, list: Vec<HeaderValue>) {
    headers.remove(name);
    for value in list {
        headers.append(name, value);
    }
}

fn split(line: Cow<'_, str>, whole: bool) -> impl Iterator<Item = Cow<'_, str>> {
    let mut pieces = Vec::new();
    match line {
        line if whole => pieces.push(line),
        Cow::Borrowed(line) => {
            pieces.extend(line.split(',').map(|piece| Cow::Borrowed(piece.trim())))
        }
        Cow::Owned(line) => pieces.extend(
            line.split(',')
                .map(|piece| Cow::Owned(piece.trim().to_owned())),
        ),
    }
    pieces.into_iter()
}

/// A field's value as text: UTF-8 where it is, else each byte as one character (RFC 9110, 5.5).
pub fn text(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.as_bytes().iter().map(|byte| *byte as char).collect()),
    }
}

/// A text as a field's value; `None` for line ends and other control characters.
pub fn value_of(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}
