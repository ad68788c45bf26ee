//! One resolution: which records to ask for, in which order, and what their answers amount to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType, rdata::SRV};

use crate::runtime::resolver::hosts::Hosts;
use crate::runtime::resolver::{AddressRecord, Answer, RecordKind, ResolverOptions, ServiceRecord};

/// How long one name server may take for one question.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(2);
/// Rounds through the name servers for one question.
const ROUNDS_MAX: usize = 2;
/// Addresses, or service records, of one name; further ones are not used.
const RECORDS_MAX: usize = 1024;

/// After how long a name of the hosts file is looked up there again.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// How a resolution ended.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Found {
        /// At least one, sorted, without duplicates.
        records: Box<[AddressRecord]>,
        time_to_live: Duration,
        kind: RecordKind,
    },
    NotFound,
    Failed(Arc<str>),
}

pub(super) struct Lookup {
    resolver: TokioResolver,
    order: Vec<RecordKind>,
    hosts: Arc<Hosts>,
}

impl Lookup {
    pub(super) fn new(options: &ResolverOptions, hosts: Arc<Hosts>) -> Result<Self, String> {
        let mut builder = if options.name_servers.is_empty() {
            TokioResolver::builder_tokio().unwrap_or_else(|error| {
                // As the system's own resolver does without a usable file.
                tracing::warn!(%error, "no name servers in the system's configuration, asking 127.0.0.1");
                ask(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 53))])
            })
        } else {
            ask(&options.name_servers)
        };
        let settings = builder.options_mut();
        settings.timeout = QUESTION_TIME_MAX;
        settings.attempts = ROUNDS_MAX;
        // Both are done here: the hosts file before any question, caching by the names themselves.
        settings.use_hosts_file = ResolveHosts::Never;
        settings.cache_size = 0;
        let resolver = builder
            .build()
            .map_err(|error| format!("cannot set up the resolver: {error}"))?;
        Ok(Self {
            resolver,
            order: options.order.clone(),
            hosts,
        })
    }

    /// Asks for the kinds of records in order; the first kind with an answer counts.
    pub(super) async fn resolve(&self, name: &str, last: Option<RecordKind>) -> Outcome {
        if let Some(Answer::Addresses(records)) = self.hosts.answer(name) {
            return Outcome::Found {
                records,
                time_to_live: KNOWN_FOR,
                // It was not asked for at all.
                kind: RecordKind::Last,
            };
        }
        let Ok(question) = Name::from_str_relaxed(name) else {
            return Outcome::Failed("it is not a host name".into());
        };
        let mut failure = None;
        for kind in kinds(&self.order, last) {
            let found = match kind {
                RecordKind::Last => continue,
                RecordKind::Service => self.services(&question).await,
                RecordKind::V4 => self.addresses(&question, RecordType::A).await,
                RecordKind::V6 => self.addresses(&question, RecordType::AAAA).await,
            };
            match found {
                Ok(Some((mut records, time_to_live))) => {
                    records.sort_unstable();
                    records.dedup();
                    records.truncate(RECORDS_MAX);
                    return Outcome::Found {
                        records: records.into_boxed_slice(),
                        time_to_live,
                        kind,
                    };
                }
                Ok(None) => {}
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) => Outcome::Failed(error.to_string().into()),
            None => Outcome::NotFound,
        }
    }

    async fn addresses(&self, name: &Name, kind: RecordType) -> Result<Found, NetError> {
        let Some((data, time_to_live)) = self.ask(name, kind).await? else {
            return Ok(None);
        };
        let records: Vec<AddressRecord> = data
            .iter()
            .filter_map(RData::ip_addr)
            .map(|address| AddressRecord {
                address,
                service: None,
            })
            .collect();
        Ok((!records.is_empty()).then_some((records, time_to_live)))
    }

    /// The service records of the best priority, with the addresses of their targets.
    async fn services(&self, name: &Name) -> Result<Found, NetError> {
        let Some((data, mut time_to_live)) = self.ask(name, RecordType::SRV).await? else {
            return Ok(None);
        };
        let services = || {
            data.iter().filter_map(|data| match data {
                // "." says that the service is not offered; nobody can connect to port 0.
                RData::SRV(service) if !service.target.is_root() && service.port > 0 => {
                    Some(service)
                }
                _ => None,
            })
        };
        let best = services().map(|service| service.priority).min();
        let mut records = Vec::new();
        let mut failure = None;
        for service in services()
            .filter(|service| Some(service.priority) == best)
            .take(RECORDS_MAX)
        {
            match self.target(&service.target).await {
                Ok(Some((addresses, target_time))) => {
                    time_to_live = time_to_live.min(target_time);
                    records.extend(of_service(service, &addresses));
                }
                Ok(None) => {}
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            _ if !records.is_empty() => Ok(Some((records, time_to_live))),
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    /// The addresses of a service record's target.
    async fn target(&self, target: &Name) -> Result<Option<(Vec<IpAddr>, Duration)>, NetError> {
        let text = target.to_lowercase().to_utf8();
        if let Some(known) = self.hosts.addresses(text.trim_end_matches('.')) {
            return Ok(Some((known, Duration::MAX)));
        }
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Some((records, time_to_live)) = self.addresses(target, kind).await? {
                let addresses = records.iter().map(|record| record.address).collect();
                return Ok(Some((addresses, time_to_live)));
            }
        }
        Ok(None)
    }

    /// The answers to one question with the time for which they hold; `None` if there are none.
    async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Option<(Vec<RData>, Duration)>, NetError> {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                let time_to_live = lookup
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                let data = lookup
                    .answers()
                    .iter()
                    .filter(|record| record.record_type() == kind)
                    .map(|record| record.data.clone())
                    .collect();
                Ok(Some((data, time_to_live)))
            }
            Err(error) if error.is_no_records_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

type Found = Option<(Vec<AddressRecord>, Duration)>;

fn ask(servers: &[SocketAddr]) -> hickory_resolver::ResolverBuilder<TokioRuntimeProvider> {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
            .map(|mut connection| {
                connection.port = server.port();
                connection
            })
            .into();
        NameServerConfig::new(server.ip(), true, connections)
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(ResolverOpts::default())
}

/// The kinds to ask for, `Last` replaced and nothing asked twice.
fn kinds(order: &[RecordKind], last: Option<RecordKind>) -> Vec<RecordKind> {
    let mut kinds = Vec::with_capacity(order.len());
    for kind in order {
        let kind = match (kind, last) {
            (RecordKind::Last, Some(last)) => last,
            (RecordKind::Last, None) => continue,
            (kind, _) => *kind,
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn of_service(service: &SRV, addresses: &[IpAddr]) -> Vec<AddressRecord> {
    let target = service.target.to_utf8();
    let record = ServiceRecord {
        port: service.port,
        weight: service.weight.max(1),
        target: target.trim_end_matches('.').to_ascii_lowercase().into(),
    };
    addresses
        .iter()
        .map(|address| AddressRecord {
            address: *address,
            service: Some(record.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::RecordKind::{Last, Service, V4, V6};
    use super::*;

    #[test]
    fn asks_first_for_what_answered_last() {
        let order = [Last, Service, V4, V6];
        let cases: [(&[RecordKind], Option<RecordKind>, &[RecordKind]); 4] = [
            (&order, None, &[Service, V4, V6]),
            (&order, Some(V4), &[V4, Service, V6]),
            (&[V4, Last], Some(Service), &[V4, Service]),
            (&[V6], Some(V4), &[V6]),
        ];
        for (order, last, expected) in cases {
            assert_eq!(kinds(order, last), expected);
        }
    }
}
