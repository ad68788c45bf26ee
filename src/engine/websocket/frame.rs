//! Frames on the wire (RFC 6455, 5): bytes into whole messages, and messages into bytes.
//!
//! The decoder is given bytes as they come and holds no more than what is left of an incomplete message. It checks
//! everything that can be checked on one side of a tunnel: masks, reserved bits, opcodes, lengths, the order of
//! fragments, UTF-8, close codes, and the limit.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::engine::websocket::deflate;
use crate::runtime::message::{Ending, Message, MessageKind, code};

/// Longest payload of a control frame, in bytes.
const CONTROL_BYTES_MAX: u64 = 125;
/// Memory is taken for at most this much of an announced payload before it arrives, in bytes.
const RESERVED_BYTES_MAX: u64 = 64 * 1024;
/// Bit of the first byte: the last frame of its message.
const FIN: u8 = 0x80;
/// Bit of the first byte that permessage-deflate uses (RFC 7692, 6).
const COMPRESSED: u8 = 0x40;
const RESERVED: u8 = 0x30;
/// Bit of the second byte: a masking key follows.
const MASKED: u8 = 0x80;

/// Which side sends, and therefore whether its frames are masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Upstream,
}

/// What is agreed on compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// None: compressed frames are a violation.
    Off,
    /// Compressed messages pass as they are; nobody looks into them.
    Passed,
    /// Every message is compressed by itself, and is opened for those who look.
    Opened,
}

/// A message with what it looked like on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Framed {
    pub(crate) message: Message,
    pub(crate) wire: Wire,
}

/// How a message's payload stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    /// Compressed, and so it is in the message.
    Compressed,
    /// Compressed like this; the message has it opened.
    Opened(Bytes),
}

/// Why a sender cannot be understood any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl From<Violation> for Ending {
    fn from(violation: Violation) -> Self {
        Self::blaming_sender(violation.code, violation.reason)
    }
}

/// Reads one side's frames.
pub(crate) struct Decoder {
    sender: Sender,
    compression: Compression,
    limit: u64,
    unread: BytesMut,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The data message whose frames are arriving.
    partial: Option<Partial>,
    /// The payload of a control frame that is arriving, perhaps amid a message.
    control: BytesMut,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    last: bool,
    left: u64,
    mask: Option<[u8; 4]>,
    /// How far into the mask the payload is.
    phase: usize,
}

struct Partial {
    kind: MessageKind,
    compressed: bool,
    data: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Data(MessageKind),
    Control(MessageKind),
}

impl Opcode {
    fn parse(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Data(MessageKind::Text),
            0x2 => Self::Data(MessageKind::Binary),
            0x8 => Self::Control(MessageKind::Close),
            0x9 => Self::Control(MessageKind::Ping),
            0xA => Self::Control(MessageKind::Pong),
            _ => return None,
        })
    }
}

impl Decoder {
    pub(crate) fn new(sender: Sender, compression: Compression, limit: u32) -> Self {
        Self {
            sender,
            compression,
            limit: u64::from(limit),
            unread: BytesMut::new(),
            frame: None,
            partial: None,
            control: BytesMut::new(),
        }
    }

