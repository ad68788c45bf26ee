//! Settings of an instance: text in, typed values or diagnostics out.
//!
//! Owns every configuration key: names, defaults, units, allowed values, the two file forms, the environment, and the
//! report of `GET /`. Refuses to do I/O: files are read, and paths opened, by `app`. Keys have the names and meanings of
//! kong.conf. One file holds one group of keys; [`key`] explains how one is declared. Start at [`Settings::parse`].

pub mod administration;
pub mod apigee;
mod checks;
pub mod consul;
pub mod dns;
mod document;
mod foreign;
pub mod general;
pub mod key;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod manual;
pub mod proxying;
mod read;
pub mod suggest;
pub mod testing;
pub mod tls;
pub mod value;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

pub use self::document::Form;
pub use self::read::{ENVIRONMENT_PREFIX, KONG_ENVIRONMENT_PREFIX, KONG_ENVIRONMENT_SWITCH};

use self::administration::AdministrationSettings;
use self::apigee::ApigeeSettings;
use self::consul::ConsulSettings;
use self::dns::DnsSettings;
use self::general::GeneralSettings;
use self::key::Key;
use self::limits::LimitSettings;
use self::listen::ListenSettings;
use self::logging::LoggingSettings;
use self::proxying::ProxyingSettings;
use self::read::Reader;
use self::testing::TestingSettings;
use self::tls::TlsSettings;
use crate::base::diagnostic::{self, Diagnostic};
use crate::base::source_ref::SourceRef;

/// All settings of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The instance as a whole.
    pub general: GeneralSettings,
    /// Where it listens.
    pub listen: ListenSettings,
    /// What the proxy adds, believes and answers.
    pub proxying: ProxyingSettings,
    /// Limits and connection reuse.
    pub limits: LimitSettings,
    /// TLS.
    pub tls: TlsSettings,
    /// Resolving of names.
    pub dns: DnsSettings,
    /// Logs.
    pub logging: LoggingSettings,
    /// Who may administer.
    pub administration: AdministrationSettings,
    /// Apigee.
    pub apigee: ApigeeSettings,
    /// The Consul agent.
    pub consul: ConsulSettings,
    /// Switches for tests.
    pub testing: TestingSettings,
    origins: BTreeMap<&'static str, SourceRef>,
}

/// A group of keys, for the manual.
pub struct Group {
    /// Its heading.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// Every key, by group, in the order of the manual.
pub const GROUPS: &[Group] = &[
    Group {
        title: "The instance",
        keys: GeneralSettings::KEYS,
    },
    Group {
        title: "Listeners",
        keys: ListenSettings::KEYS,
    },
    Group {
        title: "Proxying",
        keys: ProxyingSettings::KEYS,
    },
    Group {
        title: "Limits and connection reuse",
        keys: LimitSettings::KEYS,
    },
    Group {
        title: "TLS",
        keys: TlsSettings::KEYS,
    },
    Group {
        title: "Name resolution",
        keys: DnsSettings::KEYS,
    },
    Group {
        title: "Logs",
        keys: LoggingSettings::KEYS,
    },
    Group {
        title: "Administration",
        keys: AdministrationSettings::KEYS,
    },
    Group {
        title: "Apigee",
        keys: ApigeeSettings::KEYS,
    },
    Group {
        title: "Consul",
        keys: ConsulSettings::KEYS,
    },
    Group {
        title: "Tests",
        keys: TestingSettings::KEYS,
    },
];

/// Every key.
pub fn all_keys() -> impl Iterator<Item = &'static Key> {
    GROUPS.iter().flat_map(|group| group.keys)
}

/// A configuration file that has been read.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// Its name as the user wrote it, for diagnostics.
    pub name: &'a str,
    /// How it is to be read.
    pub form: Form,
    /// What it says.
    pub text: &'a str,
}

