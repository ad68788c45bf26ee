//! From text to tree, with limits.
//!
//! Owns well-formedness: quick-xml finds the markup, this file checks what it leaves unchecked (names, characters,
//! namespaces, one root) and refuses document types and entities. Refuses to know what elements mean.

use std::collections::HashSet;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::document::{AttributeData, Content, Document, Name, NodeData};
use super::text::{attribute_value, decode, is_name, is_xml_character, line_ends, reference};
use crate::base::diagnostic::Diagnostic;
use crate::base::source_ref::SourceRef;

/// How large a document may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest document, in bytes.
    pub bytes: usize,
    /// The deepest nesting of elements; the root has depth 1.
    pub depth: usize,
    /// The most attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// The most nodes: elements, texts, comments, instructions.
    pub nodes: usize,
}

impl Limits {
    /// Files of bundles and bodies of the management API.
    pub const CONFIGURATION: Self = Self {
        bytes: 4 << 20,
        depth: 64,
        attributes: 64,
        nodes: 200_000,
    };
    /// Bodies of messages, whose size the engine has limited before.
    pub const MESSAGE: Self = Self {
        bytes: 32 << 20,
        depth: 512,
        attributes: 1024,
        nodes: 1_000_000,
    };
}

/// Namespace declarations in force at one place.
const NAMESPACES_MAX: usize = 256;
/// The namespace of the prefix `xml`, bound everywhere.
const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// Why a document was not read: the first thing found, after which nothing can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct XmlError {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
    /// What is wrong and what is allowed.
    pub message: String,
    /// Whether it is broken or too large.
    pub kind: XmlErrorKind,
}

/// The kinds of [`XmlError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmlErrorKind {
    /// Not well-formed.
    Syntax,
    /// Well-formed perhaps, but with a document type or entity, which are never processed.
    Forbidden,
    /// Larger than [`Limits`] allow.
    Limit,
}

impl XmlError {
    /// The error for whoever wrote the file.
    pub fn diagnostic(&self, file: &str) -> Diagnostic {
        let code = match self.kind {
            XmlErrorKind::Syntax => "xml-syntax",
            XmlErrorKind::Forbidden => "xml-forbidden",
            XmlErrorKind::Limit => "xml-limit",
        };
        let place = SourceRef::document(file).at_line(self.line);
        Diagnostic::error(
            code,
            place,
            format!("column {}: {}", self.column, self.message),
        )
    }
}

impl Document {
    /// Reads a document. `file` names it in messages.
    ///
    /// # Errors
    /// The first violation of well-formedness, of the limits, or of the ban on document types and entities.
    pub fn parse(file: impl Into<Arc<str>>, text: &str, limits: Limits) -> Result<Self, XmlError> {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let mut builder = Builder {
            text,
            limits,
            cursor: Cursor::default(),
            document: Document {
                file: file.into(),
                nodes: Vec::new(),
                attributes: Vec::new(),
            },
            open: vec![0],
            namespaces: Vec::new(),
            xml: Arc::from(XML_NAMESPACE),
            last_namespace: None,
        };
        builder.run()?;
        Ok(builder.document)
    }

    /// Reads a document from bytes in the encodings of [`decode`].
    ///
    /// # Errors
    /// As [`Document::parse`], and for text in another encoding.
    pub fn parse_bytes(
        file: impl Into<Arc<str>>,
        bytes: &[u8],
        limits: Limits,
    ) -> Result<Self, XmlError> {
        if bytes.len() > limits.bytes {
            return Err(too_large(limits));
        }
        let text = decode(bytes).map_err(|message| XmlError {
            line: 1,
            column: 1,
            message,
            kind: XmlErrorKind::Syntax,
        })?;
        Self::parse(file, &text, limits)
    }
}

fn too_large(limits: Limits) -> XmlError {
    XmlError {
        line: 1,
        column: 1,
        message: format!("the document is larger than {} bytes", limits.bytes),
        kind: XmlErrorKind::Limit,
    }
}

/// A place that only moves forward, so that finding all places costs one pass.
#[derive(Clone, Copy)]
struct Cursor {
    offset: usize,
    line: u32,
    column: u32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            offset: 0,
            line: 1,
            column: 1,
        }
    }
}

impl Cursor {
    fn advance(&mut self, text: &str, offset: usize) {
        for character in text.get(self.offset..offset).unwrap_or_default().chars() {
            if character == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.offset = self.offset.max(offset);
    }
}

struct Builder<'t> {
    text: &'t str,
    limits: Limits,
    cursor: Cursor,
    document: Document,
    /// Indexes of the open elements, the document first.
    open: Vec<u32>,
    /// Prefix, what it stands for, and the depth at which it was declared.
    namespaces: Vec<(Box<str>, Option<Arc<str>>, usize)>,
    xml: Arc<str>,
    /// What was declared last, to share texts that are declared again and again.
    last_namespace: Option<Arc<str>>,
}

