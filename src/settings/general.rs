//! The instance as a whole: where it keeps its things, which store, which router, which plugins.

use std::path::PathBuf;

use super::key::{choice, keys};
use super::value::{Raw, Value};

keys! {
    /// The instance as a whole.
    pub struct GeneralSettings {
        /// The folder for everything that the instance writes: embedded store, pid file, control socket, generated
        /// certificates, logs. Relative paths in other keys of this file are taken from the working directory, those of
        /// logs from here.
        prefix: PathBuf = "./sallyport-data";
        /// Where the configuration lives. `embedded` is a database file in `prefix`. `off` serves the declarative file
        /// alone; the Admin API then reads, and writes only through `/config`.
        database: Database = "embedded";
        /// A YAML or JSON file in Kong's declarative format: the whole configuration when `database = off`, else ignored
        /// with a warning. `reload` reads it again.
        declarative_config: Option<PathBuf> = "" => reloads();
        /// The declarative configuration itself instead of a file that holds it.
        declarative_config_string: Option<String> = "" => secret();
        /// Threads that proxy. `auto` means one for each core.
        workers: Workers = "auto" => also(&["nginx_worker_processes"]);
        /// How routes are compared, see Kong's documentation of the router.
        router_flavor: RouterFlavor = "traditional_compatible";
        /// Which plugins may be used: `bundled` for all that the program has, `off` for none, or names.
        plugins: PluginSelection = "bundled";
        /// The longest that a stopping instance waits for requests in flight.
        graceful_shutdown_timeout: super::value::Seconds = "300";
    }
}

choice! {
    /// Where the configuration lives.
    pub enum Database {
        /// An embedded database in `prefix`.
        Embedded = "embedded",
        /// Declarative files only.
        Off = "off",
        ! "etcd" = "the shared store is not supported by this version",
        "postgres" = "there is no SQL server to connect to",
    }
}

choice! {
    /// How routes are compared. Kong: `router_flavor`.
    pub enum RouterFlavor {
        /// Routes compiled to expressions with the traditional precedence.
        TraditionalCompatible = "traditional_compatible",
        /// The original router.
        Traditional = "traditional",
        /// Routes are written as expressions.
        Expressions = "expressions",
    }
}

/// How many proxy threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One for each core.
    Auto,
    /// This many, at least 1.
    Fixed(usize),
}

impl Workers {
    /// More threads than any machine has cores only cost memory.
    const MAX: usize = 1024;

    /// The number, given that of the cores.
    pub fn count(self, cores: usize) -> usize {
        match self {
            Self::Auto => cores.clamp(1, Self::MAX),
            Self::Fixed(count) => count,
        }
    }
}

impl Value for Workers {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.one()?;
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(count @ 1..=Self::MAX) => Ok(Self::Fixed(count)),
            Ok(_) => Err(format!("{text} is out of range")),
            Err(_) => Err(format!("'{text}' is not a number of threads")),
        }
    }

    fn allowed() -> String {
        format!("`auto` or a whole number between 1 and {}", Self::MAX)
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Auto => "auto".into(),
            Self::Fixed(count) => (*count).into(),
        }
    }
}

/// Which plugins may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSelection {
    /// All that the program has.
    Bundled,
    /// These, by name. Empty: none.
    Only(Vec<String>),
}

impl PluginSelection {
    /// Whether the plugin of this name may be used.
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::Bundled => true,
            Self::Only(names) => names.iter().any(|one| one == name),
        }
    }

    /// The names written out, beside `bundled`; the caller checks that they exist.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Bundled => &[],
            Self::Only(names) => names,
        }
    }
}

impl Value for PluginSelection {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let names = raw.many();
        if names.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if names == ["off"] {
            return Ok(Self::Only(Vec::new()));
        }
        if names.contains(&"off") {
            return Err("'off' cannot stand beside names".to_owned());
        }
        if names == ["bundled"] {
            return Ok(Self::Bundled);
        }
        if names.contains(&"bundled") {
            return Err(
                "'bundled' cannot stand beside names: plugins of your own cannot be added"
                    .to_owned(),
            );
        }
        Ok(Self::Only(names.into_iter().map(str::to_owned).collect()))
    }

    fn allowed() -> String {
        "`bundled`, `off`, or a list of plugin names".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Bundled => serde_json::json!(["bundled"]),
            Self::Only(names) if names.is_empty() => serde_json::json!(["off"]),
            Self::Only(names) => serde_json::json!(names),
        }
    }
}
