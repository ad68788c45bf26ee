//! Plugins configured as Kong configures them.
