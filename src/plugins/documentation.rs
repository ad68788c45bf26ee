//! The manual's page of each plugin, made from what the plugin declares. The test fails when a page is stale;
//! `UPDATE_DOCS=1 cargo test documentation` writes them anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::model::catalog::PluginInfo;
use crate::model::schema::{Field, Kind, Record};

#[test]
fn pages_are_up_to_date() {
    let folder = root().join("docs/plugins");
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    for entry in super::table() {
        let file = folder.join(format!("{}.md", entry.info.name));
        let page = page(&entry.info);
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &page).unwrap();
        }
        let present = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            present == page,
            "docs/plugins/{}.md is stale: run `UPDATE_DOCS=1 cargo test --lib documentation`",
            entry.info.name
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(info: &PluginInfo) -> String {
    let name = info.name;
    let mut page = format!("# {name}\n\n{}\n\n", about(name));
    let scope = |allowed: bool, word: &str| {
        if allowed {
            format!(", a {word}")
        } else {
            String::new()
        }
    };
    writeln!(
        page,
        "Runs for everything{}{}{}. Priority {}. Protocols: {}{}.\n",
        scope(info.service_scope, "service"),
        scope(info.route_scope, "route"),
        scope(info.consumer_scope, "consumer or a consumer group"),
        info.priority,
        info.protocols.join(", "),
        match info.further_protocols {
            [] => String::new(),
            further => format!("; if named, also {}", further.join(", ")),
        },
    )
    .unwrap();
    if !info.credentials.is_empty() {
        let tables: Vec<String> = info.credentials.iter().map(|t| format!("`{t}`")).collect();
        writeln!(page, "Entities of its own: {}.\n", tables.join(", ")).unwrap();
    }
    writeln!(
        page,
        "```\ncurl -X POST http://localhost:8001/services/SERVICE/plugins --data name={name}\n```\n"
    )
    .unwrap();
    page.push_str("## Configuration\n\n| field | type | default | meaning |\n|---|---|---|---|\n");
    rows(&info.config, "config.", &mut page);
    if !info.config.aliases.is_empty() {
        page.push_str("\nFormer names, still accepted: ");
        let aliases = info.config.aliases.iter();
        let names: Vec<String> = aliases
            .map(|alias| format!("`{}` for `{}`", alias.name, alias.path.join(".")))
            .collect();
        writeln!(page, "{}.", names.join(", ")).unwrap();
    }
    page.push_str("\n<!-- Made from the plugin's declaration; do not edit. -->\n");
    page
}

/// The doc comment of the plugin's `Config`.
fn about(name: &str) -> String {
    let file: PathBuf = root()
        .join("src/plugins/kong")
        .join(format!("{}.rs", name.replace('-', "_")));
    let source = std::fs::read_to_string(file).unwrap();
    let (before, _) = source.split_once(" struct Config {").unwrap();
    let (before, _) = before.rsplit_once("pub").unwrap();
    let mut lines: Vec<&str> = before
        .lines()
        .rev()
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .map_while(|line| line.strip_prefix("/// "))
        .collect();
    lines.reverse();
    assert!(!lines.is_empty(), "{name}: Config has no doc comment");
    lines.join(" ")
}

fn rows(record: &Record, prefix: &str, page: &mut String) {
    for field in &record.fields {
        let default = match &field.default {
            Some(value) => format!("`{value}`"),
            None => String::new(),
        };
        let mut meaning = field.description.replace('|', "\\|");
        for (applies, note) in [
            (
                field.required && field.default.is_none() && !matches!(field.kind, Kind::Record(_)),
                "Required.",
            ),
            (field.referenceable, "May be a vault reference."),
            (field.encrypted, "A secret."),
        ] {
            if applies {
                meaning.push(' ');
                meaning.push_str(note);
            }
        }
        writeln!(
            page,
            "| `{prefix}{}` | {} | {default} | {} |",
            field.name,
            kind(field),
            meaning.trim()
        )
        .unwrap();
        if let Kind::Record(inner) = &field.kind {
            rows(inner, &format!("{prefix}{}.", field.name), page);
        }
    }
}

fn kind(field: &Field) -> String {
    let mut text = match &field.kind {
        Kind::String => "text".to_owned(),
        Kind::Integer => "whole number".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Array(element) => format!("list of {}", kind(element)),
        Kind::Set(element) => format!("set of {}", kind(element)),
        Kind::Map { values, .. } => format!("map to {}", kind(values)),
        Kind::Record(_) | Kind::Abstract => "record".to_owned(),
        Kind::Foreign(table) => format!("link to {table}"),
        Kind::Any => "anything".to_owned(),
    };
    if !field.one_of.is_empty() {
        let words: Vec<String> = field
            .one_of
            .iter()
            .map(|word| match word.as_str() {
                Some(word) => format!("`{word}`"),
                None => format!("`{word}`"),
            })
            .collect();
        text = words.join(", ");
    }
    if let Some((low, high)) = field.between {
        write!(text, " from {low} to {high}").unwrap();
    }
    if let Some(bound) = field.greater_than {
        write!(text, " above {bound}").unwrap();
    }
    text
}
