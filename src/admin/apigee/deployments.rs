//! Deployments: which revisions run where; deploy answers when the revision serves.

use http::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::bundles::{invalid, parse_revision};
use super::call::Call;
use super::reply::Reply;
use crate::dialects::apigee::compile::Options;
use crate::dialects::apigee::entities::{BundleKind, Deployment, Kind, Stamp};
use crate::dialects::apigee::entity_set::EntitySet;
use crate::dialects::apigee::error::ApiError;
use crate::dialects::apigee::lifecycle::{self, BundleName, DELAY_SECONDS_MAX, Order};
use crate::runtime::companion;

/// A deployed revision, as lists show it.
struct Entry {
    environment: String,
    kind: BundleKind,
    name: String,
    revision: u32,
    base_path: String,
}

/// Everything that is listed as deployed below these names: what serves, then what was replaced a moment ago.
fn entries(set: &EntitySet, below: &[&str]) -> Vec<Entry> {
    let mut entries: Vec<(bool, Entry)> = set
        .all::<Deployment>(below)
        .filter_map(|(key, deployment)| {
            let entry = Entry {
                environment: key.part(1).to_owned(),
                kind: BundleKind::from_word(key.part(2))?,
                name: key.part(3).to_owned(),
                revision: key.part(4).parse().ok()?,
                base_path: deployment.base_path,
            };
            Some((deployment.retires_at_ms.is_some(), entry))
        })
        .collect();
    entries.sort_by_key(|(replaced, _)| *replaced);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// The fields that tell how a revision stands, the same in every answer.
fn state(call: &Call, entry: &Entry, state: &str) -> Map<String, Value> {
    let node = call.admin.node.identity().node_id;
    let mut fields = Map::new();
    fields.insert(
        "configuration".to_owned(),
        json!({"basePath": entry.base_path, "steps": []}),
    );
    fields.insert("name".to_owned(), entry.revision.to_string().into());
    fields.insert("server".to_owned(), json!([server(node, state)]));
    fields.insert("state".to_owned(), state.into());
    fields
}

fn server(node: Uuid, state: &str) -> Value {
    json!({"status": state, "type": ["message-processor"], "uUID": node})
}

/// One revision with all its fields flat: the answer to deploy and undeploy.
fn flat(call: &Call, entry: &Entry, word: &str) -> Value {
    let mut fields = Map::new();
    fields.insert(entry.kind.field().to_owned(), entry.name.clone().into());
    fields.insert("environment".to_owned(), entry.environment.clone().into());
    fields.insert("organization".to_owned(), call.organization.clone().into());
    fields.insert("revision".to_owned(), entry.revision.to_string().into());
    fields.extend(state(call, entry, word));
    Value::Object(fields)
}

fn deployed(call: &Call, entry: &Entry) -> Value {
    Value::Object(state(call, entry, "deployed"))
}

/// Bundles of one kind with their revisions.
fn by_bundle(call: &Call, entries: &[Entry], kind: BundleKind) -> Vec<Value> {
    let mut names: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.kind == kind)
        .map(|entry| entry.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let revisions: Vec<Value> = entries
                .iter()
                .filter(|entry| entry.kind == kind && entry.name == name)
                .map(|entry| deployed(call, entry))
                .collect();
            json!({"name": name, "revision": revisions})
        })
        .collect()
}

/// `GET /deployments`
pub(super) fn of_organization(call: &Call) -> Result<Reply, ApiError> {
    if call.method != Method::GET {
        return Err(call.unknown());
    }
    let set = call.set();
    let kind = wanted_kind(call);
    let environments: Vec<Value> = set
        .list(Kind::Environment, &[&call.organization])
        .map(|row| {
            let entries = entries(&set, &[&call.organization, row.name()]);
            json!({"aPIProxy": by_bundle(call, &entries, kind), "name": row.name()})
        })
        .collect();
    Ok(Reply::ok(
        "OrganizationDeployments",
        json!({"environment": environments, "name": call.organization}),
    ))
}

/// `GET /environments/E/deployments`
pub(super) fn of_environment(call: &Call, environment: &str) -> Result<Reply, ApiError> {
    if call.method != Method::GET {
        return Err(call.unknown());
    }
    let entries = entries(&call.set(), &[&call.organization, environment]);
    Ok(Reply::ok(
        "EnvironmentDeployments",
        json!({
            "aPIProxy": by_bundle(call, &entries, wanted_kind(call)),
            "name": environment,
            "organization": call.organization,
        }),
    ))
}

fn wanted_kind(call: &Call) -> BundleKind {
    if call.switch("sharedFlows") {
        BundleKind::SharedFlow
    } else {
        BundleKind::Proxy
    }
}

