#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::*;

fn parse(text: &str) -> Result<Document, XmlError> {
    Document::parse("f.xml", text, Limits::CONFIGURATION)
}

#[test]
fn knows_places_of_elements_and_attributes() {
    let text = "\u{FEFF}<?xml version='1.0'?>\n<!-- licence -->\n<a x='1'\n   y='2'>\n  <é/><b z=\"&quot;\">t<![CDATA[<u>]]>&amp;v</b></a>\n";
    let document = parse(text).unwrap();
    let root = document.root();
    assert_eq!((root.name(), root.line(), root.column()), ("a", 3, 1));
    let y = root.attribute_named("y").unwrap();
    assert_eq!((y.value(), y.line(), y.column()), ("2", 4, 4));
    let b = root.child("b").unwrap();
    assert_eq!((b.line(), b.column()), (5, 7));
    assert_eq!(b.attribute("z"), Some("\""));
    assert_eq!(b.text(), "t<u>&v");
    assert_eq!(
        b.node().children().count(),
        1,
        "text and CDATA are one node"
    );
    assert_eq!(b.place().to_string(), "f.xml:5");
}

#[test]
fn navigates_in_document_order() {
    let document = parse("<a>1<b>2<c/></b><!--x--><?p d?><d>3</d></a>").unwrap();
    let root = document.root();
    assert_eq!(root.node().text(), "123");
    let names: Vec<_> = root.children().map(Element::name).collect();
    assert_eq!(names, ["b", "d"]);
    let b = root.child("b").unwrap().node();
    assert_eq!(b.descendants().count(), 2);
    assert_eq!(b.next().unwrap().text(), "x");
    assert_eq!(b.previous().unwrap().text(), "1");
    assert_eq!(b.parent().unwrap(), root.node());
    assert_eq!(root.node().parent().unwrap().parent(), None);
    assert_eq!(root.node().last_child().unwrap().text(), "3");
}

#[test]
fn resolves_namespaces() {
    let document =
        parse("<a xmlns='u:1' xmlns:p='u:2'><p:b p:x='1' x='2'/><c xmlns=''/></a>").unwrap();
    let root = document.root();
    assert_eq!(root.full_name().unwrap().namespace.as_deref(), Some("u:1"));
    let b = root.child("b").unwrap();
    assert_eq!(b.full_name().unwrap().namespace.as_deref(), Some("u:2"));
    let attributes: Vec<_> = b
        .attributes()
        .map(|a| a.full_name().namespace.as_deref())
        .collect();
    assert_eq!(attributes, [Some("u:2"), None]);
    assert_eq!(
        root.child("c").unwrap().full_name().unwrap().namespace,
        None
    );
}

#[test]
fn writes_what_it_read() {
    let text = "<a xmlns=\"u:1\" xmlns:p=\"u:2\">x &lt; y<b q=\"&quot;1&quot;\"><c/></b><!--n--><?p d?></a>";
    let document = parse(text).unwrap();
    let mut written = String::new();
    write_node(document.node(), &mut written);
    assert_eq!(written, text);
    written.clear();
    write_node(document.root().child("b").unwrap().node(), &mut written);
    assert_eq!(
        written,
        "<b q=\"&quot;1&quot;\" xmlns=\"u:1\" xmlns:p=\"u:2\"><c/></b>"
    );
    assert_eq!(
        document.root().inner_xml(),
        "x &lt; y<b q=\"&quot;1&quot;\"><c/></b><!--n--><?p d?>"
    );
}

#[test]
fn refuses_what_is_broken_or_dangerous() {
    let cases = [
        ("", "no root element"),
        ("   <!-- x -->", "no root element"),
        ("<a>", "not closed"),
        ("<a></b>", ""),
        ("<a/><b/>", "second root"),
        ("<a/>x", "outside the root"),
        ("x<a/>", "outside the root"),
        ("<a x='1' x='2'/>", "twice"),
        ("<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>", "twice"),
        ("<a x=1/>", "quotes"),
        ("<a x='<'/>", "&lt;"),
        ("<a x/>", "="),
        ("<p:a/>", "prefix 'p' is not declared"),
        ("<a p:x='1'/>", "prefix 'p' is not declared"),
        ("<a xmlns:xmlns='u'/>", "cannot be declared"),
        ("<1a/>", "is not a name"),
        ("<a>&nbsp;</a>", "not defined"),
        ("<a>&#0;</a>", "not a character"),
        ("<a>\u{1}</a>", "U+0001"),
        ("<a>]]></a>", "]]&gt;"),
        ("<a>&</a>", ""),
        ("<!DOCTYPE a><a/>", "DOCTYPE"),
        ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "DOCTYPE"),
        ("<!DOCTYPE a SYSTEM 'http://x.test/'><a/>", "DOCTYPE"),
        ("<a/><?xml version='1.0'?>", "declaration"),
    ];
    for (text, part) in cases {
        let error = parse(text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
        assert!(error.line >= 1 && error.column >= 1);
    }
    assert_eq!(
        parse("<!DOCTYPE a><a/>").unwrap_err().kind,
        XmlErrorKind::Forbidden
    );
    assert_eq!(
        parse("<a>&x;</a>").unwrap_err().kind,
        XmlErrorKind::Forbidden
    );
    let shown = parse("<a>\n <b></a>")
        .unwrap_err()
        .diagnostic("f.xml")
        .to_string();
    assert!(shown.starts_with("f.xml:2: column "), "{shown}");
}

#[test]
fn limits_size_depth_attributes_and_nodes() {
    let limits = Limits {
        bytes: 200,
        depth: 3,
        attributes: 2,
        nodes: 20,
    };
    let parse = |text: &str| Document::parse("f", text, limits);
    assert!(parse("<a><b><c x='1' y='2'/></b></a>").is_ok());
    let cases = [
        "<a><b><c><d/></c></b></a>".to_owned(),
        "<a x='1' y='2' z='3'/>".to_owned(),
        format!("<a>{}</a>", "<b/>".repeat(20)),
        format!("<a>{}</a>", "x".repeat(200)),
    ];
    for text in cases {
        assert_eq!(
            parse(&text).expect_err(&text).kind,
            XmlErrorKind::Limit,
            "{text}"
        );
    }
    // Far deeper than a stack could follow.
    let deep = "<a>".repeat(100_000);
    assert_eq!(parse_deep(&deep).unwrap_err().kind, XmlErrorKind::Limit);
}

fn parse_deep(text: &str) -> Result<Document, XmlError> {
    Document::parse("f", text, Limits::MESSAGE)
}
