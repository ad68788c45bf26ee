//! Bodies of the management API in both their forms: JSON, and XML of which each element is a field.
//!
//! A field of JSON is the element's name with its first letter in lower case; lists stand in a wrapper element. Which
//! elements are wrappers cannot be seen from a document, so they are listed here. Refuses to know any entity.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::xml::{Document, Element, Limits, escape_attribute, escape_text};

/// Elements that hold a list, with the name of what they hold.
const LISTS: [(&str, &str); 22] = [
    ("HostAliases", "HostAlias"),
    ("Interfaces", "Interface"),
    ("ListenOptions", "ListenOption"),
    ("RetryOptions", "RetryOption"),
    ("Ciphers", "Cipher"),
    ("Protocols", "Protocol"),
    ("Attributes", "Attribute"),
    ("ApiResources", "ApiResource"),
    ("ApiProducts", "ApiProduct"),
    ("Environments", "Environment"),
    ("Proxies", "Proxy"),
    ("Scopes", "Scope"),
    ("Credentials", "Credential"),
    ("Aliases", "Alias"),
    ("Certs", "Cert"),
    ("Keys", "Key"),
    ("Apps", "App"),
    ("Companies", "Company"),
    ("Policies", "Policy"),
    ("ProxyEndpoints", "ProxyEndpoint"),
    ("TargetEndpoints", "TargetEndpoint"),
    ("Basepaths", "Basepath"),
];

/// Elements that may stand several times without a wrapper.
const REPEATED: [&str; 5] = [
    "Entry",
    "Property",
    "Attribute",
    "SubjectAlternativeName",
    "ResourceFile",
];

/// The fields of an XML body. Attributes of elements are fields too.
///
/// # Errors
///
/// 400 with line and column.
pub fn fields_of_xml(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let document = Document::parse_bytes("body", bytes, Limits::CONFIGURATION)
        .map_err(|error| ApiError::bad_request(format!("the XML body cannot be read: {error}")))?;
    Ok(fields_of(document.root()))
}

fn fields_of(element: Element<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    for attribute in element.attributes() {
        if !attribute.is_namespace() && attribute.full_name().prefix.is_empty() {
            fields.insert(lowered(attribute.name()), attribute.value().into());
        }
    }
    for child in element.children() {
        let name = lowered(child.name());
        let value = value_of(child);
        match fields.get_mut(&name) {
            Some(Value::Array(list)) if REPEATED.contains(&child.name()) => list.push(value),
            _ if REPEATED.contains(&child.name()) => {
                fields.insert(name, Value::Array(vec![value]));
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => {
                let first = first.take();
                fields.insert(name, Value::Array(vec![first, value]));
            }
            None => {
                fields.insert(name, value);
            }
        }
    }
    let text = element.text();
    if !text.trim().is_empty() && !fields.is_empty() && element.children().next().is_none() {
        fields.insert("value".to_owned(), text.trim().into());
    }
    fields
}

fn value_of(element: Element<'_>) -> Value {
    if let Some((_, item)) = LISTS.iter().find(|(list, _)| *list == element.name()) {
        let items: Vec<Value> = element
            .children()
            .filter(|child| child.name() == *item)
            .map(value_of)
            .collect();
        if element.children().next().is_some() || element.text().trim().is_empty() {
            return Value::Array(items);
        }
    }
    let fields = fields_of(element);
    if fields.is_empty() {
        // White space inside a value is the client's; elsewhere it is layout.
        return Value::String(match element.name() {
            "Value" => element.raw_text().into_owned(),
            _ => element.text().trim().to_owned(),
        });
    }
    Value::Object(fields)
}

/// An answer as XML, below an element of the given name.
pub fn xml_of(root: &str, value: &Value) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n");
    write_value(root, value, &mut text);
    text
}

fn write_value(name: &str, value: &Value, into: &mut String) {
    let name = raised(name);
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            into.push('<');
            into.push_str(&name);
            if let Some(Value::String(own)) = fields.get("name") {
                into.push_str(" name=\"");
                into.push_str(&escape_attribute(own));
                into.push('"');
            }
            into.push('>');
            for (field, value) in fields {
                if field != "name" {
                    write_value(field, value, into);
                }
            }
            close(&name, into);
        }
        Value::Array(list) => {
            let item = LISTS.iter().find(|(list, _)| *list == name);
            match item {
                None if REPEATED.contains(&name.as_str()) => {
                    for value in list {
                        write_value(&name, value, into);
                    }
                }
                item => {
                    into.push('<');
                    into.push_str(&name);
                    into.push('>');
                    for value in list {
                        write_value(item.map_or("Item", |(_, item)| item), value, into);
                    }
                    close(&name, into);
                }
            }
        }
        text => {
            into.push('<');
            into.push_str(&name);
            into.push('>');
            match text {
                Value::String(text) => into.push_str(&escape_text(text)),
                other => into.push_str(&other.to_string()),
            }
            close(&name, into);
        }
    }
}

fn close(name: &str, into: &mut String) {
    into.push_str("</");
    into.push_str(name);
    into.push('>');
}

/// A name with its first letter in lower case.
fn lowered(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

/// A name with its first letter in upper case, as far as an element may be called so.
fn raised(name: &str) -> String {
    let mut characters = name.chars();
    let raised: String = characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    });
    if super::xml::is_name(&raised) {
        raised
    } else {
        "Item".to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn xml_bodies_become_fields() {
        for (xml, expected) in [
            (
                "<ResourceReference name=\"r\">\n <Refers>k</Refers>\n <ResourceType>KeyStore</ResourceType></ResourceReference>",
                json!({"name": "r", "refers": "k", "resourceType": "KeyStore"}),
            ),
            (
                "<VirtualHost name='v'><Port>443</Port><HostAliases><HostAlias>h</HostAlias></HostAliases>\
                 <Interfaces/><SSLInfo><Enabled>true</Enabled></SSLInfo></VirtualHost>",
                json!({"name": "v", "port": "443", "hostAliases": ["h"], "interfaces": [],
                       "sSLInfo": {"enabled": "true"}}),
            ),
            (
                "<KeyValueMap name=\"m\"><Entry name=\"k\"><Value> v </Value></Entry></KeyValueMap>",
                json!({"name": "m", "entry": [{"name": "k", "value": " v "}]}),
            ),
            (
                "<ApiProduct name='p'><Attributes><Attribute><Name>a</Name><Value>1</Value></Attribute></Attributes>\
                 <Proxies><Proxy>x</Proxy></Proxies></ApiProduct>",
                json!({"name": "p", "attributes": [{"name": "a", "value": "1"}], "proxies": ["x"]}),
            ),
            ("<KeyStore name=\"k\"/>", json!({"name": "k"})),
        ] {
            let fields = fields_of_xml(xml.as_bytes()).unwrap();
            assert_eq!(Value::Object(fields), expected);
        }
        let refused = fields_of_xml(b"<a><b></a>").unwrap_err();
        assert_eq!(refused.status, 400);
    }

    #[test]
    fn answers_become_xml() {
        let value = json!({"name": "r&", "hostAliases": ["h"], "port": 1, "empty": null,
                           "properties": {"property": [{"name": "p", "value": "v"}]}});
        let xml = xml_of("VirtualHost", &value);
        assert!(
            xml.ends_with(
                "<VirtualHost name=\"r&amp;\"><HostAliases><HostAlias>h</HostAlias></HostAliases><Port>1</Port>\
                 <Properties><Property name=\"p\"><Value>v</Value></Property></Properties></VirtualHost>"
            ),
            "{xml}"
        );
        assert!(fields_of_xml(xml.as_bytes()).is_ok());
    }
}