/// `/apis/P/deployments`: where a bundle runs, and the oldest form of undeploy.
pub(super) async fn of_bundle(call: &Call, bundle: &BundleName) -> Result<Reply, ApiError> {
    match call.method {
        Method::GET => {
            let all = entries(&call.set(), &[&call.organization]);
            let own: Vec<&Entry> = all
                .iter()
                .filter(|entry| entry.kind == bundle.kind && entry.name == bundle.name)
                .collect();
            let mut names: Vec<&str> = own.iter().map(|entry| entry.environment.as_str()).collect();
            names.dedup();
            let environments: Vec<Value> = names
                .into_iter()
                .map(|environment| {
                    let revisions: Vec<Value> = own
                        .iter()
                        .filter(|entry| entry.environment == environment)
                        .map(|entry| deployed(call, entry))
                        .collect();
                    json!({"name": environment, "revision": revisions})
                })
                .collect();
            Ok(Reply::ok(
                "Deployment",
                json!({
                    "environment": environments,
                    "name": bundle.name,
                    "organization": call.organization,
                }),
            ))
        }
        Method::POST => {
            let need = |name: &str| {
                call.parameter(name)
                    .map(str::to_owned)
                    .ok_or_else(|| ApiError::bad_request(format!("the parameter {name} is needed")))
            };
            let environment = need("env")?;
            let revision = parse_revision(bundle, &need("revision")?)?;
            act(call, bundle, &environment, revision).await
        }
        _ => Err(call.unknown()),
    }
}

/// `/apis/P/revisions/R/deployments`: where a revision runs, and the older form of deploy.
pub(super) async fn of_revision(
    call: &Call,
    bundle: &BundleName,
    revision: u32,
) -> Result<Reply, ApiError> {
    if call.method == Method::GET {
        let all = entries(&call.set(), &[&call.organization]);
        let environments: Vec<Value> = all
            .iter()
            .filter(|entry| {
                (entry.kind, entry.name.as_str(), entry.revision)
                    == (bundle.kind, bundle.name.as_str(), revision)
            })
            .map(|entry| {
                let mut fields = state(call, entry, "deployed");
                fields.insert("name".to_owned(), entry.environment.clone().into());
                Value::Object(fields)
            })
            .collect();
        let mut shown = Map::new();
        shown.insert(bundle.kind.field().to_owned(), bundle.name.clone().into());
        shown.insert("environment".to_owned(), environments.into());
        shown.insert("name".to_owned(), revision.to_string().into());
        shown.insert("organization".to_owned(), call.organization.clone().into());
        return Ok(Reply::ok("Deployment", Value::Object(shown)));
    }
    let environment = call
        .parameter("env")
        .ok_or_else(|| ApiError::bad_request("the parameter env is needed"))?;
    act(call, bundle, environment, revision).await
}

/// Answers calls below `/environments/E/apis` and `/environments/E/sharedflows`.
pub(super) async fn answer(
    call: &Call,
    environment: &str,
    kind: BundleKind,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let bundle_of = |name: &str| BundleName {
        organization: call.organization.clone(),
        kind,
        name: name.to_owned(),
    };
    match (&call.method, rest) {
        (&Method::GET, [name, "deployments"]) => {
            let bundle = bundle_of(name);
            if !call
                .set()
                .has(Kind::Bundle, &[&call.organization, kind.word(), name])
            {
                return Err(bundle.missing());
            }
            let below = [call.organization.as_str(), environment, kind.word(), name];
            let entries = entries(&call.set(), &below);
            if entries.is_empty() {
                return Err(ApiError::new(
                    400,
                    "distribution.ApplicationNotDeployed",
                    format!(
                        "{} named {name} is not deployed in environment {environment}",
                        kind.title()
                    ),
                ));
            }
            let revisions: Vec<Value> = entries.iter().map(|entry| deployed(call, entry)).collect();
            let mut shown = Map::new();
            shown.insert(kind.field().to_owned(), (*name).into());
            shown.insert("environment".to_owned(), environment.into());
            shown.insert("name".to_owned(), (*name).into());
            shown.insert("organization".to_owned(), call.organization.clone().into());
            shown.insert("revision".to_owned(), revisions.into());
            Ok(Reply::ok("Deployment", Value::Object(shown)))
        }
        (&Method::GET, [name, "revisions", revision, "deployments"]) => {
            let bundle = bundle_of(name);
            let revision = parse_revision(&bundle, revision)?;
            let set = call.set();
            lifecycle::find_revision(&set, &bundle, revision)?;
            let number = revision.to_string();
            let key = [
                call.organization.as_str(),
                environment,
                kind.word(),
                name,
                &number,
            ];
            let entry = entries(&set, &key).into_iter().next();
            let entry = entry.ok_or_else(|| {
                ApiError::new(
                    400,
                    "distribution.RevisionNotDeployed",
                    format!(
                        "{} {name} revision {revision} is not deployed in environment {environment}",
                        kind.title()
                    ),
                )
            })?;
            Ok(Reply::ok("Deployment", flat(call, &entry, "deployed")))
        }
        (&Method::POST, [name, "revisions", revision, "deployments"]) => {
            let bundle = bundle_of(name);
            let revision = parse_revision(&bundle, revision)?;
            act(call, &bundle, environment, revision).await
        }
        (&Method::DELETE, [name, "revisions", revision, "deployments"]) => {
            let bundle = bundle_of(name);
            let revision = parse_revision(&bundle, revision)?;
            undeploy(call, &bundle, environment, revision).await
        }
        (_, [_, "revisions", _, "debugsessions" | "stats", ..]) => Err(call.unsupported()),
        _ => Err(call.unknown()),
    }
}

