//! XML as JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::dialects::apigee::xml::{Document, Element, Kind, Limits, Name};

/// The deepest document that is converted; deeper JSON is refused by most readers.
const DEPTH_MAX: usize = 120;

/// The options of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XmlToJson {
    pub recognizes_numbers: bool,
    pub recognizes_booleans: bool,
    pub recognizes_null: bool,
    pub null: String,
    pub namespace_block: Option<String>,
    pub default_namespace: String,
    /// None: prefixes are dropped.
    pub namespace_separator: Option<String>,
    pub text: String,
    pub text_always_as_property: bool,
    pub attribute_block: Option<String>,
    pub attribute_prefix: String,
    pub output_prefix: String,
    pub output_suffix: String,
    /// Outer levels that are dropped.
    pub strip_levels: usize,
    pub arrays: Vec<ForcedArray>,
}

/// Elements that are an array even when there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedArray {
    /// Names from the root, joined with slashes.
    pub path: String,
    /// The array takes the place of the element around it.
    pub unwraps: bool,
    pub name: Option<String>,
}

impl Default for XmlToJson {
    fn default() -> Self {
        Self {
            recognizes_numbers: false,
            recognizes_booleans: false,
            recognizes_null: false,
            null: "NULL".to_owned(),
            namespace_block: None,
            default_namespace: "$default".to_owned(),
            namespace_separator: None,
            text: "#text".to_owned(),
            text_always_as_property: false,
            attribute_block: None,
            attribute_prefix: "@".to_owned(),
            output_prefix: String::new(),
            output_suffix: String::new(),
            strip_levels: 0,
            arrays: Vec::new(),
        }
    }
}

impl XmlToJson {
    /// The options that a value of `<Format>` stands for.
    pub fn of_format(format: &str) -> Option<Self> {
        let options = Self::default();
        Some(match format {
            "xml.com" => options,
            "yahoo" => Self {
                text: "content".to_owned(),
                attribute_prefix: String::new(),
                ..options
            },
            "google" => Self {
                text: "$t".to_owned(),
                attribute_prefix: String::new(),
                namespace_separator: Some("$".to_owned()),
                text_always_as_property: true,
                ..options
            },
            "badgerFish" => Self {
                text: "$".to_owned(),
                namespace_block: Some("@xmlns".to_owned()),
                default_namespace: "$".to_owned(),
                namespace_separator: Some(":".to_owned()),
                text_always_as_property: true,
                ..options
            },
            _ => return None,
        })
    }
}

/// XML as JSON text.
///
/// # Errors
/// For text that is not well-formed XML, or nested too deeply.
pub fn xml_to_json(xml: &str, options: &XmlToJson) -> Result<String, String> {
    let limits = Limits {
        depth: DEPTH_MAX,
        ..Limits::MESSAGE
    };
    let document = Document::parse("message", xml, limits).map_err(|error| error.to_string())?;
    let root = document.root();
    let converter = Converter { options };
    let mut path = converter.name_of(root);
    let mut members = Map::new();
    let forced = converter.forced(&path);
    let name = forced
        .and_then(|forced| forced.name.clone())
        .unwrap_or_else(|| path.clone());
    let value = converter.value(root, &mut path);
    members.insert(
        name,
        if forced.is_some() {
            Value::Array(vec![value])
        } else {
            value
        },
    );
    let mut value = Value::Object(members);
    for _ in 0..options.strip_levels {
        // A level with several members cannot be dropped without losing some.
        match value {
            Value::Object(mut members) if members.len() == 1 => {
                value = members
                    .iter_mut()
                    .next()
                    .map(|(_, inner)| inner.take())
                    .unwrap_or_default();
            }
            other => {
                value = other;
                break;
            }
        }
    }
    Ok(format!(
        "{}{value}{}",
        options.output_prefix, options.output_suffix
    ))
}

struct Converter<'o> {
    options: &'o XmlToJson,
}

