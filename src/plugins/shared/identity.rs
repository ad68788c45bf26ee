//! Who calls: attaching a principal to the exchange and telling the upstream in headers.

use std::sync::{Arc, LazyLock};

use http::HeaderValue;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::model::plan::PrincipalPlan;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;
use crate::runtime::snapshot::{Credential, Principal, Snapshot, id_value};
use crate::runtime::titled::TitledName;
use crate::runtime::told::FieldSet;

static ID: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("X-Consumer-ID"));
static CUSTOM_ID: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("X-Consumer-Custom-ID"));
static USERNAME: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("X-Consumer-Username"));
static CREDENTIAL: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("X-Credential-Identifier"));
static ANONYMOUS: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("X-Anonymous-Consumer"));

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
    exchange.tell_upstream(&*CREDENTIAL, Some(identifier));
    exchange.identity.credential = Some(credential);
}

fn attach(exchange: &mut Exchange, principal: Arc<Principal>) {
    exchange.tell_upstream_set(principal.told(fields_of));
    exchange.identity.principal = Some(principal);
}

/// Names that no header can carry are left out.
fn fields_of(plan: &PrincipalPlan) -> FieldSet {
    let value = |name: &Option<Arc<str>>| {
        let name = name.as_deref()?;
        HeaderValue::from_bytes(name.as_bytes()).ok()
    };
    FieldSet::new([
        (&ID, Some(id_value(&plan.id))),
        (&CUSTOM_ID, value(&plan.custom_id)),
        (&USERNAME, value(&plan.username)),
        // Unless the principal stands in for somebody: that is told then.
        (&ANONYMOUS, None),
    ])
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
        exchange.tell_upstream(&*ANONYMOUS, Some(HeaderValue::from_static("true")));
        exchange.tell_upstream(&*CREDENTIAL, None);
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
