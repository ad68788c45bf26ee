//! URLs of targets, taken apart without changing a byte of path and query.

/// The parts of an absolute URL, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlParts {
    pub secure: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// Empty, or from its first slash.
    pub path: String,
    /// Without `?`.
    pub query: Option<String>,
}

impl UrlParts {
    /// Takes a URL apart.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = |reason: &str| format!("'{text}' is no URL that can be called: {reason}");
        let text = text.trim();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| refused("it has no scheme"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(refused("the scheme must be http or https")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let rest = rest.split('#').next().unwrap_or_default();
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        if authority.contains('@') {
            return Err(refused("it must not hold a user name"));
        }
        let (host, port) = crate::model::route::split_port(authority);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'"' | b'\\');
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(refused("it has no host"));
        }
        let in_line = |text: &str| text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        if !in_line(path) || !in_line(query.as_deref().unwrap_or_default()) {
            return Err(refused(
                "path and query must not hold blanks or control characters",
            ));
        }
        Ok(Self {
            secure,
            host: host.to_owned(),
            port: port.unwrap_or(if secure { 443 } else { 80 }),
            path: path.to_owned(),
            query,
        })
    }

    /// `scheme://host:port`
    pub fn authority(&self) -> String {
        let scheme = self.scheme();
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
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

    use super::*;

    #[test]
    fn takes_urls_apart() {
        let url = UrlParts::parse("https://a.test:8443/x/y?b=1#f").unwrap();
        assert_eq!(url.authority(), "https://a.test:8443");
        assert_eq!(
            (url.path.as_str(), url.query.as_deref()),
            ("/x/y", Some("b=1"))
        );
        let url = UrlParts::parse("http://[::1]?q").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("::1", 80, "")
        );
        for bad in [
            "",
            "a.test",
            "ftp://a",
            "http://",
            "http://u@a/",
            "http://{x}/",
            "http://a/b c",
        ] {
            assert!(UrlParts::parse(bad).is_err(), "{bad}");
        }
    }
}
