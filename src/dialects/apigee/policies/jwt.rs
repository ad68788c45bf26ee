//! `GenerateJWT`, `VerifyJWT`, `DecodeJWT` and the same three for JWS.

use serde::{Deserialize, Serialize};

use super::texts::{RefOrText, place, variable};
use super::{Bodies, Parsed, PolicyReader};
use crate::base::jose::{Algorithm, Family, KeySet};
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Most additional claims, and headers.
const CLAIMS_MAX: usize = 200;
/// Claims that have an element of their own.
const RESERVED_CLAIMS: [&str; 8] = ["kid", "iss", "sub", "aud", "iat", "exp", "nbf", "jti"];
/// Headers that nobody may set.
const RESERVED_HEADERS: [&str; 4] = ["alg", "kid", "crit", "b64"];

/// What a token holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Claims.
    Jwt,
    /// Anything.
    Jws,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Generate,
    Verify,
    Decode,
}

/// How a secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Text,
    Hexadecimal,
    Base64,
    Base64Url,
}

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A shared secret in a variable.
    Secret {
        variable: String,
        encoding: Encoding,
    },
    /// A PEM text in a variable, and the passphrase in another.
    Private {
        variable: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase: Option<String>,
    },
    /// A public key or certificate in PEM form.
    Public(RefOrText),
    /// A set of keys in JSON form.
    KeySet(RefOrText),
    /// A set that somebody serves.
    KeySetUrl(RefOrText),
}

/// The type of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimType {
    Text,
    Number,
    Boolean,
    /// A JSON object.
    Map,
}

/// A further claim or header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub name: String,
    pub value: RefOrText,
    #[serde(rename = "type")]
    pub kind: ClaimType,
    /// A list whose members stand between commas.
    pub is_list: bool,
}

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub kind: Kind,
    pub action: Action,
    /// The one to sign with, or those that are taken.
    pub algorithms: Vec<Algorithm>,
    /// The variable that holds the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The variable that takes the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub key_id: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub subject: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub issuer: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub audience: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub id: RefOrText,
    /// A new token gets an identifier of its own.
    #[serde(default)]
    pub makes_id: bool,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub expires_in: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub not_before: RefOrText,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// A variable with a JSON object of claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims_variable: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Claim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_variable: Option<String>,
    /// Names of headers between commas that a reader must understand.
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub critical_headers: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub known_headers: RefOrText,
    #[serde(default)]
    pub ignores_critical_headers: bool,
    #[serde(default)]
    pub ignores_unresolved: bool,
    #[serde(default)]
    pub ignores_issued_at: bool,
    /// By how much clocks may differ.
    #[serde(default)]
    pub allowance_ms: i64,
    /// What a JWS holds.
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub payload: RefOrText,
    /// The payload travels apart.
    #[serde(default)]
    pub detaches: bool,
    /// The variable with the payload that travelled apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detached: Option<String>,
}

/// Milliseconds of a text such as `30m`, `1h`, `2d`, `15s`, `500ms` or `500`.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

pub(super) fn parse_generate_jwt(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Kind::Jwt, Action::Generate)
}

pub(super) fn parse_verify_jwt(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Kind::Jwt, Action::Verify)
}

pub(super) fn parse_decode_jwt(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Kind::Jwt, Action::Decode)
}

pub(super) fn parse_generate_jws(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Kind::Jws, Action::Generate)
}

pub(super) fn parse_verify_jws(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Kind::Jws, Action::Verify)
}

pub(super) fn parse_decode_jws(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Kind::Jws, Action::Decode)
}

