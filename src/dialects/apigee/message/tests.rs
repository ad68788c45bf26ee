#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::*;

fn property(text: &str) -> Property {
    Property::parse(text).expect(text)
}

fn read(message: &Message, name: &str) -> Option<String> {
    message
        .read(&property(name))
        .map(|value| value.into_text().into_owned())
}

fn write(message: &mut Message, name: &str, value: &str) -> Result<(), WriteError> {
    message.write(&property(name), value)
}

fn example() -> Message {
    let mut message = Message::request();
    message.verb = "POST".into();
    message.path = "/a%2fb/c".to_owned();
    message.query = Some("w=1&x=%7E&w=two+2&e".to_owned());
    for (name, value) in [
        ("Accept", "text/html, text/xml;q=1"),
        ("accept", "*/*"),
        ("Date", "Wed, 21 Aug 2013 19:16:47 GMT"),
        (
            "Content-Type",
            "application/x-www-form-urlencoded; charset=utf-8",
        ),
        ("X-Empty", ""),
    ] {
        message.add_header(name, value).unwrap();
    }
    message.content = Bytes::from_static(b"f=1&g=a%26b&f=2");
    message
}

#[test]
fn reads_properties() {
    let message = example();
    let cases = [
        ("verb", Some("POST")),
        ("path", Some("/a%2fb/c")),
        ("uri", Some("/a%2fb/c?w=1&x=%7E&w=two+2&e")),
        ("version", Some("1.1")),
        ("querystring", Some("w=1&x=%7E&w=two+2&e")),
        ("header.ACCEPT", Some("text/html")),
        ("header.Accept.1", Some("text/html")),
        ("header.Accept.2", Some("text/xml;q=1")),
        ("header.Accept.3", Some("*/*")),
        ("header.Accept.4", None),
        ("header.Accept.0", None),
        (
            "header.Accept.values",
            Some("[text/html, text/xml;q=1, */*]"),
        ),
        ("header.Accept.values.count", Some("3")),
        (
            "header.Accept.values.string",
            Some("text/html, text/xml;q=1,*/*"),
        ),
        ("header.Date", Some("Wed, 21 Aug 2013 19:16:47 GMT")),
        ("header.x-empty", Some("")),
        ("header.none", None),
        ("header.none.values", None),
        ("header.not a name", None),
        ("headers.count", Some("4")),
        (
            "headers.names.string",
            Some("accept,date,content-type,x-empty"),
        ),
        ("queryparam.w", Some("1")),
        ("queryparam.w.2", Some("two 2")),
        ("queryparam.W", None),
        ("queryparam.x", Some("~")),
        ("queryparam.e", Some("")),
        ("queryparam.w.values.count", Some("2")),
        ("queryparam.w.values", Some("[1, two 2]")),
        ("queryparams.count", Some("4")),
        ("queryparams.names", Some("[w, x, e]")),
        ("formparam.g", Some("a&b")),
        ("formparam.f.2", Some("2")),
        ("formparam.q", None),
        ("formparams.names.string", Some("f,g")),
        ("formstring", Some("f=1&g=a%26b&f=2")),
        ("content", Some("f=1&g=a%26b&f=2")),
        ("content.as.base64", Some("Zj0xJmc9YSUyNmImZj0y")),
        ("status.code", None),
        ("reason.phrase", None),
    ];
    for (name, expected) in cases {
        assert_eq!(read(&message, name).as_deref(), expected, "{name}");
    }
    let response = Message::response();
    assert_eq!(read(&response, "status.code").as_deref(), Some("200"));
    assert_eq!(read(&response, "reason.phrase").as_deref(), Some("OK"));
    assert_eq!(read(&response, "verb"), None);
    assert_eq!(read(&response, "queryparams.count"), None);
}

#[test]
fn writes_and_leaves_the_rest_alone() {
    let mut message = example();
    write(&mut message, "queryparam.w.2", "a b").unwrap();
    assert_eq!(
        read(&message, "querystring").as_deref(),
        Some("w=1&x=%7E&w=a%20b&e")
    );
    write(&mut message, "header.accept.2", "b").unwrap();
    assert_eq!(
        read(&message, "header.accept.values.string").as_deref(),
        Some("text/html,b,*/*")
    );
    write(&mut message, "header.Accept", "x, y").unwrap();
    assert_eq!(read(&message, "header.accept").as_deref(), Some("x"));
    assert_eq!(
        read(&message, "header.accept.values.string").as_deref(),
        Some("x, y")
    );
    write(&mut message, "formparam.f", "9").unwrap();
    assert_eq!(read(&message, "content").as_deref(), Some("f=9&g=a%26b"));
    write(&mut message, "path", "x y").unwrap();
    assert_eq!(read(&message, "path").as_deref(), Some("/x%20y"));
    message
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
    write(&mut message, "content", "héllo").unwrap();
    assert_eq!(
        read(&message, "header.content-length").as_deref(),
        Some("6")
    );
    assert!(message.remove(&property("queryparam.w")).unwrap());
    assert!(message.remove(&property("queryparam.x")).unwrap());
    assert!(message.remove(&property("queryparam.e")).unwrap());
    assert_eq!(read(&message, "uri").as_deref(), Some("/x%20y"));
    assert!(message.remove(&property("header.accept.1")).unwrap());
    assert_eq!(read(&message, "header.accept").as_deref(), Some("y"));
    let mut response = Message::response();
    write(&mut response, "status.code", "404").unwrap();
    assert_eq!(
        read(&response, "reason.phrase").as_deref(),
        Some("Not Found")
    );
    write(&mut response, "reason.phrase", "Gone Fishing").unwrap();
    assert_eq!(
        read(&response, "reason.phrase").as_deref(),
        Some("Gone Fishing")
    );
    response.add_form_parameter("a", "1").unwrap();
    response.add_form_parameter("a", "2").unwrap();
    assert_eq!(read(&response, "formstring").as_deref(), Some("a=1&a=2"));
}

#[test]
fn refuses_what_does_not_fit() {
    let mut message = example();
    for (name, value) in [
        ("header.x", "a\r\nb"),
        ("header.a b", "x"),
        ("verb", "G T"),
        ("version", "2"),
        ("status.code", "200"),
    ] {
        assert!(
            matches!(
                write(&mut message, name, value),
                Err(WriteError::Unfit { .. })
            ),
            "{name}"
        );
    }
    for name in [
        "uri",
        "headers.count",
        "header.x.values",
        "content.as.base64",
        "formstring",
    ] {
        assert!(
            matches!(write(&mut message, name, "x"), Err(WriteError::ReadOnly(_))),
            "{name}"
        );
    }
    let mut response = Message::response();
    for (name, value) in [
        ("queryparam.a", "1"),
        ("verb", "GET"),
        ("status.code", "99"),
        ("status.code", "x"),
    ] {
        assert!(
            matches!(
                write(&mut response, name, value),
                Err(WriteError::Unfit { .. })
            ),
            "{name}"
        );
    }
    message
        .headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert!(write(&mut message, "formparam.a", "1").is_err());
    assert_eq!(read(&message, "formparam.f"), None);
}

#[test]
fn reads_the_body_in_its_character_set() {
    let mut message = Message::response();
    message.content = Bytes::from_static(b"\xE4");
    assert_eq!(message.text(), "\u{FFFD}");
    message.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=\"ISO-8859-1\""),
    );
    assert_eq!(message.text(), "ä");
}
