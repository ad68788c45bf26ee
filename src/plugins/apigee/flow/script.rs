//! Programs of bundles as targets: a companion for each, asked over its socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Method, Request};
use sha2::{Digest, Sha256};

use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::program as plan;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::fault;
use crate::plugins::apigee::flow::program::{HttpWay, link_http};
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};
use crate::plugins::apigee::flow::target::{join, joined_query};
use crate::plugins::apigee::flow::wire::drop_hop_by_hop;
use crate::plugins::apigee::policies::Place;
use crate::runtime::client::{Address, Client, Destination, HttpProtocol, Limits};
use crate::runtime::companion::{Companion, Companions, ProgramSpec};
use crate::runtime::contract::LinkContext;

/// Makes servers of the program listen on the gateway's socket.
const PRELOAD: &str = include_str!("script_preload.js");
const PRELOAD_FILE: &str = ".sallyport-preload.cjs";
/// Longest wait for a program that starts.
const START_MAX: Duration = Duration::from_secs(30);
/// Most memory for a program's objects, in MiB.
const HEAP_MIB_MAX: u32 = 512;

/// See the module.
pub(crate) struct ScriptWay {
    pub(crate) http: HttpWay,
    companion: Arc<Companion>,
    client: Arc<Client>,
}

/// A request on its way to a program.
pub(crate) struct ScriptCall {
    companion: Arc<Companion>,
    client: Arc<Client>,
    request: Result<Request<Bytes>, String>,
    total: Duration,
    body_bytes_max: usize,
}

impl ScriptWay {
    /// Starts the program, unless it runs already.
    pub(crate) fn link(
        plan: &plan::ScriptWay,
        place: &Place,
        context: &LinkContext<'_>,
    ) -> Result<Self, String> {
        let text = serde_json::to_vec(plan).map_err(|error| error.to_string())?;
        // Another revision is another program, even if it is the same: what it keeps in memory is its own.
        let key = format!("{place:?} {:x}", Sha256::digest(&text));
        let mut files = vec![(
            PRELOAD_FILE.to_owned(),
            Bytes::from_static(PRELOAD.as_bytes()),
        )];
        for (name, content) in &plan.files {
            let content = STANDARD
                .decode(content)
                .map_err(|error| error.to_string())?;
            files.push((name.clone(), content.into()));
        }
        let spec = || ProgramSpec {
            name: format!(
                "{}/{}/{} revision {} {}",
                place.organization, place.environment, place.proxy, place.revision, plan.main
            ),
            program: plan.node.clone(),
            arguments: [
                format!("--max-old-space-size={HEAP_MIB_MAX}"),
                "--require".to_owned(),
                format!("./{PRELOAD_FILE}"),
                format!("./{}", plan.main),
            ]
            .into_iter()
            .chain(plan.arguments.iter().cloned())
            .collect(),
            environment: plan.environment.clone().into_iter().collect(),
            files,
        };
        let companions = Companions::of(context.live);
        Ok(Self {
            http: link_http(&plan.http)?,
            companion: companions.companion(context.live, &key, spec),
            client: Arc::clone(context.client),
        })
    }

    /// The request of the moment: path suffix and query, everything else as it is.
    /// `left`: how long the whole exchange may still take.
    pub(crate) fn call(&self, scope: &mut Scope, left: Option<Duration>) -> ScriptCall {
        let suffix = match scope.copies_path_suffix {
            true => scope.entry.suffix.clone(),
            false => String::new(),
        };
        let mut target = join("", &suffix);
        let properties = &self.http.plan.properties;
        let total = Duration::from_millis(u64::from(properties.io_timeout_ms));
        let request = scope.message(REQUEST);
        let own = request.filter(|_| scope.copies_query_parameters);
        let own = own.and_then(|request| request.query.as_deref());
        let query = joined_query(None, own, &properties.query_parameters);
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            target.push('?');
            target.push_str(&query);
        }
        let request = match request {
            Some(request) => wire(request, &target),
            None => Err("there is no request".to_owned()),
        };
        if let Some(facts) = scope.target.as_deref_mut() {
            facts.sent = Some(target);
        }
        scope.times.target_sent_start = Some(Instant::now());
        ScriptCall {
            companion: Arc::clone(&self.companion),
            client: Arc::clone(&self.client),
            request,
            total: left.map_or(total, |left| left.min(total)),
            body_bytes_max: usize::try_from(properties.response_payload_bytes_max)
                .unwrap_or(usize::MAX),
        }
    }
}

fn wire(message: &Message, target: &str) -> Result<Request<Bytes>, String> {
    let method = Method::from_bytes(message.verb.as_bytes()).map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(message.content.clone())
        .map_err(|error| error.to_string())?;
    let mut headers = message.headers.clone();
    drop_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    if !headers.contains_key(HOST) {
        headers.insert(HOST, HeaderValue::from_static("localhost"));
    }
    *request.headers_mut() = headers;
    Ok(request)
}

impl ScriptCall {
    /// Asks the program, and waits for it while it starts.
    pub(crate) async fn send(self) -> Result<Message, PolicyFault> {
        let request = self.request.map_err(|reason| fault::bad_path(&reason))?;
        let began = Instant::now();
        let Some(socket) = self.companion.ready(START_MAX.min(self.total)).await else {
            return Err(fault::unavailable(
                "the target's program does not listen, see what it says in the log",
            ));
        };
        let left = self.total.saturating_sub(began.elapsed());
        let destination = Destination {
            address: Address::Unix(socket),
            tls: None,
            protocol: HttpProtocol::Http1,
        };
        let limits = Limits {
            connect: left,
            total: left,
            body_bytes_max: self.body_bytes_max,
        };
        match self.client.send(&destination, request, &limits).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let mut headers = head.headers;
                drop_hop_by_hop(&mut headers);
                Ok(Message {
                    headers,
                    content: body,
                    version: head.version,
                    status: head.status.as_u16(),
                    ..Message::response()
                })
            }
            Err(error) if error.is_timeout() => Err(fault::gateway_timeout()),
            Err(error) => Err(fault::unavailable(&format!(
                "the target's program: {error}"
            ))),
        }
    }
}
