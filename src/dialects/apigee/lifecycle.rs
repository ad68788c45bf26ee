//! The life of a bundle: import makes a revision, pieces change it, deploy and undeploy decide which one runs.
//!
//! Owns the rules between entities: numbers of revisions, whose base path is free, what may be deleted. Pure: works on
//! an entity set and returns what changed. Whether a bundle compiles is judged before.

use super::describe::{self, Piece};
use super::entities::{
    Bundle, BundleKind, Deployment, FlowHook, Kind, Revision, RevisionFile, Stamp, VirtualHost,
};
use super::entity_set::{Change, EntitySet, Files};
use super::error::ApiError;
use crate::base::diagnostic::Diagnostic;

/// Most revisions of a bundle.
pub const REVISIONS_MAX: usize = 1_000;
/// Longest time that a replaced revision stays listed, in seconds.
pub const DELAY_SECONDS_MAX: u32 = 24 * 3600;

/// Which bundle, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleName {
    pub organization: String,
    pub kind: BundleKind,
    pub name: String,
}

impl BundleName {
    fn key(&self) -> [&str; 3] {
        [&self.organization, self.kind.word(), &self.name]
    }

    /// The error for one that does not exist.
    pub fn missing(&self) -> ApiError {
        self.kind.missing(&self.name, &self.organization)
    }

    /// The error for a revision that does not exist.
    pub fn revision_missing(&self, revision: &str) -> ApiError {
        ApiError::missing(
            "messaging.config.beans.ApplicationRevisionDoesNotExist",
            format!(
                "{} revision {revision} of application {} does not exist in organization {}",
                self.kind.title(),
                self.name,
                self.organization
            ),
        )
    }
}

/// Checks the name of a proxy or shared flow.
///
/// # Errors
///
/// 400.
pub fn check_bundle_name(name: &str) -> Result<(), ApiError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 255 || !name.chars().all(allowed) || name.starts_with('.') {
        return Err(ApiError::field(
            "name",
            format!("'{name}' may hold 1 to 255 letters, digits, '-', '_' and '.' only"),
        ));
    }
    Ok(())
}

/// Makes the next revision of a bundle, or the first one of a new bundle. Returns its number.
///
/// # Errors
///
/// 400 for a bad name, or when there are too many revisions.
pub fn import(
    set: &mut EntitySet,
    bundle: &BundleName,
    files: &Files,
    stamp: &Stamp,
) -> Result<(u32, Vec<Change>), ApiError> {
    check_bundle_name(&bundle.name)?;
    let key = bundle.key();
    if set.list(Kind::Revision, &key).count() >= REVISIONS_MAX {
        return Err(ApiError::bad_request(format!(
            "{} {} has {REVISIONS_MAX} revisions already, delete some",
            bundle.kind.title(),
            bundle.name
        )));
    }
    let known: Option<Bundle> = set.find(&key);
    let number = known.as_ref().map_or(0, |known| known.newest) + 1;
    let row = Bundle {
        name: bundle.name.clone(),
        newest: number,
        stamp: known.map_or_else(
            || stamp.clone(),
            |known| {
                known
                    .stamp
                    .touched(stamp.last_modified_at, &stamp.last_modified_by)
            },
        ),
    };
    let mut changes = vec![set.put(&key, &row)];
    changes.extend(put_revision(set, bundle, number, files, stamp));
    Ok((number, changes))
}

fn put_revision(
    set: &mut EntitySet,
    bundle: &BundleName,
    number: u32,
    files: &Files,
    stamp: &Stamp,
) -> Vec<Change> {
    let [organization, kind, name] = bundle.key();
    let number = number.to_string();
    let revision = Revision {
        stamp: stamp.clone(),
    };
    let mut changes = vec![set.put(&[organization, kind, name, &number], &revision)];
    for (path, content) in files {
        let key = [organization, kind, name, &number, path];
        changes.push(set.put(&key, &RevisionFile::of(content)));
    }
    changes
}

