//! `sallyport start`: the life of an instance from reading its configuration to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::administration::Administration;
use super::gateway::Gateway;
use super::hand_over::{self, Released, Successor};
use super::instance::{Answer, Ask, ControlSocket, Progress, Question};
use super::listeners::{self, Inherited, Keepsakes, Role};
use super::logging::{ALWAYS, Logging, NOTICE};
use super::mesh::{Mesh, ProxyOf};
use super::threads::{self, ProxyThreads};
use super::{configuration, documents, process};
use crate::admin::node::{BoundListener, ListenerRole, Node};
use crate::cli::Configured;
use crate::engine::{Ending, Engine};
use crate::settings::Settings;
use crate::sources::consul::edge::EdgeListen;

/// Threads for everything but proxying: Admin API, DNS, signals.
const CONTROL_THREADS: usize = 2;
/// How long cut connections may hold up the end.
const RUNTIME_END_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs an instance until it is told to end.
pub(crate) fn run(configured: &Configured, upgrade: bool) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    run_with(configured, settings, upgrade, None)
}

/// Runs an instance with these settings. `proxy_of` makes it a proxy in the mesh and nothing else.
pub(crate) fn run_with(
    configured: &Configured,
    settings: Settings,
    upgrade: bool,
    proxy_of: Option<ProxyOf>,
) -> anyhow::Result<()> {
    let prefix = settings.general.prefix.clone();
    process::make_prefix(&prefix)?;
    let _lock = if upgrade {
        None
    } else {
        Some(process::Lock::take(&prefix, false)?)
    };
    let logging = Arc::new(Logging::start(&settings)?);
    let open_files = match process::raise_open_files() {
        Ok(limit) => {
            tracing::info!(limit, "open files");
            Some(limit)
        }
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            None
        }
    };
    let mut inherited = if upgrade {
        Inherited::receive(&prefix)?
    } else {
        Inherited::default()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = settings.general.workers.count(cores);
    let control = threads::several("control", CONTROL_THREADS)?;
    let proxy = ProxyThreads::start(workers)?;

    let gateway = {
        let _entered = control.enter();
        Gateway::assemble(settings, Arc::clone(&logging), upgrade, control.handle())?
    };
    let mut keepsakes = Keepsakes::default();
    let mut bound = Vec::new();
    let engine = bind_proxy(
        &gateway,
        &mut inherited,
        &mut keepsakes,
        &mut bound,
        workers,
        open_files,
    )?;
    let administration =
        Administration::bind(&gateway, &mut inherited, &mut keepsakes, &mut bound)?;
    gateway.node.listens_on(bound);
    let for_mesh = listeners_for_mesh(&gateway.settings, &mut inherited);
    for name in inherited.left() {
        tracing::warn!("{name}: no longer configured, closed");
    }
    drop(inherited);

    let mesh = {
        let _entered = control.enter();
        match proxy_of {
            Some(proxy_of) => Some(Mesh::start(
                &gateway,
                engine.doors(proxy.handle().clone()),
                proxy_of,
            )?),
            None => Mesh::start_edge(&gateway, engine.doors(proxy.handle().clone()), for_mesh)?,
        }
    };
    let instance = Instance {
        mesh,
        configured: configured.clone(),
        prefix,
        drain: gateway.settings.general.graceful_shutdown_timeout.0,
        gateway,
        logging,
        administration,
        keepsakes: Arc::new(keepsakes),
    };
    let gateway = control.block_on(instance.live(engine, &proxy, upgrade))?;
    proxy.stop(RUNTIME_END_TIMEOUT);
    gateway.finish();
    control.shutdown_timeout(RUNTIME_END_TIMEOUT);
    tracing::info!(target: NOTICE, "ended");
    Ok(())
}

/// The listeners for callers in the mesh, each with the socket that a predecessor had.
fn listeners_for_mesh(settings: &Settings, inherited: &mut Inherited) -> Vec<EdgeListen> {
    let all = settings.listen.proxy_listen.all.iter();
    let for_mesh: Vec<_> = all.filter(|one| one.connect).cloned().collect();
    let names = listeners::names(Role::Mesh, &for_mesh);
    let with_socket = for_mesh.into_iter().zip(names);
    with_socket
        .map(|(listen, name)| EdgeListen::new(listen, inherited.take(&name)))
        .collect()
}

