//! `MessageLogging`: a line for a syslog server or a file. Nothing waits: lines are queued, and lost ones are counted.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::date;
use crate::dialects::apigee::policies::message_logging::{
    Config, File, Form, Level, Protocol, Syslog,
};
use crate::dialects::apigee::program::Way;
use crate::dialects::apigee::template::Template;
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;
use crate::plugins::shared::datagram_sender::DatagramSender;
use crate::plugins::shared::line_sender::{LineSender, Place};
use crate::plugins::shared::log_rotation::Rotation;
use crate::plugins::shared::log_writer::LogWriter;
use crate::runtime::live::Live;
use crate::runtime::resolver::Resolver;
use crate::runtime::upstream_tls::UpstreamTls;

/// Longest message; the rest of longer ones is cut off.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// For connecting to a syslog server, and for each write to it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without messages is kept.
const KEEP: Duration = Duration::from_secs(60);
/// The facility `user`, as part of the priority.
const FACILITY: u8 = 1 << 3;
/// Below the instance's prefix.
const FOLDER: &str = "logs/messagelogging";

struct MessageLogging {
    severity: u8,
    syslog: Option<ToSyslog>,
    file: Option<ToFile>,
}

struct ToSyslog {
    message: Template,
    plan: Syslog,
    hostname: String,
    way: Wire,
}

enum Wire {
    Datagrams(Arc<DatagramSender>),
    Lines(Arc<LineSender>),
    Sealed(Box<Sealed>),
}

/// Lines over TLS. Its settings are those of a forward, which a new certificate replaces.
struct Sealed {
    forward: uuid::Uuid,
    live: Arc<Live>,
    resolver: Arc<Resolver>,
    sender: Mutex<Option<(Arc<UpstreamTls>, Arc<LineSender>)>>,
}

struct ToFile {
    message: Template,
    path: Arc<Path>,
    rotation: Arc<Rotation>,
    writer: Arc<Option<LogWriter>>,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let severity = match config.level {
        Level::Alert => 1,
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
    };
    let syslog = config.syslog.map(|plan| link_syslog(link, plan));
    let file = config.file.map(|plan| link_file(link, &plan));
    Ok(Box::new(MessageLogging {
        severity,
        syslog: syslog.transpose()?,
        file: file.transpose()?,
    }))
}

fn template(text: &str) -> Result<Template, String> {
    Template::parse(text).map_err(|error| error.to_string())
}

fn place(
    plan: &Syslog,
    tls: Option<(Arc<UpstreamTls>, String)>,
    resolver: &Arc<Resolver>,
) -> Place {
    Place::new(&plan.host, plan.port, tls, TIMEOUT, KEEP, resolver)
}

fn link_syslog(link: &PolicyLink<'_>, plan: Syslog) -> Result<ToSyslog, String> {
    let (live, resolver) = (link.context.live, link.context.resolver);
    let to = format!("{}:{}", plan.host, plan.port);
    let way = match plan.protocol {
        Protocol::Udp => {
            let sender = live.try_keep(format!("syslog udp {to}"), || {
                DatagramSender::open(&plan.host, plan.port, resolver)
            });
            Wire::Datagrams(
                sender.map_err(|error| format!("the system refuses a socket: {error}"))?,
            )
        }
        Protocol::Tcp => {
            let sender = live.try_keep(format!("syslog tcp {to}"), || {
                LineSender::start(place(&plan, None, resolver))
            });
            Wire::Lines(sender.map_err(|error| format!("the system refuses a thread: {error}"))?)
        }
        Protocol::Tls => {
            let Some(Way::Http(way)) = link.callout else {
                return Err("its TLS settings are missing".to_owned());
            };
            Wire::Sealed(Box::new(Sealed {
                forward: way.forward,
                live: Arc::clone(live),
                resolver: Arc::clone(resolver),
                sender: Mutex::new(None),
            }))
        }
    };
    let hostname = live.node().hostname();
    Ok(ToSyslog {
        message: template(&plan.message)?,
        hostname: if hostname.is_empty() { "-" } else { hostname }.to_owned(),
        plan,
        way,
    })
}

fn link_file(link: &PolicyLink<'_>, plan: &File) -> Result<ToFile, String> {
    let live = link.context.live;
    let writer = live.keep("file-log", || LogWriter::start().ok());
    if writer.is_none() {
        return Err("the system refuses a thread for writing".to_owned());
    }
    let own = link.place;
    let revision = own.revision.to_string();
    let below = [
        &own.organization,
        &own.environment,
        &own.proxy,
        &revision,
        link.name,
        &plan.name,
    ];
    let mut path = link.context.prefix.join(FOLDER);
    for part in below {
        let mut components = Path::new(part).components();
        match (components.next(), components.next()) {
            (Some(Component::Normal(_)), None) => path.push(part),
            _ => return Err(format!("'{part}' cannot be part of the path of a log file")),
        }
    }
    let path: Arc<Path> = path.into();
    let rotation = live.keep(format!("log rotation {} {plan:?}", path.display()), || {
        Rotation {
            bytes_max: plan.bytes_max,
            age_max: plan.age_max_seconds.map(Duration::from_secs),
            retained: plan.retained,
            at_start: plan.rotates_at_start,
            ..Rotation::default()
        }
    });
    Ok(ToFile {
        message: template(&plan.message)?,
        path,
        rotation,
        writer,
    })
}

