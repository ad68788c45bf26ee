//! Query and form parameters over their raw text.
//!
//! Owns reading without copying and editing that leaves every other byte as it was: a parameter that nobody touched goes
//! on exactly as the client wrote it. Refuses to know where the text is kept.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What is written as it is; everything else of a name or value is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One parameter as written.
#[derive(Clone, Copy, Debug)]
struct Written<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'a> Written<'a> {
    fn of(piece: &'a str) -> Self {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        Self { name, value }
    }

    fn is_named(self, name: &str) -> bool {
        // Most names need no decoding.
        if self.name.contains(['%', '+']) {
            decoded(self.name) == name
        } else {
            self.name == name
        }
    }
}

/// The parameters of a raw text such as `a=1&b=%20`.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a>(pub &'a str);

impl<'a> Parameters<'a> {
    fn pieces(self) -> impl Iterator<Item = Written<'a>> {
        self.0
            .split('&')
            .filter(|piece| !piece.is_empty())
            .map(Written::of)
    }

    /// Names and values, decoded, in order.
    pub fn iter(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        self.pieces()
            .map(|piece| (decoded(piece.name), decoded(piece.value)))
    }

    /// The values under a name, decoded, in order.
    pub fn values(self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        self.pieces()
            .filter(move |piece| piece.is_named(name))
            .map(|piece| decoded(piece.value))
    }

    /// The distinct names, decoded, in order of their first use.
    pub fn names(self) -> Vec<Cow<'a, str>> {
        let mut seen = std::collections::HashSet::new();
        self.pieces()
            .filter(|piece| seen.insert(decoded(piece.name)))
            .map(|piece| decoded(piece.name))
            .collect()
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.pieces().count()
    }
}

/// Appends a parameter.
pub fn add(raw: &mut String, name: &str, value: &str) {
    if !raw.is_empty() && !raw.ends_with('&') {
        raw.push('&');
    }
    raw.push_str(&encoded(name, value));
}

/// Makes `value` the only value under `name`, where the first one stood or at the end.
pub fn set(raw: &mut String, name: &str, value: &str) {
    edit(raw, name, |number| match number {
        1 => Edit::Replace(encoded(name, value)),
        _ => Edit::Remove,
    });
    if Parameters(raw).values(name).next().is_none() {
        add(raw, name, value);
    }
}

/// Replaces the value with this number, from 1; appends when there are fewer.
pub fn set_number(raw: &mut String, name: &str, wanted: usize, value: &str) {
    let mut found = false;
    edit(raw, name, |number| {
        if number != wanted {
            return Edit::Keep;
        }
        found = true;
        Edit::Replace(encoded(name, value))
    });
    if !found {
        add(raw, name, value);
    }
}

/// Removes all values under `name`, or the one with the number. Tells whether anything was removed.
pub fn remove(raw: &mut String, name: &str, wanted: Option<usize>) -> bool {
    let before = raw.len();
    edit(raw, name, |number| match wanted {
        Some(wanted) if wanted != number => Edit::Keep,
        _ => Edit::Remove,
    });
    raw.len() != before
}

enum Edit {
    Keep,
    Replace(String),
    Remove,
}

/// Goes through the parameters of a name, counted from 1, and leaves everything else byte for byte.
fn edit(raw: &mut String, name: &str, mut decide: impl FnMut(usize) -> Edit) {
    let mut number = 0;
    let mut changed = false;
    let mut pieces: Vec<Cow<'_, str>> = Vec::new();
    for piece in raw.split('&') {
        if piece.is_empty() || !Written::of(piece).is_named(name) {
            pieces.push(Cow::Borrowed(piece));
            continue;
        }
        number += 1;
        match decide(number) {
            Edit::Keep => pieces.push(Cow::Borrowed(piece)),
            Edit::Replace(text) => {
                changed = true;
                pieces.push(Cow::Owned(text));
            }
            Edit::Remove => changed = true,
        }
    }
    if changed {
        *raw = pieces.join("&");
    }
}

fn encoded(name: &str, value: &str) -> String {
    format!(
        "{}={}",
        utf8_percent_encode(name, ENCODED),
        utf8_percent_encode(value, ENCODED)
    )
}

/// A name or value with `+` and percent-encoding undone; bytes that are not UTF-8 become replacement characters.
pub fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&text).decode_utf8_lossy().into_owned())
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
    fn reads_decoded() {
        let parameters = Parameters("a=1&b=x%20y+z&&a=2&c&%61=3&d=%zz");
        let of = |name| parameters.values(name).collect::<Vec<_>>();
        assert_eq!(of("a"), ["1", "2", "3"]);
        assert_eq!(of("b"), ["x y z"]);
        assert_eq!(of("c"), [""]);
        assert_eq!(of("d"), ["%zz"]);
        assert!(of("e").is_empty());
        assert_eq!(parameters.names(), ["a", "b", "c", "d"]);
        assert_eq!(parameters.count(), 6);
    }

    #[test]
    fn edits_leave_the_rest_alone() {
        let raw = "x=%7e&a=1&y=+&a=2&";
        type Change<'a> = &'a dyn Fn(&mut String);
        let cases: [(Change<'_>, &str); 8] = [
            (&|raw| set(raw, "a", "ö&"), "x=%7e&a=%C3%B6%26&y=+&"),
            (&|raw| set(raw, "n", "v"), "x=%7e&a=1&y=+&a=2&n=v"),
            (&|raw| add(raw, "a", "3"), "x=%7e&a=1&y=+&a=2&a=3"),
            (&|raw| set_number(raw, "a", 2, "z"), "x=%7e&a=1&y=+&a=z&"),
            (&|raw| set_number(raw, "a", 9, "z"), "x=%7e&a=1&y=+&a=2&a=z"),
            (&|raw| assert!(remove(raw, "a", None)), "x=%7e&y=+&"),
            (&|raw| assert!(remove(raw, "a", Some(2))), "x=%7e&a=1&y=+&"),
            (&|raw| assert!(!remove(raw, "q", None)), raw),
        ];
        for (edit, expected) in cases {
            let mut text = raw.to_owned();
            edit(&mut text);
            assert_eq!(text, expected);
        }
        let mut empty = String::new();
        set(&mut empty, "a", "1");
        assert_eq!(empty, "a=1");
        assert!(remove(&mut empty, "a", None));
        assert_eq!(empty, "");
    }
}