/// Replaces all files of a revision.
///
/// # Errors
///
/// 404 when there is none.
pub fn replace(
    set: &mut EntitySet,
    bundle: &BundleName,
    revision: u32,
    files: &Files,
    stamp: &Stamp,
) -> Result<Vec<Change>, ApiError> {
    let known = find_revision(set, bundle, revision)?;
    let [organization, kind, name] = bundle.key();
    let below = [organization, kind, name, &revision.to_string()];
    let mut changes = set.remove_below(Kind::RevisionFile, &below);
    let stamp = known
        .stamp
        .touched(stamp.last_modified_at, &stamp.last_modified_by);
    changes.extend(put_revision(set, bundle, revision, files, &stamp));
    Ok(changes)
}

/// Writes one file of a revision, or removes it.
///
/// # Errors
///
/// 404 when there is no such revision, 400 for a bad path.
pub fn edit_file(
    set: &mut EntitySet,
    bundle: &BundleName,
    revision: u32,
    path: &str,
    content: Option<&[u8]>,
    stamp: &Stamp,
) -> Result<Vec<Change>, ApiError> {
    let known = find_revision(set, bundle, revision)?;
    super::archive::check_path(path).map_err(ApiError::bad_request)?;
    let [organization, kind, name] = bundle.key();
    let number = revision.to_string();
    let key = [organization, kind, name, &number, path];
    let mut changes = Vec::new();
    match content {
        Some(content) => changes.push(set.put(&key, &RevisionFile::of(content))),
        None => changes.extend(set.remove(Kind::RevisionFile, &key)),
    }
    let touched = Revision {
        stamp: known
            .stamp
            .touched(stamp.last_modified_at, &stamp.last_modified_by),
    };
    changes.push(set.put(&[organization, kind, name, &number], &touched));
    Ok(changes)
}

/// The revision, or 404 for what is missing.
///
/// # Errors
///
/// 404.
pub fn find_revision(
    set: &EntitySet,
    bundle: &BundleName,
    revision: u32,
) -> Result<Revision, ApiError> {
    if !set.has(Kind::Bundle, &bundle.key()) {
        return Err(bundle.missing());
    }
    set.revision(&bundle.organization, bundle.kind, &bundle.name, revision)
        .ok_or_else(|| bundle.revision_missing(&revision.to_string()))
}

/// Deletes a bundle with all its revisions and its key-value maps' definitions.
///
/// # Errors
///
/// 404 when there is none, 400 while a revision is deployed.
pub fn delete(set: &mut EntitySet, bundle: &BundleName) -> Result<Vec<Change>, ApiError> {
    let key = bundle.key();
    if !set.has(Kind::Bundle, &key) {
        return Err(bundle.missing());
    }
    let deployed = places(set, bundle, None);
    if let Some((environment, revision)) = deployed.first() {
        return Err(ApiError::in_use(format!(
            "{} {} is deployed in environment {environment} with revision {revision}, undeploy it first",
            bundle.kind.title(),
            bundle.name
        )));
    }
    let mut changes = set.remove_below(Kind::RevisionFile, &key);
    changes.extend(set.remove_below(Kind::Revision, &key));
    changes.extend(remove_retired(set, bundle, None));
    if bundle.kind == BundleKind::Proxy {
        let scope = super::entities::MapScope::Proxy(&bundle.name).key();
        changes.extend(set.remove_below(Kind::KeyValueMap, &[&bundle.organization, &scope]));
    }
    changes.extend(set.remove(Kind::Bundle, &key));
    Ok(changes)
}

