//! `MessageLogging`: writes a line to a syslog server or into a file.

use serde::{Deserialize, Serialize};

use super::texts::{place, template};
use super::{Callout, Parsed, PolicyReader};
use crate::dialects::apigee::bundle::{HttpTarget, read_tls};
use crate::dialects::apigee::date;
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// The port of syslog.
const PORT: u16 = 514;
/// Most megabytes after which a file is put aside.
const FILE_MEGABYTES_MAX: u64 = 1 << 20;
/// Most files that are kept.
const RETAINED_MAX: usize = 10_000;
/// Most units of time after which a file is put aside.
const FREQUENCY_MAX: u64 = 10_000;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub level: Level,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Syslog>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
}

/// How urgent a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    #[default]
    Info,
    Alert,
    Warn,
    Error,
}

/// `<Syslog>`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Syslog {
    /// A template.
    pub message: String,
    pub host: String,
    pub port: u16,
    pub protocol: Protocol,
    pub form: Form,
    /// How times are written, a Java pattern; none: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date_format: Option<String>,
}

/// How messages travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Udp,
    Tcp,
    /// TCP with TLS, whose settings are the policy's callout.
    Tls,
}

/// What stands before the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Facility and level alone.
    Priority,
    /// The whole header of RFC 5424.
    Header,
    /// Nothing.
    Bare,
}

/// `<File>`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// A template.
    pub message: String,
    /// A plain name.
    pub name: String,
    /// The file is put aside before it grows longer, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// The file is put aside when it is so old, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_max_seconds: Option<u64>,
    /// Files that are kept besides the one that is written; 0: all.
    #[serde(default)]
    pub retained: usize,
    /// What an earlier run of the gateway wrote is put aside.
    #[serde(default)]
    pub rotates_at_start: bool,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let levels = [
        ("INFO", Level::Info),
        ("ALERT", Level::Alert),
        ("WARN", Level::Warn),
        ("ERROR", Level::Error),
    ];
    let level = fields.choice("logLevel", &levels, findings);
    let holds = fields.boolean("BufferMessage", false, findings);
    fields.refuse(
        "CloudLogging",
        "lines go to syslog servers and files, use <Syslog> or <File>",
        findings,
    );
    let mut callout = None;
    let syslog = fields.child("Syslog", findings);
    let file = fields.child("File", findings);
    let place = fields.place();
    let config = Config {
        level: level.unwrap_or_default(),
        syslog: syslog.and_then(|element| read_syslog(element, &mut callout, findings)),
        file: file.and_then(|element| read_file(element, findings)),
    };
    if syslog.is_none() && file.is_none() {
        findings.error("missing-element", place, "needs <Syslog> or <File>");
        return None;
    }
    let mut parsed = reader.parsed(&config)?;
    parsed.callout = callout;
    parsed.holds_streams = holds;
    Some(parsed)
}

