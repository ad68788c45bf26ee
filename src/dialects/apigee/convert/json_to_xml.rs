//! JSON as XML.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dialects::apigee::xml::{
    escape_attribute, escape_text, is_name_character, is_name_start, is_xml_character,
};

/// The largest result, in bytes.
const RESULT_BYTES_MAX: usize = 32 << 20;

/// The options of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonToXml {
    /// What null reads as; none: the element stays empty.
    pub null: Option<String>,
    pub namespace_block: Option<String>,
    pub default_namespace: String,
    pub namespace_separator: String,
    pub text: Option<String>,
    pub attribute_block: Option<String>,
    pub attribute_prefix: Option<String>,
    /// What stands for characters that names or XML cannot hold.
    pub replacement: String,
    pub object_root: String,
    pub array_root: String,
    pub array_item: String,
    pub omits_declaration: bool,
}

impl Default for JsonToXml {
    fn default() -> Self {
        Self {
            null: None,
            namespace_block: None,
            default_namespace: "$default".to_owned(),
            namespace_separator: ":".to_owned(),
            text: None,
            attribute_block: None,
            attribute_prefix: None,
            replacement: "_".to_owned(),
            object_root: "Root".to_owned(),
            array_root: "Array".to_owned(),
            array_item: "Item".to_owned(),
            omits_declaration: false,
        }
    }
}

/// JSON as an XML document.
///
/// # Errors
/// For text that is no JSON, or whose XML would be too large.
pub fn json_to_xml(json: &str, options: &JsonToXml) -> Result<String, String> {
    let value: Value =
        serde_json::from_str(json).map_err(|error| format!("the text is not JSON: {error}"))?;
    let mut writer = Writer {
        options,
        out: String::with_capacity(json.len() + json.len() / 2),
    };
    if !options.omits_declaration {
        writer
            .out
            .push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    }
    match &value {
        Value::Object(members) => match members.iter().next() {
            // One member is a root, unless it would be many roots or none.
            Some((name, member))
                if members.len() == 1 && !member.is_array() && !writer.is_special(name) =>
            {
                writer.element(name, member)?
            }
            _ => writer.element(&options.object_root, &value)?,
        },
        Value::Array(_) => writer.element(&options.array_root, &value)?,
        scalar => writer.element(&options.object_root, scalar)?,
    }
    Ok(writer.out)
}

struct Writer<'o> {
    options: &'o JsonToXml,
    out: String,
}

