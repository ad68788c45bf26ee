//! What a linked configuration is while it runs: snapshot, router, clusters, certificates, live state, contracts.
//!
//! Start with [`contract`] (what plugins are) and [`snapshot`] (what the engine runs). Nothing here knows which dialect a
//! configuration came from.

pub mod authorities;
pub mod certificate_requests;
pub mod certificates;
pub mod client;
pub mod client_certificate;
pub mod clock;
pub mod cluster;
pub mod companion;
pub mod connection;
pub mod contract;
pub mod directory;
pub mod entry_cache;
pub mod exchange;
pub mod fault;
pub mod head;
mod lengths;
pub mod link;
pub mod live;
pub mod matched;
pub mod message;
pub mod mutual;
pub mod node;
pub mod path;
pub mod pipeline;
pub mod probing;
pub mod records;
pub mod resolver;
pub mod retry_budget;
pub mod revocation;
pub mod roster;
pub mod router;
pub mod serving;
pub mod session;
pub mod slots;
pub mod snapshot;
pub mod stapling;
pub mod titled;
pub mod told;
mod unlinkable;
pub mod upstream_tls;
