//! `key-auth`: callers present a key.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::body::{self, FieldText, Fields};
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::identity::{Anonymous, authenticate};
use crate::plugins::shared::query::{self, Argument};
use crate::runtime::clock;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;

/// The mechanism under which credentials are looked up.
const KIND: &str = "key-auth";

config_record! {
    /// Authenticates callers by a key in a header, the query or the body.
    pub struct Config {
        /// Where a key may stand: names of headers, of query arguments and of body fields.
        key_names: Vec<String> = array(header_name()).required().default(json!(["apikey"])),
        /// Remove the key before the request goes upstream.
        hide_credentials: bool = boolean().required().default(false),
        /// Id or user name of the consumer that stands in for callers without a valid key; without it they are refused.
        anonymous: Option<String> = string(),
        /// Look for the key in headers.
        key_in_header: bool = boolean().required().default(true),
        /// Look for the key in the query.
        key_in_query: bool = boolean().required().default(true),
        /// Look for the key in the body: urlencoded, JSON or multipart. The body is then held before it is forwarded.
        key_in_body: bool = boolean().required().default(false),
        /// Demand a key of `OPTIONS` requests too.
        run_on_preflight: bool = boolean().required().default(true),
        /// The protection space named in `WWW-Authenticate`.
        realm: Option<String> = string(),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("key-auth", 1250, Config::schema())
            .without_consumer()
            .credentials(&["keyauth_credentials"])
            .with_messages(),
        link,
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let names = config
        .key_names
        .iter()
        .map(|name| {
            HeaderName::from_bytes(name.as_bytes())
                .map(|header| (name.clone(), header))
                .map_err(|_| format!("config.key_names: '{name}' is not a header name"))
        })
        .collect::<Result<_, _>>()?;
    let challenge = match &config.realm {
        Some(realm) => HeaderValue::try_from(format!("Key realm=\"{realm}\""))
            .map_err(|_| "config.realm: must not hold control characters".to_owned())?,
        None => HeaderValue::from_static("Key"),
    };
    Ok(Arc::new(KeyAuth {
        names,
        challenge,
        anonymous: config.anonymous.clone().map(Anonymous::new),
        config,
    }))
}

struct KeyAuth {
    config: Config,
    names: Vec<(String, HeaderName)>,
    challenge: HeaderValue,
    anonymous: Option<Anonymous>,
}

impl Plugin for KeyAuth {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn needs(&self) -> Needs {
        Needs {
            request_body: self.config.key_in_body,
            ..Needs::NOTHING
        }
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        if !self.config.run_on_preflight && *exchange.request.method() == Method::OPTIONS {
            return Flow::Continue;
        }
        if self.anonymous.is_some() && exchange.identity.credential.is_some() {
            // Another plugin has authenticated the request: either one will do.
            return Flow::Continue;
        }
        let Err(message) = self.check(exchange) else {
            return Flow::Continue;
        };
        match &self.anonymous {
            Some(anonymous) => match anonymous.attach(exchange) {
                Ok(()) => Flow::Continue,
                Err(fault) => Flow::Fault(fault),
            },
            None => Flow::fault(
                Fault::refuse(StatusCode::UNAUTHORIZED, message)
                    .header(WWW_AUTHENTICATE, self.challenge.clone()),
            ),
        }
    }
}

/// A key as found, and the index of the name under which it stood.
struct Found<'a> {
    name: usize,
    key: Cow<'a, str>,
}

/// Why no key can be used.
const ABSENT: &str = "No API key found in request";
const SEVERAL: &str = "Duplicate API key found";
const UNKNOWN: &str = "Unauthorized";

impl KeyAuth {
    fn check(&self, exchange: &mut Exchange) -> Result<(), &'static str> {
        let fields = match self.config.key_in_body {
            true => Fields::of(exchange),
            false => None,
        };
        let found = self.find(exchange, fields.as_ref())?;
        let name = found.name;
        let known = exchange.snapshot.credential(KIND, &found.key).cloned();
        let empty = found.key.is_empty();
        if self.config.hide_credentials
            && let Some((name, header)) = self.names.get(name)
        {
            hide(exchange, name, header, fields);
        }
        if empty {
            return Err(ABSENT);
        }
        let credential = known.ok_or(UNKNOWN)?;
        if let Some(end) = credential.plan.expires_at
            && end <= clock::unix_seconds(exchange.started)
        {
            return Err(UNKNOWN);
        }
        let principal = exchange
            .snapshot
            .principal(&credential.plan.principal)
            .cloned()
            .ok_or(UNKNOWN)?;
        let identifier = credential.id_value().clone();
        authenticate(exchange, principal, credential, identifier);
        Ok(())
    }

    /// The first key in the order of the names; for each name header, query, body.
    fn find<'a>(
        &self,
        exchange: &'a Exchange,
        fields: Option<&Fields>,
    ) -> Result<Found<'a>, &'static str> {
        for (index, (name, header)) in self.names.iter().enumerate() {
            let mut key = None;
            if self.config.key_in_header {
                key = in_headers(exchange, header)?;
            }
            if key.is_none() && self.config.key_in_query {
                key = in_query(exchange, name)?;
            }
            if key.is_none()
                && let Some(fields) = fields
            {
                key = match fields.text(name) {
                    FieldText::Absent => None,
                    FieldText::Several => return Err(SEVERAL),
                    FieldText::One(text) => String::from_utf8(text).ok().map(Cow::Owned),
                };
            }
            if let Some(key) = key {
                return Ok(Found { name: index, key });
            }
        }
        Err(ABSENT)
    }
}