/// Deletes a revision; the bundle goes with its last one.
///
/// # Errors
///
/// 404 when there is none, 400 while it is deployed.
pub fn delete_revision(
    set: &mut EntitySet,
    bundle: &BundleName,
    revision: u32,
) -> Result<Vec<Change>, ApiError> {
    find_revision(set, bundle, revision)?;
    if let Some((environment, _)) = places(set, bundle, Some(revision)).first() {
        return Err(ApiError::in_use(format!(
            "revision {revision} of {} {} is deployed in environment {environment}, undeploy it first",
            bundle.kind.title(),
            bundle.name
        )));
    }
    let [organization, kind, name] = bundle.key();
    let key = [organization, kind, name, &revision.to_string()];
    let mut changes = set.remove_below(Kind::RevisionFile, &key);
    changes.extend(remove_retired(set, bundle, Some(revision)));
    changes.extend(set.remove(Kind::Revision, &key));
    Ok(changes)
}

/// Where revisions of a bundle run: environment and number.
fn places(set: &EntitySet, bundle: &BundleName, revision: Option<u32>) -> Vec<(String, u32)> {
    set.deployed(&[&bundle.organization])
        .into_iter()
        .filter(|deployed| deployed.kind == bundle.kind && deployed.name == bundle.name)
        .filter(|deployed| revision.is_none_or(|revision| deployed.revision == revision))
        .map(|deployed| (deployed.environment, deployed.revision))
        .collect()
}

fn remove_retired(set: &mut EntitySet, bundle: &BundleName, revision: Option<u32>) -> Vec<Change> {
    let keys: Vec<_> = set
        .all::<Deployment>(&[&bundle.organization])
        .filter(|(key, deployment)| {
            deployment.retires_at_ms.is_some()
                && key.part(2) == bundle.kind.word()
                && key.part(3) == bundle.name
                && revision.is_none_or(|revision| key.part(4) == revision.to_string())
        })
        .map(|(key, _)| key.clone())
        .collect();
    keys.iter()
        .filter_map(|key| {
            let parts: Vec<&str> = key.parts().collect();
            set.remove(Kind::Deployment, &parts)
        })
        .collect()
}

/// How a revision is to be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub environment: String,
    pub revision: u32,
    /// Takes the place of the revisions that run.
    pub replaces: bool,
    /// How long those stay listed, in seconds.
    pub delay_seconds: u32,
    /// Put before the base paths; `/` for nothing.
    pub base_path: String,
}

/// Deploys a revision; deploying what is deployed changes nothing.
///
/// # Errors
///
/// 404 for what is missing, 400 for a base path that is taken.
pub fn deploy(
    set: &mut EntitySet,
    bundle: &BundleName,
    order: &Order,
    stamp: &Stamp,
) -> Result<(Deployment, Vec<Change>), ApiError> {
    find_revision(set, bundle, order.revision)?;
    let [organization, kind, name] = bundle.key();
    if !set.has(Kind::Environment, &[organization, &order.environment]) {
        return Err(environment_missing(organization, &order.environment));
    }
    let others: Vec<_> = set
        .deployed(&[organization, &order.environment, kind, name])
        .into_iter()
        .filter(|deployed| deployed.revision != order.revision)
        .collect();
    check_paths(set, bundle, order)?;
    let mut changes = Vec::new();
    if order.replaces {
        for other in others {
            let key = [
                organization,
                &order.environment,
                kind,
                name,
                &other.revision.to_string(),
            ];
            if order.delay_seconds == 0 {
                changes.extend(set.remove(Kind::Deployment, &key));
            } else {
                let delay = i64::from(order.delay_seconds.min(DELAY_SECONDS_MAX)) * 1000;
                let mut retired = other.deployment;
                retired.retires_at_ms = Some(stamp.last_modified_at.saturating_add(delay));
                changes.push(set.put(&key, &retired));
            }
        }
    }
    let key = [
        organization,
        &order.environment,
        kind,
        name,
        &order.revision.to_string(),
    ];
    let deployment = Deployment {
        base_path: order.base_path.clone(),
        retires_at_ms: None,
        stamp: stamp.clone(),
    };
    match set.find::<Deployment>(&key) {
        Some(known) if known.retires_at_ms.is_none() && known.base_path == deployment.base_path => {
            return Ok((known, changes));
        }
        _ => changes.push(set.put(&key, &deployment)),
    }
    Ok((deployment, changes))
}

