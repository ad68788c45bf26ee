//! The certificates that virtual hosts demand of their clients, and what variables tell of them.
//!
//! Who has to be asked in the handshake is said by the plugin; here the answer is judged, once for each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use boring::nid::Nid;
use boring::x509::X509NameRef;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use crate::base::certificate;
use crate::dialects::apigee::program::ClientCertificates;
use crate::dialects::apigee::variables::Value;
use crate::model::route::NamePattern;
use crate::runtime::authorities::TrustSet;
use crate::runtime::certificate_requests::CertificateRequest;
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::LocalResponse;
use crate::runtime::snapshot::Snapshot;

/// Tells the rules of virtual hosts apart where verdicts are remembered.
static NUMBER: AtomicU64 = AtomicU64::new(1);
/// Above the numbers that other steps give their rules.
const OWN: u64 = 1 << 63;

/// What one virtual host demands.
pub(crate) struct Clients {
    plan: ClientCertificates,
    number: u64,
    trust: ArcSwapOption<Trust>,
}

/// Trust as of one state of the authorities.
struct Trust {
    generation: u64,
    set: TrustSet,
}

impl Clients {
    pub(super) fn link(plan: ClientCertificates) -> Self {
        Self {
            plan,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            trust: ArcSwapOption::empty(),
        }
    }

    /// What several virtual hosts want of the handshake.
    pub(super) fn request<'a>(all: impl Iterator<Item = &'a Self>) -> Option<CertificateRequest> {
        let mut request: Option<CertificateRequest> = None;
        let (mut everyone, mut silent) = (false, false);
        for clients in all {
            let request = request.get_or_insert_default();
            everyone |= clients.plan.server_names.is_empty();
            silent |= clients.plan.unverified;
            request.authorities.extend(&clients.plan.authorities);
            let names = clients.plan.server_names.iter();
            request
                .server_names
                .extend(names.map(|name| NamePattern::parse(name)));
        }
        if let Some(request) = &mut request {
            if everyone {
                request.server_names.clear();
            }
            if silent {
                request.authorities.clear();
            }
        }
        request
    }

    /// The certificate that this client has shown, if it is accepted.
    ///
    /// # Errors
    /// The answer for clients that are not let in.
    pub(super) fn judge(
        &self,
        exchange: &Exchange,
    ) -> Result<Arc<ClientCertificate>, Box<LocalResponse>> {
        let shown = exchange.connection.tls.get();
        let shown = shown.and_then(|facts| facts.client_certificate.clone());
        let Some(shown) = shown else {
            return Err(Box::new(refused("No required SSL certificate was sent")));
        };
        if self.plan.unverified {
            return Ok(shown);
        }
        let verdict = self.trust(&exchange.snapshot).and_then(|trust| {
            // Rules and generations are counted far below these widths.
            let number = OWN | self.number << 40 | (trust.generation & ((1 << 40) - 1));
            shown.verify(number, &trust.set, exchange.started)
        });
        match verdict {
            Ok(_) => Ok(shown),
            Err(reason) => {
                tracing::debug!(%reason, "client certificate refused");
                Err(Box::new(refused("The SSL certificate error")))
            }
        }
    }

    fn trust(&self, snapshot: &Snapshot) -> Result<Arc<Trust>, String> {
        let generation = snapshot.authorities.generation();
        if let Some(known) = self.trust.load_full()
            && known.generation == generation
        {
            return Ok(known);
        }
        let set = snapshot.authorities.trust(&self.plan.authorities, false)?;
        let trust = Arc::new(Trust { generation, set });
        self.trust.store(Some(Arc::clone(&trust)));
        Ok(trust)
    }
}

/// The page that routers of the dialect show.
fn refused(reason: &str) -> LocalResponse {
    let page = format!(
        "<html><head><title>400 {reason}</title></head><body><center><h1>400 Bad Request</h1></center>\
         <center>{reason}</center></body></html>\n"
    );
    LocalResponse::new(StatusCode::BAD_REQUEST)
        .header(CONTENT_TYPE, HeaderValue::from_static("text/html"))
        .body(Bytes::from(page))
}

/// A variable of the group `client` that tells of the accepted certificate.
pub(super) fn client_variable(shown: &ClientCertificate, rest: &str) -> Option<Value<'static>> {
    let field = match rest {
        "cn" => Nid::COMMONNAME,
        "country" => Nid::COUNTRYNAME,
        "locality" => Nid::LOCALITYNAME,
        "state" => Nid::STATEORPROVINCENAME,
        "organization" => Nid::ORGANIZATIONNAME,
        "organization.unit" => Nid::ORGANIZATIONALUNITNAME,
        "email.address" => Nid::PKCS9_EMAILADDRESS,
        _ => return None,
    };
    entry(shown.leaf.subject_name(), field).map(Value::from)
}

/// A variable of the group `tls.client` that tells of the accepted certificate.
pub(super) fn tls_variable(shown: &ClientCertificate, rest: &str) -> Option<Value<'static>> {
    let leaf = &shown.leaf;
    let text = match rest {
        "s.dn" => certificate::distinguished_name(leaf.subject_name()),
        "i.dn" => certificate::distinguished_name(leaf.issuer_name()),
        "serial" => shown.serial_number(),
        "raw.cert" => leaf
            .to_pem()
            .ok()
            .and_then(|pem| String::from_utf8(pem).ok()),
        "cert.fingerprint" => leaf
            .digest(boring::hash::MessageDigest::sha1())
            .ok()
            .map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => None,
    };
    text.map(Value::from)
}

fn entry(name: &X509NameRef, field: Nid) -> Option<String> {
    let entry = name.entries_by_nid(field).next()?;
    Some(entry.data().as_utf8().ok()?.to_string())
}