fn parse(reader: &mut PolicyReader<'_, '_>, kind: Kind, action: Action) -> Option<Parsed> {
    let (fields, findings) = (&mut reader.fields, &mut *reader.findings);
    let errors_before = findings
        .as_slice()
        .iter()
        .filter(|one| one.is_error())
        .count();
    refuse_encryption(fields, findings);
    let mut config = Config {
        kind,
        action,
        algorithms: Vec::new(),
        source: None,
        output: None,
        key: None,
        key_id: RefOrText::default(),
        subject: RefOrText::default(),
        issuer: RefOrText::default(),
        audience: RefOrText::default(),
        id: RefOrText::default(),
        makes_id: false,
        expires_in: RefOrText::default(),
        not_before: RefOrText::default(),
        claims: Vec::new(),
        claims_variable: None,
        headers: Vec::new(),
        headers_variable: None,
        critical_headers: RefOrText::default(),
        known_headers: RefOrText::default(),
        ignores_critical_headers: false,
        ignores_unresolved: fields.boolean("IgnoreUnresolvedVariables", false, findings),
        ignores_issued_at: false,
        allowance_ms: 0,
        payload: RefOrText::default(),
        detaches: false,
        detached: None,
    };
    match action {
        Action::Generate => config.output = named_variable(fields, "OutputVariable", findings),
        _ => config.source = named_variable(fields, "Source", findings),
    }
    if action != Action::Decode {
        read_signature(fields, &mut config, findings);
        if kind == Kind::Jwt {
            read_claims(fields, &mut config, findings);
        }
        let headers = fields.child("AdditionalHeaders", findings);
        if let Some(list) = headers {
            (config.headers, config.headers_variable) =
                read_list(list, &RESERVED_HEADERS, "Header", findings);
        }
    }
    match (kind, action) {
        (_, Action::Verify) => {
            config.known_headers = reference(fields, "KnownHeaders", findings);
            config.ignores_critical_headers =
                fields.boolean("IgnoreCriticalHeaders", false, findings);
            config.detached = match kind {
                Kind::Jws => named_variable(fields, "DetachedContent", findings),
                Kind::Jwt => None,
            };
        }
        (_, Action::Generate) => {
            config.critical_headers = reference(fields, "CriticalHeaders", findings);
            if kind == Kind::Jws {
                config.payload = reference(fields, "Payload", findings);
                config.detaches = fields.boolean("DetachContent", false, findings);
                if config.payload.is_empty() {
                    let message = "needs <Payload> with a ref attribute or a text (MissingConfigurationElement)";
                    findings.error("missing-element", fields.place(), message);
                }
            }
        }
        (_, Action::Decode) => {}
    }
    let errors = findings
        .as_slice()
        .iter()
        .filter(|one| one.is_error())
        .count();
    if errors > errors_before {
        return None;
    }
    let bodies = config.bodies();
    Some(reader.parsed(&config)?.with_bodies(bodies))
}

impl Config {
    /// The bodies that its variables speak of.
    fn bodies(&self) -> Bodies {
        let parts = [
            &self.subject,
            &self.issuer,
            &self.audience,
            &self.id,
            &self.payload,
            &self.expires_in,
            &self.not_before,
        ];
        let claims = self.claims.iter().chain(&self.headers);
        let names = [
            &self.source,
            &self.detached,
            &self.claims_variable,
            &self.headers_variable,
        ];
        let own = names.into_iter().filter_map(|name| name.as_deref());
        parts
            .into_iter()
            .filter_map(|part| part.reference.as_deref())
            .chain(claims.filter_map(|claim| claim.value.reference.as_deref()))
            .chain(own)
            .map(Bodies::in_text)
            .fold(Bodies::NONE, Bodies::with)
    }
}

/// What Apigee knows and this does not.
fn refuse_encryption(fields: &mut Fields<'_>, findings: &mut Findings) {
    let encrypted = "encrypted tokens (JWE) cannot be made or read";
    fields.refuse("Algorithms", encrypted, findings);
    fields.refuse("DirectKey", encrypted, findings);
    fields.refuse("PasswordKey", encrypted, findings);
    fields.refuse("MaxLifespan", "check the claims with a condition", findings);
    if fields.boolean("Compress", false, findings) {
        let message = "<Compress> is for encrypted tokens (JWE), which cannot be made or read";
        findings.error("unsupported-element", fields.place(), message);
    }
    if let Some(element) = fields.child("Type", findings)
        && !matches!(&*element.text(), "" | "Signed")
    {
        let message = format!("'{}' is not supported, {encrypted}", element.text());
        findings.error("unsupported-element", place(element), message);
    }
}

/// The variable that an element names by its text or its `ref` attribute.
fn named_variable(
    fields: &mut Fields<'_>,
    name: &'static str,
    findings: &mut Findings,
) -> Option<String> {
    let element = fields.child(name, findings)?;
    let read = RefOrText::read(element, findings);
    match (read.reference, read.text) {
        (Some(name), _) => Some(name),
        (None, Some(text)) => variable(&text, element, findings),
        (None, None) => None,
    }
}

