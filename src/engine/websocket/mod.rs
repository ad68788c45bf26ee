//! WebSocket (RFC 6455): handshakes, frames, and the tunnel whose messages plugins see.
//!
//! Owns everything about the protocol between the switch and the last close. Knows neither sessions nor routes: it
//! works on two streams and an exchange.

mod deflate;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod opening;
pub(crate) mod relay;
