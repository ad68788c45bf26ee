//! `OAuthV2`: issues tokens and codes, checks them, and revokes them.

use serde::{Deserialize, Serialize};

use super::texts::{RefOrText, place, variable};
use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::oauth::{NEVER, TokenKind};
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// How long an access token lives when nobody says: half an hour.
const ACCESS_LIFE_MS: i64 = 1_800_000;
/// How long a refresh token lives when nobody says: two years.
const REFRESH_LIFE_MS: i64 = 63_072_000_000;
/// How long an authorisation code lives when nobody says: ten minutes.
const CODE_LIFE_MS: i64 = 600_000;
/// Most attributes of a token.
const ATTRIBUTES_MAX: usize = 100;
/// Most tokens that one policy revokes.
const TOKENS_MAX: usize = 16;

/// What the policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    GenerateAccessToken,
    GenerateAccessTokenImplicitGrant,
    GenerateAuthorizationCode,
    RefreshAccessToken,
    VerifyAccessToken,
    /// Approves tokens again.
    ValidateToken,
    /// Revokes tokens.
    InvalidateToken,
}

const OPERATIONS: &[(&str, Operation)] = &[
    ("GenerateAccessToken", Operation::GenerateAccessToken),
    (
        "GenerateAccessTokenImplicitGrant",
        Operation::GenerateAccessTokenImplicitGrant,
    ),
    (
        "GenerateAuthorizationCode",
        Operation::GenerateAuthorizationCode,
    ),
    ("RefreshAccessToken", Operation::RefreshAccessToken),
    ("VerifyAccessToken", Operation::VerifyAccessToken),
    ("ValidateToken", Operation::ValidateToken),
    ("InvalidateToken", Operation::InvalidateToken),
];

impl Operation {
    /// Whether it makes something that has an end.
    fn issues(self) -> bool {
        !matches!(
            self,
            Self::VerifyAccessToken | Self::ValidateToken | Self::InvalidateToken
        )
    }

    /// Whether refresh tokens come of it.
    fn issues_refresh_tokens(self) -> bool {
        matches!(self, Self::GenerateAccessToken | Self::RefreshAccessToken)
    }
}

/// A way to get a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    AuthorizationCode,
    Implicit,
    ClientCredentials,
    Password,
    RefreshToken,
}

impl GrantType {
    /// The grant type of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "authorization_code" => Self::AuthorizationCode,
            "implicit" => Self::Implicit,
            "client_credentials" => Self::ClientCredentials,
            "password" => Self::Password,
            "refresh_token" => Self::RefreshToken,
            _ => return None,
        })
    }

    /// The word of a grant type.
    pub fn word(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::Implicit => "implicit",
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
            Self::RefreshToken => "refresh_token",
        }
    }
}

/// The form of a body that the policy writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    FormParameters,
    Xml,
}

/// An attribute for tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    pub name: String,
    pub value: RefOrText,
    /// It is shown to the client.
    pub display: bool,
}

/// A token to revoke or approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReference {
    pub kind: TokenKind,
    /// What was issued together with it shares its fate.
    pub cascade: bool,
    /// The variable that holds it.
    pub variable: String,
}

/// Variables that hold what a client sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locations {
    pub client_id: String,
    pub grant_type: String,
    pub code: String,
    pub redirect_uri: String,
    pub refresh_token: String,
    pub response_type: String,
    pub scope: String,
    pub state: String,
    pub user_name: String,
    pub password: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_end_user: Option<String>,
}

