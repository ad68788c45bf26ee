//! `JSONToXML`: a JSON body as XML.

use serde::{Deserialize, Serialize};

use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::convert::JsonToXml;
use crate::dialects::apigee::xml::Fields;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// A message or a variable with text; none is the current message.
    pub source: Option<String>,
    /// None: the source.
    pub output: Option<String>,
    pub options: JsonToXml,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let source = reader
        .fields
        .filled_text("Source", findings)
        .map(|text| text.into_owned());
    let output = reader
        .fields
        .filled_text("OutputVariable", findings)
        .map(|text| text.into_owned());
    let mut options = JsonToXml::default();
    if let Some(element) = reader.fields.child("Options", findings) {
        let mut fields = Fields::new(element);
        let mut text = |name: &'static str| {
            fields
                .filled_text(name, findings)
                .map(|text| text.into_owned())
        };
        options.null = text("NullValue").filter(|null| null != "NULL");
        options.namespace_block = text("NamespaceBlockName");
        options.text = text("TextNodeName");
        options.attribute_block = text("AttributeBlockName");
        options.attribute_prefix = text("AttributePrefix");
        for (name, option) in [
            ("DefaultNamespaceNodeName", &mut options.default_namespace),
            ("NamespaceSeparator", &mut options.namespace_separator),
            ("InvalidCharsReplacement", &mut options.replacement),
            ("ObjectRootElementName", &mut options.object_root),
            ("ArrayRootElementName", &mut options.array_root),
            ("ArrayItemElementName", &mut options.array_item),
        ] {
            if let Some(text) = text(name) {
                *option = text;
            }
        }
        options.omits_declaration = fields.boolean("OmitXmlDeclaration", false, findings);
        fields.finish(findings);
    }
    let bodies = bodies(source.as_deref(), output.as_deref());
    Some(
        reader
            .parsed(&Config {
                source,
                output,
                options,
            })?
            .with_bodies(bodies),
    )
}

/// The bodies that a conversion reads and replaces.
pub(super) fn bodies(source: Option<&str>, output: Option<&str>) -> Bodies {
    let named = |name: &str| Bodies::in_text(name);
    let read = source.map_or(Bodies::CURRENT, named);
    read.with(output.map_or(Bodies::NONE, named))
}
