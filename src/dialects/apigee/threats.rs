//! Limits on the structure of JSON and XML.
//!
//! Owns the checks of the two threat protection policies. JSON is read token by token, without building anything, so that a
//! hostile body costs no memory. Refuses to know messages.

use serde::{Deserialize, Serialize};

use super::xml::{Document, Kind, Limits, Node};

/// Limits on JSON; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonLimits {
    pub depth: Option<usize>,
    pub entries: Option<usize>,
    pub name_length: Option<usize>,
    pub elements: Option<usize>,
    pub text_length: Option<usize>,
}

/// Limits on XML; `None` is no limit. Lengths are in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XmlLimits {
    pub element_name: Option<usize>,
    pub attribute_name: Option<usize>,
    pub prefix: Option<usize>,
    pub instruction_target: Option<usize>,
    pub depth: Option<usize>,
    pub attributes: Option<usize>,
    pub namespaces: Option<usize>,
    pub children: Option<usize>,
    pub counts_comments: bool,
    pub counts_elements: bool,
    pub counts_instructions: bool,
    pub counts_texts: bool,
    pub text: Option<usize>,
    pub attribute: Option<usize>,
    pub namespace: Option<usize>,
    pub comment: Option<usize>,
    pub instruction_data: Option<usize>,
}

impl Default for XmlLimits {
    fn default() -> Self {
        Self {
            element_name: None,
            attribute_name: None,
            prefix: None,
            instruction_target: None,
            depth: None,
            attributes: None,
            namespaces: None,
            children: None,
            counts_comments: true,
            counts_elements: true,
            counts_instructions: true,
            counts_texts: true,
            text: None,
            attribute: None,
            namespace: None,
            comment: None,
            instruction_data: None,
        }
    }
}

fn exceeds(limit: Option<usize>, size: usize) -> bool {
    limit.is_some_and(|limit| size > limit)
}

/// Checks a JSON text.
///
/// # Errors
/// What is exceeded or broken, with its line: `Exceeded container depth at line 2`.
pub fn check_json(text: &str, limits: &JsonLimits) -> Result<(), String> {
    let mut scanner = Scanner {
        rest: text,
        line: 1,
    };
    // Open containers: whether an object, and what it holds so far.
    let mut open: Vec<(bool, usize)> = Vec::new();
    // A container that nobody limits is limited all the same.
    const DEPTH_MAX: usize = 100_000;
    loop {
        // A value is due here.
        scanner.blank();
        let exceeded = |what: &str, line: usize| Err(format!("Exceeded {what} at line {line}"));
        match scanner.next() {
            Some(opening @ ('{' | '[')) => {
                open.push((opening == '{', 0));
                if exceeds(limits.depth, open.len()) || open.len() > DEPTH_MAX {
                    return exceeded("container depth", scanner.line);
                }
                scanner.blank();
                let closing = if opening == '{' { '}' } else { ']' };
                if !scanner.take(closing) {
                    member(&mut scanner, &mut open, limits)?;
                    continue;
                }
                open.pop();
            }
            Some('"') => {
                let length = scanner.text()?;
                if exceeds(limits.text_length, length) {
                    return exceeded("string value length", scanner.line);
                }
            }
            Some(first) if first.is_ascii_alphanumeric() || first == '-' => scanner.word(first)?,
            Some(other) => return Err(scanner.unexpected(other)),
            None => {
                return Err(format!(
                    "Unexpected end of the text at line {}",
                    scanner.line
                ));
            }
        }
        // A value has ended: close what ends with it, or go on to the next member.
        loop {
            scanner.blank();
            let Some((is_object, _)) = open.last().copied() else {
                return match scanner.next() {
                    None => Ok(()),
                    Some(other) => Err(scanner.unexpected(other)),
                };
            };
            match scanner.next() {
                Some('}') if is_object => drop(open.pop()),
                Some(']') if !is_object => drop(open.pop()),
                Some(',') => {
                    member(&mut scanner, &mut open, limits)?;
                    break;
                }
                Some(other) => return Err(scanner.unexpected(other)),
                None => {
                    return Err(format!(
                        "Unexpected end of the text at line {}",
                        scanner.line
                    ));
                }
            }
        }
    }
}

/// Counts a member of the innermost container; an object's name is read up to its colon.
fn member(
    scanner: &mut Scanner<'_>,
    open: &mut [(bool, usize)],
    limits: &JsonLimits,
) -> Result<(), String> {
    let Some((is_object, count)) = open.last_mut() else {
        return Ok(());
    };
    *count += 1;
    let (limit, what) = if *is_object {
        (limits.entries, "object entry count")
    } else {
        (limits.elements, "array element count")
    };
    if exceeds(limit, *count) {
        return Err(format!("Exceeded {what} at line {}", scanner.line));
    }
    if !*is_object {
        return Ok(());
    }
    scanner.blank();
    match scanner.next() {
        Some('"') => {}
        Some(other) => return Err(scanner.unexpected(other)),
        None => {
            return Err(format!(
                "Unexpected end of the text at line {}",
                scanner.line
            ));
        }
    }
    if exceeds(limits.name_length, scanner.text()?) {
        return Err(format!(
            "Exceeded object entry name length at line {}",
            scanner.line
        ));
    }
    scanner.blank();
    if scanner.take(':') {
        Ok(())
    } else {
        Err(format!("Expected ':' at line {}", scanner.line))
    }
}

