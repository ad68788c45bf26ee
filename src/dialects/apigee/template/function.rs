//! The functions of templates.
//!
//! Owns their names, numbers of arguments and results. What a literal argument settles (patterns) is settled when the
//! template is parsed.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::digest::Digest;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::parse::Argument;
use super::{Reference, RenderError, Unresolved, escape, missing, xeger};
use crate::dialects::apigee::date;
use crate::dialects::apigee::java_regex::JavaRegex;
use crate::dialects::apigee::json_path::{JsonPath, JsonPathError, result_text};
use crate::dialects::apigee::variables::{VariableName, Variables};
use crate::dialects::apigee::xml::{Document, Limits, is_name};
use crate::dialects::apigee::xpath::{Outcome, XPath};

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Digest(Hash, Encoding),
    Hmac(Hash),
    EncodeBase64,
    DecodeBase64,
    ToUpperCase,
    ToLowerCase,
    Substring,
    ReplaceAll,
    ReplaceFirst,
    EscapeJson,
    EscapeXml,
    EscapeXml11,
    EncodeHtml,
    EscapeHtml,
    /// Whether the time is in milliseconds rather than seconds.
    TimeFormat {
        millis: bool,
    },
    CreateUuid,
    RandomLong,
    Xeger,
    FirstNonNull,
    XPath,
    JsonPath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Hex,
    Base64,
}

/// Name, function, and the least and most arguments.
const FUNCTIONS: [(&str, Function, usize, usize); 37] = [
    ("md5Hex", Function::Digest(Hash::Md5, Encoding::Hex), 1, 1),
    ("sha1Hex", Function::Digest(Hash::Sha1, Encoding::Hex), 1, 1),
    (
        "sha256Hex",
        Function::Digest(Hash::Sha256, Encoding::Hex),
        1,
        1,
    ),
    (
        "sha384Hex",
        Function::Digest(Hash::Sha384, Encoding::Hex),
        1,
        1,
    ),
    (
        "sha512Hex",
        Function::Digest(Hash::Sha512, Encoding::Hex),
        1,
        1,
    ),
    (
        "md5Base64",
        Function::Digest(Hash::Md5, Encoding::Base64),
        1,
        1,
    ),
    (
        "sha1Base64",
        Function::Digest(Hash::Sha1, Encoding::Base64),
        1,
        1,
    ),
    (
        "sha256Base64",
        Function::Digest(Hash::Sha256, Encoding::Base64),
        1,
        1,
    ),
    (
        "sha384Base64",
        Function::Digest(Hash::Sha384, Encoding::Base64),
        1,
        1,
    ),
    (
        "sha512Base64",
        Function::Digest(Hash::Sha512, Encoding::Base64),
        1,
        1,
    ),
    ("hmacMd5", Function::Hmac(Hash::Md5), 2, 4),
    ("hmacSha1", Function::Hmac(Hash::Sha1), 2, 4),
    ("hmacSha224", Function::Hmac(Hash::Sha224), 2, 4),
    ("hmacSha256", Function::Hmac(Hash::Sha256), 2, 4),
    ("hmacSha384", Function::Hmac(Hash::Sha384), 2, 4),
    ("hmacSha512", Function::Hmac(Hash::Sha512), 2, 4),
    ("encodeBase64", Function::EncodeBase64, 1, 1),
    ("decodeBase64", Function::DecodeBase64, 1, 1),
    ("toUpperCase", Function::ToUpperCase, 1, 1),
    ("toLowerCase", Function::ToLowerCase, 1, 1),
    ("substring", Function::Substring, 2, 3),
    ("replaceAll", Function::ReplaceAll, 3, 3),
    ("replaceFirst", Function::ReplaceFirst, 3, 3),
    ("escapeJSON", Function::EscapeJson, 1, 1),
    ("escapeXML", Function::EscapeXml, 1, 1),
    ("escapeXML11", Function::EscapeXml11, 1, 1),
    ("encodeHTML", Function::EncodeHtml, 1, 1),
    ("escapeHTML", Function::EscapeHtml, 1, 1),
    ("timeFormat", Function::TimeFormat { millis: false }, 2, 2),
    ("timeFormatMs", Function::TimeFormat { millis: true }, 2, 2),
    (
        "timeFormatUTC",
        Function::TimeFormat { millis: false },
        2,
        2,
    ),
    (
        "timeFormatUTCMs",
        Function::TimeFormat { millis: true },
        2,
        2,
    ),
    ("createUuid", Function::CreateUuid, 0, 0),
    ("randomLong", Function::RandomLong, 0, 2),
    ("xeger", Function::Xeger, 1, 1),
    ("xpath", Function::XPath, 2, ARGUMENTS_MAX),
    ("jsonPath", Function::JsonPath, 2, 3),
];
/// The most arguments of a function without a limit of its own.
const ARGUMENTS_MAX: usize = 64;

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        if name == "firstnonnull" {
            return Some(Self::FirstNonNull);
        }
        FUNCTIONS
            .iter()
            .find(|(known, ..)| *known == name)
            .map(|(_, function, ..)| *function)
    }

    fn row(self) -> (&'static str, usize, usize) {
        let row = FUNCTIONS.iter().find(|(_, function, ..)| *function == self);
        row.map_or(
            ("firstnonnull", 1, ARGUMENTS_MAX),
            |(name, _, least, most)| (name, *least, *most),
        )
    }
}

