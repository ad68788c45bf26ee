//! Of whom a certificate is asked in the handshake, before any request is known.
//!
//! A step that needs one runs on some routes; the handshake knows only the server name. So names that routes with such
//! a step have are asked, and all clients when such a route has no server name of its own. Asked
//! clients may stay without a certificate: the step decides what that means.

use ahash::AHashMap;
use boring::error::ErrorStack;
use boring::ssl::SslRef;
use boring::stack::Stack;
use boring::x509::X509Name;
use uuid::Uuid;

use crate::model::route::NamePattern;
use crate::runtime::authorities::Authorities;

/// Authorities whose names are told to one client.
const NAMES_MAX: usize = 256;

/// What a step wants of the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateRequest {
    /// Authorities whose names are told to the client, which may choose a certificate by them; empty tells none.
    pub authorities: Vec<Uuid>,
    /// Server names whose clients are asked; empty asks for those of the routes.
    pub server_names: Vec<NamePattern>,
}

/// The requests of a snapshot by server name.
#[derive(Default)]
pub struct CertificateRequests {
    everyone: Option<Asked>,
    exact: AHashMap<Box<str>, Asked>,
    patterns: Vec<(NamePattern, Asked)>,
}

/// What is asked of clients with one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Asked {
    /// Names of authorities in their encoding.
    names: Vec<Vec<u8>>,
    /// Some step accepts certificates of authorities that are not named: then no name may be told, or clients would
    /// keep those back.
    silent: bool,
}

impl Asked {
    fn of(request: &CertificateRequest, authorities: &Authorities) -> Self {
        let names = request.authorities.iter().filter_map(|id| {
            let authority = authorities.find(id)?;
            authority.certificate.subject_name().to_der().ok()
        });
        Self {
            names: names.collect(),
            silent: request.authorities.is_empty(),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.silent |= other.silent;
        for name in &other.names {
            if !self.names.contains(name) && self.names.len() < NAMES_MAX {
                self.names.push(name.clone());
            }
        }
    }
}

impl CertificateRequests {
    /// Asks every client.
    pub fn ask_everyone(&mut self, request: &CertificateRequest, authorities: &Authorities) {
        let asked = Asked::of(request, authorities);
        self.everyone.get_or_insert_default().merge(&asked);
    }

    /// Asks clients that name a server of this pattern.
    pub fn ask(
        &mut self,
        pattern: &NamePattern,
        request: &CertificateRequest,
        authorities: &Authorities,
    ) {
        let asked = Asked::of(request, authorities);
        match pattern {
            NamePattern::Exact(name) => self
                .exact
                .entry(name.to_ascii_lowercase().into())
                .or_default()
                .merge(&asked),
            wildcard => match self.patterns.iter_mut().find(|(it, _)| it == wildcard) {
                Some((_, known)) => known.merge(&asked),
                None => self.patterns.push((wildcard.clone(), asked)),
            },
        }
    }

    /// Must this client be asked? `name` is its server name in lower case, if it sent one.
    pub fn asks(&self, name: Option<&str>) -> bool {
        self.everyone.is_some() || name.is_some_and(|name| self.of(name).next().is_some())
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Asked> {
        let exact = self.exact.get(name).into_iter();
        let patterns = self
            .patterns
            .iter()
            .filter(move |(pattern, _)| match pattern {
                NamePattern::Exact(exact) => exact == name,
                NamePattern::Suffix(suffix) => name.ends_with(suffix.as_str()),
                NamePattern::Prefix(prefix) => name.starts_with(prefix.as_str()),
            });
        exact.chain(patterns.map(|(_, asked)| asked))
    }

    /// Puts the names of accepted authorities into the handshake of a client that is asked.
    pub fn tell_names(&self, name: Option<&str>, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        let mut asked = self.everyone.clone().unwrap_or_default();
        for one in name.into_iter().flat_map(|name| self.of(name)) {
            asked.merge(one);
        }
        if asked.silent || asked.names.is_empty() {
            return Ok(());
        }
        let mut names = Stack::new()?;
        for encoded in &asked.names {
            names.push(X509Name::from_der(encoded)?)?;
        }
        ssl.set_client_ca_list(names);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_by_name() {
        let authorities = Authorities::default();
        let request = CertificateRequest::default();
        let mut requests = CertificateRequests::default();
        assert!(!requests.asks(None) && !requests.asks(Some("a.test")));
        for name in ["A.test", "*.b.test", "c.*"] {
            requests.ask(&NamePattern::parse(name), &request, &authorities);
        }
        for (name, asked) in [
            (Some("a.test"), true),
            (Some("x.b.test"), true),
            (Some("c.org"), true),
            (Some("b.test"), false),
            (Some("x.test"), false),
            (None, false),
        ] {
            assert_eq!(requests.asks(name), asked, "{name:?}");
        }
        requests.ask_everyone(&request, &authorities);
        assert!(requests.asks(None) && requests.asks(Some("x.test")));
    }
}
