//! Environments and what stands below them: virtual hosts, target servers, references, caches and the rest.

use http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::collection::{self, Collection, anything, as_stored};
use super::reply::Reply;
use super::{deployments, flow_hooks, keystores, maps, resource_files};
use crate::dialects::apigee::entities::reference::SCHEME;
use crate::dialects::apigee::entities::{
    BundleKind, Cache, Environment, Kind, MapScope, Reference, Stamp, TargetServer, TlsInfo,
    VirtualHost,
};
use crate::dialects::apigee::entity_set::EntitySet;
use crate::dialects::apigee::error::ApiError;
use crate::dialects::apigee::lifecycle;

static VIRTUAL_HOSTS: Collection<VirtualHost> = Collection {
    root: "VirtualHost",
    read: VirtualHost::read,
    name: |host| &host.name,
    stamp: |host| &mut host.stamp,
    show: as_stored,
    check: |set, key, host| check_stores(set, key, host.tls.as_ref()),
    check_delete: |set, key, host| match key {
        [organization, environment, ..] => {
            match lifecycle::user_of_virtual_host(set, organization, environment, &host.name) {
                Some(proxy) => Err(ApiError::in_use(format!(
                    "VirtualHost {} is used by APIProxy {proxy}, which is deployed in environment {environment}",
                    host.name
                ))),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    },
};

static TARGET_SERVERS: Collection<TargetServer> = Collection {
    root: "TargetServer",
    read: TargetServer::read,
    name: |server| &server.name,
    stamp: |server| &mut server.stamp,
    show: as_stored,
    check: |set, key, server| check_stores(set, key, server.tls.as_ref()),
    check_delete: anything,
};

static REFERENCES: Collection<Reference> = Collection {
    root: "ResourceReference",
    read: Reference::read,
    name: |reference| &reference.name,
    stamp: |reference| &mut reference.stamp,
    show: as_stored,
    check: |set, key, reference| match key {
        [organization, environment, ..]
            if set.has(
                Kind::Keystore,
                &[organization, environment, &reference.refers],
            ) =>
        {
            Ok(())
        }
        _ => Err(ApiError::new(
            400,
            "messaging.config.beans.InvalidKeyStoreReference",
            format!(
                "ResourceReference {} refers to KeyStore {}, which does not exist",
                reference.name, reference.refers
            ),
        )),
    },
    check_delete: |set, key, reference| {
        let [organization, environment, ..] = key else {
            return Ok(());
        };
        let marked = format!("{SCHEME}{}", reference.name);
        match user_of_store(set, organization, environment, &marked) {
            Some(user) => Err(ApiError::in_use(format!(
                "ResourceReference {} is used by {user}",
                reference.name
            ))),
            None => Ok(()),
        }
    },
};

static CACHES: Collection<Cache> = Collection {
    root: "Cache",
    read: Cache::read,
    name: |cache| &cache.name,
    stamp: |cache| &mut cache.stamp,
    show: |_, _, cache| cache.to_json(),
    check: anything,
    check_delete: anything,
};

/// The virtual host or target server that names a store, marked if it is a reference.
pub(super) fn user_of_store(
    set: &EntitySet,
    organization: &str,
    environment: &str,
    store: &str,
) -> Option<String> {
    let names = |tls: Option<&TlsInfo>| tls.is_some_and(|tls| tls.stores().any(|one| one == store));
    let below = [organization, environment];
    let host = set
        .all::<VirtualHost>(&below)
        .find(|(_, host)| names(host.tls.as_ref()))
        .map(|(key, _)| format!("VirtualHost {}", key.last()));
    host.or_else(|| {
        set.all::<TargetServer>(&below)
            .find(|(_, server)| names(server.tls.as_ref()))
            .map(|(key, _)| format!("TargetServer {}", key.last()))
    })
}

/// Refuses stores and references that do not exist. What holds a variable is known only when a request comes.
fn check_stores(set: &EntitySet, key: &[&str], tls: Option<&TlsInfo>) -> Result<(), ApiError> {
    let [organization, environment, ..] = key else {
        return Ok(());
    };
    for store in tls.into_iter().flat_map(TlsInfo::stores) {
        if store.contains('{') {
            continue;
        }
        let (kind, name) = match store.strip_prefix(SCHEME) {
            Some(name) => (Kind::Reference, name),
            None => (Kind::Keystore, store),
        };
        if !set.has(kind, &[organization, environment, name]) {
            return Err(ApiError::new(
                400,
                "messaging.config.beans.InvalidKeyStoreReference",
                format!("{kind} named {name} does not exist in environment {environment}"),
            ));
        }
    }
    Ok(())
}

/// Answers calls below `/environments`.
pub(super) async fn answer(call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    let organization = call.organization.as_str();
    let [environment, below @ ..] = rest else {
        return match call.method {
            Method::GET => {
                let set = call.set();
                let rows = set.list(Kind::Environment, &[organization]);
                let names: Vec<&str> = rows.map(|row| row.name()).collect();
                Ok(Reply::ok("List", json!(names)))
            }
            Method::POST => create(call).await,
            _ => Err(call.unknown()),
        };
    };
    call.needs_environment(environment)?;
    let parents = [organization, environment];
    match below {
        [] => one(call, environment).await,
        ["virtualhosts", rest @ ..] => {
            collection::answer(call, &VIRTUAL_HOSTS, &parents, rest).await
        }
        ["targetservers", rest @ ..] => {
            collection::answer(call, &TARGET_SERVERS, &parents, rest).await
        }
        ["references", rest @ ..] => collection::answer(call, &REFERENCES, &parents, rest).await,
        ["caches", cache, "entries", rest @ ..] => {
            clear(call, environment, cache, rest.first().copied()).await
        }
        ["caches", rest @ ..] => collection::answer(call, &CACHES, &parents, rest).await,
        ["keystores", rest @ ..] => keystores::answer(call, environment, rest).await,
        ["keyvaluemaps", rest @ ..] => {
            maps::answer(call, MapScope::Environment(environment), rest).await
        }
        ["resourcefiles", rest @ ..] => resource_files::answer(call, environment, rest).await,
        ["flowhooks", rest @ ..] => flow_hooks::answer(call, environment, rest).await,
        ["deployments"] => deployments::of_environment(call, environment),
        [word @ ("apis" | "sharedflows"), rest @ ..] => {
            let kind = BundleKind::from_word(word).ok_or_else(|| call.unknown())?;
            deployments::answer(call, environment, kind, rest).await
        }
        ["stats" | "maskconfigs" | "analytics" | "queries", ..] => Err(call.unsupported()),
        _ => Err(call.unknown()),
    }
}

async fn create(call: &Call) -> Result<Reply, ApiError> {
    let given = call.parameter("name");
    let environment = Environment::read(call.named_fields(given)?, Stamp::default())?;
    let (organization, user) = (call.organization.clone(), call.user.clone());
    let written = call.write(move |set, moment| {
        let key = [organization.as_str(), &environment.name];
        if set.has(Kind::Environment, &key) {
            let place = format_args!("in organization {organization}").to_string();
            return Err(Kind::Environment.exists(&environment.name, place));
        }
        let mut environment = environment.clone();
        environment.stamp = Stamp::new(moment.unix_ms(), &user);
        let changes = lifecycle::found_environment(set, &organization, &environment);
        Ok((
            serde_json::to_value(&environment).unwrap_or_default(),
            changes,
        ))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::created("Environment", shown).at(revision))
}

async fn one(call: &Call, environment: &str) -> Result<Reply, ApiError> {
    let key = [call.organization.as_str(), environment];
    let known: Environment = collection::find(&call.set(), &key)?;
    match call.method {
        Method::GET => Ok(Reply::ok(
            "Environment",
            serde_json::to_value(&known).unwrap_or_default(),
        )),
        Method::PUT | Method::POST => {
            let given = Environment::read(call.named_fields(Some(environment))?, known.stamp)?;
            let (organization, user) = (call.organization.clone(), call.user.clone());
            let written = call.write(move |set, moment| {
                let mut given = given.clone();
                given.stamp = given.stamp.touched(moment.unix_ms(), &user);
                let change = set.put(&[&organization, &given.name], &given);
                Ok((
                    serde_json::to_value(&given).unwrap_or_default(),
                    vec![change],
                ))
            });
            let (shown, revision) = written.await?;
            Ok(Reply::ok("Environment", shown).at(revision))
        }
        Method::DELETE => {
            let shown = serde_json::to_value(&known).unwrap_or_default();
            let revision = delete(call, environment).await?;
            Ok(Reply::ok("Environment", shown).at(revision))
        }
        _ => Err(call.unknown()),
    }
}

/// Deletes an environment with everything in it, unless something is deployed.
async fn delete(call: &Call, environment: &str) -> Result<u64, ApiError> {
    let (organization, environment) = (call.organization.clone(), environment.to_owned());
    let map_scope = MapScope::Environment(&environment).key();
    let written = call.write(move |set, _| {
        let key = [organization.as_str(), environment.as_str()];
        if let Some(deployed) = set.deployed(&key).first() {
            return Err(ApiError::in_use(format!(
                "{} {} is deployed in environment {environment}, undeploy it first",
                deployed.kind.title(),
                deployed.name
            )));
        }
        let mut changes = Vec::new();
        for kind in [
            Kind::Deployment,
            Kind::FlowHook,
            Kind::VirtualHost,
            Kind::TargetServer,
            Kind::Reference,
            Kind::KeystoreAlias,
            Kind::Keystore,
            Kind::Cache,
            Kind::ResourceFile,
        ] {
            changes.extend(set.remove_below(kind, &key));
        }
        changes.extend(set.remove_below(Kind::KeyValueMap, &[&organization, &map_scope]));
        changes.extend(set.remove(Kind::Environment, &key));
        Ok(((), changes))
    });
    Ok(written.await?.1)
}

/// `POST /caches/C/entries?action=clear`, for all entries, those of a prefix, or one.
async fn clear(
    call: &Call,
    environment: &str,
    cache: &str,
    key: Option<&str>,
) -> Result<Reply, ApiError> {
    if call.method != Method::POST || call.parameter("action") != Some("clear") {
        return Err(call.unknown());
    }
    let organization = call.organization.as_str();
    let found: Cache = collection::find(&call.set(), &[organization, environment, cache])?;
    let table =
        crate::dialects::apigee::entities::cache::entries_table(organization, environment, cache);
    call.admin
        .keeping
        .entries
        .clear(&table, key, call.parameter("prefix"));
    let shown: Value = found.to_json();
    Ok(Reply::ok("Cache", shown))
}
