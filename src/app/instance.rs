//! Talking to the running instance of a prefix, and being talked to.
//!
//! An instance listens on a socket in its prefix, which only its own user can open. One JSON line asks, one answers.
//! The commands `reload`, `stop`, `quit`, `health` and `upgrade` are clients of it; a successor in an upgrade is another.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::failure::Answered;
use super::{configuration, files};
use crate::cli::Configured;

/// Name of the control socket in a prefix.
const SOCKET: &str = "control.sock";
/// The longest line that is read from the socket, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How long a command waits for an answer that the instance gives at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to say what it wants.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions that wait while another is answered.
const QUESTIONS_MAX: usize = 16;

/// What an instance can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Whether it serves.
    Health,
    /// To read its configuration again.
    Reload,
    /// To end after the requests in flight.
    Stop,
    /// To end now.
    StopNow,
    /// To start a successor and hand the listening sockets over; answered when the successor serves.
    Upgrade {
        /// The program of the successor.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// The longest to wait for it.
        timeout: Duration,
    },
    /// To import a declarative file into the store that it owns.
    Import {
        /// The file as its user named it, for messages.
        name: String,
        /// Where it is.
        file: PathBuf,
    },
    /// Said by a successor that serves: drain and end.
    SuccessorServes {
        /// Its process.
        pid: u32,
    },
}

/// What an instance answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whether what was asked was done.
    pub(crate) done: bool,
    /// For people.
    pub(crate) message: String,
    /// The process that answers.
    pub(crate) pid: u32,
}

impl Answer {
    /// It was done.
    pub(crate) fn done(message: impl Into<String>) -> Self {
        Self {
            done: true,
            message: message.into(),
            pid: std::process::id(),
        }
    }

    /// It was not done; the message says why.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            done: false,
            message: message.into(),
            pid: std::process::id(),
        }
    }
}

/// A question with the place for its answer.
pub(crate) struct Question {
    /// What is asked.
    pub(crate) ask: Ask,
    /// Takes how far the work is; what finds it full is dropped.
    pub(crate) progress: mpsc::Sender<Progress>,
    /// Takes the answer. Whoever asked may be gone.
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// How far a long answer is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Done so far.
    pub(crate) parts: usize,
    /// In all.
    pub(crate) of: usize,
}

/// A line of an answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Answer(Answer),
    Progress(Progress),
}

/// A folder under a name short enough for the address of a socket, however long its path is.
///
/// The address of a socket holds 107 bytes; the kernel's name for an open folder holds fewer than 30.
pub(crate) struct ShortFolder {
    folder: std::fs::File,
}

impl ShortFolder {
    /// Opens the folder.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let folder = std::fs::File::open(folder)
            .with_context(|| format!("{}: cannot be opened", folder.display()))?;
        Ok(Self { folder })
    }

    /// The short path of a file in it, good as long as this value lives.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }
}

/// Listens for questions until dropped.
pub(crate) struct ControlSocket {
    folder: ShortFolder,
    task: tokio::task::JoinHandle<()>,
    kept: bool,
}

impl ControlSocket {
    /// Begins to listen, in place of a predecessor's socket if there is one.
    pub(crate) fn open(prefix: &Path) -> anyhow::Result<(Self, mpsc::Receiver<Question>)> {
        let folder = ShortFolder::open(prefix)?;
        let fresh = format!("{SOCKET}.{}", std::process::id());
        let _ = std::fs::remove_file(folder.path(&fresh));
        let listener = UnixListener::bind(folder.path(&fresh))
            .with_context(|| format!("{}: cannot be made", prefix.join(SOCKET).display()))?;
        let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.path(&fresh), only_ours)?;
        std::fs::rename(folder.path(&fresh), folder.path(SOCKET))?;
        let (questions, received) = mpsc::channel(QUESTIONS_MAX);
        let task = tokio::spawn(accept(listener, questions));
        Ok((
            Self {
                folder,
                task,
                kept: false,
            },
            received,
        ))
    }

    /// Leaves the file where it is: a successor has put its own there.
    pub(crate) fn keep_file(&mut self) {
        self.kept = true;
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.task.abort();
        if !self.kept {
            let _ = std::fs::remove_file(self.folder.path(SOCKET));
        }
    }
}

