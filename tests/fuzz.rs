//! Mutated input for everything that reads what strangers write: no panic, no endless loop, and what the parser promises.
//!
//! Each target starts from seeds that reach its branches and mutates them at random: bytes flipped, cut, doubled, joined
//! with other seeds and with words of its language. The run is short in `cargo test` and as long as `make fuzz` says. A
//! failure prints the seed of its generator and the input; both reproduce it. Coverage-guided fuzzing needs a nightly
//! compiler, which this project does not fetch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use sallyport::settings::{Document, Form, Settings};

/// How long a target runs when nobody says.
const DEFAULT_TIME: Duration = Duration::from_millis(500);
/// The longest input that mutation makes, in bytes.
const INPUT_BYTES_MAX: usize = 4096;
/// The longest that one input may take: beyond it something loops.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);

/// Runs `target` on mutations of `seeds` until the time is over.
fn fuzz(name: &str, seeds: &[&str], words: &[&str], target: impl Fn(&[u8])) {
    let seconds = std::env::var("SALLYPORT_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = seconds.map_or(DEFAULT_TIME, Duration::from_secs);
    let seed = std::env::var("SALLYPORT_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + time;
    let mut count = 0_u64;
    for seed_input in seeds {
        run(name, seed, seed_input.as_bytes(), &target);
    }
    while Instant::now() < end {
        let input = mutate(&mut random, seeds, words);
        run(name, seed, &input, &target);
        count += 1;
    }
    eprintln!("{name}: {count} inputs");
}

fn run(name: &str, seed: u64, input: &[u8], target: &impl Fn(&[u8])) {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let shown = String::from_utf8_lossy(input);
    assert!(
        outcome.is_ok(),
        "{name}: fails with SALLYPORT_FUZZ_SEED={seed} on {shown:?}"
    );
    let took = started.elapsed();
    assert!(
        took < INPUT_TIME_MAX,
        "{name}: takes {took:?} with SALLYPORT_FUZZ_SEED={seed} on {shown:?}"
    );
}

fn mutate(random: &mut StdRng, seeds: &[&str], words: &[&str]) -> Vec<u8> {
    let mut input = seeds.choose(random).expect("seeds").as_bytes().to_vec();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=input.len());
        let to = random.random_range(at..=input.len());
        match random.random_range(0..8) {
            0 => input.insert(at, random.random()),
            1 => drop(input.drain(at..to)),
            2 => {
                let piece = input[at..to].to_vec();
                input.splice(at..at, piece);
            }
            3 => {
                let word = words.choose(random).expect("words").as_bytes().to_vec();
                input.splice(at..at, word);
            }
            4 => {
                let word = words.choose(random).expect("words").as_bytes().to_vec();
                input.splice(at..to, word);
            }
            5 => {
                let other = seeds.choose(random).expect("seeds").as_bytes();
                let from = random.random_range(0..=other.len());
                input.splice(at..at, other[from..].iter().copied());
            }
            6 => input.truncate(at),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

#[test]
fn settings() {
    let seeds = [
        "prefix = \"/a\"\nproxy_listen = [\"0.0.0.0:8000\", \"[::]:8443 ssl http2 backlog=3\"]\nworkers = 2\n",
        "headers = off\ntrusted_ips=0.0.0.0/0,::/0\n# comment \\# not\nerror_default_type = text/html\n",
        "upstream_keepalive_idle_timeout = 1.5\nclient_max_body_size = \"8k\"\n[table]\nx = 1\n",
    ];
    let words = [
        "=",
        "\"",
        "[",
        "]",
        "off",
        "ssl",
        "1e999",
        "9999999999999999999999",
        "g",
        "\n",
        "\\#",
        "stream_listen",
        "é",
    ];
    fuzz("settings", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        for form in [Form::Toml, Form::Conf] {
            let read = Settings::parse(
                Some(Document {
                    name: "f",
                    form,
                    text: &text,
                }),
                &[],
            );
            match read {
                Ok((settings, _)) => assert!(!settings.configuration().is_empty()),
                Err(told) => assert!(!told.is_empty(), "refused without a word"),
            }
        }
    });
}

#[test]
fn paths() {
    use sallyport::base::path::{normal_form, normalize};
    let seeds = [
        "/",
        "/a/b/../c",
        "/a%2fb//./x",
        "/%E4%BD%A0/",
        "/a/..%2f",
        "/%00",
        "/a;b=c/%zz",
        "//",
        "/.../..a/",
    ];
    let words = [
        "/", "..", ".", "%2e", "%2F", "%", "%c3%28", "//", "\\", "\u{7f}",
    ];
    fuzz("paths", &seeds, &words, |input| {
        if let Ok(path) = normalize(input) {
            // What is normal stays as it is: routes are matched against it once and for all.
            assert_eq!(normal_form(&path), path, "not stable");
        }
    });
}

#[test]
fn expressions() {
    use sallyport::expr::{Expression, Scope};
    let seeds = [
        r#"http.path == "/a" && (http.method == "GET" || !(net.port in 1))"#,
        r##"http.headers.x_y ~ r#"^a.*b$"# && http.queries.q ^= "v""##,
        r#"net.src.ip in 10.0.0.0/8 && tls.sni =^ ".test""#,
        r#"any(http.headers.a) contains "b" && lower(http.host) != "C""#,
        r#"http.path.segments.0_2 == "a/b" && http.path.segments.len >= 2"#,
    ];
    let words = [
        "(",
        ")",
        "!",
        "&&",
        "||",
        "==",
        "~",
        "\"",
        "r#\"",
        "\"#",
        "in",
        "not in",
        "any(",
        "::1/128",
        "[a-z]{9999}",
    ];
    fuzz("expressions", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        if let Err(error) = Expression::parse(&text, Scope::Http) {
            assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty());
        }
    });
}

