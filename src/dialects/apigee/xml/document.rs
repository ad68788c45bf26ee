//! The tree: nodes in document order, each knowing its place.
//!
//! Owns storage and navigation. Nodes live in one list whose order is document order, so comparing two nodes is comparing
//! two numbers, and dropping a deep tree needs no stack. Refuses to know syntax (`parse`) and meaning (`fields`).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::base::source_ref::SourceRef;

/// A parsed document. The node with index 0 is the document itself.
#[derive(Debug)]
pub struct Document {
    pub(super) file: Arc<str>,
    pub(super) nodes: Vec<NodeData>,
    pub(super) attributes: Vec<AttributeData>,
}

/// What a node is made of. `0` stands for "none" in links: nothing links to the document node except as parent.
#[derive(Debug)]
pub(super) struct NodeData {
    pub(super) parent: u32,
    pub(super) first_child: u32,
    pub(super) last_child: u32,
    pub(super) next: u32,
    pub(super) previous: u32,
    /// One past the last descendant.
    pub(super) end: u32,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Document,
    Element { name: Name, attributes: Range<u32> },
    Text(Box<str>),
    Comment(Box<str>),
    Instruction { target: Box<str>, data: Box<str> },
}

#[derive(Debug)]
pub(super) struct AttributeData {
    pub(super) name: Name,
    pub(super) value: Box<str>,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The name of an element or attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As written before the colon; empty without one.
    pub prefix: Box<str>,
    /// As written after the colon.
    pub local: Box<str>,
    /// What the prefix stands for; `None` outside every namespace.
    pub namespace: Option<Arc<str>>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.prefix.is_empty() {
            write!(f, "{}:", self.prefix)?;
        }
        f.write_str(&self.local)
    }
}

/// A node of a document. Copying it copies an index. Nodes of one document are ordered as they were written.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    document: &'a Document,
    index: u32,
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && std::ptr::eq(self.document, other.document)
    }
}

impl Eq for Node<'_> {}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} {:?}", self.index, self.kind())
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// The document that holds the root element.
    Document,
    /// An element; its attributes and children are asked of [`Element`].
    Element(&'a Name),
    /// A run of text, CDATA sections merged in.
    Text(&'a str),
    /// A comment, without its marks.
    Comment(&'a str),
    /// A processing instruction.
    Instruction {
        /// Its first word.
        target: &'a str,
        /// The rest.
        data: &'a str,
    },
}

impl Document {
    /// The name the document was parsed under, for messages.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The document node, parent of the root element.
    pub fn node(&self) -> Node<'_> {
        Node {
            document: self,
            index: 0,
        }
    }

    /// The root element.
    pub fn root(&self) -> Element<'_> {
        // The parser refuses documents without a root; the document node answers like an element without a name.
        let root = self.node().children().find_map(Node::element);
        root.unwrap_or(Element { node: self.node() })
    }

    /// How many nodes there are, the document included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never true: a document has a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// The node with this index in document order.
    pub fn at(&self, index: u32) -> Option<Node<'_>> {
        ((index as usize) < self.nodes.len()).then_some(Node {
            document: self,
            index,
        })
    }
}

