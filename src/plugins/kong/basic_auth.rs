//! `basic-auth`: callers present a user name and a password (RFC 7617).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use sha1::{Digest, Sha1};

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::headers::lenient_value;
use crate::plugins::shared::identity::{Anonymous, authenticate};
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;
use crate::runtime::snapshot::Credential;

/// The mechanism under which credentials are looked up.
const KIND: &str = "basic-auth";

config_record! {
    /// Authenticates callers by user name and password.
    pub struct Config {
        /// Id or user name of the consumer that stands in for callers without valid credentials; without it they are refused.
        anonymous: Option<String> = string(),
        /// Remove the credentials before the request goes upstream.
        hide_credentials: bool = boolean().required().default(false),
        /// The protection space named in `WWW-Authenticate`.
        realm: String = string().required().default("service"),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("basic-auth", 1100, Config::schema())
            .without_consumer()
            .credentials(&["basicauth_credentials"])
            .with_messages(),
        link,
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    Ok(Arc::new(BasicAuth {
        challenge: HeaderValue::try_from(format!("Basic realm=\"{}\"", config.realm))
            .map_err(|_| "config.realm: must not hold control characters".to_owned())?,
        hide_credentials: config.hide_credentials,
        anonymous: config.anonymous.map(Anonymous::new),
    }))
}

struct BasicAuth {
    challenge: HeaderValue,
    hide_credentials: bool,
    anonymous: Option<Anonymous>,
}

impl Plugin for BasicAuth {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        if self.anonymous.is_some() && exchange.identity.credential.is_some() {
            // Another plugin has authenticated the request: either one will do.
            return Flow::Continue;
        }
        if self.check(exchange).is_some() {
            return Flow::Continue;
        }
        match &self.anonymous {
            Some(anonymous) => match anonymous.attach(exchange) {
                Ok(()) => Flow::Continue,
                Err(fault) => Flow::Fault(fault),
            },
            None => Flow::fault(
                Fault::refuse(StatusCode::UNAUTHORIZED, "Unauthorized")
                    .header(WWW_AUTHENTICATE, self.challenge.clone()),
            ),
        }
    }
}

impl BasicAuth {
    /// Authenticates the exchange; `None` when that is not possible.
    fn check(&self, exchange: &mut Exchange) -> Option<()> {
        let mut known = self.known(exchange, &PROXY_AUTHORIZATION);
        if known.is_none() {
            known = self.known(exchange, &AUTHORIZATION);
        }
        let (credential, password) = known?;
        if !password_matches(&credential, &password) {
            return None;
        }
        let principal = exchange
            .snapshot
            .principal(&credential.plan.principal)?
            .clone();
        let identifier = lenient_value(credential.plan.key.expose().as_bytes());
        authenticate(exchange, principal, credential, identifier);
        Some(())
    }

    /// The credential named in this header, with the password given.
    fn known(
        &self,
        exchange: &mut Exchange,
        name: &HeaderName,
    ) -> Option<(Arc<Credential>, Vec<u8>)> {
        let decoded = decode(exchange.request.headers.get(name)?);
        if self.hide_credentials {
            exchange.request.remove_header(name);
        }
        let decoded = decoded?;
        let colon = memchr::memchr(b':', &decoded)?;
        let username = std::str::from_utf8(decoded.get(..colon)?).ok()?;
        let password = decoded.get(colon + 1..)?;
        let credential = exchange.snapshot.credential(KIND, username)?.clone();
        Some((credential, password.to_vec()))
    }
}

fn decode(value: &HeaderValue) -> Option<Vec<u8>> {
    let text = value.to_str().ok()?.trim_start();
    let scheme = text.get(..5)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    STANDARD.decode(text.get(5..)?.trim()).ok()
}

/// Passwords are kept as SHA-1 of the password and the consumer's id, in hexadecimal digits: Kong's form, which clients read back.
fn password_matches(credential: &Credential, password: &[u8]) -> bool {
    let Some(expected) = &credential.plan.secret else {
        return false;
    };
    let mut buffer = uuid::Uuid::encode_buffer();
    let salt = credential.plan.principal.hyphenated();
    let digest = Sha1::new()
        .chain_update(password)
        .chain_update(salt.encode_lower(&mut buffer).as_bytes())
        .finalize();
    let mut expected = expected.expose().bytes();
    // Looks at every digit, so that the time taken tells nothing about where the first difference is.
    let mut difference = 0;
    for byte in digest {
        for half in [byte >> 4, byte & 15] {
            let digit = match half {
                0..=9 => b'0' + half,
                _ => b'a' + half - 10,
            };
            difference |= digit ^ expected.next().unwrap_or(0).to_ascii_lowercase();
        }
    }
    difference == 0 && expected.next().is_none()
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
    use crate::plugins::test_support::{Message, World, principal_id, refusal};

    fn hash(password: &str, username: &str) -> String {
        let text = format!("{password}{}", principal_id(username));
        Sha1::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn world() -> World {
        let secret = hash("open:sesame", "ali");
        World::new()
            .principal("ali", &[])
            .credential(KIND, "ali.baba", "ali", Some(&secret))
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn checks_credentials() {
        let world = world();
        let plugin = world.link(entry(), json!({}));
        let good = basic("ali.baba:open:sesame");
        for (name, value, passes) in [
            ("authorization", good.clone(), true),
            ("proxy-authorization", good.clone(), true),
            ("authorization", good.replace("Basic", "basic"), true),
            ("authorization", basic("ali.baba:open"), false),
            ("authorization", basic("ali.baba"), false),
            ("authorization", basic("nobody:open:sesame"), false),
            ("authorization", "Basic ???".to_owned(), false),
            ("authorization", "Bas".to_owned(), false),
            ("authorization", good.replace("Basic", "Bearer"), false),
        ] {
            let mut exchange = world.exchange(Message::get("/").header(name, &value));
            let refused = refusal(&plugin.access(&mut exchange));
            assert_eq!(refused.is_none(), passes, "{name}: {value}");
            let identifier = exchange.request.headers.get("x-credential-identifier");
            assert_eq!(identifier.is_some_and(|id| id == "ali.baba"), passes);
        }
    }

    #[test]
    fn tries_both_headers_and_hides_what_it_read() {
        let world = world();
        let plugin = world.link(entry(), json!({"hide_credentials": true}));
        let mut exchange = world.exchange(
            Message::get("/")
                .header("proxy-authorization", &basic("other:x"))
                .header("authorization", &basic("ali.baba:open:sesame")),
        );
        assert_eq!(refusal(&plugin.access(&mut exchange)), None);
        let headers = &exchange.request.headers;
        assert!(!headers.contains_key("authorization"));
        assert!(!headers.contains_key("proxy-authorization"));
    }

    #[test]
    fn challenges() {
        let world = world();
        let plugin = world.link(entry(), json!({}));
        let Flow::Fault(fault) = plugin.access(&mut world.exchange(Message::get("/"))) else {
            panic!("expected a fault");
        };
        assert_eq!(fault.headers[0].1, "Basic realm=\"service\"");
    }
}
