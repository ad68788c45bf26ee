//! Who may call this service: the agent's word for each connection, or the intentions that are kept here.
//!
//! Owns the cache of the agent's answers and what a failed question means: no. Start at [`ConnectAuthority`], and at
//! [`ExpectedPeer`] for the other side of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use super::client::{AgentClient, AgentError};
use super::intentions::{IntentionBook, authorize_question};
use crate::dialects::consul::answers::Authorization;
use crate::dialects::consul::intention::{Action, Decision};
use crate::dialects::consul::normalise::normalise_path;
use crate::dialects::consul::spiffe::{ServiceIdentity, SpiffeId};
use crate::runtime::head::RequestHead;
use crate::runtime::mutual::{
    Admission, Peer, PeerAuthority, PeerJudge, PeerNames, Refusal, Review, Verdict,
};
use crate::settings::consul::Authorize;

/// How long an answer counts while changes of intentions are told.
const ANSWER_LIFE: Duration = Duration::from_secs(1);
/// How long it counts while they are not: just enough to answer a burst with one question.
const ANSWER_LIFE_BLIND: Duration = Duration::from_millis(50);
/// The longest that a connection waits for the agent's word.
const AUTHORIZE_TIMEOUT: Duration = Duration::from_secs(1);
/// Callers remembered; beyond it the oldest answers go.
const ANSWERS_MAX: usize = 4096;

/// What is made of a caller's URI, kept with the connection.
struct Caller {
    identity: ServiceIdentity,
    /// The decision as of one version of the intentions, so that a request costs no look through the list.
    decided: ArcSwapOption<(u64, Option<Decision>)>,
}

/// Reads the identity of callers, whoever they are.
pub struct AnyService;

impl PeerJudge for AnyService {
    fn judge(&self, names: &PeerNames) -> Result<Peer, Refusal> {
        service_of(names).map(|(uri, identity)| peer(uri, identity, names))
    }
}

/// Takes only one of some services: for the server's side of a call.
pub struct ExpectedPeer {
    /// One of these.
    pub identities: Vec<ServiceIdentity>,
}

impl PeerJudge for ExpectedPeer {
    fn judge(&self, names: &PeerNames) -> Result<Peer, Refusal> {
        let (uri, identity) = service_of(names)?;
        if self
            .identities
            .iter()
            .any(|expected| identity.is_the(expected))
        {
            return Ok(peer(uri, identity, names));
        }
        let expected = self.identities.first();
        Err(Refusal::WrongPeer {
            shown: uri.to_owned(),
            expected: expected.map_or_else(String::new, ToString::to_string),
        })
    }
}

fn service_of(names: &PeerNames) -> Result<(&str, ServiceIdentity), Refusal> {
    let uri = match names.uris.as_slice() {
        [] => return Err(Refusal::NoIdentity),
        [uri] => uri,
        _ => return Err(Refusal::SeveralIdentities),
    };
    let shown = || {
        uri.chars()
            .take(200)
            .collect::<String>()
            .escape_debug()
            .to_string()
    };
    match SpiffeId::parse(uri) {
        Ok(SpiffeId::Service(identity)) => Ok((uri, identity)),
        Ok(other) => Err(Refusal::ForeignIdentity(format!(
            "'{}' is that of a {}",
            shown(),
            other.kind()
        ))),
        Err(error) => Err(Refusal::ForeignIdentity(format!("'{}' {error}", shown()))),
    }
}

fn peer(uri: &str, identity: ServiceIdentity, names: &PeerNames) -> Peer {
    Peer {
        uri: uri.into(),
        name: identity.service.as_str().into(),
        serial: names.serial.as_str().into(),
        subject: Arc::new(Caller {
            identity,
            decided: ArcSwapOption::empty(),
        }),
    }
}

/// What was asked, and how it went.
#[derive(Debug, Default)]
pub struct AuthorizeCounts {
    /// Questions sent to the agent.
    pub asked: AtomicU64,
    /// Connections that were answered without one.
    pub cached: AtomicU64,
    pub failed: AtomicU64,
}

