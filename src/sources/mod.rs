//! Where configuration comes from besides the Admin API.
