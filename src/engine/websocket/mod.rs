//! WebSocket (RFC 6455): handshakes, frames, and the tunnel whose messages plugins see.
//!
//! Owns everything about the protocol between the switch and the last close. Knows neither sessions nor routes: it
//! works on two streams and an exchange.

#[allow(dead_code, reason = "the tunnel that uses the rest lands next")]
pub(crate) mod handshake;
