//! The kinds of entities and the tables they are stored under.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dialects::apigee::error::ApiError;

/// Something that the entity set keeps, with the form in which it is stored.
pub trait Entity: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;

    /// A further key under which it can be found within its organisation; none for most.
    fn alias(&self) -> Option<String> {
        None
    }
}

/// What kinds of entities there are. A key is a list of names; its parts stand in the variant's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `[organization]`
    Organization,
    /// `[organization, environment]`
    Environment,
    /// `[organization, environment, name]`
    VirtualHost,
    /// `[organization, environment, name]`
    TargetServer,
    /// `[organization, environment, name]`
    Keystore,
    /// `[organization, environment, keystore, alias]`
    KeystoreAlias,
    /// `[organization, environment, name]`
    Reference,
    /// `[organization, environment, name]`
    Cache,
    /// `[organization, scope, name]`, scope as [`MapScope::key`](super::MapScope::key) gives it
    KeyValueMap,
    /// `[organization, environment, type, name]`; the environment is empty for files of the organisation
    ResourceFile,
    /// `[organization, environment, point]`
    FlowHook,
    /// A proxy or shared flow: `[organization, bundle kind, name]`
    Bundle,
    /// `[organization, bundle kind, name, revision]`
    Revision,
    /// `[organization, bundle kind, name, revision, path]`
    RevisionFile,
    /// `[organization, environment, bundle kind, name, revision]`
    Deployment,
    /// `[organization, name]`
    ApiProduct,
    /// `[organization, developer id]`; alias: the e-mail address in lower case
    Developer,
    /// `[organization, developer id, name]`; alias: the app's id
    App,
    /// `[organization, consumer key]`
    AppKey,
}

impl Kind {
    /// Every kind, parents before children.
    pub const ALL: [Self; 19] = [
        Self::Organization,
        Self::Environment,
        Self::VirtualHost,
        Self::TargetServer,
        Self::Keystore,
        Self::KeystoreAlias,
        Self::Reference,
        Self::Cache,
        Self::KeyValueMap,
        Self::ResourceFile,
        Self::FlowHook,
        Self::Bundle,
        Self::Revision,
        Self::RevisionFile,
        Self::Deployment,
        Self::ApiProduct,
        Self::Developer,
        Self::App,
        Self::AppKey,
    ];