fn reference(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> RefOrText {
    let element = fields.child(name, findings);
    element
        .map(|element| RefOrText::read(element, findings))
        .unwrap_or_default()
}

fn read_signature(fields: &mut Fields<'_>, config: &mut Config, findings: &mut Findings) {
    let at = fields.place();
    match fields.child("Algorithm", findings) {
        None => {
            let message = "needs <Algorithm>, such as RS256 (MissingConfigurationElement)";
            findings.error("missing-element", at.clone(), message);
        }
        Some(element) => {
            for word in element.text().split(',').map(str::trim) {
                match Algorithm::from_name(word) {
                    Some(algorithm) => config.algorithms.push(algorithm),
                    None => {
                        let all = Algorithm::ALL.map(Algorithm::name).join(", ");
                        let message = format!(
                            "'{word}' is not supported, allowed are {all} (InvalidValueForElement)"
                        );
                        findings.error("invalid-value", place(element), message);
                    }
                }
            }
            let several = config.algorithms.len() > 1;
            if several && config.action == Action::Generate {
                let message = "needs one algorithm to sign with (InvalidValueForElement)";
                findings.error("invalid-value", place(element), message);
            }
        }
    }
    let keys = read_keys(fields, config, findings);
    let Ok([key]) = <[Key; 1]>::try_from(keys) else {
        let message = "needs exactly one of <SecretKey>, <PrivateKey> and <PublicKey> (InvalidKeyConfiguration)";
        findings.error("missing-element", at, message);
        return;
    };
    let fits = |algorithm: &Algorithm| match (&key, algorithm.family()) {
        (Key::Secret { .. }, family) => family == Family::Hmac,
        (Key::Private { .. }, family) => {
            family != Family::Hmac && config.action == Action::Generate
        }
        (_, family) => family != Family::Hmac && config.action == Action::Verify,
    };
    if let Some(wrong) = config.algorithms.iter().find(|one| !fits(one)) {
        let wanted = match (wrong.family(), config.action) {
            (Family::Hmac, _) => "<SecretKey>",
            (_, Action::Generate) => "<PrivateKey>",
            _ => "<PublicKey>",
        };
        let message = format!(
            "{} needs {wanted} (InvalidFamilyForAlgorithm)",
            wrong.name()
        );
        findings.error("invalid-key", at, message);
    }
    config.key = Some(key);
}

fn read_keys(fields: &mut Fields<'_>, config: &mut Config, findings: &mut Findings) -> Vec<Key> {
    let mut keys = Vec::new();
    if let Some(element) = fields.child("SecretKey", findings) {
        let mut inner = Fields::new(element);
        let words = [
            ("hex", Encoding::Hexadecimal),
            ("base16", Encoding::Hexadecimal),
            ("base64", Encoding::Base64),
            ("base64url", Encoding::Base64Url),
            ("utf-8", Encoding::Text),
        ];
        let encoding = inner.choice_attribute("encoding", &words, findings);
        let value = key_variable(&mut inner, "Value", true, findings);
        config.key_id = reference(&mut inner, "Id", findings);
        inner.finish(findings);
        keys.extend(value.map(|variable| Key::Secret {
            variable,
            encoding: encoding.unwrap_or(Encoding::Text),
        }));
    }
    if let Some(element) = fields.child("PrivateKey", findings) {
        let mut inner = Fields::new(element);
        let value = key_variable(&mut inner, "Value", true, findings);
        let passphrase = key_variable(&mut inner, "Password", false, findings);
        config.key_id = reference(&mut inner, "Id", findings);
        inner.finish(findings);
        keys.extend(value.map(|variable| Key::Private {
            variable,
            passphrase,
        }));
    }
    if let Some(element) = fields.child("PublicKey", findings) {
        keys.extend(read_public(element, findings));
    }
    keys
}

fn read_public(element: Element<'_>, findings: &mut Findings) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut inner = Fields::new(element);
    for name in ["Value", "Certificate"] {
        let written = reference(&mut inner, name, findings);
        if !written.is_empty() {
            keys.push(Key::Public(written));
        }
    }
    if let Some(set) = inner.child("JWKS", findings) {
        let mut fields = Fields::new(set);
        let [reference, url, url_reference] =
            ["ref", "uri", "uriRef"].map(|name| fields.attribute_text(name).map(str::to_owned));
        fields.finish(findings);
        let text = set.text();
        match (reference, url, url_reference, text.is_empty()) {
            (reference @ Some(_), None, None, _) => keys.push(Key::KeySet(RefOrText {
                reference,
                text: None,
            })),
            (None, None, None, false) => {
                if let Err(reason) = KeySet::parse(&text) {
                    findings.error("invalid-key", place(set), reason);
                }
                keys.push(Key::KeySet(RefOrText {
                    reference: None,
                    text: Some(text.into_owned()),
                }));
            }
            (None, text, reference, true) if text.is_some() || reference.is_some() => {
                let good = |url: &String| url.starts_with("https://") || url.starts_with("http://");
                if text.as_ref().is_some_and(|url| !good(url)) {
                    let message = "attribute 'uri' must begin with https:// or http://";
                    findings.error("invalid-value", place(set), message);
                }
                keys.push(Key::KeySetUrl(RefOrText { reference, text }));
            }
            _ => {
                let message = "needs one of the attributes ref, uri and uriRef, or a text (InvalidKeyConfiguration)";
                findings.error("invalid-key", place(set), message);
            }
        }
    }
    inner.finish(findings);
    keys
}

/// The variable that holds a secret; it should be a private one.
fn key_variable(
    fields: &mut Fields<'_>,
    name: &'static str,
    required: bool,
    findings: &mut Findings,
) -> Option<String> {
    let element = fields.child(name, findings);
    let written = element.and_then(|element| RefOrText::read(element, findings).reference);
    match (&written, required) {
        (None, true) => {
            let message =
                format!("needs <{name} ref=\"private.VARIABLE\"/> (InvalidKeyConfiguration)");
            findings.error("missing-key", fields.place(), message);
        }
        (Some(variable), _) if !variable.starts_with("private.") => {
            let message =
                format!("variable {variable} shows in traces, its name should begin with private.");
            findings.warning("public-secret", fields.place(), message);
        }
        _ => {}
    }
    written
}

fn read_claims(fields: &mut Fields<'_>, config: &mut Config, findings: &mut Findings) {
    config.subject = reference(fields, "Subject", findings);
    config.issuer = reference(fields, "Issuer", findings);
    config.audience = reference(fields, "Audience", findings);
    if let Some(element) = fields.child("Id", findings) {
        config.id = RefOrText::read(element, findings);
        config.makes_id = config.id.is_empty() && config.action == Action::Generate;
    }
    for name in ["AdditionalClaims", "CustomClaims"] {
        if let Some(list) = fields.child(name, findings) {
            let (claims, variable) = read_list(list, &RESERVED_CLAIMS, "Claim", findings);
            config.claims.extend(claims);
            config.claims_variable = config.claims_variable.take().or(variable);
        }
    }
    match config.action {
        Action::Generate => {
            config.expires_in = duration(fields, "ExpiresIn", findings);
            config.not_before = reference(fields, "NotBefore", findings);
        }
        _ => {
            config.allowance_ms = duration(fields, "TimeAllowance", findings)
                .text
                .and_then(|text| parse_duration_ms(&text))
                .unwrap_or_default();
            config.ignores_issued_at = fields.boolean("IgnoreIssuedAt", false, findings);
        }
    }
}

fn duration(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> RefOrText {
    let Some(element) = fields.child(name, findings) else {
        return RefOrText::default();
    };
    let read = RefOrText::read(element, findings);
    if let Some(text) = &read.text
        && parse_duration_ms(text).is_none()
    {
        let message = format!(
            "'{text}' is no duration, expected one such as 30s, 15m, 1h or 2d (InvalidValueForElement)"
        );
        findings.error("invalid-value", place(element), message);
    }
    read
}

/// Claims or headers, and the variable that holds further ones.
fn read_list(
    list: Element<'_>,
    reserved: &[&str],
    what: &str,
    findings: &mut Findings,
) -> (Vec<Claim>, Option<String>) {
    let mut fields = Fields::new(list);
    let variable = fields.attribute_text("ref").map(str::to_owned);
    let mut claims = Vec::new();
    let children = fields.children("Claim");
    if children.clone().count() > CLAIMS_MAX {
        let message = format!("has more than {CLAIMS_MAX} members");
        findings.error("too-many", place(list), message);
    }
    for element in children.take(CLAIMS_MAX) {
        let mut inner = Fields::new(element);
        let name = inner.attribute_text("name").map(str::to_owned);
        let reference = inner.attribute_text("ref").map(str::to_owned);
        let kind = inner.attribute_text("type").map(str::to_owned);
        let list = inner.attribute_text("array").map(str::to_owned);
        inner.finish(findings);
        let kind = match kind.as_deref() {
            None | Some("string") => ClaimType::Text,
            Some("number") => ClaimType::Number,
            Some("boolean") => ClaimType::Boolean,
            Some("map") => ClaimType::Map,
            Some(other) => {
                let message = format!(
                    "type '{other}' is not known, allowed are string, number, boolean and map (InvalidTypeForAdditional{what})"
                );
                findings.error("invalid-value", place(element), message);
                ClaimType::Text
            }
        };
        let is_list = match list.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let message = format!(
                    "attribute 'array' must be true or false, not '{other}' (InvalidValueOfArrayAttribute)"
                );
                findings.error("invalid-value", place(element), message);
                false
            }
        };
        let Some(name) = name else {
            let message = format!("needs the attribute 'name' (MissingNameForAdditional{what})");
            findings.error("missing-attribute", place(element), message);
            continue;
        };
        if reserved.contains(&name.as_str()) {
            let message = format!("'{name}' has its own element (InvalidNameForAdditional{what})");
            findings.error("invalid-name", place(element), message);
        }
        let text = element.text();
        claims.push(Claim {
            name,
            value: RefOrText {
                reference,
                text: (!text.is_empty()).then(|| text.into_owned()),
            },
            kind,
            is_list,
        });
    }
    fields.finish(findings);
    (claims, variable)
}

#[cfg(test)]
mod tests;
