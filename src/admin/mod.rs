//! Administration over HTTP: the Admin API, the status listener.
