//! `PopulateCache`: puts a variable's value into a cache.

use serde::{Deserialize, Serialize};

use super::caching::{Expiry, Place, read_expiry, read_place};
use super::texts::variable;
use super::{Parsed, PolicyReader};

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub place: Place,
    #[serde(default)]
    pub expiry: Expiry,
    /// The variable that is kept; of a message its body.
    pub source: String,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let place = read_place(reader);
    let expiry = read_expiry(&mut reader.fields, reader.findings);
    let root = reader.fields.element();
    let source = reader.fields.required_text("Source", reader.findings);
    let source = source.and_then(|name| variable(&name, root, reader.findings));
    let (place, named) = place?;
    let config = Config {
        place,
        expiry,
        source: source?,
    };
    Some(reader.parsed(&config)?.with_cache(named))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;
    use crate::dialects::apigee::policies::texts::RefOrText;

    #[test]
    fn expiry_has_four_spellings() {
        let text = |text: &str| {
            Some(RefOrText {
                reference: None,
                text: Some(text.to_owned()),
            })
        };
        for (written, expected) in [
            (
                "<TimeoutInSec>9</TimeoutInSec><TimeoutInSeconds>5</TimeoutInSeconds>",
                Expiry {
                    seconds: text("5"),
                    ..Expiry::default()
                },
            ),
            (
                "<TimeoutInSec>9</TimeoutInSec><valuesNull>false</valuesNull>",
                Expiry {
                    seconds: text("9"),
                    ..Expiry::default()
                },
            ),
            (
                "<TimeOfDay>14:30:00</TimeOfDay><ExpiryDate>12-31-2030</ExpiryDate>",
                Expiry {
                    time_of_day: text("14:30:00"),
                    date: text("12-31-2030"),
                    ..Expiry::default()
                },
            ),
        ] {
            let (config, findings, _) = read::<Config>(&format!(
                "<PopulateCache name='p'><CacheKey><KeyFragment>a</KeyFragment></CacheKey>\
                 <ExpirySettings>{written}</ExpirySettings><Source>x</Source></PopulateCache>"
            ));
            assert!(findings.is_empty(), "{findings:?}");
            assert_eq!(config.unwrap().expiry, expected);
        }
        for wrong in [
            "<TimeoutInSec>soon</TimeoutInSec>",
            "<TimeOfDay>25:00:00</TimeOfDay>",
            "<ExpiryDate>31-12-2030</ExpiryDate>",
        ] {
            let (_, findings, _) = read::<Config>(&format!(
                "<PopulateCache name='p'><CacheKey/><ExpirySettings>{wrong}</ExpirySettings>\
                 <Source>x</Source></PopulateCache>"
            ));
            assert!(findings.iter().any(|one| one.is_error()), "{wrong}");
        }
    }
}
