//! `connect proxy`: its flags, in Consul's spelling too.

use std::ffi::OsString;

use anyhow::bail;
use clap::Args;

use super::Configured;
use crate::app::mesh::ProxyOf;
use crate::dialects::consul::answers::Upstream;
use crate::dialects::consul::flags::parse_upstream;
use crate::sources::consul::discovery::{ByHand, Naming};

/// Flags of `connect proxy`.
///
/// One of --sidecar-for, --proxy-id and --service says whose proxy it is. Consul's spelling with one dash is taken, too.
#[derive(Args)]
pub(super) struct ConnectProxy {
    #[command(flatten)]
    pub(super) configured: Configured,
    /// Id of the service whose only sidecar this is. Also CONNECT_SIDECAR_FOR.
    #[arg(long, value_name = "SERVICE-ID")]
    sidecar_for: Option<String>,
    /// Id of the proxy's own registration. Also CONNECT_PROXY_ID.
    #[arg(long, value_name = "ID")]
    proxy_id: Option<String>,
    /// Name of the service that this proxy stands for, without a registration.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// A way out: NAME:PORT, NAME:HOST:PORT or NAME.query:PORT. Repeatable; with --service.
    #[arg(long, value_name = "NAME:PORT")]
    upstream: Vec<String>,
    /// Where callers in the mesh connect; with --service.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where the application listens; with --listen.
    #[arg(long, value_name = "HOST:PORT")]
    service_addr: Option<String>,
    /// Register with the agent while running; with --service and --listen.
    #[arg(long)]
    register: bool,
    /// Makes the id of the registration different from that of another proxy of the service.
    #[arg(long, value_name = "ID")]
    register_id: Option<String>,
    /// The agent, instead of `consul_http_addr`.
    #[arg(long, value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// The ACL token, instead of `consul_token`. Others on this machine can read it.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// File with the ACL token, instead of `consul_token_file`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// Authorities of the agent's certificate, instead of `consul_cacert`.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// Folder of such files, instead of `consul_capath`.
    #[arg(long, value_name = "FOLDER")]
    ca_path: Option<String>,
    /// Certificate shown to the agent, instead of `consul_client_cert`.
    #[arg(long, value_name = "FILE")]
    client_cert: Option<String>,
    /// Its key, instead of `consul_client_key`.
    #[arg(long, value_name = "FILE")]
    client_key: Option<String>,
    /// Name in the agent's certificate, instead of `consul_tls_server_name`.
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Namespace (Enterprise), instead of `consul_namespace`.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Partition (Enterprise), instead of `consul_partition`.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// How much is logged, instead of `log_level`.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ConnectProxy {
    /// Whose proxy it is to be.
    pub(super) fn proxy_of(&self) -> anyhow::Result<ProxyOf> {
        let keys = [
            ("consul_http_addr", &self.http_addr),
            ("consul_token", &self.token),
            ("consul_token_file", &self.token_file),
            ("consul_cacert", &self.ca_file),
            ("consul_capath", &self.ca_path),
            ("consul_client_cert", &self.client_cert),
            ("consul_client_key", &self.client_key),
            ("consul_tls_server_name", &self.tls_server_name),
            ("consul_namespace", &self.namespace),
            ("consul_partition", &self.partition),
            ("log_level", &self.log_level),
        ];
        let mut overrides: Vec<(&'static str, String)> = keys
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)))
            .collect();
        for (key, value) in &mut overrides {
            // Consul's word for the level that nginx calls 'warn' is the same; these two differ.
            if *key == "log_level" {
                match value.to_ascii_lowercase().as_str() {
                    "trace" => *value = "debug".to_owned(),
                    "err" => *value = "error".to_owned(),
                    lower => *value = lower.to_owned(),
                }
            }
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let naming = self.naming(
            variable("CONNECT_PROXY_ID"),
            variable("CONNECT_SIDECAR_FOR"),
        )?;
        Ok(ProxyOf { naming, overrides })
    }

    fn naming(
        &self,
        proxy_id: Option<String>,
        sidecar_for: Option<String>,
    ) -> anyhow::Result<Naming> {
        let written = [
            self.proxy_id.is_some(),
            self.sidecar_for.is_some(),
            self.service.is_some(),
        ];
        if written.iter().filter(|written| **written).count() > 1 {
            bail!("--sidecar-for, --proxy-id and --service say the same, give one of them");
        }
        if let Some(service) = &self.service {
            return self.by_hand(service).map(Box::new).map(Naming::ByHand);
        }
        if !self.upstream.is_empty() || self.listen.is_some() || self.register {
            bail!("--upstream, --listen and --register count only with --service");
        }
        let written_id = self.proxy_id.clone();
        let written_service = self.sidecar_for.clone();
        let named = match (written_id, written_service, proxy_id, sidecar_for) {
            (Some(id), ..) => Naming::ProxyId(id),
            (None, Some(service), ..) => Naming::SidecarFor(service),
            (None, None, Some(id), _) => Naming::ProxyId(id),
            (None, None, None, Some(service)) => Naming::SidecarFor(service),
            (None, None, None, None) => {
                bail!(
                    "say whose proxy this is: --sidecar-for SERVICE-ID, --proxy-id ID or --service NAME"
                )
            }
        };
        Ok(named)
    }

    fn by_hand(&self, service: &str) -> anyhow::Result<ByHand> {
        let address = |flag: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match parse_address(text) {
                Some(address) => Ok(Some(address)),
                None => bail!("--{flag}: '{text}' is not HOST:PORT"),
            },
        };
        let listen = address("listen", &self.listen)?;
        let application = address("service-addr", &self.service_addr)?;
        if listen.is_some() != application.is_some() {
            bail!("--listen and --service-addr count only together");
        }
        if self.register && listen.is_none() {
            bail!("--register needs --service and --listen");
        }
        let mut upstreams: Vec<Upstream> = Vec::new();
        for text in &self.upstream {
            match parse_upstream(text) {
                Ok(upstream) => upstreams.push(upstream),
                Err(what) => bail!("--upstream: {what}"),
            }
        }
        Ok(ByHand {
            service: service.to_owned(),
            listen,
            application,
            upstreams,
            register: self.register,
            register_id: self.register_id.clone(),
        })
    }
}