/// A function with its arguments.
#[derive(Debug)]
pub(super) struct Call {
    function: Function,
    arguments: Vec<Argument>,
    /// The pattern or path, when it stands in the template.
    compiled: Option<Compiled>,
}

#[derive(Debug)]
enum Compiled {
    Regex(JavaRegex),
    XPath(XPath),
    JsonPath(JsonPath),
}

impl Call {
    pub(super) fn new(function: Function, arguments: Vec<Argument>) -> Result<Self, String> {
        let (name, least, most) = function.row();
        if arguments.len() < least || arguments.len() > most {
            let wanted = if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            };
            return Err(format!(
                "function '{name}' takes {wanted} arguments, not {}",
                arguments.len()
            ));
        }
        let literal = |number: usize| match arguments.get(number) {
            Some(Argument::Literal(text)) => Some(text.as_ref()),
            _ => None,
        };
        let compiled = match function {
            Function::ReplaceAll | Function::ReplaceFirst => {
                literal(1).map(|pattern| JavaRegex::anywhere(pattern).map(Compiled::Regex))
            }
            Function::XPath => {
                let namespaces: Vec<_> = (2..arguments.len())
                    .filter_map(literal)
                    .filter_map(namespace)
                    .collect();
                literal(0).map(|path| XPath::parse(path, &namespaces).map(Compiled::XPath))
            }
            Function::JsonPath => {
                literal(0).map(|path| JsonPath::parse(path).map(Compiled::JsonPath))
            }
            _ => None,
        };
        let compiled = compiled.transpose()?;
        Ok(Self {
            function,
            arguments,
            compiled,
        })
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = &VariableName> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Literal(_) => None,
            Argument::Reference(reference) => Some(&reference.name),
        })
    }

    pub(super) fn render<'t, V: Variables>(
        &'t self,
        variables: &'t V,
        unresolved: Unresolved,
    ) -> Result<Cow<'t, str>, RenderError> {
        let arguments = Arguments {
            call: self,
            variables,
            unresolved,
        };
        let text = |number| arguments.text(number);
        let result = match self.function {
            Function::Digest(hash, encoding) => {
                encoded(&digest(hash, text(0)?.as_bytes()), encoding)
            }
            Function::Hmac(hash) => arguments.hmac(hash)?,
            Function::EncodeBase64 => STANDARD.encode(text(0)?.as_bytes()),
            Function::DecodeBase64 => {
                let decoded = STANDARD.decode(text(0)?.trim()).unwrap_or_default();
                String::from_utf8_lossy(&decoded).into_owned()
            }
            Function::ToUpperCase => text(0)?.to_uppercase(),
            Function::ToLowerCase => text(0)?.to_lowercase(),
            Function::Substring => arguments.substring()?,
            Function::ReplaceAll => arguments.replace(usize::MAX)?,
            Function::ReplaceFirst => arguments.replace(1)?,
            Function::EscapeJson => escape::json(&text(0)?),
            Function::EscapeXml => escape::xml(&text(0)?, false),
            Function::EscapeXml11 => escape::xml(&text(0)?, true),
            Function::EncodeHtml => escape::html_markup(&text(0)?),
            Function::EscapeHtml => escape::html(&text(0)?),
            Function::TimeFormat { millis } => arguments.time(millis)?,
            Function::CreateUuid => {
                let bits = u128::from(variables.random()) << 64 | u128::from(variables.random());
                uuid::Builder::from_random_bytes(bits.to_be_bytes())
                    .into_uuid()
                    .to_string()
            }
            Function::RandomLong => arguments.random_long()?,
            Function::XPath => arguments.xpath()?,
            Function::JsonPath => arguments.json_path()?,
            Function::Xeger => {
                let pattern = text(0)?;
                xeger::generate(&pattern, &mut || variables.random())
                    .map_err(|reason| arguments.unfit(reason))?
            }
            Function::FirstNonNull => {
                let first = (0..self.arguments.len()).find_map(|number| arguments.optional(number));
                return Ok(first.unwrap_or(Cow::Borrowed("null")));
            }
        };
        Ok(Cow::Owned(result))
    }
}

