//! How the agent is reached: keys of the configuration, and where they are silent the standard `CONSUL_*` variables.

use std::path::{Path, PathBuf};

use super::address::AgentAddress;
use crate::base::secret::Secret;
use crate::settings::Settings;

/// Longest token or certificate file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files of `CONSUL_CAPATH` that are read.
const AUTHORITY_FILES_MAX: usize = 256;

/// Everything about reaching the agent.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    pub address: AgentAddress,
    /// What was configured directly.
    pub token: Option<Secret>,
    /// Wins over what the environment names, and is read again when the agent refuses a token.
    pub token_file: Option<PathBuf>,
    /// `user:password` for a proxy in front of the agent.
    pub auth: Option<Secret>,
    pub tls: AgentTls,
    /// Enterprise; none is the agent's own.
    pub namespace: Option<String>,
    /// Enterprise; none is the agent's own.
    pub partition: Option<String>,
}

/// TLS towards the agent, which has nothing to do with the mesh.
#[derive(Debug, Clone)]
pub struct AgentTls {
    pub verify: bool,
    /// PEM; empty for the system's.
    pub authorities: Vec<String>,
    /// Certificate and key, PEM.
    pub client: Option<(String, Secret)>,
    pub server_name: Option<String>,
}

impl Default for AgentTls {
    fn default() -> Self {
        Self {
            verify: true,
            authorities: Vec::new(),
            client: None,
            server_name: None,
        }
    }
}

impl AgentOptions {
    /// Reads the options, with the files that they name. All that is wrong is told at once.
    ///
    /// `environment` holds every variable of the process.
    pub fn read(
        settings: &Settings,
        environment: &[(String, String)],
    ) -> Result<Self, Vec<String>> {
        let keys = &settings.consul;
        let mut wrong = Vec::new();
        let variable = |name: &str| {
            environment
                .iter()
                .find(|(known, value)| known == name && !value.is_empty())
                .map(|(_, value)| value.clone())
        };
        let path = |key: &Option<PathBuf>, name: &str| {
            key.clone().or_else(|| variable(name).map(PathBuf::from))
        };
        let text = |key: &Option<String>, name: &str| key.clone().or_else(|| variable(name));
        let mut address = match text(&keys.consul_http_addr, "CONSUL_HTTP_ADDR") {
            None => AgentAddress::default(),
            Some(text) => AgentAddress::parse(&text).unwrap_or_else(|what| {
                wrong.push(format!("consul_http_addr: {what}"));
                AgentAddress::default()
            }),
        };
        let by_variable = |name: &str| {
            let value = variable(name)?;
            let switch = go_boolean(&value);
            if switch.is_none() {
                tracing::warn!("{name}: '{value}' is not a switch, it does not count");
            }
            switch
        };
        let ssl = keys.consul_ssl.or_else(|| by_variable("CONSUL_HTTP_SSL"));
        if let AgentAddress::Tcp { secure, .. } = &mut address
            && ssl == Some(true)
        {
            *secure = true;
        }
        let verify = keys
            .consul_ssl_verify
            .or_else(|| by_variable("CONSUL_HTTP_SSL_VERIFY"));
        let token_file = path(&keys.consul_token_file, "CONSUL_HTTP_TOKEN_FILE")
            .filter(|_| keys.consul_token.is_none());
        let mut token = text(&keys.consul_token, "CONSUL_HTTP_TOKEN").map(Secret::new);
        if let Some(file) = &token_file {
            match read_token(file) {
                Ok(read) => token = read,
                Err(what) => wrong.push(format!("consul_token_file: {what}")),
            }
        }
        let mut read = |key: &str, path: Option<PathBuf>| {
            path.and_then(|path| match read_text(&path) {
                Ok(text) => Some(text),
                Err(what) => {
                    wrong.push(format!("{key}: {what}"));
                    None
                }
            })
        };
        let mut authorities: Vec<String> = Vec::new();
        authorities.extend(read(
            "consul_cacert",
            path(&keys.consul_cacert, "CONSUL_CACERT"),
        ));
        let certificate = read(
            "consul_client_cert",
            path(&keys.consul_client_cert, "CONSUL_CLIENT_CERT"),
        );
        let key = read(
            "consul_client_key",
            path(&keys.consul_client_key, "CONSUL_CLIENT_KEY"),
        );
        if let Some(folder) = path(&keys.consul_capath, "CONSUL_CAPATH") {
            match read_folder(&folder) {
                Ok(all) => authorities.extend(all),
                Err(what) => wrong.push(format!("consul_capath: {what}")),
            }
        }
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, Secret::new(key))),
            (None, None) => None,
            _ => {
                wrong.push(
                    "consul_client_cert: counts only together with 'consul_client_key'".to_owned(),
                );
                None
            }
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            address,
            token,
            token_file,
            auth: text(&keys.consul_http_auth, "CONSUL_HTTP_AUTH").map(Secret::new),
            tls: AgentTls {
                verify: verify.unwrap_or(true),
                authorities,
                client,
                server_name: text(&keys.consul_tls_server_name, "CONSUL_TLS_SERVER_NAME"),
            },
            namespace: text(&keys.consul_namespace, "CONSUL_NAMESPACE"),
            partition: text(&keys.consul_partition, "CONSUL_PARTITION"),
        })
    }
}