/// `HOST:PORT`, where the host may be missing.
fn parse_address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.trim_matches(['[', ']']) {
        "" => "0.0.0.0",
        host => host,
    };
    Some((host.to_owned(), port))
}

/// Arguments of `connect proxy` with the dashes that this program's other commands have.
pub(super) fn two_dashes(
    arguments: impl Iterator<Item = OsString>,
) -> impl Iterator<Item = OsString> {
    let mut place = 0;
    let mut is_connect = false;
    arguments.map(move |argument| {
        let at = place;
        place += 1;
        let Some(text) = argument.to_str() else {
            return argument;
        };
        if at == 1 {
            is_connect = text == "connect";
        }
        let is_long = text.len() > 2 && text.starts_with('-') && !text.starts_with("--");
        // `-c FILE` and `-p FOLDER` are ours; what is written together with its value has a slash or a dot.
        let name = text
            .trim_start_matches('-')
            .split('=')
            .next()
            .unwrap_or_default();
        let is_name = name.len() > 2 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        match is_connect && at > 2 && is_long && is_name {
            true => OsString::from(format!("-{text}")),
            false => argument,
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        proxy: ConnectProxy,
    }

    fn naming(flags: &[&str]) -> Result<Naming, String> {
        let line = ["sallyport", "connect", "proxy"].iter().chain(flags);
        let arguments = two_dashes(line.map(OsString::from)).skip(2);
        let flags = Flags::try_parse_from(arguments).map_err(|error| error.to_string())?;
        flags
            .proxy
            .naming(None, None)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn one_dash_and_two_mean_the_same() {
        for flag in ["-sidecar-for", "--sidecar-for"] {
            assert_eq!(
                naming(&[flag, "web-1"]).unwrap(),
                Naming::SidecarFor("web-1".to_owned())
            );
        }
        assert_eq!(
            naming(&["-proxy-id=web-proxy", "-http-addr", "127.0.0.1:1"]).unwrap(),
            Naming::ProxyId("web-proxy".to_owned())
        );
        let by_hand = naming(&[
            "-service",
            "web",
            "-listen",
            ":8443",
            "-service-addr",
            "127.0.0.1:80",
            "-upstream",
            "db:9191",
            "-upstream",
            "cache:9192",
            "-register",
            "-register-id",
            "two",
        ]);
        let Ok(Naming::ByHand(by_hand)) = by_hand else {
            unreachable!()
        };
        assert_eq!(by_hand.id(), "web-proxy-two");
        assert_eq!(by_hand.listen, Some(("0.0.0.0".to_owned(), 8443)));
        assert_eq!(by_hand.upstreams.len(), 2);
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (flags, told) in [
            (vec![], "say whose proxy this is"),
            (
                vec!["-sidecar-for", "a", "-service", "b"],
                "give one of them",
            ),
            (
                vec!["-sidecar-for", "a", "-upstream", "b:1"],
                "only with --service",
            ),
            (vec!["-service", "a", "-listen", ":1"], "only together"),
            (vec!["-service", "a", "-register"], "--register needs"),
            (
                vec!["-service", "a", "-upstream", "b"],
                "is not an upstream",
            ),
            (
                vec!["-service", "a", "-listen", "x", "-service-addr", ":1"],
                "is not HOST:PORT",
            ),
        ] {
            let refused = naming(&flags).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
    }
}