/// The error for an environment that does not exist.
pub fn environment_missing(organization: &str, environment: &str) -> ApiError {
    Kind::Environment.missing(environment, format_args!("in organization {organization}"))
}

/// Refuses base paths that are taken on one of the virtual hosts.
fn check_paths(set: &EntitySet, bundle: &BundleName, order: &Order) -> Result<(), ApiError> {
    let organization = &bundle.organization;
    let conflict = |path: &str, other: &str, revision: u32| {
        ApiError::new(
            400,
            "distribution.ConflictingDeployment",
            format!(
                "Path {path} conflicts with existing deployment path for revision {revision} of the {} {other} in environment {}",
                bundle.kind.title(),
                order.environment
            ),
        )
    };
    let running = set.deployed(&[organization, &order.environment, bundle.kind.word()]);
    let others = running
        .iter()
        .filter(|other| other.name != bundle.name || other.revision != order.revision);
    if bundle.kind == BundleKind::SharedFlow {
        let mut same = others.filter(|other| other.name == bundle.name);
        return match same.next() {
            Some(other) if !order.replaces => Err(conflict("/", &other.name, other.revision)),
            _ => Ok(()),
        };
    }
    let own = exposures(
        set,
        bundle,
        &order.environment,
        order.revision,
        &order.base_path,
    )?;
    for (at, (path, host)) in own.iter().enumerate() {
        let twice = own.iter().skip(at + 1);
        if twice
            .into_iter()
            .any(|other| other == &(path.clone(), host.clone()))
        {
            return Err(conflict(path, &bundle.name, order.revision));
        }
    }
    for other in others {
        if other.name == bundle.name && order.replaces {
            continue;
        }
        let other_name = BundleName {
            organization: organization.clone(),
            kind: bundle.kind,
            name: other.name.clone(),
        };
        let theirs = exposures(
            set,
            &other_name,
            &order.environment,
            other.revision,
            &other.deployment.base_path,
        )
        // What already runs was checked; a virtual host that has gone since exposes nothing.
        .unwrap_or_default();
        if let Some((path, _)) = own.iter().find(|exposure| theirs.contains(exposure)) {
            return Err(conflict(path, &other.name, other.revision));
        }
    }
    Ok(())
}

/// The base paths of a revision with the virtual host of each.
fn exposures(
    set: &EntitySet,
    bundle: &BundleName,
    environment: &str,
    revision: u32,
    prefix: &str,
) -> Result<Vec<(String, String)>, ApiError> {
    let files = set.files(&bundle.organization, bundle.kind, &bundle.name, revision);
    let mut exposures = Vec::new();
    for endpoint in describe::proxy_endpoints(&files) {
        let path = describe::prefixed(prefix, &endpoint.base_path);
        let hosts = if endpoint.virtual_hosts.is_empty() {
            [
                super::entities::virtual_host::PLAIN,
                super::entities::virtual_host::SECURE,
            ]
            .into_iter()
            .filter(|host| {
                set.has(
                    Kind::VirtualHost,
                    &[&bundle.organization, environment, host],
                )
            })
            .map(str::to_owned)
            .collect()
        } else {
            endpoint.virtual_hosts
        };
        for host in hosts {
            if !set.has(
                Kind::VirtualHost,
                &[&bundle.organization, environment, &host],
            ) {
                return Err(ApiError::new(
                    400,
                    "messaging.config.beans.VirtualHostDoesNotExist",
                    format!(
                        "VirtualHost named {host}, which ProxyEndpoint {} names, does not exist in environment {environment}",
                        endpoint.name
                    ),
                ));
            }
            exposures.push((path.clone(), host));
        }
    }
    Ok(exposures)
}

