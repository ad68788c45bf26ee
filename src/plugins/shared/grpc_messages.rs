//! Messages of gRPC as they stand in bodies, and the JSON that stands for them.

use bytes::{BufMut, Bytes, BytesMut};
use prost_reflect::prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Serializer;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// As the reference gateway reads: members that are no fields are passed over.
const READING: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

/// What is cut from the front of a stream of messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A whole message without its prefix.
    Message(Bytes),
    /// More has to come.
    Nothing,
    /// The next message cannot be read, for this reason.
    Broken(&'static str),
}

/// Cuts the next message off.
pub(crate) fn cut(from: &mut BytesMut, bytes_max: usize) -> Cut {
    let Some(([compressed, length @ ..], _)) = from.split_first_chunk::<PREFIX_BYTES>() else {
        return Cut::Nothing;
    };
    let length = u32::from_be_bytes(*length) as usize;
    if *compressed != 0 {
        return Cut::Broken("a message is compressed, which nobody asked for");
    }
    if length > bytes_max {
        return Cut::Broken("a message is too long");
    }
    if from.len() < PREFIX_BYTES + length {
        return Cut::Nothing;
    }
    let mut message = from.split_to(PREFIX_BYTES + length);
    Cut::Message(message.split_off(PREFIX_BYTES).freeze())
}

/// Appends a message with its prefix.
pub(crate) fn put_framed(message: &DynamicMessage, into: &mut BytesMut) -> Result<(), String> {
    let length = message.encoded_len();
    let announced = u32::try_from(length).map_err(|_| "the message is too long")?;
    into.reserve(PREFIX_BYTES + length);
    into.put_u8(0);
    into.put_u32(announced);
    // Room was made for all of it.
    message.encode(into).map_err(|error| error.to_string())
}

/// A message from its JSON. The error is for the client.
pub(crate) fn from_json(kind: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut json, &READING)
        .map_err(|error| not_json(&error))?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(message)
}

/// Why a client's JSON is refused.
pub(crate) fn not_json(error: &serde_json::Error) -> String {
    format!("the body is not JSON that fits: {error}")
}

/// Shows a message of an upstream's in JSON: with the file's own names, with fields that are zero, with long numbers as
/// numbers (Kong: likewise).
pub(crate) fn show<S>(kind: &MessageDescriptor, message: Bytes, json: S) -> Result<S::Ok, String>
where
    S: Serializer<Error = serde_json::Error>,
{
    let writing = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    let message = DynamicMessage::decode(kind.clone(), message)
        .map_err(|error| format!("the upstream's message cannot be read: {error}"))?;
    message
        .serialize_with_options(json, &writing)
        .map_err(|error| format!("the upstream's message cannot be shown in JSON: {error}"))
}
