//! The intentions for one service, kept here so that nobody has to wait for the agent.
//!
//! Newer agents hold the question for the intentions of a destination. Older ones (1.8) answer it at once and without an
//! index; there the list of all intentions is watched, and the question repeated when it changes. The default of the mesh
//! is told by a header, or found by asking about a caller that no intention speaks of. Start at [`IntentionBook::start`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::client::{AgentAnswer, AgentClient, AgentError, Question, decode, encode};
use super::watch::{Style, Watch, Watches};
use crate::dialects::consul::answers::Authorization;
use crate::dialects::consul::intention::{Action, Decision, Intention, IntentionList};
use crate::dialects::consul::spiffe::{DEFAULT, ServiceIdentity};

/// How often the default of the mesh is asked for, and everything else in case a change was missed.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// After a question that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A service that nobody has: no intention names it, so the agent's answer about it is the default.
const NOBODY: &str = "sallyport-asks-for-the-default";

/// What is known.
#[derive(Debug, Default)]
pub struct Book {
    /// None before the first good answer.
    pub list: Option<IntentionList>,
    /// What counts where no intention speaks of a caller; none while nobody has said.
    pub default: Option<Action>,
    /// Grows with each change.
    pub version: u64,
}

impl Book {
    /// What holds for a caller. None while nothing is known.
    pub fn decide(&self, caller: &ServiceIdentity) -> Option<Decision> {
        match self.list.as_ref()?.decide(caller) {
            Decision::Default => self.default.map(Decision::Action),
            decided => Some(decided),
        }
    }
}

/// Keeps a [`Book`].
pub struct IntentionBook {
    book: Arc<ArcSwap<Book>>,
    changes: watch::Sender<u64>,
    task: AbortHandle,
}

impl Drop for IntentionBook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl IntentionBook {
    /// Watches the intentions whose destination is `service`. Must be called within a runtime.
    pub fn start(watches: &Arc<Watches>, service: &str) -> Arc<Self> {
        let book = Arc::new(ArcSwap::from_pointee(Book::default()));
        let changes = watch::Sender::new(0);
        let keeper = Keeper {
            watches: Arc::clone(watches),
            service: service.to_owned(),
            book: Arc::clone(&book),
            changes: changes.clone(),
            shown: Vec::new(),
            troubled: false,
        };
        Arc::new(Self {
            book,
            changes,
            task: tokio::spawn(keeper.run()).abort_handle(),
        })
    }

    /// What is known now.
    pub fn book(&self) -> arc_swap::Guard<Arc<Book>> {
        self.book.load()
    }

    /// Tells the version whenever it changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The answer to the question for one destination.
struct Matched {
    intentions: Vec<Intention>,
    body: Vec<u8>,
    policy: Option<Action>,
    has_index: bool,
}

impl PartialEq for Matched {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body && self.policy == other.policy
    }
}

/// A digest of the list of all intentions.
#[derive(PartialEq)]
struct Everything([u8; 32]);

struct Keeper {
    watches: Arc<Watches>,
    service: String,
    book: Arc<ArcSwap<Book>>,
    changes: watch::Sender<u64>,
    /// The answer behind the book.
    shown: Vec<u8>,
    troubled: bool,
}

