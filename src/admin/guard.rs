//! Who may talk to the Admin listener at all: no pages of other sites, no names that others point at us, and with
//! `admin_auth = basic` nobody without a password.
//!
//! A browser on the operator's machine reaches listeners on loopback, so a page of any site could write there, and a
//! site that lets its own name resolve to 127.0.0.1 could read too. Hence two checks: `Host` must be an address or name
//! of this listener, and `Origin`, when there is one, must be this listener or the page that we serve ourselves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};

use super::answer::Answer;
use super::apigee::tokens::Tokens;
use super::server::Ends;
use super::users::Users;

/// Where passwords are traded for tokens.
const TOKEN_PATH: &str = "/oauth/token";

/// What the guard of a listener knows.
#[derive(Default)]
pub struct Guard {
    /// Host names under which the listener may be addressed, besides `localhost` and addresses; lower case.
    pub names: Vec<String>,
    /// Ports of this machine on which our own page is served.
    pub page_ports: Vec<u16>,
    /// Whether `Host` is looked at. A status listener is scraped under names that we cannot know, and only read.
    pub any_host: bool,
    /// Who may administer; none for everybody. Shared, so that a reload reaches every listener.
    pub users: Arc<ArcSwapOption<Users>>,
    /// Bearer tokens that stand for passwords; shared, so that one listener's are good on the other.
    pub tokens: Arc<Tokens>,
}

impl Guard {
    /// A guard that knows this machine's name.
    pub fn new(hostname: &str) -> Self {
        Self {
            names: vec![hostname.to_ascii_lowercase()],
            ..Self::default()
        }
    }

    /// Lets a request pass, or says why not.
    pub async fn admit(&self, parts: &Parts) -> Result<(), Answer> {
        let ends = parts.extensions.get::<Ends>().copied();
        let host = requested_host(parts)?;
        if !self.any_host
            && let Some(host) = host
            && !self.is_own(host_of(host), ends)
        {
            return Err(forbidden(&format!(
                "host '{host}' is not a name of this listener"
            )));
        }
        if let Some(origin) = parts.headers.get(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            if !self.is_own_origin(origin, host, ends) {
                return Err(forbidden(&format!(
                    "requests from pages of '{origin}' are not allowed"
                )));
            }
        }
        // A browser asks for leave before it sends credentials.
        if parts.method == Method::OPTIONS {
            return Ok(());
        }
        let users = self.users.load_full();
        match users {
            // It checks the password that it is given.
            Some(_) if parts.uri.path() == TOKEN_PATH => Ok(()),
            Some(_) if self.has_token(parts) => Ok(()),
            Some(users) => check_password(&users, parts).await,
            None => Ok(()),
        }
    }

    /// Whether a request shows a token that was issued for a password.
    fn has_token(&self, parts: &Parts) -> bool {
        let header = parts.headers.get(AUTHORIZATION);
        let text = header.and_then(|value| value.to_str().ok());
        text.and_then(|text| text.split_once(' '))
            .is_some_and(|(scheme, token)| {
                scheme.eq_ignore_ascii_case("bearer") && self.tokens.admit(token.trim())
            })
    }

    /// Whether a host without port means this machine.
    fn is_own(&self, host: &str, ends: Option<Ends>) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            // Nobody else can make a browser believe that an address is his site. A listener on loopback still answers
            // to loopback only.
            let local = ends.map(|ends| ends.local.ip().to_canonical());
            return local
                .is_none_or(|local| !local.is_loopback() || ip.to_canonical().is_loopback());
        }
        let name = bare.strip_suffix('.').unwrap_or(bare);
        name.eq_ignore_ascii_case("localhost")
            || self
                .names
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }

    fn is_own_origin(&self, origin: &str, host: Option<&str>, ends: Option<Ends>) -> bool {
        let Some(rest) = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"))
        else {
            return false;
        };
        // Checked here too, because a listener that takes any host must not take any page.
        self.is_own(host_of(rest), ends)
            && (host.is_some_and(|host| host.eq_ignore_ascii_case(rest))
                || port_of(rest).is_some_and(|port| self.page_ports.contains(&port)))
    }
}

/// The host that the client asked for; requests of HTTP/1.0 may have none.
fn requested_host(parts: &Parts) -> Result<Option<&str>, Answer> {
    if let Some(authority) = parts.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(Answer::bad_request("expected only one Host header"));
    }
    first
        .map(|host| {
            host.to_str()
                .map_err(|_| Answer::bad_request("the Host header is not text"))
        })
        .transpose()
}

/// The host in `host:port`.
fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(at) if !authority.ends_with(']') => authority.get(..at).unwrap_or(authority),
        _ => authority,
    }
}

/// The port in `host:port`.
fn port_of(authority: &str) -> Option<u16> {
    let at = authority.rfind(':')?;
    authority.get(at + 1..)?.parse().ok()
}

