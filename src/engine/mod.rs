//! The engine: listeners, the accept path, and the two drivers that run a snapshot. Knows no dialect.
