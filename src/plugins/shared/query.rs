//! Query strings: looking arguments up, editing some and leaving the rest as the client wrote it.

use std::borrow::Cow;

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Argument<'a> {
    Absent,
    /// Present without `=`.
    Valueless,
    One(Cow<'a, [u8]>),
    /// Given more than once.
    Several,
}

/// The arguments in order, undecoded: name, and value when there is a `=`. Empty pieces are skipped.
pub(crate) fn pieces(query: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    query
        .split(|byte| *byte == b'&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| match memchr::memchr(b'=', piece) {
            Some(at) => (
                piece.get(..at).unwrap_or_default(),
                Some(piece.get(at + 1..).unwrap_or_default()),
            ),
            None => (piece, None),
        })
}

/// Looks at the first `arguments_max` arguments for one of this name.
pub(crate) fn find<'a>(query: &'a [u8], name: &[u8], arguments_max: usize) -> Argument<'a> {
    let mut found = Argument::Absent;
    for (key, value) in pieces(query).take(arguments_max) {
        if *decode(key) != *name {
            continue;
        }
        found = match (found, value) {
            (Argument::Absent, None) => Argument::Valueless,
            (Argument::Absent, Some(value)) => Argument::One(decode(value)),
            _ => return Argument::Several,
        };
    }
    found
}

/// The query without the arguments of this name; the others keep their spelling.
pub(crate) fn without(query: &[u8], name: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(query.len());
    for piece in query.split(|byte| *byte == b'&') {
        let key = match memchr::memchr(b'=', piece) {
            Some(at) => piece.get(..at).unwrap_or_default(),
            None => piece,
        };
        if !piece.is_empty() && *decode(key) == *name {
            continue;
        }
        if !kept.is_empty() {
            kept.push(b'&');
        }
        kept.extend_from_slice(piece);
    }
    kept
}

/// Undoes percent-encoding and `+`; borrows when there is none.
pub(crate) fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => plain.push(b' '),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    plain.push(high << 4 | low);
                    rest = after;
                }
                _ => plain.push(b'%'),
            },
            (byte, _) => plain.push(*byte),
        }
    }
    Cow::Owned(plain)
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
pub(crate) fn encode(text: &[u8], into: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            into.push(*byte);
        } else {
            into.push(b'%');
            for half in [byte >> 4, byte & 15] {
                into.push(DIGITS.get(usize::from(half)).copied().unwrap_or(b'0'));
            }
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// An ordered list of names and values with the edits that transformations need. Values are decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Arguments(pub(crate) Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Arguments {
    /// Reads the first `arguments_max` arguments.
    pub(crate) fn parse(query: &[u8], arguments_max: usize) -> Self {
        let list = pieces(query)
            .take(arguments_max)
            .map(|(name, value)| {
                (
                    decode(name).into_owned(),
                    value.map(|value| decode(value).into_owned()),
                )
            })
            .collect();
        Self(list)
    }

    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.0.retain(|(other, _)| other != name);
    }

    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) {
        if !self.has(from) || from == to {
            return;
        }
        self.remove(to);
        for (name, _) in &mut self.0 {
            if name == from {
                *name = to.to_vec();
            }
        }
    }

    /// Leaves one argument of this name, where the first one stood, or at the end.
    pub(crate) fn set(&mut self, name: &[u8], value: Vec<u8>) {
        let mut value = Some(value);
        self.0.retain_mut(|(other, slot)| {
            if other != name {
                return true;
            }
            match value.take() {
                Some(value) => {
                    *slot = Some(value);
                    true
                }
                None => false,
            }
        });
        if let Some(value) = value {
            self.append(name, value);
        }
    }

    pub(crate) fn append(&mut self, name: &[u8], value: Vec<u8>) {
        self.0.push((name.to_vec(), Some(value)));
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (name, value) in &self.0 {
            if !text.is_empty() {
                text.push(b'&');
            }
            encode(name, &mut text);
            if let Some(value) = value {
                text.push(b'=');
                encode(value, &mut text);
            }
        }
        text
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

    #[test]
    fn finds_and_removes() {
        let query = b"a=1&key=x%20y&b&&key2=+";
        assert_eq!(find(query, b"key", 100), Argument::One(b"x y".into()));
        assert_eq!(find(query, b"key2", 100), Argument::One(b" ".into()));
        assert_eq!(find(query, b"b", 100), Argument::Valueless);
        assert_eq!(find(query, b"c", 100), Argument::Absent);
        assert_eq!(find(query, b"key", 1), Argument::Absent);
        assert_eq!(find(b"k=1&k=2", b"k", 100), Argument::Several);
        assert_eq!(without(query, b"key"), b"a=1&b&&key2=+");
        assert_eq!(without(b"key=1", b"key"), b"");
    }

    #[test]
    fn decodes_broken_triplets_as_text() {
        for (text, plain) in [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%41%", "A%")] {
            assert_eq!(decode(text.as_bytes()), plain.as_bytes());
        }
    }

    #[test]
    fn edits() {
        let mut arguments = Arguments::parse(b"a=1&b=2&a=3&c", 3);
        arguments.set(b"a", b"x y".to_vec());
        arguments.rename(b"b", b"d");
        arguments.append(b"e", b"&".to_vec());
        assert_eq!(arguments.write(), b"a=x%20y&d=2&e=%26");
    }
}
