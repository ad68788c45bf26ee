//! Documents of older formats, brought to the newest: `_format_version` 1.1 and 2.1.
//!
//! Until format 3.0 a path with an unusual character was a regex without saying so, and paths needed no normal form.

use serde_json::Value;

use crate::base::path;

/// Rewrites the paths of a route that was written for an older format.
pub(super) fn migrate_paths(paths: &mut Value) {
    let Value::Array(paths) = paths else { return };
    for path in paths {
        if let Value::String(text) = path {
            *text = migrated_path(text);
        }
    }
}

fn migrated_path(text: &str) -> String {
    let bytes = match is_plain(text) {
        true => path::normal_form(text.as_bytes()).into_owned(),
        false => {
            let mut marked = vec![b'~'];
            marked.extend(path::normal_regex_text(text.as_bytes()));
            marked
        }
    };
    // Decoding may leave bytes that are no text; such a path stays as written, for its own rule to judge.
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn is_plain(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~/%".contains(&byte);
    text.bytes().all(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_older_formats() {
        let cases = [
            ("/plain/path", "/plain/path"),
            ("/a/../b%2fc", "/b%2Fc"),
            ("/a//b/", "/a/b/"),
            ("/users/\\d+", "~/users/\\d+"),
            ("/a(b|c)$", "~/a(b|c)$"),
            ("/x%2ey(z)", "~/x\\.y(z)"),
        ];
        for (old, new) in cases {
            assert_eq!(migrated_path(old), new, "{old}");
        }
    }
}
