//! From the match of a chain's route to an expression of the router's language.
//!
//! Texts come from the catalog: one that could end a literal early is refused. Start at [`expression`].

use super::chain::{HeaderMatch, HttpMatch, QueryMatch};

/// More conditions on one route than this are refused.
const CONDITIONS_MAX: usize = 256;

/// The conditions as one expression; none when there are none. The error says which one cannot be expressed.
pub fn expression(matches: &HttpMatch) -> Result<Option<String>, String> {
    let mut parts = Vec::new();
    parts.extend(path(matches)?);
    if !matches.methods.is_empty() {
        let methods = matches
            .methods
            .iter()
            .map(|method| Ok(format!("http.method == {}", literal(method)?)))
            .collect::<Result<Vec<_>, String>>()?;
        parts.push(format!("({})", methods.join(" || ")));
    }
    for condition in &matches.header {
        parts.push(header(condition)?);
    }
    for condition in &matches.query_param {
        parts.push(query(condition)?);
    }
    if parts.len() + matches.methods.len() > CONDITIONS_MAX {
        return Err(format!("more than {CONDITIONS_MAX} conditions"));
    }
    Ok((!parts.is_empty()).then(|| parts.join(" && ")))
}

fn path(matches: &HttpMatch) -> Result<Option<String>, String> {
    let fold = matches.case_insensitive;
    let (field, folded) = match fold {
        true => ("lower(http.path)", str::to_lowercase as fn(&str) -> String),
        false => ("http.path", str::to_owned as fn(&str) -> String),
    };
    let set = [
        &matches.path_exact,
        &matches.path_prefix,
        &matches.path_regex,
    ];
    if set.iter().filter(|text| !text.is_empty()).count() > 1 {
        return Err("at most one of PathExact, PathPrefix and PathRegex is allowed".to_owned());
    }
    let predicate = |operator: &str, text: &str| -> Result<Option<String>, String> {
        Ok(Some(format!("{field} {operator} {}", literal(text)?)))
    };
    if !matches.path_exact.is_empty() {
        return predicate("==", &folded(&matches.path_exact));
    }
    if !matches.path_prefix.is_empty() {
        return predicate("^=", &folded(&matches.path_prefix));
    }
    if !matches.path_regex.is_empty() {
        let flag = if fold { "(?i)" } else { "" };
        let whole = format!("^(?:{flag}{})$", matches.path_regex);
        return Ok(Some(format!("http.path ~ {}", literal(&whole)?)));
    }
    Ok(None)
}

fn header(condition: &HeaderMatch) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if condition.name.is_empty() || !condition.name.bytes().all(plain) {
        return Err(format!(
            "Header '{}' cannot be matched, names have letters, digits, '-' and '_'",
            condition.name.escape_debug()
        ));
    }
    let name = condition.name.to_ascii_lowercase().replace('-', "_");
    let field = format!("any(http.headers.{name})");
    let comparisons = [
        ("==", &condition.exact),
        ("^=", &condition.prefix),
        ("=^", &condition.suffix),
    ];
    let predicate = predicate(&field, &comparisons, &condition.regex, condition.present)?
        .ok_or_else(|| format!("Header '{}' has no condition", condition.name))?;
    Ok(match condition.invert {
        true => format!("!({predicate})"),
        false => predicate,
    })
}

fn query(condition: &QueryMatch) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if condition.name.is_empty() || !condition.name.bytes().all(plain) {
        return Err(format!(
            "QueryParam '{}' cannot be matched, names have letters, digits, '_' and '.'",
            condition.name.escape_debug()
        ));
    }
    let field = format!("any(http.queries.{})", condition.name);
    let comparisons = [("==", &condition.exact)];
    predicate(&field, &comparisons, &condition.regex, condition.present)?
        .ok_or_else(|| format!("QueryParam '{}' has no condition", condition.name))
}

/// What is asked of a field: the first comparison with a text that is not empty, else the regex, else that it is there.
fn predicate(
    field: &str,
    comparisons: &[(&str, &String)],
    regex: &str,
    present: bool,
) -> Result<Option<String>, String> {
    if let Some((operator, text)) = comparisons.iter().find(|(_, text)| !text.is_empty()) {
        return Ok(Some(format!("{field} {operator} {}", literal(text)?)));
    }
    if !regex.is_empty() {
        let whole = literal(&format!("^(?:{regex})$"))?;
        return Ok(Some(format!("{field} ~ {whole}")));
    }
    Ok(present.then(|| format!("{field} ~ \"^\"")))
}

/// A raw literal, in which nothing has a meaning but its end.
fn literal(text: &str) -> Result<String, String> {
    if text.contains("\"#") {
        return Err(format!("'{}' cannot be matched", text.escape_debug()));
    }
    Ok(format!("r#\"{text}\"#"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::expr::{Expression, Scope};

    #[test]
    fn every_kind_of_match_parses() {
        for (text, expected) in [
            ("{}", None),
            (r#"{"PathExact":"/a"}"#, Some(r##"http.path == r#"/a"#"##)),
            (
                r#"{"PathPrefix":"/A","CaseInsensitive":true,"Methods":["GET","PUT"]}"#,
                Some(
                    r##"lower(http.path) ^= r#"/a"# && (http.method == r#"GET"# || http.method == r#"PUT"#)"##,
                ),
            ),
            (
                r#"{"PathRegex":"/[ab]+","Header":[{"Name":"X-One","Present":true,"Invert":true},{"Name":"x","Suffix":"z"}]}"#,
                Some(
                    r##"http.path ~ r#"^(?:/[ab]+)$"# && !(any(http.headers.x_one) ~ "^") && any(http.headers.x) =^ r#"z"#"##,
                ),
            ),
            (
                r#"{"QueryParam":[{"Name":"q","Exact":"1"},{"Name":"r","Regex":"[0-9]"}]}"#,
                Some(
                    r##"any(http.queries.q) == r#"1"# && any(http.queries.r) ~ r#"^(?:[0-9])$"#"##,
                ),
            ),
        ] {
            let made = expression(&serde_json::from_str(text).unwrap()).unwrap();
            assert_eq!(made.as_deref(), expected, "{text}");
            if let Some(made) = made {
                Expression::parse(&made, Scope::Http).unwrap();
            }
        }
    }

    #[test]
    fn what_could_end_a_literal_is_refused() {
        for text in [
            r##"{"PathExact":"/\"# || net.port == 1"}"##,
            r#"{"PathExact":"/a","PathPrefix":"/b"}"#,
            r#"{"Header":[{"Name":"a b","Present":true}]}"#,
            r#"{"Header":[{"Name":"a"}]}"#,
            r#"{"QueryParam":[{"Name":"a-b","Present":true}]}"#,
        ] {
            let read = serde_json::from_str(text).unwrap();
            assert!(expression(&read).is_err(), "{text}");
        }
    }
}