/// Undeploys a revision.
///
/// # Errors
///
/// 404 for what is missing, 400 when it is not deployed or a flow hook needs it.
pub fn undeploy(
    set: &mut EntitySet,
    bundle: &BundleName,
    environment: &str,
    revision: u32,
) -> Result<(Deployment, Vec<Change>), ApiError> {
    find_revision(set, bundle, revision)?;
    let [organization, kind, name] = bundle.key();
    if !set.has(Kind::Environment, &[organization, environment]) {
        return Err(environment_missing(organization, environment));
    }
    let key = [organization, environment, kind, name, &revision.to_string()];
    let Some(deployment) = set.find::<Deployment>(&key) else {
        return Err(ApiError::new(
            400,
            "distribution.RevisionNotDeployed",
            format!(
                "{} {name} revision {revision} is not deployed in environment {environment}",
                bundle.kind.title()
            ),
        ));
    };
    if bundle.kind == BundleKind::SharedFlow && deployment.retires_at_ms.is_none() {
        let mut hooks = set.all::<FlowHook>(&[organization, environment]);
        if let Some((key, _)) = hooks.find(|(_, hook)| hook.shared_flow == name) {
            return Err(ApiError::in_use(format!(
                "SharedFlow {name} is attached to {} in environment {environment}, detach it first",
                key.last()
            )));
        }
    }
    let changes = set.remove(Kind::Deployment, &key).into_iter().collect();
    Ok((deployment, changes))
}

/// Takes out deployments that other revisions have replaced and whose time is over.
pub fn remove_retired_by(set: &mut EntitySet, now_ms: i64) -> Vec<Change> {
    let over: Vec<_> = set
        .all::<Deployment>(&[])
        .filter(|(_, deployment)| deployment.retires_at_ms.is_some_and(|end| end <= now_ms))
        .map(|(key, _)| key.clone())
        .collect();
    over.iter()
        .filter_map(|key| {
            let parts: Vec<&str> = key.parts().collect();
            set.remove(Kind::Deployment, &parts)
        })
        .collect()
}

/// The proxy endpoint of some deployed proxy that names a virtual host; such a one cannot be deleted.
pub fn user_of_virtual_host(
    set: &EntitySet,
    organization: &str,
    environment: &str,
    host: &str,
) -> Option<String> {
    let running = set.deployed(&[organization, environment, BundleKind::Proxy.word()]);
    running.into_iter().find_map(|deployed| {
        let files = set.files(
            organization,
            deployed.kind,
            &deployed.name,
            deployed.revision,
        );
        describe::proxy_endpoints(&files)
            .iter()
            .any(|endpoint| endpoint.virtual_hosts.iter().any(|name| name == host))
            .then_some(deployed.name)
    })
}

/// Makes an organisation and its environments with their two virtual hosts, as far as they are missing.
pub fn found(
    set: &mut EntitySet,
    organization: &str,
    environments: &[String],
    stamp: &Stamp,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if !set.has(Kind::Organization, &[organization]) {
        let row = super::entities::Organization {
            name: organization.to_owned(),
            stamp: stamp.clone(),
        };
        changes.push(set.put(&[organization], &row));
    }
    for name in environments {
        if !set.has(Kind::Environment, &[organization, name]) {
            let row = super::entities::Environment {
                name: name.clone(),
                description: String::new(),
                properties: Default::default(),
                stamp: stamp.clone(),
            };
            changes.extend(found_environment(set, organization, &row));
        }
    }
    changes
}

/// Writes a new environment with the two virtual hosts that every one has.
pub fn found_environment(
    set: &mut EntitySet,
    organization: &str,
    environment: &super::entities::Environment,
) -> Vec<Change> {
    use super::entities::virtual_host::{PLAIN, SECURE};
    let name = environment.name.as_str();
    let mut changes = vec![set.put(&[organization, name], environment)];
    for (host, tls) in [(PLAIN, false), (SECURE, true)] {
        let row = VirtualHost::built_in(host, tls, environment.stamp.clone());
        changes.push(set.put(&[organization, name, host], &row));
    }
    changes
}

