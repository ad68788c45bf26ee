//! Which peers the bytes of one local listener go to: by chance in the proportion of shares and weights, in the order of
//! failover, without those that have failed too often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::Rng;

use super::authority::ExpectedPeer;
use super::search::FoundResolver;
use crate::dialects::consul::instance::{INSTANCES_MAX, Instance};
use crate::dialects::consul::registration::PassiveHealth;
use crate::runtime::mutual::{DialTarget, Dialer, Offer};

/// Chooses peers.
pub struct Dialling {
    name: String,
    routes: ArcSwap<Routes>,
    passive: Option<PassiveHealth>,
    /// What happened to places of late; only with passive health checks.
    places: Mutex<AHashMap<(Arc<str>, u16), Place>>,
}

/// Where connections lead.
pub struct Routes {
    pub routes: Vec<Route>,
    pub offer: Offer,
    /// Why there are none, or less than there should be.
    pub trouble: Option<String>,
}

/// One way, with its share of the connections.
pub struct Route {
    share: u32,
    /// Instances by weight, in the order of failover.
    groups: Vec<Vec<(u32, DialTarget)>>,
}

#[derive(Default)]
struct Place {
    /// Failures in a row.
    failures: u32,
    /// Left out until then.
    out_until: Option<Instant>,
}

impl Route {
    /// The way to what a resolver has found; `connect_timeout` instead of what it says.
    pub fn of(found: &FoundResolver, connect_timeout: Option<Duration>) -> Self {
        let connect_timeout = connect_timeout.unwrap_or(found.timeouts.connect);
        let target = |instance: &Instance| {
            let target = DialTarget {
                host: instance.host.as_str().into(),
                port: instance.port,
                server_name: instance.server_name.as_deref().map(Into::into),
                judge: Arc::new(ExpectedPeer {
                    identities: instance.identities.clone(),
                }),
                connect_timeout,
            };
            (instance.weight, target)
        };
        let groups = found.groups.iter();
        Self {
            share: found.share,
            groups: groups
                .map(|group| group.iter().map(target).collect())
                .collect(),
        }
    }
}

impl Dialling {
    pub fn new(name: &str, passive: Option<PassiveHealth>) -> Self {
        Self {
            name: name.to_owned(),
            routes: ArcSwap::from_pointee(Routes {
                routes: Vec::new(),
                offer: Offer::Nothing,
                trouble: Some("nothing is known of it yet".to_owned()),
            }),
            passive,
            places: Mutex::default(),
        }
    }

    /// New connections go there.
    pub fn lead(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
    }

    fn is_out(&self, target: &DialTarget, now: Instant) -> bool {
        self.passive.is_some()
            && self
                .places
                .lock()
                .get(&(Arc::clone(&target.host), target.port))
                .and_then(|place| place.out_until)
                .is_some_and(|until| now < until)
    }
}

impl Dialer for Dialling {
    fn targets(&self, most: usize) -> Result<Vec<DialTarget>, String> {
        let routes = self.routes.load();
        let now = Instant::now();
        let mut left: Vec<(u32, &Route)> = routes
            .routes
            .iter()
            .map(|route| (route.share, route))
            .collect();
        let mut chosen: Vec<DialTarget> = Vec::new();
        // Those that are left out for a while come last: better than nobody.
        let mut avoided: Vec<DialTarget> = Vec::new();
        while chosen.len() < most && !left.is_empty() {
            let (_, route) = left.swap_remove(draw(left.iter().map(|(share, _)| *share)));
            for group in &route.groups {
                let mut left: Vec<&(u32, DialTarget)> = group.iter().collect();
                while chosen.len() < most && !left.is_empty() {
                    let index = draw(left.iter().map(|(weight, _)| *weight));
                    let (_, target) = left.swap_remove(index);
                    match self.is_out(target, now) {
                        true => avoided.push(target.clone()),
                        false => chosen.push(target.clone()),
                    }
                }
            }
        }
        chosen.extend(avoided);
        chosen.truncate(most);
        match chosen.is_empty() {
            false => Ok(chosen),
            true => Err(match &routes.trouble {
                Some(trouble) => trouble.clone(),
                None => format!("'{}' has no healthy instance", self.name),
            }),
        }
    }

