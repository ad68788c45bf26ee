#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::*;
use crate::dialects::apigee::xml::Limits;

const DOCUMENT: &str = r#"<?xml version="1.0"?>
<store xmlns:p="urn:p" xml:lang="en-GB"><!--note-->
 <book id="1" category="fiction"><title>One</title><price>8.95</price></book>
 <book id="2"><title>Two</title><price>12.99</price></book>
 <book id="3" category="fiction"><title>Three <b>bold</b></title><price>8.99</price></book>
 <p:extra p:kind="x">hidden</p:extra><?go now?>
 <soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body><r xmlns="urn:r">42</r></soap:Body></soap:Envelope>
</store>"#;

fn namespaces() -> Vec<(String, String)> {
    [
        ("q", "urn:p"),
        ("s", "http://schemas.xmlsoap.org/soap/envelope/"),
        ("r", "urn:r"),
    ]
    .map(|(prefix, namespace)| (prefix.to_owned(), namespace.to_owned()))
    .to_vec()
}

const CASES: &[(&str, &str)] = &[
    ("/store/book[1]/title", "One"),
    ("/store/book[2]/title/text()", "Two"),
    ("/store/book[last()]/title", "Three bold"),
    ("//book[@id='2']/price", "12.99"),
    ("//book[@category]/@id", "1"),
    ("count(//book)", "3"),
    ("count(//book[@category='fiction'])", "2"),
    ("sum(//price)", "30.93"),
    ("count(//@id)", "3"),
    ("count(//node())", "32"),
    ("/store/book[price > 9]/@id", "2"),
    ("/store/book[price<9 and @id>1]/@id", "3"),
    ("string(//book[3]/@category)", "fiction"),
    ("//q:extra", "hidden"),
    ("//q:extra/@q:kind", "x"),
    ("//q:*", "hidden"),
    ("//extra", "-"),
    ("/store/s:Envelope/s:Body/r:r", "42"),
    ("//*[local-name()='r']", "42"),
    ("//*[local-name()='r' and namespace-uri()='urn:r']", "42"),
    ("name(//q:extra)", "p:extra"),
    ("local-name(//q:extra/@*)", "kind"),
    ("name(//processing-instruction())", "go"),
    ("//processing-instruction('go')", "now"),
    ("//comment()", "note"),
    ("//title[. = 'Two']/../@id", "2"),
    (
        "//title[.='Two']/parent::book/following-sibling::book/@id",
        "3",
    ),
    ("//book[@id=3]/preceding-sibling::book[1]/@id", "2"),
    ("//b/ancestor::book/@id", "3"),
    ("count(//b/ancestor::*)", "3"),
    ("name(//b/ancestor-or-self::*[1])", "b"),
    ("name(//b/ancestor::*[last()])", "store"),
    ("count(//book[2]/following::book)", "1"),
    ("count(//book[2]/preceding::book)", "1"),
    ("count(//book[2]/preceding::title)", "1"),
    ("//book[position()=2]/@id", "2"),
    ("//book[2]/child::title", "Two"),
    ("/store/descendant::b", "bold"),
    (
        "count(/store/descendant-or-self::node()) = count(/store/descendant::node()) + 1",
        "true",
    ),
    ("(//book)[3]/@id", "3"),
    ("//book[1] | //book[3]", "One8.95"),
    ("count(//book | //book[1])", "3"),
    ("1 + 2 * 3", "7"),
    ("(1 + 2) * 3", "9"),
    ("7 mod 3", "1"),
    ("-7 mod 3", "-1"),
    ("7 div 2", "3.5"),
    ("1 div 0", "Infinity"),
    ("0 div 0", "NaN"),
    ("- - 3", "3"),
    ("5-3", "2"),
    ("0.5", "0.5"),
    (".5 + 1.", "1.5"),
    ("1 < 2 = true()", "true"),
    ("'a' = \"a\"", "true"),
    ("//price = 8.99", "true"),
    ("//price != 8.99", "true"),
    ("//price = 1", "false"),
    ("//price > //book/@id", "true"),
    ("//nothing = false()", "true"),
    ("//nothing = ''", "false"),
    ("not(//nothing)", "true"),
    ("boolean(//book)", "true"),
    ("number('12x')", "NaN"),
    ("number(' -12.50 ')", "-12.5"),
    ("concat('a', 1, true())", "a1true"),
    ("starts-with('abc', 'ab')", "true"),
    ("contains('abc', 'd')", "false"),
    ("substring-before('1999/04/01', '/')", "1999"),
    ("substring-after('1999/04/01', '/')", "04/01"),
    ("substring('12345', 2, 3)", "234"),
    ("substring('12345', 1.5, 2.6)", "234"),
    ("substring('12345', 0 div 0, 3)", ""),
    ("substring('12345', -42, 1 div 0)", "12345"),
    ("substring('12345', 2)", "2345"),
    ("string-length('h\u{E4}')", "2"),
    ("normalize-space('  a\n b ')", "a b"),
    ("translate('bar','abc','AB')", "BAr"),
    ("floor(-1.5)", "-2"),
    ("ceiling(1.2)", "2"),
    ("round(2.5)", "3"),
    ("round(-2.5)", "-2"),
    ("count(id('1'))", "0"),
    ("count(//book[lang('en')])", "3"),
    ("string(/)", "-long"),
    ("/", "-long"),
    (".", "-long"),
    ("/store/*[1]/@id", "1"),
    ("//book[title][price]/@id", "1"),
    ("//book[not(@category)]/@id", "2"),
    ("/store//b", "bold"),
    ("//div", "-"),
    ("/store/book[@id = 1 or @id = 2][2]/@id", "2"),
    ("//@category/..//b", "bold"),
    ("self::node()/store/book[1]/@id", "1"),
    ("//title/@*", "-"),
    ("//*[@id='2']/title/following-sibling::*", "12.99"),
    ("//book[count(title) = 1]/@id", "1"),
    ("//@id[. = 2]/../title", "Two"),
    ("string-length(//title)", "3"),
];

