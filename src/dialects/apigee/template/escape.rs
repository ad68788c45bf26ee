//! Escaping for JSON, XML and HTML.
//!
//! Owns the functions `escapeJSON`, `escapeXML`, `escapeXML11`, `encodeHTML` and `escapeHTML`.

use std::fmt::Write;

use crate::dialects::apigee::xml::is_xml_character;

/// A text as it stands between the quotes of a JSON string.
pub(super) fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\u{8}' => escaped.push_str("\\b"),
            '\u{c}' => escaped.push_str("\\f"),
            character if character.is_control() => {
                push_formatted(&mut escaped, format_args!("\\u{:04x}", character as u32))
            }
            character => escaped.push(character),
        }
    }
    escaped
}

/// A text as it stands in XML; what XML cannot hold is left out, except that XML 1.1 holds control characters as references.
pub(super) fn xml(text: &str, version_11: bool) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match named(character, true) {
            Some(entity) => escaped.push_str(entity),
            None if is_xml_character(character) => escaped.push(character),
            None if version_11 && character != '\0' && (character as u32) < 32 => {
                push_formatted(&mut escaped, format_args!("&#{};", character as u32));
            }
            None => {}
        }
    }
    escaped
}

/// The five characters with a meaning in HTML as entities.
pub(super) fn html_markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match named(character, true) {
            Some("&apos;") => escaped.push_str("&#39;"),
            Some(entity) => escaped.push_str(entity),
            None => escaped.push(character),
        }
    }
    escaped
}

/// Everything that has an entity in HTML 3.2: markup (without the apostrophe) and Latin-1.
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if let Some(entity) = named(character, false) {
            escaped.push_str(entity);
            continue;
        }
        let index = (character as usize).checked_sub(160);
        match index.and_then(|index| LATIN_1.get(index)) {
            Some(name) => push_formatted(&mut escaped, format_args!("&{name};")),
            None => escaped.push(character),
        }
    }
    escaped
}

fn push_formatted(into: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = into.write_fmt(text);
}

fn named(character: char, with_apostrophe: bool) -> Option<&'static str> {
    Some(match character {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '"' => "&quot;",
        '\'' if with_apostrophe => "&apos;",
        _ => return None,
    })
}

/// Names of the characters U+00A0 to U+00FF.
const LATIN_1: [&str; 96] = [
    "nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect", "uml", "copy", "ordf",
    "laquo", "not", "shy", "reg", "macr", "deg", "plusmn", "sup2", "sup3", "acute", "micro",
    "para", "middot", "cedil", "sup1", "ordm", "raquo", "frac14", "frac12", "frac34", "iquest",
    "Agrave", "Aacute", "Acirc", "Atilde", "Auml", "Aring", "AElig", "Ccedil", "Egrave", "Eacute",
    "Ecirc", "Euml", "Igrave", "Iacute", "Icirc", "Iuml", "ETH", "Ntilde", "Ograve", "Oacute",
    "Ocirc", "Otilde", "Ouml", "times", "Oslash", "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute",
    "THORN", "szlig", "agrave", "aacute", "acirc", "atilde", "auml", "aring", "aelig", "ccedil",
    "egrave", "eacute", "ecirc", "euml", "igrave", "iacute", "icirc", "iuml", "eth", "ntilde",
    "ograve", "oacute", "ocirc", "otilde", "ouml", "divide", "oslash", "ugrave", "uacute", "ucirc",
    "uuml", "yacute", "thorn", "yuml",
];