fn read_message(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<String> {
    let element = fields.child("Message", findings);
    let text = element.map(|element| template(&element.text(), element, findings));
    if text.is_none() {
        findings.error("missing-element", fields.place(), "needs <Message>");
    }
    text
}

fn read_syslog(
    element: Element<'_>,
    callout: &mut Option<Callout>,
    findings: &mut Findings,
) -> Option<Syslog> {
    let mut fields = Fields::new(element);
    let message = read_message(&mut fields, findings);
    let host = fields.filled_text("Host", findings);
    let host = host.map_or_else(|| "localhost".to_owned(), |host| host.into_owned());
    if host.contains(['{', '/', ' ']) || host.len() > 255 {
        let message = format!("must be a name or an address, not '{host}'");
        findings.error("invalid-value", place(element).about("<Host>"), message);
    }
    let port = match fields.filled_text("Port", findings) {
        None => PORT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .unwrap_or_else(|| {
                let message = format!("must be from 1 to 65535, not '{text}' (InvalidPort)");
                findings.error("invalid-value", place(element).about("<Port>"), message);
                PORT
            }),
    };
    let mut protocol = match fields.filled_text("Protocol", findings).as_deref() {
        None | Some("UDP") => Protocol::Udp,
        Some("TCP") => Protocol::Tcp,
        Some(other) => {
            let message = format!("must be TCP or UDP, not '{other}' (InvalidProtocol)");
            findings.error("invalid-value", place(element).about("<Protocol>"), message);
            Protocol::Udp
        }
    };
    let tls = fields.child("SSLInfo", findings).map(|element| {
        let info = read_tls(element, findings);
        (info, place(element))
    });
    if let Some((info, at)) = tls
        && info
            .enabled
            .as_deref()
            .is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
    {
        if protocol == Protocol::Udp {
            findings.error(
                "invalid-value",
                at.clone(),
                "needs <Protocol>TCP</Protocol>",
            );
        }
        if info.is_dynamic() {
            findings.error("tls", at, "must not hold variables in a log policy");
        }
        protocol = Protocol::Tls;
        let bracketed = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        *callout = Some(Callout::Http(Box::new(HttpTarget {
            url: Some(format!("https://{bracketed}:{port}")),
            tls: Some(info),
            ..HttpTarget::default()
        })));
    }
    let formats = fields.boolean("FormatMessage", false, findings);
    let bare = fields.boolean("PayloadOnly", false, findings);
    let date_format = fields.filled_text("DateFormat", findings);
    if let Some(pattern) = &date_format
        && date::format(pattern, 0).is_none()
    {
        let message = format!("'{pattern}' is no pattern of SimpleDateFormat");
        findings.error(
            "invalid-value",
            place(element).about("<DateFormat>"),
            message,
        );
    }
    fields.finish(findings);
    Some(Syslog {
        message: message?,
        host,
        port,
        protocol,
        form: match (bare, formats) {
            (true, _) => Form::Bare,
            (false, true) => Form::Header,
            (false, false) => Form::Priority,
        },
        date_format: date_format.map(|text| text.into_owned()),
    })
}

fn read_file(element: Element<'_>, findings: &mut Findings) -> Option<File> {
    let mut fields = Fields::new(element);
    let message = read_message(&mut fields, findings);
    let name = fields.required_text("FileName", findings);
    if let Some(name) = &name {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.chars().all(plain) || name.starts_with('.') || name.len() > 200 {
            let message = format!(
                "must be a plain name of letters, digits and . _ - that does not begin with a dot, not '{name}'"
            );
            findings.error("invalid-value", place(element).about("<FileName>"), message);
        }
    }
    let mut read = File {
        message: message.unwrap_or_default(),
        name: name?.into_owned(),
        bytes_max: None,
        age_max_seconds: None,
        retained: 0,
        rotates_at_start: false,
    };
    if let Some(element) = fields.child("FileRotationOptions", findings) {
        read_rotation(element, &mut read, findings);
    }
    fields.finish(findings);
    Some(read)
}

fn read_rotation(element: Element<'_>, read: &mut File, findings: &mut Findings) {
    let mut fields = Fields::new(element);
    read.rotates_at_start = fields.boolean_attribute("rotateFileOnStartup", false, findings);
    let kinds = [
        ("SIZE", (true, false)),
        ("TIME", (false, true)),
        ("TIME_SIZE", (true, true)),
    ];
    let (by_size, by_time) = fields
        .choice("FileRotationType", &kinds, findings)
        .unwrap_or((true, true));
    let megabytes = fields.number("MaxFileSizeInMB", 1..=FILE_MEGABYTES_MAX, findings);
    let retained = fields.number("MaxFilesToRetain", 0..=RETAINED_MAX, findings);
    read.retained = retained.unwrap_or(0);
    if let Some(element) = fields.child("RotationFrequency", findings) {
        let mut inner = Fields::new(element);
        let units = [("minute", 60), ("hour", 3_600), ("day", 86_400)];
        let unit: u64 = inner
            .choice_attribute("unit", &units, findings)
            .unwrap_or(86_400);
        inner.finish(findings);
        let text = element.text();
        let number = text.parse::<u64>().ok();
        match number.filter(|number| (1..=FREQUENCY_MAX).contains(number)) {
            Some(number) if by_time => read.age_max_seconds = Some(number * unit),
            Some(_) => {}
            None => {
                let message = format!("must be a number from 1 to {FREQUENCY_MAX}, not '{text}'");
                findings.error("invalid-value", place(element), message);
            }
        }
    }
    read.bytes_max = megabytes.filter(|_| by_size).map(|number| number << 20);
    if read.bytes_max.is_none() && read.age_max_seconds.is_none() && !read.rotates_at_start {
        let message = "says neither after what size nor after what time files are put aside";
        findings.warning("no-effect", place(element), message);
    }
    fields.finish(findings);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn reads_syslog_and_file() {
        let (config, findings, _) = read::<Config>(
            "<MessageLogging name='m'><Syslog><Message>{a}</Message><Host>logs.test</Host><Port>1514</Port>\
             <Protocol>TCP</Protocol><FormatMessage>true</FormatMessage><DateFormat>yyMMdd</DateFormat>\
             <SSLInfo><Enabled>true</Enabled></SSLInfo></Syslog>\
             <File><Message>b</Message><FileName>x.log</FileName>\
             <FileRotationOptions rotateFileOnStartup='true'><FileRotationType>TIME</FileRotationType>\
             <MaxFileSizeInMB>10</MaxFileSizeInMB><MaxFilesToRetain>5</MaxFilesToRetain>\
             <RotationFrequency unit='minute'>120</RotationFrequency></FileRotationOptions></File>\
             <logLevel>WARN</logLevel></MessageLogging>",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let config = config.unwrap();
        assert_eq!(config.level, Level::Warn);
        let syslog = config.syslog.unwrap();
        assert_eq!(
            (syslog.protocol, syslog.form),
            (Protocol::Tls, Form::Header)
        );
        assert_eq!((syslog.host.as_str(), syslog.port), ("logs.test", 1514));
        let file = config.file.unwrap();
        assert_eq!(
            (file.bytes_max, file.age_max_seconds, file.retained),
            (None, Some(7_200), 5)
        );
        assert!(file.rotates_at_start);
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for body in [
            "",
            "<Syslog/>",
            "<Syslog><Message>a</Message><Port>0</Port></Syslog>",
            "<Syslog><Message>a</Message><Protocol>SCTP</Protocol></Syslog>",
            "<Syslog><Message>a</Message><Host>{request.header.host}</Host></Syslog>",
            "<Syslog><Message>a</Message><SSLInfo><Enabled>true</Enabled></SSLInfo></Syslog>",
            "<File><Message>a</Message><FileName>../x</FileName></File>",
            "<File><Message>a</Message></File>",
            "<CloudLogging><LogName>x</LogName></CloudLogging><File><Message>a</Message><FileName>x</FileName></File>",
        ] {
            let xml = format!("<MessageLogging name='m'>{body}</MessageLogging>");
            let (_, findings, _) = read::<Config>(&xml);
            assert!(findings.iter().any(|one| one.is_error()), "{body}");
        }
    }
}
