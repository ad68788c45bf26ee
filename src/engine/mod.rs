//! The engine: listeners, the accept path, and the two drivers that run a snapshot. Knows no dialect.
//!
//! ```text
//! accept ─┬▶ front ─▶ application ─▶ gateway ─▶ phases ─┬▶ exchange driver: whole exchange, own connections
//!         │   │ └ tls         └▶ hooks (Pingora's       └▶ duplex driver: back through the hooks to
//!         │   │                  ProxyHttp) ─▶ gateway      Pingora's proxy path
//!         │   └ io (the stream under every connection)
//!         └▶ stream: bytes both ways, whatever they mean
//! ```
//!
//! Start with [`Engine`], then `gateway.rs`.

mod accept;
mod admission;
mod application;
mod balance;
mod buffers;
mod client;
mod connect;
mod descriptors;
mod duplex;
mod exchange;
mod forwarding;
mod front;
mod gateway;
mod heads;
mod hooks;
mod http1;
mod io;
mod listen;
mod log;
pub mod mutual;
mod pace;
mod peek;
mod phases;
mod proxy_header;
mod read_ahead;
mod respond;
mod stream;
mod tls;
mod tunnel;
mod wait;
mod websocket;

#[cfg(test)]
mod tests;

pub use accept::{BindError, Bound};
pub use gateway::ForcedDriver;
pub use listen::{Ending, Engine, EngineOptions};
pub use log::{AccessLog, AccessLogTarget};
pub use tls::{AcceptError, Acceptor};