fn in_headers<'a>(
    exchange: &'a Exchange,
    name: &HeaderName,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let mut values = exchange.request.fields().named(name.as_str());
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match values.next() {
        None => Ok(Some(match std::str::from_utf8(value) {
            // Nearly every key is text as it stands; the lenient reading is for the others.
            Ok(key) => Cow::Borrowed(key),
            Err(_) => String::from_utf8_lossy(value),
        })),
        Some(_) => Err(SEVERAL),
    }
}

fn in_query<'a>(exchange: &'a Exchange, name: &str) -> Result<Option<Cow<'a, str>>, &'static str> {
    let Some(text) = exchange.query() else {
        return Ok(None);
    };
    let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
    match query::find(text, name.as_bytes(), arguments_max) {
        Argument::Absent | Argument::Valueless => Ok(None),
        Argument::One(Cow::Borrowed(value)) => Ok(Some(String::from_utf8_lossy(value))),
        Argument::One(Cow::Owned(value)) => {
            Ok(Some(String::from_utf8_lossy(&value).into_owned().into()))
        }
        Argument::Several => Err(SEVERAL),
    }
}

/// Removes the key wherever a caller may have put it.
fn hide(exchange: &mut Exchange, name: &str, header: &HeaderName, fields: Option<Fields>) {
    exchange.request.remove_header(header);
    if let Some(text) = exchange.upstream_query() {
        let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
        if query::find(text, name.as_bytes(), arguments_max) != Argument::Absent {
            let rest = query::without(text, name.as_bytes());
            exchange.edits_mut().query = Some(rest);
        }
    }
    if let Some(mut fields) = fields
        && fields.has(name)
    {
        fields.remove(name);
        body::replace(exchange, fields.write());
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World, refusal};

    fn world() -> World {
        World::new()
            .principal("alice", &["gold"])
            .credential(KIND, "k-1", "alice", None)
            .expiring_credential(KIND, "k-old", "alice", 1)
            .principal("guest", &[])
    }

    #[test]
    fn looks_in_headers_query_and_body() {
        let world = world();
        let everywhere = json!({"key_in_body": true});
        let form = "application/x-www-form-urlencoded";
        for (message, expected) in [
            (Message::get("/").header("apikey", "k-1"), None),
            (Message::get("/?apikey=k%2D1"), None),
            (Message::get("/").body(form, "apikey=k-1"), None),
            (
                Message::get("/").body("application/json", r#"{"apikey":"k-1"}"#),
                None,
            ),
            (Message::get("/"), Some("No API key found in request")),
            (
                Message::get("/?apikey="),
                Some("No API key found in request"),
            ),
            (
                Message::get("/?apikey=k-1&apikey=k-1"),
                Some("Duplicate API key found"),
            ),
            (
                Message::get("/").header("apikey", "k-2"),
                Some("Unauthorized"),
            ),
            (
                Message::get("/").header("apikey", "k-old"),
                Some("Unauthorized"),
            ),
        ] {
            let plugin = world.link(entry(), everywhere.clone());
            let mut exchange = world.exchange(message);
            let flow = plugin.access(&mut exchange);
            assert_eq!(
                refusal(&flow),
                expected.map(|text| (401, text.to_owned())),
                "{flow:?}"
            );
            if expected.is_none() {
                let headers = &exchange.request.headers;
                assert_eq!(headers.get("x-consumer-username").unwrap(), "alice");
                assert!(headers.contains_key("x-credential-identifier"));
            }
        }
    }

    #[test]
    fn hides_the_key() {
        let world = world();
        let plugin = world.link(
            entry(),
            json!({"hide_credentials": true, "key_in_body": true}),
        );
        let mut exchange = world.exchange(
            Message::get("/?a=1&apikey=k-1")
                .header("apikey", "k-1")
                .body("application/x-www-form-urlencoded", "apikey=k-1&b=2"),
        );
        assert_eq!(refusal(&plugin.access(&mut exchange)), None);
        assert!(!exchange.request.headers.contains_key("apikey"));
        assert_eq!(exchange.upstream_query(), Some(&b"a=1"[..]));
        assert_eq!(
            exchange.request_body,
            crate::runtime::exchange::RequestBody::Held("b=2".into())
        );
        assert_eq!(exchange.request.headers["content-length"], "3");
    }

    #[test]
    fn anonymous_stands_in_and_yields_to_others() {
        let world = world();
        let plugin = world.link(entry(), json!({"anonymous": "guest"}));
        let mut exchange = world.exchange(
            Message::get("/")
                .header("x-consumer-username", "forged")
                .header("x-credential-identifier", "forged"),
        );
        assert_eq!(refusal(&plugin.access(&mut exchange)), None);
        let headers = &exchange.request.headers;
        assert_eq!(headers["x-consumer-username"], "guest");
        assert_eq!(headers["x-anonymous-consumer"], "true");
        assert!(!headers.contains_key("x-credential-identifier"));

        let missing = world.link(entry(), json!({"anonymous": "nobody"}));
        let flow = missing.access(&mut world.exchange(Message::get("/")));
        assert_eq!(
            refusal(&flow),
            Some((
                500,
                "anonymous consumer nobody is configured but doesn't exist".to_owned()
            ))
        );
    }

    #[test]
    fn names_the_realm() {
        let world = world();
        for (config, challenge) in [
            (json!({}), "Key"),
            (json!({"realm": "shop"}), "Key realm=\"shop\""),
        ] {
            let plugin = world.link(entry(), config);
            let Flow::Fault(fault) = plugin.access(&mut world.exchange(Message::get("/"))) else {
                panic!("expected a fault");
            };
            assert_eq!(fault.headers[0].1, challenge);
        }
        let lenient = world.link(entry(), json!({"run_on_preflight": false}));
        let flow = lenient.access(&mut world.exchange(Message::new("OPTIONS", "/")));
        assert_eq!(refusal(&flow), None);
    }
}