/// Tokens and codes that somebody else made or allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Somebody else has checked the client; a variable says with which outcome.
    pub authorization: bool,
    /// What was issued on somebody else's word is kept.
    pub store: bool,
    /// Variables that hold what somebody else made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// The answer to a client that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    pub format: Format,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
}

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub operation: Operation,
    pub locations: Locations,
    /// The variable that holds the token; none is the Authorization header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// The word before the token; `-` when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Milliseconds, when the variable says nothing; [`NEVER`] is a value.
    pub expires_in_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_reference: Option<String>,
    pub refresh_expires_in_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_expires_in_reference: Option<String>,
    pub grant_types: Vec<GrantType>,
    /// The message `response` is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Format>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_response: Option<ErrorResponse>,
    pub reuse_refresh_token: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// Scopes of which a token must hold one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenReference>,
    pub external: External,
    /// Answers as RFC 6749 says: a number of seconds, and `Bearer`.
    pub follows_rfc: bool,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let operation = read_operation(reader)?;
    let (fields, findings) = (&mut reader.fields, &mut *reader.findings);
    let verifies = operation == Operation::VerifyAccessToken;
    // The same element names a variable, or says what is wanted.
    let scopes = match verifies {
        true => fields.text("Scope", findings).unwrap_or_default(),
        false => "".into(),
    };
    let scopes = scopes.split_whitespace().map(str::to_owned).collect();
    let locations = read_locations(fields, verifies, findings);
    let default_life = match operation {
        Operation::GenerateAuthorizationCode => CODE_LIFE_MS,
        _ => ACCESS_LIFE_MS,
    };
    let (expires_in_ms, expires_in_reference) = read_life(
        fields,
        Life {
            element: "ExpiresIn",
            applies: operation.issues(),
            default: default_life,
            never: operation != Operation::GenerateAuthorizationCode,
            codes: [
                "InvalidValueForExpiresIn",
                "ExpiresInNotApplicableForOperation",
            ],
        },
        findings,
    );
    let (refresh_expires_in_ms, refresh_expires_in_reference) = read_life(
        fields,
        Life {
            element: "RefreshTokenExpiresIn",
            applies: operation.issues_refresh_tokens(),
            default: REFRESH_LIFE_MS,
            never: true,
            codes: [
                "InvalidValueForRefreshTokenExpiresIn",
                "RefreshTokenExpiresInNotApplicableForOperation",
            ],
        },
        findings,
    );
    let grant_types = read_grant_types(fields, operation, findings);
    let tokens = read_tokens(fields, operation, findings);
    let config = Config {
        operation,
        locations,
        access_token: optional_variable(fields, "AccessToken", findings),
        prefix: fields
            .filled_text("AccessTokenPrefix", findings)
            .map(|text| text.into_owned()),
        expires_in_ms,
        expires_in_reference,
        refresh_expires_in_ms,
        refresh_expires_in_reference,
        grant_types,
        response: read_format(fields, "GenerateResponse", findings).map(|(format, _)| format),
        error_response: read_format(fields, "GenerateErrorResponse", findings)
            .map(|(format, realm)| ErrorResponse { format, realm }),
        reuse_refresh_token: fields.boolean("ReuseRefreshToken", false, findings),
        attributes: fields
            .child("Attributes", findings)
            .map(|element| read_attributes(element, findings))
            .unwrap_or_default(),
        scopes,
        tokens,
        external: External {
            authorization: fields.boolean("ExternalAuthorization", false, findings),
            store: fields.boolean("StoreToken", false, findings),
            access_token: optional_variable(fields, "ExternalAccessToken", findings),
            refresh_token: optional_variable(fields, "ExternalRefreshToken", findings),
            code: optional_variable(fields, "ExternalAuthorizationCode", findings),
        },
        follows_rfc: fields.boolean("RFCCompliantRequestResponse", false, findings),
    };
    // Settings of the organisation at Apigee; nothing here has a use for them.
    fields.ignore(&["OAuthConfig", "SSOConfig"]);
    let bodies = config.bodies();
    Some(reader.parsed(&config)?.with_bodies(bodies))
}

impl Config {
    /// The bodies that it reads or writes.
    fn bodies(&self) -> Bodies {
        let locations = &self.locations;
        let (issues, writes) = (self.operation.issues(), self.response.is_some());
        let mut names: Vec<&str> = vec![self.access_token.as_deref().unwrap_or_default()];
        names.extend(self.tokens.iter().map(|token| token.variable.as_str()));
        if issues {
            names.extend([
                &*locations.client_id,
                &locations.grant_type,
                &locations.code,
                &locations.redirect_uri,
                &locations.refresh_token,
                &locations.response_type,
                &locations.scope,
                &locations.state,
                &locations.user_name,
                &locations.password,
            ]);
            names.extend(locations.app_end_user.as_deref());
        }
        let attributes = self.attributes.iter();
        names.extend(attributes.filter_map(|one| one.value.reference.as_deref()));
        let read = names.into_iter().map(Bodies::in_text);
        let written = match writes {
            true => Bodies::RESPONSE,
            false => Bodies::NONE,
        };
        read.fold(written, Bodies::with)
    }
}

