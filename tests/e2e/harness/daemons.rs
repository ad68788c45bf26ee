//! Servers of another make, each in a process of its own: nginx's stream module, redis, HAProxy.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;
use super::programs::nginx;

/// A server; killed when dropped.
pub(crate) struct Daemon {
    /// Where it listens, in the order asked for.
    pub(crate) addresses: Vec<SocketAddr>,
    child: Child,
    _folder: TempDir,
}

impl Daemon {
    /// nginx whose `stream` block is made from the addresses it listens on.
    pub(crate) fn nginx_streams(
        count: usize,
        files: &[(&str, &str)],
        block: impl Fn(&[SocketAddr]) -> String,
    ) -> Self {
        Self::start(count, files, |folder, addresses| {
            let root = folder.display();
            // A module of its own in Debian's packages, built in elsewhere.
            let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
            let load = match module.is_file() {
                true => format!("load_module {};", module.display()),
                false => String::new(),
            };
            let configuration = format!(
                "{load} daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
                 events {{ worker_connections 512; }}\nstream {{ {} }}\n",
                block(addresses)
            );
            let file = folder.join("nginx.conf");
            fs::write(&file, configuration).expect("a file");
            let mut command = Command::new(nginx());
            command.arg("-p").arg(folder).arg("-c").arg(file);
            command
        })
    }

    /// nginx whose `http` block holds one server; `block` is what stands in it, made from its address.
    pub(crate) fn nginx_http(
        files: &[(&str, &str)],
        block: impl Fn(&Path, SocketAddr) -> String,
    ) -> Self {
        Self::start(1, files, |folder, addresses| {
            let root = folder.display();
            let configuration = format!(
                "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{ access_log off; default_type text/plain;\n\
                 client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
                 server {{ {} }} }}\n",
                block(folder, addresses[0])
            );
            let file = folder.join("nginx.conf");
            fs::write(&file, configuration).expect("a file");
            let mut command = Command::new(nginx());
            command.arg("-p").arg(folder).arg("-c").arg(file);
            command
        })
    }

    /// A redis without persistence.
    pub(crate) fn redis() -> Self {
        Self::start(1, &[], |folder, addresses| {
            let mut command = Command::new("redis-server");
            command
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(["--port", &addresses[0].port().to_string()])
                .arg("--dir")
                .arg(folder);
            command
        })
    }

    /// HAProxy in TCP mode: each address leads to one server with these parameters (`send-proxy-v2`).
    pub(crate) fn haproxy(servers: &[(SocketAddr, &str)]) -> Self {
        Self::start(servers.len(), &[], |folder, addresses| {
            let mut configuration =
                "global\n    maxconn 100\ndefaults\n    mode tcp\n    timeout connect 10s\n    \
                 timeout client 30s\n    timeout server 30s\n"
                    .to_owned();
            for (number, (address, (server, parameters))) in
                addresses.iter().zip(servers).enumerate()
            {
                configuration.push_str(&format!(
                    "listen l{number}\n    bind {address}\n    server s {server} {parameters}\n"
                ));
            }
            let file = folder.join("haproxy.cfg");
            fs::write(&file, configuration).expect("a file");
            let mut command = Command::new(haproxy());
            command.args(["-q", "-db", "-f"]).arg(file);
            command
        })
    }

    fn start(
        count: usize,
        files: &[(&str, &str)],
        command: impl Fn(&Path, &[SocketAddr]) -> Command,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            fs::write(folder.path().join(name), content).expect("a file");
        }
        // They cannot report ports that they chose: another test may take one meanwhile, then again.
        for _ in 0..10 {
            let holders: Vec<TcpListener> = (0..count)
                .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
                .collect();
            let addresses: Vec<SocketAddr> = holders
                .iter()
                .map(|holder| holder.local_addr().expect("an address"))
                .collect();
            drop(holders);
            let mut child = command(folder.path(), &addresses)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the server is installed");
            let accepts = eventually("the server listens, or ends", || {
                if child.try_wait().expect("a status").is_some() {
                    return Some(false);
                }
                let listens = addresses.iter().all(|one| TcpStream::connect(one).is_ok());
                listens.then_some(true)
            });
            if accepts {
                return Self {
                    addresses,
                    child,
                    _folder: folder,
                };
            }
        }
        panic!("the server does not start");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn haproxy() -> &'static str {
    match Path::new("/usr/sbin/haproxy").is_file() {
        true => "/usr/sbin/haproxy",
        false => "haproxy",
    }
}
