//! What all endpoints share.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::StatusCode;

use super::answer::Answer;
use super::apigee::tokens::Tokens;
use super::config::Loaded;
use super::node::Node;
use super::users::Users;
use crate::base::seal::Seal;
use crate::control::{ControlPlane, Everything};
use crate::dialects::kong::entities::{EntityTable, RouterFlavor};
use crate::dialects::kong::error::{ApiError, ErrorCode};
use crate::model::catalog::Catalog;
use crate::runtime::entry_cache::EntryCache;
use crate::runtime::records::{MemoryRecords, Records};
use crate::settings::Settings;
use crate::settings::general::Database;

/// The version of Kong whose protocol we speak.
pub const KONG_VERSION: &str = "3.10.0";

/// What changes with traffic and is administered too.
#[derive(Clone)]
pub struct Keeping {
    /// Entries of key-value maps, issued tokens.
    pub records: Arc<dyn Records>,
    /// Entries of caches.
    pub entries: Arc<EntryCache>,
    /// Seals values of encrypted maps.
    pub seal: Seal,
}

/// Everything in memory, for tests.
impl Default for Keeping {
    fn default() -> Self {
        Self {
            records: Arc::new(MemoryRecords::default()),
            entries: Arc::default(),
            seal: Seal::fleeting(),
        }
    }
}

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
    /// What changes with traffic and is administered too.
    pub keeping: Keeping,
    /// Tokens that stand for passwords of administrators.
    pub tokens: Arc<Tokens>,
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
            keeping: Keeping::default(),
            tokens: Arc::default(),
            users: Arc::default(),
            loaded: Loaded::default(),
        }
    }

    /// Says where what changes with traffic is kept.
    #[must_use]
    pub fn with_keeping(mut self, keeping: Keeping) -> Self {
        self.keeping = keeping;
        self
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
