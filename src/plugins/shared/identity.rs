//! Who calls: attaching a principal to the exchange and telling the upstream in headers.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use uuid::Uuid;

use super::headers::set_request;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;
use crate::runtime::snapshot::{Credential, Principal, Snapshot};

const ID: &str = "X-Consumer-ID";
const CUSTOM_ID: &str = "X-Consumer-Custom-ID";
const USERNAME: &str = "X-Consumer-Username";
const CREDENTIAL: &str = "X-Credential-Identifier";
const ANONYMOUS: &str = "X-Anonymous-Consumer";
// The same for look-ups, which need no letter case.
const CUSTOM_ID_KEY: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const USERNAME_KEY: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL_KEY: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS_KEY: HeaderName = HeaderName::from_static("x-anonymous-consumer");

/// Attaches an authenticated principal. `identifier` is what the upstream is told about the credential.
///
/// Headers of the same names that the client sent are overwritten or removed.
pub(crate) fn authenticate(
    exchange: &mut Exchange,
    principal: Arc<Principal>,
    credential: Arc<Credential>,
    identifier: HeaderValue,
) {
    attach(exchange, principal);
    let head = &mut exchange.request;
    set_request(head, CREDENTIAL, identifier);
    head.remove_header(&ANONYMOUS_KEY);
    exchange.identity.credential = Some(credential);
}

fn attach(exchange: &mut Exchange, principal: Arc<Principal>) {
    let head = &mut exchange.request;
    let values = principal.values();
    set_request(head, ID, values.id.clone());
    for (name, key, value) in [
        (CUSTOM_ID, CUSTOM_ID_KEY, &values.custom_id),
        (USERNAME, USERNAME_KEY, &values.username),
    ] {
        match value {
            Some(value) => set_request(head, name, value.clone()),
            None => {
                head.remove_header(&key);
            }
        }
    }
    exchange.identity.principal = Some(principal);
}

/// The principal that stands in for callers who prove nothing, as configured: by id or by user name.
pub(crate) struct Anonymous {
    configured: String,
    id: Option<Uuid>,
    /// The last answer to a search by name, so that requests do not search.
    found: Mutex<Option<Found>>,
}

enum Found {
    Principal(Arc<Principal>),
    /// There was none in this revision.
    Missing(u64),
}

impl Anonymous {
    pub(crate) fn new(configured: String) -> Self {
        Self {
            id: Uuid::try_parse(&configured).ok(),
            configured,
            found: Mutex::new(None),
        }
    }

    /// Attaches the stand-in. A stand-in that does not exist is the gateway's fault.
    pub(crate) fn attach(&self, exchange: &mut Exchange) -> Result<(), Box<Fault>> {
        let Some(principal) = self.find(&exchange.snapshot) else {
            return Err(Box::new(Fault::refuse(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "anonymous consumer {} is configured but doesn't exist",
                    self.configured
                ),
            )));
        };
        attach(exchange, principal);
        let head = &mut exchange.request;
        set_request(head, ANONYMOUS, HeaderValue::from_static("true"));
        head.remove_header(&CREDENTIAL_KEY);
        exchange.identity.credential = None;
        Ok(())
    }

    /// The configured principal, if it exists.
    pub(crate) fn find(&self, snapshot: &Snapshot) -> Option<Arc<Principal>> {
        if let Some(id) = &self.id
            && let Some(principal) = snapshot.principal(id)
        {
            return Some(principal.clone());
        }
        let mut found = self.found.lock();
        match &*found {
            Some(Found::Principal(known)) => {
                let present = snapshot.principal(&known.plan.id);
                if let Some(present) = present
                    && present.plan.username.as_deref() == Some(&self.configured)
                {
                    return Some(present.clone());
                }
            }
            Some(Found::Missing(revision)) if *revision == snapshot.revision => return None,
            _ => {}
        }
        let named = snapshot
            .directory
            .principal_named(&self.configured)
            .filter(|principal| principal.plan.username.as_deref() == Some(&self.configured))
            .cloned();
        *found = Some(match &named {
            Some(principal) => Found::Principal(principal.clone()),
            None => Found::Missing(snapshot.revision),
        });
        named
    }
}
