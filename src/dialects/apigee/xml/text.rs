//! Characters: encodings, what XML allows, references.
//!
//! Owns what is below the markup. Refuses to know structure.

use std::borrow::Cow;

/// The text of an XML file: UTF-8 with or without a byte order mark, UTF-16 with one, or ISO-8859-1 when its declaration says so.
///
/// # Errors
/// A sentence saying which encoding does not fit.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    if let Some(rest) = bytes.strip_prefix(&[0xFE, 0xFF]) {
        return utf16(rest, u16::from_be_bytes).map(Cow::Owned);
    }
    if let Some(rest) = bytes.strip_prefix(&[0xFF, 0xFE]) {
        return utf16(rest, u16::from_le_bytes).map(Cow::Owned);
    }
    let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(bytes);
    let encoding = declared_encoding(bytes).unwrap_or_default();
    match encoding.to_ascii_lowercase().as_str() {
        "iso-8859-1" | "latin1" | "iso8859-1" => {
            return Ok(Cow::Owned(bytes.iter().map(|byte| *byte as char).collect()));
        }
        // Other names are checked by what the bytes are: many files declare one encoding and are saved in another.
        _ => {}
    }
    std::str::from_utf8(bytes)
        .map(Cow::Borrowed)
        .map_err(|error| {
            let line = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + memchr::memchr_iter(b'\n', line).count();
            let named = if encoding.is_empty() {
                "UTF-8"
            } else {
                &encoding
            };
            format!("line {line} is not valid {named} text, save the file as UTF-8")
        })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let units = bytes.chunks(2).map(|pair| match pair {
        [one, two] => unit([*one, *two]),
        // Half a character: no valid text ends so.
        _ => 0xDC00,
    });
    char::decode_utf16(units)
        .collect::<Result<String, _>>()
        .map_err(|_| "is not valid UTF-16 text, save the file as UTF-8".to_owned())
}

/// The encoding that an XML declaration at the start names.
fn declared_encoding(bytes: &[u8]) -> Option<String> {
    /// Longer declarations do not occur.
    const DECLARATION_BYTES_MAX: usize = 200;
    let start = bytes.get(..bytes.len().min(DECLARATION_BYTES_MAX))?;
    let start = String::from_utf8_lossy(start);
    let declaration = start.trim_start().strip_prefix("<?xml")?;
    let declaration = declaration.split_once("?>")?.0;
    let value = declaration.split_once("encoding")?.1.trim_start();
    let value = value.strip_prefix('=')?.trim_start();
    let quote = value
        .chars()
        .next()
        .filter(|quote| "\"'".contains(*quote))?;
    let value = value.get(1..)?.split_once(quote)?.0;
    Some(value.to_owned())
}

/// Whether a character may stand in a document (XML 1.0, 2.2).
pub fn is_xml_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// Whether a character may begin a name (XML 1.0, 2.3), the colon left out.
pub fn is_name_start(character: char) -> bool {
    matches!(character,
        'A'..='Z' | '_' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

/// Whether a character may stand in a name after its first (XML 1.0, 2.3), the colon left out.
pub fn is_name_character(character: char) -> bool {
    is_name_start(character)
        || matches!(character, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// Whether a text is a name without a colon.
pub fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(is_name_start) && characters.all(is_name_character)
}

/// The character that a reference (without `&` and `;`) stands for.
pub(super) fn reference(name: &str) -> Result<char, String> {
    let number = match name {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        _ => match name.strip_prefix('#') {
            None => {
                return Err(format!(
                    "entity '&{name};' is not defined, only lt, gt, amp, quot and apos are"
                ));
            }
            Some(number) => number,
        },
    };
    let code = match number.strip_prefix('x') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        None if number.bytes().all(|byte| byte.is_ascii_digit()) => number.parse().ok(),
        _ => None,
    };
    code.and_then(char::from_u32)
        .filter(|character| is_xml_character(*character))
        .ok_or_else(|| format!("'&{name};' is not a character that XML allows"))
}

/// An attribute's value with references replaced and white space made blanks.
pub(super) fn attribute_value(raw: &str) -> Result<Box<str>, String> {
    if raw.contains('<') {
        return Err("'<' in an attribute must be written '&lt;'".to_owned());
    }
    if !raw.contains(['&', '\t', '\n', '\r']) {
        return Ok(raw.into());
    }
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\t', '\n', '\r']) {
        let (before, from) = rest.split_at(at);
        value.push_str(before);
        if let Some(after) = from.strip_prefix('&') {
            let (name, after) = after
                .split_once(';')
                .ok_or("'&' must be written '&amp;' or begin a reference that ends with ';'")?;
            value.push(reference(name)?);
            rest = after;
        } else {
            value.push(' ');
            rest = from
                .strip_prefix("\r\n")
                .unwrap_or_else(|| from.get(1..).unwrap_or_default());
        }
    }
    value.push_str(rest);
    Ok(value.into())
}

/// Text with the line ends of XML 1.0, 2.11.
pub(super) fn line_ends(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\r', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
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
    fn decodes_what_files_are_saved_in() {
        let utf16: Vec<u8> = [0xFE, 0xFF]
            .into_iter()
            .chain("<ä/>".encode_utf16().flat_map(u16::to_be_bytes))
            .collect();
        let cases: [(&[u8], Result<&str, &str>); 6] = [
            (b"<a/>", Ok("<a/>")),
            (b"\xEF\xBB\xBF<a/>", Ok("<a/>")),
            (&utf16, Ok("<ä/>")),
            (
                b"<?xml version='1.0' encoding='ISO-8859-1'?>\xE4",
                Ok("<?xml version='1.0' encoding='ISO-8859-1'?>ä"),
            ),
            (b"<a>\n\xE4</a>", Err("line 2 is not valid UTF-8")),
            (b"\xFF\xFEa", Err("UTF-16")),
        ];
        for (bytes, expected) in cases {
            match (decode(bytes), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, _) => panic!("{bytes:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn resolves_references() {
        assert_eq!(
            &*attribute_value("a&lt;&#65;&#x42;\n b\r\nc").unwrap(),
            "a<AB  b c"
        );
        for refused in [
            "&nbsp;", "&#0;", "&#xD800;", "&", "a<b", "&#-1;", "&#+1;", "&#x;",
        ] {
            assert!(attribute_value(refused).is_err(), "{refused}");
        }
    }
}