    /// Takes in bytes as they came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next whole message, if it is here.
    pub(crate) fn next(&mut self) -> Result<Option<Framed>, Violation> {
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.header()? {
                    Some(frame) => frame,
                    None => {
                        if self.unread.is_empty() {
                            // Nothing is held while the sender is silent.
                            self.unread = BytesMut::new();
                        }
                        return Ok(None);
                    }
                },
            };
            let left = self.payload(frame);
            if left > 0 {
                self.frame = Some(Frame {
                    left,
                    phase: (frame.phase + (frame.left - left) as usize % 4) % 4,
                    ..frame
                });
                self.unread = BytesMut::new();
                return Ok(None);
            }
            self.frame = None;
            let whole = match frame.opcode {
                Opcode::Control(kind) => {
                    let data = std::mem::take(&mut self.control).freeze();
                    Some(Framed {
                        message: control(kind, data)?,
                        wire: Wire::Plain,
                    })
                }
                Opcode::Data(_) | Opcode::Continuation if frame.last => self.complete()?,
                Opcode::Data(_) | Opcode::Continuation => None,
            };
            if whole.is_some() {
                return Ok(whole);
            }
        }
    }

    /// Reads a frame's header, if it is here, and makes room for its payload.
    fn header(&mut self) -> Result<Option<Frame>, Violation> {
        let protocol = |reason| Violation {
            code: code::PROTOCOL_ERROR,
            reason,
        };
        let (first, second) = match self.unread.get(..2) {
            Some([first, second]) => (*first, *second),
            _ => return Ok(None),
        };
        let opcode = Opcode::parse(first & 0x0F).ok_or(protocol("unknown opcode"))?;
        let last = first & FIN != 0;
        let compressed = first & COMPRESSED != 0;
        if first & RESERVED != 0 {
            return Err(protocol("reserved bits are set"));
        }
        if compressed
            && (self.compression == Compression::Off || !matches!(opcode, Opcode::Data(_)))
        {
            return Err(protocol("compression was not agreed on"));
        }
        let masked = second & MASKED != 0;
        match (self.sender, masked) {
            (Sender::Client, false) => return Err(protocol("frames of clients are masked")),
            (Sender::Upstream, true) => return Err(protocol("frames of servers are not masked")),
            _ => {}
        }
        // Judged before the long forms of the length are even here.
        if matches!(opcode, Opcode::Control(_)) {
            if !last {
                return Err(protocol("control frames are not fragmented"));
            }
            if u64::from(second & !MASKED) > CONTROL_BYTES_MAX {
                return Err(protocol("control frame longer than 125 bytes"));
            }
        }
        match (opcode, &self.partial) {
            (Opcode::Continuation, None) => return Err(protocol("nothing to continue")),
            (Opcode::Data(_), Some(_)) => {
                return Err(protocol("a message began within another one"));
            }
            _ => {}
        }
        let extended = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let length = match (extended, self.unread.get(2..2 + extended)) {
            (_, None) => return Ok(None),
            (0, _) => u64::from(second & !MASKED),
            (_, Some(bytes)) => bytes
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let shortest = match extended {
            0 => 0,
            2 => 126,
            _ => 65_536,
        };
        if length < shortest || length > i64::MAX as u64 {
            return Err(protocol("length is not in its shortest form"));
        }
        let sofar = self.partial.as_ref().map_or(0, |it| it.data.len() as u64);
        if !matches!(opcode, Opcode::Control(_)) && sofar.saturating_add(length) > self.limit {
            return Err(Violation {
                code: code::TOO_BIG,
                reason: "Payload Too Large",
            });
        }
        let start = 2 + extended;
        let mask = match masked {
            false => None,
            true => match self.unread.get(start..start + 4) {
                Some([a, b, c, d]) => Some([*a, *b, *c, *d]),
                _ => return Ok(None),
            },
        };
        self.unread.advance(start + if masked { 4 } else { 0 });
        if let Opcode::Data(kind) = opcode {
            self.partial = Some(Partial {
                kind,
                compressed,
                data: BytesMut::new(),
            });
        }
        let room = usize::try_from(length.min(RESERVED_BYTES_MAX)).unwrap_or_default();
        self.target(opcode).reserve(room);
        Ok(Some(Frame {
            opcode,
            last,
            left: length,
            mask,
            phase: 0,
        }))
    }

    /// Moves what is here of a payload to where it belongs; gives what is still to come.
    fn payload(&mut self, frame: Frame) -> u64 {
        let here = usize::try_from(frame.left)
            .map_or(self.unread.len(), |left| left.min(self.unread.len()));
        let mut bytes = self.unread.split_to(here);
        if let Some(mask) = frame.mask {
            apply_mask(&mut bytes, mask, frame.phase);
        }
        self.target(frame.opcode).extend_from_slice(&bytes);
        frame.left - here as u64
    }

    fn target(&mut self, opcode: Opcode) -> &mut BytesMut {
        match (opcode, &mut self.partial) {
            (Opcode::Data(_) | Opcode::Continuation, Some(partial)) => &mut partial.data,
            // Of data frames there is always a partial message: the header made it, or was refused.
            _ => &mut self.control,
        }
    }

    /// The message whose last frame is here.
    fn complete(&mut self) -> Result<Option<Framed>, Violation> {
        let Some(partial) = self.partial.take() else {
            return Ok(None);
        };
        let raw = partial.data.freeze();
        let (data, wire) = match (partial.compressed, self.compression) {
            (false, _) => (raw, Wire::Plain),
            (true, Compression::Opened) => {
                let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
                (deflate::open(&raw, limit)?, Wire::Opened(raw))
            }
            (true, _) => (raw, Wire::Compressed),
        };
        if partial.kind == MessageKind::Text
            && wire != Wire::Compressed
            && std::str::from_utf8(&data).is_err()
        {
            return Err(Violation {
                code: code::INVALID_DATA,
                reason: "text is not UTF-8",
            });
        }
        Ok(Some(Framed {
            message: Message {
                kind: partial.kind,
                data,
                code: None,
            },
            wire,
        }))
    }
}