struct Scanner<'t> {
    rest: &'t str,
    line: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn blank(&mut self) {
        let trimmed = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let skipped = self.rest.len() - trimmed.len();
        self.line += self
            .rest
            .bytes()
            .take(skipped)
            .filter(|byte| *byte == b'\n')
            .count();
        self.rest = trimmed;
    }

    /// Behind an opening quote: the length in characters, up to behind the closing one.
    fn text(&mut self) -> Result<usize, String> {
        let mut length = 0;
        loop {
            match self.next() {
                Some('"') => return Ok(length),
                Some('\\') => {
                    let escaped = self.next();
                    let digits = if escaped == Some('u') { 4 } else { 0 };
                    let is_known = escaped.is_some_and(|escaped| "\"\\/bfnrtu".contains(escaped));
                    let is_hex = (0..digits)
                        .all(|_| self.next().is_some_and(|digit| digit.is_ascii_hexdigit()));
                    if !is_known || !is_hex {
                        return Err(format!("Invalid escape at line {}", self.line));
                    }
                }
                Some(character) if character >= ' ' => {}
                Some(other) => return Err(self.unexpected(other)),
                None => return Err(format!("Unexpected end of the text at line {}", self.line)),
            }
            length += 1;
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self, first: char) -> Result<(), String> {
        let end = self.rest.find(|character: char| {
            !(character.is_ascii_alphanumeric() || "+-.".contains(character))
        });
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        // Longer numbers are attacks or noise.
        const WORD_BYTES_MAX: usize = 4096;
        let whole = format!(
            "{first}{}",
            word.get(..word.len().min(WORD_BYTES_MAX))
                .unwrap_or_default()
        );
        let is_value = word.len() < WORD_BYTES_MAX
            && serde_json::from_str::<&serde_json::value::RawValue>(&whole).is_ok();
        self.rest = rest;
        if is_value {
            Ok(())
        } else {
            Err(format!("Invalid value at line {}", self.line))
        }
    }

    fn unexpected(&self, found: char) -> String {
        format!("Unexpected character {found:?} at line {}", self.line)
    }
}

/// Checks an XML text. Document types and entities are refused whatever the limits are.
///
/// # Errors
/// What is exceeded or broken, with its line: `Element name length exceeded at line 1`.
pub fn check_xml(text: &str, limits: &XmlLimits) -> Result<(), String> {
    let document =
        Document::parse("message", text, Limits::MESSAGE).map_err(|error| error.to_string())?;
    let mut open: Vec<Node<'_>> = Vec::new();
    for node in document.node().descendants() {
        while open.pop_if(|above| above.end() <= node.index()).is_some() {}
        let told = match node.kind() {
            Kind::Element(_) => {
                open.push(node);
                if exceeds(limits.depth, open.len()) {
                    Some("Node depth")
                } else {
                    element(node, limits)
                }
            }
            Kind::Text(text) => exceeds(limits.text, text.chars().count()).then_some("Text length"),
            Kind::Comment(text) => {
                exceeds(limits.comment, text.chars().count()).then_some("Comment length")
            }
            Kind::Instruction { target, data } => {
                if exceeds(limits.instruction_target, target.chars().count()) {
                    Some("Processing instruction target length")
                } else {
                    exceeds(limits.instruction_data, data.chars().count())
                        .then_some("Processing instruction data length")
                }
            }
            Kind::Document => None,
        };
        if let Some(what) = told {
            return Err(format!("{what} exceeded at line {}", node.line()));
        }
    }
    Ok(())
}

