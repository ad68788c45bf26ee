//! What a companion prints, line by line in the gateway's log.

use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Longest line; longer ones are told in pieces of this length.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Lines of one stream in one [`PERIOD`]; further ones are counted only.
const LINES_MAX: u32 = 1_000;
const PERIOD: Duration = Duration::from_secs(1);
/// The log's target for events that are told unless only warnings are.
const NOTICE: &str = "sallyport::notice";

/// Which of its two streams.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// Tells everything until the stream ends.
pub(super) async fn tell(name: String, stream: Stream, from: impl AsyncRead + Unpin) {
    let mut from = BufReader::with_capacity(LINE_BYTES_MAX, from);
    let mut line = Vec::new();
    let mut teller = Teller {
        name,
        stream,
        since: Instant::now(),
        told: 0,
        lost: 0,
    };
    loop {
        let piece = match from.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(piece) => piece,
        };
        let end = piece.iter().position(|byte| *byte == b'\n');
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        let taken = end.unwrap_or(piece.len()).min(room);
        line.extend_from_slice(piece.get(..taken).unwrap_or_default());
        let ends = end == Some(taken);
        from.consume(taken + usize::from(ends));
        if ends || line.len() >= LINE_BYTES_MAX {
            teller.tell(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        teller.tell(&line);
    }
    teller.end_period();
}

struct Teller {
    name: String,
    stream: Stream,
    since: Instant,
    told: u32,
    lost: u64,
}

impl Teller {
    fn tell(&mut self, line: &[u8]) {
        if self.since.elapsed() >= PERIOD {
            self.end_period();
        }
        if self.told >= LINES_MAX {
            self.lost += 1;
            return;
        }
        self.told += 1;
        let text: String = String::from_utf8_lossy(line)
            .chars()
            .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
            .collect();
        let text = text.trim_end();
        match self.stream {
            Stream::Output => tracing::info!(target: NOTICE, program = self.name, "{text}"),
            Stream::Errors => tracing::warn!(program = self.name, "{text}"),
        }
    }

    fn end_period(&mut self) {
        if self.lost > 0 {
            let lost = self.lost;
            tracing::warn!(
                program = self.name,
                lost,
                "lines come faster than they are told"
            );
        }
        self.since = Instant::now();
        (self.told, self.lost) = (0, 0);
    }
}
