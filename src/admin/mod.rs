//! Kong's Admin API, the status listener and the web page: HTTP in, entity operations and node facts out.
//!
//! Owns how requests become operations and how results become answers. Refuses to know what entities mean: schemas,
//! links and error texts come from `dialects`, storage from `control`, the state of the process from [`node::Node`].
//!
//! ```text
//! server ──▶ guard ──▶ dispatch ──▶ table ──▶ crud | a special endpoint ──▶ answer
//! ```
//!
//! Start at [`table`] for what an endpoint is, at [`special::table`] for the list of all of them, at
//! [`dispatch::router`] for how a listener is made.

pub mod answer;
pub mod apigee;
pub mod body;
mod cache;
pub mod call;
mod certificates;
mod clustering;
pub mod config;
mod consumer_groups;
mod consumers;
pub mod crud;
mod debug;
pub mod dispatch;
mod endpoints;
mod filter_chains;
pub mod form;
pub mod guard;
pub mod node;
pub mod openapi;
pub mod page;
mod plugins_enabled;
mod root;
mod schemas;
pub mod server;
pub mod special;
pub mod state;
mod status;
pub mod status_listener;
pub mod table;
mod tags;
mod timers;
mod traces;
mod upstreams;
pub mod users;

#[cfg(test)]
mod tests;
