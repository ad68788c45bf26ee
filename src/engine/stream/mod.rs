//! The stream driver: connections that are carried as bytes, whatever they mean.
//!
//! ```text
//! accept ─▶ hello? ─▶ route ─▶ TLS? ─▶ preread ─▶ endpoint ─▶ TLS? ─▶ bytes both ways ─▶ log
//!            (looked at,        │                                          ▲
//!             not taken)        └───────── passthrough: nothing opened ────┘
//! ```
//!
//! On a listener with TLS the ClientHello is looked at before anything else, so a route may end TLS here or let it pass,
//! on the same port. Listeners of requests hand connections over that a passthrough route claims ([`Streams::claim`]).

pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod hello;

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::watch;

use self::copy::{Carried, Patience, Side};
use self::hello::{HELLO_BYTES_MAX, Hello};
use crate::engine::accept::Serve;
use crate::engine::io::Channel;
use crate::engine::log::AccessLog;
use crate::engine::peek::look;
use crate::engine::tls::Acceptor;
use crate::model::plan::Protocol;
use crate::model::route;
use crate::runtime::connection::Connection;
use crate::runtime::contract::Phases;
use crate::runtime::node::Node;
use crate::runtime::pipeline::Pipeline;
use crate::runtime::router::{MatchInput, Router};
use crate::runtime::session::{Closing, Session, Verdict};
use crate::runtime::snapshot::{Route, Snapshot};

/// A ClientHello must be complete this long after it is expected, however slowly it drips.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// What all streams share.
pub(crate) struct Streams {
    pub(crate) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(crate) node: Arc<Node>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
}

/// A listener of streams.
pub(crate) struct StreamFront {
    pub(crate) streams: Arc<Streams>,
    /// Present when its connections begin with TLS.
    pub(crate) acceptor: Option<Arc<Acceptor>>,
}

impl Serve for StreamFront {
    async fn serve(
        &self,
        stream: TcpStream,
        connection: Connection,
        _shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let streams = &self.streams;
        let snapshot = streams.snapshots.load_full();
        let mut session = Session::new(&snapshot, Arc::new(connection), Instant::now());
        let _counted = Counted::new(&streams.node);
        let outcome = match &self.acceptor {
            None => {
                let found = find(&mut session, &snapshot, route::Protocol::Tcp);
                drop(snapshot);
                match found {
                    Ok(()) => carry(&mut session, Channel::Plain(stream)).await,
                    Err(closing) => Err(closing),
                }
            }
            Some(acceptor) => encrypted(&mut session, snapshot, stream, acceptor).await,
        };
        streams.conclude(session, outcome);
        Ok(())
    }
}

impl Streams {
    /// Takes a TLS connection over when a passthrough route claims it by its hello, and gives it back otherwise. Costs
    /// nothing while there is no such route. What is no hello is given back, too: TLS has its own words for it.
    pub(crate) async fn claim(
        &self,
        stream: TcpStream,
        connection: Connection,
    ) -> Result<(), (TcpStream, Connection)> {
        let snapshot = self.snapshots.load();
        if snapshot.passthrough_router.is_empty() {
            return Err((stream, connection));
        }
        drop(snapshot);
        let Ok(hello) = look_at_hello(&stream).await else {
            return Err((stream, connection));
        };
        let snapshot = self.snapshots.load_full();
        let name = hello.server_name.as_deref();
        let protocol = route::Protocol::Tls;
        let router = &snapshot.passthrough_router;
        let Some(route) = lookup(router, &snapshot, &connection, name, protocol) else {
            return Err((stream, connection));
        };
        let mut session = Session::new(&snapshot, Arc::new(connection), Instant::now());
        drop(snapshot);
        session.server_name = hello.server_name;
        session.route = Some(route);
        let _counted = Counted::new(&self.node);
        let outcome = carry(&mut session, Channel::Plain(stream)).await;
        self.conclude(session, outcome);
        Ok(())
    }

    fn conclude(&self, mut session: Session, outcome: Result<(), Closing>) {
        session.ended = Some(Instant::now());
        if let Err(closing) = outcome {
            session.status = closing.status;
            let (client, cause) = (session.connection.peer, &closing.cause);
            let status = closing.status.as_u16();
            let route = session
                .route
                .as_ref()
                .and_then(|route| route.plan.name.as_deref());
            match closing.status.is_server_error() {
                true => tracing::error!(%client, status, route, "stream closed: {cause}"),
                false => tracing::info!(%client, status, route, "stream closed: {cause}"),
            }
        }
        if let Some(log) = &self.access_log {
            log.write_session(&session);
        }
        for instance in &session.chosen {
            if instance.phases.has(Phases::LOG_SESSION) {
                instance.plugin.log_session(&session);
            }
        }
    }
}

