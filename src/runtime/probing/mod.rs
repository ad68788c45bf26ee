//! Probes: the gateway asks the addresses of upstreams how they are, whether traffic goes there or not.
//!
//! ```text
//! Cluster ── attention ──▶ prober ── wheel ──▶ due ──▶ probe ──▶ outcome ──▶ Cluster::probed
//!   ▲ new addresses, plan,    ▲                                    │
//!   │ changes of health       └──────── again after the interval ──┘
//! ```
//!
//! Owns *when* and *how* an address is asked; one task with a timer wheel keeps all appointments, so that ten thousand
//! addresses cost little more than their probes. Refuses to know what outcomes mean: the cluster counts them, together
//! with those of traffic. Probes run beside the proxy's workers, never on them. Start at [`start`].

use tokio::runtime::Handle;

use crate::runtime::cluster::Attention;
use crate::runtime::live::Live;

mod grpc;
mod probe;
mod prober;
mod wheel;

/// Starts probing on `runtime`, for all clusters of this process, until the runtime ends.
pub fn start(live: &Live, runtime: &Handle) {
    runtime.spawn(prober::run(Attention::of(live)));
}

#[cfg(test)]
mod tests;
