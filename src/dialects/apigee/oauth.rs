//! Issued tokens as records: what is kept of each, under which table and key, and until when.
//!
//! No token is kept as it is: its digest is the key of its record, and what was issued together with it is sealed in the
//! record. Refuses to know who issues tokens and where records are.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most tokens of one kind in an organisation; further ones are refused. Those that never end count too.
pub const TOKENS_MAX: usize = 500_000;
/// Longest token that somebody else may have made, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How long a token is still known after its end, so that an ended one is told apart from one that never was.
pub const KNOWN_AFTER_END_MS: i64 = 3_600_000;
/// What stands for "never" where a moment or duration stands.
pub const NEVER: i64 = -1;

/// Kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    Access,
    Refresh,
    Code,
    /// Moments before which everything of an app or end user counts as revoked.
    Mark,
}

impl TokenKind {
    /// The table of the record store.
    pub fn table(self, organization: &str) -> String {
        let word = match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
            Self::Code => "code",
            Self::Mark => "revoked",
        };
        format!("oauth-{word}\u{1f}{organization}")
    }
}

/// The key of a token's record.
pub fn digest(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()))
}

/// Whether a token is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenStatus {
    Approved,
    Revoked,
}

impl TokenStatus {
    /// The word in answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Revoked => "revoked",
        }
    }
}

/// Something that a policy attached to a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAttribute {
    pub name: String,
    pub value: String,
    /// It is shown to the client, in the answer that brings the token.
    pub display: bool,
}

/// What somebody was granted; a refresh token hands it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub client_id: String,
    pub app_id: String,
    /// Words between blanks.
    pub scope: String,
    pub grant_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_end_user: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<TokenAttribute>,
    #[serde(default)]
    pub refresh_count: u64,
}

impl Grant {
    /// Whether one of the words is in the scope; without any it is.
    pub fn covers(&self, words: &[String]) -> bool {
        let mut held = self.scope.split_whitespace();
        words.is_empty() || held.any(|held| words.iter().any(|word| word == held))
    }

    /// Adds attributes, in place of those of the same name.
    pub fn attach(&mut self, attributes: impl IntoIterator<Item = TokenAttribute>) {
        for attribute in attributes {
            let known = self.attributes.iter_mut();
            match known.into_iter().find(|known| known.name == attribute.name) {
                Some(known) => *known = attribute,
                None => self.attributes.push(attribute),
            }
        }
    }
}

/// The token that was issued together with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partner {
    /// The key of its record.
    pub digest: String,
    /// Itself, sealed.
    pub sealed: String,
}

/// An access token or refresh token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub grant: Grant,
    pub status: TokenStatus,
    /// Milliseconds since 1970.
    pub issued_at: i64,
    /// Milliseconds since 1970, or [`NEVER`].
    pub expires_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<Partner>,
}

/// An authorisation code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationCode {
    pub grant: Grant,
    pub issued_at: i64,
    /// Milliseconds since 1970.
    pub expires_at: i64,
    /// The address that the client asked for; it has to say the same one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Whether the time of something is over.
pub fn is_over(expires_at: i64, now_ms: i64) -> bool {
    expires_at != NEVER && expires_at <= now_ms
}

/// The end of something that lives so long from now; [`NEVER`] stays.
pub fn end_of(life_ms: i64, now_ms: i64) -> i64 {
    match life_ms {
        NEVER => NEVER,
        life => now_ms.saturating_add(life.max(0)),
    }
}

/// Whole seconds that are left; 0 for what never ends or is over.
pub fn seconds_left(expires_at: i64, now_ms: i64) -> i64 {
    match expires_at {
        NEVER => 0,
        end => end.saturating_sub(now_ms).max(0) / 1000,
    }
}

/// When the record of something is dropped.
pub fn record_end(expires_at: i64) -> Option<i64> {
    (expires_at != NEVER).then(|| expires_at.saturating_add(KNOWN_AFTER_END_MS))
}

/// A moment before which tokens count as revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Access tokens issued before it; milliseconds since 1970.
    pub access_before: i64,
    /// The same for refresh tokens.
    pub refresh_before: i64,
}

impl Mark {
    /// Whether a token of a kind that was issued then counts as revoked.
    pub fn covers(self, kind: TokenKind, issued_at: i64) -> bool {
        match kind {
            TokenKind::Refresh => issued_at < self.refresh_before,
            _ => issued_at < self.access_before,
        }
    }

    /// The same, raised to a later moment: for refresh tokens too with `cascade`.
    #[must_use]
    pub fn raised(self, before: i64, cascade: bool) -> Self {
        Self {
            access_before: self.access_before.max(before),
            refresh_before: match cascade {
                true => self.refresh_before.max(before),
                false => self.refresh_before,
            },
        }
    }
}

/// The key of the mark of an app, an end user, or an end user of an app. None when neither is named.
pub fn mark_key(app_id: Option<&str>, end_user: Option<&str>) -> Option<String> {
    match (app_id, end_user) {
        (Some(app), Some(user)) => Some(format!("both\u{1f}{app}\u{1f}{}", digest(user))),
        (Some(app), None) => Some(format!("app\u{1f}{app}")),
        // End users are the names of people.
        (None, Some(user)) => Some(format!("user\u{1f}{}", digest(user))),
        (None, None) => None,
    }
}

/// The keys of all marks that may concern a grant.
pub fn mark_keys(grant: &Grant) -> impl Iterator<Item = String> {
    let (app, user) = (grant.app_id.as_str(), grant.app_end_user.as_deref());
    let app_alone = mark_key(Some(app), None);
    let with_user = user.map(|user| [mark_key(None, Some(user)), mark_key(Some(app), Some(user))]);
    app_alone
        .into_iter()
        .chain(with_user.into_iter().flatten().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(scope: &str) -> Grant {
        Grant {
            client_id: "k".to_owned(),
            app_id: "a".to_owned(),
            scope: scope.to_owned(),
            grant_type: "password".to_owned(),
            app_end_user: Some("ann".to_owned()),
            attributes: Vec::new(),
            refresh_count: 0,
        }
    }

    #[test]
    fn scopes_cover_when_one_word_is_held() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        for (held, wanted, covers) in [
            ("READ WRITE", "", true),
            ("", "", true),
            ("", "READ", false),
            ("READ WRITE", "WRITE ADMIN", true),
            ("READ", "WRITE", false),
            ("READ", "read", false),
        ] {
            assert_eq!(
                grant(held).covers(&words(wanted)),
                covers,
                "{held}/{wanted}"
            );
        }
    }

    #[test]
    fn times_end_or_never_do() {
        assert!(!is_over(NEVER, i64::MAX));
        assert!(is_over(10, 10) && !is_over(11, 10));
        assert_eq!(end_of(NEVER, 5), NEVER);
        assert_eq!(end_of(i64::MAX, 5), i64::MAX);
        assert_eq!(seconds_left(2_999, 0), 2);
        assert_eq!((seconds_left(NEVER, 0), seconds_left(1, 5)), (0, 0));
        assert_eq!(record_end(NEVER), None);
        assert_eq!(record_end(1), Some(1 + KNOWN_AFTER_END_MS));
    }

    #[test]
    fn marks_are_found_from_the_grant() {
        let keys: Vec<_> = mark_keys(&grant("")).collect();
        for (app, user) in [
            (Some("a"), None),
            (None, Some("ann")),
            (Some("a"), Some("ann")),
        ] {
            assert!(keys.contains(&mark_key(app, user).unwrap_or_default()));
        }
        assert_eq!(mark_key(None, None), None);
        assert!(!keys.iter().any(|key| key.contains("ann")));
    }
}
