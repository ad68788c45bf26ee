//! `SpikeArrest`: smooths calls to a rate.

use serde::{Deserialize, Serialize};

use super::texts::{RefOrText, place};
use super::{Parsed, PolicyReader};

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `30ps` or `30pm`.
    pub rate: RefOrText,
    /// A variable; each of its values has a rate of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// A variable; how many calls one counts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
}

/// How many calls in which time, of a text such as `30ps`: microseconds between two calls.
pub fn interval_micros(rate: &str) -> Option<u64> {
    let rate = rate.trim();
    let (count, period) = match (rate.strip_suffix("ps"), rate.strip_suffix("pm")) {
        (Some(count), _) => (count, 1_000_000),
        (_, Some(count)) => (count, 60_000_000),
        _ => return None,
    };
    let count: u64 = count.trim().parse().ok()?;
    (1..=1_000_000)
        .contains(&count)
        .then(|| (period / count).max(1))
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let Some(element) = reader.fields.child("Rate", findings) else {
        reader.error(
            "missing-rate",
            "<Rate> is missing, expected a number with ps or pm",
        );
        return None;
    };
    let rate = RefOrText::read(element, findings);
    let text = rate.text.as_deref();
    if text.is_some_and(|text| interval_micros(text).is_none()) || rate.is_empty() {
        findings.error(
            "invalid-rate",
            place(element),
            "expected a number from 1 with ps (per second) or pm (per minute) (InvalidAllowedRate)",
        );
        return None;
    }
    let mut reference = |name: &'static str| {
        let element = reader.fields.child(name, findings)?;
        RefOrText::read(element, findings).reference
    };
    let (identifier, weight) = (reference("Identifier"), reference("MessageWeight"));
    let counts = reader.fields.boolean("UseEffectiveCount", false, findings);
    if counts {
        let place = reader.fields.place();
        findings.warning(
            "no-effect",
            place,
            "UseEffectiveCount has no effect: every node has the whole rate",
        );
    }
    reader.parsed(&Config {
        rate,
        identifier,
        weight,
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn rates_are_intervals() {
        for (rate, micros) in [
            ("10ps", Some(100_000)),
            ("30pm", Some(2_000_000)),
            (" 1ps ", Some(1_000_000)),
            ("0ps", None),
            ("10", None),
            ("tenps", None),
        ] {
            assert_eq!(interval_micros(rate), micros, "{rate}");
        }
        let (config, findings, _) =
            read::<Config>("<SpikeArrest name='s'><Rate>x</Rate></SpikeArrest>");
        assert!(config.is_none() && findings.iter().any(|one| one.is_error()));
        let (config, _, _) = read::<Config>(
            "<SpikeArrest name='s'><Rate ref='r'>5ps</Rate><Identifier ref='client_id'/></SpikeArrest>",
        );
        let identifier = config.and_then(|config| config.identifier);
        assert_eq!(identifier.as_deref(), Some("client_id"));
    }
}