/// What `action` says: deploy when nothing.
async fn act(
    call: &Call,
    bundle: &BundleName,
    environment: &str,
    revision: u32,
) -> Result<Reply, ApiError> {
    if call.method == Method::DELETE {
        return undeploy(call, bundle, environment, revision).await;
    }
    match call.parameter("action").unwrap_or("deploy") {
        "deploy" => deploy(call, bundle, environment, revision).await,
        "undeploy" => undeploy(call, bundle, environment, revision).await,
        other => Err(ApiError::field(
            "action",
            format!("'{other}' is not known, allowed are deploy and undeploy"),
        )),
    }
}

fn read_order(call: &Call, environment: &str, revision: u32) -> Result<Order, ApiError> {
    let delay = call.parameter("delay").unwrap_or("0");
    let delay_seconds = delay
        .parse()
        .ok()
        .filter(|delay| *delay <= DELAY_SECONDS_MAX);
    let delay_seconds = delay_seconds.ok_or_else(|| {
        ApiError::field(
            "delay",
            format!("'{delay}' is out of range, allowed are 0 to {DELAY_SECONDS_MAX} seconds"),
        )
    })?;
    let base_path = call.parameter("basepath").unwrap_or("/");
    let base_path = crate::dialects::apigee::describe::base_path(base_path);
    if base_path
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || c == '?' || c == '#')
    {
        return Err(ApiError::field("basepath", "is no path"));
    }
    Ok(Order {
        environment: environment.to_owned(),
        revision,
        replaces: call.switch("override"),
        delay_seconds,
        base_path,
    })
}

async fn deploy(
    call: &Call,
    bundle: &BundleName,
    environment: &str,
    revision: u32,
) -> Result<Reply, ApiError> {
    let order = read_order(call, environment, revision)?;
    judge(call, bundle, &order).await?;
    let entry = Entry {
        environment: environment.to_owned(),
        kind: bundle.kind,
        name: bundle.name.clone(),
        revision,
        base_path: order.base_path.clone(),
    };
    let (bundle, user) = (bundle.clone(), call.user.clone());
    let written = call.write(move |set, moment| {
        let stamp = Stamp::new(moment.unix_ms(), &user);
        lifecycle::deploy(set, &bundle, &order, &stamp)
    });
    let (_, at) = written.await?;
    call.serves(at).await?;
    Ok(Reply::ok("Deployment", flat(call, &entry, "deployed")).at(at))
}

/// Compiles what would run, on a copy; what serves goes on serving when anything is wrong.
async fn judge(call: &Call, bundle: &BundleName, order: &Order) -> Result<(), ApiError> {
    let mut trial = EntitySet::clone(&call.set());
    let (bundle, order) = (bundle.clone(), order.clone());
    let stamp = Stamp::new(0, &call.user);
    let settings = &call.admin.settings;
    let options = Options {
        tls_edge_compatible: settings.apigee.apigee_tls_edge_compatible,
        is_alone: false,
        node: settings.node().to_owned(),
        node_missing: settings.node_missing(companion::is_there),
    };
    let judged = tokio::task::spawn_blocking(move || {
        lifecycle::deploy(&mut trial, &bundle, &order, &stamp)?;
        let wrong = lifecycle::judge_deployment(&trial, &bundle, &order, &options);
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(invalid(wrong))
        }
    });
    judged
        .await
        .map_err(|error| ApiError::failure(error.to_string()))?
}

async fn undeploy(
    call: &Call,
    bundle: &BundleName,
    environment: &str,
    revision: u32,
) -> Result<Reply, ApiError> {
    let (name, place) = (bundle.clone(), environment.to_owned());
    let written = call.write(move |set, _| lifecycle::undeploy(set, &name, &place, revision));
    let (deployment, at) = written.await?;
    call.serves(at).await?;
    let entry = Entry {
        environment: environment.to_owned(),
        kind: bundle.kind,
        name: bundle.name.clone(),
        revision,
        base_path: deployment.base_path,
    };
    Ok(Reply::ok("Deployment", flat(call, &entry, "undeployed")).at(at))
}
