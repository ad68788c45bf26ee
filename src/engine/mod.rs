//! The engine: listeners, the accept path, and the two drivers that run a snapshot. Knows no dialect.
//!
//! ```text
//! listen ─▶ front ─▶ gateway (Pingora's ProxyHttp) ─▶ phases ─┬▶ exchange driver: whole exchange, own connections
//!            │  └ tls                                          └▶ duplex driver: Pingora's proxy path
//!            └ io (the stream under every connection)
//! ```
//!
//! Start with [`Engine`], then `gateway.rs`.

mod application;
mod balance;
mod client;
mod connect;
mod duplex;
mod exchange;
mod forwarding;
mod front;
mod gateway;
mod heads;
mod http1;
mod io;
mod listen;
mod log;
mod phases;
mod respond;
mod tls;
mod websocket;

#[cfg(test)]
mod tests;

pub use gateway::ForcedDriver;
pub use listen::{BindError, Bound, Ending, Engine, EngineOptions};
pub use log::{AccessLog, AccessLogTarget};
