//! What scripts ask other servers (`httpClient`): asked at once, waited for when the script wants the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

use crate::model::plan::UpstreamTlsPlan;
use crate::runtime::client::{Client, Limits};
use crate::runtime::contract::LinkContext;
use crate::runtime::upstream_tls::UpstreamTls;

/// Questions of one transaction.
const EXCHANGES_MAX: usize = 100;
/// The end of every question.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(3),
    total: Duration::from_secs(55),
    body_bytes_max: 10 * 1024 * 1024,
};

/// How scripts reach other servers.
pub(super) struct Callouts {
    client: Arc<Client>,
    tls: Arc<UpstreamTls>,
}

/// What one transaction has asked.
#[derive(Default)]
pub(super) struct Exchanges {
    asked: Mutex<Vec<Arc<Asked>>>,
}

#[derive(Default)]
struct Asked {
    outcome: Mutex<Option<Arc<Outcome>>>,
    arrived: Condvar,
}

/// How a question ended.
pub(super) enum Outcome {
    Answered(Answer),
    Failed(String),
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: String,
}

impl Callouts {
    pub(super) fn of(context: &LinkContext<'_>) -> Result<Self, String> {
        let plan = UpstreamTlsPlan {
            verify: Some(true),
            ..UpstreamTlsPlan::default()
        };
        Ok(Self {
            client: Arc::clone(context.client),
            tls: UpstreamTls::link(&plan, None, &context.serving.trust, context.live)?,
        })
    }

    /// Asks, and gives the question's number. Errors: what is wrong with the question.
    pub(super) fn send(
        &self,
        exchanges: &Exchanges,
        url: &str,
        method: &str,
        headers: &[Vec<String>],
        body: String,
    ) -> Result<usize, String> {
        let uri: Uri = url.parse().map_err(|error| format!("'{url}': {error}"))?;
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| format!("'{method}' is no method"))?;
        let mut request = Request::new(Bytes::from(body));
        *request.uri_mut() = uri;
        *request.method_mut() = method;
        for field in headers {
            let [name, value] = field.as_slice() else {
                continue;
            };
            let wrong = || format!("header '{name}' cannot be sent");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?;
            request.headers_mut().append(name, value);
        }
        let handle = Handle::try_current().map_err(|error| error.to_string())?;
        let asked = Arc::new(Asked::default());
        let number = {
            let mut all = exchanges.asked.lock();
            if all.len() >= EXCHANGES_MAX {
                return Err(format!(
                    "more than {EXCHANGES_MAX} calls in one transaction"
                ));
            }
            all.push(Arc::clone(&asked));
            all.len() - 1
        };
        let (client, tls) = (Arc::clone(&self.client), Arc::clone(&self.tls));
        handle.spawn(async move {
            let outcome = match client.send_url(&tls, request, &LIMITS).await {
                Ok(response) => Outcome::Answered(Answer {
                    status: response.status().as_u16(),
                    reason: response.status().canonical_reason().unwrap_or_default(),
                    headers: response
                        .headers()
                        .iter()
                        .map(|(name, value)| {
                            let value = String::from_utf8_lossy(value.as_bytes());
                            (name.as_str().to_owned(), value.into_owned())
                        })
                        .collect(),
                    content: String::from_utf8_lossy(response.body()).into_owned(),
                }),
                Err(error) => Outcome::Failed(error.chain()),
            };
            *asked.outcome.lock() = Some(Arc::new(outcome));
            asked.arrived.notify_all();
        });
        Ok(number)
    }
}

impl Exchanges {
    /// Waits for the end of a question, but not beyond `until`. Blocks.
    pub(super) fn wait(&self, number: usize, until: Instant) {
        let Some(asked) = self.asked(number) else {
            return;
        };
        let mut outcome = asked.outcome.lock();
        while outcome.is_none() {
            if asked.arrived.wait_until(&mut outcome, until).timed_out() {
                return;
            }
        }
    }

    /// How a question ended, if it has.
    pub(super) fn outcome(&self, number: usize) -> Option<Arc<Outcome>> {
        self.asked(number)?.outcome.lock().clone()
    }

    fn asked(&self, number: usize) -> Option<Arc<Asked>> {
        self.asked.lock().get(number).cloned()
    }
}
