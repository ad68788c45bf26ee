//! What stands in for a plugin instance that cannot be linked: every request and stream that would run it is
//! refused.
//!
//! Leaving the instance out would open a route whose authentication is broken.

use async_trait::async_trait;
use http::StatusCode;

use crate::runtime::contract::{Flow, Phases, Plugin};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;
use crate::runtime::session::{Closing, Session, Verdict};

/// Refuses; the reason was reported when linking failed, and is repeated in the log of each request.
pub(super) struct Unlinkable {
    pub(super) reason: String,
}

#[async_trait]
impl Plugin for Unlinkable {
    fn phases(&self) -> Phases {
        Phases::ACCESS.with(Phases::PREREAD)
    }

    fn access(&self, _exchange: &mut Exchange) -> Flow {
        let mut fault = Fault::refuse(StatusCode::INTERNAL_SERVER_ERROR, "").cause(&*self.reason);
        // The status' usual text: what is broken is not the client's to know.
        fault.message = None;
        Flow::fault(fault)
    }

    async fn preread(&self, _session: &mut Session) -> Verdict {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Verdict::Close(Closing::new(status, &*self.reason))
    }
}