/// What can be said against the files of a bundle before it is stored, each finding with its file. With `whole` the
/// bundle must be able to run; without, pieces may still be missing.
pub fn judge_files(kind: BundleKind, files: &Files, whole: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let bases = files
        .keys()
        .filter(|path| !path.contains('/') && path.ends_with(".xml"))
        .count();
    if bases > 1 {
        wrong.push(format!(
            "{}: more than one XML file, expected one base configuration",
            kind.folder()
        ));
    }
    for piece in [
        Piece::Policy,
        Piece::Proxy,
        Piece::Target,
        Piece::SharedFlow,
    ] {
        if !piece.belongs_to(kind) {
            continue;
        }
        let mut names = std::collections::BTreeMap::new();
        for (path, content) in files {
            let inside = path
                .strip_prefix(piece.folder())
                .is_some_and(|rest| rest.starts_with('/') && rest.ends_with(".xml"));
            if !inside {
                continue;
            }
            match judge_piece(piece, path, content) {
                Err(finding) => wrong.push(finding),
                Ok(name) => {
                    if let Some(other) = names.insert(name.clone(), path) {
                        wrong.push(format!("{path}: '{name}' is defined in {other} already"));
                    }
                }
            }
        }
        if whole && matches!(piece, Piece::Proxy | Piece::SharedFlow) && names.is_empty() {
            wrong.push(format!(
                "{}/{}: no {}, expected at least one",
                kind.folder(),
                piece.folder(),
                piece.root().unwrap_or("piece")
            ));
        }
    }
    wrong
}

/// Everything that is wrong with a bundle before it is stored. Without `whole` only what can be judged file by file.
pub fn judge_bundle(kind: BundleKind, files: &Files, whole: bool) -> Vec<String> {
    let wrong = judge_files(kind, files, whole);
    if !wrong.is_empty() || !whole {
        return wrong;
    }
    let (_, findings) = match kind {
        BundleKind::Proxy => super::bundle::parse_proxy(files),
        BundleKind::SharedFlow => super::bundle::parse_shared_flow(files),
    };
    errors_of(&findings.into_vec())
}

/// Everything that keeps a revision from running where it was just deployed in `set`.
pub fn judge_deployment(
    set: &EntitySet,
    bundle: &BundleName,
    order: &Order,
    options: &super::compile::Options,
) -> Vec<String> {
    let deployed = set
        .deployed(&[
            &bundle.organization,
            &order.environment,
            bundle.kind.word(),
            &bundle.name,
        ])
        .into_iter()
        .find(|deployed| deployed.revision == order.revision);
    deployed.map_or_else(Vec::new, |deployed| {
        errors_of(&super::compile::check_deployment(set, &deployed, options))
    })
}

fn errors_of(findings: &[Diagnostic]) -> Vec<String> {
    findings
        .iter()
        .filter(|finding| finding.is_error())
        .map(Diagnostic::to_string)
        .collect()
}

/// What can be said against one piece by itself. Returns its name.
///
/// # Errors
///
/// A finding with file and line.
pub fn judge_piece(piece: Piece, path: &str, content: &[u8]) -> Result<String, String> {
    use super::xml::{Document, Limits};
    let document = Document::parse_bytes(path, content, Limits::CONFIGURATION)
        .map_err(|error| error.diagnostic(path).to_string())?;
    let root = document.root();
    let line = root.line();
    if let Some(expected) = piece.root()
        && root.name() != expected
    {
        return Err(format!(
            "{path}:{line}: root element is {}, expected {expected}",
            root.name()
        ));
    }
    let name = root
        .attribute("name")
        .ok_or_else(|| format!("{path}:{line}: {} has no name", root.name()))?;
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '$' | ' ' | '%');
    if name.is_empty() || name.len() > 255 || !name.chars().all(allowed) {
        return Err(format!(
            "{path}:{line}: name '{name}' may hold 1 to 255 letters, digits, blanks and . _ - $ % only"
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
