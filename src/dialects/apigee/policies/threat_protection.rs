//! `JSONThreatProtection` and `XMLThreatProtection`: limits on the structure of bodies.

use serde::{Deserialize, Serialize};

use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::threats::{JsonLimits, XmlLimits};
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// `JSONThreatProtection` as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonConfig {
    /// None is the current message.
    pub source: Option<String>,
    pub limits: JsonLimits,
}

/// `XMLThreatProtection` as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XmlConfig {
    /// None is the current message.
    pub source: Option<String>,
    pub limits: XmlLimits,
}

/// A limit; negative or absent is none.
fn limit(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> Option<usize> {
    let limit = fields.number(name, -1_000_000_000..=1_000_000_000_i64, findings)?;
    usize::try_from(limit).ok()
}

/// Reads limits that are the children of an element.
fn group<'a>(
    element: Element<'a>,
    list: &mut [(&'static str, &mut Option<usize>)],
    findings: &mut Findings,
) -> Fields<'a> {
    let mut fields = Fields::new(element);
    for (name, target) in list.iter_mut() {
        **target = limit(&mut fields, name, findings);
    }
    fields
}

pub(super) fn parse_json(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let source = fields
        .filled_text("Source", findings)
        .map(|text| text.into_owned());
    let limits = JsonLimits {
        depth: limit(fields, "ContainerDepth", findings),
        entries: limit(fields, "ObjectEntryCount", findings),
        name_length: limit(fields, "ObjectEntryNameLength", findings),
        elements: limit(fields, "ArrayElementCount", findings),
        text_length: limit(fields, "StringValueLength", findings),
    };
    let bodies = source.as_deref().map_or(Bodies::CURRENT, Bodies::in_text);
    Some(
        reader
            .parsed(&JsonConfig { source, limits })?
            .with_bodies(bodies),
    )
}

pub(super) fn parse_xml(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let source = reader
        .fields
        .filled_text("Source", findings)
        .map(|text| text.into_owned());
    let mut limits = XmlLimits::default();
    if let Some(element) = reader.fields.child("NameLimits", findings) {
        let mut list = [
            ("Element", &mut limits.element_name),
            ("Attribute", &mut limits.attribute_name),
            ("NamespacePrefix", &mut limits.prefix),
            (
                "ProcessingInstructionTarget",
                &mut limits.instruction_target,
            ),
        ];
        group(element, &mut list, findings).finish(findings);
    }
    if let Some(element) = reader.fields.child("ValueLimits", findings) {
        let mut list = [
            ("Text", &mut limits.text),
            ("Attribute", &mut limits.attribute),
            ("NamespaceURI", &mut limits.namespace),
            ("Comment", &mut limits.comment),
            ("ProcessingInstructionData", &mut limits.instruction_data),
        ];
        group(element, &mut list, findings).finish(findings);
    }
    if let Some(element) = reader.fields.child("StructureLimits", findings) {
        let mut list = [
            ("NodeDepth", &mut limits.depth),
            ("AttributeCountPerElement", &mut limits.attributes),
            ("NamespaceCountPerElement", &mut limits.namespaces),
            ("ChildCount", &mut limits.children),
        ];
        let mut fields = group(element, &mut list, findings);
        if let Some(count) = fields.child("ChildCount", findings) {
            let mut inner = Fields::new(count);
            limits.counts_comments = inner.boolean_attribute("includeComment", true, findings);
            limits.counts_elements = inner.boolean_attribute("includeElement", true, findings);
            limits.counts_instructions =
                inner.boolean_attribute("includeProcessingInstruction", true, findings)
                    && inner.boolean_attribute("includeProcessingInstructions", true, findings);
            limits.counts_texts = inner.boolean_attribute("includeText", true, findings);
            inner.finish(findings);
        }
        fields.finish(findings);
    }
    let bodies = source.as_deref().map_or(Bodies::CURRENT, Bodies::in_text);
    Some(
        reader
            .parsed(&XmlConfig { source, limits })?
            .with_bodies(bodies),
    )
}
