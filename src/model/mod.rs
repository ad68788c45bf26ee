//! The plan and everything it is made of: plain data between dialects and runtime.