/// A message as one line, not too long.
fn line(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
        text.truncate(end);
    }
    // What clients send must not look like further lines.
    match text.contains(['\n', '\r', '\0']) {
        true => text.replace(['\n', '\r', '\0'], " "),
        false => text,
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// What stands before a message for a syslog server.
fn head(plan: &Syslog, severity: u8, hostname: &str, now_ms: i64) -> String {
    let priority = FACILITY | severity;
    match plan.form {
        Form::Bare => String::new(),
        Form::Priority => format!("<{priority}>"),
        Form::Header => {
            let pattern = plan.date_format.as_deref();
            let pattern = pattern.unwrap_or("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'");
            let time = date::format(pattern, now_ms).unwrap_or_else(|| "-".to_owned());
            format!("<{priority}>1 {time} {hostname} sallyport - - - ")
        }
    }
}

impl ToSyslog {
    fn send(&self, scope: &Scope, severity: u8) {
        let mut text = head(&self.plan, severity, &self.hostname, now_ms());
        text.push_str(&line(scope.fill(&self.message)));
        match &self.way {
            Wire::Datagrams(sender) => sender.send(text.as_bytes()),
            Wire::Lines(sender) => {
                text.push('\n');
                sender.send(text.into_bytes());
            }
            Wire::Sealed(sealed) => {
                if let Some(sender) = sealed.sender(scope, &self.plan) {
                    text.push('\n');
                    sender.send(text.into_bytes());
                }
            }
        }
    }
}

impl Sealed {
    /// The sender with the TLS settings of the moment.
    fn sender(&self, scope: &Scope, plan: &Syslog) -> Option<Arc<LineSender>> {
        let forward = scope.inbound.snapshot.forwards.get(&self.forward)?;
        let tls = forward.tls.as_ref()?;
        let mut kept = self.sender.lock();
        if let Some((known, sender)) = &*kept
            && Arc::ptr_eq(known, tls)
        {
            return Some(Arc::clone(sender));
        }
        let key = format!("syslog tls {}:{} {}", plan.host, plan.port, tls.identity());
        let sender = self.live.try_keep(key, || {
            let tls = Some((Arc::clone(tls), plan.host.clone()));
            LineSender::start(place(plan, tls, &self.resolver))
        });
        let sender = sender
            .inspect_err(|error| tracing::error!(%error, "the system refuses a thread for a log"))
            .ok()?;
        let old = kept.replace((Arc::clone(tls), Arc::clone(&sender)));
        drop(kept);
        if let Some(old) = old {
            // Its last user waits until what is queued is sent.
            tokio::task::spawn_blocking(move || drop(old));
        }
        Some(sender)
    }
}

impl Policy for MessageLogging {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        if let Some(syslog) = &self.syslog {
            syslog.send(flow.scope, self.severity);
        }
        if let Some(file) = &self.file
            && let Some(writer) = &*file.writer
        {
            let mut text = line(flow.scope.fill(&file.message)).into_bytes();
            text.push(b'\n');
            writer.append_rotating(&file.path, &file.rotation, text);
        }
        Ok(Next::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_three_forms() {
        let plan = |form, date_format: Option<&str>| Syslog {
            message: String::new(),
            host: String::new(),
            port: 514,
            protocol: Protocol::Udp,
            form,
            date_format: date_format.map(str::to_owned),
        };
        for (plan, severity, expected) in [
            (plan(Form::Bare, None), 6, ""),
            (plan(Form::Priority, None), 6, "<14>"),
            (plan(Form::Priority, None), 1, "<9>"),
            (
                plan(Form::Header, None),
                3,
                "<11>1 1970-01-01T00:00:00.007Z h sallyport - - - ",
            ),
            (
                plan(Form::Header, Some("yyMMdd-HH:mm:ss.SSS")),
                4,
                "<12>1 700101-00:00:00.007 h sallyport - - - ",
            ),
        ] {
            assert_eq!(head(&plan, severity, "h", 7), expected);
        }
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(line("a\r\nb\0c".to_owned()), "a  b c");
        let long = line("é".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(long.len(), MESSAGE_BYTES_MAX);
    }
}