#[test]
fn declarative_documents() {
    use sallyport::dialects::kong::declarative::{Document, Syntax, load};
    use sallyport::dialects::kong::entities::{RouterFlavor, WriteContext};
    let seeds = [
        "_format_version: '3.0'\n_transform: true\nservices:\n- name: a\n  url: http://x.test/p\n  routes:\n  - paths: [/a, '~/b']\n",
        "_format_version: '1.1'\nroutes:\n- paths: ['/a(b)']\n  hosts: ['*.x']\nconsumers:\n- username: u\n  keyauth_credentials:\n  - key: k\n",
        "{\"_format_version\":\"2.1\",\"upstreams\":[{\"name\":\"u\",\"targets\":[{\"target\":\"1.2.3.4:80\",\"weight\":3}]}]}",
        "_format_version: '3.0'\nplugins:\n- name: rate-limiting\n  config: {minute: 5, policy: local}\n",
        "&a [*a, *a]\n",
    ];
    let words = [
        "\n",
        "  ",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "services",
        "~",
        "!!binary",
        "&x",
        "*x",
        "'",
        "null",
        "1e400",
        "_transform",
    ];
    let catalog = sallyport::plugins::catalog();
    fuzz("declarative documents", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        for syntax in [Syntax::Yaml, Syntax::Json] {
            let Ok(document) = Document::parse(&text, syntax) else {
                continue;
            };
            let mut count = 0_u128;
            let mut new_id = || {
                count += 1;
                uuid::Uuid::from_u128(count)
            };
            let mut context = WriteContext {
                now_millis: 1_700_000_000_000,
                flavor: RouterFlavor::default(),
                catalog: &catalog,
                new_id: &mut new_id,
                already_transformed: false,
            };
            if let Err(error) = load(document, &mut context, &mut |_, _| {}) {
                let told = error.to_json(false);
                let fields = told.as_object().is_some_and(|told| !told.is_empty());
                assert!(fields, "refused without a word");
            }
        }
    });
}

#[test]
fn forms() {
    use sallyport::admin::form::parse_form;
    let seeds = [
        "name=a&paths[]=/x&paths[]=/y",
        "config.key_names=a&config[b][c]=1",
        "headers.x[1]=a&headers.x[2]=b",
        "a=%zz&b=%c3%a4&=&c",
    ];
    let words = ["&", "=", "[", "]", "[]", ".", "%5B", "[99999999]", "a", "+"];
    fuzz("forms", &seeds, &words, |input| {
        // Either answer will do.
        let _ = parse_form(input);
    });
}

#[test]
fn apigee_conditions() {
    use sallyport::dialects::apigee::condition::Condition;
    use sallyport::dialects::apigee::condition::pattern::{Glob, PathPattern};
    let seeds = [
        r#"(request.verb = "GET") and (proxy.pathsuffix MatchesPath "/items/*")"#,
        r#"not a.b ~~ "(?i)x[a-z&&[^q]]+\Q.\E" or response.status.code >= 400L"#,
        r#"'odd !name' =| "x" || !(c is not null && d := "y")"#,
        r#"a ~ "x%*y*" and b ~/ "/**/{c}/d%{e%}""#,
    ];
    let words = [
        "(", ")", "!", "not ", " and ", "||", "=", "~~", "~/", "=|", "\"", "'", "null", "1.5f",
        "\\Q", "[a", "{2,3}", "**", "%", "\u{201C}",
    ];
    fuzz("apigee conditions", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        match Condition::parse(&text) {
            Ok(condition) => {
                // What was read is read again.
                assert!(Condition::parse(condition.text()).is_ok());
            }
            Err(error) => {
                assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty())
            }
        }
        Glob::new(&text).matches(&text);
        PathPattern::new(&text).matches(&text);
    });
}

