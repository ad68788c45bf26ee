//! Services become [`ForwardPlan`]s, and [`ClusterPlan`]s of one endpoint where their host is not the name of an upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::certificate::{client_certificate, unreadable};
use super::cluster::{ClusterEdits, bare_host};
use crate::dialects::consul::mesh_name::MeshName;
use crate::dialects::kong::entities::{CaCertificate, EntityKind, PROXY_HEADER_TAG, Service};
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};
use crate::model::Diagnostic;
use crate::model::plan::{
    ClusterPlan, EndpointPlan, ForwardPlan, ProxyHeaderVersion, UpstreamTlsPlan,
};
use crate::model::schema::parse_address;

/// Edits of forwards: `None` for those that are gone.
pub type ForwardEdits = BTreeMap<Uuid, Option<Arc<ForwardPlan>>>;

/// Kong: `service.retries`.
const RETRIES: u32 = 5;
/// Kong: `service.connect_timeout` and its like.
const TIMEOUT_MS: u32 = 60_000;
/// Weight of the only endpoint of a plain host.
const PLAIN_WEIGHT: u32 = 100;
/// Up to this many words a row is searched for them; for more it is read.
const WORDS_SEARCHED_MAX: usize = 4;

/// The forwards that the changes touch, compiled from `after`, with the clusters of plain hosts. A service that is not
/// enabled has no forward, and its routes are as if absent.
pub fn compile_forwards(
    after: &EntitySet,
    changes: &[Change],
    mesh: bool,
) -> (ForwardEdits, ClusterEdits, Vec<Diagnostic>) {
    let mut forwards = ForwardEdits::new();
    let mut clusters = ClusterEdits::new();
    let mut findings = Vec::new();
    for id in touched(after, changes) {
        let compiled = after
            .row(EntityKind::Service, id)
            .map(|row| forward(after, row, mesh))
            .transpose()
            .unwrap_or_else(|finding| {
                findings.push(finding);
                None
            })
            .flatten();
        let (forward, cluster) = match compiled {
            Some((forward, cluster)) => (Some(Arc::new(forward)), cluster.map(Arc::new)),
            None => (None, None),
        };
        forwards.insert(id, forward);
        clusters.insert(plain_cluster_id(id), cluster);
    }
    (forwards, clusters, findings)
}

/// The id of the cluster that a service with a plain host has.
pub fn plain_cluster_id(service: Uuid) -> Uuid {
    Uuid::new_v5(&service, b"cluster")
}