#[test]
fn evaluates_the_table() {
    let document = Document::parse("d", DOCUMENT, Limits::MESSAGE).unwrap();
    for (text, expected) in CASES {
        let xpath = XPath::parse(text, &namespaces()).unwrap_or_else(|error| panic!("{error}"));
        let outcome = xpath.evaluate(&document).unwrap();
        match *expected {
            "-" => assert!(outcome.is_nothing(), "{text}: {outcome:?}"),
            "-long" => assert!(outcome.text().contains("hidden"), "{text}"),
            expected => assert_eq!(outcome.text(), expected, "{text}"),
        }
    }
}

#[test]
fn writes_nodes_as_xml() {
    let document = Document::parse(
        "d",
        "<a xmlns:p='u'><b x='1'>t&amp;</b><b/></a>",
        Limits::MESSAGE,
    )
    .unwrap();
    let xml = |text: &str| {
        XPath::parse(text, &[])
            .unwrap()
            .evaluate(&document)
            .unwrap()
            .xml()
    };
    assert_eq!(
        xml("//b"),
        "<b x=\"1\" xmlns:p=\"u\">t&amp;</b><b xmlns:p=\"u\"/>"
    );
    assert_eq!(xml("//b/@x"), "x=\"1\"");
    assert_eq!(xml("//b/text()"), "t&amp;");
    assert_eq!(xml("count(//b)"), "2");
}

#[test]
fn tells_what_is_wrong() {
    for (text, column, part) in [
        ("", 1, "expected"),
        ("/a/", 4, "expected"),
        ("a[", 3, "expected"),
        ("a[1", 4, "']' is expected"),
        ("a]", 2, "the end is expected"),
        ("'a", 1, "quote"),
        ("$x", 1, "no variables"),
        ("foo()", 1, "function 'foo'"),
        ("count()", 1, "does not take 0"),
        ("z:a", 1, "prefix 'z'"),
        ("namespace::a", 1, "axis"),
        ("a # b", 3, "does not belong"),
        ("a b", 3, "the end"),
        ("1 +", 4, "expected"),
    ] {
        let error = XPath::parse(text, &[]).expect_err(text);
        assert!(
            error.contains(&format!("column {column}:")) && error.contains(part),
            "{error}"
        );
    }
    for deep in [
        "(".repeat(5000),
        "-".repeat(5000) + "(",
        "a[".repeat(3000),
        "not(".repeat(1500),
    ] {
        assert!(XPath::parse(&deep, &[]).is_err());
    }
}

#[test]
fn long_chains_need_no_stack() {
    let document = Document::parse("d", "<a/>", Limits::MESSAGE).unwrap();
    for (operand, operator) in [
        ("1", "+"),
        ("1", "="),
        ("a", "|"),
        ("1", " or "),
        ("1", " and "),
        ("a", "/"),
    ] {
        let chain = vec![operand; 800].join(operator);
        let xpath = XPath::parse(&chain, &[]).unwrap_or_else(|error| panic!("{operator}: {error}"));
        xpath.evaluate(&document).unwrap();
    }
}

#[test]
fn looks_at_no_more_than_its_budget() {
    let text = format!("<a>{}</a>", "<b>x</b>".repeat(3000));
    let document = Document::parse("d", &text, Limits::MESSAGE).unwrap();
    for expression in [
        "//*[.=//*[.=//*[.='y']]]",
        "count(//b/following::b/following::b)",
        "//b = //b[. = 'y'] or //b[../b != ../b]",
    ] {
        let xpath = XPath::parse(expression, &[]).unwrap();
        assert!(xpath.evaluate(&document).is_err(), "{expression}");
    }
}
