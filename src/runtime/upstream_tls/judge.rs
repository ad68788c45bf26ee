//! The verdict on an upstream's certificate: chain, depth, and whom it is for.
//!
//! The same code judges within our own handshakes and after those of Pingora's connector, so that both drivers accept
//! the same peers.

use std::net::IpAddr;

use boring::error::ErrorStack;
use boring::nid::Nid;
use boring::ssl::SslRef;
use boring::stack::Stack;
use boring::x509::verify::{X509CheckFlags, X509VerifyParamRef};
use boring::x509::{X509Ref, X509StoreContext};

use super::trust::Anchors;
use crate::base::certificate::{self, Purpose};
use crate::model::plan::PeerRule;

/// What is said of a certificate that cannot be checked for want of a name.
pub(super) const NAMELESS: &str =
    "the upstream's certificate cannot be verified without a host name";
/// Names of a certificate that are looked at.
const NAMES_MAX: usize = 1024;

/// Accepts or refuses peers.
pub(super) struct Judge {
    pub(super) anchors: Anchors,
    /// Longest accepted chain of intermediates.
    pub(super) depth: u8,
    pub(super) rule: PeerRule,
}

impl Judge {
    /// Is there enough to judge by? `name` is a host name or an address.
    pub(super) fn can_judge(&self, name: &str) -> Result<(), String> {
        match self.rule {
            PeerRule::Name if name.is_empty() => Err(NAMELESS.to_owned()),
            _ => Ok(()),
        }
    }

    /// The verdict on the certificates that the peer has shown. The error says whose certificate and why.
    pub(super) fn check(&self, ssl: &SslRef, name: &str) -> Result<(), String> {
        let leaf = ssl
            .peer_certificate()
            .ok_or("the upstream shows no certificate")?;
        let failed = |error: ErrorStack| format!("cannot verify '{name}': {error}");
        let mut chain = Stack::new().map_err(failed)?;
        for certificate in ssl.peer_cert_chain().into_iter().flatten() {
            chain.push(certificate.to_owned()).map_err(failed)?;
        }
        let mut verification = X509StoreContext::new().map_err(failed)?;
        let verdict = verification
            .init(&self.anchors.store, &leaf, &chain, |context| {
                let parameters = context.verify_param_mut();
                parameters.set_depth(self.depth.into());
                if self.rule == PeerRule::Name {
                    expect_name(parameters, name)?;
                }
                let accepted = context.verify_cert()?;
                Ok((accepted, context.verify_result()))
            })
            .map_err(failed)?;
        let reason = match verdict {
            (true, Ok(())) => {
                let der = leaf.to_der().map_err(failed)?;
                if certificate::allows(&der, Purpose::Server) {
                    return self.check_rule(&leaf);
                }
                "it is not for servers"
            }
            (_, Err(reason)) => reason.error_string(),
            (false, Ok(())) => "verification failed",
        };
        Err(format!(
            "the certificate of '{name}' is not accepted: {reason}"
        ))
    }

    fn check_rule(&self, leaf: &X509Ref) -> Result<(), String> {
        match &self.rule {
            PeerRule::Name => Ok(()),
            PeerRule::UriIn(allowed) => {
                let shown = names(leaf, |name| name.uri());
                if shown
                    .iter()
                    .any(|uri| allowed.iter().any(|it| **it == **uri))
                {
                    return Ok(());
                }
                Err(format!(
                    "the upstream's certificate is for {}, not for {}",
                    listed(&shown),
                    listed(allowed)
                ))
            }
            PeerRule::CommonName { name, wildcard } => {
                let mut shown = names(leaf, |name| name.dnsname());
                for entry in leaf.subject_name().entries_by_nid(Nid::COMMONNAME) {
                    if let Ok(text) = entry.data().as_utf8() {
                        shown.push(text.to_string());
                    }
                }
                if shown.iter().any(|shown| suits(name, *wildcard, shown)) {
                    return Ok(());
                }
                Err(format!(
                    "the upstream's certificate is for {}, not for '{name}'",
                    listed(&shown)
                ))
            }
        }
    }
}

/// Demands that the certificate be for this name or address.
fn expect_name(parameters: &mut X509VerifyParamRef, name: &str) -> Result<(), ErrorStack> {
    parameters.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
    match name.parse::<IpAddr>() {
        Ok(address) => parameters.set_ip(address),
        Err(_) => parameters.set_host(name),
    }
}

/// The alternative names of one kind.
fn names(
    certificate: &X509Ref,
    kind: impl Fn(&boring::x509::GeneralNameRef) -> Option<&str>,
) -> Vec<String> {
    let names = certificate.subject_alt_names();
    let names = names.iter().flatten().take(NAMES_MAX);
    names
        .filter_map(|name| kind(name).map(str::to_owned))
        .collect()
}

/// Is a name of a certificate the one expected? Letter case does not matter. `*.` stands for one label if `wildcard`.
fn suits(expected: &str, wildcard: bool, shown: &str) -> bool {
    if expected.eq_ignore_ascii_case(shown) {
        return true;
    }
    let Some(suffix) = expected.strip_prefix("*.").filter(|_| wildcard) else {
        return false;
    };
    shown
        .split_once('.')
        .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix))
}

/// Names for a message.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    /// Beyond these, names make no message clearer.
    const LISTED_MAX: usize = 4;
    if names.is_empty() {
        return "nobody".to_owned();
    }
    let mut text = String::new();
    for name in names.iter().take(LISTED_MAX) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&format!("'{}'", name.as_ref().escape_debug()));
    }
    if names.len() > LISTED_MAX {
        text.push_str(&format!(" and {} more", names.len() - LISTED_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_match_exactly_or_by_one_label() {
        let cases = [
            ("*.a.test", false, "*.a.test", true),
            ("*.a.test", false, "x.a.test", false),
            ("*.a.test", true, "x.a.test", true),
            ("*.a.test", true, "X.A.test", true),
            ("*.a.test", true, "x.y.a.test", false),
            ("*.a.test", true, "a.test", false),
            ("*.a.test", true, ".a.test", false),
            ("a.test", true, "a.test", true),
            ("a.test", true, "b.test", false),
        ];
        for (expected, wildcard, shown, suiting) in cases {
            assert_eq!(
                suits(expected, wildcard, shown),
                suiting,
                "{expected} {shown}"
            );
        }
    }
}