impl Settings {
    /// Reads the settings from a file and the environment.
    ///
    /// `environment` may hold every variable of the process; only `SALLYPORT_*`, and with `SALLYPORT_KONG_ENV=on`
    /// `KONG_*`, are looked at. Returns the settings with warnings, or everything that is wrong, warnings included.
    pub fn parse(
        document: Option<Document<'_>>,
        environment: &[(String, String)],
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let entries = document.map_or_else(Vec::new, |document| {
            document::parse_document(
                document.name,
                document.form,
                document.text,
                &mut diagnostics,
            )
        });
        let mut reader = Reader::new(entries, environment, diagnostics);
        let read = Self::read(&mut reader);
        let mut diagnostics = reader.diagnostics;
        match read {
            Some(settings) => {
                checks::check(&settings, &mut diagnostics);
                if diagnostic::has_errors(&diagnostics) {
                    Err(diagnostics)
                } else {
                    Ok((settings, diagnostics))
                }
            }
            None => Err(diagnostics),
        }
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        // Every group is read before any failure ends the matter: all mistakes are told at once.
        let general = GeneralSettings::read(reader);
        let listen = ListenSettings::read(reader);
        let proxying = ProxyingSettings::read(reader);
        let limits = LimitSettings::read(reader);
        let tls = TlsSettings::read(reader);
        let dns = DnsSettings::read(reader);
        let logging = LoggingSettings::read(reader);
        let administration = AdministrationSettings::read(reader);
        let apigee = ApigeeSettings::read(reader);
        let consul = ConsulSettings::read(reader);
        let testing = TestingSettings::read(reader);
        Some(Self {
            general: general?,
            listen: listen?,
            proxying: proxying?,
            limits: limits?,
            tls: tls?,
            dns: dns?,
            logging: logging?,
            administration: administration?,
            apigee: apigee?,
            consul: consul?,
            testing: testing?,
            origins: reader.origins(),
        })
    }

    /// The values of all keys, in the order of the manual, secrets as asterisks.
    fn values(&self) -> Vec<(&'static str, Json)> {
        let mut values = Vec::new();
        self.general.show(&mut values);
        self.listen.show(&mut values);
        self.proxying.show(&mut values);
        self.limits.show(&mut values);
        self.tls.show(&mut values);
        self.dns.show(&mut values);
        self.logging.show(&mut values);
        self.administration.show(&mut values);
        self.apigee.show(&mut values);
        self.consul.show(&mut values);
        self.testing.show(&mut values);
        for (name, value) in &mut values {
            if !value.is_null() && all_keys().any(|key| key.name == *name && key.secret) {
                *value = json!("******");
            }
        }
        values
    }

    /// The `configuration` object of `GET /` on the Admin API: every setting, listeners also in parts, secrets as
    /// asterisks. Kong: `configuration`.
    pub fn configuration(&self) -> Map<String, Json> {
        let mut values = self.values();
        foreign::show(&mut values);
        let mut configuration: Map<String, Json> = Map::new();
        for (name, value) in values {
            configuration.insert(name.to_owned(), value);
        }
        let listeners = [
            ("proxy_listeners", self.listen.proxy_listen.report()),
            ("admin_listeners", self.listen.admin_listen.report()),
            ("status_listeners", self.listen.status_listen.report()),
            ("admin_gui_listeners", self.listen.admin_gui_listen.report()),
            ("stream_listeners", self.listen.stream_listen.report()),
        ];
        for (name, value) in listeners {
            configuration.insert(name.to_owned(), value);
        }
        configuration
    }

    /// The keys whose values differ and that a running instance cannot take over: they count at the next start.
    pub fn changes_for_restart(&self, newer: &Self) -> Vec<&'static str> {
        let changed = self
            .values()
            .into_iter()
            .zip(newer.values())
            .filter(|(old, new)| old.1 != new.1);
        changed
            .map(|(old, _)| old.0)
            .filter(|name| !all_keys().any(|key| key.name == *name && key.reloadable))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;

