//! What is told of a token: in variables, and in the body of an answer.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json};

use crate::dialects::apigee::keys::KeyFacts;
use crate::dialects::apigee::message::{FORM, Message};
use crate::dialects::apigee::oauth::{Issued, NEVER, seconds_left};
use crate::dialects::apigee::policies::oauth_v2::Format;
use crate::dialects::apigee::xml::escape_text;

/// A field of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

impl Field {
    /// As a variable reads.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::List(list) => format!("[{}]", list.join(", ")),
        }
    }
}

/// A token that was issued or looked up, with itself.
pub(super) struct Described<'a> {
    /// Itself; empty when nobody knows it any more.
    pub(super) token: &'a str,
    pub(super) issued: &'a Issued,
}

/// A number of seconds as Edge prints it for a new token: one less than it was configured.
fn printed_life(issued: &Issued) -> i64 {
    match issued.expires_at {
        NEVER => NEVER,
        end => (end.saturating_sub(issued.issued_at) / 1000 - 1).max(0),
    }
}

/// The names of the approved products of a key.
pub(super) fn products(facts: &KeyFacts) -> Vec<String> {
    let approved = facts.key.api_products.iter();
    approved
        .filter(|approval| approval.status == "approved")
        .map(|approval| approval.apiproduct.clone())
        .collect()
}

/// What an answer and variables tell of an access token and the refresh token that came with it. `now_ms` is none for
/// tokens that were just issued, whose life is told as it was configured.
pub(super) fn of_tokens(
    organization: &str,
    facts: &KeyFacts,
    access: &Described<'_>,
    refresh: Option<&Described<'_>>,
    now_ms: Option<i64>,
    follows_rfc: bool,
) -> Vec<(String, Field)> {
    let grant = &access.issued.grant;
    let left = |issued: &Issued| match now_ms {
        Some(_) if issued.expires_at == NEVER => NEVER,
        Some(now) => seconds_left(issued.expires_at, now),
        None => printed_life(issued),
    };
    let names = products(facts);
    let mut fields: Vec<(String, Field)> = Vec::with_capacity(20);
    let mut put = |name: &str, field: Field| fields.push((name.to_owned(), field));
    let text = |value: &str| Field::Text(value.to_owned());
    let seconds = |value: i64| match follows_rfc {
        true => Field::Number(value),
        false => Field::Text(value.to_string()),
    };
    let refresh_left = refresh.map_or(0, |refresh| left(refresh.issued).max(0));
    put("refresh_token_expires_in", seconds(refresh_left));
    put(
        "api_product_list",
        Field::Text(format!("[{}]", names.join(", "))),
    );
    put("api_product_list_json", Field::List(names));
    put("organization_name", text(organization));
    put("developer.email", text(&facts.developer.email));
    let kind = if follows_rfc { "Bearer" } else { "BearerToken" };
    put("token_type", text(kind));
    put(
        "issued_at",
        Field::Text(access.issued.issued_at.to_string()),
    );
    put("client_id", text(&grant.client_id));
    put("access_token", text(access.token));
    if let Some(refresh) = refresh {
        put("refresh_token", text(refresh.token));
    }
    put("application_name", text(&grant.app_id));
    put("scope", text(&grant.scope));
    if let Some(refresh) = refresh {
        let moment = refresh.issued.issued_at.to_string();
        put("refresh_token_issued_at", Field::Text(moment));
    }
    put("expires_in", seconds(left(access.issued)));
    put(
        "refresh_count",
        Field::Text(grant.refresh_count.to_string()),
    );
    if let Some(refresh) = refresh {
        put("refresh_token_status", text(refresh.issued.status.word()));
    }
    put("status", text(access.issued.status.word()));
    fields
}

/// What may stand in a form as it is.
const FORM_ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A text as the value of a parameter.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM_ENCODED).to_string()
}

/// A body in a format, with its media type.
pub(super) fn body<N: AsRef<str>>(format: Format, fields: &[(N, Field)]) -> (&'static str, String) {
    match format {
        Format::Json => {
            let fields = fields.iter().map(|(name, field)| {
                let value = match field {
                    Field::Text(text) => Json::from(text.as_str()),
                    Field::Number(number) => Json::from(*number),
                    Field::List(list) => Json::from(list.clone()),
                };
                (name.as_ref().to_owned(), value)
            });
            let object: Map<String, Json> = fields.collect();
            ("application/json", Json::Object(object).to_string())
        }
        Format::FormParameters => {
            let fields = fields.iter().map(|(name, field)| {
                format!("{}={}", encoded(name.as_ref()), encoded(&field.text()))
            });
            (FORM, fields.collect::<Vec<_>>().join("&"))
        }
        Format::Xml => {
            let mut text = String::from("<OAuth>");
            for (name, field) in fields {
                let name = element_name(name.as_ref());
                let value = field.text();
                text.push_str(&format!("<{name}>{}</{name}>", escape_text(&value)));
            }
            text.push_str("</OAuth>");
            ("application/xml", text)
        }
    }
}

/// A name that may stand in a tag.
fn element_name(name: &str) -> String {
    let mut text: String = name
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => c,
            _ => '_',
        })
        .collect();
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        text.insert(0, '_');
    }
    text
}

/// The message `response` with a body of these fields.
pub(super) fn response(format: Format, fields: &[(String, Field)], follows_rfc: bool) -> Message {
    let mut response = Message::response();
    let (media, body) = body(format, fields);
    response
        .headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    if follows_rfc {
        let headers = &mut response.headers;
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    }
    response.content = Bytes::from(body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_three_forms() {
        let fields = [
            ("scope", Field::Text("a <b>".to_owned())),
            ("expires_in", Field::Number(5)),
            ("list", Field::List(vec!["p".to_owned(), "q".to_owned()])),
        ];
        assert_eq!(
            body(Format::Json, &fields).1,
            r#"{"scope":"a <b>","expires_in":5,"list":["p","q"]}"#
        );
        assert_eq!(
            body(Format::FormParameters, &fields).1,
            "scope=a%20%3Cb%3E&expires_in=5&list=%5Bp%2C%20q%5D"
        );
        assert_eq!(
            body(Format::Xml, &fields).1,
            "<OAuth><scope>a &lt;b&gt;</scope><expires_in>5</expires_in><list>[p, q]</list></OAuth>"
        );
        assert_eq!(element_name("1 a"), "_1_a");
    }
}
