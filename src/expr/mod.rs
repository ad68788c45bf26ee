//! Conditions and templates: parse once, evaluate often. Pure.
