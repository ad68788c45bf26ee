//! The manual of all keys, written from their table.

use super::GROUPS;
use super::key::Key;

/// The keys as Markdown: a heading for each group, a table row for each key. Goes into `docs/OPERATING.md`.
pub fn manual() -> String {
    let mut text = String::new();
    for group in GROUPS {
        text.push_str(&format!(
            "### {}\n\n| key | default | meaning | allowed |\n|---|---|---|---|\n",
            group.title
        ));
        for key in group.keys {
            let default = if key.default.is_empty() {
                "none".to_owned()
            } else {
                format!("`{}`", key.default)
            };
            text.push_str(&format!(
                "| `{}` | {default} | {} | {} |\n",
                key.name,
                escape(&meaning(key)),
                escape(&(key.allowed)())
            ));
        }
        text.push('\n');
    }
    text
}

/// The documentation of a key in one paragraph, with what the table alone knows.
pub fn meaning(key: &Key) -> String {
    let mut text = key
        .documentation
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    if !key.aliases.is_empty() {
        let names: Vec<_> = key
            .aliases
            .iter()
            .map(|alias| format!("`{alias}`"))
            .collect();
        text.push_str(&format!(" Also read as {}.", names.join(", ")));
    }
    if key.reloadable {
        text.push_str(" Changes with `reload`.");
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}