impl Converter<'_> {
    fn forced(&self, path: &str) -> Option<&ForcedArray> {
        self.options
            .arrays
            .iter()
            .find(|forced| forced.path == path)
    }

    fn written(&self, name: &Name) -> String {
        match &self.options.namespace_separator {
            Some(separator) if !name.prefix.is_empty() => {
                format!("{}{separator}{}", name.prefix, name.local)
            }
            _ => name.local.to_string(),
        }
    }

    fn name_of(&self, element: Element<'_>) -> String {
        element
            .full_name()
            .map(|name| self.written(name))
            .unwrap_or_default()
    }

    /// The depth is bounded by the parser's limits. `path` is that of the element.
    fn value(&self, element: Element<'_>, path: &mut String) -> Value {
        let options = self.options;
        let mut members = Map::new();
        self.attributes(element, &mut members);
        let mut texts = Vec::new();
        let mut unwrapped = None;
        let mut has_children = false;
        for node in element.node().children() {
            match node.kind() {
                Kind::Text(text) if !text.trim().is_empty() => texts.push(text.trim()),
                Kind::Element(_) => {
                    let Some(child) = node.element() else {
                        continue;
                    };
                    has_children = true;
                    let name = self.name_of(child);
                    let length = path.len();
                    path.push('/');
                    path.push_str(&name);
                    let forced = self.forced(path);
                    let value = self.value(child, path);
                    path.truncate(length);
                    let key = forced
                        .and_then(|forced| forced.name.clone())
                        .unwrap_or(name);
                    if forced.is_some_and(|forced| forced.unwraps) {
                        unwrapped = Some(key.clone());
                    }
                    insert(&mut members, key, value, forced.is_some());
                }
                _ => {}
            }
        }
        if let Some(array) = unwrapped
            .filter(|_| members.len() == 1)
            .and_then(|key| members.remove(&key))
        {
            return array;
        }
        if members.is_empty() && !has_children && !options.text_always_as_property {
            return match texts.as_slice() {
                [] if options.recognizes_null => Value::Null,
                [] => Value::Object(members),
                texts => self.scalar(&texts.concat()),
            };
        }
        match texts.as_slice() {
            [] => {}
            [text] => drop(members.insert(options.text.clone(), self.scalar(text))),
            texts => {
                let list = texts.iter().map(|text| self.scalar(text)).collect();
                members.insert(options.text.clone(), Value::Array(list));
            }
        }
        if members.is_empty() && options.recognizes_null {
            return Value::Null;
        }
        Value::Object(members)
    }

    fn attributes(&self, element: Element<'_>, members: &mut Map<String, Value>) {
        let options = self.options;
        let mut namespaces = Map::new();
        let mut block = Map::new();
        let mut plain = Vec::new();
        for attribute in element.attributes() {
            let name = attribute.full_name();
            if attribute.is_namespace() {
                let key = if name.prefix.is_empty() {
                    options.default_namespace.clone()
                } else {
                    name.local.to_string()
                };
                namespaces.insert(key, Value::String(attribute.value().to_owned()));
                continue;
            }
            let value = self.scalar(attribute.value());
            match options.attribute_block {
                Some(_) => drop(block.insert(self.written(name), value)),
                None => plain.push((
                    format!("{}{}", options.attribute_prefix, self.written(name)),
                    value,
                )),
            }
        }
        if let Some(name) = options
            .namespace_block
            .as_ref()
            .filter(|_| !namespaces.is_empty())
        {
            members.insert(name.clone(), Value::Object(namespaces));
        }
        if let Some(name) = options
            .attribute_block
            .as_ref()
            .filter(|_| !block.is_empty())
        {
            members.insert(name.clone(), Value::Object(block));
        }
        members.extend(plain);
    }

    fn scalar(&self, text: &str) -> Value {
        let options = self.options;
        if options.recognizes_null && text == options.null {
            return Value::Null;
        }
        if options.recognizes_booleans && matches!(text, "true" | "false") {
            return Value::Bool(text == "true");
        }
        if options.recognizes_numbers
            && let Ok(number) = serde_json::from_str::<Number>(text)
        {
            return Value::Number(number);
        }
        Value::String(text.to_owned())
    }
}