impl<'a> Node<'a> {
    fn data(self) -> Option<&'a NodeData> {
        self.document.nodes.get(self.index as usize)
    }

    fn linked(self, index: u32) -> Option<Self> {
        (index != 0).then_some(Self {
            document: self.document,
            index,
        })
    }

    /// The document that it belongs to.
    pub fn document(self) -> &'a Document {
        self.document
    }

    /// Its place in document order, counted from 0 (the document).
    pub fn index(self) -> u32 {
        self.index
    }

    /// What it is.
    pub fn kind(self) -> Kind<'a> {
        match self.data().map(|data| &data.content) {
            Some(Content::Element { name, .. }) => Kind::Element(name),
            Some(Content::Text(text)) => Kind::Text(text),
            Some(Content::Comment(text)) => Kind::Comment(text),
            Some(Content::Instruction { target, data }) => Kind::Instruction { target, data },
            Some(Content::Document) | None => Kind::Document,
        }
    }

    /// The node as an element, when it is one.
    pub fn element(self) -> Option<Element<'a>> {
        matches!(self.kind(), Kind::Element(_)).then_some(Element { node: self })
    }

    /// The line it starts on, counted from 1.
    pub fn line(self) -> u32 {
        self.data().map_or(1, |data| data.line)
    }

    /// The column it starts at, in characters counted from 1.
    pub fn column(self) -> u32 {
        self.data().map_or(1, |data| data.column)
    }

    /// The node that holds it; `None` for the document.
    pub fn parent(self) -> Option<Self> {
        (self.index != 0).then(|| Self {
            document: self.document,
            index: self.data().map_or(0, |data| data.parent),
        })
    }

    /// The node after it under the same parent.
    pub fn next(self) -> Option<Self> {
        self.data().and_then(|data| self.linked(data.next))
    }

    /// The node before it under the same parent.
    pub fn previous(self) -> Option<Self> {
        self.data().and_then(|data| self.linked(data.previous))
    }

    /// Its children, in order.
    pub fn children(self) -> impl Iterator<Item = Node<'a>> + Clone {
        let first = self.data().and_then(|data| self.linked(data.first_child));
        std::iter::successors(first, |node| node.next())
    }

    /// The last of its children.
    pub fn last_child(self) -> Option<Self> {
        self.data().and_then(|data| self.linked(data.last_child))
    }

    /// Everything below it, in document order.
    pub fn descendants(self) -> impl DoubleEndedIterator<Item = Node<'a>> + Clone {
        let document = self.document;
        let end = self.end();
        (self.index + 1..end).map(move |index| Node { document, index })
    }

    /// One past the index of its last descendant.
    pub fn end(self) -> u32 {
        self.data().map_or(self.index + 1, |data| data.end)
    }

    /// All text below it, in order: the string value of XPath 1.0, 5.
    pub fn text(self) -> Cow<'a, str> {
        match self.kind() {
            Kind::Text(text) | Kind::Comment(text) => return Cow::Borrowed(text),
            Kind::Instruction { data, .. } => return Cow::Borrowed(data),
            Kind::Element(_) | Kind::Document => {}
        }
        let mut texts = self.descendants().filter_map(|node| match node.kind() {
            Kind::Text(text) => Some(text),
            _ => None,
        });
        let Some(first) = texts.next() else {
            return Cow::Borrowed("");
        };
        let Some(second) = texts.next() else {
            return Cow::Borrowed(first);
        };
        let mut all = String::with_capacity(first.len() + second.len());
        all.push_str(first);
        all.push_str(second);
        texts.for_each(|text| all.push_str(text));
        Cow::Owned(all)
    }
}

/// An element of a document. Copying it copies an index.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    node: Node<'a>,
}

impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}> at {}", self.name(), self.place())
    }
}

/// An attribute of an element.
#[derive(Clone, Copy)]
pub struct Attribute<'a> {
    element: Element<'a>,
    data: &'a AttributeData,
}

impl fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}={:?} at {}",
            self.data.name,
            self.value(),
            self.place()
        )
    }
}

