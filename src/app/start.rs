//! `sallyport start`: the life of an instance from reading its configuration to its end.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::instance::{Answer, Ask, ControlSocket, Question};
use super::logging::{ALWAYS, Logging, NOTICE};
use super::{configuration, process};
use crate::cli::Configured;
use crate::settings::Settings;

/// Runs an instance until it is told to end.
pub(crate) fn run(configured: &Configured, upgrade: bool) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    process::make_prefix(&settings.general.prefix)?;
    let _lock = if upgrade {
        None
    } else {
        Some(process::Lock::take(&settings.general.prefix, false)?)
    };
    let logging = Logging::start(&settings)?;
    match process::raise_open_files() {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit on open files cannot be raised"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("control")
        .build()
        .context("no threads can be started")?;
    let ended = runtime.block_on(live(configured, settings, logging));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn live(configured: &Configured, settings: Settings, logging: Logging) -> anyhow::Result<()> {
    let prefix = settings.general.prefix.clone();
    let (_socket, mut questions) = ControlSocket::open(&prefix)?;
    let _pid_file = process::PidFile::write(&prefix)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    process::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(target: ALWAYS, "ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                let _ = reload(configured, &logging);
            }
            Some(question) = questions.recv() => {
                if answer(configured, &logging, question) {
                    break;
                }
            }
        }
    }
    process::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!(target: NOTICE, "ending");
    Ok(())
}

/// Answers a question; true when the instance is to end.
fn answer(configured: &Configured, logging: &Logging, question: Question) -> bool {
    let (answer, end) = match question.ask {
        Ask::Health => (Answer::done("serves"), false),
        Ask::Reload => match reload(configured, logging) {
            Ok(()) => (Answer::done("reloaded"), false),
            Err(error) => (Answer::refused(format!("{error:#}")), false),
        },
        Ask::Stop | Ask::StopNow => (Answer::done("ending"), true),
        Ask::Upgrade { .. } | Ask::SuccessorServes { .. } | Ask::Import { .. } => {
            (Answer::refused("nothing to hand over"), false)
        }
    };
    // Whoever asked may be gone.
    let _ = question.reply.send(answer);
    end
}

fn reload(configured: &Configured, logging: &Logging) -> anyhow::Result<()> {
    let settings = configuration::load(configured)?;
    logging.reload(&settings)
}