impl Writer<'_> {
    fn is_special(&self, name: &str) -> bool {
        let options = self.options;
        let blocks = [
            &options.namespace_block,
            &options.attribute_block,
            &options.text,
        ];
        blocks.into_iter().flatten().any(|special| special == name)
            || self.attribute_name(name).is_some()
    }

    /// The name behind the prefix of attributes.
    fn attribute_name<'n>(&self, name: &'n str) -> Option<&'n str> {
        let prefix = self
            .options
            .attribute_prefix
            .as_deref()
            .filter(|prefix| !prefix.is_empty())?;
        name.strip_prefix(prefix).filter(|name| !name.is_empty())
    }

    /// The parser of JSON bounds the depth.
    fn element(&mut self, name: &str, value: &Value) -> Result<(), String> {
        if self.out.len() > RESULT_BYTES_MAX {
            return Err(format!(
                "the XML would be larger than {RESULT_BYTES_MAX} bytes"
            ));
        }
        let name = self.name(name);
        self.out.push('<');
        self.out.push_str(&name);
        let start = self.out.len();
        match value {
            Value::Object(members) => {
                self.attributes(members);
                self.out.push('>');
                let content = self.out.len();
                self.members(members)?;
                self.close(&name, content);
            }
            Value::Array(list) => {
                self.out.push('>');
                let item = self.options.array_item.clone();
                for member in list {
                    self.element(&item, member)?;
                }
                self.close(&name, start + 1);
            }
            scalar => {
                self.out.push('>');
                self.text(scalar);
                self.close(&name, start + 1);
            }
        }
        Ok(())
    }

    /// Ends an element; one without content becomes an empty tag.
    fn close(&mut self, name: &str, content: usize) {
        if self.out.len() == content {
            self.out.pop();
            self.out.push_str("/>");
        } else {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push('>');
        }
    }

    fn attributes(&mut self, members: &Map<String, Value>) {
        let options = self.options;
        for (name, value) in members {
            if options.namespace_block.as_ref() == Some(name) {
                for (prefix, namespace) in value.as_object().into_iter().flatten() {
                    let declared = if *prefix == options.default_namespace {
                        "xmlns".to_owned()
                    } else {
                        format!("xmlns:{}", self.name(prefix))
                    };
                    self.attribute(&declared, namespace);
                }
            } else if options.attribute_block.as_ref() == Some(name) {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let name = self.name(self.attribute_name(name).unwrap_or(name));
                    self.attribute(&name, value);
                }
            } else if let Some(name) = self
                .attribute_name(name)
                .filter(|_| !value.is_array() && !value.is_object())
            {
                let name = self.name(name);
                self.attribute(&name, value);
            }
        }
    }

    fn attribute(&mut self, name: &str, value: &Value) {
        let text = self.plain(value);
        self.out
            .push_str(&format!(" {name}=\"{}\"", escape_attribute(&text)));
    }

    fn members(&mut self, members: &Map<String, Value>) -> Result<(), String> {
        let options = self.options;
        for (name, value) in members {
            let is_block = [&options.namespace_block, &options.attribute_block]
                .into_iter()
                .flatten()
                .any(|block| block == name);
            let is_scalar = !value.is_array() && !value.is_object();
            if is_block || (is_scalar && self.attribute_name(name).is_some()) {
                continue;
            }
            if options.text.as_ref() == Some(name) {
                match value {
                    Value::Array(list) => list.iter().for_each(|part| self.text(part)),
                    value => self.text(value),
                }
                continue;
            }
            match value {
                Value::Array(list) => {
                    for member in list {
                        self.element(name, member)?;
                    }
                }
                value => self.element(name, value)?,
            }
        }
        Ok(())
    }

    fn text(&mut self, value: &Value) {
        let text = self.plain(value);
        self.out.push_str(&escape_text(&text));
    }

    fn plain(&self, value: &Value) -> String {
        match value {
            Value::Null => self.options.null.clone().unwrap_or_default(),
            Value::String(text) if text.chars().all(is_xml_character) => text.clone(),
            Value::String(text) => {
                let mut clean = String::with_capacity(text.len());
                for character in text.chars() {
                    if is_xml_character(character) {
                        clean.push(character);
                    } else {
                        clean.push_str(&self.options.replacement);
                    }
                }
                clean
            }
            other => other.to_string(),
        }
    }

    /// A member's name as an element's: at most one colon, where the separator stands, and no character that names lack.
    fn name(&self, name: &str) -> String {
        let separator = self.options.namespace_separator.as_str();
        let (prefix, local) = match name.split_once(separator).filter(|_| !separator.is_empty()) {
            Some((prefix, local)) if !prefix.is_empty() && !local.is_empty() => {
                (Some(prefix), local)
            }
            _ => (None, name),
        };
        let mut written = String::with_capacity(name.len());
        if let Some(prefix) = prefix {
            self.push_name(prefix, &mut written);
            written.push(':');
        }
        self.push_name(local, &mut written);
        written
    }

    fn push_name(&self, part: &str, into: &mut String) {
        let start = into.len();
        for character in part.chars() {
            let at_start = into.len() == start;
            if at_start && !is_name_start(character) && is_name_character(character) {
                // A digit may stand in a name, but not first.
                into.push('_');
            }
            if is_name_character(character) {
                into.push(character);
            } else {
                into.extend(
                    self.options
                        .replacement
                        .chars()
                        .filter(|character| is_name_character(*character)),
                );
            }
        }
        if into.len() == start {
            into.push('_');
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
    use crate::dialects::apigee::xml::{Document, Limits};

    fn options() -> JsonToXml {
        JsonToXml {
            omits_declaration: true,
            ..JsonToXml::default()
        }
    }

    #[test]
    fn converts_by_the_rules_of_roots() {
        let cases = [
            (r#"{"a":1}"#, "<a>1</a>"),
            (r#"{"a":1,"b":"x<"}"#, "<Root><a>1</a><b>x&lt;</b></Root>"),
            (r#"{"a":[1,2]}"#, "<Root><a>1</a><a>2</a></Root>"),
            (
                r#"{"a":{"b":[1,{"c":true}]}}"#,
                "<a><b>1</b><b><c>true</c></b></a>",
            ),
            (
                "[1,[2,3],{\"x\":null}]",
                "<Array><Item>1</Item><Item><Item>2</Item><Item>3</Item></Item><Item><x/></Item></Array>",
            ),
            ("\"x\"", "<Root>x</Root>"),
            ("{}", "<Root/>"),
            ("[]", "<Array/>"),
            (r#"{"a":{},"b":""}"#, "<Root><a/><b/></Root>"),
            (
                r#"{"first name":1,"2":3,"":4}"#,
                "<Root><first_name>1</first_name><_2>3</_2><_>4</_></Root>",
            ),
            (r#"{"a":"\u0001b"}"#, "<a>_b</a>"),
        ];
        for (json, expected) in cases {
            let xml = json_to_xml(json, &options()).unwrap();
            assert_eq!(xml, expected, "{json}");
            Document::parse("x", &xml, Limits::MESSAGE).unwrap();
        }
        assert!(
            json_to_xml("{}", &JsonToXml::default())
                .unwrap()
                .starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Root")
        );
        assert!(json_to_xml("{", &options()).is_err());
    }

    #[test]
    fn knows_attributes_text_and_namespaces() {
        let options = JsonToXml {
            null: Some("NIL".to_owned()),
            namespace_block: Some("#ns".to_owned()),
            text: Some("#text".to_owned()),
            attribute_block: Some("#attrs".to_owned()),
            attribute_prefix: Some("@".to_owned()),
            namespace_separator: "$".to_owned(),
            ..options()
        };
        let json = r##"{"p$a":{"#ns":{"$default":"u:1","p":"u:2"},"@x":1,"#attrs":{"y":"\""},"#text":"t","b":null}}"##;
        let xml = json_to_xml(json, &options).unwrap();
        assert_eq!(
            xml,
            "<p:a xmlns=\"u:1\" xmlns:p=\"u:2\" x=\"1\" y=\"&quot;\">t<b>NIL</b></p:a>"
        );
    }
}