fn element(node: Node<'_>, limits: &XmlLimits) -> Option<&'static str> {
    let element = node.element()?;
    let name = element.full_name()?;
    let length = |text: &str| text.chars().count();
    if exceeds(limits.element_name, length(&name.local)) {
        return Some("Element name length");
    }
    if exceeds(limits.prefix, length(&name.prefix)) {
        return Some("Namespace prefix length");
    }
    let (mut attributes, mut namespaces) = (0, 0);
    for attribute in element.attributes() {
        let name = attribute.full_name();
        if attribute.is_namespace() {
            namespaces += 1;
            if !name.prefix.is_empty() && exceeds(limits.prefix, length(&name.local)) {
                return Some("Namespace prefix length");
            }
            if exceeds(limits.namespace, length(attribute.value())) {
                return Some("Namespace URI length");
            }
            continue;
        }
        attributes += 1;
        if exceeds(limits.attribute_name, length(&name.local)) {
            return Some("Attribute name length");
        }
        if exceeds(limits.attribute, length(attribute.value())) {
            return Some("Attribute value length");
        }
    }
    if exceeds(limits.attributes, attributes) {
        return Some("Attribute count per element");
    }
    if exceeds(limits.namespaces, namespaces) {
        return Some("Namespace count per element");
    }
    let counted = |child: &Node<'_>| match child.kind() {
        Kind::Element(_) => limits.counts_elements,
        Kind::Text(_) => limits.counts_texts,
        Kind::Comment(_) => limits.counts_comments,
        Kind::Instruction { .. } => limits.counts_instructions,
        Kind::Document => false,
    };
    let children = limits
        .children
        .is_some()
        .then(|| node.children().filter(counted).count());
    exceeds(limits.children, children.unwrap_or(0)).then_some("Children count")
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
    fn limits_json() {
        let limits = JsonLimits {
            depth: Some(3),
            entries: Some(2),
            name_length: Some(4),
            elements: Some(3),
            text_length: Some(5),
        };
        let cases = [
            ("{}", None),
            ("[]", None),
            (
                " {\"a\": [1, 2.5e3, true], \"b\": {\"c\": \"h\\u00e9llo\"}} ",
                None,
            ),
            ("{\"a\":[[[]]]}", Some("Exceeded container depth at line 1")),
            (
                "{\"a\":1,\n\"b\":2,\n\"c\":3}",
                Some("Exceeded object entry count at line 2"),
            ),
            (
                "{\n\"abcde\":1}",
                Some("Exceeded object entry name length at line 2"),
            ),
            ("[1,2,3,4]", Some("Exceeded array element count at line 1")),
            (
                "[\"123456\"]",
                Some("Exceeded string value length at line 1"),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                check_json(text, &limits).err().as_deref(),
                expected,
                "{text}"
            );
            assert_eq!(check_json(text, &JsonLimits::default()), Ok(()), "{text}");
        }
        assert!(check_json(&"[".repeat(200_000), &JsonLimits::default()).is_err());
    }

    #[test]
    fn agrees_with_a_parser_on_what_is_json() {
        let texts = [
            "1",
            "-1.5e+3",
            "01",
            "1.",
            "\"a\"",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\t\"",
            "true",
            "tru",
            "nulll",
            "null",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":1}}",
            "[]]",
            "[}",
            "{]",
            "",
            " ",
            "[1]x",
            "[[],{}]",
            "{\"a\":{\"b\":[{}]}}",
            "'a'",
            "+1",
            "--1",
            "NaN",
            "[\"\\\"\"]",
        ];
        for text in texts {
            let parses = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(
                check_json(text, &JsonLimits::default()).is_ok(),
                parses,
                "{text}"
            );
        }
    }

    #[test]
    fn limits_xml() {
        let base = XmlLimits::default;
        let xml = "<root xmlns:ab='urn:1'>\n<child attr='value'>text!</child><!--note--><?pi data?><ab:x/></root>";
        let cases = [
            (base(), None),
            (
                XmlLimits {
                    element_name: Some(4),
                    ..base()
                },
                Some("Element name length exceeded at line 2"),
            ),
            (
                XmlLimits {
                    attribute_name: Some(3),
                    ..base()
                },
                Some("Attribute name length exceeded at line 2"),
            ),
            (
                XmlLimits {
                    prefix: Some(1),
                    ..base()
                },
                Some("Namespace prefix length exceeded at line 1"),
            ),
            (
                XmlLimits {
                    instruction_target: Some(1),
                    ..base()
                },
                Some("Processing instruction target length exceeded at line 2"),
            ),
            (
                XmlLimits {
                    depth: Some(1),
                    ..base()
                },
                Some("Node depth exceeded at line 2"),
            ),
            (
                XmlLimits {
                    attributes: Some(0),
                    ..base()
                },
                Some("Attribute count per element exceeded at line 2"),
            ),
            (
                XmlLimits {
                    namespaces: Some(0),
                    ..base()
                },
                Some("Namespace count per element exceeded at line 1"),
            ),
            (
                XmlLimits {
                    children: Some(4),
                    ..base()
                },
                Some("Children count exceeded at line 1"),
            ),
            (
                XmlLimits {
                    children: Some(4),
                    counts_texts: false,
                    ..base()
                },
                None,
            ),
            (
                XmlLimits {
                    text: Some(4),
                    ..base()
                },
                Some("Text length exceeded at line 2"),
            ),
            (
                XmlLimits {
                    attribute: Some(4),
                    ..base()
                },
                Some("Attribute value length exceeded at line 2"),
            ),
            (
                XmlLimits {
                    namespace: Some(4),
                    ..base()
                },
                Some("Namespace URI length exceeded at line 1"),
            ),
            (
                XmlLimits {
                    comment: Some(3),
                    ..base()
                },
                Some("Comment length exceeded at line 2"),
            ),
            (
                XmlLimits {
                    instruction_data: Some(3),
                    ..base()
                },
                Some("Processing instruction data length exceeded at line 2"),
            ),
        ];
        for (limits, expected) in cases {
            assert_eq!(
                check_xml(xml, &limits).err().as_deref(),
                expected,
                "{limits:?}"
            );
        }
        assert!(check_xml("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", &base()).is_err());
    }
}