async fn check_password(users: &Users, parts: &Parts) -> Result<(), Answer> {
    let Some((user, password)) = basic_credentials(parts) else {
        return Err(unauthorized());
    };
    if users.admit(&user, &password).await {
        Ok(())
    } else {
        Err(unauthorized())
    }
}

fn basic_credentials(parts: &Parts) -> Option<(String, String)> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn unauthorized() -> Answer {
    Answer::message(StatusCode::UNAUTHORIZED, "Unauthorized").with_header(
        http::header::WWW_AUTHENTICATE,
        "Basic realm=\"sallyport admin\", charset=\"UTF-8\"",
    )
}

fn forbidden(message: &str) -> Answer {
    Answer::message(StatusCode::FORBIDDEN, message)
}

/// The headers by which browsers learn that a page may read an answer. Kong: with every Admin answer.
pub fn sharing_headers(parts: &Parts) -> Vec<(HeaderName, http::HeaderValue)> {
    use http::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN};
    let origin = parts
        .headers
        .get(ORIGIN)
        .cloned()
        .unwrap_or(http::HeaderValue::from_static("*"));
    vec![
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            http::HeaderValue::from_static("true"),
        ),
    ]
}

/// Whether an address can be reached from other machines, which calls for `admin_auth`.
pub fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use http::Request;

    use super::*;

    fn parts(local: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/services");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        parts.extensions.insert(Ends {
            local: local.parse().unwrap(),
            remote: "127.0.0.1:9".parse().unwrap(),
        });
        parts
    }

    #[tokio::test]
    async fn strangers_are_refused() {
        let guard = Guard {
            page_ports: vec![8002],
            ..Guard::new("gate")
        };
        let loopback = "127.0.0.1:8001";
        for (local, host, origin, admitted) in [
            (loopback, "localhost:8001", "", true),
            (loopback, "127.0.0.1:8001", "", true),
            (loopback, "[::1]:8001", "", true),
            (loopback, "GATE:8001", "", true),
            (loopback, "evil.test", "", false),
            (loopback, "evil.test:8001", "", false),
            (loopback, "localhost.evil.test", "", false),
            (loopback, "10.0.0.1:8001", "", false),
            ("10.0.0.1:8001", "10.0.0.1:8001", "", true),
            ("10.0.0.1:8001", "192.0.2.1", "", true),
            (loopback, "localhost:8001", "http://localhost:8001", true),
            (loopback, "localhost:8001", "http://localhost:8002", true),
            (loopback, "localhost:8001", "http://127.0.0.1:8002", true),
            (loopback, "localhost:8001", "http://localhost:3000", false),
            (loopback, "localhost:8001", "http://evil.test:8002", false),
            (loopback, "localhost:8001", "https://evil.test", false),
            (loopback, "localhost:8001", "null", false),
            (loopback, "evil.test", "http://evil.test", false),
        ] {
            let mut headers = vec![("host", host)];
            if !origin.is_empty() {
                headers.push(("origin", origin));
            }
            let result = guard.admit(&parts(local, &headers)).await;
            assert_eq!(result.is_ok(), admitted, "{local} {host} {origin}");
            if let Err(answer) = result {
                assert_eq!(answer.status, 403);
            }
        }
        assert!(guard.admit(&parts(loopback, &[])).await.is_ok());
        let two = parts(loopback, &[("host", "localhost"), ("host", "evil.test")]);
        assert_eq!(guard.admit(&two).await.unwrap_err().status, 400);
    }

    #[tokio::test]
    async fn credentials_are_ignored_until_they_are_demanded() {
        let guard = Guard::new("gate");
        let local = "127.0.0.1:8001";
        let basic = [("host", "localhost"), ("authorization", "Basic YTpi")];
        assert!(guard.admit(&parts(local, &basic)).await.is_ok());
        // argon2id of "b", made with the cheapest parameters.
        let hash = {
            use argon2::PasswordHasher;
            let salt = argon2::password_hash::SaltString::encode_b64(b"some salt").unwrap();
            let cheap = argon2::Params::new(8, 1, 1, None).unwrap();
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap)
                .hash_password(b"b", &salt)
                .unwrap()
                .to_string()
        };
        let users = Users::parse("users", &format!("a:{hash}")).unwrap_or_else(|_| panic!("sound"));
        guard.users.store(Some(Arc::new(users)));
        assert!(guard.admit(&parts(local, &basic)).await.is_ok());
        for headers in [
            vec![("host", "localhost")],
            vec![("host", "localhost"), ("authorization", "Basic YTpj")],
            vec![("host", "localhost"), ("authorization", "Bearer x")],
            vec![("host", "localhost"), ("authorization", "Basic %%%")],
        ] {
            let refused = guard.admit(&parts(local, &headers)).await.unwrap_err();
            assert_eq!(refused.status, 401);
        }
    }
}
