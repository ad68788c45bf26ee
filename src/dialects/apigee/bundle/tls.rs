//! `<SSLInfo>`: TLS of a connection. Some of its texts may be templates that every request fills anew.

use serde::{Deserialize, Serialize};

use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Most names in a list of ciphers or protocols.
const NAMES_MAX: usize = 200;

/// TLS as a bundle, a target server or a virtual host asks for it. Texts are as written: `true`, a name, `ref://NAME`, or
/// a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsInfo {
    /// Absent: as the URL's scheme says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_store: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_store: Option<String>,
    pub ignore_validation_errors: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_name: Option<CommonName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
}

/// The name that a peer's certificate must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonName {
    pub name: String,
    /// `*.a.test` stands for one label before `a.test`; otherwise it is compared as written.
    pub wildcard: bool,
}

impl TlsInfo {
    /// Does some text depend on the request?
    pub fn is_dynamic(&self) -> bool {
        let texts = [
            &self.enabled,
            &self.client_auth,
            &self.key_store,
            &self.key_alias,
            &self.trust_store,
        ];
        texts.into_iter().flatten().any(|text| text.contains('{'))
    }
}

/// Reads `<SSLInfo>`.
pub fn read_tls(element: Element<'_>, findings: &mut Findings) -> TlsInfo {
    let mut fields = Fields::new(element);
    let mut text = |name: &'static str, findings: &mut Findings| {
        fields
            .filled_text(name, findings)
            .map(|text| text.into_owned())
    };
    let enabled = text("Enabled", findings);
    let client_auth = text("ClientAuthEnabled", findings);
    let key_store = text("KeyStore", findings);
    let key_alias = text("KeyAlias", findings);
    let trust_store = text("TrustStore", findings);
    for (name, value) in [("Enabled", &enabled), ("ClientAuthEnabled", &client_auth)] {
        if let Some(value) = value
            && !value.contains('{')
            && crate::dialects::apigee::xml::boolean_of(value).is_none()
        {
            let message =
                format!("<{name}> must be true, false or a variable in braces, not '{value}'");
            findings.error("invalid-value", element.place().about("<SSLInfo>"), message);
        }
    }
    let ignore_validation_errors = fields.boolean("IgnoreValidationErrors", false, findings);
    let common_name = fields.child("CommonName", findings).and_then(|element| {
        let mut fields = Fields::new(element);
        let wildcard = fields.boolean_attribute("wildcardMatch", false, findings);
        fields.finish(findings);
        let name = element.text().into_owned();
        (!name.is_empty()).then_some(CommonName { name, wildcard })
    });
    let ciphers = names(&mut fields, "Ciphers", "Cipher", findings);
    let protocols = names(&mut fields, "Protocols", "Protocol", findings);
    for name in ["CRLStore", "CertAlias", "KeyHsm", "OCSP", "Enforce"] {
        if let Some(child) = fields.child(name, findings)
            && !child.text().is_empty()
        {
            findings.warning(
                "no-effect",
                child.place().about(format!("<{name}>")),
                "has no effect",
            );
        }
    }
    fields.finish(findings);
    TlsInfo {
        enabled,
        client_auth,
        key_store,
        key_alias,
        trust_store,
        ignore_validation_errors,
        common_name,
        ciphers,
        protocols,
    }
}

fn names(
    fields: &mut Fields<'_>,
    list: &'static str,
    item: &'static str,
    findings: &mut Findings,
) -> Vec<String> {
    let Some(element) = fields.child(list, findings) else {
        return Vec::new();
    };
    let mut fields = Fields::new(element);
    let names = fields.children(item).map(|child| child.text().into_owned());
    let names: Vec<_> = names
        .filter(|name| !name.is_empty())
        .take(NAMES_MAX)
        .collect();
    fields.finish(findings);
    names
}