impl<'a> Element<'a> {
    /// The element as a node.
    pub fn node(self) -> Node<'a> {
        self.node
    }

    /// Its name without prefix. Bundles use no prefixes, so this is what configuration is read by.
    pub fn name(self) -> &'a str {
        match self.node.kind() {
            Kind::Element(name) => &name.local,
            _ => "",
        }
    }

    /// Its whole name; `None` never happens for elements of a parsed document.
    pub fn full_name(self) -> Option<&'a Name> {
        match self.node.kind() {
            Kind::Element(name) => Some(name),
            _ => None,
        }
    }

    /// The line it starts on, counted from 1.
    pub fn line(self) -> u32 {
        self.node.line()
    }

    /// The column it starts at, in characters counted from 1.
    pub fn column(self) -> u32 {
        self.node.column()
    }

    /// Where it was written, for diagnostics.
    pub fn place(self) -> SourceRef {
        let file = Arc::clone(&self.node.document.file);
        SourceRef::document(file).at_line(self.line())
    }

    /// Its attributes, namespace declarations included, in order.
    pub fn attributes(self) -> impl Iterator<Item = Attribute<'a>> + Clone {
        let range = match self.node.data().map(|data| &data.content) {
            Some(Content::Element { attributes, .. }) => {
                attributes.start as usize..attributes.end as usize
            }
            _ => 0..0,
        };
        let data = self.node.document.attributes.get(range);
        let data = data.unwrap_or_default();
        data.iter().map(move |data| Attribute {
            element: self,
            data,
        })
    }

    /// The value of the attribute with this local name.
    pub fn attribute(self, name: &str) -> Option<&'a str> {
        self.attribute_named(name).map(Attribute::value)
    }

    /// The attribute with this local name that declares no namespace.
    pub fn attribute_named(self, name: &str) -> Option<Attribute<'a>> {
        self.attributes()
            .find(|attribute| !attribute.is_namespace() && attribute.name() == name)
    }

    /// Its child elements, in order.
    pub fn children(self) -> impl Iterator<Item = Element<'a>> + Clone {
        self.node.children().filter_map(Node::element)
    }

    /// Its first child element of this name.
    pub fn child(self, name: &str) -> Option<Element<'a>> {
        self.children().find(|child| child.name() == name)
    }

    /// Its child elements of this name, in order.
    pub fn children_named(self, name: &str) -> impl Iterator<Item = Element<'a>> + Clone {
        let name = name.to_owned();
        self.children().filter(move |child| child.name() == name)
    }

    /// The text directly in it (not in its children), with all white space.
    pub fn raw_text(self) -> Cow<'a, str> {
        let mut texts = self.node.children().filter_map(|node| match node.kind() {
            Kind::Text(text) => Some(text),
            _ => None,
        });
        let Some(first) = texts.next() else {
            return Cow::Borrowed("");
        };
        let mut all = Cow::Borrowed(first);
        for text in texts {
            all.to_mut().push_str(text);
        }
        all
    }

    /// The text directly in it, without white space around it: what configuration elements hold.
    pub fn text(self) -> Cow<'a, str> {
        match self.raw_text() {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        }
    }

    /// Everything in it as XML text: what a payload written as elements reads as. Text without elements is not escaped.
    pub fn inner_xml(self) -> Cow<'a, str> {
        if self
            .node
            .children()
            .all(|node| matches!(node.kind(), Kind::Text(_)))
        {
            return self.raw_text();
        }
        let mut text = String::new();
        for child in self.node.children() {
            super::write::write_inside(child, &mut text);
        }
        Cow::Owned(text)
    }

    /// The text of the child of this name, without white space around it.
    pub fn child_text(self, name: &str) -> Option<Cow<'a, str>> {
        self.child(name).map(Element::text)
    }
}

impl<'a> Attribute<'a> {
    /// Its name without prefix.
    pub fn name(self) -> &'a str {
        &self.data.name.local
    }

    /// Its whole name.
    pub fn full_name(self) -> &'a Name {
        &self.data.name
    }

    /// Its value, normalized as XML 1.0, 3.3.3 says for text.
    pub fn value(self) -> &'a str {
        &self.data.value
    }

    /// Whether it declares a namespace (`xmlns`, `xmlns:p`).
    pub fn is_namespace(self) -> bool {
        let name = &self.data.name;
        &*name.prefix == "xmlns" || (name.prefix.is_empty() && &*name.local == "xmlns")
    }

    /// The element that carries it.
    pub fn element(self) -> Element<'a> {
        self.element
    }

    /// The line of its name, counted from 1.
    pub fn line(self) -> u32 {
        self.data.line
    }

    /// The column of its name, in characters counted from 1.
    pub fn column(self) -> u32 {
        self.data.column
    }

    /// Where it was written, for diagnostics.
    pub fn place(self) -> SourceRef {
        let file = Arc::clone(&self.element.node.document.file);
        SourceRef::document(file).at_line(self.line())
    }
}
