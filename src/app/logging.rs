//! The program's own log: text on a terminal, JSON lines otherwise, and a copy in `proxy_error_log`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::node::LogLevels;
use crate::settings::Settings;
use crate::settings::logging::{LogLevel, LogTarget};

/// Target of events of the level that Kong calls `notice`: more than `info`, less than a warning.
pub(crate) const NOTICE: &str = "sallyport::notice";
/// Target of events that are written at every level: scripts wait for them.
pub(crate) const ALWAYS: &str = "sallyport::always";

/// Changes the log of the running process.
pub(crate) struct Logging {
    filter: reload::Handle<Targets, Registry>,
    level: Mutex<LogLevel>,
    file: Option<LogFile>,
}

impl Logging {
    /// Begins to log. May be called once in a process.
    pub(crate) fn start(settings: &Settings) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(targets(settings.logging.log_level));
        let prefix = &settings.general.prefix;
        let file = match &settings.logging.proxy_error_log {
            LogTarget::File(path) => Some(LogFile::open(prefix, path)?),
            LogTarget::Off | LogTarget::Stderr | LogTarget::Stdout => None,
        };
        // Never coloured: files and pipes are read by programs.
        let copy = file.clone().map(|file| {
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(file)
        });
        let stdout = (settings.logging.proxy_error_log == LogTarget::Stdout).then(|| {
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(std::io::stdout)
        });
        let stderr = if std::io::stderr().is_terminal() {
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .boxed()
        } else {
            tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(std::io::stderr)
                .boxed()
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(stderr)
            .with(copy)
            .with(stdout)
            .try_init()
            .context("the log cannot be started")?;
        // A task that panics takes nothing else along; its message belongs in the log like any other.
        std::panic::set_hook(Box::new(|panic| tracing::error!(target: ALWAYS, "{panic}")));
        Ok(Self {
            filter: handle,
            level: Mutex::new(settings.logging.log_level),
            file,
        })
    }

    /// The level in force.
    pub(crate) fn level(&self) -> LogLevel {
        *self.level.lock()
    }

    /// Sets the level.
    pub(crate) fn set_level(&self, level: LogLevel) -> anyhow::Result<()> {
        let mut current = self.level.lock();
        self.filter
            .reload(targets(level))
            .context("the log level cannot be changed")?;
        *current = level;
        Ok(())
    }

    /// Takes a new level, and opens the file anew: a log rotator may have moved it.
    pub(crate) fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        self.set_level(settings.logging.log_level)?;
        if let Some(file) = &self.file {
            *file.file.lock() = open(&file.path)?;
        }
        Ok(())
    }
}

impl LogLevels for Arc<Logging> {
    fn level(&self) -> String {
        Logging::level(self).word().to_owned()
    }

    fn set(&self, level: &str) -> Result<(), String> {
        let level =
            LogLevel::from_word(level).ok_or_else(|| format!("unknown log level: {level}"))?;
        self.set_level(level).map_err(|error| format!("{error:#}"))
    }
}

fn targets(level: LogLevel) -> Targets {
    let (general, notice) = match level {
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::INFO),
        LogLevel::Notice => (LevelFilter::WARN, LevelFilter::INFO),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Error | LogLevel::Crit | LogLevel::Alert | LogLevel::Emerg => {
            (LevelFilter::ERROR, LevelFilter::ERROR)
        }
    };
    // What clients and upstreams do wrong is in the access log; Pingora would tell it a second time.
    let engine = if level == LogLevel::Debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::ERROR
    };
    Targets::new()
        .with_default(general)
        .with_target(NOTICE, notice)
        .with_target(ALWAYS, LevelFilter::INFO)
        .with_target("pingora_core", engine)
        // Says "error" while it waits; how a hand-over ends is told by this program.
        .with_target("pingora_core::server::transfer_fd", LevelFilter::OFF)
        .with_target("pingora_proxy", engine)
        .with_target("h2", engine)
        .with_target("hickory_proto", engine)
        .with_target("hickory_resolver", engine)
}

/// A log file that can be opened anew while it is written to.
#[derive(Clone)]
struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(prefix: &Path, path: &Path) -> anyhow::Result<Self> {
        let path = prefix.join(path);
        let file = open(&path)?;
        Ok(Self {
            path,
            file: Arc::new(Mutex::new(file)),
        })
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{}: the log cannot be opened", path.display()))
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            file: Arc::clone(&self.file),
        }
    }
}

/// Writes one line.
struct Line {
    file: Arc<Mutex<File>>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.lock().flush()
    }
}
