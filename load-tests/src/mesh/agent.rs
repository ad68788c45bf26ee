//! A real Consul agent on free ports, and orders to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::authority::{Authority, CLUSTER};
use crate::net;
use crate::process::{self, LOAD_CORE, Running};

/// How long an agent may take until it has a leader and roots.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long one order may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// The only agent of a datacenter, with its state in a folder. Ends when dropped.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    program: PathBuf,
    folder: PathBuf,
    running: Option<Running>,
}

/// How a proxy is registered, without health checks: it is there as long as the agent is.
pub(crate) struct Sidecar<'a> {
    /// Name of the service.
    pub(crate) service: &'a str,
    /// Its id; that of the proxy has `-proxy` behind it.
    pub(crate) id: &'a str,
    /// Where the application listens.
    pub(crate) application: SocketAddr,
    /// Where callers connect.
    pub(crate) public: SocketAddr,
    /// Keys of the proxy's configuration besides its address.
    pub(crate) config: Value,
    /// Names of services, where they are reached, and keys of that way out.
    pub(crate) upstreams: Vec<(&'a str, SocketAddr, Value)>,
}

/// The program: on PATH, or where `make test` puts it.
///
/// # Errors
/// Says how to get one.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PATH")
        && let Some(found) = std::env::split_paths(&path)
            .map(|folder| folder.join("consul"))
            .find(|candidate| candidate.is_file())
    {
        return Ok(found);
    }
    let own = std::env::current_exe().context("cannot find the folder of this program")?;
    let target = own.ancestors().nth(2).context("this program is nowhere")?;
    let program = target.join("consul/bin/consul");
    if !program.is_file() {
        bail!(
            "no {}: run scripts/get-consul with the folder above consul/, or put a consul (1.8 or newer) on PATH",
            program.display()
        );
    }
    Ok(program)
}

impl Agent {
    /// Starts an agent whose state is in `folder`, and waits until it answers.
    ///
    /// # Errors
    /// When there is no program, or it does not start.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let folder = folder.join("agent");
        fs::create_dir_all(&folder).context("cannot create the agent's folder")?;
        let authority = Authority::new()?;
        let [http, lan, wan, server] = net::free_addresses()?.map(|address| address.port());
        let configuration = json!({
            "disable_update_check": true,
            "server": true,
            "bootstrap_expect": 1,
            "data_dir": folder.join("data"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "log_level": "warn",
            "performance": {"raft_multiplier": 1},
            "ports": {"http": http, "dns": -1, "grpc": -1, "serf_lan": lan, "serf_wan": wan, "server": server},
            "connect": {"enabled": true, "ca_config": {
                "cluster_id": CLUSTER, "private_key": authority.key, "root_cert": authority.certificate,
            }},
        });
        fs::write(folder.join("agent.json"), configuration.to_string())?;
        let mut agent = Self {
            address: SocketAddr::from(([127, 0, 0, 1], http)),
            program: program()?,
            folder,
            running: None,
        };
        agent.revive()?;
        Ok(agent)
    }

    /// Starts it again with the state that it had, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn revive(&mut self) -> Result<()> {
        let arguments = [
            "agent".into(),
            "-config-file".into(),
            self.folder.join("agent.json").into_os_string(),
        ];
        let log = self.folder.join("output.log");
        let running = Running::start("agent", LOAD_CORE, &self.program, arguments, &[], log)?;
        let running = self.running.insert(running);
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let answered = order(self.address, "GET", "/v1/agent/connect/ca/roots", None);
            if let Ok(roots) = &answered
                && roots.get("ActiveRootID").and_then(Value::as_str) > Some("")
                // Orders need a leader, which comes a little later.
                && order(self.address, "GET", "/v1/agent/connect/ca/leaf/any", None).is_ok()
            {
                return Ok(());
            }
            running.check_alive()?;
            if Instant::now() > deadline {
                bail!("the agent does not answer: {answered:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// Stops it (`STOP`) or lets it go on (`CONT`): its connections stay.
    ///
    /// # Errors
    /// When it is not running.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let running = self.running.as_ref().context("the agent is not running")?;
        process::signal(name, &[running.id()])
    }

    /// Sends an order and gives the answer, `Null` when it is no JSON.
    ///
    /// # Errors
    /// When the agent cannot be reached or refuses.
    pub(crate) fn order(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        order(self.address, method, path, body).with_context(|| format!("{method} {path}"))
    }

    /// Registers an application that speaks mutual TLS itself.
    ///
    /// # Errors
    /// As [`Agent::order`].
    pub(crate) fn register_native(&self, service: &str, address: SocketAddr) -> Result<()> {
        let body = json!({
            "Name": service, "Address": address.ip().to_string(), "Port": address.port(),
            "Connect": {"Native": true},
        });
        self.order("PUT", "/v1/agent/service/register", Some(&body))?;
        Ok(())
    }

    /// Registers a service and its proxy.
    ///
    /// # Errors
    /// As [`Agent::order`].
    pub(crate) fn register(&self, sidecar: &Sidecar<'_>) -> Result<()> {
        let service = json!({
            "Name": sidecar.service, "ID": sidecar.id, "Port": sidecar.application.port(),
        });
        self.order("PUT", "/v1/agent/service/register", Some(&service))?;
        let mut config = sidecar.config.clone();
        config["bind_address"] = json!(sidecar.public.ip().to_string());
        let upstreams: Vec<Value> = sidecar
            .upstreams
            .iter()
            .map(|(name, address, config)| {
                json!({
                    "DestinationName": name, "Config": config,
                    "LocalBindAddress": address.ip().to_string(), "LocalBindPort": address.port(),
                })
            })
            .collect();
        let proxy = json!({
            "Name": format!("{}-proxy", sidecar.service), "ID": format!("{}-proxy", sidecar.id),
            "Kind": "connect-proxy",
            "Address": sidecar.public.ip().to_string(), "Port": sidecar.public.port(),
            "Proxy": {
                "DestinationServiceName": sidecar.service, "DestinationServiceID": sidecar.id,
                "LocalServiceAddress": sidecar.application.ip().to_string(),
                "LocalServicePort": sidecar.application.port(),
                "Config": config, "Upstreams": upstreams,
            },
        });
        self.order("PUT", "/v1/agent/service/register", Some(&proxy))?;
        Ok(())
    }

    /// Writes an intention and gives its id.
    ///
    /// # Errors
    /// As [`Agent::order`].
    pub(crate) fn intend(&self, source: &str, destination: &str, action: &str) -> Result<String> {
        let body = json!({
            "SourceName": source, "DestinationName": destination, "SourceType": "consul", "Action": action,
        });
        let answer = self.order("POST", "/v1/connect/intentions", Some(&body))?;
        let id = answer.get("ID").and_then(Value::as_str);
        Ok(id.context("an intention without an id")?.to_owned())
    }
}

/// One request in HTTP/1.0, whose answers end with the connection.
fn order(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&address, ORDER_TIMEOUT)?;
    stream.set_read_timeout(Some(ORDER_TIMEOUT))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("the agent answers {status}: {}", body.trim());
    }
    Ok(serde_json::from_str(body).unwrap_or(Value::Null))
}