fn read_operation(reader: &mut PolicyReader<'_, '_>) -> Option<Operation> {
    let findings = &mut *reader.findings;
    let Some(element) = reader.fields.child("Operation", findings) else {
        reader.error(
            "missing-element",
            "needs <Operation>, such as VerifyAccessToken (OperationRequired)",
        );
        return None;
    };
    let word = element.text();
    let found = OPERATIONS.iter().find(|(known, _)| *known == word);
    if found.is_none() {
        let words: Vec<&str> = OPERATIONS.iter().map(|(word, _)| *word).collect();
        let message = match word.contains("JWTAccessToken") {
            true => format!(
                "{word} is not supported, use the policies GenerateJWT and VerifyJWT for tokens that are JWTs"
            ),
            false => format!(
                "'{word}' is not known, allowed are {} (InvalidOperation)",
                words.join(", ")
            ),
        };
        findings.error("invalid-operation", place(element), message);
    }
    found.map(|(_, operation)| *operation)
}

fn read_locations(fields: &mut Fields<'_>, verifies: bool, findings: &mut Findings) -> Locations {
    let mut named = |element: &'static str, parameter: &str| {
        optional_variable(fields, element, findings)
            .unwrap_or_else(|| format!("request.formparam.{parameter}"))
    };
    Locations {
        client_id: named("ClientId", "client_id"),
        grant_type: named("GrantType", "grant_type"),
        code: named("Code", "code"),
        redirect_uri: named("RedirectUri", "redirect_uri"),
        refresh_token: named("RefreshToken", "refresh_token"),
        response_type: named("ResponseType", "response_type"),
        scope: match verifies {
            true => String::new(),
            false => named("Scope", "scope"),
        },
        state: named("State", "state"),
        user_name: named("UserName", "username"),
        password: named("PassWord", "password"),
        app_end_user: optional_variable(fields, "AppEndUser", findings),
    }
}

/// The variable that an element names; an empty element says nothing.
fn optional_variable(
    fields: &mut Fields<'_>,
    name: &'static str,
    findings: &mut Findings,
) -> Option<String> {
    let element = fields.child(name, findings)?;
    let mut inner = Fields::new(element);
    let reference = inner.attribute_text("ref").map(str::to_owned);
    inner.finish(findings);
    let text = element.text();
    match (reference, text.is_empty()) {
        (Some(reference), _) => Some(reference),
        (None, true) => None,
        (None, false) => variable(&text, element, findings),
    }
}

