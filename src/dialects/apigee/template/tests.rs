#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::super::variables::{Fixed, MessageHandle, Value};
use super::*;

fn variables() -> Fixed {
    Fixed::of([
        ("name", "World".into()),
        ("a.b-c_d", "x".into()),
        ("empty", "".into()),
        ("three", 3.into()),
        ("yes", true.into()),
        ("alpha", "ABCDEFGHIJKLMNOPQRSTUVWXYZ".into()),
        ("quotes", "a\"b\\c\n'<&>".into()),
        ("time", 1_377_112_607_i64.into()),
        ("millis", 1_377_112_607_089_i64.into()),
        ("format", "yyyy".into()),
        (
            "xml",
            "<a><b>1</b><b>2</b><p:d xmlns:p='urn:p' e='5'/></a>".into(),
        ),
        ("json", "{\"a\":{\"b\":[1,2],\"c\":\"x\"}}".into()),
        ("regex", "[A-C]".into()),
        ("message", Value::Message(MessageHandle(0))),
        ("umlaut", "\u{FC}\u{20AC}".into()),
    ])
}

fn render(text: &str) -> Result<String, RenderError> {
    let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    template
        .render(&variables(), Unresolved::Fails)
        .map(Cow::into_owned)
}

/// Template and result.
const CASES: &[(&str, &str)] = &[
    ("", ""),
    ("plain", "plain"),
    ("{name}", "World"),
    ("Hello {name}!", "Hello World!"),
    ("{name}{name}", "WorldWorld"),
    ("{a.b-c_d}", "x"),
    ("{empty}", ""),
    ("{three}{yes}", "3true"),
    ("{message}", "body"),
    ("{unset:fallback}", "fallback"),
    ("{unset:}", ""),
    ("{unset:a b, c}", "a b, c"),
    ("{unset:https}://{unset:host:80}/", "https://host:80/"),
    ("{empty:fallback}", ""),
    ("{name:fallback}", "World"),
    // What is not a variable stays.
    ("{", "{"),
    ("}", "}"),
    ("{}", "{}"),
    ("{ name }", "{ name }"),
    ("{na me}", "{na me}"),
    ("{\"a\":1}", "{\"a\":1}"),
    ("{ \"a\": 1 }", "{ \"a\": 1 }"),
    ("{\"a\":{}}", "{\"a\":{}}"),
    ("{\"a\":\"{name}\"}", "{\"a\":\"World\"}"),
    ("{\"a\":{\"b\":{name}}}", "{\"a\":{\"b\":World}}"),
    ("{\n  \"a\": [{three}, {}]\n}", "{\n  \"a\": [3, {}]\n}"),
    ("{'name'}", "{'name'}"),
    ("{1abc}", "{1abc}"),
    ("{name", "{name"),
    ("{{name}}", "{World}"),
    ("{na{name}", "{naWorld"),
    ("{unknown(name)}", "{unknown(name)}"),
    ("{toUpperCase(name}", "{toUpperCase(name}"),
    ("{toUpperCase(name)", "{toUpperCase(name)"),
    ("{toUpperCase( name )}", "{toUpperCase( name )}"),
    ("{toUpperCase(name) }", "{toUpperCase(name) }"),
    (
        "{toUpperCase(toLowerCase(name))}",
        "{toUpperCase(toLowerCase(name))}",
    ),
    ("function(){return 1}", "function(){return 1}"),
    ("{\u{e4}}", "{\u{e4}}"),
    // Functions.
    ("{toUpperCase(name)}", "WORLD"),
    ("{toLowerCase('ABC')}", "abc"),
    ("{toLowerCase(unset:FOO)}", "foo"),
    ("{md5Hex('')}", "d41d8cd98f00b204e9800998ecf8427e"),
    (
        "{sha1Hex('abc')}",
        "a9993e364706816aba3e25717850c26c9cd0d89d",
    ),
    (
        "{sha256Hex('abc')}",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
    (
        "{sha384Base64('abc')}",
        "ywB1P0WjXou1oD1pmsZQBycsMqsO3tFjGotgWkP/W+2AhgcroefMI1i67KE0yCWn",
    ),
    ("{md5Base64('abc')}", "kAFQmDzST7DWlj99KOF/cg=="),
    (
        "{hmacSha256('key','The quick brown fox jumps over the lazy dog','utf-8','hex')}",
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8",
    ),
    (
        "{hmacSha1('6b6579','The quick brown fox jumps over the lazy dog','hex','base16')}",
        "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9",
    ),
    (
        "{hmacMd5('a2V5','The quick brown fox jumps over the lazy dog','base64')}",
        "gAcHE0Y+d0m5DC3CSRHidQ==",
    ),
    ("{encodeBase64(name)}", "V29ybGQ="),
    ("{decodeBase64('V29ybGQ=')}", "World"),
    ("{decodeBase64('-_-_')}", ""),
    ("{substring(alpha,0,4)}", "ABCD"),
    ("{substring(alpha,-4)}", "WXYZ"),
    ("{substring(alpha,-4,-2)}", "WX"),
    ("{substring(alpha,4,three)}", ""),
    ("{substring(alpha,24)}", "YZ"),
    ("{substring(alpha,100)}", ""),
    ("{substring(name,-100,2)}", "Wo"),
    ("{replaceAll(alpha,'[A-Y]','')}", "Z"),
    ("{replaceAll(name,'(.)o','$1-')}", "W-rld"),
    ("{replaceFirst(alpha,'[A-Y]+','<>')}", "<>Z"),
    ("{replaceAll(alpha,regex,'')}", "DEFGHIJKLMNOPQRSTUVWXYZ"),
    ("{replaceAll('a}b','}','{')}", "a{b"),
    ("{escapeJSON(quotes)}", "a\\\"b\\\\c\\n'<&>"),
    ("{escapeXML(quotes)}", "a&quot;b\\c\n&apos;&lt;&amp;&gt;"),
    ("{escapeXML11('<')}", "&lt;"),
    (
        "{encodeHTML('<a href=\"x\">')}",
        "&lt;a href=&quot;x&quot;&gt;",
    ),
    ("{escapeHTML(umlaut)}", "&uuml;\u{20AC}"),
    (
        "{timeFormatUTC('yyyy-MM-dd HH:mm:ss',time)}",
        "2013-08-21 19:16:47",
    ),
    ("{timeFormatUTCMs('SSS',millis)}", "089"),
    (
        "{timeFormat(format,time)}{timeFormatMs(format,millis)}",
        "20132013",
    ),
    ("{createUuid()}", "01234567-89ab-4def-8123-456789abcdef"),
    ("{randomLong()}", "81985529216486895"),
    ("{randomLong(5,5)}", "5"),
    ("{firstnonnull(unset,name)}", "World"),
    ("{firstnonnull(unset,empty,name)}", ""),
    ("{firstnonnull(unset,unset2,'f')}", "f"),
    ("{firstnonnull(unset)}", "null"),
    ("{xeger('a{3}b')}", "aaab"),
    ("{xpath('/a/b',xml)}", "<b>1</b><b>2</b>"),
    ("{xpath('/a/b',xml,'node')}", "<b>1</b>"),
    ("{xpath('/a/b',xml,'string')}", "1"),
    ("{xpath('sum(//b)',xml,'number')}", "3"),
    ("{xpath('//c',xml,'boolean')}", "false"),
    ("{xpath('//p:d/@e',xml,'string','p:urn:p')}", "5"),
    ("{xpath('//c',xml)}", ""),
    ("{xpath('//c',name)}", ""),
    ("{jsonPath('$.a.b',json)}", "1"),
    ("{jsonPath('$.a[*]',json,'true')}", "[[1,2],\"x\"]"),
    ("{jsonPath('$.a.c',json)}", "x"),
    ("{jsonPath('$.nix',json)}", ""),
];

#[test]
fn renders_the_table() {
    for (text, expected) in CASES {
        assert_eq!(render(text).as_deref(), Ok(*expected), "{text}");
        // Among other text nothing changes.
        let among = format!("<{text}> {text}");
        let twice = format!("<{expected}> {expected}");
        assert_eq!(render(&among).as_deref(), Ok(twice.as_str()), "{among}");
    }
}

#[test]
fn tells_the_missing() {
    for text in [
        "{unset}",
        "a{unset}b",
        "{toUpperCase(unset)}",
        "{substring(name,unset)}",
    ] {
        assert_eq!(
            render(text),
            Err(RenderError::Unresolved("unset".into())),
            "{text}"
        );
        let template = Template::parse(text).unwrap();
        assert!(
            template.render(&variables(), Unresolved::Empty).is_ok(),
            "{text}"
        );
    }
    let template = Template::parse("a{unset}b").unwrap();
    assert_eq!(
        template.render(&variables(), Unresolved::Empty).unwrap(),
        "ab"
    );
}

#[test]
fn refuses_wrong_arguments() {
    for (text, line, column, part) in [
        ("{md5Hex()}", 1, 1, "takes 1 arguments, not 0"),
        ("x\n {substring(name)}", 2, 2, "takes 2 to 3"),
        ("{replaceAll(name,'(','')}", 1, 1, "regular expression"),
        ("{createUuid(name)}", 1, 1, "takes 0"),
    ] {
        let error = Template::parse(text).expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{text}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
    for text in [
        "{substring(name,name)}",
        "{timeFormat('bb',time)}",
        "{hmacSha1('k','t','odd')}",
        "{hmacSha1('zz','t','hex')}",
        "{randomLong(5,4)}",
        "{replaceAll(name,empty:x(,'')}",
        "{xeger('a{5000}')}",
    ] {
        let rendered = Template::parse(text).map(|template| {
            template
                .render(&variables(), Unresolved::Empty)
                .map(Cow::into_owned)
        });
        assert!(
            matches!(rendered, Ok(Err(RenderError::Argument { .. })) | Ok(Ok(_))),
            "{text}: {rendered:?}"
        );
    }
    assert!(matches!(
        render("{substring(name,name)}"),
        Err(RenderError::Argument { .. })
    ));
    assert!(Template::parse(&"x".repeat(BYTES_MAX + 1)).is_err());
    assert!(Template::parse(&"{a}".repeat(PIECES_MAX + 1)).is_err());
}

#[test]
fn takes_other_delimiters() {
    let template = Template::parse_delimited(
        "{\"a\":\"@name#\",\"b\":{name}} @un set# @unset:d# #@",
        "@",
        "#",
    )
    .unwrap();
    let variables = variables();
    let text = template.render(&variables, Unresolved::Fails).unwrap();
    assert_eq!(text, "{\"a\":\"World\",\"b\":{name}} @un set# d #@");
    assert_eq!(
        Template::literal("{name}")
            .render(&variables, Unresolved::Fails)
            .unwrap(),
        "{name}"
    );
}

#[test]
fn knows_what_is_fixed_and_what_it_reads() {
    assert_eq!(
        Template::parse("{\"a\":1}").unwrap().fixed(),
        Some("{\"a\":1}")
    );
    assert_eq!(Template::parse("").unwrap().fixed(), Some(""));
    let template = Template::parse("{a} {toUpperCase(b.c)} {md5Hex('x')}").unwrap();
    assert_eq!(template.fixed(), None);
    let names: Vec<_> = template
        .variables()
        .into_iter()
        .map(VariableName::as_str)
        .collect();
    assert_eq!(names, ["a", "b.c"]);
}

#[test]
fn text_without_references_is_unchanged() {
    use proptest::prelude::*;
    let piece = prop::sample::select(vec![
        "{", "}", "\"", " ", "a", ":", "(", ")", "'", ",", "\n", "{ ", "{\"", "1", "[", "\u{e9}",
    ]);
    let variables = variables();
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&prop::collection::vec(piece, 0..30), |pieces| {
            let text = pieces.concat();
            let template = Template::parse(&text).unwrap();
            if template.variables().is_empty() {
                prop_assert_eq!(
                    template.render(&variables, Unresolved::Fails).unwrap(),
                    text.as_str()
                );
            }
            // Whatever it is, JSON around it survives.
            let json = format!("{{\"k\": \"{text}\"}}");
            let rendered = Template::parse(&json).unwrap();
            let rendered = rendered.render(&variables, Unresolved::Empty).unwrap();
            let kept = rendered.starts_with("{\"k\": \"") && rendered.ends_with("\"}");
            prop_assert!(kept, "{}", rendered);
            Ok(())
        })
        .unwrap();
}

#[test]
fn makes_up_matching_texts() {
    let mut state = 7_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 20
    };
    for pattern in ["[a-z]{3,5}-\\d+", "(foo|bar)?x*", "[^a]", "\\w{8}", "."] {
        let regex = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
        for _ in 0..50 {
            let text = xeger::generate(pattern, &mut random).unwrap();
            assert!(regex.is_match(&text), "{pattern}: {text:?}");
        }
    }
    assert!(xeger::generate("(", &mut random).is_err());
    assert!(xeger::generate("((a{1000}){1000}){1000}", &mut random).is_err());
}