    /// The table of the store.
    pub fn table(self) -> &'static str {
        match self {
            Self::Organization => "apigee_organizations",
            Self::Environment => "apigee_environments",
            Self::VirtualHost => "apigee_virtual_hosts",
            Self::TargetServer => "apigee_target_servers",
            Self::Keystore => "apigee_keystores",
            Self::KeystoreAlias => "apigee_keystore_aliases",
            Self::Reference => "apigee_references",
            Self::Cache => "apigee_caches",
            Self::KeyValueMap => "apigee_key_value_maps",
            Self::ResourceFile => "apigee_resource_files",
            Self::FlowHook => "apigee_flow_hooks",
            Self::Bundle => "apigee_bundles",
            Self::Revision => "apigee_revisions",
            Self::RevisionFile => "apigee_revision_files",
            Self::Deployment => "apigee_deployments",
            Self::ApiProduct => "apigee_api_products",
            Self::Developer => "apigee_developers",
            Self::App => "apigee_apps",
            Self::AppKey => "apigee_app_keys",
        }
    }

    /// The kind that a table holds; none for tables of other dialects.
    pub fn from_table(table: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.table() == table)
    }

    /// What it is called in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Organization => "Organization",
            Self::Environment => "Environment",
            Self::VirtualHost => "VirtualHost",
            Self::TargetServer => "TargetServer",
            Self::Keystore => "KeyStore",
            Self::KeystoreAlias => "Alias",
            Self::Reference => "ResourceReference",
            Self::Cache => "Cache",
            Self::KeyValueMap => "KeyValueMap",
            Self::ResourceFile => "ResourceFile",
            Self::FlowHook => "FlowHook",
            Self::Bundle => "APIProxy",
            Self::Revision => "Revision",
            Self::RevisionFile => "File",
            Self::Deployment => "Deployment",
            Self::ApiProduct => "ApiProduct",
            Self::Developer => "Developer",
            Self::App => "App",
            Self::AppKey => "Key",
        }
    }

    /// The code and status of the error for one that is missing.
    fn missing_code(self) -> &'static str {
        match self {
            Self::Organization => "messaging.config.beans.OrganizationDoesNotExist",
            Self::Environment => "messaging.config.beans.EnvironmentDoesNotExist",
            Self::VirtualHost => "messaging.config.beans.VirtualHostDoesNotExist",
            Self::TargetServer => "messaging.config.beans.TargetServerDoesNotExist",
            Self::Keystore => "messaging.config.beans.KeyStoreDoesNotExist",
            Self::KeystoreAlias => "messaging.config.beans.AliasDoesNotExist",
            Self::Reference => "messaging.config.beans.ResourceReferenceDoesNotExist",
            Self::Cache => "messaging.config.beans.CacheDoesNotExist",
            Self::KeyValueMap => "keyvaluemap.service.keyvaluemap_doesnot_exist",
            Self::ResourceFile => "messaging.config.beans.ResourceDoesNotExist",
            Self::FlowHook => "messaging.config.beans.FlowHookDoesNotExist",
            Self::Bundle => "messaging.config.beans.ApplicationDoesNotExist",
            Self::Revision => "messaging.config.beans.ApplicationRevisionDoesNotExist",
            Self::RevisionFile => "messaging.config.beans.ResourceDoesNotExist",
            Self::Deployment => "distribution.RevisionNotDeployed",
            Self::ApiProduct => "keymanagement.service.apiproduct_doesnot_exist",
            Self::Developer => "developer.service.DeveloperIdDoesNotExist",
            Self::App => "developer.service.AppDoesNotExist",
            Self::AppKey => "keymanagement.service.InvalidClientIdForGivenApp",
        }
    }

    /// The code of the error for a name that is taken.
    fn exists_code(self) -> &'static str {
        match self {
            Self::TargetServer => "messaging.config.beans.TargetServerAlreadyExists",
            Self::VirtualHost => "messaging.config.beans.VirtualHostAlreadyExists",
            Self::Cache => "messaging.config.beans.CacheAlreadyExists",
            Self::Reference => "messaging.config.beans.ResourceReferenceAlreadyExists",
            Self::Keystore => "messaging.config.beans.KeyStoreAlreadyExists",
            Self::KeystoreAlias => "messaging.config.beans.AliasAlreadyExists",
            Self::KeyValueMap => "keyvaluemap.service.keyvaluemap_already_exists",
            Self::Developer => "developer.service.DeveloperAlreadyExists",
            Self::App => "developer.service.AppAlreadyExists",
            Self::AppKey => "keymanagement.service.app_already_exists",
            Self::ApiProduct => "keymanagement.service.apiproduct_already_exists",
            Self::ResourceFile => "messaging.config.beans.ResourceAlreadyExists",
            _ => "messaging.config.beans.EntityAlreadyExists",
        }
    }

    /// 404 for one that is missing; `place` reads like `in environment test`.
    pub fn missing(self, name: &str, place: impl fmt::Display) -> ApiError {
        let word = self.word();
        ApiError::missing(
            self.missing_code(),
            format!("{word} named {name} does not exist {place}"),
        )
    }

    /// 409 for a name that is taken.
    pub fn exists(self, name: &str, place: impl fmt::Display) -> ApiError {
        let word = self.word();
        ApiError::exists(
            self.exists_code(),
            format!("{word} named {name} already exists {place}"),
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_again() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_table(kind.table()), Some(kind));
        }
        assert_eq!(Kind::from_table("routes"), None);
    }
}