/// What is allowed of a duration.
struct Life {
    element: &'static str,
    applies: bool,
    default: i64,
    never: bool,
    /// For a wrong value, and for a wrong operation.
    codes: [&'static str; 2],
}

fn read_life(
    fields: &mut Fields<'_>,
    life: Life,
    findings: &mut Findings,
) -> (i64, Option<String>) {
    let Some(element) = fields.child(life.element, findings) else {
        return (life.default, None);
    };
    if !life.applies {
        let message = format!("is not for this operation ({})", life.codes[1]);
        findings.error("invalid-value", place(element), message);
    }
    let read = RefOrText::read(element, findings);
    let Some(text) = read.text else {
        return (life.default, read.reference);
    };
    let number: Option<i64> = text.trim().parse().ok();
    let sound = number.filter(|number| *number > 0 || (*number == NEVER && life.never));
    if sound.is_none() {
        let never = if life.never { ", or -1 for never" } else { "" };
        let message = format!(
            "'{text}' is no number of milliseconds from 1{never} ({})",
            life.codes[0]
        );
        findings.error("invalid-value", place(element), message);
    }
    (sound.unwrap_or(life.default), read.reference)
}

fn read_grant_types(
    fields: &mut Fields<'_>,
    operation: Operation,
    findings: &mut Findings,
) -> Vec<GrantType> {
    let default = vec![GrantType::AuthorizationCode, GrantType::Implicit];
    let Some(element) = fields.child("SupportedGrantTypes", findings) else {
        return default;
    };
    if !operation.issues() {
        findings.error(
            "invalid-value",
            place(element),
            "is not for this operation (GrantTypesNotApplicableForOperation)",
        );
    }
    let mut inner = Fields::new(element);
    let mut types = Vec::new();
    for child in inner.children("GrantType").take(TOKENS_MAX) {
        let word = child.text();
        match GrantType::from_word(&word) {
            Some(grant_type) => types.push(grant_type),
            None => findings.error(
                "invalid-value",
                place(child),
                format!(
                    "'{word}' is not known, allowed are authorization_code, implicit, client_credentials, password and refresh_token (InvalidGrantType)"
                ),
            ),
        }
    }
    inner.finish(findings);
    match types.is_empty() {
        true => default,
        false => types,
    }
}

fn read_tokens(
    fields: &mut Fields<'_>,
    operation: Operation,
    findings: &mut Findings,
) -> Vec<TokenReference> {
    let changes = matches!(
        operation,
        Operation::InvalidateToken | Operation::ValidateToken
    );
    let place_of_all = fields.place();
    let list = fields.child("Tokens", findings);
    let mut tokens = Vec::new();
    if let Some(list) = list {
        let mut inner = Fields::new(list);
        let words = [
            ("accesstoken", TokenKind::Access),
            ("refreshtoken", TokenKind::Refresh),
        ];
        for element in inner.children("Token").take(TOKENS_MAX) {
            let mut token = Fields::new(element);
            let kind = token.choice_attribute("type", &words, findings);
            let cascade = token.boolean_attribute("cascade", true, findings);
            let reference = token.attribute_text("ref").map(str::to_owned);
            token.finish(findings);
            let text = element.text();
            let name = match (reference, text.is_empty()) {
                (Some(reference), _) => Some(reference),
                (None, false) => variable(&text, element, findings),
                (None, true) => {
                    findings.error(
                        "missing-token",
                        place(element),
                        "needs the variable that holds the token (TokenValueRequired)",
                    );
                    None
                }
            };
            if let Some(variable) = name {
                tokens.push(TokenReference {
                    kind: kind.unwrap_or(TokenKind::Access),
                    cascade,
                    variable,
                });
            }
        }
        inner.finish(findings);
    }
    if changes && tokens.is_empty() {
        findings.error(
            "missing-token",
            place_of_all,
            "needs <Tokens><Token type=\"accesstoken\">VARIABLE</Token></Tokens> (TokenValueRequired)",
        );
    }
    tokens
}

/// An element that says whether and how an answer is made: its format, and its realm.
fn read_format(
    fields: &mut Fields<'_>,
    name: &'static str,
    findings: &mut Findings,
) -> Option<(Format, Option<String>)> {
    let element = fields.child(name, findings)?;
    let mut inner = Fields::new(element);
    let enabled = inner.boolean_attribute("enabled", true, findings);
    let words = [
        ("FORM_PARAM", Format::FormParameters),
        ("XML", Format::Xml),
        ("JSON", Format::Json),
    ];
    let format = inner.choice("Format", &words, findings);
    let realm = inner
        .filled_text("Realm", findings)
        .map(|text| text.into_owned());
    inner.finish(findings);
    enabled.then_some((format.unwrap_or(Format::Json), realm))
}

/// `<Attributes><Attribute name= ref= display=>text</Attribute></Attributes>`.
pub(super) fn read_attributes(list: Element<'_>, findings: &mut Findings) -> Vec<Attribute> {
    let mut fields = Fields::new(list);
    let mut attributes = Vec::new();
    let children = fields.children("Attribute");
    if children.clone().count() > ATTRIBUTES_MAX {
        findings.error(
            "too-many",
            place(list),
            format!("has more than {ATTRIBUTES_MAX} attributes"),
        );
    }
    for element in children.take(ATTRIBUTES_MAX) {
        let mut inner = Fields::new(element);
        let name = inner
            .required_attribute("name", findings)
            .map(str::to_owned);
        let display = inner.boolean_attribute("display", true, findings);
        let reference = inner.attribute_text("ref").map(str::to_owned);
        inner.finish(findings);
        let text = element.text();
        if let Some(name) = name {
            attributes.push(Attribute {
                name,
                value: RefOrText {
                    reference,
                    text: (!text.is_empty()).then(|| text.into_owned()),
                },
                display,
            });
        }
    }
    fields.finish(findings);
    attributes
}

#[cfg(test)]
mod tests;
