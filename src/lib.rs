//! Sallyport: one API gateway engine under three configuration dialects.
//!
//! Documents become entities (`dialects`), entities compile into a [`model::plan::Plan`], the plan is linked into
//! an immutable snapshot (`runtime`), and the `engine` runs that snapshot without knowing which dialect wrote it.
//!
//! Modules are floors. A module imports lower floors only, never a neighbour on its own floor;
//! `tests/tidy.rs` enforces it:
//!
//! | floor | modules |
//! |---|---|
//! | 6 | `cli`, `app` |
//! | 5 | `admin`, `sources` |
//! | 4 | `engine`, `plugins`, `control` |
//! | 3 | `dialects`, `runtime` |
//! | 2 | `model`, `settings` |
//! | 1 | `expr` |
//! | 0 | `base` |

pub mod admin;
pub mod app;
pub mod base;
pub mod cli;
pub mod control;
pub mod dialects;
pub mod engine;
pub mod expr;
pub mod model;
pub mod plugins;
pub mod runtime;
pub mod settings;
pub mod sources;
