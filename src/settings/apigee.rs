//! Apigee's organisation, its environments, and the bundles that are deployed without a store.

use std::path::PathBuf;

use super::key::keys;
use super::value::{Raw, Value};
use crate::base::secret::Secret;

keys! {
    /// Apigee.
    pub struct ApigeeSettings {
        /// The organisation that exists from the start: `/v1/organizations/NAME` of the management API.
        apigee_organization: Name = "sallyport";
        /// The environments that exist from the start. The management API makes further ones.
        apigee_environments: Names = "test";
        /// Bundles, folders or ZIP files, that are imported and deployed at the start in every configured environment
        /// when `database = off`; otherwise ignored with a warning. `reload` reads them again.
        apigee_bundles: Paths = "" => reloads();
        /// Verify targets only where a trust store says so, as Edge does. With `off` every target with TLS is verified,
        /// against the system's certificates where no trust store is named.
        apigee_tls_edge_compatible: bool = "off";
        /// The Node.js that runs the programs of bundles (`ScriptTarget`): a path, or a name that is looked for on `PATH`;
        /// empty stands for `node`. Where there is none such bundles are refused.
        apigee_node_path: Option<String> = "";
        /// Requests whose header `Sallyport-Trace` holds this are traced; empty traces none.
        apigee_trace_token: Option<String> = "" => secret() reloads();
    }
}

impl super::Settings {
    /// What the header of a traced request must hold; none traces nothing.
    pub fn trace_token(&self) -> Option<Secret> {
        let token = self.apigee.apigee_trace_token.as_deref();
        token.filter(|token| !token.is_empty()).map(Secret::new)
    }
}

impl super::Settings {
    /// The Node.js that runs the programs of bundles.
    pub fn node(&self) -> &str {
        let named = self.apigee.apigee_node_path.as_deref();
        named.filter(|path| !path.is_empty()).unwrap_or("node")
    }

    /// Why programs of bundles cannot run, if they cannot; `is_there` tells whether a program exists on this machine.
    pub fn node_missing(&self, is_there: impl Fn(&str) -> bool) -> Option<String> {
        let node = self.node();
        (!is_there(node)).then(|| {
            format!(
                "there is no Node.js '{node}' on this machine; install it, or name it with apigee_node_path"
            )
        })
    }
}

/// The name of an organisation or environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

fn check(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 255 || !name.chars().all(allowed) || name.starts_with('.') {
        return Err(format!("'{name}' is no name"));
    }
    Ok(())
}

const NAME_ALLOWED: &str = "letters, digits, `-`, `_` and `.`";

impl Value for Name {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let name = raw.one()?;
        check(name)?;
        Ok(Self(name.to_owned()))
    }

    fn allowed() -> String {
        format!("a name of {NAME_ALLOWED}")
    }

    fn json(&self) -> serde_json::Value {
        self.0.as_str().into()
    }
}

/// Names of environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Value for Names {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let names = raw.many();
        if names.is_empty() {
            return Err("must not be empty".to_owned());
        }
        for name in &names {
            check(name)?;
        }
        Ok(Self(names.into_iter().map(str::to_owned).collect()))
    }

    fn allowed() -> String {
        format!("a list of names of {NAME_ALLOWED}")
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!(self.0)
    }
}

/// Files and folders; none is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths(pub Vec<PathBuf>);

impl Value for Paths {
    fn parse(raw: &Raw) -> Result<Self, String> {
        let paths = raw.many().into_iter().filter(|path| !path.is_empty());
        Ok(Self(paths.map(PathBuf::from).collect()))
    }

    fn allowed() -> String {
        "a list of folders and ZIP files".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!(self.0)
    }
}
