//! What is written down.

use std::path::PathBuf;

use super::key::{choice, keys};
use super::value::{Raw, Value};

keys! {
    /// What is written down.
    pub struct LoggingSettings {
        /// The least level of events that are logged. Levels above `error` are told as errors.
        log_level: LogLevel = "notice" => reloads();
        /// Where each proxied request leaves a line. Relative paths are taken from `prefix`; `reload`
        /// opens the file anew.
        proxy_access_log: LogTarget = "logs/access.log";
        /// Where the events of the program are written besides standard error. Relative paths are taken from `prefix`.
        proxy_error_log: LogTarget = "logs/error.log";
        /// The form of lines of the access log: nginx's `combined`, or the JSON object of Kong's log plugins.
        access_log_format: AccessLogFormat = "combined" => reloads();
    }
}

choice! {
    /// Levels of log events, most talkative first. Kong: `log_level`.
    pub enum LogLevel {
        /// For developers of the program.
        Debug = "debug",
        /// What happens in the normal course.
        Info = "info",
        /// What an operator wants to know: starts, stops, changes.
        Notice = "notice",
        /// Something is odd.
        Warn = "warn",
        /// Something failed.
        Error = "error",
        /// As `error`.
        Crit = "crit",
        /// As `error`.
        Alert = "alert",
        /// As `error`.
        Emerg = "emerg",
    }
}

choice! {
    /// The form of lines of the access log.
    pub enum AccessLogFormat {
        /// nginx's combined form.
        Combined = "combined",
        /// The object that Kong's log plugins send.
        Json = "json",
    }
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output: `/dev/stdout`.
    Stdout,
    /// Standard error: `/dev/stderr`.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

impl Value for LogTarget {
    fn parse(raw: &Raw) -> Result<Self, String> {
        match raw.one()? {
            "off" => Ok(Self::Off),
            "/dev/stdout" => Ok(Self::Stdout),
            "/dev/stderr" => Ok(Self::Stderr),
            text if text.starts_with("syslog:") => {
                Err("'syslog:' is not supported by this version".to_owned())
            }
            text if text.contains(char::is_whitespace) => Err(format!(
                "'{text}': the form of the lines is set by 'access_log_format'"
            )),
            _ => PathBuf::parse(raw).map(Self::File),
        }
    }

    fn allowed() -> String {
        "`off`, `/dev/stdout`, `/dev/stderr`, or a path".to_owned()
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Off => "off".into(),
            Self::Stdout => "/dev/stdout".into(),
            Self::Stderr => "/dev/stderr".into(),
            Self::File(path) => path.json(),
        }
    }
}
