//! `GetOAuthV2Info`, `SetOAuthV2Info`, `DeleteOAuthV2Info` and `RevokeOAuthV2`: looking at tokens and changing what is
//! attached to them.

use serde::{Deserialize, Serialize};

use super::oauth_v2::{Attribute, read_attributes};
use super::texts::RefOrText;
use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::xml::{Fields, Findings};

/// Which of the policies it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Show,
    Change,
    Delete,
    /// Everything of an app or end user.
    Revoke,
}

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub action: Action,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub access_token: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub refresh_token: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub code: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub client_id: RefOrText,
    /// Ended and revoked tokens are shown too.
    #[serde(default)]
    pub ignores_status: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub app_id: RefOrText,
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub end_user: RefOrText,
    /// Milliseconds since 1970; now when it says nothing.
    #[serde(default, skip_serializing_if = "RefOrText::is_empty")]
    pub before: RefOrText,
    /// Refresh tokens too.
    #[serde(default)]
    pub cascade: bool,
}

pub(super) fn parse_show(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Action::Show)
}

pub(super) fn parse_change(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Action::Change)
}

pub(super) fn parse_delete(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Action::Delete)
}

pub(super) fn parse_revoke(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    parse(reader, Action::Revoke)
}

fn parse(reader: &mut PolicyReader<'_, '_>, action: Action) -> Option<Parsed> {
    let (fields, findings) = (&mut reader.fields, &mut *reader.findings);
    let none = RefOrText::default;
    let wanted = |actions: &[Action]| actions.contains(&action);
    let access_token = match action {
        Action::Revoke => none(),
        _ => reference(fields, "AccessToken", findings),
    };
    let code = match wanted(&[Action::Show, Action::Delete]) {
        true => reference(fields, "AuthorizationCode", findings),
        false => none(),
    };
    let (refresh_token, client_id) = match action {
        Action::Show => (
            reference(fields, "RefreshToken", findings),
            reference(fields, "ClientId", findings),
        ),
        _ => (none(), none()),
    };
    let ignores_status =
        action == Action::Show && fields.boolean("IgnoreAccessTokenStatus", false, findings);
    let attributes = match action {
        Action::Change => fields
            .child("Attributes", findings)
            .map(|element| read_attributes(element, findings))
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let (app_id, end_user, before, cascade) = match action {
        Action::Revoke => (
            reference(fields, "AppId", findings),
            reference(fields, "EndUserId", findings),
            reference(fields, "RevokeBeforeTimestamp", findings),
            fields.boolean("Cascade", true, findings),
        ),
        _ => (none(), none(), none(), false),
    };
    let config = Config {
        action,
        access_token,
        refresh_token,
        code,
        client_id,
        ignores_status,
        attributes,
        app_id,
        end_user,
        before,
        cascade,
    };
    let named = [
        &config.access_token,
        &config.refresh_token,
        &config.code,
        &config.client_id,
        &config.app_id,
        &config.end_user,
    ];
    if named.iter().all(|one| one.is_empty()) {
        let message = match action {
            Action::Show => {
                "needs <AccessToken>, <RefreshToken>, <AuthorizationCode> or <ClientId> with a ref attribute"
            }
            Action::Change => "needs <AccessToken> with a ref attribute",
            Action::Delete => "needs <AccessToken> or <AuthorizationCode> with a ref attribute",
            Action::Revoke => "needs <AppId> or <EndUserId> with a ref attribute",
        };
        reader.error("missing-element", message);
        return None;
    }
    let attributes = config.attributes.iter();
    let references = attributes.filter_map(|one| one.value.reference.as_deref());
    let bodies = named
        .iter()
        .filter_map(|one| one.reference.as_deref())
        .chain(references)
        .map(Bodies::in_text)
        .fold(Bodies::NONE, Bodies::with);
    Some(reader.parsed(&config)?.with_bodies(bodies))
}

fn reference(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> RefOrText {
    fields
        .child(name, findings)
        .map(|element| RefOrText::read(element, findings))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn each_names_what_it_is_about() {
        for (text, good) in [
            (
                "<GetOAuthV2Info name='i'><AccessToken ref='a'/><IgnoreAccessTokenStatus>true</IgnoreAccessTokenStatus></GetOAuthV2Info>",
                true,
            ),
            (
                "<GetOAuthV2Info name='i'><ClientId ref='request.formparam.client_id'/></GetOAuthV2Info>",
                true,
            ),
            ("<GetOAuthV2Info name='i'/>", false),
            (
                "<SetOAuthV2Info name='i'><AccessToken ref='a'/><Attributes><Attribute name='x' ref='y'/></Attributes></SetOAuthV2Info>",
                true,
            ),
            (
                "<SetOAuthV2Info name='i'><Attributes/></SetOAuthV2Info>",
                false,
            ),
            (
                "<DeleteOAuthV2Info name='i'><AuthorizationCode ref='c'/></DeleteOAuthV2Info>",
                true,
            ),
            ("<DeleteOAuthV2Info name='i'/>", false),
            (
                "<RevokeOAuthV2 name='i'><AppId ref='a'/><EndUserId ref='u'/><Cascade>false</Cascade></RevokeOAuthV2>",
                true,
            ),
            ("<RevokeOAuthV2 name='i'/>", false),
        ] {
            let (config, findings, _) = read::<Config>(text);
            assert_eq!(config.is_some(), good, "{text}");
            assert_eq!(findings.is_empty(), good, "{text}: {findings:?}");
        }
    }
}