/// The arguments of a call as of now.
struct Arguments<'t, V> {
    call: &'t Call,
    variables: &'t V,
    unresolved: Unresolved,
}

impl<'t, V: Variables> Arguments<'t, V> {
    /// The argument's text; `None` when it is absent or unset.
    fn optional(&self, number: usize) -> Option<Cow<'t, str>> {
        match self.call.arguments.get(number)? {
            Argument::Literal(text) => Some(Cow::Borrowed(text)),
            Argument::Reference(reference) => reference.resolve(self.variables),
        }
    }

    /// The argument's text; what an unset one gives is the caller's choice.
    fn text(&self, number: usize) -> Result<Cow<'t, str>, RenderError> {
        if let Some(text) = self.optional(number) {
            return Ok(text);
        }
        match self.call.arguments.get(number) {
            Some(Argument::Reference(reference)) => self.missing(reference),
            _ => Ok(Cow::Borrowed("")),
        }
    }

    fn missing(&self, reference: &Reference) -> Result<Cow<'t, str>, RenderError> {
        missing(reference, self.unresolved)
    }

    fn unfit(&self, reason: impl Into<String>) -> RenderError {
        RenderError::Argument {
            function: self.call.function.row().0,
            reason: reason.into(),
        }
    }

    fn number(&self, number: usize) -> Result<i64, RenderError> {
        let text = self.text(number)?;
        // An empty text comes from a variable that may be missing.
        if text.is_empty() {
            return Ok(0);
        }
        text.trim()
            .parse()
            .map_err(|_| self.unfit(format!("argument {} is not a whole number", number + 1)))
    }

    fn hmac(&self, hash: Hash) -> Result<String, RenderError> {
        let (key, text) = (self.text(0)?, self.text(1)?);
        let key_encoding = self.text(2)?;
        let key = match key_encoding.to_ascii_lowercase().as_str() {
            "" | "utf-8" | "utf8" => Some(key.as_bytes().to_vec()),
            "hex" | "base16" => decoded_hex(&key),
            "base64" => STANDARD.decode(key.trim()).ok(),
            _ => return Err(self.unfit("the key's encoding is utf-8, hex, base16 or base64")),
        };
        let key = key.ok_or_else(|| self.unfit(format!("the key is not {key_encoding}")))?;
        let code = hmac_of(hash, &key, text.as_bytes());
        match self.text(3)?.to_ascii_lowercase().as_str() {
            "" | "base64" => Ok(encoded(&code, Encoding::Base64)),
            "hex" | "base16" => Ok(encoded(&code, Encoding::Hex)),
            _ => Err(self.unfit("the result's encoding is hex, base16 or base64")),
        }
    }

    fn substring(&self) -> Result<String, RenderError> {
        let text = self.text(0)?;
        let length = text.chars().count();
        let place = |number: i64| {
            let from_end = (length as i64).saturating_add(number).max(0);
            let place = if number < 0 { from_end } else { number };
            (place as usize).min(length)
        };
        let start = place(self.number(1)?);
        let end = match self.optional(2) {
            Some(_) => place(self.number(2)?),
            None => length,
        };
        Ok(text
            .chars()
            .skip(start)
            .take(end.saturating_sub(start))
            .collect())
    }

    fn replace(&self, count: usize) -> Result<String, RenderError> {
        let (text, replacement) = (self.text(0)?, self.text(2)?);
        if let Some(Compiled::Regex(regex)) = &self.call.compiled {
            return Ok(regex.replace(&text, &replacement, count)?);
        }
        let regex = JavaRegex::anywhere(&self.text(1)?).map_err(|reason| self.unfit(reason))?;
        Ok(regex.replace(&text, &replacement, count)?)
    }

    fn time(&self, millis: bool) -> Result<String, RenderError> {
        let pattern = self.text(0)?;
        let time = self.number(1)?;
        let time = if millis {
            time
        } else {
            time.saturating_mul(1000)
        };
        date::format(&pattern, time)
            .ok_or_else(|| self.unfit(format!("'{pattern}' is not a pattern of SimpleDateFormat")))
    }

    /// `xpath(expression,xml[,type][,'prefix:uri'…])`; what is not there is empty.
    fn xpath(&self) -> Result<String, RenderError> {
        let content = self.text(1)?;
        let mut kind = Cow::Borrowed("nodeset");
        let mut namespaces = Vec::new();
        for number in 2..self.call.arguments.len() {
            let text = self.text(number)?;
            match namespace(&text) {
                Some(declared) => namespaces.push(declared),
                None => kind = text,
            }
        }
        let parsed;
        let path = match &self.call.compiled {
            Some(Compiled::XPath(path)) => path,
            _ => {
                parsed = XPath::parse(&self.text(0)?, &namespaces)
                    .map_err(|reason| self.unfit(reason))?;
                &parsed
            }
        };
        let Ok(document) = Document::parse("template", &content, Limits::MESSAGE) else {
            return Ok(String::new());
        };
        let outcome = path
            .evaluate(&document)
            .map_err(|limit| self.unfit(limit.to_string()))?;
        Ok(match (kind.as_ref(), &outcome) {
            ("string", outcome) => outcome.text().into_owned(),
            ("number", outcome) => Outcome::Number(outcome.number()).text().into_owned(),
            ("boolean", outcome) => outcome.boolean().to_string(),
            ("node", Outcome::Nodes(items)) => {
                let mut text = String::new();
                if let Some(first) = items.first() {
                    first.write_xml(&mut text);
                }
                text
            }
            ("node" | "nodeset", outcome) => outcome.xml(),
            _ => return Err(self.unfit("the type is string, number, boolean, node or nodeset")),
        })
    }

    /// `jsonPath(path,json[,all])`: the first of several results unless all are wanted; what is not there is empty.
    fn json_path(&self) -> Result<String, RenderError> {
        let content = self.text(1)?;
        let all = self.text(2)? == "true";
        let parsed;
        let path = match &self.call.compiled {
            Some(Compiled::JsonPath(path)) => path,
            _ => {
                parsed = JsonPath::parse(&self.text(0)?).map_err(|reason| self.unfit(reason))?;
                &parsed
            }
        };
        let Ok(document) = serde_json::from_str::<serde_json::Value>(&content) else {
            return Ok(String::new());
        };
        match path.read(&document) {
            Ok(serde_json::Value::Array(list)) if !all => {
                Ok(list.first().map(result_text).unwrap_or_default())
            }
            Ok(value) => Ok(result_text(&value)),
            Err(JsonPathError::Missing(_)) => Ok(String::new()),
            Err(error) => Err(self.unfit(error.to_string())),
        }
    }

    fn random_long(&self) -> Result<String, RenderError> {
        let random = self.variables.random();
        if self.call.arguments.is_empty() {
            return Ok((random as i64).to_string());
        }
        let low = self.number(0)?;
        let high = if self.call.arguments.len() > 1 {
            self.number(1)?
        } else {
            i64::MAX
        };
        if high < low {
            return Err(self.unfit("the greatest number is less than the least"));
        }
        let span = high.wrapping_sub(low) as u64;
        let offset = span.checked_add(1).map_or(random, |count| random % count);
        Ok(low.wrapping_add(offset as i64).to_string())
    }
}

