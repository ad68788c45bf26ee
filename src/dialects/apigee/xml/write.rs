//! From tree to text.
//!
//! Owns escaping and serialization of nodes: what a node-set variable reads as. Refuses to change anything.

use std::borrow::Cow;

use super::document::{Element, Kind, Node};

/// Text as it stands between tags.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    escape(text, &['&', '<', '>', '\r'])
}

/// Text as it stands in an attribute in double quotes.
pub fn escape_attribute(text: &str) -> Cow<'_, str> {
    escape(text, &['&', '<', '>', '"', '\n', '\r', '\t'])
}

fn escape<'t>(text: &'t str, special: &[char]) -> Cow<'t, str> {
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if !special.contains(&character) {
            escaped.push(character);
            continue;
        }
        escaped.push_str(match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\n' => "&#10;",
            '\r' => "&#13;",
            _ => "&#9;",
        });
    }
    Cow::Owned(escaped)
}

/// Appends a node as XML. An element carries the namespace declarations that it inherits, so that its text stands alone.
pub fn write_node(node: Node<'_>, into: &mut String) {
    write(node, true, into);
}

/// Appends a node as XML that will stand where its declarations are in force.
pub(super) fn write_inside(node: Node<'_>, into: &mut String) {
    write(node, false, into);
}

fn write(node: Node<'_>, alone: bool, into: &mut String) {
    // Ends of the elements written so far: an end tag is due when the walk reaches one past its last descendant.
    let mut open: Vec<Node<'_>> = Vec::new();
    let nodes = std::iter::once(node).chain(node.descendants());
    for current in nodes {
        close(&mut open, current.index(), into);
        match current.kind() {
            Kind::Document => {}
            Kind::Text(text) => into.push_str(&escape_text(text)),
            Kind::Comment(text) => {
                into.push_str("<!--");
                into.push_str(text);
                into.push_str("-->");
            }
            Kind::Instruction { target, data } => {
                into.push_str("<?");
                into.push_str(target);
                if !data.is_empty() {
                    into.push(' ');
                    into.push_str(data);
                }
                into.push_str("?>");
            }
            Kind::Element(name) => {
                into.push('<');
                into.push_str(&name.to_string());
                if let Some(element) = current.element() {
                    write_attributes(element, alone && current == node, into);
                }
                if current.end() == current.index() + 1 {
                    into.push_str("/>");
                } else {
                    into.push('>');
                    open.push(current);
                }
            }
        }
    }
    close(&mut open, u32::MAX, into);
}

fn close(open: &mut Vec<Node<'_>>, reached: u32, into: &mut String) {
    while let Some(node) = open.pop_if(|node| node.end() <= reached) {
        if let Kind::Element(name) = node.kind() {
            into.push_str("</");
            into.push_str(&name.to_string());
            into.push('>');
        }
    }
}

fn write_attributes(element: Element<'_>, alone: bool, into: &mut String) {
    let mut write = |name: &str, value: &str| {
        into.push(' ');
        into.push_str(name);
        into.push_str("=\"");
        into.push_str(&escape_attribute(value));
        into.push('"');
    };
    let mut declared: Vec<String> = Vec::new();
    for attribute in element.attributes() {
        let name = attribute.full_name().to_string();
        write(&name, attribute.value());
        if attribute.is_namespace() {
            declared.push(name);
        }
    }
    if !alone {
        return;
    }
    let ancestors = std::iter::successors(element.node().parent(), |node| node.parent());
    for ancestor in ancestors.filter_map(Node::element) {
        for attribute in ancestor
            .attributes()
            .filter(|attribute| attribute.is_namespace())
        {
            let name = attribute.full_name().to_string();
            if !declared.contains(&name) {
                // An undeclared default namespace needs no undeclaring at the top.
                if !attribute.value().is_empty() {
                    write(&name, attribute.value());
                }
                declared.push(name);
            }
        }
    }
}