/// Says who may call one service.
pub struct ConnectAuthority {
    service: String,
    client: Arc<AgentClient>,
    intentions: Arc<IntentionBook>,
    decides: Authorize,
    stale: Duration,
    answers: Mutex<AHashMap<Arc<str>, Asked>>,
    /// The last word about a caller, for the time when nobody answers.
    last: Mutex<AHashMap<Arc<str>, (Instant, Verdict)>>,
    pub counts: AuthorizeCounts,
}

/// A question that is under way or was answered lately.
#[derive(Clone)]
struct Asked {
    at: Instant,
    /// The intentions that counted when it was asked.
    version: u64,
    answer: Arc<OnceCell<Verdict>>,
}

impl ConnectAuthority {
    /// `stale` is how long the last word counts while the agent cannot be asked.
    pub fn new(
        service: &str,
        client: Arc<AgentClient>,
        intentions: Arc<IntentionBook>,
        decides: Authorize,
        stale: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            service: service.to_owned(),
            client,
            intentions,
            decides,
            stale,
            answers: Mutex::default(),
            last: Mutex::default(),
            counts: AuthorizeCounts::default(),
        })
    }

    /// The agent's word, asked for once however many wait for it.
    async fn ask(&self, peer: &Peer) -> Verdict {
        let asked = self.asked(peer);
        let mut fresh = false;
        let verdict = asked
            .answer
            .get_or_init(|| {
                fresh = true;
                self.question(peer)
            })
            .await
            .clone();
        if !fresh {
            self.counts.cached.fetch_add(1, Ordering::Relaxed);
            return verdict;
        }
        match &verdict {
            // A failure is no answer: the next connection asks again.
            Verdict::Unknown { .. } => {
                let mut answers = self.answers.lock();
                if answers
                    .get(&peer.uri)
                    .is_some_and(|known| Arc::ptr_eq(&known.answer, &asked.answer))
                {
                    answers.remove(&peer.uri);
                }
            }
            known if !self.stale.is_zero() => {
                let mut last = self.last.lock();
                if last.len() >= ANSWERS_MAX {
                    last.retain(|_, (at, _)| at.elapsed() < self.stale);
                }
                if last.len() < ANSWERS_MAX {
                    last.insert(Arc::clone(&peer.uri), (Instant::now(), known.clone()));
                }
            }
            _ => {}
        }
        verdict
    }

    /// The question about a caller: one that is answered or under way, or a new one.
    fn asked(&self, peer: &Peer) -> Asked {
        let book = self.intentions.book();
        let life = match book.list {
            Some(_) => ANSWER_LIFE,
            None => ANSWER_LIFE_BLIND,
        };
        let version = book.version;
        let now = Instant::now();
        let fresh = |asked: &Asked| asked.version == version && now - asked.at < life;
        let mut answers = self.answers.lock();
        if let Some(known) = answers.get(&peer.uri).filter(|asked| fresh(asked)) {
            return known.clone();
        }
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, asked| fresh(asked));
            if answers.len() >= ANSWERS_MAX {
                answers.clear();
            }
        }
        let asked = Asked {
            at: now,
            version,
            answer: Arc::default(),
        };
        answers.insert(Arc::clone(&peer.uri), asked.clone());
        asked
    }

    async fn question(&self, peer: &Peer) -> Verdict {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let mut question = authorize_question(&self.service, &peer.uri, &peer.serial);
        question.timeout = AUTHORIZE_TIMEOUT;
        match self.client.read::<Authorization>(&question).await {
            Ok(answer) if answer.authorized => Verdict::Allow,
            Ok(answer) => Verdict::Deny {
                reason: answer.reason.into(),
            },
            // The agent has looked and does not take the caller for a service.
            Err(AgentError::Misunderstood {
                status: 400,
                message,
            }) => Verdict::Deny {
                reason: message.into(),
            },
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                Verdict::Unknown {
                    reason: error.to_string().into(),
                }
            }
        }
    }

    /// What the agent said last, where that may count.
    fn last_word(&self, peer: &Peer) -> Option<Verdict> {
        let last = self.last.lock();
        let (at, verdict) = last.get(&peer.uri)?;
        (at.elapsed() < self.stale).then(|| verdict.clone())
    }

    /// What the intentions say about a caller; none while they are not known.
    fn decision(&self, peer: &Peer) -> Option<Decision> {
        let caller = peer.subject.downcast_ref::<Caller>()?;
        let book = self.intentions.book();
        if let Some(decided) = caller.decided.load().as_deref()
            && decided.0 == book.version
        {
            return decided.1.clone();
        }
        let decision = book.decide(&caller.identity);
        caller
            .decided
            .store(Some(Arc::new((book.version, decision.clone()))));
        decision
    }

    fn by_intentions(&self, peer: &Peer) -> Verdict {
        match self.decision(peer) {
            None => Verdict::Unknown {
                reason: UNKNOWN.into(),
            },
            Some(Decision::Action(Action::Allow)) => Verdict::Allow,
            Some(Decision::Action(Action::Deny)) => Verdict::Deny {
                reason: BY_INTENTION.into(),
            },
            Some(Decision::Requests(_) | Decision::Default) => Verdict::Deny {
                reason: "the intention looks at requests, which this listener does not see".into(),
            },
        }
    }
}

