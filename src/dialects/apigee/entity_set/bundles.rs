//! Reading proxies and shared flows: their revisions, files and deployments.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::EntitySet;
use crate::dialects::apigee::entities::{
    BundleKind, Deployment, Kind, ResourceFile, Revision, RevisionFile,
};

/// The files of a revision by path below the bundle's top folder, for example `proxies/default.xml`.
pub type Files = BTreeMap<Arc<str>, Arc<[u8]>>;

/// A revision that an environment runs.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployedBundle {
    pub organization: String,
    pub environment: String,
    pub kind: BundleKind,
    pub name: String,
    pub revision: u32,
    pub deployment: Deployment,
}

impl EntitySet {
    /// The numbers of a bundle's revisions, ascending.
    pub fn revisions(&self, organization: &str, kind: BundleKind, name: &str) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .list(Kind::Revision, &[organization, kind.word(), name])
            .filter_map(|row| row.name().parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// What is known of a revision besides its files.
    pub fn revision(
        &self,
        organization: &str,
        kind: BundleKind,
        name: &str,
        revision: u32,
    ) -> Option<Revision> {
        self.find(&[organization, kind.word(), name, &revision.to_string()])
    }

    /// The files of a revision; empty when there is no such revision.
    pub fn files(&self, organization: &str, kind: BundleKind, name: &str, revision: u32) -> Files {
        let revision = revision.to_string();
        self.all::<RevisionFile>(&[organization, kind.word(), name, &revision])
            .map(|(key, file)| (key.last().into(), file.bytes().into()))
            .collect()
    }

    /// Every revision that serves, of all organisations or of what `below` names: `[organization, environment, …]`.
    /// Revisions that another one has replaced are left out, also while they are still listed.
    pub fn deployed(&self, below: &[&str]) -> Vec<DeployedBundle> {
        self.all::<Deployment>(below)
            .filter(|(_, deployment)| deployment.retires_at_ms.is_none())
            .filter_map(|(key, deployment)| {
                Some(DeployedBundle {
                    organization: key.part(0).to_owned(),
                    environment: key.part(1).to_owned(),
                    kind: BundleKind::from_word(key.part(2))?,
                    name: key.part(3).to_owned(),
                    revision: key.part(4).parse().ok()?,
                    deployment,
                })
            })
            .collect()
    }

    /// The revision of a bundle that an environment runs.
    pub fn deployed_revision(
        &self,
        organization: &str,
        environment: &str,
        kind: BundleKind,
        name: &str,
    ) -> Option<DeployedBundle> {
        self.deployed(&[organization, environment, kind.word(), name])
            .into_iter()
            .max_by_key(|deployed| deployed.revision)
    }

    /// A resource that a bundle names: from the environment, else from the organisation. The bundle's own files come
    /// before both; the caller looks there first.
    pub fn shared_resource(
        &self,
        organization: &str,
        environment: &str,
        kind: &str,
        name: &str,
    ) -> Option<Arc<[u8]>> {
        [environment, ""].into_iter().find_map(|level| {
            self.find::<ResourceFile>(&[organization, level, kind, name])
                .map(|file| file.content.bytes().into())
        })
    }
}