/// `prefix:uri`
fn namespace(text: &str) -> Option<(String, String)> {
    let (prefix, uri) = text.split_once(':')?;
    is_name(prefix).then(|| (prefix.to_owned(), uri.to_owned()))
}

fn digest(hash: Hash, bytes: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Md5 => Md5::digest(bytes).to_vec(),
        Hash::Sha1 => Sha1::digest(bytes).to_vec(),
        Hash::Sha224 => Sha224::digest(bytes).to_vec(),
        Hash::Sha256 => Sha256::digest(bytes).to_vec(),
        Hash::Sha384 => Sha384::digest(bytes).to_vec(),
        Hash::Sha512 => Sha512::digest(bytes).to_vec(),
    }
}

fn hmac_of(hash: Hash, key: &[u8], text: &[u8]) -> Vec<u8> {
    /// A key of any length is a key, so the error cannot occur.
    fn code<M: Mac + hmac::digest::KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
        match <M as Mac>::new_from_slice(key) {
            Ok(mac) => mac.chain_update(text).finalize().into_bytes().to_vec(),
            Err(_) => Vec::new(),
        }
    }
    match hash {
        Hash::Md5 => code::<Hmac<Md5>>(key, text),
        Hash::Sha1 => code::<Hmac<Sha1>>(key, text),
        Hash::Sha224 => code::<Hmac<Sha224>>(key, text),
        Hash::Sha256 => code::<Hmac<Sha256>>(key, text),
        Hash::Sha384 => code::<Hmac<Sha384>>(key, text),
        Hash::Sha512 => code::<Hmac<Sha512>>(key, text),
    }
}

fn encoded(bytes: &[u8], encoding: Encoding) -> String {
    match encoding {
        Encoding::Base64 => STANDARD.encode(bytes),
        Encoding::Hex => {
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            digits
                .filter_map(|digit| char::from_digit(u32::from(digit), 16))
                .collect()
        }
    }
}

fn decoded_hex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