/// The services to compile: those that changed, and those that refer to what changed.
fn touched(after: &EntitySet, changes: &[Change]) -> BTreeSet<Uuid> {
    let mut touched = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    let mut authorities = BTreeSet::new();
    for change in changes {
        match change.kind {
            EntityKind::Service => {
                touched.insert(change.id);
            }
            EntityKind::Upstream => {
                let [before, now] = [&change.before, &change.after]
                    .map(|row| row.as_ref().and_then(|row| row.parse::<Named>().ok()));
                let [before, now] = [before, now].map(|row| row.map(|row| row.name));
                // What is behind an upstream does not concern the services before it.
                if before != now {
                    hosts.extend(before.into_iter().chain(now));
                }
            }
            EntityKind::Certificate => {
                let users = after.children(EntityKind::Service, "client_certificate", change.id);
                touched.extend(users.map(|row| row.id));
            }
            EntityKind::CaCertificate => {
                authorities.insert(change.id.to_string());
            }
            _ => {}
        }
    }
    if hosts.is_empty() && authorities.is_empty() {
        return touched;
    }
    let words: Vec<&str> = hosts
        .iter()
        .chain(&authorities)
        .map(String::as_str)
        .collect();
    for row in after.rows(EntityKind::Service) {
        let may_refer =
            words.len() > WORDS_SEARCHED_MAX || words.iter().any(|word| row.json.contains(word));
        if !may_refer || touched.contains(&row.id) {
            continue;
        }
        let Ok(service) = row.parse::<Referring>() else {
            continue;
        };
        let refers = hosts.contains(&service.host)
            || service
                .ca_certificates
                .unwrap_or_default()
                .iter()
                .any(|id| authorities.contains(&id.to_string()));
        if refers {
            touched.insert(row.id);
        }
    }
    touched
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Referring {
    host: String,
    ca_certificates: Option<Vec<Uuid>>,
}

fn forward(
    set: &EntitySet,
    row: &Row,
    mesh: bool,
) -> Result<Option<(ForwardPlan, Option<ClusterPlan>)>, Diagnostic> {
    let service: Service = row.parse().map_err(|error| unreadable(row, &error))?;
    if !service.enabled {
        return Ok(None);
    }
    // Compared as written, before anybody asks a name server.
    let upstream = set.find_unique(EntityKind::Upstream, "name", &service.host);
    let host: Arc<str> = match parse_address(&service.host) {
        Some(address) => bare_host(address.host),
        None => service.host.as_str().into(),
    };
    let cluster = upstream
        .is_none()
        .then(|| plain_cluster(row.id, Arc::clone(&host), service.port, mesh));
    let protocol = service.protocol.plan();
    let forward = ForwardPlan {
        id: row.id,
        name: service.name.map(Arc::from),
        protocol,
        cluster: upstream.map_or_else(|| plain_cluster_id(row.id), |upstream| upstream.id),
        host,
        port: service.port,
        path: service.path.as_deref().unwrap_or("/").into(),
        retries: u16::try_from(service.retries.unwrap_or(RETRIES)).unwrap_or(u16::MAX),
        retry_statuses: Vec::new(),
        connect_timeout_ms: service.connect_timeout.unwrap_or(TIMEOUT_MS),
        read_timeout_ms: service.read_timeout.unwrap_or(TIMEOUT_MS),
        write_timeout_ms: service.write_timeout.unwrap_or(TIMEOUT_MS),
        tls: UpstreamTlsPlan {
            verify: service.tls_verify,
            // The schema allows at most 64.
            verify_depth: service
                .tls_verify_depth
                .map(|depth| u8::try_from(depth).unwrap_or(u8::MAX)),
            authorities: authorities(set, service.ca_certificates.as_deref().unwrap_or_default())?,
            client_certificate: client_certificate(set, service.client_certificate)?,
            ..UpstreamTlsPlan::default()
        },
        proxy_header: proxy_header(service.tags.as_deref().unwrap_or_default()),
        description: Arc::clone(&row.json),
    };
    Ok(Some((forward, cluster)))
}

/// What the tag says that Kong has no field for. Checked when the service was written.
fn proxy_header(tags: &[String]) -> Option<ProxyHeaderVersion> {
    tags.iter()
        .find_map(|tag| match tag.strip_prefix(PROXY_HEADER_TAG)? {
            "v1" => Some(ProxyHeaderVersion::V1),
            "v2" => Some(ProxyHeaderVersion::V2),
            _ => None,
        })
}

fn plain_cluster(service: Uuid, host: Arc<str>, port: u16, mesh: bool) -> ClusterPlan {
    let id = plain_cluster_id(service);
    let name = MeshName::of_host(&host).filter(|_| mesh);
    let endpoint = EndpointPlan {
        id,
        host: Arc::clone(&host),
        port,
        weight: PLAIN_WEIGHT,
        rank: 0,
        roster: name.map(|name| name.to_string().into()),
    };
    ClusterPlan::plain(id, host, vec![endpoint])
}

/// The certificates of these authorities. One that is gone cannot be: its removal is refused while a service names it.
fn authorities(set: &EntitySet, ids: &[Uuid]) -> Result<Vec<Arc<str>>, Diagnostic> {
    ids.iter()
        .filter_map(|id| set.row(EntityKind::CaCertificate, *id))
        .map(|row| match row.parse::<CaCertificate>() {
            Ok(authority) => Ok(authority.cert.into()),
            Err(error) => Err(unreadable(row, &error)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::{Value, json};

    use super::super::testing::{difference, id, put};
    use super::*;
    use crate::model::plan::Protocol;

    fn service(host: &str, extra: Value) -> Value {
        let mut fields = json!({"host": host, "port": 8080, "protocol": "http", "enabled": true});
        for (field, value) in extra.as_object().unwrap() {
            fields[field] = value.clone();
        }
        fields
    }

    #[test]
    fn fills_in_what_is_not_said() {
        let mut set = EntitySet::new();
        put(
            &mut set,
            EntityKind::Service,
            "s",
            service("a.test", json!({"name": "n"})),
        );
        let (forwards, clusters, findings) = compile_forwards(&set, &difference(&set), false);
        assert_eq!(findings, []);
        let forward = forwards[&id("s")].clone().unwrap();
        assert_eq!((&*forward.path, forward.retries), ("/", 5));
        assert_eq!(forward.read_timeout_ms, 60_000);
        assert_eq!(forward.tls, UpstreamTlsPlan::default());
        assert_eq!(forward.cluster, plain_cluster_id(id("s")));
        let cluster = clusters[&forward.cluster].clone().unwrap();
        let endpoint = &cluster.endpoints[0];
        assert_eq!((&*endpoint.host, endpoint.port), ("a.test", 8080));
        assert!(!cluster.named);

        let gone = set.take(EntityKind::Service, id("s")).unwrap();
        let (forwards, clusters, _) = compile_forwards(&set, &[gone], false);
        assert_eq!(forwards, BTreeMap::from([(id("s"), None)]));
        assert_eq!(
            clusters,
            BTreeMap::from([(plain_cluster_id(id("s")), None)])
        );
    }

    #[test]
    fn takes_what_is_said() {
        let mut set = EntitySet::new();
        put(
            &mut set,
            EntityKind::CaCertificate,
            "ca",
            json!({"cert": "CA", "cert_digest": "d"}),
        );
        put(
            &mut set,
            EntityKind::Certificate,
            "c",
            json!({"cert": "C", "key": "K"}),
        );
        let extra = json!({
            "protocol": "https", "path": "/base", "retries": 0, "connect_timeout": 1,
            "tls_verify": true, "tls_verify_depth": 3, "ca_certificates": [id("ca")],
            "client_certificate": {"id": id("c")},
        });
        put(
            &mut set,
            EntityKind::Service,
            "s",
            service("[2001:db8::1]", extra),
        );
        put(
            &mut set,
            EntityKind::Service,
            "off",
            service("a.test", json!({"enabled": false})),
        );
        let (forwards, clusters, findings) = compile_forwards(&set, &difference(&set), false);
        assert_eq!(findings, []);
        assert_eq!(forwards[&id("off")], None);
        let forward = forwards[&id("s")].clone().unwrap();
        assert_eq!(
            (&*forward.host, forward.protocol),
            ("2001:db8::1", Protocol::Https)
        );
        assert_eq!((forward.retries, forward.connect_timeout_ms), (0, 1));
        assert_eq!(forward.tls.verify_depth, Some(3));
        assert_eq!(forward.tls.authorities, ["CA".into()]);
        assert!(forward.tls.client_certificate.is_some());
        let cluster = clusters[&forward.cluster].clone().unwrap();
        assert_eq!(&*cluster.endpoints[0].host, "2001:db8::1");
    }

    #[test]
    fn a_tag_asks_for_proxy_headers() {
        let mut set = EntitySet::new();
        for (name, tags) in [
            ("one", json!(["a", "proxy_protocol:v1"])),
            ("two", json!(["proxy_protocol:v2"])),
            ("none", json!(["proxy_protocol"])),
        ] {
            let extra = json!({"protocol": "tcp", "tags": tags});
            put(
                &mut set,
                EntityKind::Service,
                name,
                service("a.test", extra),
            );
        }
        let (forwards, _, _) = compile_forwards(&set, &difference(&set), false);
        let version = |name| forwards[&id(name)].clone().unwrap().proxy_header;
        assert_eq!(version("one"), Some(ProxyHeaderVersion::V1));
        assert_eq!(version("two"), Some(ProxyHeaderVersion::V2));
        assert_eq!(version("none"), None);
    }

    #[test]
    fn follows_what_it_refers_to() {
        let mut set = EntitySet::new();
        let authority = json!({"cert": "CA", "cert_digest": "d"});
        let change = put(&mut set, EntityKind::CaCertificate, "ca", authority);
        let pair = put(
            &mut set,
            EntityKind::Certificate,
            "c",
            json!({"cert": "C", "key": "K"}),
        );
        let extra = json!({"ca_certificates": [id("ca")]});
        put(
            &mut set,
            EntityKind::Service,
            "trusts",
            service("b.test", extra),
        );
        let extra = json!({"client_certificate": {"id": id("c")}});
        put(
            &mut set,
            EntityKind::Service,
            "shows",
            service("b.test", extra),
        );
        put(
            &mut set,
            EntityKind::Service,
            "s",
            service("u.test", json!({})),
        );
        let only = |change: Change, set: &EntitySet| {
            let (forwards, clusters, _) = compile_forwards(set, &[change], false);
            let (id, forward) = forwards.into_iter().next().unwrap();
            let plain = clusters[&plain_cluster_id(id)].is_some();
            (id, forward.unwrap().cluster, plain)
        };
        assert_eq!(only(change, &set).0, id("trusts"));
        assert_eq!(only(pair, &set).0, id("shows"));

        let plain = plain_cluster_id(id("s"));
        let appears = put(
            &mut set,
            EntityKind::Upstream,
            "u",
            json!({"name": "u.test"}),
        );
        assert_eq!(only(appears, &set), (id("s"), id("u"), false));
        let same = put(
            &mut set,
            EntityKind::Upstream,
            "u",
            json!({"name": "u.test", "slots": 9}),
        );
        assert_eq!(
            compile_forwards(&set, &[same], false).0,
            ForwardEdits::new()
        );
        let renamed = put(
            &mut set,
            EntityKind::Upstream,
            "u",
            json!({"name": "v.test"}),
        );
        assert_eq!(only(renamed, &set), (id("s"), plain, true));
    }
}