async fn accept(listener: UnixListener, questions: mpsc::Sender<Question>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let questions = questions.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, questions).await {
                        tracing::debug!(%error, "a control connection failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, questions: mpsc::Sender<Question>) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(read.take(LINE_BYTES_MAX));
    tokio::time::timeout(QUESTION_TIMEOUT, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Ask>(&line) {
        Ok(ask) => {
            let (reply, mut answer) = oneshot::channel();
            let (progress, mut parts) = mpsc::channel(1);
            let ending = || Answer::refused("the instance is ending");
            if questions
                .send(Question {
                    ask,
                    progress,
                    reply,
                })
                .await
                .is_err()
            {
                ending()
            } else {
                loop {
                    tokio::select! {
                        answer = &mut answer => break answer.unwrap_or_else(|_| ending()),
                        Some(progress) = parts.recv() => say(&mut write, &progress).await?,
                    }
                }
            }
        }
        Err(error) => Answer::refused(format!("not understood: {error}")),
    };
    say(&mut write, &answer).await
}

async fn say(
    write: &mut (impl AsyncWriteExt + Unpin),
    line: &impl Serialize,
) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await?;
    Ok(())
}

/// Asks the instance of a prefix; an error says that none runs or that it did not answer in time.
pub(crate) fn ask(prefix: &Path, question: &Ask, timeout: Duration) -> anyhow::Result<Answer> {
    ask_watching(prefix, question, timeout, &|_, _| {})
}

/// As [`ask`], and hears how far the instance is: parts done, parts in all. The timeout is that between two reports.
pub(crate) fn ask_watching(
    prefix: &Path,
    question: &Ask,
    timeout: Duration,
    watch: &dyn Fn(usize, usize),
) -> anyhow::Result<Answer> {
    let not_running = || format!("{}: no instance runs with this prefix", prefix.display());
    let folder = ShortFolder::open(prefix).with_context(not_running)?;
    let mut stream =
        std::os::unix::net::UnixStream::connect(folder.path(SOCKET)).with_context(not_running)?;
    // A timeout of zero would mean none.
    stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    let mut line = serde_json::to_string(question)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        lines
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)
            .with_context(|| format!("{}: the instance does not answer", prefix.display()))?;
        let read = serde_json::from_str(&line)
            .with_context(|| format!("{}: the instance gave no answer", prefix.display()))?;
        match read {
            Line::Answer(answer) => return Ok(answer),
            Line::Progress(progress) => watch(progress.parts, progress.of),
        }
    }
}

fn ask_done(prefix: &Path, question: &Ask, timeout: Duration) -> anyhow::Result<Answer> {
    let answer = ask(prefix, question, timeout)?;
    if !answer.done {
        return Err(Answered(answer.message).into());
    }
    Ok(answer)
}

/// `sallyport health`: what the instance says of itself.
pub(crate) fn health(configured: &Configured) -> anyhow::Result<String> {
    let settings = configuration::load(configured)?;
    Ok(ask_done(&settings.general.prefix, &Ask::Health, ANSWER_TIMEOUT)?.message)
}

/// `sallyport reload`.
pub(crate) fn reload(configured: &Configured) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    // A declarative file of 100,000 routes takes a while.
    const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);
    ask_done(&settings.general.prefix, &Ask::Reload, RELOAD_TIMEOUT)?;
    Ok(())
}

/// `sallyport stop` and `quit`: ends the instance and waits for its end.
pub(crate) fn stop(configured: &Configured, timeout: Duration) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    let prefix = &settings.general.prefix;
    let pid = ask_done(prefix, &Ask::Stop, ANSWER_TIMEOUT)?.pid;
    if wait_for_end(pid, timeout) {
        return Ok(());
    }
    // It may have ended meanwhile, which is what was wanted.
    let _ = ask(prefix, &Ask::StopNow, ANSWER_TIMEOUT);
    if wait_for_end(pid, ANSWER_TIMEOUT) {
        Ok(())
    } else {
        bail!("{}: process {pid} does not end", prefix.display())
    }
}

/// `sallyport upgrade`: has the running instance start this very program as its successor.
pub(crate) fn upgrade(configured: &Configured, timeout: Duration) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    // What would keep the successor from starting is better told here than in the log of the instance.
    files::read(&settings, files::Missing::Leave)?;
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let mut arguments = vec!["start".to_owned(), "--upgrade".to_owned()];
    // The successor runs in the folder of the instance, which need not be this one.
    for (flag, path) in [("-c", &configured.file), ("-p", &configured.prefix)] {
        if let Some(path) = path {
            let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
            let path = path.into_os_string().into_string();
            arguments.push(flag.to_owned());
            arguments
                .push(path.map_err(|path| anyhow::anyhow!("{}: is not UTF-8", path.display()))?);
        }
    }
    let question = Ask::Upgrade {
        program,
        arguments,
        timeout,
    };
    ask_done(
        &settings.general.prefix,
        &question,
        timeout + ANSWER_TIMEOUT,
    )?;
    Ok(())
}

/// Whether a process ends in time.
fn wait_for_end(pid: u32, timeout: Duration) -> bool {
    const STEP: Duration = Duration::from_millis(20);
    let deadline = std::time::Instant::now() + timeout;
    loop {
        if !runs(pid) {
            return true;
        }
        if std::time::Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// Whether a process exists and is more than a remnant that its parent has not looked after.
fn runs(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may itself contain some.
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z')),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn questions_are_answered_over_long_paths() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("long".repeat(40));
        std::fs::create_dir(&prefix).unwrap();
        let (socket, mut questions) = ControlSocket::open(&prefix).unwrap();
        let asked = prefix.clone();
        let client = tokio::task::spawn_blocking(move || ask(&asked, &Ask::Health, ANSWER_TIMEOUT));
        let question = questions.recv().await.unwrap();
        assert_eq!(question.ask, Ask::Health);
        question
            .progress
            .send(Progress { parts: 1, of: 2 })
            .await
            .unwrap();
        question.reply.send(Answer::done("serves")).unwrap();
        assert_eq!(client.await.unwrap().unwrap().message, "serves");
        drop(socket);
        assert!(!prefix.join(SOCKET).exists());
    }

    #[test]
    fn without_an_instance_the_prefix_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let told = ask(folder.path(), &Ask::Health, ANSWER_TIMEOUT).unwrap_err();
        assert!(format!("{told:#}").contains("no instance runs with this prefix"));
        assert!(runs(std::process::id()));
        assert!(!runs(u32::MAX));
    }
}
