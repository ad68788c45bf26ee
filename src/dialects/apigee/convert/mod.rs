//! JSON and XML into each other, with the options of the policies JSONToXML and XMLToJSON.
//!
//! Owns both conversions as pure functions. Refuses to know messages.

mod json_to_xml;
mod xml_to_json;

pub use json_to_xml::{JsonToXml, json_to_xml};
pub use xml_to_json::{ForcedArray, XmlToJson, xml_to_json};
