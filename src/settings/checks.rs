//! What no key can judge alone.

use super::Settings;
use super::administration::AdminAuth;
use super::general::Database;
use super::listen::clash;
use super::tls::CipherSuite;
use crate::base::diagnostic::Diagnostic;

/// Listeners of all kinds together: as many sockets as one message hands over in an upgrade.
const LISTENERS_MAX: usize = 32;

/// Adds what is wrong between keys.
pub(super) fn check(settings: &Settings, diagnostics: &mut Vec<Diagnostic>) {
    check_listeners(settings, diagnostics);
    check_tls(settings, diagnostics);
    check_store(settings, diagnostics);
    check_administration(settings, diagnostics);
}

fn check_listeners(settings: &Settings, diagnostics: &mut Vec<Diagnostic>) {
    let listen = &settings.listen;
    for one in listen.proxy_listen.all.iter().filter(|one| one.connect) {
        let wrong = if settings.consul.consul_service.is_none() {
            Some((
                "needs 'consul_service'",
                "name the service that the gateway is in the mesh",
            ))
        } else if one.ssl || one.proxy_protocol || one.reuseport || one.backlog.is_some() {
            Some(("stands with 'http2' alone", "the mesh brings its own TLS"))
        } else {
            None
        };
        if let Some((what, hint)) = wrong {
            diagnostics.push(
                Diagnostic::error(
                    "invalid-value",
                    settings.origin("proxy_listen"),
                    format!("flag 'connect' of {} {what}", one.address),
                )
                .with_hint(hint),
            );
        }
    }
    let mut taken = Vec::new();
    let groups = [
        ("proxy_listen", &listen.proxy_listen.all),
        ("stream_listen", &listen.stream_listen.all),
        ("admin_listen", &listen.admin_listen.all),
        ("status_listen", &listen.status_listen.all),
        ("admin_gui_listen", &listen.admin_gui_listen.all),
    ];
    for (key, all) in &groups {
        for one in *all {
            if let Some((other, first)) = taken.iter().find(|(_, first)| clash(*first, one.address))
            {
                diagnostics.push(
                    Diagnostic::error(
                        "address-taken",
                        settings.origin(key),
                        format!("{} overlaps with {first} of '{other}'", one.address),
                    )
                    .with_hint("each listener needs an address and port of its own"),
                );
            }
            taken.push((key, one.address));
        }
    }
    let addresses = groups.iter().map(|(_, all)| all.len()).sum::<usize>();
    if addresses > LISTENERS_MAX {
        diagnostics.push(
            Diagnostic::error(
                "invalid-value",
                settings.origin("proxy_listen"),
                format!("{addresses} listeners in all are too many"),
            )
            .with_hint(format!("an upgrade hands over at most {LISTENERS_MAX}")),
        );
    }
    for (index, map) in listen.port_maps.iter().enumerate() {
        if listen
            .port_maps
            .iter()
            .take(index)
            .any(|earlier| earlier.listening == map.listening)
        {
            diagnostics.push(
                Diagnostic::error(
                    "invalid-value",
                    settings.origin("port_maps"),
                    format!("maps port {} twice", map.listening),
                )
                .with_hint("a listening port has one external port"),
            );
        }
    }
}

