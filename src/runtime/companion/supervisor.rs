//! The task that keeps one program running until nobody wants it any more.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};

use super::folder::Folder;
use super::output::{Stream, tell};
use super::{ProgramSpec, SOCKET_VARIABLE, State};

/// How often a program that starts is asked whether it listens.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After so long without listening that is told.
const STARTING_MAX: Duration = Duration::from_secs(30);
/// The pause before the first restart; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A program that ran for so long starts again with the first pause.
const STEADY: Duration = Duration::from_secs(60);
/// How long a program that is told to stop may take.
const STOPPING_MAX: Duration = Duration::from_secs(2);

/// Runs until `stopped` ends.
pub(super) async fn run(
    spec: ProgramSpec,
    state: watch::Sender<State>,
    mut stopped: oneshot::Receiver<()>,
) {
    let files = spec.files.clone();
    let made = tokio::task::spawn_blocking(move || Folder::make(&files)).await;
    let folder = match made {
        Ok(Ok(folder)) => folder,
        Ok(Err(error)) => {
            tracing::error!(program = spec.name, %error, "cannot be started, its folder cannot be made");
            return;
        }
        Err(_) => return,
    };
    let mut pause = PAUSE_FIRST;
    loop {
        let began = Instant::now();
        match serve(&spec, &folder, &state, &mut stopped).await {
            Ended::Wanted => break,
            Ended::Itself(status) => {
                tracing::warn!(program = spec.name, %status, "has ended and is started again");
            }
            Ended::Never(error) => {
                tracing::error!(program = spec.name, executable = spec.program, %error, "cannot be started");
            }
        }
        if began.elapsed() >= STEADY {
            pause = PAUSE_FIRST;
        }
        tokio::select! {
            _ = &mut stopped => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    let removed = tokio::task::spawn_blocking(move || drop(folder)).await;
    if removed.is_ok() {
        tracing::debug!(program = spec.name, "stopped");
    }
}

/// Why a program runs no more.
enum Ended {
    /// Nobody wants it.
    Wanted,
    Itself(ExitStatus),
    Never(std::io::Error),
}

async fn serve(
    spec: &ProgramSpec,
    folder: &Folder,
    state: &watch::Sender<State>,
    stopped: &mut oneshot::Receiver<()>,
) -> Ended {
    let socket = folder.socket();
    // A socket that nobody listens on would be in the way.
    let _ = std::fs::remove_file(&socket);
    let mut child = match start(spec, folder, &socket) {
        Ok(child) => child,
        Err(error) => return Ended::Never(error),
    };
    for (stream, pipe) in [
        (Stream::Output, child.stdout.take().map(Pipe::Output)),
        (Stream::Errors, child.stderr.take().map(Pipe::Errors)),
    ] {
        let name = spec.name.clone();
        match pipe {
            Some(Pipe::Output(pipe)) => drop(tokio::spawn(tell(name, stream, pipe))),
            Some(Pipe::Errors(pipe)) => drop(tokio::spawn(tell(name, stream, pipe))),
            None => {}
        }
    }
    // Waiting would close the program's input.
    let input = child.stdin.take();
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        never = watch_socket(spec, &socket, state) => match never {},
        _ = &mut *stopped => None,
    };
    state.send_replace(State::Starting);
    // This tells the program to end, if it has not.
    drop(input);
    match ended {
        Some(Ok(status)) => Ended::Itself(status),
        Some(Err(error)) => {
            stop(&mut child).await;
            Ended::Never(error)
        }
        None => {
            stop(&mut child).await;
            Ended::Wanted
        }
    }
}

/// One of the program's streams.
enum Pipe {
    Output(tokio::process::ChildStdout),
    Errors(tokio::process::ChildStderr),
}

fn start(spec: &ProgramSpec, folder: &Folder, socket: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.arguments)
        .current_dir(folder.path())
        .env_clear()
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .env(SOCKET_VARIABLE, socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Signals for the gateway's group, such as that of a terminal, are not for the program.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.spawn()
}

/// Tells when the program listens. Has no end.
async fn watch_socket(
    spec: &ProgramSpec,
    socket: &Arc<Path>,
    state: &watch::Sender<State>,
) -> std::convert::Infallible {
    let began = Instant::now();
    let mut told = false;
    while UnixStream::connect(socket).await.is_err() {
        if !told && began.elapsed() >= STARTING_MAX {
            told = true;
            tracing::warn!(
                program = spec.name,
                "has been running for {} s and does not listen",
                STARTING_MAX.as_secs()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    state.send_replace(State::Ready(Arc::clone(socket)));
    tracing::info!(program = spec.name, "listens");
    std::future::pending().await
}

/// Waits for a program that was told to end, and kills it when it does not.
async fn stop(child: &mut Child) {
    if tokio::time::timeout(STOPPING_MAX, child.wait())
        .await
        .is_err()
    {
        // It may have ended in the meantime.
        let _ = child.kill().await;
    }
}