    fn offer(&self) -> Offer {
        self.routes.load().offer
    }

    fn report(&self, target: &DialTarget, connected: bool) {
        let Some(passive) = self.passive else {
            return;
        };
        let key = (Arc::clone(&target.host), target.port);
        let mut places = self.places.lock();
        if connected {
            places.remove(&key);
            return;
        }
        if places.len() >= INSTANCES_MAX {
            places.clear();
        }
        let place = places.entry(key).or_default();
        place.failures = place.failures.saturating_add(1);
        if place.failures >= passive.failures_max {
            let pause: Duration = passive.interval;
            if place.out_until.is_none_or(|until| until <= Instant::now()) {
                let (host, port) = (&*target.host, target.port);
                tracing::warn!(upstream = %self.name, host, port, ?pause, "instance left out");
            }
            place.out_until = Instant::now().checked_add(pause);
        }
    }
}

/// An index by chance, in the proportion of the weights; the first one where all are nothing.
fn draw(weights: impl Iterator<Item = u32> + Clone) -> usize {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut ticket = rand::rng().random_range(0..total.max(1));
    for (index, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        if ticket < weight {
            return index;
        }
        ticket -= weight;
    }
    0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::dialects::consul::timeouts::ResolverTimeouts;

    fn found(share: u32, groups: &[&[&str]]) -> FoundResolver {
        let instance = |host: &&str| Instance {
            id: (*host).to_owned(),
            host: (*host).to_owned(),
            port: 1,
            weight: 1,
            identities: Vec::new(),
            server_name: None,
        };
        FoundResolver {
            name: String::new(),
            share,
            timeouts: ResolverTimeouts::default(),
            groups: groups
                .iter()
                .map(|group| group.iter().map(instance).collect())
                .collect(),
        }
    }

    fn dialling(passive: Option<PassiveHealth>, found: &[FoundResolver]) -> Dialling {
        let dialling = Dialling::new("web", passive);
        dialling.lead(Routes {
            routes: found.iter().map(|found| Route::of(found, None)).collect(),
            offer: Offer::Nothing,
            trouble: None,
        });
        dialling
    }

    #[test]
    fn failover_comes_after_the_first_group() {
        let dialling = dialling(None, &[found(10_000, &[&["a", "b"], &["c"]])]);
        for _ in 0..20 {
            let hosts: Vec<_> = dialling.targets(3).unwrap();
            assert_eq!(&*hosts[2].host, "c");
            assert_eq!(dialling.targets(2).unwrap().len(), 2);
        }
        assert!(Dialling::new("web", None).targets(3).is_err());
    }

    #[test]
    fn nothing_goes_where_there_is_no_share() {
        let dialling = dialling(None, &[found(0, &[&["a"]]), found(10_000, &[&["b"]])]);
        for _ in 0..50 {
            assert_eq!(&*dialling.targets(1).unwrap()[0].host, "b");
        }
    }

    #[test]
    fn who_fails_too_often_is_left_out() {
        let passive = PassiveHealth {
            interval: Duration::from_secs(60),
            failures_max: 2,
        };
        let dialling = dialling(Some(passive), &[found(10_000, &[&["a"], &["b"]])]);
        let first = dialling.targets(1).unwrap().remove(0);
        assert_eq!(&*first.host, "a");
        dialling.report(&first, false);
        dialling.report(&first, true);
        dialling.report(&first, false);
        assert_eq!(&*dialling.targets(1).unwrap()[0].host, "a");
        dialling.report(&first, false);
        assert_eq!(&*dialling.targets(1).unwrap()[0].host, "b");
        let all: Vec<_> = dialling.targets(3).unwrap();
        assert_eq!(&*all[1].host, "a");
    }
}
