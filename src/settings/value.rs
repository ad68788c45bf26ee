//! How the text of a value becomes a typed value, and back into JSON.
//!
//! Owns the types that several groups share: switches, counts, sizes, spans of time, paths, lists. A type that belongs to
//! one key lives in that key's group.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

/// A value as it was written, before its key says what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// One value; for a list key its members are separated by commas.
    Text(String),
    /// A TOML array.
    List(Vec<String>),
}

impl Raw {
    /// The single value.
    ///
    /// Errors: when a list was written, or when the text is empty.
    pub fn one(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) if text.trim().is_empty() => Err("must not be empty".to_owned()),
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) => Err("takes one value, not a list".to_owned()),
        }
    }

    /// The members of a list, trimmed, empty ones left out.
    pub fn many(&self) -> Vec<&str> {
        let trimmed = |text: &'_ str| !text.trim().is_empty();
        match self {
            Self::Text(text) => text
                .split(',')
                .filter(|part| trimmed(part))
                .map(str::trim)
                .collect(),
            Self::List(parts) => parts
                .iter()
                .map(String::as_str)
                .filter(|part| trimmed(part))
                .map(str::trim)
                .collect(),
        }
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::List(parts) => parts.is_empty(),
        }
    }
}

/// A type that a key can have.
pub trait Value: Sized {
    /// Reads a value. The error says what is wrong with it; [`Value::allowed`] is added by the caller.
    fn parse(raw: &Raw) -> Result<Self, String>;

    /// Which values are allowed, with their unit, to follow "allowed: ".
    fn allowed() -> String;

    /// The value as the Admin API shows it.
    fn json(&self) -> serde_json::Value;
}

impl Value for bool {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err(format!("'{text}' is not a switch")),
        }
    }

    fn allowed() -> String {
        "`on`, `off`, `true`, `false`".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        (*self).into()
    }
}

/// A whole number between two bounds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The number, as a size in memory. Never truncates: bounds are far below 32 bits or the platform has 64.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Value for Count<MIN, MAX> {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        match text.parse::<u64>() {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            Ok(_) => Err(format!("{text} is out of range")),
            Err(_) => Err(format!("'{text}' is not a whole number")),
        }
    }

    fn allowed() -> String {
        format!("a whole number between {MIN} and {MAX}")
    }

    fn json(&self) -> serde_json::Value {
        self.0.into()
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The limit in bytes, with 0 read as "no limit".
    pub fn limit(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

impl Value for ByteSize {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        let wrong = || format!("'{text}' is not a size");
        let (digits, factor) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (text.get(..text.len() - 1).unwrap_or_default(), 1 << 10),
            Some(b'm' | b'M') => (text.get(..text.len() - 1).unwrap_or_default(), 1 << 20),
            Some(b'g' | b'G') => (text.get(..text.len() - 1).unwrap_or_default(), 1 << 30),
            _ => (text, 1),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| format!("{text} is out of range"))
    }

    fn allowed() -> String {
        "a number of bytes, or with `k`, `m` or `g` of 1,024 bytes and its powers".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        const SUFFIXES: [(u64, &str); 3] = [(1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")];
        for (factor, suffix) in SUFFIXES {
            if self.0 > 0 && self.0.is_multiple_of(factor) {
                return format!("{}{suffix}", self.0 / factor).into();
            }
        }
        self.0.to_string().into()
    }
}

/// A span of time, written in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// The longest span that a key takes: a year. Keeps arithmetic on instants far from overflow.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

impl Value for Seconds {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        match text.parse::<f64>() {
            Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => {
                Duration::try_from_secs_f64(seconds)
                    .map(Self)
                    .map_err(|_| format!("{text} is out of range"))
            }
            Ok(_) => Err(format!("{text} is out of range")),
            Err(_) => Err(format!("'{text}' is not a number of seconds")),
        }
    }

    fn allowed() -> String {
        "a number of seconds, at most a year".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        if self.0.subsec_nanos() == 0 {
            self.0.as_secs().into()
        } else {
            self.0.as_secs_f64().into()
        }
    }
}

impl Value for String {
    fn parse(raw: &Raw) -> Result<Self, String> {
        match raw {
            // Not trimmed: a whole document may be the value.
            Raw::Text(text) if !text.trim().is_empty() => Ok(text.clone()),
            _ => raw.one().map(str::to_owned),
        }
    }

    fn allowed() -> String {
        "text".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        self.as_str().into()
    }
}

impl Value for PathBuf {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        if text.contains('\0') {
            return Err("a path cannot contain a zero byte".to_owned());
        }
        Ok(Self::from(text))
    }

    fn allowed() -> String {
        "a path".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        self.to_string_lossy().into_owned().into()
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(raw: &Raw) -> Result<Self, String> {
        if raw.is_empty() {
            Ok(None)
        } else {
            T::parse(raw).map(Some)
        }
    }

    fn allowed() -> String {
        format!("{}, or nothing", T::allowed())
    }

    fn json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, T::json)
    }
}

impl<T: Value> Value for Vec<T> {
    fn parse(raw: &Raw) -> Result<Self, String> {
        raw.many()
            .into_iter()
            .map(|part| T::parse(&Raw::Text(part.to_owned())))
            .collect()
    }

    fn allowed() -> String {
        format!("a list, each member {}", T::allowed())
    }

    fn json(&self) -> serde_json::Value {
        json!(self.iter().map(T::json).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn sizes_keep_their_form() {
        for (written, bytes, shown) in [
            ("0", 0, "0"),
            ("8k", 8_192, "8k"),
            ("10M", 10 << 20, "10m"),
            ("1500", 1500, "1500"),
        ] {
            let size = ByteSize::parse(&text(written)).unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.json(), shown);
        }
        for wrong in ["", "k", "8 k", "-1", "8kb", "99999999999999g", "ü"] {
            assert!(ByteSize::parse(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn switches_counts_and_times() {
        assert_eq!(bool::parse(&text("ON")), Ok(true));
        assert_eq!(bool::parse(&text("false")), Ok(false));
        assert!(bool::parse(&text("yes")).is_err());
        assert_eq!(Count::<1, 1000>::parse(&text("1000")).unwrap().0, 1000);
        assert!(Count::<1, 1000>::parse(&text("0")).is_err());
        assert!(Count::<1, 1000>::parse(&text("1.5")).is_err());
        assert_eq!(
            Seconds::parse(&text("0.5")).unwrap().0,
            Duration::from_millis(500)
        );
        for wrong in ["-1", "NaN", "inf", "1e300", "60s"] {
            assert!(Seconds::parse(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_come_from_arrays_and_from_commas() {
        assert_eq!(text(" a, b ,,").many(), ["a", "b"]);
        assert_eq!(Raw::List(vec!["a".into(), " b".into()]).many(), ["a", "b"]);
        assert_eq!(Option::<PathBuf>::parse(&text("")).unwrap(), None);
        assert!(PathBuf::parse(&Raw::List(vec!["a".into()])).is_err());
    }
}
