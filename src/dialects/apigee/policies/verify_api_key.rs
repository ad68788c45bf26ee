//! `VerifyAPIKey`: lets calls of approved keys pass.

use serde::{Deserialize, Serialize};

use super::texts::{RefOrText, place};
use super::{Parsed, PolicyReader};

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub key: RefOrText,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let Some(element) = reader.fields.child("APIKey", findings) else {
        reader.error(
            "missing-key",
            "<APIKey> is missing, expected <APIKey ref=\"VARIABLE\"/> (SpecifyValueOrRefApiKey)",
        );
        return None;
    };
    let key = RefOrText::read(element, findings);
    if key.is_empty() {
        findings.error(
            "missing-key",
            place(element),
            "needs a ref attribute or a text (SpecifyValueOrRefApiKey)",
        );
        return None;
    }
    reader.parsed(&Config { key })
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn a_key_must_come_from_somewhere() {
        let (config, _, _) = read::<Config>(
            "<VerifyAPIKey name='v'><APIKey ref='request.queryparam.apikey'/></VerifyAPIKey>",
        );
        let reference = config.and_then(|config| config.key.reference);
        assert_eq!(reference.as_deref(), Some("request.queryparam.apikey"));
        for text in [
            "<VerifyAPIKey name='v'/>",
            "<VerifyAPIKey name='v'><APIKey/></VerifyAPIKey>",
        ] {
            let (config, findings, _) = read::<Config>(text);
            assert!(config.is_none() && findings.iter().any(|one| one.is_error()));
        }
    }
}