/// A stream, counted.
struct Counted<'a>(&'a Node);

impl<'a> Counted<'a> {
    fn new(node: &'a Node) -> Self {
        node.traffic.session_began();
        Self(node)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.traffic.session_ended();
    }
}

/// A connection that begins with TLS, from its hello on.
async fn encrypted(
    session: &mut Session,
    snapshot: Arc<Snapshot>,
    stream: TcpStream,
    acceptor: &Acceptor,
) -> Result<(), Closing> {
    session.server_name = look_at_hello(&stream).await?.server_name;
    find(session, &snapshot, route::Protocol::Tls)?;
    drop(snapshot);
    let passes = session
        .route
        .as_ref()
        .is_some_and(|route| route.plan.protocols.contains(Protocol::TlsPassthrough));
    if passes {
        return carry(session, Channel::Plain(stream)).await;
    }
    let (stream, facts, _) = acceptor
        .accept(stream)
        .await
        .map_err(|error| Closing::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let _ = session.connection.tls.set(facts);
    carry(session, Channel::Tls(Box::new(stream))).await
}

async fn look_at_hello(stream: &TcpStream) -> Result<Hello, Closing> {
    let judge = |bytes: &[u8]| hello::parse(bytes).transpose();
    let bad = |cause: String| Closing::new(StatusCode::BAD_REQUEST, cause);
    look(stream, HELLO_BYTES_MAX, HELLO_TIMEOUT, judge)
        .await
        .map_err(|unseen| bad(format!("no TLS ClientHello: {unseen}")))?
        .map_err(|malformed| bad(malformed.to_string()))
}

/// Finds the session's route; without one the global instances see how it ends.
fn find(
    session: &mut Session,
    snapshot: &Snapshot,
    protocol: route::Protocol,
) -> Result<(), Closing> {
    let name = session.server_name.as_deref();
    let router = &snapshot.stream_router;
    session.route = lookup(router, snapshot, &session.connection, name, protocol);
    if session.route.is_some() {
        return Ok(());
    }
    collect(session, &snapshot.global_stream_pipeline);
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Err(Closing::new(status, "no route takes this connection"))
}

fn lookup(
    router: &Router,
    snapshot: &Snapshot,
    connection: &Connection,
    server_name: Option<&str>,
    protocol: route::Protocol,
) -> Option<Arc<Route>> {
    let input = MatchInput {
        protocol,
        method: "",
        host: "",
        path: b"",
        query: b"",
        headers: (&*NO_HEADERS).into(),
        header_count_max: 0,
        query_count_max: 0,
        sni: server_name,
        source: Some(connection.peer),
        destination: Some(connection.local),
        listening_port: connection.port,
        entrance: None,
    };
    let found = router.find(&input)?;
    snapshot.routes.at(found.slot).map(Arc::clone)
}

fn collect(session: &mut Session, pipeline: &Pipeline) {
    for step in &pipeline.steps {
        if let Some(instance) = step.choose(&session.identity) {
            session.chosen.push(Arc::clone(instance));
        }
    }
}

/// From a routed session to its end.
async fn carry(session: &mut Session, mut client: Channel) -> Result<(), Closing> {
    let Some(route) = session.route.clone() else {
        return Ok(());
    };
    preread(session, &route.pipeline).await?;
    let Some(forward) = &route.forward else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Closing::new(status, "the route leads to no service"));
    };
    let mut upstream = connect::connect(session, &route, forward).await?;
    session.connected = Some(Instant::now());
    let patience = Patience {
        idle: Duration::from_millis(forward.plan.read_timeout_ms.into()),
        stuck: Duration::from_millis(forward.plan.write_timeout_ms.into()),
    };
    let mut carried = Carried::default();
    let ended = copy::run(&mut client, &mut upstream.channel, patience, &mut carried).await;
    (session.received, session.sent) = (carried.to_upstream, carried.to_client);
    if let Err(broken) = ended {
        // Not the gateway's failure, and neither side can be told.
        tracing::debug!(client = %session.connection.peer, "stream ended: {broken}");
    }
    Ok(())
}

/// Runs the preread phase, choosing each instance when its turn comes.
async fn preread(session: &mut Session, pipeline: &Pipeline) -> Result<(), Closing> {
    let mut outcome = Ok(());
    for step in &pipeline.steps {
        let Some(instance) = step.choose(&session.identity) else {
            continue;
        };
        let instance = Arc::clone(instance);
        // Chosen even after an early end: the log phase runs for it all the same.
        session.chosen.push(Arc::clone(&instance));
        if outcome.is_ok()
            && instance.phases.has(Phases::PREREAD)
            && let Verdict::Close(closing) = instance.plugin.preread(session).await
        {
            outcome = Err(closing);
        }
    }
    outcome
}

impl Side for Channel {
    fn is_bare(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}
