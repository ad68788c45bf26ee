//! Messages of a tunnel that the gateway reads, as plugins see them.
//!
//! A tunnel carries messages in both directions until one side closes it. What is on the wire (frames, masks,
//! compression) is the engine's business: plugins see whole messages in plain form.

use std::borrow::Cow;

use bytes::Bytes;

/// Longest message that any tunnel may carry, whatever a plugin allows, in bytes: 32 MiB.
pub const MESSAGE_BYTES_MAX: u32 = 32 * 1024 * 1024;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    Text,
    Binary,
    Ping,
    Pong,
    /// The sender will send nothing more.
    Close,
}

impl MessageKind {
    /// Is it about the tunnel and not for the application?
    pub fn is_control(self) -> bool {
        matches!(self, Self::Ping | Self::Pong | Self::Close)
    }
}

/// One whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: MessageKind,
    /// The payload; of a close its reason, which is text.
    pub data: Bytes,
    /// The code of a close; `None` where the sender gave none.
    pub code: Option<u16>,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageVerdict {
    /// It goes on to the other side, as it is now.
    Pass,
    /// It goes nowhere.
    Drop,
    /// The tunnel ends: nothing more is read from either side.
    End(Box<Ending>),
}

/// How a tunnel is ended by the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Told to the side whose message it was.
    pub sender: CloseNotice,
    /// Told to the other side.
    pub peer: CloseNotice,
}

/// A close that the gateway sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseNotice {
    /// The code on the wire (RFC 6455, 7.4).
    pub code: u16,
    /// Text of at most 123 bytes; what is longer is cut.
    pub reason: Cow<'static, str>,
}

/// Codes with which tunnels are closed (RFC 6455, 7.4.1).
pub mod code {
    pub const NORMAL: u16 = 1000;
    /// The gateway stops, or the other side is gone.
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The data does not fit its type: text that is not UTF-8, content against its schema.
    pub const INVALID_DATA: u16 = 1007;
    pub const TOO_BIG: u16 = 1009;
    pub const INTERNAL_ERROR: u16 = 1011;
}

impl CloseNotice {
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

impl Ending {
    /// The sender did something wrong; the other side only learns that the tunnel ends.
    pub fn blaming_sender(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            sender: CloseNotice::new(code, reason),
            peer: CloseNotice::new(code::GOING_AWAY, ""),
        }
    }
}

/// Longest messages accepted, in bytes; of a message in several frames the sum counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// From the client. Default 1 MiB.
    pub client: u32,
    /// From the upstream. Default 16 MiB.
    pub upstream: u32,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            client: 1024 * 1024,
            upstream: 16 * 1024 * 1024,
        }
    }
}

/// How a tunnel of messages ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelEnd {
    /// The code that the client sent; `None` when it just left, or was told by the gateway first.
    pub client_code: Option<u16>,
    /// The code that the upstream sent, likewise.
    pub upstream_code: Option<u16>,
    /// The code that the gateway itself sent to the client, when it ended the tunnel.
    pub gateway_code: Option<u16>,
    /// Messages carried from the client to the upstream.
    pub client_messages: u64,
    /// Messages carried from the upstream to the client.
    pub upstream_messages: u64,
}