/// The token of a file, without the white space around it; none if nothing is left.
pub(super) fn read_token(file: &Path) -> Result<Option<Secret>, String> {
    let text = read_text(file)?;
    let token = text.trim();
    Ok((!token.is_empty()).then(|| Secret::new(token)))
}

fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read;

    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(text)
}

fn read_folder(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| format!("{} cannot be read: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .take(AUTHORITY_FILES_MAX)
        .collect();
    files.sort();
    files.iter().map(|file| read_text(file)).collect()
}

/// What Go takes for a switch.
fn go_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::settings::{Document, Form};

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<AgentOptions, Vec<String>> {
        let document = Document {
            name: "s.toml",
            form: Form::Toml,
            text,
        };
        let settings = Settings::parse(Some(document), &[]).unwrap().0;
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        AgentOptions::read(&settings, &environment)
    }

    #[test]
    fn keys_win_over_variables() {
        let variables = [
            ("CONSUL_HTTP_ADDR", "10.0.0.1:8500"),
            ("CONSUL_HTTP_TOKEN", "from-variable"),
            ("CONSUL_HTTP_SSL", "t"),
            ("CONSUL_NAMESPACE", "team"),
        ];
        let options = read("", &variables).unwrap();
        assert_eq!(options.address.to_string(), "https://10.0.0.1:8500");
        assert_eq!(options.token.unwrap().expose(), "from-variable");
        assert_eq!(options.namespace.as_deref(), Some("team"));
        let keys =
            "consul_http_addr = \"127.0.0.1:1\"\nconsul_token = \"own\"\nconsul_ssl = \"off\"\n";
        let options = read(keys, &variables).unwrap();
        assert_eq!(options.address.to_string(), "http://127.0.0.1:1");
        assert_eq!(options.token.unwrap().expose(), "own");
        let options = read("", &[]).unwrap();
        assert_eq!(options.address, AgentAddress::default());
        assert!(options.tls.verify);
    }

    #[test]
    fn the_file_of_the_token_wins_over_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, " from-file\n").unwrap();
        let variables = [
            ("CONSUL_HTTP_TOKEN", "from-variable"),
            ("CONSUL_HTTP_TOKEN_FILE", file.to_str().unwrap()),
        ];
        let token = read("", &variables).unwrap().token.unwrap();
        assert_eq!(token.expose(), "from-file");
        let wrong = read(
            "consul_http_addr = \"ftp://x\"\n",
            &[
                ("CONSUL_HTTP_TOKEN_FILE", "/nowhere/token"),
                ("CONSUL_CLIENT_CERT", "/nowhere/c"),
            ],
        );
        assert_eq!(wrong.unwrap_err().len(), 3);
    }
}
