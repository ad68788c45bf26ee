//! The origin behind every proxy: nginx with fixed bodies, on the load generator's core.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::net;
use crate::process::{self, LOAD_CORE, Running};

/// Bytes of the small body.
pub(crate) const SMALL_BYTES: usize = 100;
/// Bytes of the middle body.
pub(crate) const MIDDLE_BYTES: usize = 16 * 1024;
/// Bytes of the large body.
pub(crate) const LARGE_BYTES: usize = 1024 * 1024;
/// Response headers that `/headers` adds.
const EXTRA_HEADERS: usize = 20;

/// A running origin. Every path but `/16k`, `/1m` and `/headers` answers with the small body.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    _running: Running,
}

/// Starts the origin with its files in `folder`.
///
/// # Errors
/// When nginx is missing or does not start.
pub(crate) fn start(folder: &Path) -> Result<Origin> {
    let folder = folder.join("origin");
    fs::create_dir_all(&folder).context("cannot create the origin's folder")?;
    fs::write(folder.join("16k"), vec![b'm'; MIDDLE_BYTES])?;
    fs::write(folder.join("1m"), vec![b'l'; LARGE_BYTES])?;
    let address = net::free_address()?;
    let small = "s".repeat(SMALL_BYTES);
    let headers: String = (0..EXTRA_HEADERS)
        .map(|number| format!("add_header X-Origin-{number} value-{number}; "))
        .collect();
    let root = folder.display();
    let configuration = format!(
        "{preamble}\
         http {{\n\
         {http}\
         sendfile on; open_file_cache max=16 inactive=1h;\n\
         server {{\n\
           listen {address} backlog=4096;\n\
           root {root};\n\
           location / {{ return 200 '{small}'; }}\n\
           location = /16k {{ }}\n\
           location = /1m {{ }}\n\
           location = /headers {{ {headers}return 200 '{small}'; }}\n\
         }}\n}}\n",
        preamble = nginx_preamble(&folder),
        http = nginx_http_common(&folder),
    );
    let mut running = start_nginx("origin", LOAD_CORE, &folder, &configuration)?;
    net::await_listener(address, &mut running)?;
    Ok(Origin {
        address,
        _running: running,
    })
}

/// The line that loads nginx's stream module: one of its own in Debian's packages, built in elsewhere.
pub(crate) fn load_stream_module() -> String {
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    match module.is_file() {
        true => format!("load_module {};\n", module.display()),
        false => String::new(),
    }
}

/// The top of every nginx configuration here: one worker in the foreground, nothing logged.
pub(crate) fn nginx_preamble(folder: &Path) -> String {
    // Started by root, workers would become `nobody`, who cannot read a private folder.
    let is_root = std::os::unix::fs::MetadataExt::uid(&match fs::metadata("/proc/self") {
        Ok(metadata) => metadata,
        Err(_) => return String::new(),
    }) == 0;
    format!(
        "{user}daemon off; worker_processes 1;\n\
         pid {folder}/nginx.pid; error_log {folder}/error.log crit;\n\
         events {{ worker_connections 24576; }}\n",
        user = if is_root { "user root;\n" } else { "" },
        folder = folder.display(),
    )
}

/// Settings of nginx's `http` block that origin and proxy share.
pub(crate) fn nginx_http_common(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "access_log off; default_type text/plain;\n\
         keepalive_requests 1000000000; keepalive_timeout 600s;\n\
         client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
         fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
    )
}

/// Writes the configuration and starts nginx with it on `core`.
pub(crate) fn start_nginx(
    name: &str,
    core: usize,
    folder: &Path,
    configuration: &str,
) -> Result<Running> {
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).context("cannot write nginx.conf")?;
    let nginx = process::find_program("nginx", "nginx-light")?;
    let arguments = [
        "-p".into(),
        folder.as_os_str().to_owned(),
        "-c".into(),
        file.into_os_string(),
    ];
    Running::start(
        name,
        core,
        &nginx,
        arguments,
        &[],
        folder.join("output.log"),
    )
}
