//! Which versions, ciphers and sessions a listener takes part in.

use boring::error::ErrorStack;
use boring::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVersion,
};

use crate::settings::tls::{CipherSuite, TlsSettings};

/// TLS 1.2 ciphers of Mozilla's intermediate recommendation, in OpenSSL's notation.
const INTERMEDIATE: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
/// What very old clients need besides.
const OLD: &str = "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:\
    ECDHE-RSA-AES256-SHA:AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA:AES256-SHA";
/// Sessions that one mebibyte of a cache holds, as nginx counts.
const SESSIONS_PER_MEBIBYTE: u64 = 4_000;

/// Prepares a context after the settings, with the suite that its listener has. Gives what the library cannot do of what
/// was asked for; the error names the setting that it refuses altogether.
pub(super) fn apply(
    builder: &mut SslContextBuilder,
    settings: &TlsSettings,
    suite: CipherSuite,
) -> Result<Vec<String>, String> {
    let mut shortcomings = Vec::new();
    let (lowest, highest) = versions(settings, suite);
    builder
        .set_min_proto_version(Some(lowest))
        .and_then(|()| builder.set_max_proto_version(Some(highest)))
        .map_err(refused("ssl_protocols"))?;
    let ciphers = match suite {
        // The ciphers of TLS 1.3 are the library's own choice.
        CipherSuite::Modern => None,
        CipherSuite::Intermediate => Some(INTERMEDIATE.to_owned()),
        CipherSuite::Old => {
            shortcomings.push(
                "ssl_cipher_suite 'old': the TLS library has no DHE ciphers, no CBC ciphers with SHA-256 or SHA-384, and \
                 no DES-CBC3-SHA"
                    .to_owned(),
            );
            Some(format!("{INTERMEDIATE}:{OLD}"))
        }
        CipherSuite::Custom => {
            let list = settings.ssl_ciphers.as_ref().map(|list| list.0.clone());
            let unknown = list.as_deref().map(unknown_ciphers).unwrap_or_default();
            if !unknown.is_empty() {
                shortcomings.push(format!(
                    "ssl_ciphers: the TLS library cannot be told to use {}",
                    unknown.join(", ")
                ));
            }
            list
        }
    };
    if let Some(ciphers) = ciphers {
        builder
            .set_cipher_list(&ciphers)
            .map_err(refused("ssl_ciphers"))?;
    }
    sessions(builder, settings);
    Ok(shortcomings)
}

fn refused(what: &'static str) -> impl Fn(ErrorStack) -> String {
    move |error| format!("{what}: {error}")
}

fn versions(settings: &TlsSettings, suite: CipherSuite) -> (SslVersion, SslVersion) {
    match suite {
        CipherSuite::Modern => return (SslVersion::TLS1_3, SslVersion::TLS1_3),
        // The versions belong to the suite, as its ciphers do.
        CipherSuite::Old => return (SslVersion::TLS1, SslVersion::TLS1_3),
        CipherSuite::Intermediate | CipherSuite::Custom => {}
    }
    let offered = &settings.ssl_protocols;
    let all = [
        (offered.tls1_0, SslVersion::TLS1),
        (offered.tls1_1, SslVersion::TLS1_1),
        (offered.tls1_2, SslVersion::TLS1_2),
        (offered.tls1_3, SslVersion::TLS1_3),
    ];
    let mut chosen = all
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, version)| version);
    let lowest = chosen.next().unwrap_or(SslVersion::TLS1_2);
    (lowest, chosen.next_back().unwrap_or(lowest))
}

/// The members of a list that the library does not know, or cannot choose among.
fn unknown_ciphers(list: &str) -> Vec<&str> {
    list.split([':', ',', ' '])
        .filter(|member| !member.is_empty())
        // Rules over sets of ciphers are not names.
        .filter(|member| !member.starts_with(['!', '-', '+', '@']))
        .filter(|member| {
            let known = SslContext::builder(SslMethod::tls())
                .and_then(|mut scratch| scratch.set_strict_cipher_list(member));
            known.is_err() || is_of_tls13(member)
        })
        .collect()
}

/// TLS 1.3 has its own few, between which nobody can choose here.
fn is_of_tls13(name: &str) -> bool {
    name.starts_with("TLS_AES_") || name.starts_with("TLS_CHACHA20_")
}

#[allow(
    unsafe_code,
    reason = "the safe library does not set how long sessions live"
)]
fn sessions(builder: &mut SslContextBuilder, settings: &TlsSettings) {
    let seconds = u32::try_from(settings.ssl_session_timeout.0.as_secs()).unwrap_or(u32::MAX);
    // SAFETY: the pointer is that of a live context which nobody else uses yet; both calls store a number.
    unsafe {
        boring_sys::SSL_CTX_set_timeout(builder.as_ptr(), seconds);
        boring_sys::SSL_CTX_set_session_psk_dhe_timeout(builder.as_ptr(), seconds);
    }
    if !settings.ssl_session_tickets {
        builder.set_options(SslOptions::NO_TICKET);
    }
    let kept = settings
        .ssl_session_cache_size
        .0
        .saturating_mul(SESSIONS_PER_MEBIBYTE)
        >> 20;
    match u32::try_from(kept).unwrap_or(u32::MAX) {
        // The library reads 0 as no limit.
        0 => {
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        }
        kept => {
            builder.set_session_cache_size(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ciphers_that_cannot_be_had() {
        let list = "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256:!aNULL:HIGH";
        assert_eq!(
            unknown_ciphers(list),
            ["DHE-RSA-AES128-GCM-SHA256", "TLS_AES_128_GCM_SHA256"]
        );
    }
}
