//! Kong's Admin API, the status listener and the web page: HTTP in, entity operations and node facts out.
//!
//! Owns how requests become operations and how results become answers. Refuses to know what entities mean: schemas,
//! links and error texts come from `dialects`, storage from `control`, the state of the process from [`node::Node`].

pub mod answer;
pub mod body;
pub mod call;
pub mod form;
pub mod guard;
pub mod node;
pub mod server;
pub mod users;
