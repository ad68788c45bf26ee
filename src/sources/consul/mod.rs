//! The local Consul agent: asks it, watches what it says, and turns that into identities and verdicts.
//!
//! ```text
//! options ─▶ AgentClient ─▶ Watches ─┬▶ identity: roots and leaf ─▶ MutualCell ─▶ handshakes
//!                 │                  ├▶ intentions ─▶ IntentionBook ─┐
//!                 │                  └▶ registrations, instances     ├▶ ConnectAuthority ─▶ engine
//!                 └────── authorize ─────────────────────────────────┘
//! ```
//!
//! Owns every question to the agent. What is kept stays when the agent is away. Refuses to know how connections are
//! served. Start at [`options::AgentOptions`], [`client::AgentClient`] and [`watch::Watches`].

pub mod address;
pub mod authority;
pub mod client;
pub mod dialling;
pub mod discovery;
pub mod edge;
pub mod identity;
pub mod intentions;
pub mod options;
pub mod plan_book;
pub mod register;
pub mod report;
pub mod rosters;
pub mod search;
pub mod sidecar;
pub mod upstreams;
pub mod watch;
pub mod ways;