/// Adds a member; a second one of the same name makes an array.
fn insert(members: &mut Map<String, Value>, key: String, value: Value, as_array: bool) {
    match members.get_mut(&key) {
        None => {
            let value = if as_array {
                Value::Array(vec![value])
            } else {
                value
            };
            members.insert(key, value);
        }
        Some(Value::Array(list)) => list.push(value),
        Some(first) => {
            let one = first.take();
            *first = Value::Array(vec![one, value]);
        }
    }
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

    const XML: &str = "<a x=\"1\"><b>2</b><b>t</b><c/><d y=\"true\">z</d></a>";

    #[test]
    fn speaks_four_formats() {
        let cases = [
            (
                "xml.com",
                XML,
                r##"{"a":{"@x":"1","b":["2","t"],"c":{},"d":{"@y":"true","#text":"z"}}}"##,
            ),
            (
                "yahoo",
                XML,
                r#"{"a":{"x":"1","b":["2","t"],"c":{},"d":{"y":"true","content":"z"}}}"#,
            ),
            (
                "google",
                "<p:a xmlns:p='u'>1</p:a>",
                r#"{"p$a":{"$t":"1"}}"#,
            ),
            (
                "badgerFish",
                "<p:a xmlns='v' xmlns:p='u' q='1'>1</p:a>",
                r#"{"p:a":{"@xmlns":{"$":"v","p":"u"},"@q":"1","$":"1"}}"#,
            ),
        ];
        for (format, xml, expected) in cases {
            let options = XmlToJson::of_format(format).unwrap();
            assert_eq!(xml_to_json(xml, &options).unwrap(), expected, "{format}");
        }
        assert_eq!(XmlToJson::of_format("other"), None);
    }

    #[test]
    fn obeys_options() {
        let base = XmlToJson::default;
        let array = |path: &str, unwraps, name: Option<&str>| ForcedArray {
            path: path.to_owned(),
            unwraps,
            name: name.map(str::to_owned),
        };
        let cases = [
            (
                XmlToJson {
                    recognizes_numbers: true,
                    recognizes_booleans: true,
                    ..base()
                },
                "<a><n>-1.5</n><o>007</o><b>true</b></a>",
                r#"{"a":{"n":-1.5,"o":"007","b":true}}"#,
            ),
            (
                XmlToJson {
                    recognizes_null: true,
                    ..base()
                },
                "<a><n>NULL</n><e/></a>",
                r#"{"a":{"n":null,"e":null}}"#,
            ),
            (
                XmlToJson {
                    attribute_block: Some("#attrs".to_owned()),
                    ..base()
                },
                "<a x='1'/>",
                r##"{"a":{"#attrs":{"x":"1"}}}"##,
            ),
            (
                XmlToJson {
                    output_prefix: "f(".to_owned(),
                    output_suffix: ")".to_owned(),
                    ..base()
                },
                "<a>1</a>",
                r#"f({"a":"1"})"#,
            ),
            (
                XmlToJson {
                    strip_levels: 2,
                    ..base()
                },
                "<a><b><c>1</c><d>2</d></b></a>",
                r#"{"c":"1","d":"2"}"#,
            ),
            (
                XmlToJson {
                    strip_levels: 9,
                    ..base()
                },
                "<a><b>1</b></a>",
                r#""1""#,
            ),
            (
                base(),
                "<a>one<b/>two</a>",
                r##"{"a":{"b":{},"#text":["one","two"]}}"##,
            ),
            (
                base(),
                "<s:a xmlns:s='u'><s:b>1</s:b></s:a>",
                r#"{"a":{"b":"1"}}"#,
            ),
            (
                XmlToJson {
                    arrays: vec![array("a/b", false, None)],
                    ..base()
                },
                "<a><b>1</b></a>",
                r#"{"a":{"b":["1"]}}"#,
            ),
            (
                XmlToJson {
                    arrays: vec![array("a/b", true, None)],
                    ..base()
                },
                "<a><b>1</b></a>",
                r#"{"a":["1"]}"#,
            ),
            (
                XmlToJson {
                    arrays: vec![array("a/b", false, Some("bs"))],
                    ..base()
                },
                "<a><b>1</b><b>2</b></a>",
                r#"{"a":{"bs":["1","2"]}}"#,
            ),
            (
                XmlToJson {
                    text_always_as_property: true,
                    ..base()
                },
                "<a><b>1</b></a>",
                r##"{"a":{"b":{"#text":"1"}}}"##,
            ),
        ];
        for (options, xml, expected) in cases {
            assert_eq!(xml_to_json(xml, &options).unwrap(), expected, "{xml}");
        }
        assert!(xml_to_json("<a>", &base()).is_err());
        assert!(xml_to_json(&"<a>".repeat(5000), &base()).is_err());
    }
}
