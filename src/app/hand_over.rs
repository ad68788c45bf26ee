//! How an instance passes its listening sockets to a successor, without a moment in which nobody listens.
//!
//! ```text
//! running instance                            successor (`start --upgrade`)
//! pause the Admin interface
//! start the successor, or know that it waits ──▶ wait for sockets
//! send all listening sockets ──────────────────▶ adopt them, read the store, build
//! go on proxying                                accept
//! release the store, drain, end ◀── "I serve" ── then own the store and the prefix
//! ```
//!
//! Both accept from the same sockets for a while, so no connection is refused. When the successor does not say in time
//! that it serves, the instance takes the Admin interface up again and goes on as before.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::instance::{self, Answer, Ask, Question};
use super::listeners::Keepsakes;

/// How long a successor may take that nobody gave a time: one that waits already, told of by a signal.
pub(crate) const WAITING_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the successor's process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the predecessor may take to hear that its successor serves.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(15);

/// A successor to be started.
pub(crate) struct Successor {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
}

/// What the successor is answered when everything it needs is released.
pub(crate) type Released = tokio::sync::oneshot::Sender<Answer>;

/// Starts the successor, if it is not waiting already, sends it the sockets and waits until it serves.
///
/// On success returns where the successor waits for word that the store is released. On failure the successor has been
/// ended.
pub(crate) async fn hand_over(
    prefix: &Path,
    keepsakes: &Arc<Keepsakes>,
    successor: Option<Successor>,
    questions: &mut mpsc::Receiver<Question>,
    timeout: Duration,
) -> anyhow::Result<Released> {
    let deadline = Instant::now() + timeout;
    let mut child = successor.map(|successor| start(&successor)).transpose()?;
    let handed = async {
        send(prefix, keepsakes, &mut child).await?;
        wait(questions, &mut child, deadline).await
    }
    .await;
    if handed.is_err()
        && let Some(mut child) = child
    {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    handed
}

fn start(successor: &Successor) -> anyhow::Result<Child> {
    use std::os::unix::process::CommandExt;
    Command::new(&successor.program)
        .args(&successor.arguments)
        .stdin(Stdio::null())
        // Out of the reach of the terminal that may end this one.
        .process_group(0)
        .spawn()
        .with_context(|| format!("{}: cannot be started", successor.program.display()))
}

async fn send(
    prefix: &Path,
    keepsakes: &Arc<Keepsakes>,
    child: &mut Option<Child>,
) -> anyhow::Result<()> {
    let (prefix, keepsakes) = (prefix.to_owned(), Arc::clone(keepsakes));
    let mut sending = tokio::task::spawn_blocking(move || keepsakes.send(&prefix));
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            sent = &mut sending => return sent.context("the hand-over ended early")?,
            _ = looks.tick() => check_alive(child)?,
        }
    }
}

/// Fails when the successor has ended.
fn check_alive(child: &mut Option<Child>) -> anyhow::Result<()> {
    let Some(child) = child else { return Ok(()) };
    match child
        .try_wait()
        .context("the successor cannot be watched")?
    {
        None => Ok(()),
        Some(status) => {
            bail!("the successor ended ({status}), its messages are in the log of this instance")
        }
    }
}

async fn wait(
    questions: &mut mpsc::Receiver<Question>,
    child: &mut Option<Child>,
    deadline: Instant,
) -> anyhow::Result<Released> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            Some(question) = questions.recv() => match question.ask {
                Ask::SuccessorServes { pid } => {
                    tracing::info!(target: super::logging::NOTICE, pid, "the successor serves");
                    return Ok(question.reply);
                }
                // Whoever asked may be gone.
                Ask::Health => drop(question.reply.send(Answer::done("serves, and waits for its successor"))),
                _ => drop(question.reply.send(Answer::refused("an upgrade is under way, try again"))),
            },
            _ = looks.tick() => check_alive(child)?,
            () = tokio::time::sleep_until(deadline) => bail!("the successor was not ready in time"),
        }
    }
}

/// Tells the predecessor that this process serves, and waits until it has released the store.
pub(crate) async fn tell_predecessor(prefix: &Path) {
    let prefix = prefix.to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let question = Ask::SuccessorServes {
            pid: std::process::id(),
        };
        instance::ask(&prefix, &question, PREDECESSOR_TIMEOUT)
    });
    match told.await {
        Ok(Ok(answer)) if answer.done => {}
        Ok(Ok(answer)) => tracing::warn!("the predecessor goes on: {}", answer.message),
        Ok(Err(error)) => tracing::warn!("the predecessor cannot be told: {error:#}"),
        Err(error) => tracing::warn!(%error, "the predecessor cannot be told"),
    }
}