#[test]
fn apigee_templates() {
    use sallyport::dialects::apigee::template::Template;
    use sallyport::dialects::apigee::text_pattern::TextPattern;
    let seeds = [
        "{\"a\":{b.c:d},\"e\":\"{toUpperCase(f:g)}\"}",
        "{substring(a,-4,2)}{replaceAll(a,'[b-c]+','$1')}{createUuid()}",
        "{hmacSha256('k',t,'hex','base64')} { x } {} {{y}}",
        "/items/{id}/**/x{y}z*",
    ];
    let words = [
        "{",
        "}",
        "(",
        ")",
        "'",
        ",",
        ":",
        "{a}",
        "{md5Hex(",
        "replaceFirst",
        "-1",
        "@",
        "**",
        "\n",
    ];
    fuzz("apigee templates", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        match Template::parse(&text) {
            Ok(template) => {
                assert_eq!(template.text(), text);
                if template.variables().is_empty() && !text.contains('(') {
                    assert_eq!(template.fixed(), Some(text.as_ref()));
                }
            }
            Err(error) => {
                assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty())
            }
        }
        for is_path in [false, true] {
            if let Ok(pattern) = TextPattern::parse(&text, is_path) {
                pattern.captures(&text, true);
            }
        }
    });
}

#[test]
fn apigee_xml() {
    use sallyport::dialects::apigee::convert::{JsonToXml, XmlToJson, json_to_xml, xml_to_json};
    use sallyport::dialects::apigee::threats::{JsonLimits, XmlLimits, check_json, check_xml};
    use sallyport::dialects::apigee::xml::{Document, Limits, decode, write_node};
    let seeds = [
        "<?xml version='1.0'?><!-- c --><a x='1' y=\"&lt;\"><b>t<![CDATA[<u>]]>&amp;&#x41;</b><c/></a>",
        "<p:a xmlns:p='u' xmlns='v'><p:b p:c='d'/><?pi data?></p:a>",
        "{\"a\":[1,{\"@b\":null}],\"#text\":\"\\u0041\"}",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
    ];
    let words = [
        "<",
        ">",
        "/>",
        "</",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "&",
        ";",
        "&#0;",
        "xmlns:p='u'",
        "=",
        "'",
        "<?",
        "?>",
        "\u{FEFF}",
        "\r\n",
        "{",
        "[",
        "\"",
    ];
    fuzz("apigee xml", &seeds, &words, |input| {
        let Ok(text) = decode(input) else {
            return;
        };
        match Document::parse("f", &text, Limits::CONFIGURATION) {
            Ok(document) => {
                let mut written = String::new();
                write_node(document.node(), &mut written);
                let again = Document::parse("f", &written, Limits::CONFIGURATION);
                let again = again.unwrap_or_else(|error| panic!("{error}: {written}"));
                let mut twice = String::new();
                write_node(again.node(), &mut twice);
                assert_eq!(written, twice, "not stable");
                assert!(xml_to_json(&text, &XmlToJson::default()).is_ok());
                assert!(check_xml(&text, &XmlLimits::default()).is_ok());
            }
            Err(error) => {
                assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty())
            }
        }
        let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        let accepted = check_json(&text, &JsonLimits::default()).is_ok();
        // A parser that builds values refuses more: deep nesting, numbers out of range, halves of characters.
        assert!(accepted || !is_json, "refuses JSON");
        if let Ok(xml) = json_to_xml(&text, &JsonToXml::default()) {
            let parsed = Document::parse("f", &xml, Limits::MESSAGE);
            assert!(parsed.is_ok() || xml.contains(':'), "{xml}: {parsed:?}");
        }
    });
}

#[test]
fn apigee_paths_into_bodies() {
    use sallyport::dialects::apigee::json_path::JsonPath;
    use sallyport::dialects::apigee::xml::{Document, Limits};
    use sallyport::dialects::apigee::xpath::XPath;
    let seeds = [
        "$.store.book[?(@.price < 10 && @.a =~ /x.*/i)].title",
        "$..a[-1:2,'b'].[0].length()",
        "/a/b[@x='1' and position() < last()]/following-sibling::*[2]/text()",
        "count(//b | //@x) * -(1 div 2) + string-length(concat('a', .))",
    ];
    let words = [
        "$",
        "..",
        "[",
        "]",
        "(",
        ")",
        "?(@",
        "*",
        "//",
        "::",
        "@",
        "'",
        "and",
        " or ",
        "|",
        "-",
        "1",
        ".",
        "ancestor::",
        "[0]",
    ];
    let json: serde_json::Value = serde_json::json!({"a": [1, {"b": [2, "x"]}], "store": {"book": [{"price": 3, "a": "xy"}]}});
    let xml = Document::parse(
        "f",
        "<a><b x='1'>t</b><b x='2'><c/></b></a>",
        Limits::MESSAGE,
    )
    .unwrap();
    fuzz("apigee paths into bodies", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        match JsonPath::parse(&text) {
            Ok(path) => drop(path.read(&json)),
            Err(error) => assert!(!error.is_empty()),
        }
        match XPath::parse(&text, &[]) {
            Ok(path) => drop(path.evaluate(&xml).map(|outcome| outcome.xml())),
            Err(error) => assert!(!error.is_empty()),
        }
    });
}