impl Builder<'_> {
    fn run(&mut self) -> Result<(), XmlError> {
        if self.text.len() > self.limits.bytes {
            return Err(too_large(self.limits));
        }
        if let Some((offset, character)) = self
            .text
            .char_indices()
            .find(|(_, character)| !is_xml_character(*character))
        {
            self.cursor.advance(self.text, offset);
            return Err(self.syntax(format!(
                "character U+{:04X} is not allowed",
                character as u32
            )));
        }
        self.push(Content::Document)?;
        // A copy of the reference: the events must not borrow the builder.
        let text = self.text;
        let mut reader = Reader::from_str(text);
        let mut pending = String::new();
        loop {
            let start = reader.buffer_position() as usize;
            let event = reader.read_event();
            let is_text = matches!(
                event,
                Ok(Event::Text(_) | Event::CData(_) | Event::GeneralRef(_))
            );
            if !is_text && !pending.is_empty() {
                self.flush(&mut pending)?;
            }
            if !is_text || pending.is_empty() {
                self.cursor.advance(text, start);
            }
            match event {
                Err(error) => {
                    self.cursor.advance(text, reader.error_position() as usize);
                    return Err(self.syntax(syntax_message(&error)));
                }
                Ok(Event::Start(tag)) => self.start(&tag, start, false)?,
                Ok(Event::Empty(tag)) => self.start(&tag, start, true)?,
                Ok(Event::End(_)) => self.end(),
                Ok(Event::Text(piece)) => {
                    let piece = piece.into_inner();
                    if piece.contains("]]>") {
                        return Err(self.syntax("']]>' must be written ']]&gt;'".to_owned()));
                    }
                    self.text_piece(&line_ends(&piece), &mut pending)?;
                }
                Ok(Event::CData(piece)) => {
                    if self.open.len() == 1 {
                        return Err(self.syntax("text outside the root element".to_owned()));
                    }
                    let piece = piece.into_inner();
                    pending.push_str(&line_ends(&piece));
                }
                Ok(Event::GeneralRef(name)) => {
                    if self.open.len() == 1 {
                        return Err(self.syntax("text outside the root element".to_owned()));
                    }
                    match reference(&name) {
                        Ok(character) => pending.push(character),
                        Err(message) => {
                            let kind = if name.starts_with('#') {
                                XmlErrorKind::Syntax
                            } else {
                                XmlErrorKind::Forbidden
                            };
                            return Err(self.error(kind, message));
                        }
                    }
                }
                Ok(Event::Comment(piece)) => {
                    let piece = piece.into_inner();
                    self.push(Content::Comment(line_ends(&piece).as_ref().into()))?;
                }
                Ok(Event::PI(instruction)) => {
                    let target = instruction.target();
                    if !is_name(target) || target.eq_ignore_ascii_case("xml") {
                        return Err(self.syntax(format!(
                            "'<?{target}' does not begin a processing instruction"
                        )));
                    }
                    let data = line_ends(instruction.content().trim_start())
                        .as_ref()
                        .into();
                    self.push(Content::Instruction {
                        target: target.into(),
                        data,
                    })?;
                }
                // Licence comments stand before it in the wild.
                Ok(Event::Decl(_)) => {
                    if self.has_root() {
                        return Err(
                            self.syntax("the XML declaration belongs to the start".to_owned())
                        );
                    }
                }
                Ok(Event::DocType(_)) => {
                    let message = "document types and entity declarations are not processed, remove '<!DOCTYPE'";
                    return Err(self.error(XmlErrorKind::Forbidden, message.to_owned()));
                }
                Ok(Event::Eof) => break,
            }
        }
        if let [_, .., last] = self.open.as_slice() {
            let name = self
                .document
                .at(*last)
                .and_then(super::Node::element)
                .map(|element| element.name().to_owned());
            return Err(self.syntax(format!(
                "element '{}' is not closed",
                name.unwrap_or_default()
            )));
        }
        if !self.has_root() {
            return Err(self.syntax("the document has no root element".to_owned()));
        }
        let end = self.document.nodes.len() as u32;
        if let Some(node) = self.document.nodes.first_mut() {
            node.end = end;
        }
        Ok(())
    }

    fn has_root(&self) -> bool {
        self.document
            .node()
            .children()
            .any(|node| node.element().is_some())
    }

    fn error(&self, kind: XmlErrorKind, message: String) -> XmlError {
        XmlError {
            line: self.cursor.line,
            column: self.cursor.column,
            message,
            kind,
        }
    }

    fn syntax(&self, message: String) -> XmlError {
        self.error(XmlErrorKind::Syntax, message)
    }

    fn text_piece(&mut self, piece: &str, pending: &mut String) -> Result<(), XmlError> {
        if self.open.len() > 1 {
            pending.push_str(piece);
        } else if !piece.bytes().all(|byte| byte.is_ascii_whitespace()) {
            return Err(self.syntax("text outside the root element".to_owned()));
        }
        Ok(())
    }

    fn flush(&mut self, pending: &mut String) -> Result<(), XmlError> {
        self.push(Content::Text(pending.as_str().into()))?;
        pending.clear();
        Ok(())
    }

    /// Appends a node under the innermost open element, at the cursor.
    fn push(&mut self, content: Content) -> Result<u32, XmlError> {
        let index = self.document.nodes.len();
        if index > self.limits.nodes {
            return Err(self.error(
                XmlErrorKind::Limit,
                format!("the document has more than {} nodes", self.limits.nodes),
            ));
        }
        let index = index as u32;
        let parent = self.open.last().copied().unwrap_or(0);
        let mut previous = 0;
        if index > 0
            && let Some(above) = self.document.nodes.get_mut(parent as usize)
        {
            previous = std::mem::replace(&mut above.last_child, index);
            if previous == 0 {
                above.first_child = index;
            }
        }
        if previous != 0
            && let Some(before) = self.document.nodes.get_mut(previous as usize)
        {
            before.next = index;
        }
        self.document.nodes.push(NodeData {
            parent,
            first_child: 0,
            last_child: 0,
            next: 0,
            previous,
            end: index + 1,
            line: self.cursor.line,
            column: self.cursor.column,
            content,
        });
        Ok(index)
    }

    fn start(&mut self, tag: &BytesStart<'_>, start: usize, empty: bool) -> Result<(), XmlError> {
        let depth = self.open.len();
        if depth > self.limits.depth {
            return Err(self.error(
                XmlErrorKind::Limit,
                format!("elements are nested deeper than {}", self.limits.depth),
            ));
        }
        if depth == 1 && self.has_root() {
            return Err(self.syntax("there is a second root element".to_owned()));
        }
        let at = self.cursor;
        let attributes = self.attributes(tag, start, depth)?;
        let place = std::mem::replace(&mut self.cursor, at);
        let name = self.resolved(tag.name().0)?;
        let index = self.push(Content::Element { name, attributes })?;
        self.cursor = place;
        self.open.push(index);
        if empty {
            self.end();
        }
        Ok(())
    }

    fn end(&mut self) {
        let depth = self.open.len() - 1;
        // quick-xml refuses end tags that nothing opened.
        if depth > 0
            && let Some(index) = self.open.pop()
        {
            let end = self.document.nodes.len() as u32;
            if let Some(node) = self.document.nodes.get_mut(index as usize) {
                node.end = end;
            }
        }
        while self
            .namespaces
            .last()
            .is_some_and(|(_, _, declared)| *declared >= depth)
        {
            self.namespaces.pop();
        }
    }

    /// Appends the attributes of a tag; the cursor is left behind the last.
    fn attributes(
        &mut self,
        tag: &BytesStart<'_>,
        start: usize,
        depth: usize,
    ) -> Result<std::ops::Range<u32>, XmlError> {
        let text = self.text;
        let first = self.document.attributes.len();
        let mut iterator = tag.attributes();
        for (count, attribute) in iterator.with_checks(false).enumerate() {
            let attribute = attribute.map_err(|error| {
                let message = attribute_message(&error);
                self.syntax(message)
            })?;
            if count >= self.limits.attributes {
                return Err(self.error(
                    XmlErrorKind::Limit,
                    format!(
                        "the element has more than {} attributes",
                        self.limits.attributes
                    ),
                ));
            }
            let written = attribute.key.0;
            // The events borrow the text, so the distance between the two is the place.
            let offset = (written.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
            let offset = offset
                .filter(|offset| *offset <= text.len())
                .unwrap_or(start);
            self.cursor.advance(text, offset);
            let value = attribute_value(&attribute.value).map_err(|message| {
                let kind = if message.starts_with("entity") {
                    XmlErrorKind::Forbidden
                } else {
                    XmlErrorKind::Syntax
                };
                self.error(kind, message)
            })?;
            let (prefix, local) = self.split_name(written)?;
            if prefix == "xmlns" || written == "xmlns" {
                let declared = if prefix.is_empty() { "" } else { local };
                self.declare(declared, &value, depth)?;
            }
            self.document.attributes.push(AttributeData {
                name: Name {
                    prefix: prefix.into(),
                    local: local.into(),
                    namespace: None,
                },
                value,
                line: self.cursor.line,
                column: self.cursor.column,
            });
        }
        self.resolve_attributes(first)?;
        Ok(first as u32..self.document.attributes.len() as u32)
    }

    /// Gives the attributes from `first` their namespaces and refuses the same name twice.
    fn resolve_attributes(&mut self, first: usize) -> Result<(), XmlError> {
        for index in first..self.document.attributes.len() {
            let Some(attribute) = self.document.attributes.get(index) else {
                continue;
            };
            if attribute.name.prefix.is_empty() || &*attribute.name.prefix == "xmlns" {
                continue;
            }
            let prefix = attribute.name.prefix.clone();
            let namespace = self.namespace_of(&prefix)?;
            if let Some(attribute) = self.document.attributes.get_mut(index) {
                attribute.name.namespace = namespace;
            }
        }
        let attributes = self.document.attributes.get(first..).unwrap_or_default();
        let mut seen = HashSet::with_capacity(attributes.len());
        for attribute in attributes {
            let name = &attribute.name;
            let declares = &*name.prefix == "xmlns";
            if !seen.insert((declares, name.namespace.as_deref(), &*name.local)) {
                return Err(self.syntax(format!("attribute '{name}' is written twice")));
            }
        }
        Ok(())
    }

    fn declare(&mut self, prefix: &str, namespace: &str, depth: usize) -> Result<(), XmlError> {
        let reserved = prefix == "xmlns" || (prefix == "xml" && namespace != XML_NAMESPACE);
        if reserved || (namespace.is_empty() && !prefix.is_empty()) {
            return Err(self.syntax(format!(
                "prefix '{prefix}' cannot be declared as '{namespace}'"
            )));
        }
        if self.namespaces.len() >= NAMESPACES_MAX {
            return Err(self.error(
                XmlErrorKind::Limit,
                format!("more than {NAMESPACES_MAX} namespaces are declared here"),
            ));
        }
        let shared = match &self.last_namespace {
            Some(last) if &**last == namespace => Arc::clone(last),
            _ => Arc::from(namespace),
        };
        self.last_namespace = Some(Arc::clone(&shared));
        let namespace = (!namespace.is_empty()).then_some(shared);
        self.namespaces.push((prefix.into(), namespace, depth));
        Ok(())
    }

    fn namespace_of(&self, prefix: &str) -> Result<Option<Arc<str>>, XmlError> {
        if prefix == "xml" {
            return Ok(Some(Arc::clone(&self.xml)));
        }
        let declared = self
            .namespaces
            .iter()
            .rev()
            .find(|(known, _, _)| &**known == prefix);
        match declared {
            Some((_, namespace, _)) => Ok(namespace.clone()),
            None if prefix.is_empty() => Ok(None),
            None => Err(self.syntax(format!("prefix '{prefix}' is not declared"))),
        }
    }

    fn split_name<'n>(&self, written: &'n str) -> Result<(&'n str, &'n str), XmlError> {
        let (prefix, local) = written.split_once(':').unwrap_or(("", written));
        let legal =
            is_name(local) && (prefix.is_empty() && !written.starts_with(':') || is_name(prefix));
        if legal {
            return Ok((prefix, local));
        }
        let shown: String = written.chars().take(40).collect();
        Err(self.syntax(format!("'{shown}' is not a name")))
    }

    fn resolved(&self, written: &str) -> Result<Name, XmlError> {
        let (prefix, local) = self.split_name(written)?;
        Ok(Name {
            prefix: prefix.into(),
            local: local.into(),
            namespace: self.namespace_of(prefix)?,
        })
    }
}

/// What quick-xml found, without its type names.
fn syntax_message(error: &quick_xml::Error) -> String {
    match error {
        quick_xml::Error::InvalidAttr(error) => attribute_message(error),
        other => {
            let text = other.to_string();
            let text = text
                .split_once(": ")
                .map_or(text.as_str(), |(_, rest)| rest);
            let mut shown: String = text.chars().take(200).collect();
            if let Some(first) = shown.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            shown
        }
    }
}

fn attribute_message(error: &quick_xml::events::attributes::AttrError) -> String {
    use quick_xml::events::attributes::AttrError;
    match error {
        AttrError::ExpectedEq(_) => "an attribute needs '=' after its name",
        AttrError::ExpectedValue(_) => "an attribute needs a value in quotes",
        AttrError::UnquotedValue(_) => "an attribute's value must be in quotes",
        AttrError::ExpectedQuote(_, _) => "an attribute's closing quote is missing",
        AttrError::Duplicated(_, _) => "an attribute is written twice",
    }
    .to_owned()
}