fn bind_proxy(
    gateway: &Gateway,
    inherited: &mut Inherited,
    keepsakes: &mut Keepsakes,
    listeners_bound: &mut Vec<BoundListener>,
    workers: usize,
    open_files: Option<u64>,
) -> anyhow::Result<Engine> {
    let requests = &gateway.settings.listen.proxy_listen.all;
    // Those for the mesh are opened when there is a certificate to show.
    let ordinary = requests.iter().filter(|one| !one.connect);
    let requests: &Vec<_> = &ordinary.cloned().collect();
    let streams = &gateway.settings.listen.stream_listen.all;
    let for_requests = listeners::proxy_listeners(Role::Proxy, requests, inherited)?;
    let for_streams = listeners::proxy_listeners(Role::Stream, streams, inherited)?;
    let engine = gateway.engine(for_requests, for_streams, workers, open_files)?;
    for (role, configured, bound) in [
        (Role::Proxy, requests, engine.bound()),
        (Role::Stream, streams, engine.stream_bound()),
    ] {
        for (bound, name) in bound.iter().zip(listeners::names(role, configured)) {
            listeners_bound.push(listeners::bound(role, &bound.listen, bound.local));
            keepsakes.keep(name, bound)?;
        }
    }
    Ok(engine)
}

/// A running instance.
struct Instance {
    /// Present when it is a proxy in the mesh and nothing else.
    mesh: Option<Mesh>,
    configured: Configured,
    prefix: PathBuf,
    /// The longest that requests in flight are waited for.
    drain: Duration,
    gateway: Gateway,
    logging: Arc<Logging>,
    administration: Administration,
    keepsakes: Arc<Keepsakes>,
}

/// How an instance ends.
enum End {
    /// After the requests in flight.
    Drain,
    /// After the requests in flight, as a successor serves.
    Succeeded,
    /// At once.
    Now,
}

