//! Keys that Kong's or our own later users may write and that this version cannot honour.
//!
//! A setting is never accepted and then ignored: a row names the values that change nothing (usually Kong's default,
//! which is what happens here anyway), everything else is refused with the reason.

use serde_json::json;

use super::value::Raw;

/// What to do with a key that is not ours.
pub(super) enum Verdict {
    /// The value asks for what happens anyway.
    Harmless,
    /// The value cannot be honoured; the reason, and the way out.
    Refused(String),
}

struct Row {
    name: &'static str,
    /// Values that change nothing.
    harmless: &'static [&'static str],
    /// Why any other is refused.
    why: &'static str,
    /// Whether `GET /` reports the first harmless value: clients look at these keys.
    shown: bool,
}

const PAGE: &str = "the web page answers at `/` under every name of its listener and asks only that; remove the key";
const ETCD: &str =
    "the shared store in etcd comes with a later version; `database` may be `embedded` or `off`";
const SQL: &str = "there is no SQL server to connect to; `database` may be `embedded` or `off`";
const MEMORY: &str =
    "every node holds all entities in memory, and a change serves at once; remove the key";
const LUA: &str = "there is no Lua in this gateway; remove the key";
const HYBRID: &str = "control planes and data planes are not separate here; remove the key";

const fn row(name: &'static str, harmless: &'static [&'static str], why: &'static str) -> Row {
    Row {
        name,
        harmless,
        why,
        shown: false,
    }
}

const fn shown(name: &'static str, harmless: &'static [&'static str], why: &'static str) -> Row {
    Row {
        name,
        harmless,
        why,
        shown: true,
    }
}

const ROWS: &[Row] = &[
    row("admin_gui_url", &[""], PAGE),
    row("admin_gui_path", &["/"], PAGE),
    row("etcd_endpoints", &[], ETCD),
    row("etcd_prefix", &[], ETCD),
    row("etcd_username", &[], ETCD),
    row("etcd_password", &[], ETCD),
    row("pg_host", &[], SQL),
    row("pg_port", &[], SQL),
    row("pg_user", &[], SQL),
    row("pg_password", &[], SQL),
    row("pg_database", &[], SQL),
    row("pg_ssl", &[], SQL),
    shown("worker_consistency", &["eventual"], MEMORY),
    row("worker_state_update_frequency", &[], MEMORY),
    row("mem_cache_size", &[], MEMORY),
    row("db_cache_ttl", &["0"], MEMORY),
    row("db_update_frequency", &[], MEMORY),
    row("db_update_propagation", &[], MEMORY),
    row(
        "admin_access_log",
        &["off"],
        "the Admin API writes no access log; its errors go to the program's log",
    ),
    row(
        "admin_error_log",
        &["off"],
        "errors of the Admin API go to the program's log and to `proxy_error_log`",
    ),
    row(
        "status_access_log",
        &["off"],
        "the Status API writes no access log",
    ),
    row(
        "status_error_log",
        &["off"],
        "errors of the Status API go to the program's log and to `proxy_error_log`",
    ),
    shown("role", &["traditional"], HYBRID),
    row("cluster_listen", &["off"], HYBRID),
    row("cluster_cert", &[""], HYBRID),
    row("cluster_cert_key", &[""], HYBRID),
    row("cluster_control_plane", &[], HYBRID),
    row("cluster_mtls", &["shared"], HYBRID),
    row("lua_package_path", &["./?.lua;./?/init.lua;"], LUA),
    row("lua_package_cpath", &[""], LUA),
    row("lua_socket_pool_size", &[], LUA),
    row(
        "lua_ssl_protocols",
        &[],
        "calls of the gateway itself use TLS 1.2 and 1.3; remove the key",
    ),
    row(
        "lua_ssl_verify_depth",
        &[],
        "chains of any length up to the TLS library's limit are verified; remove the key",
    ),
    row("untrusted_lua", &["off"], LUA),
    row(
        "wasm",
        &["off"],
        "WebAssembly filters come with a later version",
    ),
    row("anonymous_reports", &["off"], "nothing is ever reported"),
    row(
        "vaults",
        &["bundled", "off"],
        "vault references are not resolved by this version",
    ),
    row(
        "client_body_buffer_size",
        &["8k"],
        "request bodies are never written to disk; what plugins look at is held up to 10 MiB, the rest streams",
    ),
    row(
        "nginx_http_client_body_buffer_size",
        &["8k"],
        "request bodies are never written to disk; what plugins look at is held up to 10 MiB, the rest streams",
    ),
    row(
        "lua_max_post_args",
        &["100"],
        "plugins look at the first 1,000 fields of a form",
    ),
    row(
        "dns_cache_size",
        &["10000"],
        "a name is remembered as long as an upstream or service uses it",
    ),
    row(
        "resolver_lru_cache_size",
        &["10000"],
        "a name is remembered as long as an upstream or service uses it",
    ),
    row(
        "request_debug",
        &["off"],
        "`X-Kong-Request-Debug` is not supported; `allow_debug_header` tells the matched route",
    ),
    row(
        "request_debug_token",
        &[""],
        "`X-Kong-Request-Debug` is not supported",
    ),
    row(
        "tracing_instrumentations",
        &["off"],
        "tracing comes with a later version",
    ),
    row(
        "tracing_sampling_rate",
        &[],
        "tracing comes with a later version",
    ),
    row(
        "nginx_daemon",
        &["off"],
        "the program stays in the foreground; use the systemd unit in `conf/`",
    ),
    row(
        "nginx_user",
        &[],
        "the program runs as who starts it; use the systemd unit in `conf/`",
    ),
    row(
        "nginx_worker_connections",
        &[],
        "the limit on open files, which is raised at start, is the limit on connections",
    ),
    row(
        "ssl_dhparam",
        &[],
        "the TLS library offers elliptic curves only",
    ),
    row(
        "ssl_prefer_server_ciphers",
        &["on"],
        "the TLS library always prefers the server's order",
    ),
];

/// Prefixes whose every key is refused for one reason.
const FAMILIES: &[(&str, &str)] = &[
    ("pg_", SQL),
    ("cassandra_", SQL),
    ("etcd_", ETCD),
    ("cluster_", HYBRID),
    ("wasm_", "WebAssembly filters come with a later version"),
    ("admin_gui_", PAGE),
    (
        "nginx_",
        "there is no nginx below; see 'sallyport man' for the limits that can be set",
    ),
];

/// The names in the table, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

/// What to do with a key that no group declares; nothing when nobody knows it.
pub(super) fn judge(name: &str, value: &Raw) -> Option<Verdict> {
    let written = value.many().join(",");
    if let Some(row) = ROWS.iter().find(|row| row.name == name) {
        if row.harmless.iter().any(|harmless| *harmless == written) {
            return Some(Verdict::Harmless);
        }
        let besides = if row.harmless.is_empty() {
            String::new()
        } else {
            let quoted: Vec<_> = row
                .harmless
                .iter()
                .map(|value| format!("'{value}'"))
                .collect();
            format!("; allowed: {}", quoted.join(", "))
        };
        return Some(Verdict::Refused(format!("{}{besides}", row.why)));
    }
    let family = FAMILIES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))?;
    Some(Verdict::Refused(family.1.to_owned()))
}

/// Keys that clients of the Admin API expect to find with their fixed values.
pub(super) fn show(into: &mut Vec<(&'static str, serde_json::Value)>) {
    for row in ROWS.iter().filter(|row| row.shown) {
        if let Some(value) = row.harmless.first() {
            into.push((row.name, json!(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> Option<String> {
        match judge(name, &Raw::Text(value.to_owned())) {
            Some(Verdict::Refused(why)) => Some(why),
            _ => None,
        }
    }

    #[test]
    fn only_harmless_values_pass() {
        assert_eq!(refused("admin_gui_path", "/"), None);
        assert!(
            refused("admin_gui_path", "/manager").is_some_and(|why| why.ends_with("allowed: '/'"))
        );
        assert!(refused("pg_schema", "x").is_some());
        assert!(judge("prefixx", &Raw::Text(String::new())).is_none());
    }
}
