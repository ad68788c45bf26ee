//! What can become of a call besides a response.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::Address;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("'{url}' cannot be asked: {reason}")]
    Url { url: String, reason: String },
    #[error("the name '{name}' cannot be resolved: {reason}")]
    Unresolved { name: Arc<str>, reason: Arc<str> },
    #[error("cannot connect to {address}")]
    Connect {
        address: Address,
        #[source]
        source: io::Error,
    },
    /// TLS could not be set up, or the peer broke it off.
    #[error("TLS handshake with {address} failed: {reason}")]
    Handshake { address: Address, reason: String },
    /// The peer's certificate is not accepted.
    #[error("TLS peer {address} refused: {reason}")]
    Verification { address: Address, reason: String },
    #[error("{address}: {stage} timed out")]
    Timeout { address: Address, stage: Stage },
    /// The peer broke HTTP, or the connection broke.
    #[error("{address}: {reason}")]
    Protocol {
        address: Address,
        reason: String,
        /// May bytes of the request have been sent?
        written: bool,
    },
    #[error("{address}: the response is longer than {limit} bytes")]
    TooLarge { address: Address, limit: usize },
}

/// What was being done when time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP and TLS.
    Connecting,
    /// From the first byte of the request to the head of the response.
    Waiting,
    /// The response's body.
    Reading,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Waiting => "waiting for the response",
            Self::Reading => "reading the response",
        })
    }
}

impl ClientError {
    /// May bytes of the request have reached the peer? If not, the call can be repeated whatever it does.
    pub fn was_written(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::Unresolved { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Verification { .. } => false,
            Self::Timeout { stage, .. } => *stage != Stage::Connecting,
            Self::Protocol { written, .. } => *written,
            Self::TooLarge { .. } => true,
        }
    }

    /// Did time run out?
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Could no connection be made?
    pub(super) fn is_connecting(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Timeout {
                    stage: Stage::Connecting,
                    ..
                }
        )
    }

    /// The message with its causes, for logs.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