/// A control message; of a close the code is split off its reason.
fn control(kind: MessageKind, mut data: Bytes) -> Result<Message, Violation> {
    let mut close_code = None;
    if kind == MessageKind::Close && !data.is_empty() {
        if data.len() < 2 {
            return Err(Violation {
                code: code::PROTOCOL_ERROR,
                reason: "half a close code",
            });
        }
        let given = data.get_u16();
        if !is_sendable(given) {
            return Err(Violation {
                code: code::PROTOCOL_ERROR,
                reason: "close code that must not be sent",
            });
        }
        if std::str::from_utf8(&data).is_err() {
            return Err(Violation {
                code: code::INVALID_DATA,
                reason: "reason is not UTF-8",
            });
        }
        close_code = Some(given);
    }
    Ok(Message {
        kind,
        data,
        code: close_code,
    })
}

/// May this code stand in a close frame (RFC 6455, 7.4, and the registry)?
fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a message as one frame. `masked`: towards an upstream.
pub(crate) fn encode(message: &Message, compressed: bool, masked: bool, into: &mut BytesMut) {
    let opcode = match message.kind {
        MessageKind::Text => 0x1,
        MessageKind::Binary => 0x2,
        MessageKind::Close => 0x8,
        MessageKind::Ping => 0x9,
        MessageKind::Pong => 0xA,
    };
    let code = message
        .code
        .filter(|_| message.kind == MessageKind::Close)
        .map(u16::to_be_bytes);
    let prefix: &[u8] = match &code {
        Some(code) => code,
        None => &[],
    };
    let mut data: &[u8] = &message.data;
    if message.kind.is_control() {
        // What plugins make longer than a control frame can be is cut, text at a character.
        let room = CONTROL_BYTES_MAX as usize - prefix.len();
        data = match std::str::from_utf8(data) {
            Ok(text) => text
                .get(..text.floor_char_boundary(room))
                .unwrap_or(text)
                .as_bytes(),
            Err(_) => data.get(..room).unwrap_or(data),
        };
    }
    let length = prefix.len() + data.len();
    into.reserve(14 + length);
    into.put_u8(FIN | if compressed { COMPRESSED } else { 0 } | opcode);
    let mask_bit = if masked { MASKED } else { 0 };
    match length {
        0..=125 => into.put_u8(mask_bit | length as u8),
        126..=65_535 => {
            into.put_u8(mask_bit | 126);
            into.put_u16(length as u16);
        }
        _ => {
            into.put_u8(mask_bit | 127);
            into.put_u64(length as u64);
        }
    }
    if !masked {
        into.put_slice(prefix);
        into.put_slice(data);
        return;
    }
    let mask: [u8; 4] = rand::random();
    into.put_slice(&mask);
    let start = into.len();
    into.put_slice(prefix);
    into.put_slice(data);
    if let Some(payload) = into.get_mut(start..) {
        apply_mask(payload, mask, 0);
    }
}

/// Masks or unmasks in place; `phase` is how far into the mask the first byte is.
fn apply_mask(bytes: &mut [u8], mut mask: [u8; 4], phase: usize) {
    mask.rotate_left(phase % 4);
    let word = u32::from_ne_bytes(mask);
    let wide = u64::from(word) | u64::from(word) << 32;
    let (wides, rest) = bytes.as_chunks_mut::<8>();
    for chunk in wides {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
