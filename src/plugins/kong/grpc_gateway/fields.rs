//! Fields of messages that paths and queries fill: found by name, set from text.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// Most fields that a path of fields names.
const DEPTH_MAX: usize = 32;

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// A field that holds one value or a list of such, and the messages around it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FieldPath {
    around: Vec<FieldDescriptor>,
    field: FieldDescriptor,
}

/// Why a name leads to no field that text can fill.
#[derive(Debug, PartialEq)]
pub(super) enum NoField {
    Unknown(String),
    Unfit(String),
}

impl From<NoField> for String {
    fn from(reason: NoField) -> Self {
        match reason {
            NoField::Unknown(text) | NoField::Unfit(text) => text,
        }
    }
}

impl FieldPath {
    /// Follows names with dots between them: the file's names, or those that JSON uses.
    pub(super) fn resolve(message: &MessageDescriptor, path: &str) -> Result<Self, NoField> {
        let mut message = message.clone();
        let mut around = Vec::new();
        let mut names = path.split('.');
        let mut name = names.next().unwrap_or_default();
        loop {
            let found = message
                .get_field_by_name(name)
                .or_else(|| message.get_field_by_json_name(name));
            let Some(field) = found else {
                let message = message.full_name();
                let text = format!("'{name}' is no field of message '{message}'");
                return Err(NoField::Unknown(text));
            };
            let Some(next) = names.next() else {
                return match (field.is_map(), field.kind()) {
                    (true, _) => Err(NoField::Unfit(format!(
                        "'{name}' is a map, which only a body can hold"
                    ))),
                    (_, Kind::Message(inner)) if !is_text_like(&inner) => Err(NoField::Unfit(
                        format!("'{name}' is a message: name one of its fields"),
                    )),
                    _ => Ok(Self { around, field }),
                };
            };
            match field.kind() {
                Kind::Message(inner) if !field.is_list() && !field.is_map() => message = inner,
                _ => {
                    let text = format!("'{name}' of '{path}' is no message");
                    return Err(NoField::Unfit(text));
                }
            }
            around.push(field);
            if around.len() >= DEPTH_MAX {
                let text = format!("'{path}' names more than {DEPTH_MAX} fields");
                return Err(NoField::Unfit(text));
            }
            name = next;
        }
    }

    pub(super) fn is_list(&self) -> bool {
        self.field.is_list()
    }

    /// The outermost field.
    pub(super) fn first(&self) -> &FieldDescriptor {
        self.around.first().unwrap_or(&self.field)
    }

    /// Sets the value, or adds it to the list. The error is for the client.
    pub(super) fn put(&self, message: &mut DynamicMessage, text: &str) -> Result<(), String> {
        let value = value_of(&self.field.kind(), text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            format!("'{shown}' does not fit field '{}'", self.field.name())
        })?;
        let mut holder = message;
        for field in &self.around {
            // Only messages are around others, by construction.
            let Some(inner) = holder.get_field_mut(field).as_message_mut() else {
                return Ok(());
            };
            holder = inner;
        }
        if !self.is_list() {
            holder.set_field(&self.field, value);
        } else if let Some(list) = holder.get_field_mut(&self.field).as_list_mut() {
            list.push(value);
        }
        Ok(())
    }
}

/// Messages that stand for one value.
fn is_text_like(message: &MessageDescriptor) -> bool {
    wrapped(message).is_some()
        || matches!(
            message.full_name(),
            "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask"
        )
}

/// The one field of messages that are there to tell a missing value from zero.
fn wrapped(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let kind = message
        .full_name()
        .strip_prefix("google.protobuf.")?
        .strip_suffix("Value")?;
    let kinds = [
        "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes",
    ];
    kinds
        .contains(&kind)
        .then(|| message.get_field_by_name("value"))
        .flatten()
}

fn value_of(kind: &Kind, text: &str) -> Option<Value> {
    Some(match kind {
        Kind::Double => Value::F64(text.parse().ok()?),
        Kind::Float => Value::F32(text.parse().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(text.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(text.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(text.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(text.parse().ok()?),
        Kind::Bool => Value::Bool(text.parse().ok()?),
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => {
            let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
            Value::Bytes(bytes.ok()?.into())
        }
        Kind::Enum(names) => match names.get_value_by_name(text) {
            Some(value) => Value::EnumNumber(value.number()),
            None => Value::EnumNumber(text.parse().ok()?),
        },
        Kind::Message(message) => Value::Message(match wrapped(message) {
            Some(field) => {
                let mut wrapper = DynamicMessage::new(message.clone());
                wrapper.set_field(&field, value_of(&field.kind(), text)?);
                wrapper
            }
            None => {
                let text = serde_json::Value::String(text.to_owned());
                DynamicMessage::deserialize(message.clone(), text).ok()?
            }
        }),
    })
}