    fn toml(text: &str) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
        with_environment(text, &[])
    }

    fn with_environment(
        text: &str,
        environment: &[(&str, &str)],
    ) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::parse(
            Some(Document {
                name: "s.toml",
                form: Form::Toml,
                text,
            }),
            &environment,
        )
    }

    fn errors(text: &str) -> Vec<String> {
        toml(text)
            .expect_err("refused")
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn defaults_serve() {
        let (settings, warnings) = Settings::parse(None, &[]).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(settings.listen.proxy_listen.all.len(), 2);
        assert_eq!(settings.general.prefix.to_str(), Some("./sallyport-data"));
        let configuration = settings.configuration();
        assert_eq!(configuration["database"], "embedded");
        assert_eq!(configuration["router_flavor"], "traditional_compatible");
        assert_eq!(configuration["proxy_listeners"][1]["ssl"], true);
        assert_eq!(configuration["stream_listeners"], json!([]));
    }

    #[test]
    fn keys_are_documented_and_named_once() {
        let mut names = std::collections::BTreeSet::new();
        for key in all_keys() {
            assert!(names.insert(key.name), "{} is declared twice", key.name);
            assert!(
                key.documentation.trim().ends_with('.'),
                "{} is not documented",
                key.name
            );
            for alias in key.aliases {
                assert!(names.insert(alias), "{alias} is declared twice");
            }
        }
        for name in foreign::names() {
            assert!(names.insert(name), "{name} is both ours and foreign");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_lines() {
        let told = errors(
            "proxy_lisen = \"off\"\nworkers = 0\nlog_level = \"loud\"\nstream_listen = \"0.0.0.0:1 udp\"\n",
        );
        assert_eq!(told.len(), 4, "{told:#?}");
        assert_eq!(
            told[0],
            "s.toml:1: proxy_lisen: unknown key 'proxy_lisen', did you mean 'proxy_listen'?"
        );
        assert!(
            told[1].starts_with("s.toml:2: workers: 0 is out of range, allowed: "),
            "{}",
            told[1]
        );
        assert!(
            told[2].starts_with("s.toml:4: stream_listen: flag 'udp' of 0.0.0.0:1: "),
            "{}",
            told[2]
        );
        assert!(
            told[3].starts_with("s.toml:3: log_level: 'loud' is not known, allowed: `debug`, "),
            "{}",
            told[3]
        );
    }

    #[test]
    fn environment_wins_and_kong_s_needs_a_switch() {
        let file = "prefix = \"/file\"\n";
        let prefix = |environment: &[(&str, &str)]| {
            with_environment(file, environment)
                .unwrap()
                .0
                .general
                .prefix
                .to_string_lossy()
                .into_owned()
        };
        assert_eq!(
            prefix(&[("SALLYPORT_PREFIX", "/own"), ("OTHER", "x")]),
            "/own"
        );
        assert_eq!(prefix(&[("KONG_PREFIX", "/kong")]), "/file");
        assert_eq!(
            prefix(&[("SALLYPORT_KONG_ENV", "on"), ("KONG_PREFIX", "/kong")]),
            "/kong"
        );
        let both = [
            ("SALLYPORT_KONG_ENV", "on"),
            ("KONG_PREFIX", "/kong"),
            ("SALLYPORT_PREFIX", "/own"),
        ];
        assert_eq!(prefix(&both), "/own");
        assert_eq!(prefix(&[("SALLYPORT_PREFIX", "")]), "/file");
    }

    #[test]
    fn unknown_variables_of_ours_are_errors_and_kong_s_are_warnings() {
        let told = with_environment("", &[("SALLYPORT_PREFIXX", "a")]).expect_err("refused");
        assert_eq!(
            told[0].to_string(),
            "environment variable SALLYPORT_PREFIXX: prefixx: unknown key 'prefixx', did you mean 'prefix'?"
        );
        let kong = [("SALLYPORT_KONG_ENV", "on"), ("KONG_VERSION", "3.9")];
        assert_eq!(with_environment("", &kong).unwrap().1.len(), 1);
    }

    #[test]
    fn keys_are_checked_against_each_other() {
        for (text, needle) in [
            (
                "admin_listen = \"0.0.0.0:8000\"",
                "0.0.0.0:8000 overlaps with 0.0.0.0:8000 of 'proxy_listen'",
            ),
            ("ssl_cert = \"a.pem\"", "has 0 members, 'ssl_cert' has 1"),
            ("client_ssl = true", "needs 'client_ssl_cert'"),
            (
                "ssl_ciphers = \"AES\"",
                "does not count with 'ssl_cipher_suite = intermediate'",
            ),
            ("admin_auth = \"basic\"", "'basic' needs 'admin_users'"),
            (
                "database = \"postgres\"",
                "'postgres': there is no SQL server",
            ),
        ] {
            let told = errors(text);
            assert!(
                told.iter().any(|line| line.contains(needle)),
                "{text}: {told:?}"
            );
        }
        let (_, warnings) =
            toml("admin_listen = \"0.0.0.0:8001\"\ndeclarative_config = \"kong.yml\"").unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let (settings, _) = toml("database = \"off\"\ndeclarative_config_string = \"{}\"").unwrap();
        assert_eq!(
            settings.configuration()["declarative_config_string"],
            "******"
        );
    }

    #[test]
    fn tells_what_a_reload_cannot_change() {
        let (old, _) = toml("").unwrap();
        let (new, _) = toml("log_level = \"debug\"\nworkers = 7").unwrap();
        assert_eq!(old.changes_for_restart(&new), ["workers"]);
    }
}
