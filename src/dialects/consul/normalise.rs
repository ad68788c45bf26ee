//! The path of a request as permissions see it, and as it is passed on.
//!
//! Two spellings of one path must not be two paths: what is compared is what the application gets. Follows what Consul
//! tells Envoy to do since its releases normalise requests. Start at [`normalise_path`].

use std::borrow::Cow;

/// The normal form of a path with its query: `\` is `/`, runs of `/` are one, escaped unreserved characters and `%2F` are
/// decoded, dot segments are gone. The query stays as it is. `None` when a path climbs above its root or holds half an
/// escape.
pub fn normalise_path(target: &str) -> Option<Cow<'_, str>> {
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    if !path.starts_with('/') {
        // `*` of OPTIONS and the like are no paths.
        return Some(Cow::Borrowed(target));
    }
    if is_normal(path) {
        return Some(Cow::Borrowed(target));
    }
    let decoded = decode(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in decoded.split('/').skip(1) {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            other => segments.push(other),
        }
    }
    let mut normal = String::with_capacity(target.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_open || segments.is_empty() {
        normal.push('/');
    }
    normal.push_str(query);
    Some(Cow::Owned(normal))
}

/// The cheap look: nothing in it that could change.
fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut before = 0;
    for &byte in bytes {
        let begins_segment = before == b'/';
        if byte == b'%' || byte == b'\\' || (begins_segment && (byte == b'/' || byte == b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

/// Decodes what has the same meaning decoded, and slashes of every kind.
fn decode(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' => decoded.push(b'/'),
            b'%' => {
                let high = char::from(*bytes.get(at)?).to_digit(16)?;
                let low = char::from(*bytes.get(at + 1)?).to_digit(16)?;
                at += 2;
                let value = u8::try_from(high << 4 | low).ok()?;
                match value {
                    b'/' | b'\\' => decoded.push(b'/'),
                    b'-' | b'.' | b'_' | b'~' => decoded.push(value),
                    _ if value.is_ascii_alphanumeric() => decoded.push(value),
                    _ => decoded.extend_from_slice(format!("%{value:02X}").as_bytes()),
                }
            }
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_has_one_spelling() {
        for (written, normal) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a/b/", Some("/a/b/")),
            ("/a/b?c=/../%2F", Some("/a/b?c=/../%2F")),
            ("/value//supersecret", Some("/value/supersecret")),
            ("/value%2Fsupersecret", Some("/value/supersecret")),
            ("/value%5csupersecret", Some("/value/supersecret")),
            ("/value/%73upersecret", Some("/value/supersecret")),
            ("/value\\supersecret", Some("/value/supersecret")),
            ("/value/\\/supersecret", Some("/value/supersecret")),
            ("/value/supersecret?", Some("/value/supersecret?")),
            ("/value/x/../supersecret", Some("/value/supersecret")),
            ("/value/./supersecret", Some("/value/supersecret")),
            ("/value/%2e%2E/supersecret", Some("/supersecret")),
            ("/value/..", Some("/")),
            ("/value/x/..", Some("/value/")),
            ("/value%2Ffoo", Some("/value/foo")),
            ("/a%20b%3f", Some("/a%20b%3F")),
            ("/.hidden", Some("/.hidden")),
            ("/a..b", Some("/a..b")),
            ("*", Some("*")),
            ("/..", None),
            ("/a/../../b", None),
            ("/a%2", None),
            ("/a%zz", None),
        ] {
            assert_eq!(normalise_path(written).as_deref(), normal, "{written}");
        }
    }
}
