//! What all endpoints share.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::StatusCode;

use super::answer::Answer;
use super::config::Loaded;
use super::node::Node;
use super::users::Users;
use crate::control::{ControlPlane, Everything};
use crate::dialects::kong::entities::{EntityTable, RouterFlavor};
use crate::dialects::kong::error::{ApiError, ErrorCode};
use crate::model::catalog::Catalog;
use crate::settings::Settings;
use crate::settings::general::Database;

/// The version of Kong whose protocol we speak.
pub const KONG_VERSION: &str = "3.10.0";

/// Our own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all endpoints share; one for the Admin and the status listeners of a process.
pub struct Admin {
    pub control: Arc<ControlPlane<Everything>>,
    /// What kinds of entities there are.
    pub entities: &'static EntityTable,
    /// What plugins there are.
    pub catalog: Arc<Catalog>,
    /// The settings that the process started with.
    pub settings: Arc<Settings>,
    pub node: Arc<dyn Node>,
    /// Who may administer, for the guards of the listeners; none for everybody.
    pub users: Arc<ArcSwapOption<Users>>,
    /// The declarative document in force, in db-less mode.
    pub(super) loaded: Loaded,
}

impl Admin {
    /// Puts together what the endpoints need.
    pub fn new(
        control: Arc<ControlPlane<Everything>>,
        catalog: Arc<Catalog>,
        settings: Arc<Settings>,
        node: Arc<dyn Node>,
    ) -> Self {
        Self {
            control,
            entities: EntityTable::of(flavor_of(&settings)),
            catalog,
            settings,
            node,
            users: Arc::default(),
            loaded: Loaded::default(),
        }
    }

    /// Tells which declarative document was loaded by others than `/config`: at the start, or by a reload. `hash` is
    /// that of [`Document`](crate::dialects::kong::declarative::Document).
    pub fn adopt_document(&self, hash: &str) {
        self.loaded.adopt(hash);
    }

    /// The hash of the declarative document in force; none while there is none.
    pub fn document_hash(&self) -> Option<String> {
        self.loaded.is_any().then(|| self.loaded.hash())
    }

    /// Whether a declarative document is the whole configuration, so that single entities cannot be written.
    pub fn is_db_less(&self) -> bool {
        self.settings.general.database == Database::Off
    }

    /// The flavour in which routes are read.
    pub fn flavor(&self) -> RouterFlavor {
        flavor_of(&self.settings)
    }
}

fn flavor_of(settings: &Settings) -> RouterFlavor {
    RouterFlavor::from_name(settings.general.router_flavor.word()).unwrap_or_default()
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        if error.code == ErrorCode::DatabaseError {
            tracing::error!(%error, "an administrative request failed");
        }
        let status =
            StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::json(status, &error.to_json())
    }
}
