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

/// A configuration file in which every key stands with its default, commented out. Goes into `conf/sallyport.toml`.
pub fn sample() -> String {
    let mut text = String::new();
    for group in GROUPS {
        text.push_str(&format!("# ---- {} ----\n\n", group.title));
        for key in group.keys {
            for line in wrap(&meaning(key)) {
                text.push_str(&format!("# {line}\n"));
            }
            let default = match key.default.parse::<u64>() {
                Ok(number) => number.to_string(),
                Err(_) => format!("\"{}\"", key.default),
            };
            text.push_str(&format!("#{} = {default}\n\n", key.name));
        }
    }
    text
}

/// Breaks a text into lines that fit a page.
fn wrap(text: &str) -> Vec<String> {
    const LINE_LENGTH_MAX: usize = 110;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= LINE_LENGTH_MAX => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::settings::{Document, Form, Settings, all_keys};

    #[test]
    fn the_sample_says_what_happens_without_it() {
        let keys =
            |line: &str| all_keys().any(|key| line.starts_with(&format!("#{} = ", key.name)));
        let uncommented: String = sample()
            .lines()
            .filter(|line| keys(line))
            .map(|line| format!("{}\n", line.trim_start_matches('#')))
            .collect();
        let document = Document {
            name: "sample",
            form: Form::Toml,
            text: &uncommented,
        };
        // Empty values of paths among them warn that they are ignored.
        let (settings, _) = Settings::parse(Some(document), &[]).unwrap();
        let (defaults, _) = Settings::parse(None, &[]).unwrap();
        assert_eq!(settings.configuration(), defaults.configuration());
    }
}
