//! Who may administer.

use std::path::PathBuf;

use super::key::{choice, keys};

keys! {
    /// Who may administer.
    pub struct AdministrationSettings {
        /// Whether the Admin listener demands a name and password. With `off` any are taken and ignored.
        admin_auth: AdminAuth = "off";
        /// A file with a name, a colon and an argon2 hash (PHC form) on each line. Needed with `admin_auth = basic`.
        admin_users: Option<PathBuf> = "" => reloads();
    }
}

choice! {
    /// How the Admin listener knows who asks.
    pub enum AdminAuth {
        /// It does not ask.
        Off = "off",
        /// HTTP Basic against `admin_users`.
        Basic = "basic",
    }
}
