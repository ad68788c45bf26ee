//! `XMLToJSON`: an XML body as JSON.

use serde::{Deserialize, Serialize};

use super::json_to_xml::bodies;
use super::texts::place;
use super::{Parsed, PolicyReader};
use crate::dialects::apigee::convert::{ForcedArray, XmlToJson};
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// The most elements that are forced to be arrays.
const ARRAYS_MAX: usize = 200;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// A message or a variable with text; none is the current message.
    pub source: Option<String>,
    /// None: the source.
    pub output: Option<String>,
    pub options: XmlToJson,
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
    let format = reader.fields.child("Format", findings);
    let options = reader.fields.child("Options", findings);
    let options = match (format, options) {
        (Some(format), Some(_)) => {
            findings.error(
                "invalid-value",
                place(format),
                "stands beside <Options>, only one of both may be written (EitherOptionOrFormat)",
            );
            return None;
        }
        (Some(format), None) => {
            let known = XmlToJson::of_format(&format.text());
            if known.is_none() {
                findings.error(
                    "invalid-value",
                    place(format),
                    "must be one of xml.com, yahoo, google, badgerFish (UnknownFormat)",
                );
            }
            known?
        }
        (None, Some(element)) => options_of(element, findings),
        (None, None) => XmlToJson::of_format("yahoo")?,
    };
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

fn options_of(element: Element<'_>, findings: &mut Findings) -> XmlToJson {
    let mut fields = Fields::new(element);
    let mut options = XmlToJson {
        recognizes_numbers: fields.boolean("RecognizeNumber", false, findings),
        recognizes_booleans: fields.boolean("RecognizeBoolean", false, findings),
        recognizes_null: fields.boolean("RecognizeNull", false, findings),
        text_always_as_property: fields.boolean("TextAlwaysAsProperty", false, findings),
        strip_levels: fields.number("StripLevels", 0..=100, findings).unwrap_or(0),
        ..XmlToJson::default()
    };
    let mut text = |name: &'static str| {
        fields
            .filled_text(name, findings)
            .map(|text| text.into_owned())
    };
    options.namespace_block = text("NamespaceBlockName");
    options.namespace_separator = text("NamespaceSeparator");
    options.attribute_block = text("AttributeBlockName");
    for (name, option) in [
        ("NullValue", &mut options.null),
        ("DefaultNamespaceNodeName", &mut options.default_namespace),
        ("TextNodeName", &mut options.text),
        ("AttributePrefix", &mut options.attribute_prefix),
        ("OutputPrefix", &mut options.output_prefix),
        ("OutputSuffix", &mut options.output_suffix),
    ] {
        if let Some(text) = text(name) {
            *option = text;
        }
    }
    if options.namespace_block.is_some() {
        options.namespace_separator.get_or_insert(":".to_owned());
    }
    if let Some(list) = fields.child("TreatAsArray", findings) {
        let mut inner = Fields::new(list);
        for path in inner.children("Path").take(ARRAYS_MAX) {
            let mut item = Fields::new(path);
            let unwraps = item.boolean_attribute("unwrap", false, findings);
            let name = item.attribute_text("overrideArrayName").map(str::to_owned);
            item.finish(findings);
            options.arrays.push(ForcedArray {
                path: path.text().trim_matches('/').to_owned(),
                unwraps,
                name,
            });
        }
        inner.finish(findings);
    }
    fields.finish(findings);
    options
}
