//! What can be asked of a message, by name.
//!
//! Owns the spelling of `header.NAME.N` and its kin. Refuses to know values.

use std::fmt;

use http::header::HeaderName;

/// A property of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Property {
    /// `content`
    Content,
    /// `content.as.base64`
    ContentAsBase64,
    /// `content.as.url.safe.base64`
    ContentAsUrlSafeBase64,
    /// `header.NAME…`
    Header(HeaderName, Part),
    /// `header.NAME…` with a name that no header can have: always unset, never writable.
    ImpossibleHeader(Box<str>),
    /// `headers.…`
    Headers(Set),
    /// `queryparam.NAME…`
    QueryParameter(Box<str>, Part),
    /// `queryparams.…`
    QueryParameters(Set),
    /// `querystring`
    QueryString,
    /// `formparam.NAME…`
    FormParameter(Box<str>, Part),
    /// `formparams.…`
    FormParameters(Set),
    /// `formstring`
    FormString,
    /// `verb`
    Verb,
    /// `path`
    Path,
    /// `uri`
    Uri,
    /// `version`
    Version,
    /// `status.code`
    StatusCode,
    /// `reason.phrase`
    ReasonPhrase,
}

/// What is asked of the values under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The first.
    First,
    /// The one with this number, from 1.
    Number(usize),
    /// All, as a collection.
    Values,
    /// How many.
    Count,
    /// All, joined with commas: the whole of a header.
    Joined,
}

/// What is asked of all names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Set {
    /// How many there are.
    Count,
    /// The names, as a collection.
    Names,
    /// The names, joined with commas.
    NamesJoined,
}

impl Property {
    /// The property that the text after a message's name and a dot asks for.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((family, rest)) = text.split_once('.') {
            match family {
                "header" => return named(rest).map(|(name, part)| Self::header(name, part)),
                "queryparam" => {
                    return named(rest).map(|(name, part)| Self::QueryParameter(name.into(), part));
                }
                "formparam" => {
                    return named(rest).map(|(name, part)| Self::FormParameter(name.into(), part));
                }
                "headers" => return set(rest).map(Self::Headers),
                "queryparams" => return set(rest).map(Self::QueryParameters),
                "formparams" => return set(rest).map(Self::FormParameters),
                _ => {}
            }
        }
        Some(match text {
            "content" => Self::Content,
            "content.as.base64" => Self::ContentAsBase64,
            "content.as.url.safe.base64" => Self::ContentAsUrlSafeBase64,
            "querystring" => Self::QueryString,
            "formstring" => Self::FormString,
            "verb" => Self::Verb,
            "path" => Self::Path,
            "uri" => Self::Uri,
            "version" => Self::Version,
            "status.code" => Self::StatusCode,
            "reason.phrase" => Self::ReasonPhrase,
            _ => return None,
        })
    }

    /// A part of the header with this name, in any case.
    pub fn header(name: &str, part: Part) -> Self {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => Self::Header(name, part),
            Err(_) => Self::ImpossibleHeader(name.into()),
        }
    }

    /// Whether reading or writing it touches the body.
    pub fn touches_content(&self) -> bool {
        matches!(
            self,
            Self::Content
                | Self::ContentAsBase64
                | Self::ContentAsUrlSafeBase64
                | Self::FormParameter(..)
                | Self::FormParameters(_)
                | Self::FormString
        )
    }
}

/// A name and what is asked of its values: `x`, `x.2`, `x.values`, `x.values.count`, `x.values.string`.
pub(super) fn named(text: &str) -> Option<(&str, Part)> {
    let (name, part) = if let Some(name) = text.strip_suffix(".values.count") {
        (name, Part::Count)
    } else if let Some(name) = text.strip_suffix(".values.string") {
        (name, Part::Joined)
    } else if let Some(name) = text.strip_suffix(".values") {
        (name, Part::Values)
    } else {
        match text.rsplit_once('.') {
            Some((name, number))
                if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                // Numbers beyond any list name nothing, like 0.
                (name, Part::Number(number.parse().unwrap_or(0)))
            }
            _ => (text, Part::First),
        }
    };
    (!name.is_empty()).then_some((name, part))
}

fn set(text: &str) -> Option<Set> {
    match text {
        "count" => Some(Set::Count),
        "names" => Some(Set::Names),
        "names.string" => Some(Set::NamesJoined),
        _ => None,
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => Ok(()),
            Self::Number(number) => write!(f, ".{number}"),
            Self::Values => f.write_str(".values"),
            Self::Count => f.write_str(".values.count"),
            Self::Joined => f.write_str(".values.string"),
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Names => "names",
            Self::NamesJoined => "names.string",
        })
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content => f.write_str("content"),
            Self::ContentAsBase64 => f.write_str("content.as.base64"),
            Self::ContentAsUrlSafeBase64 => f.write_str("content.as.url.safe.base64"),
            Self::Header(name, part) => write!(f, "header.{name}{part}"),
            Self::ImpossibleHeader(name) => write!(f, "header.{name}"),
            Self::Headers(set) => write!(f, "headers.{set}"),
            Self::QueryParameter(name, part) => write!(f, "queryparam.{name}{part}"),
            Self::QueryParameters(set) => write!(f, "queryparams.{set}"),
            Self::QueryString => f.write_str("querystring"),
            Self::FormParameter(name, part) => write!(f, "formparam.{name}{part}"),
            Self::FormParameters(set) => write!(f, "formparams.{set}"),
            Self::FormString => f.write_str("formstring"),
            Self::Verb => f.write_str("verb"),
            Self::Path => f.write_str("path"),
            Self::Uri => f.write_str("uri"),
            Self::Version => f.write_str("version"),
            Self::StatusCode => f.write_str("status.code"),
            Self::ReasonPhrase => f.write_str("reason.phrase"),
        }
    }
}
