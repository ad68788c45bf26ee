//! Sets of keys that others serve (JWKS), fetched and kept.
//!
//! A set is fetched when somebody needs it, by one of those who wait for it, and kept for a while; a key that it does not
//! have makes it be fetched again, but not often. Refuses to know what keys are for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use parking_lot::Mutex;

use crate::base::jose::KeySet;
use crate::model::plan::UpstreamTlsPlan;
use crate::runtime::client::{Client, Limits};
use crate::runtime::contract::LinkContext;
use crate::runtime::upstream_tls::UpstreamTls;

/// How long a set is good.
const KEPT: Duration = Duration::from_secs(300);
/// How long the old set still serves while no new one can be had.
const KEPT_WITHOUT_NEWS: Duration = Duration::from_secs(3_600);
/// A set is not asked for again sooner, whoever wants it and however it went.
const PAUSE: Duration = Duration::from_secs(10);
/// Most sets; then those go that were fetched longest ago.
const SETS_MAX: usize = 256;
/// The end of a fetch.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    total: Duration::from_secs(10),
    body_bytes_max: 1 << 20,
};

/// The sets of the process.
pub(crate) struct RemoteKeys {
    client: Arc<Client>,
    /// Servers are verified.
    tls: Arc<UpstreamTls>,
    sets: Mutex<AHashMap<String, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// Whoever holds it fetches; the others wait for the outcome, which has an end in time.
    fetching: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default, Clone)]
struct State {
    good: Option<(Arc<KeySet>, Instant)>,
    asked: Option<Instant>,
    /// Why the last question failed.
    failure: Option<Arc<str>>,
}

impl State {
    /// What there is without asking. `news` wants a set from after that moment, as far as one may ask.
    fn settled(&self, now: Instant, wants_news: bool) -> Option<Result<Arc<KeySet>, Arc<str>>> {
        let rests = self.asked.is_some_and(|asked| now < asked + PAUSE);
        let fresh = |at: &Instant| now < *at + KEPT;
        match &self.good {
            Some((set, at)) if fresh(at) && (!wants_news || rests) => Some(Ok(Arc::clone(set))),
            Some((set, at)) if rests && now < *at + KEPT_WITHOUT_NEWS => Some(Ok(Arc::clone(set))),
            _ if rests => self.failure.clone().map(Err),
            _ => None,
        }
    }
}

impl RemoteKeys {
    /// The one of the process.
    ///
    /// # Errors
    ///
    /// When no TLS can be set up.
    pub(crate) fn of(context: &LinkContext<'_>) -> Result<Arc<Self>, String> {
        let plan = UpstreamTlsPlan {
            verify: Some(true),
            ..UpstreamTlsPlan::default()
        };
        let tls = UpstreamTls::link(&plan, None, &context.serving.trust, context.live)?;
        let client = Arc::clone(context.client);
        // Other trust, other keys.
        let key = format!("remote-keys-{}", tls.identity());
        Ok(context.live.keep(key, || Self {
            client,
            tls,
            sets: Mutex::new(AHashMap::new()),
        }))
    }

    /// The set that a URL serves. With `wants_news` the kept one is not enough, because a key was not in it.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn set(&self, url: &str, wants_news: bool) -> Result<Arc<KeySet>, Arc<str>> {
        let slot = self.slot(url);
        let settled = slot.state.lock().settled(Instant::now(), wants_news);
        if let Some(outcome) = settled {
            return outcome;
        }
        let _held = slot.fetching.lock().await;
        // Somebody else may have fetched it meanwhile.
        let settled = slot.state.lock().settled(Instant::now(), wants_news);
        if let Some(outcome) = settled {
            return outcome;
        }
        let outcome = self.fetch(url).await;
        let now = Instant::now();
        let mut state = slot.state.lock();
        state.asked = Some(now);
        match outcome {
            Ok(set) => {
                let set = Arc::new(set);
                state.good = Some((Arc::clone(&set), now));
                state.failure = None;
                Ok(set)
            }
            Err(reason) => {
                tracing::warn!(url, reason, "a set of keys cannot be fetched");
                let reason: Arc<str> = reason.into();
                state.failure = Some(Arc::clone(&reason));
                match &state.good {
                    Some((set, at)) if now < *at + KEPT_WITHOUT_NEWS => Ok(Arc::clone(set)),
                    _ => Err(reason),
                }
            }
        }
    }

    fn slot(&self, url: &str) -> Arc<Slot> {
        let mut sets = self.sets.lock();
        if let Some(slot) = sets.get(url) {
            return Arc::clone(slot);
        }
        if sets.len() >= SETS_MAX {
            let oldest = sets.iter().min_by_key(|(_, slot)| slot.state.lock().asked);
            if let Some(url) = oldest.map(|(url, _)| url.clone()) {
                sets.remove(&url);
            }
        }
        let slot = Arc::<Slot>::default();
        sets.insert(url.to_owned(), Arc::clone(&slot));
        slot
    }

    async fn fetch(&self, url: &str) -> Result<KeySet, String> {
        let uri: Uri = url.parse().map_err(|error| format!("is no URL: {error}"))?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        let answer = self.client.send_url(&self.tls, request, &LIMITS).await;
        let answer = answer.map_err(|error| error.chain())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("answers {}", answer.status().as_u16()));
        }
        let text = std::str::from_utf8(answer.body()).map_err(|_| "is not UTF-8".to_owned())?;
        KeySet::parse(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sets_are_kept_and_not_asked_for_too_often() {
        let start = Instant::now();
        let set = Arc::new(KeySet::parse(r#"{"keys":[]}"#).unwrap());
        let state = State {
            good: Some((set, start)),
            asked: Some(start),
            failure: Some("down".into()),
        };
        for (later, wants_news, settled) in [
            (Duration::ZERO, true, Some(true)),
            (PAUSE, true, None),
            (PAUSE, false, Some(true)),
            (KEPT, false, None),
        ] {
            let found = state.settled(start + later, wants_news);
            assert_eq!(found.map(|set| set.is_ok()), settled, "{later:?}");
        }
        let asked = State {
            asked: Some(start + KEPT),
            ..state.clone()
        };
        assert!(asked.settled(start + KEPT, false).unwrap().is_ok());
        let down = State {
            good: None,
            ..state
        };
        assert!(down.settled(start, false).unwrap().is_err());
        assert!(down.settled(start + PAUSE, false).is_none());
        assert!(State::default().settled(start, false).is_none());
    }
}