/// The signals that an instance heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one that ends the instance.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Instance {
    async fn live(
        mut self,
        engine: Engine,
        proxy: &ProxyThreads,
        upgrade: bool,
    ) -> anyhow::Result<Gateway> {
        let mut signals = Signals::listen()?;
        self.gateway.serves().await?;
        let (ending, told) = watch::channel(None);
        let mut engine = proxy.handle().spawn(engine.run(told, self.drain));
        self.administration.serve()?;
        let expiry = tokio::spawn(Gateway::remove_expired(Arc::downgrade(
            &self.gateway.control,
        )));
        if upgrade {
            hand_over::tell_predecessor(&self.prefix).await;
            // What it stored after this instance had loaded is read now, and the store is this instance's.
            if let Err(error) = self.gateway.control.refresh().await {
                tracing::error!(%error, "the store cannot be taken over yet");
            }
            own_prefix_after(self.prefix.clone())?;
        }
        let (mut socket, mut questions) = ControlSocket::open(&self.prefix)?;
        let _pid_file = process::PidFile::write(&self.prefix)?;
        let listeners = self.listeners();
        let tell_ready = move |more: String| {
            tracing::info!(target: ALWAYS, "ready: {listeners}{more}");
            let pid = sd_notify::NotifyState::MainPid(std::process::id());
            process::notify(&[pid, sd_notify::NotifyState::Ready]);
        };
        match &mut self.mesh {
            Some(mesh) => mesh.when_ready(tell_ready),
            None => tell_ready(String::new()),
        }

        let end = self
            .serve(&mut signals, &mut questions, &mut engine)
            .await?;
        if let Some(mesh) = self.mesh.take() {
            mesh.leave().await;
        }
        tracing::info!(target: NOTICE, in_flight = self.in_flight(), "ending");
        expiry.abort();
        let how = match end {
            End::Succeeded => {
                socket.keep_file();
                Ending::HandOver
            }
            End::Drain | End::Now => {
                // Not after a hand-over: the service manager follows the successor then.
                process::notify(&[sd_notify::NotifyState::Stopping]);
                Ending::Stop
            }
        };
        self.gateway.node.drain();
        // From here on nobody queues up behind a socket that nobody accepts from.
        self.keepsakes = Arc::default();
        ending.send_replace(Some(how));
        if !matches!(end, End::Now) {
            drained(&mut engine, &mut signals, &mut questions).await;
        }
        self.administration.pause().await;
        Ok(self.gateway)
    }

    /// Serves until it is time to end.
    async fn serve(
        &mut self,
        signals: &mut Signals,
        questions: &mut mpsc::Receiver<Question>,
        engine: &mut JoinHandle<()>,
    ) -> anyhow::Result<End> {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(End::Drain),
                _ = signals.interrupt.recv() => return Ok(End::Drain),
                _ = signals.quit.recv() => {
                    match self.hand_over(None, questions, hand_over::WAITING_TIMEOUT).await {
                        Ok(()) => return Ok(End::Succeeded),
                        Err(error) => tracing::error!("the hand-over failed: {error:#}"),
                    }
                }
                _ = signals.hang_up.recv() => {
                    if let Err(error) = self.reload() {
                        tracing::error!("the configuration cannot be reloaded, the old one stays: {}", one_line(&error));
                    }
                }
                Some(question) = questions.recv() => {
                    if let Some(end) = self.answer(question, questions).await {
                        return Ok(end);
                    }
                }
                ended = &mut *engine => {
                    ended.context("the engine failed")?;
                    return Ok(End::Now);
                }
            }
        }
    }

    async fn answer(
        &mut self,
        question: Question,
        questions: &mut mpsc::Receiver<Question>,
    ) -> Option<End> {
        let Question {
            ask,
            progress,
            reply,
        } = question;
        let (answer, end) = match ask {
            Ask::Health => (self.health(), None),
            Ask::Reload => match self.reload() {
                Ok(()) => (Answer::done("reloaded"), None),
                Err(error) => (Answer::refused(format!("{error:#}")), None),
            },
            Ask::Stop => (Answer::done("ending"), Some(End::Drain)),
            Ask::StopNow => (Answer::done("ending"), Some(End::Now)),
            Ask::Upgrade {
                program,
                arguments,
                timeout,
            } => {
                match self
                    .hand_over(Some(Successor { program, arguments }), questions, timeout)
                    .await
                {
                    Ok(()) => (Answer::done("the successor serves"), Some(End::Succeeded)),
                    Err(error) => (Answer::refused(format!("{error:#}")), None),
                }
            }
            Ask::Import { name, file } => {
                self.import(name, file, progress, reply);
                return None;
            }
            Ask::SuccessorServes { .. } => (Answer::refused("no upgrade is under way"), None),
        };
        // Whoever asked may be gone.
        let _ = reply.send(answer);
        end
    }

    /// Imports on a thread of its own: a large document takes seconds.
    fn import(
        &self,
        name: String,
        file: PathBuf,
        progress: mpsc::Sender<Progress>,
        reply: tokio::sync::oneshot::Sender<Answer>,
    ) {
        if self.gateway.admin.is_db_less() {
            let _ = reply.send(Answer::refused(
                "database: 'off' has no store to import into",
            ));
            return;
        }
        let (control, reading) = (
            Arc::clone(&self.gateway.control),
            Arc::clone(&self.gateway.reading),
        );
        tokio::task::spawn_blocking(move || {
            let show: documents::Progress = Arc::new(move |parts, of| {
                // What finds the channel full is dropped: the next report says more.
                let _ = progress.try_send(Progress { parts, of });
            });
            let imported = documents::read_file(&file)
                .and_then(|text| documents::import_into(&control, &reading, &name, &text, &show));
            let answer =
                imported.map_or_else(|error| Answer::refused(format!("{error:#}")), Answer::done);
            let _ = reply.send(answer);
        });
    }

    /// Reads the configuration again and takes over what can change.
    fn reload(&mut self) -> anyhow::Result<()> {
        let (mut settings, warnings) = configuration::read(&self.configured)?;
        if let Some(mesh) = &self.mesh {
            mesh.adapt(&mut settings);
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        // Reads files and may build everything anew.
        tokio::task::block_in_place(|| self.gateway.reload(settings, &self.logging))?;
        tracing::info!(target: NOTICE, "the configuration was reloaded");
        Ok(())
    }

    /// Hands all sockets over; afterwards the store is released and this instance only drains.
    async fn hand_over(
        &mut self,
        successor: Option<Successor>,
        questions: &mut mpsc::Receiver<Question>,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.mesh.as_ref().is_none_or(|mesh| !mesh.is_proxy()),
            "a proxy in the mesh does not hand over: start another one beside it and stop this one"
        );
        if let Some(mesh) = &self.mesh {
            self.keepsakes
                .keep_passing(mesh.sockets(&self.gateway.settings)?);
        }
        self.administration.pause().await;
        let handed = match tokio::task::block_in_place(|| self.gateway.leave_document()) {
            Ok(()) => {
                hand_over::hand_over(&self.prefix, &self.keepsakes, successor, questions, timeout)
                    .await
            }
            Err(error) => Err(error),
        };
        match handed {
            Ok(released) => {
                self.release(released).await;
                Ok(())
            }
            Err(error) => {
                self.administration.serve()?;
                Err(error)
            }
        }
    }

    async fn release(&self, released: Released) {
        let control = Arc::clone(&self.gateway.control);
        // The successor commits from now on.
        let _ = tokio::task::spawn_blocking(move || control.stop()).await;
        let _ = released.send(Answer::done("released"));
    }

    fn health(&self) -> Answer {
        let revision = self.gateway.revision();
        match self.gateway.node.readiness() {
            Ok(()) => Answer::done(format!(
                "sallyport serves revision {revision}: {}",
                self.listeners()
            )),
            Err(reason) => Answer::refused(format!("does not serve: {reason}")),
        }
    }

    fn in_flight(&self) -> u64 {
        self.gateway.node.traffic().connections_writing
    }

    /// The addresses really bound, by setting.
    fn listeners(&self) -> String {
        let all = self.gateway.node.listeners();
        let roles = [
            (ListenerRole::Proxy, Role::Proxy),
            (ListenerRole::Stream, Role::Stream),
            (ListenerRole::Admin, Role::Admin),
            (ListenerRole::Status, Role::Status),
            (ListenerRole::Page, Role::Page),
        ];
        let mut parts = Vec::new();
        for (shown, role) in roles {
            let of_role = all.iter().filter(|listener| listener.role == shown);
            let addresses: Vec<String> = of_role
                .map(|listener| {
                    let mut text = listener.address.to_string();
                    for flag in ["http2", "ssl"] {
                        if listener
                            .flags
                            .get(flag)
                            .and_then(serde_json::Value::as_bool)
                            == Some(true)
                        {
                            text.push(' ');
                            text.push_str(flag);
                        }
                    }
                    text
                })
                .collect();
            if !addresses.is_empty() {
                parts.push(format!("{} {}", role.setting(), addresses.join(", ")));
            }
        }
        parts.join("; ")
    }
}

