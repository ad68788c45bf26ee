//! `sallyport apigee deploy`: imports a bundle into the running instance of a prefix and deploys it, as a client of its
//! management API.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use serde_json::Value;

use super::bundles;
use super::failure::Refused;
use super::{configuration, instance};
use crate::cli::Configured;
use crate::dialects::apigee::archive;

/// How long the instance may take to answer; a deploy answers when it serves.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// The variable that holds `USER:PASSWORD` for an instance with `admin_auth = basic`.
const CREDENTIALS: &str = "SALLYPORT_ADMIN_CREDENTIALS";

/// Imports and deploys; says what was done.
pub(crate) fn run(
    configured: &Configured,
    path: &Path,
    organization: Option<&str>,
    environment: Option<&str>,
) -> anyhow::Result<String> {
    let settings = configuration::load(configured)?;
    let found = bundles::read(path).map_err(|finding| Refused(vec![finding]))?;
    let organization = organization.unwrap_or(&settings.apigee.apigee_organization.0);
    let first = settings.apigee.apigee_environments.0.first();
    let environment = environment
        .or(first.map(String::as_str))
        .context("--env: is needed, no environment is configured")?;
    let packed = archive::pack(found.kind, &found.files)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let client = Client {
        address: admin_address(&instance::health(configured)?)?,
        path: path.display().to_string(),
    };
    let (kind, name) = (found.kind.word(), &found.name);
    let root = format!("/v1/organizations/{}", encoded(organization));
    let imported = client.post(
        &format!("{root}/{kind}?action=import&name={}", encoded(name)),
        "application/octet-stream",
        &packed,
    )?;
    let revision = imported
        .get("revision")
        .and_then(Value::as_str)
        .context("the instance answered without a revision")?
        .to_owned();
    client.post(
        &format!(
            "{root}/environments/{}/{kind}/{}/revisions/{}/deployments",
            encoded(environment),
            encoded(name),
            encoded(&revision)
        ),
        "application/x-www-form-urlencoded",
        b"override=true",
    )?;
    Ok(format!(
        "{}: {} {name}, revision {revision}, serves in environment {environment} of {organization}",
        path.display(),
        found.kind.title()
    ))
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The address of the Admin listener in what an instance says of its health.
fn admin_address(health: &str) -> anyhow::Result<SocketAddr> {
    let listed = health.split_once("admin_listen ").map(|(_, rest)| rest);
    let listed = listed.and_then(|rest| rest.split(';').next());
    let plain = listed
        .into_iter()
        .flat_map(|all| all.split(','))
        .find_map(|one| {
            let mut words = one.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            (!words.any(|flag| flag == "ssl")).then_some(address)
        });
    let mut address: SocketAddr =
        plain.context("admin_listen: has no address without TLS, and one is needed to deploy")?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

struct Client {
    address: SocketAddr,
    /// The bundle, for messages.
    path: String,
}

impl Client {
    fn post(&self, target: &str, kind: &str, body: &[u8]) -> anyhow::Result<Value> {
        let address = self.address;
        let talk = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            let credentials = std::env::var(CREDENTIALS).map_or_else(
                |_| String::new(),
                |pair| {
                    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
                    format!("Authorization: Basic {pair}\r\n")
                },
            );
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\n\
                 Content-Length: {}\r\n{credentials}Connection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
            let mut answer = Vec::new();
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = talk().with_context(|| format!("{address}: the instance does not answer"))?;
        let (status, body) = read_answer(&answer)
            .with_context(|| format!("{address}: the answer cannot be understood"))?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let message = body.get("message").and_then(Value::as_str);
        bail!(
            "{}: {}",
            self.path,
            message.map_or_else(|| format!("refused with status {status}"), str::to_owned)
        )
    }
}

/// Status and body of an answer with a length.
fn read_answer(answer: &[u8]) -> Option<(u16, Value)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else {
        return None;
    };
    let body = answer.get(length..)?;
    Some((
        head.code?,
        serde_json::from_slice(body).unwrap_or(Value::Null),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_admin_listener_is_found() {
        for (health, address) in [
            (
                "serves revision 1: proxy_listen 0.0.0.0:8000; admin_listen 127.0.0.1:81; status_listen [::1]:9",
                Some("127.0.0.1:81"),
            ),
            (
                "admin_listen 0.0.0.0:82, 127.0.0.1:83",
                Some("127.0.0.1:82"),
            ),
            ("proxy_listen 0.0.0.0:8000", None),
        ] {
            let found = admin_address(health).ok().map(|found| found.to_string());
            assert_eq!(found.as_deref(), address);
        }
    }

    #[test]
    fn answers_are_read() {
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 15\r\n\r\n{\"message\":\"x\"}";
        let (status, body) = read_answer(answer).unwrap();
        assert_eq!((status, body["message"].as_str()), (400, Some("x")));
        assert!(read_answer(b"HTTP/1.1 4").is_none());
    }
}
