//! How many lines for logs were dropped or could not be delivered, by way out, for the metrics page.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::runtime::node::NodePart;

/// Lines for servers over TCP or TLS.
pub(crate) static TCP: AtomicU64 = AtomicU64::new(0);
/// Messages for servers over UDP.
pub(crate) static UDP: AtomicU64 = AtomicU64::new(0);
/// Lines for files.
pub(crate) static FILE: AtomicU64 = AtomicU64::new(0);

const METRIC: &str = "sallyport_log_lines_lost_total";

/// The counts as a part of the node; see the module.
pub struct LostLines;

fn counts() -> [(&'static str, u64); 3] {
    [("tcp", &TCP), ("udp", &UDP), ("file", &FILE)]
        .map(|(way, count)| (way, count.load(Ordering::Relaxed)))
}

impl NodePart for LostLines {
    fn name(&self) -> &'static str {
        "log_lines_lost"
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn metrics(&self, page: &mut String) {
        let _ = write!(
            page,
            "# HELP {METRIC} Lines for logs that were dropped or not delivered\n# TYPE {METRIC} counter\n"
        );
        for (way, count) in counts() {
            let _ = writeln!(page, "{METRIC}{{way=\"{way}\"}} {count}");
        }
    }

    fn status(&self) -> Value {
        let [(_, tcp), (_, udp), (_, file)] = counts();
        json!({ "tcp": tcp, "udp": udp, "file": file })
    }
}