fn check_tls(settings: &Settings, diagnostics: &mut Vec<Diagnostic>) {
    let tls = &settings.tls;
    let mut wrong = |key, message: String, hint: &str| {
        diagnostics.push(
            Diagnostic::error("invalid-value", settings.origin(key), message).with_hint(hint),
        );
    };
    for (name, certificates, key, keys) in [
        ("ssl_cert", &tls.ssl_cert, "ssl_cert_key", &tls.ssl_cert_key),
        (
            "admin_ssl_cert",
            &tls.admin_ssl_cert,
            "admin_ssl_cert_key",
            &tls.admin_ssl_cert_key,
        ),
        (
            "status_ssl_cert",
            &tls.status_ssl_cert,
            "status_ssl_cert_key",
            &tls.status_ssl_cert_key,
        ),
    ] {
        if certificates.len() != keys.len() {
            let (certificates, keys) = (certificates.len(), keys.len());
            wrong(
                key,
                format!("has {keys} members, '{name}' has {certificates}"),
                "each certificate needs its key, in the same order",
            );
        }
    }
    if tls.client_ssl && (tls.client_ssl_cert.is_none() || tls.client_ssl_cert_key.is_none()) {
        wrong(
            "client_ssl",
            "needs 'client_ssl_cert' and 'client_ssl_cert_key'".to_owned(),
            "set both, or 'client_ssl = off'",
        );
    }
    let listeners = &settings.listen;
    let requests = listeners.proxy_listen.all.iter();
    let own: Vec<CipherSuite> = requests
        .chain(&listeners.stream_listen.all)
        .filter_map(|listen| listen.ssl_cipher_suite)
        .collect();
    let custom = tls.ssl_cipher_suite == CipherSuite::Custom || own.contains(&CipherSuite::Custom);
    if custom && tls.ssl_ciphers.is_none() {
        wrong(
            "ssl_ciphers",
            "must be set with 'ssl_cipher_suite = custom'".to_owned(),
            "name the ciphers",
        );
    }
    if !custom && tls.ssl_ciphers.is_some() {
        wrong(
            "ssl_ciphers",
            format!(
                "does not count with 'ssl_cipher_suite = {}'",
                tls.ssl_cipher_suite.word()
            ),
            "set 'ssl_cipher_suite = custom'",
        );
    }
    if tls.ssl_cipher_suite == CipherSuite::Modern && !tls.ssl_protocols.tls1_3 {
        wrong(
            "ssl_protocols",
            "leaves out TLSv1.3, the only one of 'modern'".to_owned(),
            "add 'TLSv1.3'",
        );
    }
}

fn check_store(settings: &Settings, diagnostics: &mut Vec<Diagnostic>) {
    let general = &settings.general;
    if general.declarative_config.is_some() && general.declarative_config_string.is_some() {
        diagnostics.push(
            Diagnostic::error(
                "invalid-value",
                settings.origin("declarative_config_string"),
                "cannot stand beside 'declarative_config'",
            )
            .with_hint("keep one of the two"),
        );
    }
    if general.database == Database::Embedded {
        for key in ["declarative_config", "declarative_config_string"] {
            if settings.is_set(key) {
                diagnostics.push(
                    Diagnostic::warning(
                        "unused-key",
                        settings.origin(key),
                        "is ignored with 'database = embedded'",
                    )
                    .with_hint("'sallyport config db_import' loads a file into the store"),
                );
            }
        }
    }
}

fn check_administration(settings: &Settings, diagnostics: &mut Vec<Diagnostic>) {
    let administration = &settings.administration;
    match administration.admin_auth {
        AdminAuth::Basic if administration.admin_users.is_none() => diagnostics.push(
            Diagnostic::error(
                "invalid-value",
                settings.origin("admin_auth"),
                "'basic' needs 'admin_users'",
            )
            .with_hint("name a file with a name, a colon and an argon2 hash on each line"),
        ),
        AdminAuth::Off => {
            for one in &settings.listen.admin_listen.all {
                if !one.address.ip().is_loopback() {
                    diagnostics.push(
                        Diagnostic::warning(
                            "open-admin",
                            settings.origin("admin_listen"),
                            format!("{} lets everybody who reaches it administer", one.address),
                        )
                        .with_hint("set 'admin_auth = basic', or listen on 127.0.0.1"),
                    );
                }
            }
            for one in &settings.listen.admin_gui_listen.all {
                if !one.address.ip().is_loopback() {
                    diagnostics.push(
                        Diagnostic::warning(
                            "open-admin",
                            settings.origin("admin_gui_listen"),
                            format!(
                                "{} shows the configuration, credentials included, to everybody who reaches it",
                                one.address
                            ),
                        )
                        .with_hint("set 'admin_auth = basic', or listen on 127.0.0.1"),
                    );
                }
            }
        }
        AdminAuth::Basic => {}
    }
}
