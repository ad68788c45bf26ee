//! What a linked configuration is while it runs: snapshot, router, clusters, certificates, live state, contracts.