impl Keeper {
    async fn run(mut self) {
        let target = format!(
            "/v1/connect/intentions/match?by=destination&name={}",
            encode(&self.service)
        );
        let client = Arc::clone(self.watches.client());
        loop {
            let first = match ask(&client, &target).await {
                Ok(first) => first,
                Err(error) => {
                    self.trouble(&error);
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            let blocks = first.has_index;
            self.take(&client, first).await;
            if blocks {
                let watch = self.watches.watch(&target, Style::Index, decode_matched);
                self.follow(&client, &watch).await;
            } else {
                self.repeat(&client, &target).await;
            }
        }
    }

    /// The agent holds the question itself.
    async fn follow(&mut self, client: &AgentClient, watch: &Watch<Matched>) {
        let mut changes = watch.changes();
        loop {
            let known = changes.borrow_and_update().clone();
            if let Some(matched) = known.value {
                let again = Matched {
                    intentions: matched.intentions.clone(),
                    body: matched.body.clone(),
                    policy: matched.policy,
                    has_index: matched.has_index,
                };
                self.take(client, again).await;
            }
            let _ = tokio::time::timeout(SWEEP_EVERY, changes.changed()).await;
        }
    }

    /// The agent holds only the question for all intentions. Returns when it has learnt to hold the other.
    async fn repeat(&mut self, client: &AgentClient, target: &str) {
        let everything: Arc<Watch<Everything>> =
            self.watches
                .watch("/v1/connect/intentions", Style::Index, decode_everything);
        let mut changes = everything.changes();
        let mut pause = Duration::ZERO;
        loop {
            match ask(client, target).await {
                Ok(matched) if matched.has_index => return,
                Ok(matched) => {
                    self.take(client, matched).await;
                    pause = SWEEP_EVERY;
                }
                Err(error) => {
                    self.trouble(&error);
                    pause = pause.clamp(RETRY_AFTER, SWEEP_EVERY).min(RETRY_AFTER * 5);
                }
            }
            let _ = tokio::time::timeout(pause, changes.changed()).await;
        }
    }

    /// Takes an answer over if it says something new.
    async fn take(&mut self, client: &AgentClient, matched: Matched) {
        self.troubled = false;
        let list = (self.shown != matched.body || self.book.load().list.is_none())
            .then(|| IntentionList::compile(&matched.intentions));
        if let Some(list) = &list {
            for complaint in &list.complaints {
                tracing::error!(service = %self.service, "{complaint}");
            }
            // A deny counts at once; the default may take another question.
            self.shown.clone_from(&matched.body);
            let before = self.book.load();
            self.publish(Some(list.clone()), before.default);
        }
        let default = match matched.policy {
            Some(policy) => Some(policy),
            None => self.ask_default(client).await,
        };
        let before = self.book.load_full();
        if default.is_some() && default != before.default {
            self.publish(before.list.clone(), default);
        }
    }

    fn publish(&self, list: Option<IntentionList>, default: Option<Action>) {
        let version = self.book.load().version + 1;
        self.book.store(Arc::new(Book {
            list,
            default,
            version,
        }));
        self.changes.send_replace(version);
    }

    /// What the agent says about somebody unknown.
    async fn ask_default(&self, client: &AgentClient) -> Option<Action> {
        let nobody = ServiceIdentity {
            trust_domain: "unknown.consul".to_owned(),
            partition: DEFAULT.to_owned(),
            namespace: DEFAULT.to_owned(),
            datacenter: "dc1".to_owned(),
            service: NOBODY.to_owned(),
        };
        let book = self.book.load();
        if !matches!(book.list.as_ref()?.decide(&nobody), Decision::Default) {
            // Some intention speaks of everybody: the default counts for nobody here.
            return None;
        }
        let question = authorize_question(&self.service, &nobody.to_string(), "00");
        match client.read::<Authorization>(&question).await {
            Ok(answer) if answer.authorized => Some(Action::Allow),
            Ok(_) => Some(Action::Deny),
            Err(error) => {
                tracing::debug!(%error, "the default of the mesh is not known");
                None
            }
        }
    }

    fn trouble(&mut self, error: &AgentError) {
        if !self.troubled {
            tracing::warn!(service = %self.service, "intentions: {error}; what is known stays");
        }
        self.troubled = true;
    }
}

/// `POST /v1/agent/connect/authorize`.
pub(super) fn authorize_question(target: &str, uri: &str, serial: &str) -> Question {
    let body = serde_json::json!({
        "Target": target,
        "ClientCertURI": uri,
        "ClientCertSerial": serial,
    });
    Question::send(
        http::Method::POST,
        "/v1/agent/connect/authorize",
        body.to_string(),
    )
}

async fn ask(client: &AgentClient, target: &str) -> Result<Matched, AgentError> {
    let answer = client.ask(&Question::get(target)).await?;
    decode_matched(&answer).map_err(AgentError::Unreadable)
}

fn decode_matched(answer: &AgentAnswer) -> Result<Matched, String> {
    // One member, named as the question had it; `null` when nothing matches.
    let read: std::collections::BTreeMap<String, Option<Vec<Intention>>> = decode(&answer.body)?;
    let intentions = read.into_values().flatten().next().unwrap_or_default();
    Ok(Matched {
        intentions,
        body: answer.body.to_vec(),
        policy: answer.default_policy().and_then(Action::from_word),
        has_index: answer.index().is_some(),
    })
}

fn decode_everything(answer: &AgentAnswer) -> Result<Everything, String> {
    let _: serde::de::IgnoredAny = decode(&answer.body)?;
    Ok(Everything(Sha256::digest(&answer.body).into()))
}