const UNKNOWN: &str = "the intentions are not known yet";
const BY_INTENTION: &str = "the intentions do not allow it";

#[async_trait]
impl PeerAuthority for ConnectAuthority {
    async fn authorize(&self, peer: &Peer) -> Verdict {
        match self.decides {
            Authorize::Intentions => self.by_intentions(peer),
            Authorize::Agent => match self.ask(peer).await {
                Verdict::Unknown { reason } => {
                    self.last_word(peer).unwrap_or(Verdict::Unknown { reason })
                }
                known => known,
            },
        }
    }

    async fn review(&self, peer: &Peer) -> Review {
        let verdict = match self.decision(peer) {
            // What is kept here is as new as anything the agent could say.
            Some(Decision::Action(Action::Allow)) => Verdict::Allow,
            Some(Decision::Action(Action::Deny)) => Verdict::Deny {
                reason: BY_INTENTION.into(),
            },
            // Each request is judged by itself.
            Some(Decision::Requests(_)) => Verdict::Allow,
            Some(Decision::Default) | None => self.ask(peer).await,
        };
        match verdict {
            Verdict::Deny { reason } => Review::Cut { reason },
            Verdict::Allow | Verdict::Unknown { .. } => Review::Keep,
        }
    }

    fn admit(&self, peer: &Peer, request: &RequestHead) -> Admission {
        let deny = |reason: &str| Admission::Deny {
            reason: reason.into(),
        };
        let permissions = match self.decision(peer) {
            Some(Decision::Action(Action::Allow)) => return Admission::Allow { target: None },
            Some(Decision::Action(Action::Deny)) => return deny(BY_INTENTION),
            None | Some(Decision::Default) => return deny(UNKNOWN),
            Some(Decision::Requests(permissions)) => permissions,
        };
        let malformed = |reason: &str| Admission::Malformed {
            reason: reason.into(),
        };
        // Applications may take `x_a` for `x-a`, which a permission may look at.
        let mut names = request.fields().iter().map(|(name, _)| name);
        if names.any(|name| name.contains(&b'_')) {
            return malformed("a header has an underscore in its name");
        }
        let target = String::from_utf8_lossy(request.raw_path());
        let Some(normal) = normalise_path(&target) else {
            return malformed("the path leads out of its root or is not encoded well");
        };
        let path = normal.split('?').next().unwrap_or_default();
        let action = permissions
            .decide(request.method(), path, &request.headers)
            .or(self.intentions.book().default);
        match action {
            Some(Action::Allow) => Admission::Allow {
                target: (*normal != *target).then(|| normal.into_owned()),
            },
            Some(Action::Deny) => deny("the permissions of the intention do not allow it"),
            None => deny(UNKNOWN),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.intentions.changes()
    }
}