/// Waits until the engine has drained, or somebody loses patience.
async fn drained(
    engine: &mut JoinHandle<()>,
    signals: &mut Signals,
    questions: &mut mpsc::Receiver<Question>,
) {
    loop {
        tokio::select! {
            ended = &mut *engine => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the engine failed");
                }
                return;
            }
            () = signals.end() => {
                tracing::warn!("told to end a second time, requests in flight are cut off");
                return;
            }
            Some(question) = questions.recv() => match question.ask {
                Ask::StopNow => {
                    let _ = question.reply.send(Answer::done("ending"));
                    tracing::warn!("told to end at once, requests in flight are cut off");
                    return;
                }
                Ask::Stop => drop(question.reply.send(Answer::done("ending"))),
                _ => drop(question.reply.send(Answer::refused("the instance is ending"))),
            },
        }
    }
}

/// Waits on a thread of its own until the predecessor ends, and then keeps others out of the prefix.
fn own_prefix_after(prefix: PathBuf) -> anyhow::Result<()> {
    let wait = move || match process::Lock::take(&prefix, true) {
        // Held until the process ends, whereupon the kernel releases it.
        Ok(lock) => std::mem::forget(lock),
        Err(error) => tracing::warn!("{error:#}"),
    };
    std::thread::Builder::new()
        .name("prefix-lock".to_owned())
        .spawn(wait)
        .context("no threads can be started")?;
    Ok(())
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', "; ")
}
